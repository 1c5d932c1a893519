//! The views: everything that is known, shared by whoever reads it.
//!
//! Owns the locks. Refuses to write: what may write is in [`super::writers`], so that a holder of the views alone
//! cannot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cluster::interest::AddressInterest;
use crate::cluster::view::ClusterView;
use crate::env::Env;
use crate::probe::Probes;
use crate::registry::guards::Guards;
use crate::registry::sessions::Registries;

/// Clones are the same views.
#[derive(Clone, Debug)]
pub struct Views {
    pub env: Env,
    pub cluster: Arc<Mutex<ClusterView>>,
    pub registries: Registries,
    pub guards: Guards,
    pub probes: Probes,
    interest: Arc<Mutex<AddressInterest>>,
}

impl Views {
    pub fn new(env: Env) -> Self {
        Self {
            env,
            cluster: Arc::default(),
            registries: Registries::default(),
            guards: Guards::default(),
            probes: Probes::default(),
            interest: Arc::default(),
        }
    }

    /// The view of the cluster, for as long as the guard lives: never across an await.
    pub fn cluster(&self) -> MutexGuard<'_, ClusterView> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who looks at which address; the same holds for the guard. Locked after the view of the cluster, never before.
    pub fn interest(&self) -> MutexGuard<'_, AddressInterest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
