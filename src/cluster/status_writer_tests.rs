use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::calls::Calls;
use super::fake_api::{FakeApi, Received};
use super::status_queue::{Object, Status};
use super::status_writer::{Change, StatusWriter};
use super::view::{ClusterEvent, ClusterView};
use crate::api::{
    Counts, Difference, RegisteredService, RegisteredServiceStatus, ServiceRegistry, ServiceRegistryStatus, Side,
};
use crate::env::Env;
use crate::leadership::Leadership;

const STATUS: &str = "/status";

struct Bench {
    api: FakeApi,
    view: Arc<std::sync::Mutex<ClusterView>>,
    leadership: Leadership,
    writer: StatusWriter,
    events: mpsc::UnboundedReceiver<ClusterEvent>,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A leader, and `shop/echo` at version 7 without a status.
fn bench() -> Bench {
    let (api, view, leadership, stop) =
        (FakeApi::default(), Arc::default(), Leadership::none(), CancellationToken::new());
    let (sender, events) = mpsc::unbounded_channel();
    let noon = Timestamp::from_second(1_767_268_800).unwrap();
    let env = Env::started_at(|| noon, || 0.5);
    let writer =
        StatusWriter::new(Calls::new(api.client(), leadership.clone()), Arc::clone(&view), env, Arc::default(), sender);
    tokio::spawn(writer.clone().run(stop.clone()));
    let bench = Bench { api, view, leadership, writer, events, stop };
    bench.lead();
    bench.api.put(&path("echo"), service("echo", "uid-1", "7", &Value::Null));
    bench.shows("echo");
    bench
}

fn path(name: &str) -> String {
    format!("/apis/twinspan.dev/v1alpha1/namespaces/shop/registeredservices/{name}")
}

fn echo() -> Object {
    object("echo")
}

fn object(name: &str) -> Object {
    Object::RegisteredService(ServiceKey::new("shop", name))
}

fn service(name: &str, uid: &str, version: &str, status: &Value) -> Value {
    json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": version},
        "spec": {"registryRef": {"name": "main"}}, "status": status})
}

fn exported(exported: i64) -> RegisteredServiceStatus {
    RegisteredServiceStatus { instances: Counts { exported, ..Counts::default() }, ..Default::default() }
}

fn listing(n: i64, listed: &[(&str, i64)]) -> RegisteredServiceStatus {
    let entry = |(instance, second): &(&str, i64)| Difference {
        instance: (*instance).to_owned(),
        side: Side::Registry,
        reason: "LoopbackAddress".to_owned(),
        message: None,
        since: Time(Timestamp::from_second(*second).unwrap()),
    };
    let differences = listed.iter().map(entry).collect::<Vec<_>>().into();
    RegisteredServiceStatus { differences, ..exported(n) }
}

impl Bench {
    fn lead(&self) {
        self.leadership.acquired();
    }

    /// The watch has shown what the API server has.
    fn shows(&self, name: &str) {
        let found: RegisteredService = serde_json::from_value(self.api.object(&path(name)).unwrap()).unwrap();
        self.view.lock().unwrap().registered_services.insert(ServiceKey::new("shop", name), Arc::new(found));
    }

    /// The status that the view has.
    fn status(&self, name: &str) -> RegisteredServiceStatus {
        let view = self.view.lock().unwrap();
        view.registered_services[&ServiceKey::new("shop", name)].status.clone().unwrap_or_default()
    }

    fn hand_over(&self, name: &str, status: RegisteredServiceStatus) {
        self.writer.hand_over(object(name), "uid-1", Status::RegisteredService(Box::new(status)));
    }

    async fn sent(&self, after: u64) -> Vec<Received> {
        tokio::time::sleep(Duration::from_secs(after)).await;
        self.api.take(STATUS)
    }
}

