//! What is wrong with a registry although its session stands: writes and keepalives that it refuses.
//!
//! Owns what is remembered of them, and when it counts no more. Refuses to know what a session is going through.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use twinspan_core::model::ServiceKey;

use super::RegistryError;

#[derive(Debug, Default)]
struct Errors {
    /// Of the last round, while that is not repeated with success.
    keepalive: Option<RegistryError>,
    /// By whose records were to be written: it ends when all that one wants is written, or when it wants nothing any more.
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
    /// What a round of keepalives met. Returns whether that is news.
    pub fn keepalive_result(&self, error: Option<RegistryError>) -> bool {
        self.change(|errors| errors.keepalive = error)
    }

    /// How the last writes for one RegisteredService ended. Returns whether that is news.
    pub fn write_result(&self, by: &ServiceKey, error: Option<RegistryError>) -> bool {
        self.change(|errors| match error.filter(lasts) {
            Some(error) => drop(errors.writes.insert(by.clone(), error)),
            None => drop(errors.writes.remove(by)),
        })
    }

    /// The first of them; those of writes concern only who leads.
    pub fn first(&self, leads: bool) -> Option<RegistryError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first(leads).cloned()
    }

    fn change(&self, change: impl FnOnce(&mut Errors)) -> bool {
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = errors.first(true).map(RegistryError::label);
        change(&mut errors);
        before != errors.first(true).map(RegistryError::label)
    }
}

/// Whether it is the registry that refuses, and not our turn that has not come. Who leads, where the session stands and whose the epoch is
/// are told elsewhere; a lease that is gone is granted again at once.
fn lasts(error: &RegistryError) -> bool {
    match error {
        RegistryError::NotLeader
        | RegistryError::NotSole
        | RegistryError::NotConnected
        | RegistryError::NoEpoch
        | RegistryError::LeaseUnconfirmed(_)
        | RegistryError::Fenced
        | RegistryError::ClusterIdInUse { .. }
        | RegistryError::LeaseGone => false,
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
        | RegistryError::Server(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ends_with_a_success_of_its_own_kind() {
        let health = Health::default();
        let [x, y] = ["x", "y"].map(|name| ServiceKey::new("shop", name));
        let full = || Some(RegistryError::NoSpace("3 GB".into()));
        assert!(health.write_result(&x, full()) && !health.write_result(&x, full()), "the same again is no news");
        assert!(!health.write_result(&y, full()));
        assert_eq!((health.first(true), health.first(false)), (full(), None), "who does not lead writes nothing");
        assert!(!health.keepalive_result(None) && !health.write_result(&x, None), "the other one still waits");
        assert!(health.write_result(&y, None));
        assert!(health.keepalive_result(full()));
        assert_eq!(health.first(false), full());
        assert!(!health.write_result(&x, Some(RegistryError::Fenced)), "somebody else's turn is no trouble");
        assert!(health.keepalive_result(None));
        assert_eq!(health.first(true), None);
    }
}
