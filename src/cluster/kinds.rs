//! The effect of each watched kind on the view, and the events that follow.
//!
//! Owns which change is worth an event: a status affects nothing but its writer, which tells its own from those of
//! others. Refuses to know how a change arrives, which [`super::watch`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::de::DeserializeOwned;
use tracing::warn;
use twinspan_core::model::{Labels, NodeView, ObjectKey, ServiceKey};

use super::convert;
use super::networks::Range;
use super::status_queue::Object;
use super::view::{ClusterEvent, ClusterView, Kind, api_server_service};
use crate::api::{RegisteredService, ServiceRegistry, Stored, Unreadable};

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

impl Watched for Stored<RegisteredService> {
    const KIND: Kind = Kind::RegisteredService;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.registered_services.keys().chain(view.served_elsewhere.keys()).cloned().collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, Self { mut object, unreadable }: Self) -> Vec<ClusterEvent> {
        // Nobody knows which registry one means whose names cannot be read.
        let has_names = unreadable.as_ref().is_none_or(|unreadable| unreadable.has_read(RegisteredService::NAMES));
        if has_names && !view.reach().serves(&object.spec.registry_ref.name) {
            let was_served = view.registered_services.contains_key(&key);
            let mut events = if was_served { Self::remove(view, &key) } else { Vec::new() };
            let service = object.service_key();
            let before = view.served_elsewhere.insert(key.clone(), service.clone());
            if before.as_ref() != Some(&service) {
                events.push(ClusterEvent::Selects(key.namespace));
            }
            return events;
        }
        view.served_elsewhere.remove(&key);
        object.metadata.managed_fields = None;
        let known = view.registered_services.get(&key);
        let refused = refuse(&mut view.unreadable_services, &key, unreadable, Self::KIND);
        // A status affects no RegisteredService; its writer tells its own from those of others.
        let same = known.filter(|known| !refused && is_same(known.as_ref(), &object, |o| &o.spec));
        if let Some(known) = same {
            let changed = (known.status != object.status).then(|| Object::RegisteredService(key.clone()));
            view.registered_services.insert(key, Arc::new(object));
            return changed.map(ClusterEvent::StatusChanged).into_iter().collect();
        }
        view.discoverable += 1;
        // RegisteredServices that shared a name or a Service with it, and those that do now.
        let mut affected = view.index.siblings(&key);
        let before = view.index.registry_and_name(&key);
        if view.is_nameless(&key) {
            view.index.remove(&key);
        } else {
            view.index.put(&key, &object);
        }
        affected.extend(view.index.siblings(&key));
        let names = moved(before, view.index.registry_and_name(&key));
        view.registered_services.insert(key.clone(), Arc::new(object));
        affected.insert(key);
        names.into_iter().chain(affected.into_iter().map(ClusterEvent::RegisteredService)).collect()
    }

    fn is_outdated(view: &ClusterView, key: &ObjectKey, Self { object, .. }: &Self) -> bool {
        let known = view.registered_services.get(key).map(AsRef::as_ref);
        known.is_some_and(|known| is_older(object, known) && is_same(known, object, |o| &o.spec))
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.discoverable += 1;
        let mut affected = view.index.siblings(key);
        let names = moved(view.index.registry_and_name(key), None);
        view.index.remove(key);
        view.registered_services.remove(key);
        view.unreadable_services.remove(key);
        let elsewhere = view.served_elsewhere.remove(key).map(|_| ClusterEvent::Selects(key.namespace.clone()));
        affected.insert(key.clone());
        names.into_iter().chain(elsewhere).chain(affected.into_iter().map(ClusterEvent::RegisteredService)).collect()
    }
}

/// The names in registries that one RegisteredService has now, or had before.
fn moved(before: Option<(String, String)>, after: Option<(String, String)>) -> Vec<ClusterEvent> {
    if before == after {
        return Vec::new();
    }
    let names = before.into_iter().chain(after);
    names.map(|(registry, name)| ClusterEvent::Name { registry, name }).collect()
}

