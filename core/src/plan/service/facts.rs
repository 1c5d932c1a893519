//! The facts that a pass over one RegisteredService rests on: the state of both sides at one moment, as values.
//!
//! Owns the questions that follow from the facts alone: proof, pods, addresses in question. Refuses to know API
//! objects, handles and locks: the operator's controller reads the views and fills in the facts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;

use super::checkpoint::{Checkpoint, Place, Term};
use super::risks::ImportPlace;
use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{
    InstanceAddr, Nodes, Owner, PodView, Records, RegistryName, Revision, ServiceKey, ServiceView, Slice, SliceEndpoint,
};
use crate::plan::departure::held::{HeldDeletions, Hold, Reported};
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
    /// The generation in the status that this term found.
    pub observed_generation: Option<i64>,
    /// Whether the registry was read for it before this term.
    pub imported_before: bool,
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
    /// The Service into which records are imported: the same one, or one of their own.
    pub import_service: Option<Arc<ServiceView>>,
    /// Slices of the Service that others manage.
    pub others_slices: Vec<Arc<Slice>>,
    /// The same of the Service of the imports, where it is another one.
    pub others_import_slices: Vec<Arc<Slice>>,
    /// The place of imports, seen from the pods.
    pub import_place: ImportPlace,
    /// The spec cannot be read: mirrored endpoints stay as they are.
    pub unreadable: bool,
    /// The number of lists, rather than events, that changed the Service and its slices, and the Nodes where their
    /// addresses are exported.
    pub relists: u64,
    /// Slices that this RegisteredService owns, whatever Service they name.
    pub our_slices: Vec<Arc<Slice>>,
    /// The time until which other slices wait whose owner may still appear.
    pub strays_until: Option<Timestamp>,
    /// Services that were created for it, whatever their names.
    pub created_services: Vec<Arc<ServiceView>>,
    /// The addresses that the cluster itself uses.
    pub trust: Arc<trust::Cluster>,
    /// The addresses in question that lead to a Service: ClusterIPs of any, and the external ones of this.
    pub service_ips: BTreeSet<IpAddr>,
    /// Pods that have one of the addresses in question.
    pub pods: BTreeMap<IpAddr, Vec<Arc<PodView>>>,
    /// Addresses that no slice of another manager holds and whose pods ended without an event that showed it, and those
    /// that led to such a pod.
    pub unseen: BTreeSet<IpAddr>,
    /// Pods that were behind an exported address and ended unseen.
    pub unseen_behind: BTreeSet<IpAddr>,
    /// The kinds that were not heard of for long.
    pub silent: Silent,
    pub nodes: Arc<Nodes>,
}

/// The kinds that were not heard of for long: nothing is deleted because of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silent {
    /// RegisteredServices, on which every deletion rests.
    pub specs: bool,
    /// EndpointSlices or Pods, on which the end of an export rests.
    pub endpoints: bool,
    /// Nodes or Services, where their addresses are exported.
    pub outer: bool,
    /// EndpointSlices, on which mirrored endpoints rest.
    pub slices: bool,
    /// Services, on which the end of an import rests.
    pub services: bool,
}

impl Silent {
    pub fn exports(self) -> bool {
        self.specs || self.endpoints || self.outer
    }

    pub fn imports(self) -> bool {
        self.specs || self.services
    }
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
    /// Present if the RegisteredService or the ServiceRegistry is gone, and perhaps many objects were lost at once.
    pub vanished: Option<Vanished>,
    pub snapshot: Snapshot,
}

/// Facts about the own records in a registry after the end of the object that asked for them.
#[derive(Clone, Debug, Default)]
pub struct Vanished {
    /// The addresses of own records whose endpoint is ready, or ended unseen.
    pub ready: BTreeSet<InstanceAddr>,
    /// The hold of the records that are left behind.
    pub hold: Option<Hold>,
    /// Deletions that an earlier hold let go.
    pub let_go: BTreeSet<InstanceAddr>,
    /// Deletions that an administrator released.
    pub approved: BTreeSet<InstanceAddr>,
    /// The number of RegisteredServices that still refer to the registry; `None` if the ServiceRegistry is gone.
    pub remaining: Option<usize>,
}

