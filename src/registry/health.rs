//! The health of a connected registry: the writes and keepalives that it rejects.
//!
//! Owns the last errors, and the results that clear them. Refuses to know the state of the session, the fence and the
//! Lease, which have errors of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use twinspan_core::model::ServiceKey;

use super::RegistryError;

#[derive(Debug, Default)]
struct Errors {
    /// The error of the last round of keepalives.
    keepalive: Option<RegistryError>,
    /// The error of the last write for each RegisteredService, until all its writes succeed or it has none.
    writes: BTreeMap<ServiceKey, RegistryError>,
}

impl Errors {
    fn first(&self, writes: bool) -> Option<&RegistryError> {
        let writes = self.writes.values().next().filter(|_| writes);
        writes.or(self.keepalive.as_ref())
    }
}

/// The health of one registry.
#[derive(Debug, Default)]
pub struct Health(Mutex<Errors>);

impl Health {
    /// Takes the result of a round of keepalives. Returns true if the first error changed.
    pub fn keepalive_result(&self, error: Option<RegistryError>) -> bool {
        self.change(|errors| errors.keepalive = error)
    }

    /// Takes the result of the last writes for a RegisteredService. Returns true if the first error changed.
    pub fn write_result(&self, by: &ServiceKey, error: Option<RegistryError>) -> bool {
        self.change(|errors| match error.filter(lasts) {
            Some(error) => drop(errors.writes.insert(by.clone(), error)),
            None => drop(errors.writes.remove(by)),
        })
    }

    /// The RegisteredServices whose last writes were refused.
    pub fn refused_services(&self) -> BTreeSet<ServiceKey> {
        self.lock().writes.keys().cloned().collect()
    }

    pub fn keepalives_fail(&self) -> bool {
        self.lock().keepalive.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Errors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first error; only the leader has errors of writes.
    pub fn first(&self, leads: bool) -> Option<RegistryError> {
        self.lock().first(leads).cloned()
    }

    fn change(&self, change: impl FnOnce(&mut Errors)) -> bool {
        let mut errors = self.lock();
        let before = errors.first(true).map(RegistryError::label);
        change(&mut errors);
        before != errors.first(true).map(RegistryError::label)
    }
}

/// True if the registry itself rejects writes. Leadership, session and epoch are reported elsewhere, and the next write
/// grants a lost lease again.
fn lasts(error: &RegistryError) -> bool {
    match error {
        RegistryError::NotLeader
        | RegistryError::NotSole
        | RegistryError::NotConnected
        | RegistryError::NoEpoch
        | RegistryError::LeaseUnconfirmed(_)
        | RegistryError::Fenced
        | RegistryError::ClusterIdInUse { .. }
        | RegistryError::LeaseGone
        | RegistryError::Panicked(_) => false,
        RegistryError::Unreachable(_)
        | RegistryError::Timeout { .. }
        | RegistryError::AuthFailed(_)
        | RegistryError::PermissionDenied(_)
        | RegistryError::TlsFailed(_)
        | RegistryError::Secret(_)
        | RegistryError::Compacted(_)
        | RegistryError::WatchEnded(_)
        | RegistryError::Silent { .. }
        | RegistryError::NoSpace(_)
        | RegistryError::Server(_)
        | RegistryError::TooLarge(_)
        | RegistryError::Rejected(_)
        | RegistryError::TooManyOps => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_ends_with_a_success_of_its_own_kind() {
        let health = Health::default();
        let [x, y] = ["x", "y"].map(|name| ServiceKey::new("shop", name));
        let full = || Some(RegistryError::NoSpace("3 GB".into()));
        assert!(
            health.write_result(&x, full()) && !health.write_result(&x, full()),
            "a repeated error is not a change"
        );
        assert!(!health.write_result(&y, full()));
        assert_eq!((health.first(true), health.first(false)), (full(), None), "only a leader has errors of writes");
        assert!(
            !health.keepalive_result(None) && !health.write_result(&x, None),
            "the other service still has an error"
        );
        assert!(health.write_result(&y, None));
        assert!(health.keepalive_result(full()));
        assert_eq!(health.first(false), full());
        assert!(!health.write_result(&x, Some(RegistryError::Fenced)), "a lost fence is not an error of the registry");
        assert!(health.keepalive_result(None));
        assert_eq!(health.first(true), None);
    }
}
