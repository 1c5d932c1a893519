//! The controller of ServiceRegistries behind the router, between a Kubernetes API and registries in memory, for unit
//! tests.
//!
//! Owns the etcds by the endpoint under which a spec names them; the sessions, the router and the take-over are the
//! real ones. Refuses to watch the API: a test says what the watches would have shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use twinspan_core::Timestamp;
use twinspan_core::model::{LeaseId, ServiceKey};

use super::{Command, Controller, Sessions, Upkeep};
use crate::api::conditions::find;
use crate::api::{RegisteredService, ServiceRegistry, ServiceRegistryStatus, kstatus};
use crate::cluster::fake_api::FakeApi;
use crate::cluster::view::{ClusterEvent, Kind};
use crate::controllers::queue::{self, Queue};
use crate::controllers::router::{Router, Sources};
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;
use crate::env::Env;
use crate::leadership::{Leadership, LeaseHistory};
use crate::registry::Connect;
use crate::registry::etcd::Settings;
use crate::registry::handle::RegistryHandle;
use crate::registry::takeover::Takeover;
use crate::registry::testing::FakeEtcd;

/// Longer than the least time between two status writes.
pub const STATUS_PACE: Duration = Duration::from_secs(6);
/// Long enough for a session to connect again.
pub const RECONNECT: Duration = Duration::from_secs(60);

thread_local! {
    /// A test is one thread.
    static ETCDS: RefCell<BTreeMap<String, FakeEtcd>> = RefCell::default();
}

fn connect() -> Connect {
    Connect::by(|settings: &Settings| Arc::new(etcd(&settings.endpoints[0])))
}

/// The etcd behind an endpoint.
pub fn etcd(endpoint: &str) -> FakeEtcd {
    ETCDS.with_borrow_mut(|etcds| etcds.entry(endpoint.to_owned()).or_insert_with(FakeEtcd::new).clone())
}

/// The same etcd has another endpoint.
pub fn alias(endpoint: &str, other: &str) {
    let known = etcd(endpoint);
    ETCDS.with_borrow_mut(|etcds| etcds.insert(other.to_owned(), known));
}

pub struct Bench {
    pub api: FakeApi,
    pub views: Views,
    pub writers: Writers,
    pub queue: Queue,
    cluster: mpsc::UnboundedSender<ClusterEvent>,
    pub commands: mpsc::UnboundedSender<Command>,
    pub stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A leader, and the RegisteredService `shop/echo`, which refers to `main`.
pub fn bench() -> Bench {
    let leadership = Leadership::none();
    leadership.acquired();
    bench_of(leadership)
}

pub fn bench_of(leadership: Leadership) -> Bench {
    let noon = Timestamp::from_second(1_767_268_800).unwrap();
    let env = Env::started_at(|| noon, || 0.5);
    let (views, api, stop) = (Views::new(env.clone()), FakeApi::default(), CancellationToken::new());
    let (registry_events, registry) = mpsc::unbounded_channel();
    let (cluster, cluster_events) = mpsc::unbounded_channel();
    let (writers, publisher) = Writers::new(&api.client(), &views, &leadership, "a", cluster.clone(), Arc::default());
    tokio::spawn(publisher.run(stop.clone()));
    tokio::spawn(writers.statuses.clone().run(stop.clone()));
    let (_, probe) = mpsc::unbounded_channel();
    let (commands, command_queue) = mpsc::unbounded_channel();
    let (enqueuer, queue) = queue::new(env.clone());
    let router = Router {
        views: views.clone(),
        enqueuer,
        registries: commands.clone(),
        statuses: Some(writers.statuses.clone()),
    };
    let sources = Sources { cluster: cluster_events, registry, probe, leading: leadership.changes() };
    tokio::spawn(router.run(sources, stop.clone()));
    let tasks = TaskTracker::new();
    let takeover =
        Takeover { leadership, lease_history: LeaseHistory::alone("me"), env, ending: CancellationToken::new() };
    let upkeep = Some(Upkeep { takeover, audit_interval: Duration::from_secs(600), epochs: tasks.clone() });
    let sessions = Sessions::new(views.clone(), registry_events, tasks, stop.clone(), upkeep, connect());
    tokio::spawn(Controller::new(writers.clone(), sessions).run(command_queue));
    {
        let mut view = views.cluster();
        Kind::ALL.into_iter().for_each(|kind| {
            view.set_synced(kind);
        });
        let object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "echo", "namespace": "shop", "uid": "uid-1"}, "spec": {"registryRef": {"name": "main"}},
        });
        let object: RegisteredService = serde_json::from_value(object).unwrap();
        view.index.put(&echo(), &object);
        view.registered_services.insert(echo(), Arc::new(object));
    }
    Bench { api, views, writers, queue, cluster, commands, stop }
}

