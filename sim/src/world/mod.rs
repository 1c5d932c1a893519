//! The world: clusters, an etcd, replicas of the operator, servers and people.
//!
//! - [`truth`]: which servers live. [`replica`]: processes of the operator. [`servers`]: pods and servers outside.
//!   [`people`]: what persons do. [`administrators`]: what administrators of the registry do. [`permissions`]: what
//!   its user may do. [`history`]: what happened to the registry. [`apply`]: carries the operations of a
//!   plan out, with [`outages`] of servers. [`faults`]: when each fault lasted. [`keys`]: the form of keys.
//!
//! Owns what a run begins with. Refuses to judge what happens, which [`crate::check`] does.

pub mod administrators;
pub mod apply;
mod faults;
pub mod history;
pub mod keys;
mod outages;
pub mod people;
mod permissions;
pub mod replica;
pub mod servers;
pub mod truth;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sim_etcd::Etcd;
use sim_kube::Cluster;
use tokio::sync::watch;
use twinspan_core::Timestamp;

use crate::dice::Dice;
use crate::plan::{Op, Size};
use crate::scheduler::{ProcessId, Scheduler};
use crate::trace::Trace;
use crate::wire::{Part, Wire};
use replica::Replica;
use servers::Vm;
use truth::Truth;

/// The namespace of the services.
pub const NAMESPACE: &str = "shop";
/// The namespace of the operator.
pub const OPERATOR: &str = "twinspan-system";
/// The name of the ServiceRegistry.
pub const REGISTRY: &str = "main";
/// The lease TTL of own records, in seconds.
pub const LEASE_TTL: u64 = 60;
/// The time after which a controller of Kubernetes acts upon a change.
const DELAY: Duration = Duration::from_millis(50);
/// The beginning of time.
const BASE: i64 = 1_767_225_600;

/// One Kubernetes cluster.
#[derive(Debug)]
pub struct KubeCluster {
    pub name: String,
    pub kube: Cluster,
    /// The names of its API servers on the wire.
    pub servers: Vec<String>,
}

/// Everything; clones share it.
#[derive(Clone)]
pub struct World(Arc<Everything>);

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl fmt::Debug for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({})", self.seed)
    }
}

impl std::ops::Deref for World {
    type Target = Everything;

    fn deref(&self) -> &Everything {
        &self.0
    }
}

/// The parts of a world.
pub struct Everything {
    pub seed: u64,
    pub size: Size,
    pub scheduler: Scheduler,
    pub trace: Trace,
    pub wire: Wire,
    pub truth: Truth,
    pub clusters: Vec<KubeCluster>,
    pub etcd: Etcd,
    pub replicas: Vec<Replica>,
    pub vms: Vec<Vm>,
    pub spec: Value,
    /// The process of actors and of Kubernetes' own controllers.
    pub actors: ProcessId,
    dice: Mutex<Dice>,
    addresses: Mutex<u32>,
    pods: Mutex<BTreeMap<String, servers::Pod>>,
    /// The changes that each restore of the registry made, and their index in its history.
    replaced: Mutex<Vec<(usize, Vec<sim_etcd::Change>)>>,
    /// The permissions of the user of the replicas in the registry.
    permissions: Mutex<permissions::Permissions>,
    /// The records that were read last.
    records: Mutex<history::Records>,
    /// The faults so far, and when each began and ended.
    faults: Mutex<Vec<(Duration, Duration, Op)>>,
    /// When each process of the operator started.
    starts: Mutex<BTreeMap<String, Duration>>,
    /// Whether the storm is over.
    ended: AtomicBool,
    /// Whether every fault is entered, so that a time without one is a quiet time.
    enters_faults: AtomicBool,
    /// When both sides were equal for the first time.
    calm: watch::Sender<Option<Duration>>,
    /// The replica that is counted as the first.
    first_replica: Mutex<usize>,
    /// Messages of each replica when the storm began.
    sent_before: Mutex<BTreeMap<(Part, String), u64>>,
}

/// The name of a service, in Kubernetes and in the registry.
pub fn service_name(service: usize) -> String {
    format!("echo-{service}")
}

