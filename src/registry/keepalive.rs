//! The keepalives of the leases of own records.
//!
//! Owns their schedule: each lease a third of its TTL after the last, all of them on a new connection. They begin when
//! a connection stands and wait for no list. Every replica keeps the leases in its view alive, leader or not: an outage
//! of the API server, which leaves no leader, must not empty the registry. A process that has no view yet keeps alive
//! those of our leases that the registry shows. Refuses to know who leads, which is safe because a keepalive changes no
//! key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use twinspan_core::model::LeaseId;

use super::handle::RegistryHandle;
use super::{KeepAlive, Registry, RegistryError, Result};

/// Keepalives in flight at a time.
const KEEPALIVES_AT_ONCE: usize = 8;
/// Wait before a keepalive that failed is repeated.
const RETRY: Duration = Duration::from_secs(2);
/// The same for one that etcd refuses.
const REFUSED_RETRY: Duration = Duration::from_secs(20);

/// Sends keepalives until it is stopped.
pub async fn run(handle: Arc<RegistryHandle>, stop: CancellationToken) {
    let mut connections = handle.reachable();
    let mut keeper = Keeper::new(handle.clone());
    loop {
        let connected = connections.borrow_and_update().clone();
        let rounds = async {
            let Some(registry) = connected else { return std::future::pending().await };
            // A new connection may follow an outage, so every lease is due.
            keeper.all_due();
            loop {
                keeper.round(registry.as_ref()).await;
                tokio::select! {
                    biased;
                    () = handle.leases.in_use.notified() => {}
                    () = tokio::time::sleep_until(keeper.next()) => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // An answer of the connection before does not count any more.
            changed = connections.changed() => if changed.is_err() { return },
            () = rounds => {}
        }
    }
}

struct Keeper {
    handle: Arc<RegistryHandle>,
    /// Those of our leases that the registry has shown to a process without a view.
    shown: BTreeSet<LeaseId>,
    /// This connection was asked for them.
    looked: bool,
    /// The last time at which all that may be ours were taken for shown.
    guessed: Option<Instant>,
    /// The next attempt for leases that do not wait for a third of their TTL.
    again: BTreeMap<LeaseId, Instant>,
    /// The errors of the last attempts.
    errors: BTreeMap<LeaseId, RegistryError>,
}

impl Keeper {
    fn new(handle: Arc<RegistryHandle>) -> Self {
        let (shown, again, errors) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Self { handle, shown, looked: false, guessed: None, again, errors }
    }

    fn all_due(&mut self) {
        self.looked = false;
        let now = Instant::now();
        self.again = self.leases().into_iter().map(|lease| (lease, now)).collect();
    }

    /// The leases to keep alive: those that carry records or are about to.
    fn leases(&self) -> BTreeSet<LeaseId> {
        let mut leases: BTreeSet<LeaseId> = self.handle.view().own_leases().keys().copied().collect();
        leases.extend(self.handle.leases.reserved());
        if !self.handle.knows_its_records() {
            leases.extend(&self.shown);
        }
        leases.remove(&LeaseId::NONE);
        leases
    }

    /// The time of a lease's next keepalive. A lease of unknown age is due.
    fn due(&self, lease: LeaseId) -> Option<Instant> {
        self.again.get(&lease).copied().or_else(|| self.handle.leases.due(lease))
    }

    /// The time of the next round.
    fn next(&self) -> Instant {
        let now = Instant::now();
        // Another leader may grant a lease at any time.
        let longest = if self.has_to_look() { RETRY } else { self.handle.leases.ttl().div_f64(3.0) };
        let due = self.leases().into_iter().map(|lease| self.due(lease).unwrap_or(now));
        due.min().map_or(now + longest, |due| due.min(now + longest))
    }

    fn has_to_look(&self) -> bool {
        !self.looked && !self.handle.knows_its_records()
    }

    /// Keeps alive what is due. Acts on each answer as it comes.
    async fn round(&mut self, registry: &dyn Registry) {
        if self.has_to_look() {
            self.look_for_leases(registry).await;
        }
        let leases = self.leases();
        self.again.retain(|lease, _| leases.contains(lease));
        self.errors.retain(|lease, _| leases.contains(lease));
        let now = Instant::now();
        let due: Vec<LeaseId> =
            leases.into_iter().filter(|lease| self.due(*lease).is_none_or(|at| at <= now)).collect();
        let ask = |lease| async move {
            let sent = Instant::now();
            (lease, sent, registry.keep_alive(lease).await)
        };
        let mut answers = futures::stream::iter(due).map(ask).buffer_unordered(KEEPALIVES_AT_ONCE);
        while let Some((lease, sent, answer)) = answers.next().await {
            self.take(lease, sent, answer);
        }
        drop(answers);
        self.handle.record_keepalive_result(self.errors.values().next().cloned());
    }

    fn take(&mut self, lease: LeaseId, sent: Instant, answer: Result<KeepAlive>) {
        let name = &self.handle.name;
        self.again.remove(&lease);
        let before = self.errors.remove(&lease);
        match answer {
            Ok(KeepAlive::For(seconds)) => self.handle.leases.kept(lease, sent, seconds),
            Ok(KeepAlive::Gone { revision }) => {
                // etcd deletes its records with it. They are written again immediately under a new grant, even if the
                // watch has not reported their deletion yet.
                self.handle.leases.lost(lease);
                self.shown.remove(&lease);
                let affected = self.handle.view().lease_lost(lease, revision);
                if !affected.is_empty() {
                    warn!(registry = name, %lease, "a lease of ours is gone; its records are written again");
                }
                self.handle.notify(affected);
                // Records that are newer than the answer are on a lease that was granted again.
                self.again.insert(lease, Instant::now() + RETRY);
            }
            Err(error) => {
                if before.as_ref().map(RegistryError::label) != Some(error.label()) {
                    warn!(registry = name, %lease, %error, "cannot keep a lease alive; trying again");
                }
                let refused = matches!(error, RegistryError::PermissionDenied(_));
                if refused {
                    // A keepalive asks for no key, so other keys on the lease are the cause.
                    self.handle.lease_refused(lease);
                }
                self.again.insert(lease, Instant::now() + if refused { REFUSED_RETRY } else { RETRY });
                self.errors.insert(lease, error);
            }
        }
    }

    /// Finds our leases before anything is listed. etcd lists none for a user that may not read every key on every
    /// lease (`checkLeaseLeases` of server/etcdserver, 3.7), and hundreds of thousands do not fit into one answer: then
    /// any of ours may exist. A third of a TTL passes before all of them are asked for again, however often a
    /// connection ends in between.
    async fn look_for_leases(&mut self, registry: &dyn Registry) {
        let ours = self.handle.leases.ids();
        match registry.leases().await {
            Ok(all) => self.shown.extend(all.into_iter().filter(|lease| ours.contains(lease))),
            Err(error @ (RegistryError::PermissionDenied(_) | RegistryError::TooLarge(_))) => {
                let third = self.handle.leases.ttl().div_f64(3.0);
                if self.guessed.is_some_and(|at| at.elapsed() < third) {
                    return;
                }
                info!(registry = self.handle.name, %error, "cannot list the leases; keeping all alive that may be ours");
                (self.shown, self.guessed) = (ours, Some(Instant::now()));
            }
            Err(error) => {
                debug!(registry = self.handle.name, %error, "cannot list the leases; trying again");
                return;
            }
        }
        self.looked = true;
    }
}

#[cfg(test)]
#[path = "keepalive_tests.rs"]
mod tests;
