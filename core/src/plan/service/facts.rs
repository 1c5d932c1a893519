//! The facts that a pass over one RegisteredService rests on: the state of both sides at one moment, as values.
//!
//! Owns the questions that follow from the facts alone: proof, pods, addresses in question. Refuses to know API
//! objects, handles and locks: the operator's controller reads the views and fills in the facts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;

use super::checkpoint::{Checkpoint, Place, Term};
use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{
    InstanceAddr, Owner, PodView, Record, RecordKey, RegistryName, Revision, ServiceKey, ServiceView, Slice,
};
use crate::plan::departure::held::{HeldDeletions, Hold};
use crate::plan::departure::{Departures, Probe};
use crate::plan::export::Proof;
use crate::plan::trust::{self, PodOf};

/// The state of both sides that matters to one RegisteredService.
#[derive(Clone, Debug)]
pub struct Facts {
    pub key: ServiceKey,
    /// The term in which this process leads; `None` while it does not.
    pub term: Option<Term>,
    /// UID of the RegisteredService; empty if it was deleted.
    pub uid: String,
    pub generation: Option<i64>,
    /// The generation in its status.
    pub observed_generation: Option<i64>,
    pub cluster: ClusterFacts,
    /// The registry that it refers to, if a session runs.
    pub registry: Option<RegistryFacts>,
    /// Other places that hold records of this owner, or held some, because it once referred to them.
    pub former: Vec<RegistryFacts>,
    /// The answers to connections.
    pub probes: BTreeMap<InstanceAddr, Probe>,
    pub holds: HoldFacts,
}

/// The near side.
#[derive(Clone, Debug, Default)]
pub struct ClusterFacts {
    pub service: Option<Arc<ServiceView>>,
    /// Slices of the Service that others manage.
    pub others_slices: Vec<Arc<Slice>>,
    /// The number of lists, rather than events, that changed the Service and its slices.
    pub relists: u64,
    /// Slices that this RegisteredService owns, whatever Service they name.
    pub our_slices: Vec<Arc<Slice>>,
    /// The time until which other slices wait whose owner may still appear.
    pub strays_until: Option<Timestamp>,
    /// Services that were created for it, whatever their names.
    pub created_services: Vec<Arc<ServiceView>>,
    /// The addresses that the cluster itself uses.
    pub trust: Arc<trust::Cluster>,
    /// Pods that have one of the addresses in question.
    pub pods: BTreeMap<IpAddr, Vec<Arc<PodView>>>,
    /// Addresses that no slice of another manager holds and whose pods ended without an event that showed it.
    pub unseen: BTreeSet<IpAddr>,
    /// The zones of the Nodes that those pods run on.
    pub zones: BTreeMap<String, String>,
}

/// The state of one registry, from its view.
#[derive(Clone, Debug)]
pub struct RegistryFacts {
    /// Name of the ServiceRegistry.
    pub name: String,
    pub layout: Layout,
    pub owner: Owner,
    /// The service's name there; `None` where the RegisteredService was deleted.
    pub registry_name: Option<RegistryName>,
    /// The time until which records without an owner are left alone, because nothing explains the leader before us.
    pub orphan_grace_until: Option<Timestamp>,
    pub snapshot: Snapshot,
}

/// Every record about one name and one owner.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub state: ViewState,
    pub incarnation: Incarnation,
    pub revision: Revision,
    /// Every record under the name, by any writer.
    pub records: BTreeMap<RecordKey, Arc<Record>>,
    /// The owner's records under other names.
    pub under_other_names: BTreeMap<RecordKey, Arc<Record>>,
    pub departures: Departures,
}

/// The degree to which a view can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewState {
    /// No complete list has arrived yet: nothing may follow from a missing record.
    Unknown,
    /// A complete list has arrived and is being followed.
    Fresh,
    /// The connection is lost, so the view may be outdated.
    Stale,
}

/// The identity of a registry at the start of its session, compared with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incarnation {
    /// The same registry, or one without an earlier session.
    AsItWas,
    /// Another etcd cluster answers.
    ClusterChanged,
    /// The same etcd cluster, at an older revision.
    RolledBack,
}