/// Every record about one name and one owner.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub state: ViewState,
    pub incarnation: Incarnation,
    pub revision: Revision,
    /// Every record under the name, by any writer.
    pub records: Arc<Records>,
    /// The owner's records under other names.
    pub under_other_names: Records,
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
    /// The hold that the status reports, before the first plan of this leadership.
    pub restored: Option<Reported>,
    /// The hold of the whole registry.
    pub registry_hold: Option<Hold>,
    /// The hold of the whole registry in an earlier process, as long as it may still go on.
    pub registry_resumes: Option<Hold>,
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

/// The UIDs of pods by address and port.
pub type NamedPods<'a> = BTreeMap<(IpAddr, u16), Vec<&'a str>>;

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

    /// Whether a slice of ours belongs to a Service of this name.
    pub fn fills(&self, service: &str) -> bool {
        self.cluster.our_slices.iter().any(|slice| !slice.deleting && slice.service.as_deref() == Some(service))
    }

    /// Whether the endpoints of the Service stand in the Service of the imports too.
    pub fn mirrors(&self) -> bool {
        self.cluster.import_place == ImportPlace::Together
    }

    /// Whether pods and imports are endpoints of one Service.
    pub fn pods_are_with_imports(&self) -> bool {
        self.cluster.import_place != ImportPlace::Apart
    }

    /// Whether a Service is one that is filled already, or was made to be. Nobody has to judge it again.
    pub fn is_filled(&self, service: &ServiceView) -> bool {
        !service.deleting && (service.owner_uid.as_deref() == Some(self.uid.as_str()) || self.fills(&service.name))
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
                // While two pods have the address, nobody knows which of them answers.
                let same = first && own.all(|same| same);
                pods_of.insert(*ip, if same { PodOf::SameNamespace } else { PodOf::OtherNamespace });
            }
        }
        pods_of
    }

    /// The UIDs of the pods that slices of others name at each address.
    pub fn named_pods(&self) -> NamedPods<'_> {
        let mut named = NamedPods::new();
        for slice in &self.cluster.others_slices {
            for endpoint in &slice.endpoints {
                let (Some(pod), Some(ip)) = (&endpoint.pod, endpoint.address.ip()) else { continue };
                for port in slice.ports.iter().filter_map(|port| port.number) {
                    named.entry((ip, port)).or_default().push(&pod.uid);
                }
            }
        }
        named
    }

    /// The pod behind an endpoint that others manage: the one that its slice names, which may be on the host's network,
    /// or else the one that has the address.
    pub fn pod_of(&self, addr: InstanceAddr, named: &NamedPods<'_>) -> Option<&Arc<PodView>> {
        let Some(named) = named.get(&(addr.ip(), addr.port())) else { return self.pod_with_address(addr.ip()) };
        let pods = self.cluster.pods.get(&addr.ip())?;
        named.iter().find_map(|uid| pods.iter().find(|pod| pod.uid == **uid))
    }

    /// The pod that a slice of others names at an endpoint.
    pub fn named_pod(&self, endpoint: &SliceEndpoint) -> Option<&Arc<PodView>> {
        let (target, ip) = (endpoint.pod.as_ref()?, endpoint.address.ip()?);
        self.cluster.pods.get(&ip)?.iter().find(|pod| pod.uid == target.uid)
    }

    /// Whether nothing but our readiness gate keeps an endpoint from being ready. A Node that is lost says nothing
    /// about its pods any more: one without a gate is not ready there.
    pub fn is_gated(&self, endpoint: &SliceEndpoint) -> bool {
        self.named_pod(endpoint).is_some_and(|pod| lets_export(pod, &self.cluster.nodes))
    }

    /// The addresses of such endpoints.
    pub fn gated_addresses(&self) -> BTreeSet<IpAddr> {
        let endpoints = self.cluster.others_slices.iter().flat_map(|slice| &slice.endpoints);
        let gated = endpoints.filter(|e| !e.is_ready() && !e.is_terminating() && self.is_gated(e));
        gated.filter_map(|endpoint| endpoint.address.ip()).collect()
    }

    /// The pod of the namespace that has the address, if the address is the pod's own.
    pub fn pod_with_address(&self, ip: IpAddr) -> Option<&Arc<PodView>> {
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
        let vanished = self.former.iter().filter_map(|registry| registry.vanished.as_ref());
        ips.extend(vanished.flat_map(|vanished| &vanished.ready).map(|addr| addr.ip()));
        ips.extend(checkpoint.import.departing.keys().map(|addr| addr.ip()));
        ips.extend(checkpoint.behind.values().flatten());
        ips
    }
}

