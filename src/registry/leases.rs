//! The leases of own records in one registry.
//!
//! Owns their IDs, which follow from the registry's name and settings, so that a successor finds the same leases. Owns
//! the state of each: until when it is good, at which revision this process granted it, how many records are about to
//! hang on it, the grant under way, and whether etcd refuses it. Owns the limit of records on each; a lease without
//! records expires. Source of the limit: revoking an etcd lease with many keys blocks the server (k8s.io/apiserver caps
//! them at 1,000). Refuses to repeat keepalives, which [`super::keepalive`] does, and to know which records are on a
//! lease, which [`super::view`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};
use twinspan_core::codec::Layout;
use twinspan_core::model::{LeaseId, Revision};

use super::{Grant, KeepAlive, Registry, RegistryError, Result};

/// The maximum of records on one lease.
pub const RECORDS_PER_LEASE: usize = 500;
/// The maximum of leases of one registry, for each TTL.
const LEASES: u32 = 1024;
/// Leases that one search for room may find refused.
const REFUSED_AT_ONCE: usize = 4;
/// A search for room begins anew from the first lease after this time.
const FULL_FOR: Duration = Duration::from_secs(1);
/// The deadline of the wait for another task's grant.
const TURN: Duration = Duration::from_secs(15);

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl.max(1)).unwrap_or(1))
}

/// One lease, as far as this process knows it.
#[derive(Debug, Default)]
struct Lease {
    /// The time at which the last grant or keepalive that succeeded was sent, and the TTL of its answer.
    kept: Option<(Instant, Duration)>,
    /// The registry's revision when this process last granted it.
    granted_at: Revision,
    /// Records in flight, which the view does not have yet.
    reserved: usize,
    /// Until then no new record uses the lease, because etcd refuses it for the sake of other records on it.
    refused_until: Option<Instant>,
    /// Held by the task that grants it or keeps it alive for its record.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Attempts to make it good that have ended, and the failure of the last: a task that waited for one shares it.
    attempts: u64,
    failure: Option<RegistryError>,
}

impl Lease {
    fn is_alive(&self, now: Instant) -> bool {
        self.kept.is_some_and(|(sent, ttl)| sent + ttl > now)
    }

    /// More than two thirds of the TTL are left, so that the next keepalive comes in time for a new record as well.
    fn is_good(&self, now: Instant) -> bool {
        self.kept.is_some_and(|(sent, ttl)| sent + ttl.div_f64(3.0) > now)
    }
}

/// The leases of one registry.
#[derive(Debug)]
pub struct LeasePool {
    /// The name of the ServiceRegistry, for the log.
    registry: String,
    /// Everything that the IDs follow from, but for the TTL.
    seed: String,
    ttl_seconds: i64,
    /// The TTL in the server's last answer to a grant; the server may grant a longer one than requested.
    granted_seconds: Mutex<Option<i64>>,
    leases: Mutex<BTreeMap<LeaseId, Lease>>,
    /// The IDs of leases with our TTL, in the order in which they are filled.
    in_order: Vec<LeaseId>,
    /// A search for room found the first so many leases full, and when.
    full: Mutex<Option<(Instant, usize)>>,
    /// The IDs of leases with our TTL and with former ones.
    ids: Mutex<BTreeMap<i64, BTreeSet<LeaseId>>>,
    /// Notified when a live lease begins to carry records, another task has kept it alive, or a session has listed
    /// everything.
    pub(super) in_use: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for records on a lease, given back when it is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    pool: &'a LeasePool,
    pub lease: LeaseId,
    records: usize,
}

impl Room<'_> {
    pub fn records(&self) -> usize {
        self.records
    }

    /// Gives back what is not needed.
    pub fn shrink(&mut self, records: usize) {
        let spare = self.records.saturating_sub(records);
        self.records -= spare;
        self.pool.release(self.lease, spare);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.pool.release(self.lease, self.records);
    }
}

