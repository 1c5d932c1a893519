//! The effect of the kinds of our API on the view, and the events that follow.
//!
//! Owns which change of theirs is worth an event: a status affects nothing but its writer, which tells its own from
//! those of others. Refuses to know how a change arrives, which [`super::watch`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Resource;
use kube::api::ObjectMeta;
use tracing::warn;
use twinspan_core::model::ObjectKey;

use super::kinds::Watched;
use super::status_queue::Object;
use super::view::{ClusterEvent, ClusterView, Kind};
use crate::api::discovered::discovered_by;
use crate::api::{RegisteredService, ServiceRegistry, Stored, Unreadable};

impl Watched for Stored<RegisteredService> {
    const KIND: Kind = Kind::RegisteredService;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.registered_services.keys().chain(view.served_elsewhere.keys()).cloned().collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, Self { mut object, unreadable }: Self) -> Vec<ClusterEvent> {
        // Nobody knows which registry one means whose reference cannot be read.
        let refers = unreadable.as_ref().is_none_or(|unreadable| unreadable.has_read(&["registryRef"]));
        if refers && !view.reach().serves(&object.spec.registry_ref.name) {
            let was_served = view.registered_services.contains_key(&key);
            let mut events = if was_served { Self::remove(view, &key) } else { Vec::new() };
            let service = object.service_key();
            let before = view.served_elsewhere.insert(key.clone(), service.clone());
            let discovered = discovered_by(&object).is_some() && unreadable.is_none();
            let same = set_discovered_elsewhere(view, &key, discovered.then_some(object));
            view.discoverable += u64::from(before.is_none() || !same);
            if before.as_ref() != Some(&service) || !same {
                events.push(ClusterEvent::Selects(key.namespace));
            }
            return events;
        }
        view.served_elsewhere.remove(&key);
        view.discovered_elsewhere.remove(&key);
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
        view.discovered_elsewhere.remove(key);
        let elsewhere = view.served_elsewhere.remove(key).map(|_| ClusterEvent::Selects(key.namespace.clone()));
        affected.insert(key.clone());
        names.into_iter().chain(elsewhere).chain(affected.into_iter().map(ClusterEvent::RegisteredService)).collect()
    }
}

/// Enters a discovered RegisteredService of another release. Returns whether discovery reads the same as before.
fn set_discovered_elsewhere(view: &mut ClusterView, key: &ObjectKey, object: Option<RegisteredService>) -> bool {
    let Some(mut object) = object else { return view.discovered_elsewhere.remove(key).is_none() };
    (object.status, object.metadata.managed_fields) = (None, None);
    let object = Arc::new(object);
    let known = view.discovered_elsewhere.insert(key.clone(), object.clone());
    known.is_some_and(|known| is_same(&*known, &*object, |o| &o.spec))
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

#[cfg(test)]
#[path = "own_kinds_tests.rs"]
mod tests;
