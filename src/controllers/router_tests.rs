use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{LeaseId, ServiceKey, Slice};

use super::gates::book::Gates;
use super::queue::{self, Queue};
use super::router::{Router, Sources};
use super::service_registry::Command;
use super::views::Views;
use crate::api::{EtcdConnection, RegisteredService};
use crate::cluster::convert;
use crate::cluster::view::{ClusterEvent, Kind};
use crate::env::Env;
use crate::probe::ProbeEvent;
use crate::registry::etcd::Settings;
use crate::registry::handle::{Identity, RegistryEvent, RegistryHandle};
use crate::registry::session;
use crate::registry::sessions::{Running, SessionSettings};
use crate::registry::testing::FakeEtcd;

struct Bench {
    views: Views,
    cluster: mpsc::UnboundedSender<ClusterEvent>,
    registry: mpsc::UnboundedSender<RegistryEvent>,
    probe: mpsc::UnboundedSender<ProbeEvent>,
    leading: watch::Sender<bool>,
    commands: mpsc::UnboundedReceiver<Command>,
    queue: Queue,
    stop: CancellationToken,
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", name)
}

/// `x` and `y` share the name `echo` in `main`, `z` the Service of `x` in `other`, and `w` nothing.
fn bench() -> Bench {
    bench_with(Gates::default())
}

fn bench_with(gates: Gates) -> Bench {
    let mut views = Views::new(Env::real());
    views.gates = gates;
    {
        let mut view = views.cluster();
        for (name, spec) in [
            ("x", json!({"registryRef": {"name": "main"}, "registryName": "echo"})),
            ("y", json!({"registryRef": {"name": "main"}, "registryName": "echo"})),
            ("z", json!({"registryRef": {"name": "other"}, "service": {"name": "x"}})),
            ("w", json!({"registryRef": {"name": "other"}})),
        ] {
            let object: RegisteredService = serde_json::from_value(json!({
                "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
                "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
            }))
            .unwrap();
            view.index.put(&key(name), &object);
        }
        Kind::ALL.into_iter().for_each(|kind| {
            view.set_synced(kind);
        });
    }
    let (cluster, cluster_events) = mpsc::unbounded_channel();
    let (registry, registry_events) = mpsc::unbounded_channel();
    let (probe, probe_events) = mpsc::unbounded_channel();
    let (leading, changes) = watch::channel(false);
    let (registries, commands) = mpsc::unbounded_channel();
    let (enqueuer, queue) = queue::new(Env::real());
    let stop = CancellationToken::new();
    let sources = Sources { cluster: cluster_events, registry: registry_events, probe: probe_events, leading: changes };
    tokio::spawn(Router { views: views.clone(), enqueuer, registries, statuses: None }.run(sources, stop.clone()));
    Bench { views, cluster, registry, probe, leading, commands, queue, stop }
}

impl Bench {
    /// The services and the commands that followed.
    async fn routed(&mut self) -> (Vec<String>, Vec<Command>) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let names: BTreeSet<String> = self.queue.take_enqueued().into_iter().map(|key| key.name).collect();
        (names.into_iter().collect(), std::iter::from_fn(|| self.commands.try_recv().ok()).collect())
    }

    async fn cluster(&mut self, event: ClusterEvent) -> (Vec<String>, Vec<Command>) {
        self.cluster.send(event).unwrap();
        self.routed().await
    }

    /// A session of `main` that holds a record of a RegisteredService that is gone.
    async fn session_with_a_record_of(&self, owner: &str) -> Arc<RegistryHandle> {
        let (uid, cluster_id, layout) = ("u".into(), "c1".into(), Layout::new(Format::Kitex, "p"));
        let identity = Identity { uid, cluster_id, layout, ttl_seconds: 60, fence_prefix: None };
        let (handle, etcd) = (RegistryHandle::new("main", &identity, None, self.registry.clone()), FakeEtcd::new());
        let tags = json!({"twinspan.dev/owner": format!("c1/shop/{owner}")});
        let value = json!({"network": "tcp", "address": "10.0.0.1:80", "weight": 10, "tags": tags});
        etcd.put("p/gone/10.0.0.1:80", &value.to_string(), LeaseId::NONE);
        tokio::spawn(session::run(handle.clone(), Arc::new(etcd), Env::real(), self.stop.clone()));
        while handle.connection().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let etcd = EtcdConnection { endpoints: vec!["http://a".into()], tls: None, auth: None };
        let connection = Settings { endpoints: etcd.endpoints.clone(), tls: None, user: None };
        let settings = SessionSettings { identity, connection, etcd };
        let running = Running { handle: handle.clone(), settings, stop: self.stop.child_token() };
        self.views.registries.running().insert("main".into(), running);
        handle
    }
}