impl LeasePool {
    pub fn new(cluster_id: &str, registry: &str, layout: &Layout, ttl_seconds: i64) -> Self {
        let mut pool = Self {
            registry: registry.to_owned(),
            seed: format!("{cluster_id}\n{registry}\n{}\n{}", layout.format().as_str(), layout.prefix()),
            ttl_seconds,
            in_order: Vec::new(),
            full: Mutex::default(),
            granted_seconds: Mutex::default(),
            leases: Mutex::default(),
            ids: Mutex::default(),
            in_use: Notify::new(),
        };
        pool.in_order = pool.ids_of(ttl_seconds).collect();
        lock(&pool.ids).insert(ttl_seconds, pool.in_order.iter().copied().collect());
        pool
    }

    /// Takes the TTLs of earlier settings, on whose leases own records may still hang.
    pub fn set_former(&self, ttls: &[i64]) {
        let mut ids = lock(&self.ids);
        ids.retain(|ttl, _| ttls.contains(ttl) || *ttl == self.ttl_seconds);
        for ttl in ttls {
            ids.entry(*ttl).or_insert_with(|| self.ids_of(*ttl).collect());
        }
    }

    /// The n-th lease's ID: positive, and the same for every replica with the same settings.
    #[cfg(test)]
    pub fn id(&self, n: u32) -> LeaseId {
        self.id_of(self.ttl_seconds, n)
    }

    fn ids_of(&self, ttl_seconds: i64) -> impl Iterator<Item = LeaseId> {
        (0..LEASES).map(move |n| self.id_of(ttl_seconds, n))
    }

    fn id_of(&self, ttl_seconds: i64, n: u32) -> LeaseId {
        let digest = Sha256::digest(format!("{}\n{ttl_seconds}\n{n}", self.seed));
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        LeaseId((i64::from_be_bytes(bytes) & i64::MAX).max(1))
    }

    /// Every ID that one of our leases can have, those of former TTLs included.
    pub fn ids(&self) -> BTreeSet<LeaseId> {
        lock(&self.ids).values().flatten().copied().collect()
    }

    /// True if one of our leases can have the ID.
    pub fn is_ours(&self, lease: LeaseId) -> bool {
        lock(&self.ids).values().any(|ids| ids.contains(&lease))
    }

    /// The TTLs, ours included, of the settings from which these leases' IDs follow.
    pub fn ttls_of(&self, leases: impl IntoIterator<Item = LeaseId>) -> BTreeSet<i64> {
        let ids = lock(&self.ids);
        let of = |lease: LeaseId| ids.iter().find(|(_, ids)| ids.contains(&lease)).map(|(ttl, _)| *ttl);
        leases.into_iter().filter_map(of).chain([self.ttl_seconds]).collect()
    }

