//! Everything that a pass rests on, read from the views at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, Owner, RecordKey, RegistryName, ServiceKey, Slice};
use twinspan_core::plan::departures::Probe;
use twinspan_core::plan::export::{Claim, Seen};
use twinspan_core::plan::guard::Stays;
use twinspan_core::plan::import::Rival;
use twinspan_core::plan::trust::{self, PodOf};

use super::{Memory, sharing};
use crate::api::{RegisteredService, ServiceRegistry};
use crate::cluster::convert::{NamespaceView, PodView, ServiceView};
use crate::cluster::index;
use crate::cluster::view::ClusterView;
use crate::controllers::APPROVE_DELETIONS;
use crate::controllers::context::Context;
use crate::registry::RegistryError;
use crate::registry::handle::{Phase, RegistryHandle};
use crate::registry::view::{Snapshot, State};

/// The state of the world as far as one RegisteredService is concerned.
#[derive(Debug)]
pub struct Observed {
    pub key: ServiceKey,
    /// `None` where there is no such RegisteredService any more.
    pub object: Option<Arc<RegisteredService>>,
    pub namespace: Option<Arc<NamespaceView>>,
    pub registry: Option<Arc<ServiceRegistry>>,
    /// The session of that registry, where one runs, with what it holds under the name.
    pub session: Option<Session>,
    /// Other registries that hold records of this owner: it referred to them once.
    pub former: Vec<Session>,
    pub service: Option<Arc<ServiceView>>,
    /// Slices of the Service that others manage.
    pub others_slices: Vec<Arc<Slice>>,
    /// How often a list changed what is known of the Service and its slices.
    pub listings: u64,
    /// Slices that this RegisteredService owns, whatever Service they name.
    pub our_slices: Vec<Arc<Slice>>,
    /// Services that were created for it, whatever their names.
    pub created_services: Vec<Arc<ServiceView>>,
    /// What the cluster itself uses.
    pub trust: Arc<trust::Cluster>,
    /// Pods that have one of the addresses in question.
    pub pods: BTreeMap<IpAddr, Vec<Arc<PodView>>>,
    /// Addresses in no slice that others manage of whose pods nobody saw how they ended.
    pub unseen: BTreeSet<IpAddr>,
    /// The zones of the Nodes that those pods run on.
    pub zones: BTreeMap<String, String>,
    /// Addresses that others import into the same Service.
    pub rivals: BTreeMap<InstanceAddr, Rival>,
    /// What connections showed.
    pub probes: BTreeMap<InstanceAddr, Probe>,
    /// From when, and until when, the registry as a whole holds deletions.
    pub registry_hold: Option<(Timestamp, Timestamp)>,
    /// Of what stays, what an administrator lets go.
    pub approved: Stays,
    pub memory: Memory,
}

/// One registry as it was at that moment.
#[derive(Debug)]
pub struct Session {
    pub handle: Arc<RegistryHandle>,
    pub owner: Owner,
    /// Its name there; `None` in a registry that it refers to no longer.
    pub name: Option<RegistryName>,
    pub snapshot: Snapshot,
    /// Addresses that others want to export there under the same name.
    pub claims: BTreeMap<InstanceAddr, Claim>,
    /// Records of ours that another RegisteredService takes over.
    pub passed_on: BTreeSet<RecordKey>,
    /// Healed records of others that we take over.
    pub inherited: BTreeSet<RecordKey>,
}

impl Session {
    fn new(handle: Arc<RegistryHandle>, owner: Owner, name: Option<RegistryName>, mut snapshot: Snapshot) -> Self {
        if !handle.is_admitted() {
            // What seems to be ours there may be another ServiceRegistry's.
            snapshot.state = State::Unknown;
        }
        let (claims, passed_on, inherited) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { handle, owner, name, snapshot, claims, passed_on, inherited }
    }

