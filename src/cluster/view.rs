//! The view of the cluster: the in-memory picture of the watched objects.
//!
//! Owns the objects, the set of synced kinds, and when each kind was heard of. Unknown is not empty: the absence of an
//! object proves nothing until every kind has been listed once ([`ClusterView::unsynced`]), and silence is not peace:
//! nothing is deleted because of a kind that was not heard of ([`ClusterView::silent`]). Refuses to do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;
use twinspan_core::Timestamp;
use twinspan_core::model::{ObjectKey, ServiceKey, Slice};

use super::convert::{NamespaceView, SecretView};
use super::index::Index;
use super::networks::{Networks, Range};
use super::pods::Pods;
use super::reach::{Holding, Reach, WHOLE};
use super::services::Services;
use super::slices::Slices;
use super::status_queue::Object;
use super::watching::Watching;
use crate::api::{RegisteredService, ServiceRegistry, ServiceRegistryStatus, Unreadable, held_since};

pub use super::kind::{Kind, SILENT_AFTER};

/// The namespace whose UID names the cluster.
pub const KUBE_SYSTEM: &str = "kube-system";

/// A change in the cluster that a controller has to process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    RegisteredService(ServiceKey),
    /// A RegisteredService with this name in a registry was added, or is gone or renamed.
    Name {
        registry: String,
        name: String,
    },
    ServiceRegistry(String),
    /// The watch shows another status than the one that was known.
    StatusChanged(Object),
    /// The API server has the status that was handed over last.
    StatusWritten(Object),
    /// The Service, or a slice that names it.
    Service(ServiceKey),
    /// Slices of these Services were written by this RegisteredService, which knows it.
    Wrote {
        services: Vec<ServiceKey>,
        by: ServiceKey,
    },
    /// This RegisteredService keeps endpoints of the Service only until the slices of another one hold them.
    Yielded {
        service: ServiceKey,
        by: ServiceKey,
    },
    Namespace(String),
    Secret,
    /// Pods with these addresses, present or earlier, changed.
    Addresses(Vec<IpAddr>),
    /// A pod whose readiness gate is, or was, closed.
    Gate(ObjectKey),
    /// A Service of the namespace selects other pods than before, or another release's RegisteredService changed there.
    Selects(String),
    /// Addresses that the cluster itself uses changed: each range from its first to its last address.
    Networks(Vec<(IpAddr, IpAddr)>),
    /// A Node was added or is gone, or exports choose among other addresses.
    Nodes,
    /// The first complete list of a kind arrived.
    Synced(Kind),
    /// A kind fell silent, or was heard of again.
    Heard,
}

#[derive(Debug, Default)]
pub struct ClusterView {
    reach: Reach,
    pub watching: Watching,
    /// Kinds that the API server does not serve.
    absent: BTreeSet<Kind>,
    /// Every RegisteredService; a stand-in for one that this version cannot read.
    pub registered_services: BTreeMap<ServiceKey, Arc<RegisteredService>>,
    /// Every ServiceRegistry; a stand-in for one that this version cannot read.
    pub service_registries: BTreeMap<String, Arc<ServiceRegistry>>,
    /// ServiceRegistries that this release does not serve: one of them may be the same registry as one of ours.
    pub unserved_registries: BTreeMap<String, Arc<ServiceRegistry>>,
    /// RegisteredServices that are there, and refused.
    pub unreadable_services: BTreeMap<ServiceKey, Arc<Unreadable>>,
    /// ServiceRegistries that are there, and refused.
    pub unreadable_registries: BTreeMap<String, Arc<Unreadable>>,
    /// ServiceRegistries that a re-list did not name: nobody saw how they went.
    pub vanished_registries: BTreeSet<String>,
    /// ServiceRegistries whose status named this release once.
    pub were_ours: BTreeSet<String>,
    /// RegisteredServices of ServiceRegistries that this release does not serve, with their Service: what they own is
    /// none of its business.
    pub served_elsewhere: BTreeMap<ServiceKey, ServiceKey>,
    /// The ones of them that discovery made, without their status: an edit of the reference alone may have moved one
    /// of ours there.
    pub discovered_elsewhere: BTreeMap<ServiceKey, Arc<RegisteredService>>,
    pub services: Services,
    /// The ClusterIPs of all Services: ServiceCIDRs may be wrong, or not served.
    pub cluster_ips: BTreeSet<IpAddr>,
    pub namespaces: BTreeMap<String, Arc<NamespaceView>>,
    /// Secrets of the operator's own namespace.
    pub secrets: BTreeMap<ObjectKey, Arc<SecretView>>,
    /// Counts the changes of objects that discovery reads, so that a slice that changes costs it nothing.
    pub discoverable: u64,
    /// Counts the changes of a Service or its slices that a re-list showed, not a watch event.
    listings: BTreeMap<ServiceKey, u64>,
    pub slices: Slices,
    pub pods: Pods,
    pub networks: Networks,
    pub index: Index,
}