    /// Room for up to `wanted` records on a live lease. Only the leader calls this.
    ///
    /// The room is reserved before anything is awaited, so that concurrent writes never share it. `carried` is the
    /// number of records on a lease, as the view has it.
    ///
    /// # Errors
    /// The registry's error, or [`RegistryError::Server`] if all leases are full.
    pub async fn room(
        &self,
        registry: &dyn Registry,
        carried: impl Fn(LeaseId) -> usize,
        wanted: usize,
    ) -> Result<Room<'_>> {
        let mut refusal = RegistryError::Server(format!("{LEASES} leases with {RECORDS_PER_LEASE} records are full"));
        for _ in 0..REFUSED_AT_ONCE {
            let Some(room) = self.reserve(&carried, wanted) else { break };
            let first = lock(&self.leases).get(&room.lease).is_some_and(|lease| lease.reserved == room.records);
            match self.make_good(registry, room.lease).await {
                Ok(asked) => {
                    if asked || first {
                        self.in_use.notify_one();
                    }
                    return Ok(room);
                }
                // A keepalive needs permission for every key on the lease.
                Err(RegistryError::PermissionDenied(why)) => {
                    let _ = self.refuse(room.lease);
                    refusal = RegistryError::PermissionDenied(why);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    fn reserve(&self, carried: impl Fn(LeaseId) -> usize, wanted: usize) -> Option<Room<'_>> {
        let now = Instant::now();
        // Many records at once must not ask each full lease again; room that records gave back is found soon.
        let mut full = lock(&self.full);
        let (since, first) = full.filter(|(at, _)| *at + FULL_FOR > now).unwrap_or((now, 0));
        let (filled, open) = self.in_order.split_at(first);
        let found = self.reserve_on(open, &carried, wanted).map(|(n, room)| (first + n, room));
        let found = found.or_else(|| self.reserve_on(filled, &carried, wanted));
        *full = found.as_ref().map(|(n, _)| (since, *n));
        found.map(|(_, room)| room)
    }

    /// Room on the first of these leases that has some, and its place among them.
    fn reserve_on(
        &self,
        ids: &[LeaseId],
        carried: impl Fn(LeaseId) -> usize,
        wanted: usize,
    ) -> Option<(usize, Room<'_>)> {
        let now = Instant::now();
        let mut leases = lock(&self.leases);
        for (n, id) in ids.iter().copied().enumerate() {
            let lease = leases.entry(id).or_default();
            if lease.refused_until.is_some_and(|until| until > now) {
                continue;
            }
            let used = carried(id);
            let records = RECORDS_PER_LEASE.saturating_sub(used + lease.reserved).min(wanted.max(1));
            if records > 0 {
                lease.reserved += records;
                return Some((n, Room { pool: self, lease: id, records }));
            }
        }
        None
    }

    fn release(&self, id: LeaseId, records: usize) {
        if let Some(lease) = lock(&self.leases).get_mut(&id) {
            lease.reserved = lease.reserved.saturating_sub(records);
        }
    }

    /// Grants a lease, or keeps it alive, unless it is good. One task does so at a time, and the others wait for it.
    /// Returns true if this task did.
    async fn make_good(&self, registry: &dyn Registry, id: LeaseId) -> Result<bool> {
        let (turn, before) = {
            let mut leases = lock(&self.leases);
            let lease = leases.entry(id).or_default();
            if lease.is_good(Instant::now()) {
                return Ok(false);
            }
            (lease.turn.clone(), lease.attempts)
        };
        let seconds = TURN.as_secs();
        let _turn =
            timeout(TURN, turn.lock()).await.map_err(|_| RegistryError::Timeout { what: "lease grant", seconds })?;
        let alive = {
            let mut leases = lock(&self.leases);
            let (lease, now) = (leases.entry(id).or_default(), Instant::now());
            match &lease.failure {
                _ if lease.is_good(now) => return Ok(false),
                // Another attempt would fail as well.
                Some(failure) if lease.attempts != before => return Err(failure.clone()),
                _ => lease.is_alive(now),
            }
        };
        let result = self.grant_or_keep(registry, id, alive).await;
        if let Some(lease) = lock(&self.leases).get_mut(&id) {
            lease.attempts += 1;
            lease.failure = result.as_ref().err().cloned();
        }
        result.map(|()| true)
    }

    async fn grant_or_keep(&self, registry: &dyn Registry, id: LeaseId, alive: bool) -> Result<()> {
        if alive && self.keep(registry, id).await? {
            return Ok(());
        }
        let sent = Instant::now();
        match registry.grant(id, self.ttl_seconds).await? {
            Grant::Granted { ttl, revision } => {
                debug!(registry = self.registry, lease = %id, ttl_seconds = ttl, "granted");
                *lock(&self.granted_seconds) = Some(ttl);
                self.kept(id, sent, ttl);
                lock(&self.leases).entry(id).or_default().granted_at = revision;
                Ok(())
            }
            Grant::Exists if self.keep(registry, id).await? => Ok(()),
            // The lease expired between the two requests: the next attempt grants it.
            Grant::Exists => Err(RegistryError::LeaseGone),
        }
    }

    /// Returns false if the lease is gone.
    async fn keep(&self, registry: &dyn Registry, id: LeaseId) -> Result<bool> {
        let sent = Instant::now();
        match registry.keep_alive(id).await? {
            KeepAlive::For(ttl) => {
                *lock(&self.granted_seconds) = Some(ttl);
                self.kept(id, sent, ttl);
                Ok(true)
            }
            KeepAlive::Gone { .. } => {
                self.lost(id);
                Ok(false)
            }
        }
    }

    /// A grant or a keepalive that was sent then succeeded: the lease lives for its TTL from then on.
    pub(super) fn kept(&self, id: LeaseId, sent: Instant, ttl_seconds: i64) {
        let mut leases = lock(&self.leases);
        let lease = leases.entry(id).or_default();
        lease.kept = Some((sent, seconds(ttl_seconds)));
        lease.refused_until = None;
    }

    /// The lease is gone: it has to be granted again before its next use.
    pub fn lost(&self, id: LeaseId) {
        if let Some(lease) = lock(&self.leases).get_mut(&id) {
            (lease.kept, lease.refused_until) = (None, None);
        }
    }

    /// etcd refuses the lease, because our user may not write every key on it. A record that it may write moves to
    /// another lease; this one is tried again when it has expired. Returns true if it was not refused before.
    pub(super) fn refuse(&self, id: LeaseId) -> bool {
        let ttl = self.ttl();
        let mut leases = lock(&self.leases);
        let lease = leases.entry(id).or_default();
        let now = Instant::now();
        let news = lease.refused_until.is_none_or(|until| until <= now);
        lease.refused_until = Some(now + 2 * ttl);
        if news {
            warn!(
                registry = self.registry,
                lease = %id,
                "our user may not write every record on a lease of ours; the others move to another one"
            );
        }
        news
    }

    /// Whether this process granted the lease after a record on it was written: the record was on an earlier lease
    /// with the same ID, which had ended. Waits for a grant under way, whose lease others may see before its answer.
    pub(super) async fn is_granted_since(&self, id: LeaseId, written: Revision) -> bool {
        let turn = lock(&self.leases).get(&id).map(|lease| lease.turn.clone());
        if let Some(turn) = turn {
            // A grant whose answer is lost tells no revision either.
            let _ = timeout(TURN, turn.lock()).await;
        }
        lock(&self.leases).get(&id).is_some_and(|lease| lease.granted_at >= written)
    }

    /// The registry came back as an older or another one, whose revisions cannot be compared with known ones.
    pub(super) fn forget_grants(&self) {
        lock(&self.leases).values_mut().for_each(|lease| lease.granted_at = 0);
    }

    /// Leases that etcd refuses.
    pub(super) fn refused(&self) -> BTreeSet<LeaseId> {
        let now = Instant::now();
        let leases = lock(&self.leases);
        let refused = leases.iter().filter(|(_, lease)| lease.refused_until.is_some_and(|until| until > now));
        refused.map(|(id, _)| *id).collect()
    }

    /// Live leases on which records are about to hang.
    pub(super) fn reserved(&self) -> BTreeSet<LeaseId> {
        let leases = lock(&self.leases);
        leases.iter().filter(|(_, lease)| lease.reserved > 0 && lease.kept.is_some()).map(|(id, _)| *id).collect()
    }

    /// The number of leases that live, as far as this process knows.
    pub fn living(&self) -> usize {
        let now = Instant::now();
        lock(&self.leases).values().filter(|lease| lease.is_alive(now)).count()
    }

    /// How long our records survive after the last replica stops.
    pub fn ttl(&self) -> Duration {
        seconds(lock(&self.granted_seconds).unwrap_or(self.ttl_seconds))
    }

    /// The time of a lease's next keepalive, a third of its TTL after the last; `None` if it is due already, because
    /// nothing is known of it.
    pub(super) fn due(&self, id: LeaseId) -> Option<Instant> {
        lock(&self.leases).get(&id)?.kept.map(|(sent, ttl)| sent + ttl.div_f64(3.0))
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