/// The time of day at a virtual time.
pub fn time_of_day(elapsed: Duration, skew: i64) -> Timestamp {
    let seconds = BASE + elapsed.as_secs() as i64 + skew;
    Timestamp::new(seconds, elapsed.subsec_nanos() as i32).unwrap_or(Timestamp::MAX)
}

impl World {
    /// A world in which nothing runs yet. `spec` is merged into the spec of every RegisteredService.
    pub fn new(seed: u64, size: Size, spec: Value, scheduler: &Scheduler, trace: &Trace) -> Self {
        let wire = Wire::new(seed, scheduler, trace);
        let clusters: Vec<KubeCluster> = (0..size.clusters).map(|n| kube_cluster(n, size.servers)).collect();
        let replicas = (0..size.clusters * size.replicas).map(|n| Replica::new(n, n / size.replicas)).collect();
        let vms = (0..size.services * size.vms).map(|n| Vm::new(n, n % size.services)).collect();
        let options = sim_etcd::Options { members: size.members, ..sim_etcd::Options::default() };
        let etcd = Etcd::new(options);
        etcd.set_crowd(outages::crowd(size.crowd));
        Self(Arc::new(Everything {
            seed,
            size,
            scheduler: scheduler.clone(),
            trace: trace.clone(),
            wire,
            truth: Truth::default(),
            clusters,
            etcd,
            replicas,
            vms,
            spec,
            actors: scheduler.process("actors"),
            dice: Mutex::new(Dice::new(seed, "actors")),
            addresses: Mutex::default(),
            pods: Mutex::default(),
            replaced: Mutex::default(),
            permissions: Mutex::default(),
            records: Mutex::default(),
            faults: Mutex::default(),
            starts: Mutex::default(),
            ended: AtomicBool::new(false),
            enters_faults: AtomicBool::new(false),
            calm: watch::Sender::new(None),
            first_replica: Mutex::default(),
            sent_before: Mutex::default(),
        }))
    }

    pub fn now(&self) -> Duration {
        self.trace.elapsed()
    }

    /// Both sides are equal for the first time: from now on clients are watched.
    pub fn set_calm(&self) {
        self.calm.send_replace(Some(self.now()));
    }

    /// When that was.
    pub fn calm(&self) -> Option<Duration> {
        *self.calm.borrow()
    }

