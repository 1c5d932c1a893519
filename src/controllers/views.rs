//! The views: everything that is known, shared by all readers.
//!
//! Owns the locks. Refuses to write: the writers are in [`super::writers`], and a [`RegistryHandle`] writes only with
//! the claim to lead that they have.
//!
//! [`RegistryHandle`]: crate::registry::handle::RegistryHandle

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::discoveries::Discoveries;
use super::gates::book::Gates;
use super::record_changes::RecordChanges;
use crate::cluster::interest::AddressInterest;
use crate::cluster::view::ClusterView;
use crate::env::Env;
use crate::probe::Probes;
use crate::registry::guards::Guards;
use crate::registry::sessions::Registries;

/// All views; clones share them.
#[derive(Clone, Debug)]
pub struct Views {
    pub env: Env,
    pub cluster: Arc<Mutex<ClusterView>>,
    pub registries: Registries,
    pub guards: Guards,
    pub probes: Probes,
    pub discoveries: Discoveries,
    /// The verdicts of passes on readiness gates; none are kept where the operator may open no gate.
    pub gates: Gates,
    pub record_changes: RecordChanges,
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
            discoveries: Discoveries::default(),
            gates: Gates::default(),
            record_changes: RecordChanges::default(),
            interest: Arc::default(),
        }
    }

    /// The same views for a reader whose interest in addresses is no business of the controllers.
    pub fn for_reader(&self) -> Self {
        Self { interest: Arc::default(), ..self.clone() }
    }

    /// Locks the view of the cluster. The guard must not live across an await.
    pub fn cluster(&self) -> MutexGuard<'_, ClusterView> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the interest in addresses. The guard must not live across an await, and is taken after that of the
    /// cluster.
    pub fn interest(&self) -> MutexGuard<'_, AddressInterest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use twinspan_core::model::ServiceKey;

    use super::*;

    #[test]
    fn a_reader_changes_no_interest_of_the_controllers() {
        let (views, key, ip) = (Views::new(Env::real()), ServiceKey::new("shop", "user"), [10, 0, 0, 1].into());
        views.interest().set(&key, &BTreeSet::from([ip]));
        views.for_reader().interest().set(&key, &BTreeSet::new());
        assert_eq!(views.interest().of_ip(ip).collect::<Vec<_>>(), [&key]);
    }
}
