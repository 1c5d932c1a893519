//! The loop of readiness gates before a Kubernetes API in memory.
//!
//! Owns one namespace with pods, Services and RegisteredServices, as the watches would show them; a test says what
//! passes say. Refuses to run passes.

use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::gate::Verdict;

use super::book::{Gates, Says};
use super::*;
use crate::api::{RegisteredService, Stored};
use crate::cluster::fake_api::{FakeApi, Received};
use crate::cluster::kinds::Watched;
use crate::cluster::reach::Reach;
use crate::cluster::view::{ClusterEvent, Kind};
use crate::env::Env;
use crate::leadership::Leadership;

const PODS: &str = "/api/v1/namespaces/shop/pods";
const REGISTERED: Verdict = Verdict::Pass(Passed::Registered);

struct Bench {
    api: FakeApi,
    views: Views,
    leadership: Leadership,
    metrics: Arc<crate::telemetry::metrics::Metrics>,
    stop: CancellationToken,
    /// The last version that somebody else wrote.
    version: AtomicU64,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn parse<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

/// A leader with the Service `echo` that selects `app: echo`, and a RegisteredService of that name.
fn bench() -> Bench {
    let (api, leadership, stop) = (FakeApi::default(), Leadership::none(), CancellationToken::new());
    let noon: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let mut views = Views::new(Env::started_at(move || noon, || 0.5));
    views.gates = Gates::on();
    leadership.acquired();
    let (writers, publisher) =
        Writers::new(&api.client(), &views, &leadership, "a", mpsc::unbounded_channel().0, Arc::default());
    tokio::spawn(publisher.run(stop.clone()));
    let metrics = writers.metrics.clone();
    tokio::spawn(Controller::new(views.clone(), writers).run(stop.clone()));
    let bench = Bench { api, views, leadership, metrics, stop, version: AtomicU64::new(1000) };
    Kind::ALL.into_iter().for_each(|kind| {
        bench.views.cluster().set_synced(kind);
    });
    bench.service("echo", &json!({"app": "echo"}));
    bench.register("echo", "echo");
    bench
}

impl Bench {
    fn service(&self, name: &str, selector: &Value) {
        let service: Service = parse(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"selector": selector, "ports": [{"name": "rpc", "port": 80}]},
        }));
        Watched::put(&mut self.views.cluster(), key(name), service);
        self.views.gates.look_in("shop");
    }

    fn register(&self, name: &str, service: &str) {
        let object: Stored<RegisteredService> = parse(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1},
            "spec": {"registryRef": {"name": "main"}, "service": {"name": service}},
        }));
        Watched::put(&mut self.views.cluster(), key(name), object);
    }

    /// The pass over a RegisteredService says so of pods.
    fn says(&self, name: &str, pods: &[(&str, Verdict)]) {
        let pods = pods.iter().map(|(pod, verdict)| (((*pod).to_owned(), format!("uid-of-{pod}")), *verdict)).collect();
        let says = Says { uid: name.to_owned(), generation: Some(1), whole: None, pods };
        self.views.gates.say(&ServiceKey::new("shop", name), says);
    }

    /// The kubelet, or somebody else, writes the pod: its containers are ready. The watch shows it.
    fn pod(&self, name: &str, annotations: &Value) {
        let ready =
            json!([{"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-01-01T12:00:00Z"}]);
        self.pod_with(name, annotations, &ready);
    }

    fn pod_with(&self, name: &str, annotations: &Value, conditions: &Value) {
        let object = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-of-{name}"), "annotations": annotations,
                "labels": {"app": "echo"}},
            "spec": {"containers": [], "readinessGates": [{"conditionType": "twinspan.dev/registered"}]},
            "status": {"conditions": conditions},
        });
        self.write(name, object);
        self.show(name);
    }

    /// Somebody else writes a pod, and the watch is late.
    fn write(&self, name: &str, mut object: Value) {
        let version = self.version.fetch_add(10, Ordering::Relaxed);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.api.put(&format!("{PODS}/{name}"), object);
    }

    /// The watch shows a pod as it is.
    fn show(&self, name: &str) {
        let pod: Pod = parse(self.api.object(&format!("{PODS}/{name}")).unwrap());
        Watched::put(&mut self.views.cluster(), key(name), pod);
        self.views.gates.look_at(&key(name));
    }

    /// Reason of each gate that was to be opened since the last call, by its pod.
    async fn opened(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let told = |write: Received| {
            let condition = &write.body["status"]["conditions"][0];
            assert_eq!((&condition["type"], &condition["status"]), (&json!("twinspan.dev/registered"), &json!("True")));
            assert!(write.path.ends_with("/status"), "{}", write.path);
            let pod = write.path.split('/').nth(6).unwrap().to_owned();
            assert_eq!(write.body["metadata"]["uid"], json!(format!("uid-of-{pod}")));
            format!("{pod} {}", condition["reason"].as_str().unwrap())
        };
        self.api.take(PODS).into_iter().map(told).collect()
    }

    async fn events(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let reason = |event: Received| event.body["reason"].as_str().unwrap_or("again").to_owned();
        self.api.take("/events").into_iter().map(reason).collect()
    }

    fn metric(&self, series: &str) -> String {
        let text = self.metrics.print().unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).unwrap_or("0").to_owned()
    }
}

