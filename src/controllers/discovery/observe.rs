//! The observation of discovery: Services, namespaces, RegisteredServices and names, read from the views at one moment.
//!
//! Owns what has to be complete and heard of before anything is written, and what tells that something changed. Refuses
//! to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use twinspan_core::Timestamp;
use twinspan_core::model::{ServiceKey, ServiceView};
use twinspan_core::plan::discovery::facts::{Facts, Names, Namespace, Settings};
use twinspan_core::plan::service::Incarnation;

use super::objects::{Known, Registries, reduce};
use crate::api::discovered::discovered_by;
use crate::api::{RegisteredService, ServiceRegistry};
use crate::cluster::convert::NamespaceView;
use crate::cluster::view::{ClusterView, Kind};
use crate::controllers::views::Views;
use crate::registry::handle::RegistryHandle;
use crate::registry::scope::Scope;

/// The kinds on which discovery rests.
const KINDS: [Kind; 4] = [Kind::RegisteredService, Kind::ServiceRegistry, Kind::Service, Kind::Namespace];

/// Tells two moments apart between which something changed that discovery reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    cluster: u64,
    unsynced: usize,
    silent: BTreeSet<Kind>,
    /// The session of each registry, the changes of its names, and whether they are all known.
    registries: BTreeMap<String, (Session, Option<u64>)>,
}

/// The life of a registry, whether it is connected, and since when it is listed.
type Session = (String, bool, Option<Instant>);

pub fn seen(views: &Views, now: Timestamp) -> Seen {
    let (cluster, unsynced, silent) = {
        let view = views.cluster();
        (view.discoverable, view.unsynced().len(), view.silent(now))
    };
    let names = |handle: &Arc<RegistryHandle>| {
        let session = (basis(handle), handle.connection().is_ok(), handle.connected_at());
        (handle.name.clone(), (session, handle.view().foreign_names().map(|names| names.changes())))
    };
    Seen { cluster, unsynced, silent, registries: views.registries.all().iter().map(names).collect() }
}

/// The ServiceRegistries that have to be looked at: those with discovery, and those that a discovered object names, by
/// its reference or its label. Anybody who may write a RegisteredService labels one, which must not cost all.
pub fn registries<'a>(views: &Views, known: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let view = views.cluster();
    let (mut referred, mut uids): (BTreeSet<&str>, BTreeSet<&str>) = Default::default();
    let here = view.index.discovered().filter_map(|key| view.registered_services.get(key));
    for object in here.chain(view.discovered_elsewhere.values()) {
        referred.insert(object.spec.registry_ref.name.as_str());
        uids.extend(discovered_by(object));
    }
    let is_named = |name: &str, object: &ServiceRegistry| {
        referred.contains(name) || object.metadata.uid.as_deref().is_some_and(|uid| uids.contains(uid))
    };
    let all = view.service_registries.iter();
    let asked = all.filter(|(name, object)| object.spec.discovery.is_some() || is_named(name, object));
    let mut names: BTreeSet<String> = asked.map(|(name, _)| name.clone()).collect();
    names.extend(known.cloned());
    names
}

/// One ServiceRegistry, and all that its discovery reads.
#[derive(Debug)]
pub struct Sight {
    pub name: String,
    pub registry: Arc<ServiceRegistry>,
    /// `None` where it has no discovery.
    pub settings: Option<Settings>,
    /// Whether this release looks at the namespace of imports.
    pub looks_at_imports: bool,
    /// Kinds that were not heard of for long: nothing is concluded from them.
    pub silent: BTreeSet<Kind>,
    services: Vec<(ServiceKey, Arc<ServiceView>)>,
    namespaces: BTreeMap<String, Arc<NamespaceView>>,
    objects: Vec<(ServiceKey, Arc<RegisteredService>, bool)>,
    /// Objects whose label names this ServiceRegistry, and which refer to one of another release.
    elsewhere: BTreeMap<ServiceKey, Arc<RegisteredService>>,
    /// The keys of other releases' objects.
    taken: BTreeSet<ServiceKey>,
    registries: Registries,
    names: Names,
}

/// Observes one ServiceRegistry. `None` while a list is not complete, and where it is gone, another release may serve
/// it, it cannot be read, or it neither has discovery nor anything that one made.
pub fn observe(views: &Views, name: &str) -> Option<Sight> {
    let view = views.cluster();
    if !view.unsynced().is_empty() {
        return None;
    }
    let registry = view.service_registries.get(name).filter(|object| object.metadata.deletion_timestamp.is_none())?;
    if !view.may_act_on(registry) {
        return None;
    }
    // A stand-in has no discovery where it cannot be read, which would sweep everything.
    if view.unreadable_registries.contains_key(name) {
        return None;
    }
    let import = registry.spec.discovery.as_ref().and_then(|discovery| discovery.import.as_ref());
    let sight = Sight {
        name: name.to_owned(),
        registry: registry.clone(),
        settings: registry.spec.discovery.as_ref().map(Into::into),
        looks_at_imports: import.is_none_or(|import| view.reach().looks_at(&import.namespace)),
        silent: view.silent(views.env.now()).into_iter().filter(|kind| KINDS.contains(kind)).collect(),
        services: view.services.all().map(|(key, service)| (key.clone(), service.clone())).collect(),
        namespaces: view.namespaces.clone(),
        objects: objects(&view),
        elsewhere: elsewhere(&view, registry),
        taken: view.served_elsewhere.keys().cloned().collect(),
        registries: all_registries(&view),
        names: names(views, registry),
    };
    drop(view);
    let made_any = || sight.facts().objects.values().any(|object| object.is_discovered());
    (sight.settings.is_some() || made_any()).then_some(sight)
}