/// Enters what cannot be read of an object, and says it once. Returns whether it is another than before.
fn refuse<K: Ord + Clone + std::fmt::Display>(
    refused: &mut BTreeMap<K, Arc<Unreadable>>,
    key: &K,
    unreadable: Option<Arc<Unreadable>>,
    kind: Kind,
) -> bool {
    let essence = |unreadable: &Arc<Unreadable>| (unreadable.problems.clone(), unreadable.raw["spec"].clone());
    let changed = refused.get(key).map(essence) != unreadable.as_ref().map(essence);
    if let Some(unreadable) = unreadable.as_ref().filter(|_| changed) {
        warn!(kind = kind.as_str(), object = %key, "{}", unreadable.message());
    }
    match unreadable {
        Some(unreadable) => drop(refused.insert(key.clone(), unreadable)),
        None => drop(refused.remove(key)),
    }
    changed
}

/// Whether two versions of an object differ in their status at most.
fn is_same<K: Resource, S: PartialEq>(known: &K, object: &K, spec: impl Fn(&K) -> &S) -> bool {
    spec(known) == spec(object) && without_status(known.meta()) == without_status(object.meta())
}

/// Whether the answer to a write of ours has shown a later version. Versions of one kind are ordered (KEP-5504), but
/// for those before a restored API server, which a list shows.
fn is_older<K: Resource>(object: &K, known: &K) -> bool {
    let version = |object: &K| object.meta().resource_version.as_ref()?.parse::<u64>().ok();
    version(object).zip(version(known)).is_some_and(|(object, known)| object < known)
}

/// Metadata without the fields that every write changes.
fn without_status(meta: &kube::api::ObjectMeta) -> ObjectMeta {
    ObjectMeta { resource_version: None, managed_fields: None, ..meta.clone() }
}

impl Watched for Stored<ServiceRegistry> {
    const KIND: Kind = Kind::ServiceRegistry;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        let names = view.service_registries.keys().chain(view.unserved_registries.keys());
        names.map(|name| ObjectKey::new("", name)).collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, Self { mut object, unreadable }: Self) -> Vec<ClusterEvent> {
        object.metadata.managed_fields = None;
        if !view.reach().serves(&key.name) {
            let known = view.unserved_registries.insert(key.name.clone(), Arc::new(object.clone()));
            let told = |object: &ServiceRegistry| {
                let status = object.status.as_ref();
                status.map(|status| (status.holder.clone(), status.cluster_id.clone())).unwrap_or_default()
            };
            let same =
                known.is_some_and(|known| is_same(&*known, &object, |o| &o.spec) && told(&known) == told(&object));
            view.discoverable += u64::from(!same);
            return if same { Vec::new() } else { vec![ClusterEvent::ServiceRegistry(key.name)] };
        }
        let known = view.service_registries.get(&key.name);
        let refused = refuse(&mut view.unreadable_registries, &key.name, unreadable, Self::KIND);
        // An epoch at which the leader stops writing also stops its successor, and so does another release.
        let in_use = |object: &ServiceRegistry| {
            let status = object.status.as_ref();
            status.map(|status| (status.epoch_in_use.clone(), status.holder.clone())).unwrap_or_default()
        };
        let same = known.filter(|known| {
            !refused && is_same(known.as_ref(), &object, |o| &o.spec) && in_use(known) == in_use(&object)
        });
        view.discoverable += u64::from(same.is_none());
        let event = match same {
            None => Some(ClusterEvent::ServiceRegistry(key.name.clone())),
            Some(known) if known.status == object.status => None,
            Some(_) => Some(ClusterEvent::StatusChanged(Object::ServiceRegistry(key.name.clone()))),
        };
        view.vanished_registries.remove(&key.name);
        view.service_registries.insert(key.name.clone(), Arc::new(object));
        view.note_holder(&key.name);
        event.into_iter().collect()
    }

    fn is_outdated(view: &ClusterView, key: &ObjectKey, Self { object, .. }: &Self) -> bool {
        let known = view.service_registries.get(&key.name).map(AsRef::as_ref);
        known.is_some_and(|known| is_older(object, known) && is_same(known, object, |o| &o.spec))
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.discoverable += 1;
        view.were_ours.remove(&key.name);
        view.unserved_registries.remove(&key.name);
        view.service_registries.remove(&key.name);
        view.unreadable_registries.remove(&key.name);
        vec![ClusterEvent::ServiceRegistry(key.name.clone())]
    }

    fn vanish(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.vanished_registries.insert(key.name.clone());
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
