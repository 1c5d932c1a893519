//! The watches that keep the view of the cluster true: one for each kind, reopened until it is stopped.
//!
//! Owns how a kind enters the view. An object that a re-list does not name is removed, as if the watch had reported its
//! deletion. Refuses to know the controllers: each change becomes a [`ClusterEvent`].

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use twinspan_core::model::{ObjectKey, ServiceKey};

use super::convert;
use super::view::{ClusterEvent, ClusterView, Kind, api_server_service};
use crate::api::{RegisteredService, ServiceRegistry};
use crate::env::Env;
use crate::tasks::Tasks;

/// Seconds after which the server ends a quiet watch; a dead connection is noticed 5 s later.
const WATCH_TIMEOUT: u32 = 60;
/// First wait after a watch failed; doubled for each further failure.
const BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait.
const BACKOFF_CAP: Duration = Duration::from_secs(5);

/// The effect of each kind on the view. `put` and `remove` return the events to send.
trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;
    fn list_begins(_view: &mut ClusterView) {}
    /// The objects that a complete list names if they still exist.
    fn known(view: &ClusterView) -> BTreeSet<ObjectKey>;
    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent>;
    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent>;
    /// Removes an object that a re-list does not name.
    fn vanish(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        Self::remove(view, key)
    }
}

/// Everything that the watches share.
#[derive(Clone, Debug)]
pub struct Watches {
    pub view: Arc<Mutex<ClusterView>>,
    pub events: mpsc::UnboundedSender<ClusterEvent>,
    pub env: Env,
    pub stop: CancellationToken,
    pub tasks: Tasks,
}

impl Watches {
    /// Starts a watch for each kind.
    pub fn start(&self, client: &Client, operator_namespace: &str) {
        self.follow::<RegisteredService>(Api::all(client.clone()));
        self.follow::<ServiceRegistry>(Api::all(client.clone()));
        self.follow::<Service>(Api::all(client.clone()));
        self.follow::<EndpointSlice>(Api::all(client.clone()));
        self.follow::<Namespace>(Api::all(client.clone()));
        self.follow::<Secret>(Api::namespaced(client.clone(), operator_namespace));
        self.follow::<Pod>(Api::all(client.clone()));
        self.follow::<Node>(Api::all(client.clone()));
        self.follow::<ServiceCIDR>(Api::all(client.clone()));
    }

    fn follow<K: Watched>(&self, api: Api<K>) {
        let Self { view, events, env, stop, .. } = self.clone();
        self.tasks.spawn(K::KIND.as_str(), follow::<K>(api, view, events, env, stop));
    }
}

/// kube's own backoff grows to a minute, for which a recovered API server would go unnoticed.
struct Retries {
    env: Env,
    failures: u32,
}

impl Iterator for Retries {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.failures += 1;
        Some(self.env.backoff(self.failures, BACKOFF, BACKOFF_CAP))
    }
}

impl Backoff for Retries {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

async fn follow<K: Watched>(
    api: Api<K>,
    view: Arc<Mutex<ClusterView>>,
    events: mpsc::UnboundedSender<ClusterEvent>,
    env: Env,
    stop: CancellationToken,
) {
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT);
    let mut stream = pin!(watcher(api, config).backoff(Retries { env: env.clone(), failures: 0 }));
    let mut listing = BTreeSet::new();
    loop {
        let item = tokio::select! {
            () = stop.cancelled() => return,
            item = stream.next() => item,
        };
        match item {
            // The stream of a watcher does not end; it backs off and continues after each error.
            None => return,
            Some(Err(error)) => {
                warn!(kind = K::KIND.as_str(), %error, "cannot watch; trying again");
                view.lock().unwrap_or_else(PoisonError::into_inner).watch_broken(K::KIND, env.now());
            }
            Some(Ok(event)) => {
                let affected = {
                    let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
                    match event {
                        watcher::Event::Init => view.watch_broken(K::KIND, env.now()),
                        watcher::Event::InitApply(_) => {}
                        _ => view.watch_recovered(K::KIND),
                    }
                    enter::<K>(&mut view, event, &mut listing)
                };
                for event in affected {
                    // The receiver is gone only while the process ends.
                    let _ = events.send(event);
                }
            }
        }
    }
}

fn enter<K: Watched>(
    view: &mut ClusterView,
    event: watcher::Event<K>,
    listing: &mut BTreeSet<ObjectKey>,
) -> Vec<ClusterEvent> {
    match event {
        watcher::Event::Init => {
            listing.clear();
            K::list_begins(view);
            Vec::new()
        }
        watcher::Event::InitApply(object) => {
            let key = key(&object);
            listing.insert(key.clone());
            let affected = K::put(view, key, object);
            learnt_by_list(view, &affected);
            affected
        }
        watcher::Event::InitDone => {
            let vanished: Vec<ObjectKey> = K::known(view).difference(listing).cloned().collect();
            debug!(kind = K::KIND.as_str(), objects = listing.len(), vanished = vanished.len(), "listed");
            listing.clear();
            let mut affected: Vec<ClusterEvent> = vanished.iter().flat_map(|key| K::vanish(view, key)).collect();
            learnt_by_list(view, &affected);
            if view.set_synced(K::KIND) {
                affected.push(ClusterEvent::Synced(K::KIND));
            }
            affected
        }
        watcher::Event::Apply(object) => K::put(view, key(&object), object),
        watcher::Event::Delete(object) => K::remove(view, &key(&object)),
    }
}

/// A re-list shows neither when nor how something changed, so it does not prove that an endpoint ended.
fn learnt_by_list(view: &mut ClusterView, affected: &[ClusterEvent]) {
    for event in affected {
        if let ClusterEvent::Service(service) = event {
            view.learnt_by_list(service);
        }
    }
}