fn objects(view: &ClusterView) -> Vec<(ServiceKey, Arc<RegisteredService>, bool)> {
    let all = view.registered_services.iter();
    all.map(|(key, object)| (key.clone(), object.clone(), view.unreadable_services.contains_key(key))).collect()
}

fn elsewhere(view: &ClusterView, registry: &ServiceRegistry) -> BTreeMap<ServiceKey, Arc<RegisteredService>> {
    let uid = registry.metadata.uid.as_deref();
    let all = view.discovered_elsewhere.iter().filter(|(_, object)| discovered_by(object) == uid);
    all.map(|(key, object)| (key.clone(), object.clone())).collect()
}

fn all_registries(view: &ClusterView) -> Registries {
    let all = || view.service_registries.iter().chain(&view.unserved_registries);
    Registries {
        names: all().map(|(name, _)| name.clone()).collect(),
        uids: all().filter_map(|(_, object)| object.metadata.uid.clone()).collect(),
    }
}

/// The names with foreign records, if all of them are known.
fn names(views: &Views, registry: &ServiceRegistry) -> Names {
    let asks = registry.spec.discovery.as_ref().is_some_and(|discovery| discovery.import.is_some());
    let handle = registry.metadata.name.as_ref().and_then(|name| views.registries.get(name));
    let Some(handle) = handle.filter(|_| asks) else { return Names::Unknown };
    let basis = basis(&handle);
    if handle.connection().is_err() {
        return Names::Unknown;
    }
    match handle.view().foreign_names() {
        Some(names) => Names::Complete { foreign: names.all(), basis },
        None if handle.asked.scope() == Some(Scope::FollowedNames) => Names::TooMany,
        None => Names::Unknown,
    }
}

/// The life of the registry. Its incarnation tells it from others; without one each session may be another.
fn basis(handle: &RegistryHandle) -> String {
    let (etcd, view) = (handle.etcd().unwrap_or_default(), handle.view());
    let incarnation = view.last_known().and_then(|known| known.incarnation.clone());
    match incarnation.filter(|_| handle.fence.is_some() && view.incarnation() == Incarnation::AsItWas) {
        Some(incarnation) => format!("{etcd:x} {incarnation}"),
        None => format!("{etcd:x} {:?} {:?}", view.incarnation(), handle.connected_at()),
    }
}

impl Sight {
    /// Whether everything was heard of on which a write rests.
    pub fn is_whole(&self) -> bool {
        self.silent.is_empty()
    }

    /// Whether anything may be written. Without discovery, what it made before goes.
    pub fn writes(&self) -> bool {
        self.settings.as_ref().is_none_or(|settings| settings.writes)
    }

    pub fn uid(&self) -> &str {
        self.registry.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The RegisteredService of a key.
    pub fn object(&self, key: &ServiceKey) -> Option<&Arc<RegisteredService>> {
        let found = self.objects.binary_search_by(|(other, ..)| other.cmp(key)).ok();
        let here = found.and_then(|found| self.objects.get(found)).map(|(_, object, _)| object);
        here.or_else(|| self.elsewhere.get(key))
    }

    pub fn facts(&self) -> Facts<'_> {
        let known = Known { registry: &self.name, uid: self.uid(), registries: &self.registries };
        let here = self.objects.iter();
        let here = here.filter_map(|(key, object, unreadable)| Some((key, reduce(known, key, object, *unreadable)?)));
        let elsewhere = self.elsewhere.iter().filter_map(|(key, object)| {
            let mut reduced = reduce(known, key, object, false)?;
            // No pass of this release writes a status about that spec, which a sweep would wait for.
            reduced.carries.is_current = true;
            Some((key, reduced))
        });
        Facts {
            settings: self.settings.clone(),
            namespaces: self
                .namespaces
                .iter()
                .map(|(name, namespace)| {
                    let (labels, deleting) = (&namespace.labels, namespace.deleting);
                    (name.as_str(), Namespace { labels, export: namespace.export.as_deref(), deleting })
                })
                .collect(),
            services: self.services.iter().map(|(key, service)| (key, &**service)).collect(),
            objects: here.chain(elsewhere).collect(),
            names: self.names.clone(),
            taken: self.taken.iter().filter(|key| !self.elsewhere.contains_key(*key)).collect(),
        }
    }
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
