//! A controller of RegisteredServices between a Kubernetes API and registries in memory, for unit tests.
//!
//! Owns the RegisteredService `shop/echo`, its Service, and a session for each registry; the sessions are the real
//! ones. Refuses to watch the API: a test says what the watches would have shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use twinspan_core::Timestamp;
use twinspan_core::model::{LeaseId, ObjectKey, RegistryName, ServiceKey};

use super::{Checkpoints, Controller};
use crate::api::conditions::find;
use crate::api::{Difference, RegisteredService, RegisteredServiceStatus, ServiceRegistry, Stored};
use crate::cluster::convert;
use crate::cluster::fake_api::{FakeApi, Received};
use crate::cluster::kinds::Watched;
use crate::cluster::view::{ClusterEvent, ClusterView, Kind};
use crate::controllers::queue::Finished;
use crate::controllers::service_registry::settings;
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;
use crate::env::Env;
use crate::leadership::Leadership;
use crate::registry::handle::{RegistryEvent, RegistryHandle};
use crate::registry::session;
use crate::registry::sessions::{Running, SessionSettings};
use crate::registry::testing::FakeEtcd;

pub const PATH: &str = "/apis/twinspan.dev/v1alpha1/namespaces/shop/registeredservices/echo";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
pub const SERVICES: &str = "/api/v1/namespaces/shop/services";
/// Longer than the least time between two status writes.
pub const STATUS_PACE: Duration = Duration::from_secs(6);

pub struct Bench {
    pub api: FakeApi,
    pub etcds: BTreeMap<String, FakeEtcd>,
    pub controller: Controller,
    pub events: mpsc::UnboundedReceiver<RegistryEvent>,
    pub cluster_events: mpsc::UnboundedReceiver<ClusterEvent>,
    /// The time of day that the machine shows.
    machine: Arc<Mutex<Timestamp>>,
    versions: u64,
    stop: CancellationToken,
    /// The prefix of every registry.
    prefix: &'static str,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn key() -> ServiceKey {
    ServiceKey::new("shop", "echo")
}

/// A leader, the headless Service `echo` and the registries, none of which has a record.
pub async fn bench(registries: &[&str]) -> Bench {
    let noon = Timestamp::from_second(1_767_268_800).unwrap();
    let (mut bench, sender) = process(FakeApi::default(), Arc::default(), noon);
    bench.fill_cluster();
    for name in registries {
        bench.start_registry(name, FakeEtcd::new(), sender.clone()).await;
    }
    bench
}

/// The same with registries in one etcd, whose keys have no prefix: each name is a range of its own.
pub async fn bench_side_by_side(registries: &[&str]) -> Bench {
    let noon = Timestamp::from_second(1_767_268_800).unwrap();
    let (mut bench, sender) = process(FakeApi::default(), Arc::default(), noon);
    bench.prefix = "";
    bench.fill_cluster();
    let etcd = FakeEtcd::new();
    for name in registries {
        bench.start_registry(name, etcd.clone(), sender.clone()).await;
    }
    bench
}

/// The writers of a process, and the statuses of which they tell.
fn start_writers(
    api: &FakeApi,
    views: &Views,
    leadership: &Leadership,
    stop: &CancellationToken,
) -> (Writers, mpsc::UnboundedReceiver<ClusterEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    let (writers, publisher) = Writers::new(&api.client(), views, leadership, "a", sender, Arc::default());
    tokio::spawn(publisher.run(stop.clone()));
    tokio::spawn(writers.statuses.clone().run(stop.clone()));
    (writers, events)
}

/// A process that leads, on a machine whose clock shows this time.
fn process(
    api: FakeApi,
    cluster: Arc<Mutex<ClusterView>>,
    time: Timestamp,
) -> (Bench, mpsc::UnboundedSender<RegistryEvent>) {
    let machine = Arc::new(Mutex::new(time));
    let (wall, leadership, stop) = (machine.clone(), Leadership::none(), CancellationToken::new());
    let mut views = Views::new(Env::started_at(move || *wall.lock().unwrap(), || 0.5));
    views.cluster = cluster;
    leadership.acquired();
    let (writers, cluster_events) = start_writers(&api, &views, &leadership, &stop);
    let (sender, events) = mpsc::unbounded_channel();
    let controller = Controller { views, writers, checkpoints: Checkpoints::default() };
    let etcds = BTreeMap::new();
    (Bench { api, etcds, controller, events, cluster_events, machine, versions: 100, stop, prefix: "p" }, sender)
}

