//! The deletion guards of whole registries, shared by all services.

use std::collections::{BTreeMap, BTreeSet};
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
    pub since: Timestamp,
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

    /// Releases everything that is held, if that is what the hash names. Returns whether every service has to look again.
    pub fn approve(&self, registry: &str, hash: &str, now: Timestamp) -> bool {
        self.lock().get_mut(registry).is_some_and(|guard| guard.approve(hash, now))
    }

    /// What was approved of a service.
    pub fn released(&self, registry: &str, service: &ServiceKey) -> BTreeSet<String> {
        self.lock().get(registry).and_then(|guard| guard.released(service).cloned()).unwrap_or_default()
    }

    /// From when, and until when, everything is held.
    pub fn held_since_until(&self, registry: &str, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        self.lock().get(registry)?.held(now)
    }

    pub fn held(&self, registry: &str, now: Timestamp) -> Option<Held> {
        let all = self.lock();
        let guard = all.get(registry)?;
        let (since, until) = guard.held(now)?;
        Some(Held { deletions: guard.deletions(), since, until, hash: guard.hash() })
    }

    pub fn forget(&self, registry: &str) {
        self.lock().remove(registry);
    }
}
