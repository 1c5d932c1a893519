//! The views of a replica without a session, and pods that end, for the tests of the room.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::codec::Range;
use twinspan_core::model::{LeaseId, ObjectKey, RawRecord, ServiceKey};

use super::Drain;
use crate::api::{RegisteredService, ServiceRegistry, Stored};
use crate::cluster::fake_api::FakeApi;
use crate::cluster::kinds::Watched;
use crate::cluster::view::Kind;
use crate::controllers::service_registry::settings::session_settings;
use crate::controllers::views::Views;
use crate::env::Env;
use crate::registry::handle::RegistryHandle;
use crate::registry::sessions::Running;
use crate::registry::{Change, ListResponse};
use crate::telemetry::metrics::Metrics;

pub struct Bench {
    pub views: Views,
    pub api: FakeApi,
    pub metrics: Arc<Metrics>,
    pub drain: Arc<Drain>,
    pub stopping: CancellationToken,
    revision: AtomicI64,
}

pub fn key() -> ServiceKey {
    ServiceKey::new("shop", "echo")
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl Bench {
    /// A RegisteredService `shop/echo` in the registry `main` of a format, whose list is complete and empty.
    pub fn of_format(format: &str) -> Self {
        let (views, api, metrics) = (Views::new(Env::real()), FakeApi::default(), Arc::new(Metrics::default()));
        let stopping = CancellationToken::new();
        let drain = Drain::new(&views, api.client(), metrics.clone(), false, stopping.clone());
        let bench = Self { views, api, metrics, drain, stopping, revision: AtomicI64::new(1) };
        bench.complete();
        bench.start("main", format);
        bench.register(&json!({"registryRef": {"name": "main"}}));
        bench.put_service(Some("echo"));
        bench.ending(&[]);
        bench
    }

    pub fn new() -> Self {
        Self::of_format("Kratos")
    }

    pub fn complete(&self) {
        let mut view = self.views.cluster();
        for kind in Kind::ALL {
            view.set_synced(kind);
        }
    }

    /// A registry whose list is complete and empty.
    pub fn start(&self, name: &str, format: &str) -> Arc<RegistryHandle> {
        let object: ServiceRegistry = parse(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name, "uid": name},
            "spec": {"etcd": {"endpoints": [format!("http://{name}:2379")]}, "format": format, "clusterID": "c1",
                "fence": {"mode": "None"}, "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
        }));
        let settings = session_settings(&object, &self.views.cluster()).unwrap();
        self.views.cluster().service_registries.insert(name.to_owned(), Arc::new(object));
        let handle = RegistryHandle::new(name, &settings.identity, None, mpsc::unbounded_channel().0);
        handle.view().begin(None);
        let running = Running { handle: handle.clone(), settings, stop: CancellationToken::new() };
        self.views.registries.running().insert(name.to_owned(), running);
        self.list(name);
        handle
    }

    /// The registry shows an empty list.
    pub fn list(&self, name: &str) {
        let revision = self.next();
        let list = ListResponse { cluster_id: 1, revision, records: Vec::new() };
        self.handle(name).view().reset_to(&Range::Everything, &list, self.views.env.now());
    }

    pub fn handle(&self, name: &str) -> Arc<RegistryHandle> {
        self.views.registries.get(name).unwrap()
    }

    fn next(&self) -> i64 {
        self.revision.fetch_add(1, Ordering::Relaxed)
    }

    pub fn register(&self, spec: &Value) {
        self.register_with(spec, &Value::Null);
    }

    pub fn register_with(&self, spec: &Value, status: &Value) {
        let object: Stored<RegisteredService> = parse(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "echo", "namespace": "shop", "uid": "uid-1", "generation": 1}, "spec": spec, "status": status,
        }));
        Watched::put(&mut self.views.cluster(), ObjectKey::new("shop", "echo"), object);
    }

    /// The Service, with the label `app` that it selects, if it selects any.
    pub fn put_service(&self, app: Option<&str>) {
        let selector = app.map(|app| json!({"app": app}));
        let service: k8s_openapi::api::core::v1::Service = parse(json!({
            "metadata": {"name": "echo", "namespace": "shop", "uid": "s"},
            "spec": {"clusterIP": "None", "selector": selector, "ports": [{"name": "rpc", "port": 80}]},
        }));
        Watched::put(&mut self.views.cluster(), ObjectKey::new("shop", "echo"), service);
    }

    /// A slice of the Service names this pod.
    pub fn name_in_a_slice(&self, uid: &str, ip: &str) {
        let slice: k8s_openapi::api::discovery::v1::EndpointSlice = parse(json!({
            "metadata": {"name": "echo-1", "namespace": "shop", "resourceVersion": self.next().to_string(),
                "labels": {"kubernetes.io/service-name": "echo"}},
            "addressType": "IPv4", "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ip], "conditions": {"terminating": true},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": uid, "uid": uid}}],
        }));
        Watched::put(&mut self.views.cluster(), ObjectKey::new("shop", "echo-1"), slice);
    }

    /// The API server has these pods that are being deleted: name, label `app`, address, grace period.
    pub fn ending(&self, pods: &[(&str, &str, &str, u64)]) {
        let until = self.views.env.now().checked_add(jiff::SignedDuration::from_secs(30)).unwrap();
        let until = twinspan_core::Timestamp::from_second(until.as_second()).unwrap().to_string();
        self.ending_until(&until, pods);
    }

    pub fn ending_until(&self, until: &str, pods: &[(&str, &str, &str, u64)]) {
        let pod = |(name, app, ip, grace): &(&str, &str, &str, u64)| {
            json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": app},
                    "deletionTimestamp": until, "deletionGracePeriodSeconds": grace},
                "spec": {}, "status": {"phase": "Running", "podIP": ip}})
        };
        let items: Vec<Value> = pods.iter().map(pod).collect();
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
        self.api.put("/api/v1/namespaces/shop/pods", list);
    }

    fn record_key(&self, registry: &str, ip: &str) -> String {
        match registry {
            "main" if self.handle("main").layout.format() == twinspan_core::codec::Format::Kitex => {
                format!("kitex/registry-etcd/echo/{ip}:80")
            }
            _ => format!("/microservices/echo/twinspan~c1~shop~echo~{ip}"),
        }
    }

    fn change(&self, registry: &str, change: Change) {
        let handle = self.handle(registry);
        let affected = handle.view().apply(&[change], self.views.env.now());
        // As the router does.
        self.views.record_changes.tell(&affected.owners);
    }

    /// A record at an address appears, ours or a server's own.
    pub fn put_record(&self, registry: &str, ip: &str, ours: bool) {
        let key = if ours { self.record_key(registry, ip) } else { format!("/microservices/echo/{ip}-its-own") };
        let owner = if ours { json!({"twinspan.dev/owner": "c1/shop/echo"}) } else { json!({}) };
        let kitex = self.handle(registry).layout.format() == twinspan_core::codec::Format::Kitex;
        let value = if kitex {
            json!({"network": "tcp", "address": format!("{ip}:80"), "weight": 10, "tags": owner})
        } else {
            json!({"id": "x", "name": "echo", "version": "", "metadata": owner, "endpoints": [format!("grpc://{ip}:80")]})
        };
        let (key, revision) = (key.as_str().into(), self.next());
        let value = value.to_string().into_bytes();
        let raw = RawRecord { key, value, mod_revision: revision, lease: LeaseId(7) };
        self.change(registry, Change::Put(raw));
    }

    pub fn delete_record(&self, registry: &str, ip: &str) {
        let (key, revision) = (self.record_key(registry, ip).as_str().into(), self.next());
        self.change(registry, Change::Delete { key, revision });
    }

    pub fn counted(&self, outcome: &str) -> u64 {
        let label = crate::telemetry::metrics::DrainOutcome {
            outcome: super::wait::Outcome::ALL.into_iter().find(|it| it.label() == outcome).unwrap().label(),
        };
        self.metrics.drain_requests.get_or_create(&label).get()
    }
}