/// A slice of ours that tells of a RegisteredService.
fn slice_of(owner: &str) -> Slice {
    let owner =
        json!([{"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": owner, "uid": "u"}]);
    let labels = json!({"endpointslice.kubernetes.io/managed-by": "twinspan.dev"});
    let slice = json!({"metadata": {"name": "s", "resourceVersion": "1", "labels": labels, "ownerReferences": owner},
        "addressType": "IPv4", "endpoints": []});
    convert::slice(serde_json::from_value(slice).unwrap())
}

fn nothing() -> (Vec<String>, Vec<Command>) {
    (vec![], vec![])
}

fn services(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn each_change_of_the_cluster_reaches_those_that_it_affects_and_no_others() {
    let mut bench = bench();
    bench.views.interest().set(&key("w"), &["10.0.0.1".parse().unwrap(), "10.9.0.1".parse().unwrap()].into());
    let ip = |text: &str| text.parse().unwrap();
    for (event, names, commands) in [
        (ClusterEvent::RegisteredService(key("x")), services(&["x"]), vec![]),
        (
            ClusterEvent::Name { registry: "main".into(), name: "echo".into() },
            vec![],
            vec![Command::UpdateName { registry: "main".into(), name: "echo".into() }],
        ),
        (ClusterEvent::Service(key("x")), services(&["x", "y", "z"]), vec![]),
        (ClusterEvent::Service(key("w")), services(&["w"]), vec![]),
        (ClusterEvent::Service(key("nobody")), vec![], vec![]),
        (ClusterEvent::Namespace("shop".into()), services(&["w", "x", "y", "z"]), vec![]),
        (ClusterEvent::Namespace("elsewhere".into()), vec![], vec![]),
        (ClusterEvent::Namespace("kube-system".into()), vec![], vec![Command::ReconcileAll]),
        (ClusterEvent::ServiceRegistry("main".into()), services(&["x", "y"]), vec![Command::Reconcile("main".into())]),
        (ClusterEvent::Secret, vec![], vec![Command::ReconcileAll]),
        (ClusterEvent::Addresses(vec![ip("10.0.0.1"), ip("10.0.0.2")]), services(&["w"]), vec![]),
        (ClusterEvent::Addresses(vec![ip("10.0.0.2")]), vec![], vec![]),
        (ClusterEvent::Networks(vec![(ip("10.9.0.0"), ip("10.9.255.255"))]), services(&["w"]), vec![]),
        (ClusterEvent::Networks(vec![(ip("10.8.0.0"), ip("10.8.255.255"))]), vec![], vec![]),
        (ClusterEvent::Synced(Kind::Pod), services(&["w", "x", "y", "z"]), vec![Command::ReconcileAll]),
    ] {
        assert_eq!(bench.cluster(event.clone()).await, (names, commands), "{event:?}");
    }
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_concerns_readiness_gates_reaches_them_and_a_node_the_pods_that_wait() {
    let mut bench = bench_with(Gates::on());
    let gates = bench.views.gates.clone();
    gates.take();
    bench.cluster(ClusterEvent::Gate(key("a"))).await;
    assert_eq!(gates.take().pods, BTreeSet::from([key("a")]));
    bench.cluster(ClusterEvent::Selects("shop".into())).await;
    assert_eq!(gates.take().namespaces, BTreeSet::from(["shop".to_owned()]));
    bench.cluster(ClusterEvent::Heard).await;
    assert!(gates.take().everything);
    let mut pod = convert::pod(&Default::default());
    (pod.ips, pod.gate) = (vec!["10.0.0.1".parse().unwrap()], Some(Box::default()));
    bench.views.interest().set(&key("w"), &pod.ips.iter().copied().collect());
    assert_eq!(bench.cluster(ClusterEvent::Nodes).await, nothing());
    {
        let mut view = bench.views.cluster();
        view.pods.put(key("a"), pod);
        view.pods.set_waiting(&key("a"), "1");
    }
    assert_eq!(bench.cluster(ClusterEvent::Nodes).await, (services(&["w"]), vec![]));
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_from_an_incomplete_view() {
    let mut bench = bench();
    let index = std::mem::take(&mut bench.views.cluster().index);
    *bench.views.cluster() = Default::default();
    bench.views.cluster().index = index;
    let system = ClusterEvent::Namespace("kube-system".into());
    for event in
        [ClusterEvent::RegisteredService(key("x")), ClusterEvent::Namespace("shop".into()), ClusterEvent::Heard]
    {
        assert_eq!(bench.cluster(event).await, nothing());
    }
    for event in
        [ClusterEvent::ServiceRegistry("main".into()), ClusterEvent::Secret, ClusterEvent::Synced(Kind::Pod), system]
    {
        assert_eq!(bench.cluster(event).await, (vec![], vec![Command::ReconcileAll]), "sessions may begin");
    }
    bench.registry.send(RegistryEvent::State { registry: "main".into() }).unwrap();
    assert_eq!(bench.routed().await, (vec![], vec![Command::Report("main".into())]), "no pass runs");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_registry_wakes_those_that_refer_to_it_and_the_owners_of_its_records() {
    let mut bench = bench();
    let handle = bench.session_with_a_record_of("gone").await;
    bench.routed().await;
    bench.registry.send(RegistryEvent::Status { registry: "main".into() }).unwrap();
    assert_eq!(bench.routed().await, (vec![], vec![Command::Report("main".into())]));
    handle.requeue_all();
    assert_eq!(bench.routed().await, (services(&["gone", "x", "y"]), vec![Command::Report("main".into())]));
    bench.registry.send(RegistryEvent::State { registry: "other".into() }).unwrap();
    assert_eq!(bench.routed().await, (services(&["w", "z"]), vec![Command::Report("other".into())]));
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_process_that_begins_or_ceases_to_lead_reconciles_everything() {
    let mut bench = bench();
    bench.session_with_a_record_of("gone").await;
    bench.views.cluster().slices.put("shop", slice_of("left"));
    bench.routed().await;
    bench.leading.send_replace(true);
    let everything = (services(&["gone", "left", "w", "x", "y", "z"]), vec![Command::ReconcileAll]);
    assert_eq!(bench.routed().await, everything);
    bench.leading.send_replace(false);
    assert_eq!(bench.routed().await, everything, "it forgets its judgements");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_probe_wakes_those_that_asked() {
    let mut bench = bench();
    bench.probe.send(ProbeEvent { services: [key("z")].into() }).unwrap();
    assert_eq!(bench.routed().await, (services(&["z"]), vec![]));
    bench.stop.cancel();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(bench.cluster.send(ClusterEvent::Secret).is_err(), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn neither_the_claim_to_lead_nor_a_probe_waits_for_a_busy_cluster_and_busy_registries() {
    let mut bench = bench();
    for _ in 0..1000 {
        bench.cluster.send(ClusterEvent::RegisteredService(key("x"))).unwrap();
        bench.cluster.send(ClusterEvent::Name { registry: "main".into(), name: "echo".into() }).unwrap();
        bench.registry.send(RegistryEvent::Status { registry: "main".into() }).unwrap();
    }
    bench.probe.send(ProbeEvent { services: [key("probed")].into() }).unwrap();
    bench.leading.send_replace(true);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(bench.commands.try_recv().ok(), Some(Command::ReconcileAll), "the claim is first");
    let enqueued = bench.queue.take_enqueued();
    assert_eq!(enqueued.iter().position(|service| *service == key("probed")), Some(4), "after those of the claim");
    assert_eq!(enqueued.len(), 4 + 1 + 1000);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_busy_cluster_and_a_busy_registry_take_turns() {
    let mut bench = bench();
    let update = || ClusterEvent::Name { registry: "main".into(), name: "echo".into() };
    let report = || RegistryEvent::Status { registry: "main".into() };
    for _ in 0..100 {
        bench.cluster.send(update()).unwrap();
        bench.registry.send(report()).unwrap();
    }
    let (_, commands) = bench.routed().await;
    let both = [Command::Report("main".into()), Command::UpdateName { registry: "main".into(), name: "echo".into() }];
    assert_eq!(commands, both.iter().cycle().take(200).cloned().collect::<Vec<_>>());
    // One that has nothing leaves the other all turns.
    for _ in 0..3 {
        bench.registry.send(report()).unwrap();
    }
    assert_eq!(bench.routed().await.1, vec![Command::Report("main".into()); 3]);
    for _ in 0..3 {
        bench.cluster.send(update()).unwrap();
    }
    assert_eq!(bench.routed().await.1, vec![Command::UpdateName { registry: "main".into(), name: "echo".into() }; 3]);
    bench.stop.cancel();
}