const NONE: [&str; 0] = [];

#[tokio::test(start_paused = true)]
async fn a_gate_opens_once_every_registered_service_that_selects_the_pod_has_its_record() {
    let bench = bench();
    bench.register("canary", "echo");
    bench.pod("a", &json!({}));
    assert_eq!(bench.opened().await, NONE, "no pass has judged it");
    bench.says("echo", &[("a", REGISTERED)]);
    assert_eq!(bench.opened().await, NONE, "the other has not");
    bench.says("canary", &[("a", Verdict::Wait)]);
    assert_eq!(bench.opened().await, NONE);
    assert_eq!(bench.metric("twinspan_readiness_gates_waiting"), "1");
    bench.says("canary", &[("a", REGISTERED)]);
    assert_eq!(bench.opened().await, ["a Registered"]);
    // Whatever else changes before the watch shows it, it is not written twice.
    bench.views.gates.look_everywhere();
    assert_eq!(bench.opened().await, NONE);
    bench.show("a");
    bench.says("echo", &[("a", Verdict::Wait)]);
    assert_eq!(bench.opened().await, NONE, "it is never closed again");
    assert_eq!(bench.metric(r#"twinspan_readiness_gates_total{reason="Registered"}"#), "1");
    assert_eq!(bench.metric("twinspan_readiness_gates_waiting"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_none_selects_passes_and_labels_count_before_slices() {
    let bench = bench();
    bench.pod("a", &json!({}));
    assert_eq!(bench.opened().await, NONE, "its labels say that it is selected, and no slice has it yet");
    bench.service("echo", &json!({"app": "another"}));
    assert_eq!(bench.opened().await, ["a NotSelected"]);
    // The selector of a Service without a RegisteredService is nobody's.
    bench.service("else", &json!({"app": "echo"}));
    bench.pod("b", &json!({}));
    assert_eq!(bench.opened().await, ["b NotSelected"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_another_release_is_left_to_that_one() {
    let bench = bench();
    for served in [false, true] {
        bench.views.cluster().set_reach(Reach {
            release: Some("team-a".into()),
            registries: [if served { "main" } else { "mine" }.to_owned()].into(),
            ..Reach::default()
        });
        Kind::ALL.into_iter().for_each(|kind| {
            bench.views.cluster().set_synced(kind);
        });
        bench.register("echo", "echo");
        bench.pod("a", &json!({}));
        bench.views.gates.look_everywhere();
        assert_eq!(bench.opened().await, NONE, "{served}: no pass has judged it");
    }
    // One of another release counts beside one of ours as long as ours has no record.
    bench.says("echo", &[("a", Verdict::Pass(Passed::Suspended))]);
    bench.views.cluster().served_elsewhere.insert(key("theirs"), key("echo"));
    bench.views.gates.look_in("shop");
    assert_eq!(bench.opened().await, NONE);
    bench.says("echo", &[("a", REGISTERED)]);
    assert_eq!(bench.opened().await, ["a Registered"]);
    bench.pod("b", &json!({}));
    let events = <Stored<RegisteredService> as Watched>::remove(&mut bench.views.cluster(), &key("theirs"));
    assert!(events.contains(&ClusterEvent::Selects("shop".into())), "the pods are looked at again");
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_selector_selects_the_pods_that_its_slices_name() {
    let bench = bench();
    bench.service("echo", &Value::Null);
    let slice = |version: &str, uid: &str| -> EndpointSlice {
        parse(json!({
            "metadata": {"name": "s", "namespace": "shop", "resourceVersion": version, "labels": {"kubernetes.io/service-name": "echo"}},
            "addressType": "IPv4", "ports": [{"name": "rpc", "port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "a", "uid": uid}}],
        }))
    };
    Watched::put(&mut bench.views.cluster(), key("s"), slice("1", "uid-of-a"));
    bench.pod("a", &json!({}));
    assert_eq!(bench.opened().await, NONE);
    Watched::put(&mut bench.views.cluster(), key("s"), slice("2", "another"));
    bench.views.gates.look_in("shop");
    assert_eq!(bench.opened().await, ["a NotSelected"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_before_the_containers_and_the_views_are_ready() {
    let bench = bench();
    bench.service("echo", &json!({"app": "another"}));
    bench.pod_with("a", &json!({}), &json!([{"type": "ContainersReady", "status": "False"}]));
    assert_eq!(bench.opened().await, NONE, "an object that is applied with it may yet come");
    bench.pod("a", &json!({}));
    assert_eq!(bench.opened().await, ["a NotSelected"]);
    // RegisteredServices were not heard of for long: there may be one that nobody knows.
    bench.show("a");
    let long_ago = bench.views.env.now() - jiff::SignedDuration::from_secs(100);
    bench.views.cluster().heard(Kind::RegisteredService, long_ago);
    bench.pod("b", &json!({}));
    assert_eq!(bench.opened().await, NONE);
    let now = bench.views.env.now();
    bench.views.cluster().heard(Kind::RegisteredService, now);
    bench.views.gates.look_everywhere();
    assert_eq!(bench.opened().await, ["b NotSelected"]);
    *bench.views.cluster() = Default::default();
    bench.pod("c", &json!({}));
    assert_eq!(bench.opened().await, NONE, "nothing was listed");
}

#[tokio::test(start_paused = true)]
async fn only_a_leader_opens_gates_and_a_new_one_goes_on() {
    let bench = bench();
    bench.leadership.lost();
    bench.pod("a", &json!({}));
    bench.says("echo", &[("a", REGISTERED)]);
    assert_eq!(bench.opened().await, NONE);
    bench.leadership.acquired();
    assert_eq!(bench.opened().await, ["a Registered"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_changed_meanwhile_is_looked_at_again_once_the_watch_shows_it() {
    let bench = bench();
    bench.pod("a", &json!({}));
    bench.write("a", bench.api.object(&format!("{PODS}/a")).unwrap());
    bench.says("echo", &[("a", REGISTERED)]);
    assert_eq!(bench.opened().await, ["a Registered"], "refused, for it names another version");
    bench.views.gates.look_everywhere();
    assert_eq!(bench.opened().await, NONE, "it would be refused again");
    bench.show("a");
    assert_eq!(bench.opened().await, ["a Registered"]);
    assert_eq!(bench.metric(r#"twinspan_readiness_gates_total{reason="Registered"}"#), "1");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_ever_later_and_costs_no_other_pod() {
    let bench = bench();
    bench.api.refuse("/pods/a", 500);
    for pod in ["a", "b"] {
        bench.pod(pod, &json!({}));
    }
    bench.says("echo", &[("a", REGISTERED), ("b", REGISTERED)]);
    assert_eq!(bench.opened().await, ["a Registered", "b Registered"]);
    for _ in 0..50 {
        bench.show("a");
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let attempts = bench.opened().await.len();
    assert!((8..=20).contains(&attempts), "{attempts} in 500 s, however often the pod changes");
    bench.api.accept();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.opened().await, ["a Registered"]);
}

#[tokio::test(start_paused = true)]
async fn the_annotation_ends_the_wait_and_the_pod_tells_it() {
    let bench = bench();
    bench.pod("a", &json!({"twinspan.dev/registered-timeout": "5m"}));
    bench.pod("b", &json!({}));
    tokio::time::sleep(Duration::from_secs(298)).await;
    assert_eq!(bench.opened().await, NONE);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.opened().await, ["a TimedOut"]);
    assert_eq!(bench.events().await, ["GateTimedOut"]);
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert_eq!(bench.opened().await, NONE, "the other one waits on");
    bench.says("echo", &[("b", REGISTERED)]);
    assert_eq!(bench.opened().await, ["b Registered"]);
    assert_eq!(bench.events().await, NONE);
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_cannot_be_read_is_told_once_and_counts_as_none() {
    let bench = bench();
    bench.pod("a", &json!({"twinspan.dev/registered-timeout": "soon"}));
    bench.opened().await;
    for _ in 0..5 {
        bench.show("a");
        bench.opened().await;
    }
    assert_eq!(bench.events().await, ["GateTimeoutUnreadable"]);
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert_eq!(bench.opened().await, NONE);
}

#[tokio::test(start_paused = true)]
async fn few_writes_are_under_way_at_once() {
    let bench = bench();
    bench.api.delay(Duration::from_secs(1));
    let names: Vec<String> = (0..40).map(|n| format!("p-{n:02}")).collect();
    for name in &names {
        bench.pod(name, &json!({}));
    }
    let says: Vec<(&str, Verdict)> = names.iter().map(|name| (name.as_str(), REGISTERED)).collect();
    bench.says("echo", &says);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((bench.opened().await.len(), bench.api.most_at_once()), (40, AT_ONCE));
}
