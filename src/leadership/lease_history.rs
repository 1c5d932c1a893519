//! The history of the Lease: its present and recent holders, from live reads.
//!
//! An epoch in a registry names the leader that raised it. Owns whether the Lease explains that name: this holder has
//! the Lease, or had it within two lease durations. The election does not expose its reads, so this module reads the
//! Lease too: when a process starts, every [`POLL`] while it stands by, and before it raises an epoch. Refuses to take
//! part in the election.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{LEASE, LEASE_DURATION, Leadership};

/// The deadline of one read.
pub(super) const CALL: Duration = Duration::from_secs(5);
/// Time between two reads while the process stands by; shorter than a Lease lasts, so that no holder is missed.
const POLL: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct LeaseHistory {
    /// `None` without an election: then no other holder is explained.
    api: Option<Api<Lease>>,
    identity: String,
    last_seen: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl std::fmt::Debug for LeaseHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseHistory").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl LeaseHistory {
    pub fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self { api: Some(Api::namespaced(client, namespace)), ..Self::alone(identity) }
    }

    /// Without an election.
    pub fn alone(identity: &str) -> Self {
        Self { api: None, identity: identity.to_owned(), last_seen: Arc::default() }
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Reads the Lease. Returns true if we hold it.
    ///
    /// # Errors
    /// The Lease could not be read.
    pub async fn confirm(&self) -> Result<bool, LeaseReadError> {
        let Some(api) = &self.api else { return Ok(true) };
        let lease = timeout(CALL, api.get_opt(LEASE)).await.map_err(|_| LeaseReadError::Timeout)??;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        let ours = holder == self.identity;
        let mut last_seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
        last_seen.retain(|_, at| at.elapsed() < 2 * LEASE_DURATION);
        last_seen.insert(holder, Instant::now());
        Ok(ours)
    }

    /// True if the Lease explains that this holder raised an epoch. A leader that ended left its epoch with an empty
    /// holder.
    pub fn held_recently(&self, holder: &str) -> bool {
        let last_seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
        holder.is_empty()
            || holder == self.identity
            || last_seen.get(holder).is_some_and(|at| at.elapsed() < 2 * LEASE_DURATION)
    }

    /// Reads the Lease every [`POLL`] while this process does not lead.
    pub async fn poll(&self, leadership: Leadership, stop: CancellationToken) {
        loop {
            if !leadership.is_leader()
                && let Err(error) = self.confirm().await
            {
                debug!(%error, "cannot read the Lease");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// The reasons why the Lease could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LeaseReadError {
    #[error("the API server did not answer within {} s", CALL.as_secs())]
    Timeout,
    #[error("cannot read the Lease: {0}")]
    Api(Box<kube::Error>),
}

impl From<kube::Error> for LeaseReadError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_holder_explains_for_two_lease_durations() {
        let lease_history = LeaseHistory::alone("me");
        assert!(
            lease_history.held_recently("me")
                && lease_history.held_recently("")
                && !lease_history.held_recently("other")
        );
        lease_history.last_seen.lock().unwrap().insert("other".to_owned(), Instant::now());
        tokio::time::advance(2 * LEASE_DURATION - Duration::from_secs(1)).await;
        assert!(lease_history.held_recently("other"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!lease_history.held_recently("other"));
        assert!(lease_history.confirm().await.unwrap(), "without an election no other process can lead");
    }
}
