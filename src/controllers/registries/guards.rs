//! The deletion guards of whole registries, shared by all services.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::guard::{RegistryGuard, Share};

/// By the name of the ServiceRegistry; clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Guards(Arc<Mutex<BTreeMap<String, RegistryGuard>>>);

/// What a registry as a whole holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub deletions: usize,
    pub until: Timestamp,
    /// Names the held set, for its approval.
    pub hash: String,
}

impl Guards {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RegistryGuard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a service's share. Returns whether every service of the registry has to look again.
    pub fn report(&self, registry: &str, service: &ServiceKey, share: Option<Share>, now: Timestamp) -> bool {
        self.lock().entry(registry.to_owned()).or_default().report(service, share, now)
    }

    /// Takes up a hold that status tells of.
    pub fn resume(&self, registry: &str, since: Timestamp) {
        self.lock().entry(registry.to_owned()).or_default().resume(since);
    }

    /// Until when everything is held.
    pub fn held_until(&self, registry: &str, approved: Option<&str>, now: Timestamp) -> Option<Timestamp> {
        self.lock().get(registry)?.held_until(approved, now)
    }

    pub fn held(&self, registry: &str, approved: Option<&str>, now: Timestamp) -> Option<Held> {
        let all = self.lock();
        let guard = all.get(registry)?;
        let until = guard.held_until(approved, now)?;
        Some(Held { deletions: guard.held(), until, hash: guard.hash() })
    }

    pub fn forget(&self, registry: &str) {
        self.lock().remove(registry);
    }
}