impl Bench {
    /// Another process on another machine, whose clock is wrong by so many seconds. The API server's is right.
    pub async fn restarted(self, wrong_by: i64) -> Self {
        let (mut bench, sender) = self.again(wrong_by);
        bench.start_registries(&self.etcds, &sender).await;
        bench
    }

    /// Another process, which writes a status before a session begins.
    pub async fn restarted_while_the_registries_were_away(self) -> Self {
        let (mut bench, sender) = self.again(0);
        bench.pass().await;
        bench.after(STATUS_PACE).await;
        bench.start_registries(&self.etcds, &sender).await;
        bench
    }

    fn again(&self, wrong_by: i64) -> (Self, mpsc::UnboundedSender<RegistryEvent>) {
        let now = self.controller.views.env.now();
        let wrong = now + SignedDuration::from_secs(wrong_by);
        let (mut bench, sender) = process(self.api.clone(), self.controller.views.cluster.clone(), wrong);
        bench.versions = self.versions + 1000;
        bench.prefix = self.prefix;
        bench.controller.views.env.api_server_answered(Instant::now(), now);
        (bench, sender)
    }

    async fn start_registries(
        &mut self,
        etcds: &BTreeMap<String, FakeEtcd>,
        events: &mpsc::UnboundedSender<RegistryEvent>,
    ) {
        for (name, etcd) in etcds {
            self.start_registry(name, etcd.clone(), events.clone()).await;
        }
    }

    /// Somebody sets the clock of the machine.
    pub fn step_clock(&self, seconds: i64) {
        *self.machine.lock().unwrap() += SignedDuration::from_secs(seconds);
    }

    /// The process has this claim from now on.
    pub fn run_as(&mut self, leadership: &Leadership) {
        (self.controller.writers, self.cluster_events) =
            start_writers(&self.api, &self.controller.views, leadership, &self.stop);
    }

