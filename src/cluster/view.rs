//! The view of the cluster: the in-memory picture of the watched objects.
//!
//! Owns the objects and the set of synced kinds. Unknown is not empty: the absence of an object proves nothing until
//! every kind has been listed once ([`ClusterView::unsynced`]). Refuses to do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;
use twinspan_core::Timestamp;
use twinspan_core::model::{CidrSet, ObjectKey, ServiceKey, ServiceView, Slice};
use twinspan_core::plan::trust;

use super::convert::{NamespaceView, NodeView, SecretView};
use super::index::Index;
use super::pods::Pods;
use super::slices::Slices;
use crate::api::{RegisteredService, ServiceRegistry, salvage};

/// Time after which a broken watch counts as recovered. Each further failure is reported within the longest backoff and
/// a connection's timeout, so silence for longer means that the watch works.
const BROKEN_FOR: SignedDuration = SignedDuration::from_secs(15);

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    RegisteredService,
    ServiceRegistry,
    Service,
    EndpointSlice,
    Namespace,
    Secret,
    Pod,
    Node,
    ServiceCidr,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::RegisteredService,
        Self::ServiceRegistry,
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
        Self::Secret,
        Self::Pod,
        Self::Node,
        Self::ServiceCidr,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::RegisteredService => "RegisteredService",
            Self::ServiceRegistry => "ServiceRegistry",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }
}

/// A change in the cluster that a controller has to process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    RegisteredService(ServiceKey),
    /// A RegisteredService that refers to this ServiceRegistry was added, removed or renamed.
    Names(String),
    ServiceRegistry(String),
    /// The Service, or a slice that names it.
    Service(ServiceKey),
    /// Slices of these Services were written by this RegisteredService, which knows it.
    Wrote {
        services: Vec<ServiceKey>,
        by: ServiceKey,
    },
    Namespace(String),
    Secret,
    /// Pods with these addresses, present or earlier, changed.
    Addresses(Vec<IpAddr>),
    /// Addresses that the cluster itself uses changed: each range from its first to its last address.
    Networks(Vec<(IpAddr, IpAddr)>),
    /// The first complete list of a kind arrived.
    Synced(Kind),
}

/// A RegisteredService that cannot be decoded.
#[derive(Debug)]
pub struct Unreadable {
    pub uid: String,
    /// The fields that can be read; `None` if the registry or a name cannot.
    pub object: Option<Arc<RegisteredService>>,
    /// The first field that cannot be read, and why.
    pub message: String,
}

#[derive(Debug, Default)]
pub struct ClusterView {
    synced: BTreeSet<Kind>,
    pub registered_services: BTreeMap<ServiceKey, Arc<RegisteredService>>,
    /// RegisteredServices that cannot be decoded. They are present and refused, never gone.
    pub unreadable: BTreeMap<ServiceKey, Arc<Unreadable>>,
    pub service_registries: BTreeMap<String, Arc<ServiceRegistry>>,
    pub services: BTreeMap<ServiceKey, Arc<ServiceView>>,
    pub namespaces: BTreeMap<String, Arc<NamespaceView>>,
    /// Secrets of the operator's own namespace.
    pub secrets: BTreeMap<ObjectKey, Arc<SecretView>>,
    /// Kinds whose watch broke and has not reported since, with the time.
    broken_watches: BTreeMap<Kind, Timestamp>,
    /// Counts the changes of a Service or its slices that a re-list showed, not a watch event.
    listings: BTreeMap<ServiceKey, u64>,
    pub slices: Slices,
    pub pods: Pods,
    nodes: BTreeMap<String, Arc<NodeView>>,
    service_cidrs: BTreeMap<String, Vec<String>>,
    trust: Arc<trust::Cluster>,
    pub index: Index,
}