impl ClusterView {
    /// Limits the view to a reach, before anything is listed.
    pub fn set_reach(&mut self, reach: Reach) {
        self.watching = Watching::within(&reach);
        if let Some(limits) = &reach.limits {
            self.networks.set_limits(limits);
        }
        self.reach = reach;
    }

    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The kinds that have not been listed completely yet.
    pub fn unsynced(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| !self.watching.is_listed(*kind)).collect()
    }

    /// Whether everything was listed on which the passes of a namespace rest: its own parts, and the kinds that have
    /// none.
    pub fn is_complete_in(&self, namespace: &str) -> bool {
        Kind::ALL.into_iter().all(|kind| self.watching.is_listed_in(kind, namespace))
    }

    /// Whether a pass of any namespace may run.
    pub fn is_complete_somewhere(&self) -> bool {
        match &self.reach.limits {
            Some(limits) => limits.namespaces.iter().any(|namespace| self.is_complete_in(namespace)),
            None => self.unsynced().is_empty(),
        }
    }

    /// Whether a kind was not heard of for [`SILENT_AFTER`] in a namespace.
    pub fn is_silent_in(&self, kind: Kind, namespace: &str, now: Timestamp) -> bool {
        self.watching.is_silent_in(kind, namespace, now)
    }

    /// The API server does not serve a kind that it may lack, so that nothing is waited for. Objects of an API server
    /// that did serve it stay. Returns true if it was served, or not known to be.
    pub fn set_absent(&mut self, kind: Kind) -> bool {
        self.watching.set_listed(kind, WHOLE);
        self.absent.insert(kind)
    }

    /// The API server serves a kind. Returns true if it did not before.
    pub fn set_served(&mut self, kind: Kind) -> bool {
        self.absent.remove(&kind)
    }

    /// The IP families of which no range of ClusterIPs is known, on an API server without ServiceCIDRs: a ClusterIP in
    /// use shows its own address, and none that a Service gets later. Without a ClusterIP nothing shows the families.
    pub fn families_without_service_range(&self) -> BTreeSet<&'static str> {
        let trust = self.networks.trust();
        if !self.absent.contains(&Kind::ServiceCidr) || (self.cluster_ips.is_empty() && !trust.service_cidrs.is_empty())
        {
            return BTreeSet::new();
        }
        let known: BTreeSet<&str> = trust.service_cidrs.ranges().map(|(first, _)| family(first)).collect();
        let mut families: BTreeSet<&str> = self.cluster_ips.iter().copied().map(family).collect();
        if families.is_empty() {
            families = ["IPv4", "IPv6"].into();
        }
        families.retain(|family| !known.contains(family));
        families
    }

    /// Whether these kinds were listed completely.
    pub fn has_listed(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.watching.is_listed(*kind))
    }

    /// Whether a silence ended since the last call. A pass may have met it, however short it was, and kept what it
    /// would have deleted.
    pub fn take_silence_ended(&mut self) -> bool {
        self.watching.take_silence_ended()
    }

    /// The time since a kind was heard of; `None` before its watch begins.
    pub fn unheard_for(&self, kind: Kind, now: Timestamp) -> Option<SignedDuration> {
        self.watching.unheard_for(kind, now)
    }

    /// Kinds that were not heard of for [`SILENT_AFTER`].
    pub fn silent(&self, now: Timestamp) -> BTreeSet<Kind> {
        self.watching.silent(now)
    }

    /// True if the pod at this address vanished in a re-list, or the pod watch is broken. A slice change then proves
    /// nothing: its controller may not know more (`docs/decisions/0022`).
    pub fn end_is_unseen(&self, ip: IpAddr) -> bool {
        match self.pods.at(ip).next() {
            None => self.pods.ended_unseen(ip),
            Some(pod) => self.watching.is_broken(Kind::Pod, &pod.namespace),
        }
    }

    /// Whether not even the names of a RegisteredService can be read, so that nobody knows which place it means.
    pub fn is_nameless(&self, key: &ServiceKey) -> bool {
        self.unreadable_services.get(key).is_some_and(|unreadable| !unreadable.has_read(RegisteredService::NAMES))
    }

    /// Whether a RegisteredService is there, and not waiting for somebody's finalizer.
    pub fn stays(&self, key: &ServiceKey) -> bool {
        self.registered_services.get(key).is_some_and(|object| object.metadata.deletion_timestamp.is_none())
    }

    /// The RegisteredServices that refer to a registry and stay.
    pub fn staying_in(&self, registry: &str) -> impl Iterator<Item = &ServiceKey> {
        self.index.of_registry(registry).filter(|key| self.stays(key))
    }

    /// Whether no RegisteredService has this UID, or the one of this key has it.
    pub fn may_keep(&self, key: &ServiceKey, owner_uid: Option<&str>) -> bool {
        owner_uid.is_none_or(|uid| self.index.of_uid(uid).is_none_or(|owner| owner == key))
    }

    /// The RegisteredService that has to look after a slice of ours that nobody owns.
    pub fn stray(&self, namespace: &str, slice: &Slice) -> Option<ServiceKey> {
        let keeper = slice.keeper.as_ref().filter(|_| slice.is_ours())?;
        let owned = slice.owner_uid.as_ref().is_some_and(|uid| self.index.of_uid(uid).is_some());
        let key = ServiceKey::new(namespace, keeper);
        (!owned && !self.served_elsewhere.contains_key(&key)).then_some(key)
    }

    /// Whose a ServiceRegistry is.
    pub fn holding(&self, object: &ServiceRegistry) -> Holding {
        let holder = object.status.as_ref().and_then(|status| status.holder.as_deref());
        self.holding_as(object.metadata.name.as_deref().unwrap_or_default(), holder, object.approved_holder())
    }

    /// Whose a ServiceRegistry of this name is, if its status and annotation name these releases.
    pub fn holding_as(&self, name: &str, holder: Option<&str>, approved: Option<&str>) -> Holding {
        self.reach.holding(holder, approved, self.were_ours.contains(name))
    }

    /// Notes whether the status of a ServiceRegistry names this release.
    pub fn note_holder(&mut self, name: &str) {
        let status = self.service_registries.get(name).and_then(|object| object.status.as_ref());
        let holder = status.and_then(|status| status.holder.as_ref());
        if holder.is_some() && holder == self.reach.release.as_ref() {
            self.were_ours.insert(name.to_owned());
        }
    }

    /// Whether nothing shows that another release may serve the ServiceRegistry: in namespaced mode its status has to
    /// name this one, for nothing else shows another.
    pub fn may_act_on(&self, object: &ServiceRegistry) -> bool {
        match self.holding(object) {
            Holding::Ours => true,
            Holding::Unclaimed => !self.reach.is_limited(),
            Holding::Another(_) => false,
        }
    }

    /// Whether another release has the ServiceRegistry of a RegisteredService.
    pub fn is_held_elsewhere(&self, object: &RegisteredService) -> bool {
        let registry = self.service_registries.get(&object.spec.registry_ref.name);
        registry.is_some_and(|registry| matches!(self.holding(registry), Holding::Another(_)))
    }

    /// Whether the records of a namespace stay as they are in a registry: this release does not look there, so that
    /// nothing shows whether their RegisteredServices are gone, and no administrator let them go.
    pub fn is_out_of_sight(&self, registry: &str, namespace: &str) -> bool {
        let stays = |object: &&Arc<ServiceRegistry>| object.metadata.deletion_timestamp.is_none();
        let registry = self.service_registries.get(registry).filter(stays);
        !self.reach.looks_at(namespace) && registry.is_some_and(|registry| !registry.lets_go(namespace))
    }

    /// RegisteredServices of which not even the names can be read: whatever changes in the namespace concerns them.
    pub fn nameless(&self, namespace: &str) -> Vec<ServiceKey> {
        let here = self.unreadable_services.keys().filter(|key| key.namespace == namespace && self.is_nameless(key));
        here.cloned().collect()
    }

    /// The default cluster ID: the UID of kube-system, which lasts as long as the cluster, or in namespaced mode the
    /// release's own.
    pub fn cluster_id(&self) -> Option<&str> {
        match &self.reach.limits {
            Some(limits) => Some(limits.cluster_id.as_str()),
            None => self.namespaces.get(KUBE_SYSTEM).map(|namespace| namespace.uid.as_str()),
        }
    }

    /// The cluster ID in force for a ServiceRegistry. A reader, which is no release, learns it from the status of one
    /// that a release holds: in namespaced mode it is another one than the default.
    pub fn cluster_id_of<'a>(&'a self, object: &'a ServiceRegistry) -> Option<&'a str> {
        let reads = self.reach.release.is_none() && !self.reach.is_limited();
        let status = object.status.as_ref().filter(|status| reads && status.holder.is_some());
        let told = status.and_then(|status| status.cluster_id.as_deref());
        object.spec.cluster_id.as_deref().or(told).or_else(|| self.cluster_id())
    }

    /// The status of a ServiceRegistry, unless it tells of another cluster ID: a hand-over, or another mode, leaves
    /// there what the registry was to somebody else.
    pub fn own_status<'a>(&self, object: &'a ServiceRegistry) -> Option<&'a ServiceRegistryStatus> {
        let ours = self.cluster_id_of(object);
        let is_ours = |theirs: &str| ours.is_none_or(|ours| ours == theirs);
        object.status.as_ref().filter(|status| status.cluster_id.as_deref().is_none_or(is_ours))
    }

    /// The start of the hold of a whole registry that its status reports.
    pub fn held_since(&self, object: &ServiceRegistry) -> Option<Timestamp> {
        held_since(&self.own_status(object)?.conditions)
    }

    /// A re-list changed a Service or its slices: the changes in between were not observed.
    pub fn learnt_by_list(&mut self, service: &ServiceKey) {
        // Nobody asks about a Service that no RegisteredService names.
        if self.index.of_service(service).next().is_none() {
            self.listings.remove(service);
            return;
        }
        *self.listings.entry(service.clone()).or_default() += 1;
    }

    pub fn listings(&self, service: &ServiceKey) -> u64 {
        self.listings.get(service).copied().unwrap_or_default()
    }

    /// The endpoints of the API server's own Service changed. Returns the affected ranges.
    pub fn api_servers_changed(&mut self) -> Vec<Range> {
        let slices = self.slices.of_service(&api_server_service());
        let endpoints = slices.iter().filter(|slice| !slice.is_ours()).flat_map(|slice| &slice.endpoints);
        self.networks.set_api_servers(endpoints.filter_map(|e| e.address.ip()).collect())
    }
}