fn key<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

impl Watched for RegisteredService {
    const KIND: Kind = Kind::RegisteredService;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.registered_services.keys().chain(view.unreadable.keys()).cloned().collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, mut object: Self) -> Vec<ClusterEvent> {
        object.metadata.managed_fields = None;
        let known = view.registered_services.get(&key);
        // Our own status writes come back as events, and affect no RegisteredService.
        let same = known
            .is_some_and(|k| k.spec == object.spec && without_status(&k.metadata) == without_status(&object.metadata));
        if same {
            view.registered_services.insert(key, Arc::new(object));
            return Vec::new();
        }
        // RegisteredServices that shared a name or a Service with it, and those that do now.
        let mut affected = view.index.siblings(&key);
        let before = view.index.registry_and_name(&key);
        view.index.put(&key, &object);
        affected.extend(view.index.siblings(&key));
        let names = moved(before, view.index.registry_and_name(&key));
        view.unreadable.remove(&key);
        view.registered_services.insert(key.clone(), Arc::new(object));
        affected.insert(key);
        names.into_iter().chain(affected.into_iter().map(ClusterEvent::RegisteredService)).collect()
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        let mut affected = view.index.siblings(key);
        let names = moved(view.index.registry_and_name(key), None);
        view.index.remove(key);
        view.registered_services.remove(key);
        view.unreadable.remove(key);
        affected.insert(key.clone());
        names.into_iter().chain(affected.into_iter().map(ClusterEvent::RegisteredService)).collect()
    }
}

/// The registries whose names changed because one RegisteredService did.
fn moved(before: Option<(String, String)>, after: Option<(String, String)>) -> Vec<ClusterEvent> {
    if before == after {
        return Vec::new();
    }
    let registries: BTreeSet<String> = before.into_iter().chain(after).map(|(registry, _)| registry).collect();
    registries.into_iter().map(ClusterEvent::Names).collect()
}

/// Metadata without the fields that every write changes.
fn without_status(meta: &kube::api::ObjectMeta) -> kube::api::ObjectMeta {
    kube::api::ObjectMeta { resource_version: None, managed_fields: None, ..meta.clone() }
}

impl Watched for ServiceRegistry {
    const KIND: Kind = Kind::ServiceRegistry;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.service_registries.keys().map(|name| ObjectKey::new("", name)).collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, mut object: Self) -> Vec<ClusterEvent> {
        object.metadata.managed_fields = None;
        let known = view.service_registries.get(&key.name);
        // An epoch at which the leader stops writing also stops its successor.
        let in_use = |object: &Self| object.status.as_ref().and_then(|status| status.epoch_in_use.clone());
        let same = known.is_some_and(|known| {
            known.spec == object.spec
                && without_status(&known.metadata) == without_status(&object.metadata)
                && in_use(known) == in_use(&object)
        });
        view.service_registries.insert(key.name.clone(), Arc::new(object));
        if same { Vec::new() } else { vec![ClusterEvent::ServiceRegistry(key.name)] }
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.service_registries.remove(&key.name);
        vec![ClusterEvent::ServiceRegistry(key.name.clone())]
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
        view.services.insert(key.clone(), Arc::new(service));
        vec![ClusterEvent::Service(key)]
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.services.remove(key);
        vec![ClusterEvent::Service(key.clone())]
    }
}

impl Watched for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.slices.listable()
    }

    fn list_begins(view: &mut ClusterView) {
        view.slices.list_begins();
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
        let mut events = affected(view, services);
        events.extend(stray.map(ClusterEvent::RegisteredService));
        events
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        let services = view.slices.remove(key);
        affected(view, services)
    }
}

fn affected(view: &mut ClusterView, services: Vec<ServiceKey>) -> Vec<ClusterEvent> {
    let mut events = Vec::new();
    if services.contains(&api_server_service()) {
        events.extend(networks(view.api_servers_changed()));
    }
    events.extend(services.into_iter().map(ClusterEvent::Service));
    events
}

fn networks(ranges: Vec<(IpAddr, IpAddr)>) -> Option<ClusterEvent> {
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
        addresses(view.pods.put(key, convert::pod(&object)))
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        addresses(view.pods.remove(key))
    }

    fn vanish(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        addresses(view.pods.vanish(key))
    }
}

impl Watched for Node {
    const KIND: Kind = Kind::Node;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.node_names().map(|name| ObjectKey::new("", name)).collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        networks(view.set_node(&key.name, Some(convert::node(&object)))).into_iter().collect()
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        networks(view.set_node(&key.name, None)).into_iter().collect()
    }
}

impl Watched for ServiceCIDR {
    const KIND: Kind = Kind::ServiceCidr;

    fn known(view: &ClusterView) -> BTreeSet<ObjectKey> {
        view.service_cidr_names().map(|name| ObjectKey::new("", name)).collect()
    }

    fn put(view: &mut ClusterView, key: ObjectKey, object: Self) -> Vec<ClusterEvent> {
        let cidrs = object.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
        networks(view.set_service_cidr(&key.name, Some(cidrs))).into_iter().collect()
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        networks(view.set_service_cidr(&key.name, None)).into_iter().collect()
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
        view.namespaces.insert(key.name.clone(), Arc::new(namespace));
        vec![ClusterEvent::Namespace(key.name)]
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
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
        view.secrets.insert(key, Arc::new(convert::secret(object)));
        vec![ClusterEvent::Secret]
    }

    fn remove(view: &mut ClusterView, key: &ObjectKey) -> Vec<ClusterEvent> {
        view.secrets.remove(key);
        vec![ClusterEvent::Secret]
    }
}
