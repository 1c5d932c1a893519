//! The names of a registry without a common prefix that older ServiceRegistries serve in the same etcd.
//!
//! Owns the names, and whether they are proven. Refuses to compare etcds, which [`super::rivals`] does.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use twinspan_core::model::RegistryName;

/// A name that an older ServiceRegistry serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The name of the older ServiceRegistry.
    pub by: String,
    /// Whether it is known to lead to the same etcd.
    pub proven: bool,
}

/// The names of a registry without a common prefix that rivals serve.
#[derive(Debug, Default)]
pub struct TakenNames(Mutex<BTreeMap<RegistryName, Taken>>);

impl TakenNames {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RegistryName, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, name: &RegistryName) -> Option<Taken> {
        self.lock().get(name).cloned()
    }

    /// Returns true if they changed.
    pub fn set(&self, taken: BTreeMap<RegistryName, Taken>) -> bool {
        let mut known = self.lock();
        let changed = *known != taken;
        *known = taken;
        changed
    }
}