/// Shorthands of tests, for a kind as a whole.
#[cfg(test)]
impl ClusterView {
    pub fn set_synced(&mut self, kind: Kind) -> bool {
        self.watching.set_listed(kind, WHOLE)
    }

    pub fn heard(&mut self, kind: Kind, now: Timestamp) {
        self.watching.heard(kind, WHOLE, now);
    }

    pub fn watch_broken(&mut self, kind: Kind) {
        self.watching.set_broken(kind, WHOLE, true);
    }

    pub fn watch_opened(&mut self, kind: Kind) {
        self.watching.set_broken(kind, WHOLE, false);
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The Service whose endpoints are the API server's own.
pub fn api_server_service() -> ServiceKey {
    ServiceKey::new("default", "kubernetes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::model::NodeView;

    use crate::cluster::convert;

    #[test]
    fn a_pod_may_end_unseen_while_pods_are_not_watched() {
        let key = ObjectKey::new("shop", "a");
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let mut pod = convert::pod(&Default::default());
        pod.ips = vec![ip];
        let mut view = ClusterView::default();
        view.pods.put(key.clone(), pod);
        assert!(!view.end_is_unseen(ip));
        view.watch_broken(Kind::Pod);
        assert!(view.end_is_unseen(ip));
        view.watch_opened(Kind::Pod);
        assert!(!view.end_is_unseen(ip));
        view.pods.vanish(&key);
        assert!(view.end_is_unseen(ip));
    }

    #[test]
    fn a_kind_is_silent_ninety_seconds_after_it_was_heard_of() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut view = ClusterView::default();
        assert!(view.silent(at(1_000)).is_empty(), "no watch has begun");
        Kind::ALL.into_iter().for_each(|kind| view.heard(kind, at(0)));
        view.heard(Kind::Pod, at(10));
        assert!(view.silent(at(89)).is_empty());
        assert_eq!(view.silent(at(99)).len(), Kind::ALL.len() - 1);
        assert_eq!(view.unheard_for(Kind::Pod, at(99)), Some(SignedDuration::from_secs(89)));
        assert!(view.silent(at(100)).contains(&Kind::Pod));
    }

    #[test]
    fn trusted_networks_follow_nodes_service_ranges_and_the_api_server() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut view = ClusterView::default();
        let node = NodeView {
            addresses: vec![ip("192.0.2.1")],
            pod_cidrs: vec!["10.244.0.0/24".into()],
            ..NodeView::default()
        };
        let affected = view.networks.set_node("n", Some(node.clone()));
        assert_eq!(affected, [(ip("192.0.2.1"), ip("192.0.2.1")), (ip("10.244.0.0"), ip("10.244.0.255"))]);
        assert!(view.networks.set_node("n", Some(node)).is_empty(), "a heartbeat changes nothing");
        view.networks.set_service_cidr("kubernetes", Some(vec!["10.96.0.0/16".into()]));
        let api = serde_json::json!({
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.9"]}],
        });
        view.slices.put("default", convert::slice(serde_json::from_value(api).unwrap()));
        assert_eq!(view.api_servers_changed(), [(ip("192.0.2.9"), ip("192.0.2.9"))]);
        let ours = serde_json::json!({
            "metadata": {"name": "ours", "labels": {"kubernetes.io/service-name": "kubernetes",
                "endpointslice.kubernetes.io/managed-by": "twinspan.dev"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.99"]}],
        });
        view.slices.put("default", convert::slice(serde_json::from_value(ours).unwrap()));
        assert!(view.api_servers_changed().is_empty(), "an import into that Service");
        let trust = view.networks.trust();
        assert!(trust.pod_cidrs.contains(ip("10.244.0.7")) && trust.service_cidrs.contains(ip("10.96.0.1")));
        assert!(trust.node_addresses.contains(&ip("192.0.2.1")) && trust.api_servers.contains(&ip("192.0.2.9")));
        view.networks.set_node("n", None);
        assert!(view.networks.trust().node_addresses.is_empty());
    }

    #[test]
    fn a_cluster_ip_shows_no_range_and_each_family_has_its_own() {
        let mut view = ClusterView::default();
        let unknown = |view: &ClusterView| view.families_without_service_range().into_iter().collect::<Vec<_>>();
        assert!(unknown(&view).is_empty(), "the API server has ServiceCIDRs");
        view.set_absent(Kind::ServiceCidr);
        assert_eq!(unknown(&view), ["IPv4", "IPv6"], "nothing shows which families the cluster has");
        view.cluster_ips.insert("10.96.0.1".parse().unwrap());
        assert_eq!(unknown(&view), ["IPv4"]);
        view.networks.set_service_cidr("set", Some(vec!["10.96.0.0/16".into()]));
        assert!(unknown(&view).is_empty());
        view.cluster_ips.insert("fd96::7".parse().unwrap());
        assert_eq!(unknown(&view), ["IPv6"]);
        view.cluster_ips.clear();
        assert!(unknown(&view).is_empty(), "a person said which there are");
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
