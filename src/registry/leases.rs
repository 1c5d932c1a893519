//! The leases that own records hang on.
//!
//! Owns their IDs, which follow from the registry's name and settings, so that a successor finds the same leases, and how many
//! records each carries. A lease that carries nothing is left to expire. Source of the limits: etcd leases with many keys block
//! the server when they are revoked (k8s.io/apiserver caps them at 1,000). Keeping them alive is [`super::keeper`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tracing::debug;
use twinspan_core::codec::Layout;
use twinspan_core::model::LeaseId;

use super::{Grant, KeepAlive, Registry, RegistryError, Result};

/// The most records on one lease.
pub const RECORDS_PER_LEASE: usize = 500;
/// The most leases of one registry.
const LEASES: u32 = 1024;

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl.max(1)).unwrap_or(1))
}

/// The leases of one registry.
#[derive(Debug)]
pub struct LeasePool {
    seed: String,
    ttl_seconds: i64,
    /// What the server made of it, as its last answer said; it may grant longer leases than it is asked for.
    granted_seconds: Mutex<Option<i64>>,
    /// Leases that a grant or a keepalive has shown to live.
    living: Mutex<BTreeSet<LeaseId>>,
    /// Records that are being written and that the view does not show yet.
    reserved: Mutex<BTreeMap<LeaseId, usize>>,
    /// A lease was granted: its first keepalive is due.
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

    /// Every ID that a lease of ours can have.
    pub fn ids(&self) -> BTreeSet<LeaseId> {
        (0..LEASES).map(|n| self.id(n)).collect()
    }

    /// A lease that lives and has room for at least one more record, and how many it takes. Only the leader asks for one.
    ///
    /// # Errors
    /// What the registry answered, or [`RegistryError::Server`] where all leases are full.
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
                // It expired between the two: the next attempt grants it.
                KeepAlive::Gone => return Err(RegistryError::LeaseGone),
            },
        };
        *lock(&self.granted_seconds) = Some(seconds);
        debug!(%lease, ttl = self.ttl_seconds, "lease is ready");
        lock(&self.living).insert(lease);
        self.granted.notify_one();
        Ok(())
    }

    /// Keeps room for records that are being written.
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

    /// The registry says that the lease is gone: it is granted anew before it is used again.
    pub fn lost(&self, lease: LeaseId) {
        lock(&self.living).remove(&lease);
    }

    pub(super) fn lives(&self, lease: LeaseId) {
        lock(&self.living).insert(lease);
    }

    /// How long a lease of ours outlives everybody.
    pub fn ttl(&self) -> Duration {
        seconds(lock(&self.granted_seconds).unwrap_or(self.ttl_seconds))
    }

    /// When leases have to be kept alive again of which the shortest has this TTL: after a third of it, or of that of the last
    /// granted one, which may carry nothing yet. Where another TTL was in force, records hang on leases with that one.
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