    /// Why the registry does not tell what is under the name, where it fails to.
    pub fn failure(&self) -> Option<RegistryError> {
        match self.handle.status().phase {
            Phase::Failed(error) => Some(error),
            _ => self.snapshot.refused.clone(),
        }
    }
}

/// `None` while the view of the cluster is not complete.
pub fn observe(context: &Context, key: &ServiceKey) -> Option<Observed> {
    let mut observed = alone(context, key)?;
    sharing::observe(context, &mut observed);
    Some(observed)
}

/// Without what others want.
pub fn alone(context: &Context, key: &ServiceKey) -> Option<Observed> {
    let mut observed = {
        let view = context.cluster();
        if !view.waiting_for().is_empty() {
            return None;
        }
        from_cluster(&view, key)
    };
    if let Some(memory) = context.memory().get(key) {
        // One that is gone still knows what it was.
        if observed.object.is_none() || memory.uid == observed.uid() {
            observed.memory = memory.clone();
        } else {
            observed.memory.counted = memory.counted.clone();
        }
    }
    from_registries(context, &mut observed);
    observed.probes = context.probes.answers(key);
    let ips = ips_in_question(&observed);
    // Registered before the pods are read: one that changes in between leads to another pass.
    context.addresses().set(key, ips.clone());
    let in_slices = ips_of(&observed.others_slices);
    let now = context.world.now();
    let view = context.cluster();
    for ip in ips {
        let pods: Vec<Arc<PodView>> = view.pods.at(ip).cloned().collect();
        for node in pods.iter().filter_map(|pod| pod.node.as_ref()) {
            if let Some(zone) = view.node(node).and_then(|node| node.zone.clone()) {
                observed.zones.insert(node.clone(), zone);
            }
        }
        if !pods.is_empty() {
            observed.pods.insert(ip, pods);
        }
        if !in_slices.contains(&ip) && view.end_is_unseen(ip, now) {
            observed.unseen.insert(ip);
        }
    }
    observed.trust = view.trust();
    drop(view);
    Some(observed)
}

fn from_cluster(view: &ClusterView, key: &ServiceKey) -> Observed {
    let object = view.registered_services.get(key).cloned();
    let service = object.as_ref().map(|object| index::service_key(key, object));
    let uid = object.as_ref().and_then(|object| object.metadata.uid.clone()).unwrap_or_default();
    let slices_of = |service: &ServiceKey| view.slices_of_service(service).into_iter().filter(|slice| !slice.is_ours());
    Observed {
        key: key.clone(),
        namespace: view.namespaces.get(&key.namespace).cloned(),
        registry: object.as_ref().and_then(|o| view.service_registries.get(&o.spec.registry_ref.name).cloned()),
        session: None,
        former: Vec::new(),
        service: service.as_ref().and_then(|service| view.services.get(service).cloned()),
        others_slices: service.as_ref().map(|service| slices_of(service).collect()).unwrap_or_default(),
        listings: service.as_ref().map(|service| view.listings(service)).unwrap_or_default(),
        our_slices: view.slices_of_owner(&uid).into_iter().filter(|slice| slice.is_ours()).collect(),
        created_services: view.services_of_owner(&key.namespace, &uid),
        trust: view.trust(),
        pods: BTreeMap::new(),
        unseen: BTreeSet::new(),
        zones: BTreeMap::new(),
        rivals: BTreeMap::new(),
        probes: BTreeMap::new(),
        registry_hold: None,
        approved: Stays::default(),
        memory: Memory::default(),
        object,
    }
}

/// Every address that trust, weights or tags may be asked about.
fn ips_in_question(observed: &Observed) -> BTreeSet<IpAddr> {
    let mut ips = ips_of(&observed.others_slices);
    ips.append(&mut ips_of(&observed.our_slices));
    if let Some(session) = &observed.session {
        ips.extend(session.snapshot.records.values().flat_map(|record| record.addrs()).map(InstanceAddr::ip));
        ips.extend(session.snapshot.departures.keys().map(|addr| addr.ip()));
    }
    ips.extend(observed.memory.import.departing.keys().map(|addr| addr.ip()));
    ips
}

