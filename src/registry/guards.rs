//! The deletion guards of whole registries, shared by all services.
//!
//! Owns one guard for each ServiceRegistry. Refuses to decide: [`twinspan_core::plan::departure::registry_guard`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::departure::held::Hold;
use twinspan_core::plan::departure::registry_guard::{RegistryGuard, ServiceDeletions};

/// The guards by the name of the ServiceRegistry; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Guards(Arc<Mutex<BTreeMap<String, RegistryGuard>>>);

/// The held deletions of a whole registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHold {
    pub deletions: usize,
    pub hold: Hold,
    /// Identifies the held set, for its approval.
    pub hash: String,
}

impl Guards {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RegistryGuard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the report of one service. Returns true if every service of the registry has to be reconciled.
    pub fn report(
        &self,
        registry: &str,
        service: &ServiceKey,
        deletions: Option<ServiceDeletions>,
        now: Timestamp,
    ) -> bool {
        self.lock().entry(registry.to_owned()).or_default().report(service, deletions, now)
    }

    /// Restores a hold from the status.
    pub fn restore(&self, registry: &str, since: Timestamp) {
        self.lock().entry(registry.to_owned()).or_default().restore(since);
    }

    /// Releases every held deletion if the hash identifies the held set. Returns true if every service has to be
    /// reconciled.
    pub fn approve(&self, registry: &str, hash: &str, now: Timestamp) -> bool {
        self.lock().get_mut(registry).is_some_and(|guard| guard.approve(hash, now))
    }

    /// The approved deletions of a service.
    pub fn released(&self, registry: &str, service: &ServiceKey) -> BTreeSet<String> {
        self.lock().get(registry).and_then(|guard| guard.released(service).cloned()).unwrap_or_default()
    }

    pub fn hold(&self, registry: &str, now: Timestamp) -> Option<Hold> {
        self.lock().get(registry)?.hold(now)
    }

    /// The hold with the number of its deletions and the hash that approves them.
    pub fn held(&self, registry: &str, now: Timestamp) -> Option<RegistryHold> {
        let all = self.lock();
        let guard = all.get(registry)?;
        Some(RegistryHold { hold: guard.hold(now)?, deletions: guard.deletions(), hash: guard.hash() })
    }

    pub fn forget(&self, registry: &str) {
        self.lock().remove(registry);
    }
}