/// Whether a pod is exported although it is not ready: nothing but our readiness gate keeps it from that.
pub fn lets_export(pod: &PodView, nodes: &Nodes) -> bool {
    let node = pod.node.as_ref().and_then(|node| nodes.get(node));
    pod.gate.as_ref().is_some_and(|gate| gate.lets_export()) && !node.is_some_and(|node| node.lost)
}

/// The addresses in slices, ready or not.
pub fn ips_of(slices: &[Arc<Slice>]) -> BTreeSet<IpAddr> {
    slices.iter().flat_map(|slice| &slice.endpoints).filter_map(|endpoint| endpoint.address.ip()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AddressType, Family, Labels, SlicePort, TCP, TargetPod};

    const IP: [u8; 4] = [10, 0, 0, 1];

    fn pod(name: &str, namespace: &str, host_network: bool) -> Arc<PodView> {
        Arc::new(PodView {
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("uid-of-{name}"),
            ips: vec![IP.into()],
            node: None,
            host_network,
            host_ports: None,
            ended: false,
            weight: None,
            gate: None,
            labels: Labels::default(),
        })
    }

    /// The endpoint `10.0.0.1:port` of this pod.
    fn slice(port: u16, pod: Option<&str>) -> Arc<Slice> {
        let named =
            |name: &str| TargetPod { namespace: "shop".into(), name: name.into(), uid: format!("uid-of-{name}") };
        let port = SlicePort { name: String::new(), protocol: TCP.into(), number: Some(port), app_protocol: None };
        Arc::new(Slice {
            name: "s".into(),
            resource_version: "1".into(),
            service: Some("echo".into()),
            managed_by: None,
            owner_uid: None,
            keeper: None,
            others_labels: BTreeSet::new(),
            deleting: false,
            address_type: AddressType::Ip(Family::V4),
            ports: vec![port],
            endpoints: vec![SliceEndpoint { pod: pod.map(named).map(Box::new), ..SliceEndpoint::ready(IP.into()) }],
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        })
    }

    fn facts(slices: Vec<Arc<Slice>>, pods: Vec<Arc<PodView>>) -> Facts {
        Facts {
            key: ServiceKey::new("shop", "echo"),
            term: None,
            uid: String::new(),
            generation: None,
            observed_generation: None,
            imported_before: false,
            cluster: ClusterFacts {
                others_slices: slices,
                pods: [(IP.into(), pods)].into(),
                ..ClusterFacts::default()
            },
            registry: None,
            former: Vec::new(),
            probes: BTreeMap::new(),
            holds: HoldFacts::default(),
        }
    }

    #[test]
    fn the_pod_behind_an_endpoint_is_the_one_that_its_slice_names() {
        let pods = vec![pod("old", "shop", false), pod("new", "shop", false), pod("host", "shop", true)];
        let facts = |slices| facts(slices, pods.clone());
        let found = |facts: &Facts, port| {
            facts.pod_of(InstanceAddr::new(IP.into(), port).unwrap(), &facts.named_pods()).map(|pod| pod.name.clone())
        };
        let named = facts(vec![slice(80, Some("new")), slice(90, Some("host")), slice(70, Some("gone"))]);
        assert_eq!(found(&named, 80).as_deref(), Some("new"), "the old one still has the address");
        assert_eq!(found(&named, 90).as_deref(), Some("host"), "on the host's network");
        assert_eq!(found(&named, 70), None);
        assert_eq!(found(&facts(vec![slice(80, None)]), 80).as_deref(), Some("old"), "no slice names one");
    }

    #[test]
    fn an_address_that_pods_of_two_namespaces_have_is_nobodys_own() {
        let of = |pods: Vec<Arc<PodView>>| facts(Vec::new(), pods).pods_of().get(&IpAddr::from(IP)).copied();
        let (ours, theirs) = (pod("a", "shop", false), pod("b", "bank", false));
        assert_eq!(of(vec![ours.clone()]), Some(PodOf::SameNamespace));
        assert_eq!(of(vec![ours.clone(), theirs.clone()]), Some(PodOf::OtherNamespace));
        assert_eq!(of(vec![theirs, ours]), Some(PodOf::OtherNamespace));
        assert_eq!(of(vec![pod("h", "bank", true)]), None);
    }
}
