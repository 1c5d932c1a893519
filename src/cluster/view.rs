//! The view of the cluster: the in-memory picture of what matters.
//!
//! Owns what is known and which kinds are complete. Unknown is not empty: nothing may follow from what is not here until every
//! kind has been listed once ([`ClusterView::unsynced`]). Refuses to do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;
use twinspan_core::Timestamp;
use twinspan_core::model::{CidrSet, ObjectKey, ServiceKey, ServiceView};
use twinspan_core::plan::trust;

use super::convert::{NamespaceView, NodeView, SecretView};
use super::index::Index;
use super::pods::Pods;
use super::slices::Slices;
use crate::api::{RegisteredService, ServiceRegistry};

/// How long a watch that broke counts as broken when nothing is heard of it: each further failure is heard of, at the latest after
/// the longest backoff and a connection's timeout, so silence means that it goes on.
const CUT_OFF: SignedDuration = SignedDuration::from_secs(15);

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

/// Something changed that somebody has to look after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    RegisteredService(ServiceKey),
    /// RegisteredServices that refer to this ServiceRegistry came, went or changed their names.
    Names(String),
    ServiceRegistry(String),
    /// The Service, or a slice that names it.
    Service(ServiceKey),
    Namespace(String),
    Secret,
    /// Pods that have, or had, these addresses changed.
    Addresses(Vec<IpAddr>),
    /// What the cluster itself uses changed: everything from the first to the last address of each range.
    Networks(Vec<(IpAddr, IpAddr)>),
    /// A kind has been listed completely for the first time.
    Synced(Kind),
}

#[derive(Debug, Default)]
pub struct ClusterView {
    synced: BTreeSet<Kind>,
    pub registered_services: BTreeMap<ServiceKey, Arc<RegisteredService>>,
    pub service_registries: BTreeMap<String, Arc<ServiceRegistry>>,
    pub services: BTreeMap<ServiceKey, Arc<ServiceView>>,
    pub namespaces: BTreeMap<String, Arc<NamespaceView>>,
    /// Of the operator's own namespace.
    pub secrets: BTreeMap<ObjectKey, Arc<SecretView>>,
    /// Kinds whose watch broke and has shown nothing since: when.
    cut_off: BTreeMap<Kind, Timestamp>,
    /// How often a list, rather than an event, changed what is known of a Service and its slices.
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

    /// Whether this is the first time.
    pub fn set_synced(&mut self, kind: Kind) -> bool {
        self.synced.insert(kind)
    }

    /// The watch of a kind broke, or a list replaces it.
    pub fn cut_off(&mut self, kind: Kind, now: Timestamp) {
        self.cut_off.insert(kind, now);
    }

    /// It shows again what happens.
    pub fn resumed(&mut self, kind: Kind) {
        self.cut_off.remove(&kind);
    }

    /// Whether a pod with the address may have ended, or did, without anybody seeing how: a list no longer names it, or it is there as
    /// far as is known while the watch is broken. Whoever writes slices may know no more.
    pub fn end_is_unseen(&self, ip: IpAddr, now: Timestamp) -> bool {
        if self.pods.at(ip).next().is_none() {
            return self.pods.ended_unseen(ip);
        }
        self.cut_off.get(&Kind::Pod).is_some_and(|since| now.duration_since(*since) < CUT_OFF)
    }

    /// The ID that this cluster has where nobody chooses one (design: the UID of kube-system).
    pub fn cluster_uid(&self) -> Option<&str> {
        self.namespaces.get("kube-system").map(|namespace| namespace.uid.as_str())
    }

    /// A list changed what is known of a Service: nobody saw what happened in between.
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

    /// What the cluster itself uses.
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

    /// `None` removes the Node. Returns the ranges that are affected.
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

    /// `None` removes the ServiceCIDR. Returns the ranges that are affected.
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

    /// The API server's own Service changed its endpoints. Returns the ranges that are affected.
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
        view.cut_off(Kind::Pod, at(0));
        assert!(view.end_is_unseen(ip, at(14)));
        assert!(!view.end_is_unseen(ip, at(15)), "the watch goes on");
        view.resumed(Kind::Pod);
        assert!(!view.end_is_unseen(ip, at(1)));
        view.pods.vanish(&key);
        assert!(view.end_is_unseen(ip, at(100)));
    }

    #[test]
    fn what_the_cluster_uses_follows_nodes_service_ranges_and_the_api_server() {
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
