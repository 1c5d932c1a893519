//! The sessions that run, by the name of their ServiceRegistry.
//!
//! Owns the list. Refuses to start or end a session, which the controller of ServiceRegistries does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::etcd::Settings;
use super::handle::{Identity, RegistryHandle};
use crate::api::EtcdConnection;

/// The settings of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Another identity means another registry: nothing known of the old one counts.
    pub identity: Identity,
    pub connection: Settings,
    /// Where the connection came from, whose Secrets may change even after the object is gone.
    pub etcd: EtcdConnection,
}

/// The sessions that run; clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    running: Arc<Mutex<BTreeMap<String, Running>>>,
    draining: Arc<Mutex<Vec<Draining>>>,
}

/// A session that runs.
#[derive(Clone, Debug)]
pub struct Running {
    pub handle: Arc<RegistryHandle>,
    pub settings: SessionSettings,
    pub stop: CancellationToken,
}

/// The session of a ServiceRegistry that is gone, until its own records are withdrawn.
#[derive(Clone, Debug)]
pub struct Draining {
    pub running: Running,
    /// The ServiceRegistry is there again, and the session serves it.
    pub adopted: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registries {
    /// The session of a ServiceRegistry that exists and can be used.
    pub fn get(&self, name: &str) -> Option<Arc<RegistryHandle>> {
        lock(&self.running).get(name).map(|running| running.handle.clone())
    }

    /// Every session in name order, then those of deleted ServiceRegistries.
    pub fn all(&self) -> Vec<Arc<RegistryHandle>> {
        let mut all: Vec<_> = lock(&self.running).values().map(|running| running.handle.clone()).collect();
        all.extend(lock(&self.draining).iter().map(|draining| draining.running.handle.clone()));
        all
    }

    /// The sessions of ServiceRegistries; never hold the guard across an await.
    pub fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        lock(&self.running)
    }

    /// Whether two sessions have an endpoint in common, and so lead to one etcd (as for duplicates).
    pub fn have_an_endpoint_in_common(&self, a: &RegistryHandle, b: &RegistryHandle) -> bool {
        let endpoints = |of: &RegistryHandle| {
            let is = |running: &Running| std::ptr::eq(running.handle.as_ref(), of);
            let found = lock(&self.running).get(&of.name).filter(|running| is(running)).cloned();
            let drains = || lock(&self.draining).iter().map(|draining| draining.running.clone()).find(is);
            found.or_else(drains).map(|running| running.settings.connection.endpoints).unwrap_or_default()
        };
        let theirs = endpoints(b);
        endpoints(a).iter().any(|endpoint| theirs.contains(endpoint))
    }

    /// Sessions of deleted ServiceRegistries whose own records are being withdrawn; never hold the guard across an
    /// await.
    pub fn draining(&self) -> MutexGuard<'_, Vec<Draining>> {
        lock(&self.draining)
    }
}