impl ClusterView {
    /// The kinds that have not been listed completely yet.
    pub fn unsynced(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| !self.synced.contains(kind)).collect()
    }

    /// A kind was listed completely. Returns true the first time.
    pub fn set_synced(&mut self, kind: Kind) -> bool {
        self.synced.insert(kind)
    }

    /// The watch of a kind broke, or a re-list replaces it.
    pub fn watch_broken(&mut self, kind: Kind, now: Timestamp) {
        self.broken_watches.insert(kind, now);
    }

    /// The watch of a kind reports changes again.
    pub fn watch_recovered(&mut self, kind: Kind) {
        self.broken_watches.remove(&kind);
    }

    /// True if the pod at this address vanished in a re-list, or the pod watch is broken. A slice change then proves
    /// nothing: its controller may not know more (`docs/decisions/0022`).
    pub fn end_is_unseen(&self, ip: IpAddr, now: Timestamp) -> bool {
        if self.pods.at(ip).next().is_none() {
            return self.pods.ended_unseen(ip);
        }
        self.broken_watches.get(&Kind::Pod).is_some_and(|since| now.duration_since(*since) < BROKEN_FOR)
    }

    /// Enters a RegisteredService that cannot be decoded, as far as it can be read.
    pub fn put_unreadable(&mut self, key: &ServiceKey, object: &serde_json::Value, message: String) {
        let uid = object.pointer("/metadata/uid").and_then(|uid| uid.as_str()).unwrap_or_default().to_owned();
        let read = salvage::registered_service(object).map(Arc::new);
        self.registered_services.remove(key);
        self.index.remove(key);
        if let Some(read) = &read {
            self.index.put(key, read);
        }
        self.unreadable.insert(key.clone(), Arc::new(Unreadable { uid, object: read, message }));
    }

    /// Whether no RegisteredService has this UID, or the one of this key has it.
    pub fn may_keep(&self, key: &ServiceKey, owner_uid: Option<&str>) -> bool {
        owner_uid.is_none_or(|uid| self.index.of_uid(uid).is_none_or(|owner| owner == key))
    }

    /// The RegisteredService that has to look after a slice of ours that nobody owns.
    pub fn stray(&self, namespace: &str, slice: &Slice) -> Option<ServiceKey> {
        let keeper = slice.keeper.as_ref().filter(|_| slice.is_ours())?;
        let owned = slice.owner_uid.as_ref().is_some_and(|uid| self.index.of_uid(uid).is_some());
        (!owned).then(|| ServiceKey::new(namespace, keeper))
    }

    /// RegisteredServices of which not even the names can be read: whatever changes in the namespace concerns them.
    pub fn nameless(&self, namespace: &str) -> Vec<ServiceKey> {
        let here = self.unreadable.iter().filter(|(key, read)| key.namespace == namespace && read.object.is_none());
        here.map(|(key, _)| key.clone()).collect()
    }

    /// The default cluster ID: the UID of kube-system, which lasts as long as the cluster.
    pub fn cluster_uid(&self) -> Option<&str> {
        self.namespaces.get("kube-system").map(|namespace| namespace.uid.as_str())
    }

    /// A re-list changed a Service or its slices: the changes in between were not observed.
    pub fn learnt_by_list(&mut self, service: &ServiceKey) {
        *self.listings.entry(service.clone()).or_default() += 1;
    }

    pub fn listings(&self, service: &ServiceKey) -> u64 {
        self.listings.get(service).copied().unwrap_or_default()
    }

    /// Services that were created for a RegisteredService.
    pub fn services_of_owner(&self, namespace: &str, uid: &str) -> Vec<Arc<ServiceView>> {
        let first = ServiceKey::new(namespace, "");
        let here = self.services.range(first..).take_while(|(key, _)| key.namespace == namespace);
        here.filter(|(_, service)| service.owner_uid.as_deref() == Some(uid))
            .map(|(_, service)| service.clone())
            .collect()
    }

    /// The addresses that the cluster itself uses.
    pub fn trust(&self) -> Arc<trust::Cluster> {
        self.trust.clone()
    }

    pub fn node(&self, name: &str) -> Option<&Arc<NodeView>> {
        self.nodes.get(name)
    }

    pub fn node_names(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    pub fn service_cidr_names(&self) -> impl Iterator<Item = &String> {
        self.service_cidrs.keys()
    }

    /// `None` removes the Node. Returns the affected ranges.
    pub fn set_node(&mut self, name: &str, node: Option<NodeView>) -> Vec<(IpAddr, IpAddr)> {
        if self.nodes.get(name).map(AsRef::as_ref) == node.as_ref() {
            return Vec::new();
        }
        let before = match node {
            Some(node) => self.nodes.insert(name.to_owned(), Arc::new(node)),
            None => self.nodes.remove(name),
        };
        let mut affected = Vec::new();
        for node in before.iter().chain(self.nodes.get(name)) {
            affected.extend(node.addresses.iter().map(|ip| (*ip, *ip)));
            affected.extend(ranges(&node.pod_cidrs));
        }
        self.rebuild_trust();
        affected
    }

    /// `None` removes the ServiceCIDR. Returns the affected ranges.
    pub fn set_service_cidr(&mut self, name: &str, cidrs: Option<Vec<String>>) -> Vec<(IpAddr, IpAddr)> {
        if self.service_cidrs.get(name) == cidrs.as_ref() {
            return Vec::new();
        }
        let before = match cidrs {
            Some(cidrs) => self.service_cidrs.insert(name.to_owned(), cidrs),
            None => self.service_cidrs.remove(name),
        };
        let affected = before.iter().chain(self.service_cidrs.get(name)).flat_map(|cidrs| ranges(cidrs)).collect();
        self.rebuild_trust();
        affected
    }

    /// The endpoints of the API server's own Service changed. Returns the affected ranges.
    pub fn api_servers_changed(&mut self) -> Vec<(IpAddr, IpAddr)> {
        let before = self.trust.api_servers.clone();
        self.rebuild_trust();
        before.symmetric_difference(&self.trust.api_servers).map(|ip| (*ip, *ip)).collect()
    }

    fn rebuild_trust(&mut self) {
        let mut trust = trust::Cluster::default();
        for cidr in self.service_cidrs.values().flatten() {
            trust.service_cidrs.insert(cidr);
        }
        for node in self.nodes.values() {
            node.pod_cidrs.iter().for_each(|cidr| {
                trust.pod_cidrs.insert(cidr);
            });
            trust.node_addresses.extend(&node.addresses);
        }
        for slice in self.slices.of_service(&api_server_service()) {
            trust.api_servers.extend(slice.endpoints.iter().filter_map(|e| e.address.parse::<IpAddr>().ok()));
        }
        self.trust = Arc::new(trust);
    }
}

