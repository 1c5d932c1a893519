//! The effect of each watched kind on the view, and the events that follow.
//!
//! Owns which change of a kind of Kubernetes is worth an event; `own_kinds` has the kinds of our API. Refuses to know
//! how a change arrives, which [`super::watch`] does.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Resource;
use serde::de::DeserializeOwned;
use twinspan_core::model::{Labels, NodeView, ObjectKey, ServiceKey};

use super::convert;
use super::networks::Range;
use super::view::{ClusterEvent, ClusterView, Kind, api_server_service};

/// The effect of a kind on the view. `put` and `remove` return the events to send.
pub trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;
    /// Whether an API server without the kind is good enough.
    const MAY_BE_ABSENT: bool = false;
    fn list_begins(_view: &mut ClusterView, _part: &str) {}
    /// The objects that a complete list names if they still exist.
    fn known(view: &ClusterView) -> BTreeSet<ObjectKey>;
    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent>;
    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent>;
    /// A list of this version is complete, or the watch has told everything up to it.
    fn set_told(_view: &mut ClusterView, _part: &str, _version: &str) {}
    /// Whether the answer to a write of ours was newer.
    fn is_outdated(_view: &ClusterView, _key: &ObjectKey, _object: &Self) -> bool {
        false
    }
    /// Removes an object that a re-list does not name.
    fn vanish(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        Self::remove(view, key)
    }
}

impl Watched for Service {
    const KIND: Kind = Kind::Service;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.services.keys().cloned().collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        let service = convert::service(&object);
        if view.services.get(&key).is_some_and(|known| **known == service) {
            return Vec::new();
        }
        view.discoverable += 1;
        let mut events = cluster_ips_change(view, &key, &service.cluster_ips);
        events.extend(selects(view, &key, &service.selects));
        view.services.put(key.clone(), service);
        events.push(ClusterEvent::Service(key));
        events
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.discoverable += 1;
        let mut events = cluster_ips_change(view, key, &[]);
        events.extend(selects(view, key, &Labels::default()));
        view.services.remove(key);
        events.push(ClusterEvent::Service(key.clone()));
        events
    }
}

/// The event of a Service that selects other pods than before.
fn selects(view: &ClusterView, key: &ObjectKey, now: &Labels) -> Option<ClusterEvent> {
    let before = view.services.get(key).map(|known| known.selects.clone()).unwrap_or_default();
    (before != *now).then(|| ClusterEvent::Selects(key.namespace.clone()))
}

/// No two Services have one ClusterIP.
fn cluster_ips_change(view: &mut ClusterView, key: &ObjectKey, now: &[IpAddr]) -> Vec<ClusterEvent> {
    let before = view.services.get(key).map(|known| known.cluster_ips.clone()).unwrap_or_default();
    if before == now {
        return Vec::new();
    }
    for ip in &before {
        view.cluster_ips.remove(ip);
    }
    view.cluster_ips.extend(now);
    addresses(before.into_iter().chain(now.iter().copied()).collect())
}

impl Watched for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.slices.listable()
    }

    fn list_begins(view: &mut ClusterView, part: &str) {
        view.slices.list_begins(part);
    }

    fn set_told(view: &mut ClusterView, part: &str, version: &str) {
        view.slices.set_told(part, version);
    }

    fn is_outdated(view: &ClusterView, key: &ObjectKey, object: &Self) -> bool {
        object.metadata.resource_version.as_ref().is_some_and(|version| view.slices.is_outdated(key, version))
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        let others = convert::others_metadata(&object.metadata);
        let slice = convert::slice(object);
        let stray = view.stray(&key.namespace, &slice);
        let version = slice.resource_version.clone();
        let services = view.slices.put(&key.namespace, slice);
        if view.slices.version(&key) == Some(version.as_str()) {
            view.slices.set_others(&key, others);
        }
        let writer = if services.is_empty() { None } else { view.slices.echo(&key, &version) };
        let mut events = affected(view, services, writer);
        events.extend(stray.map(ClusterEvent::RegisteredService));
        events
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        let services = view.slices.remove(key);
        affected(view, services, None)
    }
}