#[tokio::test(start_paused = true)]
async fn the_latest_status_is_written_under_the_version_that_it_was_compared_with() {
    let mut bench = bench();
    (1..=3).for_each(|n| bench.hand_over("echo", exported(n)));
    let sent = bench.sent(1).await;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].body["metadata"], json!({"uid": "uid-1", "resourceVersion": "7"}));
    assert_eq!(sent[0].body["status"]["instances"]["exported"], 3);
    assert_eq!(bench.status("echo"), exported(3), "the view learns from the answer");
    assert_eq!(bench.events.try_recv().ok(), Some(ClusterEvent::StatusWritten(echo())));
    assert_eq!(bench.writer.judge(&echo()), Change::Ours);

    // The same one again is not sent, and neither is one that is right again before it was sent.
    bench.hand_over("echo", exported(3));
    bench.hand_over("echo", exported(4));
    bench.hand_over("echo", exported(3));
    assert_eq!(bench.sent(60).await, []);

    // A field that goes is named.
    bench.hand_over("echo", listing(3, &[("127.0.0.1:80", 1)]));
    assert_eq!(bench.sent(1).await.len(), 1);
    bench.hand_over("echo", exported(3));
    let sent = bench.sent(6).await;
    assert_eq!((sent.len(), &sent[0].body["status"]["differences"]), (1, &Value::Null));
    assert_eq!(bench.api.object(&path("echo")).unwrap()["status"].get("differences"), None);
}

#[tokio::test(start_paused = true)]
async fn a_difference_that_goes_on_keeps_its_time_and_is_sent_only_in_another_list() {
    let bench = bench();
    let times = || {
        let object = bench.api.object(&path("echo")).unwrap();
        let listed: Vec<Difference> = serde_json::from_value(object["status"]["differences"].clone()).unwrap();
        listed.iter().map(|d| (d.instance.clone(), d.since.0.as_second())).collect::<Vec<_>>()
    };
    let listed = |times: &[(&str, i64)]| times.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect::<Vec<_>>();
    bench.hand_over("echo", listing(3, &[("a", 1), ("b", 1)]));
    assert_eq!(bench.sent(6).await.len(), 1);
    assert!(bench.status("echo").differences.iter().next().is_none(), "the view keeps no entries");

    // The same list is no reason to write, and is not named where there is another one.
    bench.hand_over("echo", listing(3, &[("a", 20), ("b", 20)]));
    assert_eq!(bench.sent(60).await, []);
    bench.hand_over("echo", listing(4, &[("a", 30), ("b", 30)]));
    let sent = bench.sent(6).await;
    assert_eq!((sent.len(), sent[0].body["status"].get("differences")), (1, None));
    assert_eq!(times(), listed(&[("a", 1), ("b", 1)]));

    bench.hand_over("echo", listing(4, &[("b", 40), ("c", 40)]));
    assert_eq!(bench.sent(6).await.len(), 1);
    assert_eq!(times(), listed(&[("b", 1), ("c", 40)]));
}

#[tokio::test(start_paused = true)]
async fn a_status_of_an_older_version_is_compared_again_and_then_written() {
    let bench = bench();
    // Somebody else wrote, and the watch lags behind.
    bench.api.put(&path("echo"), service("echo", "uid-1", "8", &serde_json::to_value(exported(99)).unwrap()));
    bench.hand_over("echo", exported(1));
    let sent = bench.sent(3).await;
    let versions: Vec<&Value> = sent.iter().map(|sent| &sent.body["metadata"]["resourceVersion"]).collect();
    assert_eq!(versions, [&json!("7"), &json!("8")]);
    assert_eq!(bench.api.object(&path("echo")).unwrap()["status"]["instances"]["exported"], 1);

    // A write that an earlier leader sends late changes nothing.
    let late = json!({"metadata": {"resourceVersion": "7"}, "status": exported(50)});
    let _ = bench.api.client().request::<Value>(patch(&late)).await.unwrap_err();
    assert_eq!(bench.api.object(&path("echo")).unwrap()["status"]["instances"]["exported"], 1);

    // Somebody else wrote what is right.
    bench.sent(30).await;
    bench.api.put(&path("echo"), service("echo", "uid-1", "50", &serde_json::to_value(exported(2)).unwrap()));
    bench.hand_over("echo", exported(2));
    assert_eq!((bench.sent(30).await.len(), bench.status("echo")), (1, exported(2)), "the conflict alone");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_watch_shows_during_a_write_is_compared_again() {
    let mut bench = bench();
    bench.api.delay(Duration::from_secs(1));
    bench.hand_over("echo", exported(1));
    tokio::time::sleep(Duration::from_millis(500)).await;
    bench.api.put(&path("echo"), service("echo", "uid-1", "50", &serde_json::to_value(exported(9)).unwrap()));
    bench.shows("echo");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.status("echo"), exported(9), "the answer is older");
    assert_eq!(bench.events.try_recv().ok(), Some(ClusterEvent::StatusChanged(echo())));
    assert_eq!(bench.writer.judge(&echo()), Change::Foreign);
}