/// A sink for sessions that no controller reports about.
pub fn sessions_only(views: &Views, stop: &CancellationToken) -> Sessions {
    let (events, _) = mpsc::unbounded_channel();
    Sessions::new(views.clone(), events, TaskTracker::new(), stop.clone(), None, connect())
}

pub fn echo() -> ServiceKey {
    ServiceKey::new("shop", "echo")
}

/// Puts a record of `shop/echo` into an etcd.
pub fn put_own(etcd: &FakeEtcd, key: &str, lease: LeaseId) {
    let address = key.rsplit('/').next().unwrap();
    let tags = json!({"twinspan.dev/owner": "c1/shop/echo"});
    let value = json!({"network": "tcp", "address": address, "weight": 10, "tags": tags});
    etcd.put(key, &value.to_string(), lease);
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.iter().for_each(|(name, value)| merge(into.entry(name).or_insert(Value::Null), value));
        }
        (into, from) => *into = from.clone(),
    }
}

/// A ServiceRegistry, older the smaller its day.
pub fn registry(name: &str, day: u32, changes: &Value) -> ServiceRegistry {
    let mut object = json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry",
        "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": format!("2025-12-{day:02}T00:00:00Z")},
        "spec": {"etcd": {"endpoints": [format!("http://{name}:2379")]}, "format": "Kitex", "prefix": "p",
            "clusterID": "c1", "fence": {"mode": "None"}, "allowed": []},
    });
    merge(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

impl Bench {
    /// The watch shows it; the status that the API has stays.
    pub async fn put(&self, mut object: ServiceRegistry) {
        let name = object.metadata.name.clone().unwrap();
        let known = self.views.cluster().service_registries.get(&name).and_then(|known| known.status.clone());
        object.status = object.status.or(known);
        let path = format!("/apis/twinspan.dev/v1alpha1/serviceregistries/{name}");
        self.api.put(&path, serde_json::to_value(&object).unwrap());
        self.views.cluster().service_registries.insert(name.clone(), Arc::new(object));
        self.cluster_shows(ClusterEvent::ServiceRegistry(name)).await;
    }

    pub async fn delete(&self, name: &str) {
        self.views.cluster().service_registries.remove(name);
        self.cluster_shows(ClusterEvent::ServiceRegistry(name.to_owned())).await;
    }

    pub async fn cluster_shows(&self, event: ClusterEvent) {
        self.cluster.send(event).unwrap();
        self.after(STATUS_PACE).await;
    }

    /// Lets time pass.
    pub async fn after(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }

    pub fn handle(&self, name: &str) -> Option<Arc<RegistryHandle>> {
        self.views.registries.get(name)
    }

    pub fn status(&self, name: &str) -> ServiceRegistryStatus {
        self.views.cluster().service_registries[name].status.clone().unwrap_or_default()
    }

    /// Status and reason of Ready, Connected and Synced.
    pub fn conditions(&self, name: &str) -> [String; 3] {
        let status = self.status(name);
        ["Ready", "Connected", "Synced"].map(|kind| {
            find(&status.conditions, kind).map_or_else(String::new, |c| format!("{} {}", c.status, c.reason))
        })
    }

    /// The answer of kstatus for it.
    pub fn kstatus(&self, name: &str) -> &'static str {
        kstatus::compute(&json!({"metadata": {"generation": 1}, "status": self.status(name)}))
    }

    pub fn message(&self, name: &str, kind: &str) -> String {
        find(&self.status(name).conditions, kind).unwrap().message.clone()
    }

    /// Object, reason and note of every Event since the last call.
    pub fn events(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("again").to_owned();
        let events = self.api.take("/events").into_iter().map(|event| event.body);
        events
            .map(|e| format!("{} {}: {}", text(&e["regarding"]["name"]), text(&e["reason"]), text(&e["note"])))
            .collect()
    }

    /// The value of a metric as it is printed; `None` where there is no such series.
    pub fn metric(&self, series: &str) -> Option<String> {
        let text = self.writers.metrics.print().unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(ToOwned::to_owned)
    }
}