    /// The storm ends.
    pub fn end_storm(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether that was.
    pub fn has_stormed(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Waits for it.
    pub async fn until_calm(&self) {
        // The sender lives as long as the world.
        let _ = self.calm.subscribe().wait_for(Option::is_some).await;
    }

    /// From now on the replica that leads the first cluster is the first one.
    pub fn count_replicas_from_the_leader(&self) {
        let lease = self.clusters.first().and_then(|cluster| cluster.kube.get("leases", OPERATOR, "twinspan"));
        let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(ToOwned::to_owned));
        let name = holder.unwrap_or_default();
        let name = name.split('#').next().unwrap_or_default();
        let first = self.replicas.iter().position(|replica| replica.name == name).unwrap_or_default();
        *self.first_replica.lock().unwrap_or_else(PoisonError::into_inner) = first;
    }

    /// A replica by its number, counted from the leader of the first cluster; modulo their number.
    pub fn replica(&self, number: usize) -> &Replica {
        let first = *self.first_replica.lock().unwrap_or_else(PoisonError::into_inner);
        &self.replicas[(first + number) % self.replicas.len()]
    }

    /// The storm begins: messages are counted from now on.
    pub fn count_messages(&self) {
        let parts = [Part::Request, Part::Frame];
        let names = self.replicas.iter().flat_map(|replica| parts.map(|part| (part, replica.name.clone())));
        let counts = names.map(|(part, name)| ((part, name.clone()), self.wire.sent_by(&name, part)));
        *self.sent_before.lock().unwrap_or_else(PoisonError::into_inner) = counts.collect();
    }

    /// The messages of each replica since then, the first one first.
    pub fn messages(&self, part: Part) -> Vec<u64> {
        let before = self.sent_before.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |name: &String| {
            self.wire.sent_by(name, part) - before.get(&(part, name.clone())).copied().unwrap_or_default()
        };
        (0..self.replicas.len()).map(|number| since(&self.replica(number).name)).collect()
    }

    /// A number below the limit, for actors.
    pub fn draw(&self, limit: u64) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).below(limit)
    }

    /// Starts a task of an actor.
    pub fn act(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.scheduler.spawn(self.actors, task);
    }

    /// Enters the objects of every cluster, and starts Kubernetes' own controllers.
    pub fn set_up(&self) {
        self.permit();
        self.settle_elsewhere();
        for (number, cluster) in self.clusters.iter().enumerate() {
            for name in [NAMESPACE, OPERATOR] {
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                self.kubectl(cluster.kube.create("setup", namespace));
            }
            if self.size.password {
                self.kubectl(cluster.kube.create("setup", self.secret()));
            }
            self.kubectl(cluster.kube.create("setup", self.service_registry(number)));
            for service in 0..self.size.services {
                self.kubectl(cluster.kube.create("setup", service_object(service)));
                self.kubectl(cluster.kube.create("setup", self.registered_service(service)));
            }
            let kube = cluster.kube.clone();
            self.act(async move { kube.garbage_collector(DELAY).await });
            let (kube, seed) = (cluster.kube.clone(), self.seed);
            self.act(async move { kube.endpoint_slice_controller(DELAY, seed).await });
            let kube = cluster.kube.clone();
            self.act(async move { kube.namespace_controller(DELAY).await });
        }
    }

    /// A request of a person or of a controller of Kubernetes. A refusal is a line of the trace.
    pub fn kubectl<T>(&self, answer: Result<T, sim_kube::Status>) -> Option<T> {
        match answer {
            Ok(done) => Some(done),
            Err(status) => {
                self.trace.add("kubectl", &format!("is refused: {status:?}"));
                None
            }
        }
    }

    /// The endpoints of the registry.
    fn endpoints(&self) -> Vec<String> {
        (0..self.size.members).map(|n| format!("http://etcd-{n}:2379")).collect()
    }

    fn service_registry(&self, cluster: usize) -> Value {
        let mut etcd = json!({"endpoints": self.endpoints()});
        if self.size.password {
            etcd["auth"] = json!({"secretRef": {"name": permissions::SECRET}});
        }
        let name = self.clusters.get(cluster).map_or("", |cluster| cluster.name.as_str());
        json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": REGISTRY},
            "spec": {
                "etcd": etcd, "format": "Kitex", "prefix": self.prefix(),
                "lease": {"ttlSeconds": LEASE_TTL}, "clusterID": name,
                "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}],
            },
        })
    }

    /// The RegisteredService of a service.
    pub fn registered_service(&self, service: usize) -> Value {
        let mut object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": service_name(service), "namespace": NAMESPACE},
            "spec": {"registryRef": {"name": REGISTRY}},
        });
        if let (Some(spec), Some(more)) = (object["spec"].as_object_mut(), self.spec.as_object()) {
            spec.extend(more.clone());
        }
        object
    }
}

fn kube_cluster(number: usize, servers: usize) -> KubeCluster {
    let name = if number == 0 { "a" } else { "b" }.to_owned();
    let options = sim_kube::Options {
        crds: CRDS.get_or_init(crds).clone(),
        base: time_of_day(Duration::ZERO, 0),
        servers,
        ..sim_kube::Options::default()
    };
    let servers = (0..servers).map(|n| format!("api-{name}{n}")).collect();
    KubeCluster { kube: Cluster::new(options), servers, name }
}

/// Read once in a process.
static CRDS: OnceLock<Vec<Value>> = OnceLock::new();

/// The CRDs of the operator, of a version that knows one more direction.
fn crds() -> Vec<Value> {
    let texts =
        [include_str!("../../../crds/registeredservices.yaml"), include_str!("../../../crds/serviceregistries.yaml")];
    let newer = |text: &&str| text.replace("- Export\n", "- Export\n                - Sideways\n");
    texts.iter().map(newer).flat_map(|text| sim_kube::read_yaml(&text).unwrap_or_default()).collect()
}

fn service_object(service: usize) -> Value {
    let name = service_name(service);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv4"], "selector": {"app": name},
            "ports": [{"name": "rpc", "port": 80, "targetPort": 80, "protocol": "TCP"}],
        },
    })
}