fn ips_of(slices: &[Arc<Slice>]) -> BTreeSet<IpAddr> {
    slices.iter().flat_map(|slice| &slice.endpoints).filter_map(|endpoint| endpoint.address.parse().ok()).collect()
}

fn from_registries(context: &Context, observed: &mut Observed) {
    let current = observed.object.as_ref().map(|object| object.spec.registry_ref.name.clone());
    let current = current.filter(|_| observed.registry.is_some()).and_then(|name| context.registries.get(&name));
    let name = observed.object.as_ref().map(|object| index::registry_name(&observed.key, object));
    for handle in context.registries.all() {
        let owner = Owner { cluster_id: handle.cluster_id.clone(), service: observed.key.clone() };
        let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &handle));
        if is_current {
            let Some(name) = name.as_ref().and_then(|name| RegistryName::new(name).ok()) else { continue };
            let snapshot = handle.view().snapshot(&name, &owner);
            observed.registry_hold = context.guards.held_since_until(&handle.name, context.world.now());
            let stays = &observed.memory.stays;
            observed.approved = match observed.approval() {
                Some(hash) if hash == stays.hash() => stays.clone(),
                _ => stays.of_names(&context.guards.released(&handle.name, &observed.key)),
            };
            observed.session = Some(Session::new(handle, owner, Some(name), snapshot));
        } else if let Some(snapshot) = former(&handle, &owner) {
            observed.former.push(Session::new(handle, owner, None, snapshot));
        }
    }
}

/// The records of an owner in a registry that it does not refer to, where there are any.
fn former(handle: &RegistryHandle, owner: &Owner) -> Option<Snapshot> {
    let view = handle.view();
    view.owned_by(&owner.service).next()?;
    Some(view.snapshot_of_owner(owner))
}

impl Observed {
    pub fn uid(&self) -> &str {
        self.object.as_ref().and_then(|object| object.metadata.uid.as_deref()).unwrap_or_default()
    }

    /// What the annotation on the RegisteredService approves.
    pub fn approval(&self) -> Option<&str> {
        let annotations = self.object.as_ref()?.metadata.annotations.as_ref()?;
        annotations.get(APPROVE_DELETIONS).map(String::as_str)
    }

    pub fn generation(&self) -> Option<i64> {
        self.object.as_ref().and_then(|object| object.metadata.generation)
    }

    /// What showed what ended in the cluster since the last pass: watch events, or a change of the spec, also one that was made while
    /// nobody ran.
    pub fn seen(&self) -> Seen<'_> {
        let known = self.memory.uid == self.uid();
        let status = self.object.as_ref().and_then(|object| object.status.as_ref()?.observed_generation);
        let before = if known { Some(self.memory.generation) } else { status.map(Some) };
        if before.is_some_and(|before| before != self.generation()) {
            return Seen::Asked;
        }
        if known && self.memory.listings == self.listings {
            return Seen::Watched { unseen: &self.unseen };
        }
        Seen::Listed
    }

    /// Whose pods the addresses in question are, seen from its namespace.
    pub fn pods_of(&self) -> BTreeMap<IpAddr, PodOf> {
        let mut pods_of = BTreeMap::new();
        for (ip, pods) in &self.pods {
            let mut own = pods.iter().filter(|pod| !pod.host_network).map(|pod| pod.namespace == self.key.namespace);
            if let Some(first) = own.next() {
                let same = first || own.any(|same| same);
                pods_of.insert(*ip, if same { PodOf::SameNamespace } else { PodOf::OtherNamespace });
            }
        }
        pods_of
    }

    /// The pod of the namespace that an address is, where it is one's own.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&Arc<PodView>> {
        self.pods.get(&ip)?.iter().find(|pod| !pod.host_network && pod.namespace == self.key.namespace)
    }
}