fn patch(body: &Value) -> axum::http::Request<Vec<u8>> {
    let request = axum::http::Request::patch(format!("{}/status", path("echo")));
    request.header("content-type", "application/merge-patch+json").body(body.to_string().into_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn another_object_of_the_same_name_does_not_get_the_status_of_the_one_before() {
    let bench = bench();
    bench.api.put(&path("echo"), service("echo", "uid-2", "8", &Value::Null));
    bench.hand_over("echo", exported(1));
    bench.sent(30).await;
    assert_eq!(bench.api.object(&path("echo")).unwrap()["status"], Value::Null);
    bench.shows("echo");
    bench.hand_over("echo", exported(1));
    assert_eq!(bench.sent(30).await, [], "the pass was about the one before");
    bench.writer.hand_over(echo(), "uid-2", Status::RegisteredService(Box::new(exported(2))));
    bench.sent(30).await;
    assert_eq!(bench.status("echo"), exported(2));

    // The object is replaced while its status waits.
    let hand_over = |n| bench.writer.hand_over(echo(), "uid-2", Status::RegisteredService(Box::new(exported(n))));
    hand_over(3);
    assert_eq!(bench.sent(1).await.len(), 1);
    hand_over(4);
    bench.api.put(&path("echo"), service("echo", "uid-3", "50", &Value::Null));
    bench.shows("echo");
    assert_eq!(bench.sent(30).await, []);
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_does_not_keep_is_not_sent_again() {
    let bench = bench();
    bench.api.drop_field("status/observedGeneration");
    let asked = |n| RegisteredServiceStatus { observed_generation: Some(1), ..exported(n) };
    bench.hand_over("echo", asked(1));
    assert_eq!(bench.sent(1).await.len(), 1);
    assert_eq!(bench.status("echo"), exported(1), "written is what it answered");
    for _ in 0..5 {
        bench.hand_over("echo", asked(1));
        assert_eq!(bench.sent(30).await, []);
    }
    bench.hand_over("echo", asked(2));
    assert_eq!(bench.sent(30).await.len(), 1, "another change is written");

    // Somebody else changes what was kept.
    bench.api.put(&path("echo"), service("echo", "uid-1", "50", &serde_json::to_value(exported(9)).unwrap()));
    bench.shows("echo");
    assert_eq!(bench.writer.judge(&echo()), Change::Foreign);
    bench.hand_over("echo", asked(2));
    assert_eq!((bench.sent(30).await.len(), bench.status("echo")), (1, exported(2)));
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_nothing_is_written_and_what_waited_is_forgotten() {
    let bench = bench();
    bench.api.refuse(STATUS, 500);
    bench.hand_over("echo", exported(1));
    assert_eq!(bench.sent(1).await.len(), 1);
    bench.leadership.lost();
    bench.api.accept();
    assert_eq!(bench.writer.judge(&echo()), Change::Ignored);
    bench.hand_over("echo", exported(2));
    assert_eq!(bench.sent(60).await, []);
    bench.lead();
    assert_eq!(bench.sent(60).await, [], "the new leadership compares everything by itself");
    bench.hand_over("echo", exported(3));
    assert_eq!(bench.sent(1).await.len(), 1);

    // The Lease is lost and won again while a status waits.
    bench.api.refuse(STATUS, 500);
    bench.hand_over("echo", exported(4));
    assert_eq!(bench.sent(6).await.len(), 1);
    bench.leadership.lost();
    bench.lead();
    bench.api.accept();
    assert_eq!(bench.sent(60).await, [], "it is of the leadership before");
}

#[tokio::test(start_paused = true)]
async fn a_new_leadership_compares_every_status_once() {
    let bench = bench();
    bench.api.drop_field("status/observedGeneration");
    let asked = || RegisteredServiceStatus { observed_generation: Some(1), ..exported(1) };
    bench.hand_over("echo", asked());
    assert_eq!(bench.sent(30).await.len(), 1);

    // Somebody changes it while nobody leads.
    bench.leadership.lost();
    bench.api.put(&path("echo"), service("echo", "uid-1", "50", &serde_json::to_value(exported(9)).unwrap()));
    bench.shows("echo");
    assert_eq!(bench.writer.judge(&echo()), Change::Ignored);
    bench.hand_over("echo", asked());
    assert_eq!(bench.sent(30).await, []);
    bench.lead();
    bench.hand_over("echo", asked());
    assert_eq!((bench.sent(30).await.len(), bench.status("echo")), (1, exported(1)), "it is put right");
    bench.hand_over("echo", asked());
    assert_eq!(bench.sent(30).await, [], "once");

    // A field that the API server dropped for one leadership it may keep in the next.
    bench.leadership.lost();
    bench.lead();
    bench.hand_over("echo", asked());
    assert_eq!(bench.sent(30).await.len(), 1);
    bench.hand_over("echo", asked());
    assert_eq!(bench.sent(30).await, [], "once");
}

#[tokio::test(start_paused = true)]
async fn a_status_whose_hold_begins_or_ends_is_sent_first() {
    let bench = bench();
    let names = ["a", "b", "c", "held"];
    for name in names {
        bench.api.put(&path(name), service(name, "uid-1", "7", &Value::Null));
        bench.shows(name);
    }
    let condition = json!([{"type": "DeletionsHeld", "status": "True", "reason": "Held", "message": "",
        "lastTransitionTime": "2026-01-01T12:00:00Z"}]);
    let held = RegisteredServiceStatus { conditions: serde_json::from_value(condition).unwrap(), ..exported(1) };
    names.into_iter().for_each(|name| bench.hand_over(name, if name == "held" { held.clone() } else { exported(1) }));
    assert_eq!(bench.sent(1).await[0].path, path("held") + STATUS);
    tokio::time::sleep(Duration::from_secs(10)).await;

    // While it lasts it is a status like others.
    let held = RegisteredServiceStatus { conditions: held.conditions, ..exported(2) };
    names.into_iter().for_each(|name| bench.hand_over(name, if name == "held" { held.clone() } else { exported(2) }));
    assert_eq!(bench.sent(1).await[0].path, path("a") + STATUS);
    tokio::time::sleep(Duration::from_secs(10)).await;
    names.into_iter().for_each(|name| bench.hand_over(name, exported(3)));
    assert_eq!(bench.sent(1).await[0].path, path("held") + STATUS);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_delays_the_status_of_no_other() {
    let bench = bench();
    for n in 0..8 {
        let name = format!("s{n}");
        bench.api.put(&path(&name), service(&name, "uid-1", "7", &Value::Null));
        bench.shows(&name);
    }
    (0..4).for_each(|n| bench.api.stall(&format!("s{n}/status")));
    (0..8).for_each(|n| bench.hand_over(&format!("s{n}"), exported(1)));
    assert_eq!(bench.sent(1).await.len(), 4);
    (4..8).for_each(|n| assert_eq!(bench.status(&format!("s{n}")), exported(1)));
    assert!(
        bench
            .writer
            .latest_of_service(&bench.view.lock().unwrap().registered_services[&ServiceKey::new("shop", "s0")])
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_watch_shows_first_is_compared_once_the_answer_is_there() {
    let mut bench = bench();
    let registry = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry",
        "metadata": {"name": "main", "uid": "uid-1", "resourceVersion": "7"},
        "spec": {"etcd": {"endpoints": ["http://main:2379"]}, "format": "Kitex", "allowed": []}});
    bench.api.put("/apis/twinspan.dev/v1alpha1/serviceregistries/main", registry.clone());
    let found: ServiceRegistry = serde_json::from_value(registry).unwrap();
    let show = |version: &str, status: Option<ServiceRegistryStatus>| {
        let mut found = found.clone();
        (found.metadata.resource_version, found.status) = (Some(version.to_owned()), status);
        bench.view.lock().unwrap().service_registries.insert("main".to_owned(), Arc::new(found));
    };
    show("7", None);
    let main = Object::ServiceRegistry("main".to_owned());
    let wanted = ServiceRegistryStatus { prefix: Some("p".to_owned()), ..Default::default() };
    let hand_over = || bench.writer.hand_over(main.clone(), "uid-1", Status::ServiceRegistry(Box::new(wanted.clone())));
    bench.api.delay(Duration::from_secs(1));
    hand_over();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The next version of the fake API is 8.
    show("8", Some(wanted.clone()));
    assert_eq!(bench.writer.judge(&main), Change::Ignored, "the answer will tell");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.writer.judge(&main), Change::Ours);
    show("9", Some(ServiceRegistryStatus::default()));
    assert_eq!(bench.writer.judge(&main), Change::Foreign);
    assert_eq!(bench.events.try_recv().ok(), Some(ClusterEvent::StatusWritten(main)));
}
