//! The sessions that run: what everyone else sees of this room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::settings::Wanted;
use crate::registry::handle::RegistryHandle;

/// The sessions that run, shared by everyone.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    pub(super) running: Arc<Mutex<BTreeMap<String, Running>>>,
    pub(super) departing: Arc<Mutex<Vec<Arc<RegistryHandle>>>>,
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub handle: Arc<RegistryHandle>,
    pub wanted: Wanted,
    pub stop: CancellationToken,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registries {
    /// The session of a ServiceRegistry that is there and can be used.
    pub fn get(&self, name: &str) -> Option<Arc<RegistryHandle>> {
        lock(&self.running).get(name).map(|running| running.handle.clone())
    }

    /// Every session, those of deleted ServiceRegistries too.
    pub fn all(&self) -> Vec<Arc<RegistryHandle>> {
        let mut all: Vec<_> = lock(&self.running).values().map(|running| running.handle.clone()).collect();
        all.extend(lock(&self.departing).iter().cloned());
        all
    }
}
