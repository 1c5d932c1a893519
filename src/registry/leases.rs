//! The leases of own records in one registry.
//!
//! Owns their IDs, which follow from the registry's name and settings, so that a successor finds the same leases. Owns
//! the limit of records on each; a lease without records expires. Source of the limit: revoking an etcd lease with many
//! keys blocks the server (k8s.io/apiserver caps them at 1,000). Refuses to repeat keepalives, which
//! [`super::keepalive`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tracing::debug;
use twinspan_core::codec::Layout;
use twinspan_core::model::LeaseId;

use super::{Grant, KeepAlive, Registry, RegistryError, Result};

/// The maximum of records on one lease.
pub const RECORDS_PER_LEASE: usize = 500;
/// The maximum of leases of one registry.
const LEASES: u32 = 1024;

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl.max(1)).unwrap_or(1))
}

/// The leases of one registry.
#[derive(Debug)]
pub struct LeasePool {
    seed: String,
    ttl_seconds: i64,
    /// The TTL in the server's last answer; the server may grant a longer one than requested.
    granted_seconds: Mutex<Option<i64>>,
    /// Leases that live according to a grant or a keepalive.
    living: Mutex<BTreeSet<LeaseId>>,
    /// Records in flight, which the view does not have yet.
    reserved: Mutex<BTreeMap<LeaseId, usize>>,
    /// Notified when a lease was granted and its first keepalive is due.
    pub(super) granted: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LeasePool {
    pub fn new(cluster_id: &str, registry: &str, layout: &Layout, ttl_seconds: i64) -> Self {
        let seed =
            format!("{cluster_id}\n{registry}\n{}\n{}\n{ttl_seconds}", layout.format().as_str(), layout.prefix());
        Self {
            seed,
            ttl_seconds,
            granted_seconds: Mutex::default(),
            living: Mutex::default(),
            reserved: Mutex::default(),
            granted: Notify::new(),
        }
    }

    /// The n-th lease's ID: positive, and the same for every replica with the same settings.
    pub fn id(&self, n: u32) -> LeaseId {
        let digest = Sha256::digest(format!("{}\n{n}", self.seed));
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        LeaseId((i64::from_be_bytes(bytes) & i64::MAX).max(1))
    }

    /// Every ID that one of our leases can have.
    pub fn ids(&self) -> BTreeSet<LeaseId> {
        (0..LEASES).map(|n| self.id(n)).collect()
    }

    /// A live lease with room for at least one more record, and its room. Only the leader calls this.
    ///
    /// # Errors
    /// The registry's error, or [`RegistryError::Server`] if all leases are full.
    pub async fn with_room(
        &self,
        registry: &dyn Registry,
        carried: &BTreeMap<LeaseId, usize>,
    ) -> Result<(LeaseId, usize)> {
        for n in 0..LEASES {
            let lease = self.id(n);
            let reserved = lock(&self.reserved).get(&lease).copied().unwrap_or_default();
            let room = RECORDS_PER_LEASE.saturating_sub(carried.get(&lease).copied().unwrap_or_default() + reserved);
            if room > 0 {
                self.ensure_living(registry, lease).await?;
                return Ok((lease, room));
            }
        }
        Err(RegistryError::Server(format!("{LEASES} leases with {RECORDS_PER_LEASE} records each are full")))
    }

    async fn ensure_living(&self, registry: &dyn Registry, lease: LeaseId) -> Result<()> {
        if lock(&self.living).contains(&lease) {
            return Ok(());
        }
        let seconds = match registry.grant(lease, self.ttl_seconds).await? {
            Grant::Granted(seconds) => seconds,
            Grant::Exists => match registry.keep_alive(lease).await? {
                KeepAlive::For(seconds) => seconds,
                // The lease expired between the two requests: the next attempt grants it.
                KeepAlive::Gone => return Err(RegistryError::LeaseGone),
            },
        };
        *lock(&self.granted_seconds) = Some(seconds);
        debug!(%lease, ttl = self.ttl_seconds, "lease is ready");
        lock(&self.living).insert(lease);
        self.granted.notify_one();
        Ok(())
    }

    /// Reserves room for records in flight.
    pub fn reserve(&self, lease: LeaseId, records: usize) {
        *lock(&self.reserved).entry(lease).or_default() += records;
    }

    pub fn release(&self, lease: LeaseId, records: usize) {
        let mut reserved = lock(&self.reserved);
        if let Some(count) = reserved.get_mut(&lease) {
            *count = count.saturating_sub(records);
            if *count == 0 {
                reserved.remove(&lease);
            }
        }
    }

    /// The lease is gone: it has to be granted again before its next use.
    pub fn lost(&self, lease: LeaseId) {
        lock(&self.living).remove(&lease);
    }

    pub(super) fn lives(&self, lease: LeaseId) {
        lock(&self.living).insert(lease);
    }

    /// How long our records survive after the last replica stops.
    pub fn ttl(&self) -> Duration {
        seconds(lock(&self.granted_seconds).unwrap_or(self.ttl_seconds))
    }

    /// Time until the next keepalives: a third of the shortest TTL. The last granted lease counts even if it carries no
    /// record yet. Leases from before a change of `spec` keep their own TTL.
    pub(super) fn interval(&self, shortest: Option<i64>) -> Duration {
        let granted = *lock(&self.granted_seconds);
        let ttl = shortest.into_iter().chain(granted).min().unwrap_or(self.ttl_seconds);
        seconds(ttl).div_f64(3.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::codec::Format;

    #[test]
    fn ids_follow_from_the_settings_and_from_nothing_else() {
        let pool = |cluster: &str, name: &str, prefix: &str, ttl| {
            LeasePool::new(cluster, name, &Layout::new(Format::Kitex, prefix), ttl)
        };
        let main = pool("c", "main", "p", 300);
        assert_eq!(main.id(3), pool("c", "main", "p", 300).id(3));
        let others = [
            main.id(1),
            pool("d", "main", "p", 300).id(0),
            pool("c", "x", "p", 300).id(0),
            pool("c", "main", "q", 300).id(0),
            pool("c", "main", "p", 60).id(0),
        ];
        for other in others {
            assert!(other.0 > 0);
            assert_ne!(other, main.id(0));
        }
    }
}