    fn fill_cluster(&mut self) {
        {
            let mut view = self.controller.views.cluster();
            Kind::ALL.into_iter().for_each(|kind| {
                view.set_synced(kind);
            });
            let namespace: Namespace = parse(json!({"metadata": {"name": "shop", "uid": "shop-uid"}}));
            view.namespaces.insert("shop".into(), Arc::new(convert::namespace(&namespace)));
        }
        self.put_service(&json!({
            "metadata": {"name": "echo", "namespace": "shop", "uid": "service-uid"},
            "spec": {"clusterIP": "None", "selector": {"app": "echo"}, "ipFamilies": ["IPv4"],
                "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}]},
        }));
        self.register(&json!({"registryRef": {"name": "main"}}));
    }

    /// A ServiceRegistry whose etcd has never answered, in place of the one with this name.
    pub fn replace_by_one_without_a_session(&self, name: &str) {
        let (sender, _) = mpsc::unbounded_channel();
        let (handle, settings) = self.registry(name, sender);
        let stop = self.stop.child_token();
        self.controller.views.registries.running().insert(name.to_owned(), Running { handle, settings, stop });
    }

    /// These ServiceRegistries have an endpoint in common.
    pub fn share_an_endpoint(&self, registries: &[&str]) {
        let mut running = self.controller.views.registries.running();
        for name in registries {
            running.get_mut(*name).unwrap().settings.connection.endpoints.push("http://etcd:2379".to_owned());
        }
    }

    fn registry(
        &self,
        name: &str,
        events: mpsc::UnboundedSender<RegistryEvent>,
    ) -> (Arc<RegistryHandle>, SessionSettings) {
        let object: ServiceRegistry = parse(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name, "uid": name},
            "spec": {"etcd": {"endpoints": [format!("http://{name}:2379")]}, "format": "Kitex", "prefix": self.prefix,
                "clusterID": "c1", "fence": {"mode": "None"},
                "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
        }));
        let views = &self.controller.views;
        let settings = settings::session_settings(&object, &views.cluster()).unwrap();
        views.cluster().service_registries.insert(name.to_owned(), Arc::new(object));
        let handle = RegistryHandle::new(name, &settings.identity, None, events);
        handle.asked.set_registered([RegistryName::new("echo").unwrap()].into());
        (handle, settings)
    }

    async fn start_registry(&mut self, name: &str, etcd: FakeEtcd, events: mpsc::UnboundedSender<RegistryEvent>) {
        let (handle, settings) = self.registry(name, events);
        let views = &self.controller.views;
        let stop = self.stop.child_token();
        tokio::spawn(session::run(handle.clone(), Arc::new(etcd.clone()), views.env.clone(), stop.clone()));
        while handle.connection().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // etcd lets its watches catch up ten times a second.
        tokio::time::sleep(Duration::from_millis(150)).await;
        handle.confirm_sole(handle.etcd());
        views.registries.running().insert(name.to_owned(), Running { handle, settings, stop });
        self.etcds.insert(name.to_owned(), etcd);
    }

    /// This process wins the Lease.
    pub fn lead(&self) {
        self.controller.writers.leadership.acquired();
    }

    /// Another process wins the Lease.
    pub fn stand_by(&self) {
        self.controller.writers.leadership.lost();
    }

    /// The RegisteredService with this spec; its status stays.
    pub fn register(&self, spec: &Value) {
        let status = self.object().and_then(|object| object.status.clone());
        let object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "echo", "namespace": "shop", "uid": "uid-1", "generation": 1},
            "spec": spec, "status": status,
        });
        self.api.put(PATH, object.clone());
        let object: RegisteredService = parse(object);
        let mut view = self.controller.views.cluster();
        view.index.put(&key(), &object);
        view.registered_services.insert(key(), Arc::new(object));
    }

    /// The watch shows this annotation on the RegisteredService.
    pub fn annotate(&self, name: &str, value: &str) {
        let mut view = self.controller.views.cluster();
        let object = Arc::make_mut(view.registered_services.get_mut(&key()).unwrap());
        object.metadata.annotations.get_or_insert_default().insert(name.to_owned(), value.to_owned());
    }

    /// The watch shows that the RegisteredService is gone.
    pub fn unregister(&self) {
        let mut view = self.controller.views.cluster();
        view.index.remove(&key());
        view.registered_services.remove(&key());
    }

    /// The watch shows a slice as the API has it, or that it is gone.
    pub fn show_slice(&self, name: &str) {
        let key = ObjectKey::new("shop", name);
        let mut view = self.controller.views.cluster();
        match self.api.object(&format!("{SLICES}/{name}")) {
            Some(object) => {
                let slice: EndpointSlice = parse(object);
                let others = convert::others_metadata(&slice.metadata);
                view.slices.put("shop", convert::slice(slice));
                view.slices.set_others(&key, others);
            }
            None => drop(view.slices.remove(&key)),
        }
    }

    /// The names that the administrator allows in a registry.
    pub fn allow(&self, registry: &str, names: &[&str]) {
        let mut view = self.controller.views.cluster();
        let object = Arc::make_mut(view.service_registries.get_mut(registry).unwrap());
        object.spec.allowed = parse(json!([{"namespaceSelector": {}, "registryNames": names}]));
    }

    /// The watch shows a RegisteredService that cannot be read.
    pub fn register_unreadable(&self, spec: &Value) {
        let object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "echo", "namespace": "shop", "uid": "uid-1", "generation": 2}, "spec": spec,
        });
        let stored: Stored<RegisteredService> = parse(object);
        Watched::put(&mut self.controller.views.cluster(), key(), stored);
    }

    pub fn put_service(&self, service: &Value) {
        let service = convert::service(&parse::<Service>(service.clone()));
        let mut view = self.controller.views.cluster();
        view.services.put(ServiceKey::new("shop", &service.name), service);
    }

    pub fn remove_service(&self) {
        self.controller.views.cluster().services.remove(&key());
    }

    /// The Service has these ready endpoints.
    pub fn ready(&mut self, addresses: &[&str]) {
        self.ready_at("rpc", addresses);
    }

    /// The Service has these ready endpoints, at a port of this name.
    pub fn ready_at(&mut self, port: &str, addresses: &[&str]) {
        self.put_endpoints(port, addresses.iter().map(|ip| (*ip, true)));
    }

    /// The Service has these endpoints, each of which is ready or not.
    pub fn ready_or_not(&mut self, endpoints: &[(&str, bool)]) {
        self.put_endpoints("rpc", endpoints.iter().copied());
    }

    fn put_endpoints<'a>(&mut self, port: &str, endpoints: impl Iterator<Item = (&'a str, bool)>) {
        self.versions += 1;
        let endpoints: Vec<Value> =
            endpoints.map(|(ip, ready)| json!({"addresses": [ip], "conditions": {"ready": ready}})).collect();
        let slice: EndpointSlice = parse(json!({
            "metadata": {"name": "echo-abc", "namespace": "shop", "resourceVersion": self.versions.to_string(),
                "labels": {"kubernetes.io/service-name": "echo",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
            "addressType": "IPv4", "ports": [{"name": port, "port": 80, "protocol": "TCP"}], "endpoints": endpoints,
        }));
        self.controller.views.cluster().slices.put("shop", convert::slice(slice));
    }

    pub fn etcd(&self) -> &FakeEtcd {
        &self.etcds["main"]
    }

    pub fn handle(&self, name: &str) -> Arc<RegistryHandle> {
        self.controller.views.registries.get(name).unwrap()
    }

    /// A program registers itself under `echo`, and the session sees it.
    pub async fn server_registers(&self, address: &str) {
        let value = json!({"network": "tcp", "address": address, "weight": 10, "tags": {}});
        self.etcd().put(&format!("p/echo/{address}"), &value.to_string(), LeaseId::NONE);
        settle().await;
    }

    /// The keys that the registry has.
    pub fn keys(&self, registry: &str) -> Vec<String> {
        self.etcds[registry].records().into_keys().collect()
    }

    pub async fn pass(&self) -> Finished {
        let finished = self.controller.clone().reconcile(key(), self.controller.views.env.now()).await;
        settle().await;
        finished
    }

    /// Lets time pass.
    pub async fn after(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }

    pub fn object(&self) -> Option<Arc<RegisteredService>> {
        self.controller.views.cluster().registered_services.get(&key()).cloned()
    }

    pub fn status(&self) -> RegisteredServiceStatus {
        self.object().unwrap().status.clone().unwrap_or_default()
    }

    /// The differences that the API server has; the view keeps no entries.
    pub fn differences(&self) -> Vec<Difference> {
        let object = self.api.object(PATH).unwrap();
        serde_json::from_value(object["status"]["differences"].clone()).unwrap()
    }

    /// Status and reason of a condition, and its message.
    pub fn condition(&self, kind: &str) -> (String, String) {
        let status = self.status();
        let condition = find(&status.conditions, kind).unwrap_or_else(|| panic!("no condition {kind}: {status:?}"));
        (format!("{} {}", condition.status, condition.reason), condition.message.clone())
    }

    /// Reason and note of every Event since the last call; one that only counts up the last is `again`.
    pub fn events(&self) -> Vec<String> {
        let told = |event: Received| match (event.body["reason"].as_str(), event.body["note"].as_str()) {
            (Some(reason), Some(note)) => format!("{reason}: {note}"),
            _ => "again".to_owned(),
        };
        self.api.take("/events").into_iter().map(told).collect()
    }

    /// The value of a metric as it is printed; 0 where it has not been counted yet.
    pub fn metric(&self, series: &str) -> String {
        let text = self.controller.writers.metrics.print().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or("0").to_owned()
    }
}

fn parse<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// Lets every task do what it has to do now.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
