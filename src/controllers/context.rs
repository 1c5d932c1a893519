//! What every controller shares.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use twinspan_core::model::ServiceKey;

use super::addresses::AddressIndex;
use super::registries::{Guards, Registries};
use super::services::Memory;
use super::status_budget::StatusBudget;
use crate::cluster::events::Events;
use crate::cluster::view::ClusterView;
use crate::leadership::Claim;
use crate::probe::Probes;
use crate::telemetry::metrics::Metrics;
use crate::world::World;

#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub world: World,
    pub cluster: Arc<Mutex<ClusterView>>,
    pub registries: Registries,
    pub guards: Guards,
    pub probes: Probes,
    pub claim: Claim,
    pub metrics: Arc<Metrics>,
    pub events: Events,
    /// What one pass over a RegisteredService tells the next.
    pub memory: Arc<Mutex<BTreeMap<ServiceKey, Memory>>>,
    pub addresses: Arc<Mutex<AddressIndex>>,
    pub status_budget: Arc<StatusBudget>,
    /// Plan and report, and write nothing.
    pub dry_run: bool,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

impl Context {
    /// The view of the cluster, for as long as the guard lives: never across an await.
    pub fn cluster(&self) -> MutexGuard<'_, ClusterView> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn addresses(&self) -> MutexGuard<'_, AddressIndex> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn memory(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