/// The events of a slice that changed; its writer knows its own write.
fn affected(view: &mut ClusterView, services: Vec<ServiceKey>, writer: Option<ServiceKey>) -> Vec<ClusterEvent> {
    let mut events = Vec::new();
    if services.contains(&api_server_service()) {
        events.extend(networks(view.api_servers_changed()));
    }
    match writer {
        Some(by) => events.push(ClusterEvent::Wrote { services, by }),
        None => events.extend(services.into_iter().map(ClusterEvent::Service)),
    }
    events
}

fn networks(ranges: Vec<Range>) -> Option<ClusterEvent> {
    (!ranges.is_empty()).then_some(ClusterEvent::Networks(ranges))
}

fn addresses(ips: Vec<IpAddr>) -> Vec<ClusterEvent> {
    if ips.is_empty() { Vec::new() } else { vec![ClusterEvent::Addresses(ips)] }
}

impl Watched for Pod {
    const KIND: Kind = Kind::Pod;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.pods.keys()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        let mut events = addresses(view.pods.put(key.clone(), convert::pod(&object)));
        if view.pods.set_waiting(&key, object.metadata.resource_version.as_deref().unwrap_or_default()) {
            events.push(ClusterEvent::Gate(key));
        }
        events
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        let waited = view.pods.waiting(key).map(|_| ClusterEvent::Gate(key.clone()));
        addresses(view.pods.remove(key)).into_iter().chain(waited).collect()
    }

    fn vanish(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        let waited = view.pods.waiting(key).map(|_| ClusterEvent::Gate(key.clone()));
        addresses(view.pods.vanish(key)).into_iter().chain(waited).collect()
    }
}

impl Watched for Node {
    const KIND: Kind = Kind::Node;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.networks.node_names().map(|name| ObjectKey::new("", name)).collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        node(view, &key.name, Some(convert::node(&object)))
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        node(view, &key.name, None)
    }

    fn vanish(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.networks.node_vanished();
        Self::remove(view, key)
    }
}

fn node(view: &mut ClusterView, name: &str, node: Option<NodeView>) -> Vec<ClusterEvent> {
    let before = view.networks.node(name).cloned();
    let mut events: Vec<ClusterEvent> = networks(view.networks.set_node(name, node)).into_iter().collect();
    if before.as_ref() != view.networks.node(name) {
        events.push(ClusterEvent::Nodes);
    }
    events
}

impl Watched for ServiceCIDR {
    const KIND: Kind = Kind::ServiceCidr;
    /// Before Kubernetes 1.33 the ranges come from settings, and from the ClusterIPs in use.
    const MAY_BE_ABSENT: bool = true;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.networks.service_cidr_names().map(|name| ObjectKey::new("", name)).collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        let cidrs = object.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
        networks(view.networks.set_service_cidr(&key.name, Some(cidrs))).into_iter().collect()
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        networks(view.networks.set_service_cidr(&key.name, None)).into_iter().collect()
    }
}

impl Watched for Namespace {
    const KIND: Kind = Kind::Namespace;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.namespaces.keys().map(|name| ObjectKey::new("", name)).collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        let namespace = convert::namespace(&object);
        if view.namespaces.get(&key.name).is_some_and(|known| **known == namespace) {
            return Vec::new();
        }
        view.discoverable += 1;
        view.namespaces.insert(key.name.clone(), Arc::new(namespace));
        vec![ClusterEvent::Namespace(key.name)]
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.discoverable += 1;
        view.namespaces.remove(&key.name);
        vec![ClusterEvent::Namespace(key.name.clone())]
    }
}

impl Watched for Secret {
    const KIND: Kind = Kind::Secret;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.secrets.keys().cloned().collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        // Helm's own, one for each release and revision, may be 1 MB each, and no ServiceRegistry can use them.
        if object.type_.as_deref() == Some("helm.sh/release.v1") {
            return Vec::new();
        }
        let secret = convert::secret(object);
        if view.secrets.get(&key).is_some_and(|known| known.data == secret.data) {
            return Vec::new();
        }
        view.secrets.insert(key, Arc::new(secret));
        vec![ClusterEvent::Secret]
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.secrets.remove(key);
        vec![ClusterEvent::Secret]
    }
}

#[cfg(test)]
#[path = "kinds_tests.rs"]
mod tests;