/// The Service whose endpoints are the API server's own.
pub fn api_server_service() -> ServiceKey {
    ServiceKey::new("default", "kubernetes")
}

fn ranges(cidrs: &[String]) -> Vec<(IpAddr, IpAddr)> {
    cidrs.iter().map(String::as_str).collect::<CidrSet>().ranges().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::convert;

    #[test]
    fn a_pod_may_end_unseen_while_pods_are_not_watched() {
        let key = ObjectKey::new("shop", "a");
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut pod = convert::pod(&Default::default());
        pod.ips = vec![ip];
        let mut view = ClusterView::default();
        view.pods.put(key.clone(), pod);
        assert!(!view.end_is_unseen(ip, at(0)));
        view.watch_broken(Kind::Pod, at(0));
        assert!(view.end_is_unseen(ip, at(14)));
        assert!(!view.end_is_unseen(ip, at(15)), "the watch goes on");
        view.watch_recovered(Kind::Pod);
        assert!(!view.end_is_unseen(ip, at(1)));
        view.pods.vanish(&key);
        assert!(view.end_is_unseen(ip, at(100)));
    }

    #[test]
    fn trusted_networks_follow_nodes_service_ranges_and_the_api_server() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut view = ClusterView::default();
        let node = NodeView { addresses: vec![ip("192.0.2.1")], pod_cidrs: vec!["10.244.0.0/24".into()], zone: None };
        let affected = view.set_node("n", Some(node.clone()));
        assert_eq!(affected, [(ip("192.0.2.1"), ip("192.0.2.1")), (ip("10.244.0.0"), ip("10.244.0.255"))]);
        assert!(view.set_node("n", Some(node)).is_empty(), "a heartbeat changes nothing");
        view.set_service_cidr("kubernetes", Some(vec!["10.96.0.0/16".into()]));
        let api = serde_json::json!({
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.9"]}],
        });
        view.slices.put("default", convert::slice(serde_json::from_value(api).unwrap()));
        assert_eq!(view.api_servers_changed(), [(ip("192.0.2.9"), ip("192.0.2.9"))]);
        let trust = view.trust();
        assert!(trust.pod_cidrs.contains(ip("10.244.0.7")) && trust.service_cidrs.contains(ip("10.96.0.1")));
        assert!(trust.node_addresses.contains(&ip("192.0.2.1")) && trust.api_servers.contains(&ip("192.0.2.9")));
        view.set_node("n", None);
        assert!(view.trust().node_addresses.is_empty());
    }

    #[test]
    fn nothing_is_complete_until_every_kind_was_listed() {
        let mut view = ClusterView::default();
        assert_eq!(view.unsynced().len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(view.set_synced(kind));
        }
        assert_eq!(view.unsynced(), []);
        assert!(!view.set_synced(Kind::Service));
    }
}