/// Holds and approvals that come from the objects and from the registry as a whole.
#[derive(Clone, Debug, Default)]
pub struct HoldFacts {
    /// Start of the hold that the status reports, before the first plan of this leadership.
    pub restored_hold_since: Option<Timestamp>,
    /// The hold of the whole registry.
    pub registry_hold: Option<Hold>,
    /// Deletions that an earlier hold of the whole registry let go.
    pub registry_let_go: HeldDeletions,
    /// How far the API server's clock is ahead of ours.
    pub api_server_ahead: SignedDuration,
    /// The held deletions that an administrator releases.
    pub approved: HeldDeletions,
    /// The hash that the annotation of the RegisteredService names.
    pub approval: Option<String>,
}

impl RegistryFacts {
    pub fn place(&self) -> Place {
        Place { registry: self.name.clone(), name: self.registry_name.clone() }
    }

    pub fn is_fresh(&self) -> bool {
        self.snapshot.state == ViewState::Fresh
    }
}

impl Facts {
    /// The facts about a registry, current or former.
    pub fn registry(&self, name: &str) -> Option<&RegistryFacts> {
        self.registry.iter().chain(&self.former).find(|registry| registry.name == name)
    }

    /// Whether records of ours are in another place than the one that the RegisteredService refers to.
    pub fn is_moving(&self) -> bool {
        self.former.iter().any(|registry| !registry.snapshot.records.is_empty())
    }

    /// The current registry, if its view is fresh. Unknown is not empty, and stale is not gone.
    pub fn fresh_registry(&self) -> Option<&RegistryFacts> {
        self.registry.as_ref().filter(|registry| registry.is_fresh())
    }

    /// The proof that endpoints of the cluster ended since the last pass: watch events, or a change of the spec, even
    /// one that was made while no operator ran.
    pub fn proof(&self, checkpoint: &Checkpoint) -> Proof<'_> {
        let planned = checkpoint.planned.filter(|_| checkpoint.uid == self.uid);
        let before = planned.map(|planned| planned.generation).or_else(|| self.observed_generation.map(Some));
        if before.is_some_and(|before| before != self.generation) {
            return Proof::SpecChange;
        }
        if planned.is_some_and(|planned| planned.relists == self.cluster.relists) {
            return Proof::WatchEvent { unseen: &self.cluster.unseen };
        }
        Proof::RelistOnly
    }

    /// The relation of each address in question to the pods of the namespace.
    pub fn pods_of(&self) -> BTreeMap<IpAddr, PodOf> {
        let mut pods_of = BTreeMap::new();
        for (ip, pods) in &self.cluster.pods {
            let mut own = pods.iter().filter(|pod| !pod.host_network).map(|pod| pod.namespace == self.key.namespace);
            if let Some(first) = own.next() {
                let same = first || own.any(|same| same);
                pods_of.insert(*ip, if same { PodOf::SameNamespace } else { PodOf::OtherNamespace });
            }
        }
        pods_of
    }

    /// The pod of the namespace that has the address, if the address is the pod's own.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&Arc<PodView>> {
        self.cluster.pods.get(&ip)?.iter().find(|pod| !pod.host_network && pod.namespace == self.key.namespace)
    }

    /// Every address whose trust, weight or tags may matter. The pods at these addresses are facts too.
    pub fn ips_in_question(&self, checkpoint: &Checkpoint) -> BTreeSet<IpAddr> {
        let mut ips = ips_of(&self.cluster.others_slices);
        ips.append(&mut ips_of(&self.cluster.our_slices));
        if let Some(registry) = &self.registry {
            ips.extend(
                registry.snapshot.records.values().flat_map(|record| record.endpoint_addresses()).map(InstanceAddr::ip),
            );
            ips.extend(registry.snapshot.departures.keys().map(|addr| addr.ip()));
        }
        ips.extend(checkpoint.import.departing.keys().map(|addr| addr.ip()));
        ips
    }
}

/// The addresses in slices, ready or not.
pub fn ips_of(slices: &[Arc<Slice>]) -> BTreeSet<IpAddr> {
    slices.iter().flat_map(|slice| &slice.endpoints).filter_map(|endpoint| endpoint.address.parse().ok()).collect()
}
