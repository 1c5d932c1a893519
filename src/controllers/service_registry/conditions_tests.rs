use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use twinspan_core::model::{Cidr, LeaseId, ObjectKey, ServiceKey};
use twinspan_core::plan::departure::held;
use twinspan_core::plan::departure::registry_guard::ServiceDeletions;
use twinspan_core::plan::service::Incarnation;

use super::bench::{Bench, RECONNECT, STATUS_PACE, bench, bench_of, echo, etcd, put_own, registry};
use crate::api::{RegisteredService, ReturnedAs};
use crate::cluster::convert::{NamespaceView, SecretView};
use crate::cluster::networks::NamedNetworks;
use crate::cluster::status_queue::Object;
use crate::cluster::view::{ClusterEvent, Kind};
use crate::controllers::views::Views;
use crate::leadership::Leadership;
use crate::registry::RegistryError;
use crate::registry::guards::Effect;
use crate::registry::phase::Phase;
use crate::registry::testing::Faults;
use crate::registry::verified::AuditResult;

const MAIN: &str = "http://main:2379";

async fn with_main() -> Bench {
    let bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    bench
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_answers_is_ready_and_described() {
    let server = etcd(MAIN);
    put_own(&server, "p/echo/10.0.0.1:80", LeaseId::NONE);
    server.put("p/echo/192.0.2.7:80", r#"{"network":"tcp","address":"192.0.2.7:80"}"#, LeaseId::NONE);
    server.put("p/echo/192.0.2.8:80", "rubbish", LeaseId::NONE);
    let mut bench = with_main().await;
    assert_eq!(bench.conditions("main"), ["True Connected", "True Connected", "True Synced"]);
    assert_eq!(bench.kstatus("main"), "Current");
    let status = bench.status("main");
    assert_eq!((status.cluster_id.as_deref(), status.prefix.as_deref()), (Some("c1"), Some("p")));
    let (found, records) = (status.etcd.unwrap(), status.records.unwrap());
    assert_eq!((found.cluster_id.as_str(), found.version.as_str(), found.revision_at_last_session), ("1", "3.6.14", 4));
    assert_eq!((records.own, records.foreign, records.undecodable), (1, 1, 1));
    assert_eq!(status.lease_ttls, [300]);
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(bench.events(), ["main Connected: connected to the registry"]);
    assert_eq!(bench.metric(r#"twinspan_registry_ready{registry="main"}"#).as_deref(), Some("1"));
    assert_eq!(bench.metric(r#"twinspan_session_state{registry="main",state="watching"}"#).as_deref(), Some("1"));
    assert_eq!(bench.metric(r#"twinspan_records{registry="main",kind="own"}"#).as_deref(), Some("1"));
    assert!(bench.queue.take_enqueued().contains(&echo()), "it was waiting for the list");

    bench.api.take("");
    bench.after(RECONNECT).await;
    assert_eq!(bench.api.take(""), [], "nothing changed");
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_told_and_found_once_it_is_there() {
    let bench = bench();
    let auth = json!({"spec": {"etcd": {"auth": {"secretRef": {"name": "etcd-user"}}}}});
    bench.put(registry("main", 1, &auth)).await;
    assert_eq!(bench.conditions("main"), ["False SecretNotFound", "False SecretNotFound", "False SecretNotFound"]);
    assert_eq!(bench.kstatus("main"), "InProgress", "the Secret may come");
    let message = "there is no Secret etcd-user in the operator's namespace; create it";
    assert_eq!(bench.message("main", "Connected"), message);
    assert_eq!(bench.events(), [format!("main Disconnected: {message}")]);
    assert!(bench.handle("main").is_none());
    assert_eq!(bench.metric(r#"twinspan_registry_ready{registry="main"}"#).as_deref(), Some("0"));

    let key = ObjectKey::new("twinspan-system", "etcd-user");
    let data: BTreeMap<_, _> = ["username", "password"].map(|key| (key.to_owned(), b"x".to_vec())).into();
    bench
        .views
        .cluster()
        .secrets
        .insert(key.clone(), Arc::new(SecretView { data: data.clone().into_iter().collect() }));
    bench.cluster_shows(ClusterEvent::Secret).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    assert_eq!(bench.events(), ["main Connected: connected to the registry"]);

    // A session that runs goes on without its Secret: nothing says that it should end.
    let handle = bench.handle("main").unwrap();
    bench.views.cluster().secrets.remove(&key);
    bench.cluster_shows(ClusterEvent::Secret).await;
    assert_eq!(bench.conditions("main")[0], "False SecretNotFound");
    assert!(Arc::ptr_eq(&handle, &bench.handle("main").unwrap()));
    assert_eq!(handle.status().phase, Phase::Watching);
}

#[tokio::test(start_paused = true)]
async fn without_kube_system_the_cluster_has_no_id_until_it_is_seen() {
    let bench = bench();
    bench.put(registry("main", 1, &json!({"spec": {"clusterID": null}}))).await;
    assert_eq!(bench.conditions("main")[1], "False ClusterIDUnknown");
    assert_eq!(bench.kstatus("main"), "Failed");
    let namespace =
        NamespaceView { uid: "uid-of-the-cluster".into(), labels: BTreeMap::new(), export: None, deleting: false };
    bench.views.cluster().namespaces.insert("kube-system".into(), Arc::new(namespace));
    bench.cluster_shows(ClusterEvent::Namespace("kube-system".into())).await;
    bench.after(STATUS_PACE).await;
    assert_eq!((bench.conditions("main")[0].as_str(), bench.kstatus("main")), ("True Connected", "Current"));
    assert_eq!(bench.status("main").cluster_id.as_deref(), Some("uid-of-the-cluster"));
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_does_not_answer_is_told_and_so_is_its_return() {
    let bench = with_main().await;
    bench.events();
    let known = bench.status("main").etcd;
    for (faults, reason) in [
        (Faults { away: true, ..Faults::default() }, "False Unreachable"),
        (Faults { refused: true, ..Faults::default() }, "False AuthFailed"),
    ] {
        etcd(MAIN).set_faults(faults);
        etcd(MAIN).cut();
        bench.after(RECONNECT).await;
        assert_eq!(bench.conditions("main"), [reason; 3]);
        let events = bench.events();
        assert!(events.last().unwrap().starts_with("main Disconnected: "), "{events:?}");
        assert_eq!(bench.status("main").etcd, known, "where it was last is not forgotten");
        assert_eq!(bench.metric(r#"twinspan_session_state{registry="main",state="failed"}"#).as_deref(), Some("1"));
    }
    etcd(MAIN).set_faults(Faults::default());
    bench.after(RECONNECT).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    assert_eq!(bench.events().len(), 1, "connected again");
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_never_answered_has_no_place_in_the_status() {
    etcd(MAIN).set_faults(Faults { away: true, ..Faults::default() });
    let bench = with_main().await;
    assert_eq!(bench.conditions("main"), ["False Unreachable"; 3]);
    assert_eq!((bench.status("main").etcd, bench.status("main").records), (None, None));
    assert_eq!(bench.status("main").cluster_id.as_deref(), Some("c1"), "the spec alone says it");
}

#[tokio::test(start_paused = true)]
async fn the_steps_to_a_complete_list_are_told() {
    let bench = with_main().await;
    let handle = bench.handle("main").unwrap();
    // Its session watches, and says nothing of these by itself.
    for (phase, expected) in [
        (Phase::Connecting, ["False Connecting", "Unknown Connecting", "Unknown Connecting"]),
        (Phase::Listing, ["False Listing", "True Connected", "False Listing"]),
        (Phase::Watching, ["True Connected", "True Connected", "True Synced"]),
    ] {
        handle.set_phase(phase);
        bench.after(STATUS_PACE).await;
        assert_eq!(bench.conditions("main"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_nothing_explains_stops_writes_until_it_is_approved() {
    etcd(MAIN).put("twinspan/c1/main", "7/stranger", LeaseId::NONE);
    let bench = bench();
    let fenced = json!({"spec": {"fence": {"mode": "Epoch"}}});
    bench.put(registry("main", 1, &fenced)).await;
    bench.after(STATUS_PACE).await;
    // A first take-over raises what it finds; somebody who goes on raising it uses the same cluster ID.
    assert_eq!(bench.conditions("main"), ["True Connected", "True Connected", "True Synced"]);
    etcd(MAIN).put("twinspan/c1/main", "9/stranger", LeaseId::NONE);
    bench.handle("main").unwrap().fence.as_ref().unwrap().suspect();
    bench.after(STATUS_PACE).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("main"), ["False ClusterIDInUse", "True Connected", "True Synced"]);
    let message = bench.message("main", "Ready");
    assert!(message.contains("twinspan.dev/approve-epoch=9/stranger"), "{message}");
    let approved = json!({"metadata": {"annotations": {"twinspan.dev/approve-epoch": "9/stranger"}}, "spec": {"fence": {"mode": "Epoch"}}});
    bench.put(registry("main", 1, &approved)).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    let epoch = String::from_utf8(etcd(MAIN).records()["twinspan/c1/main"].value.clone()).unwrap();
    assert_eq!(epoch, "10/me");
}

#[tokio::test(start_paused = true)]
async fn what_a_registry_refuses_to_write_is_told_although_it_is_followed() {
    let bench = with_main().await;
    let handle = bench.handle("main").unwrap();
    handle.record_write_result(&echo(), Some(RegistryError::NoSpace("full".into())));
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("main"), ["False NoSpace", "True Connected", "True Synced"]);
    handle.record_write_result(&echo(), None);
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
}

#[tokio::test(start_paused = true)]
async fn names_that_the_user_may_not_read_are_counted_in_the_message() {
    etcd(MAIN).forbid_reads(&["echo/"]);
    let bench = bench();
    {
        let object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "user", "namespace": "shop", "uid": "uid-2"}, "spec": {"registryRef": {"name": "main"}},
        });
        let object = serde_json::from_value(object).unwrap();
        bench.views.cluster().index.put(&ServiceKey::new("shop", "user"), &object);
    }
    // Without a prefix each name is listed by itself.
    bench.put(registry("main", 1, &json!({"spec": {"format": "GRPC", "prefix": ""}}))).await;
    assert_eq!(bench.conditions("main"), ["True Connected", "True Connected", "True PermissionDenied"]);
    let message = bench.message("main", "Synced");
    assert!(message.starts_with("the registry's user may not read the keys of 1 names, first echo/;"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn another_cluster_and_an_older_revision_are_told_apart() {
    let server = etcd(MAIN);
    put_own(&server, "p/echo/10.0.0.1:80", LeaseId::NONE);
    let bench = with_main().await;
    let backup = server.backup();
    put_own(&server, "p/echo/10.0.0.2:80", LeaseId::NONE);
    bench.after(STATUS_PACE).await;
    server.restore(&backup);
    bench.after(RECONNECT).await;
    assert_eq!(bench.conditions("main"), ["True Connected", "True Connected", "True RolledBack"]);
    server.replace_with_empty();
    server.put("somebody/else", "", LeaseId::NONE);
    bench.after(RECONNECT).await;
    assert_eq!(bench.conditions("main")[2], "True ClusterChanged");
    // Until each hold is in a status, ours tells the next process that holds are due.
    let described = |bench: &Bench| (bench.status("main").etcd.unwrap().cluster_id, bench.status("main").returned_as);
    assert_eq!(described(&bench), ("1".to_owned(), Some(ReturnedAs::ClusterChanged)));
    bench.handle("main").unwrap().report_hold(&echo(), Incarnation::RolledBack, false);
    bench.after(STATUS_PACE).await;
    assert_eq!(described(&bench).1, Some(ReturnedAs::ClusterChanged), "that pass saw the former registry");
    // Nobody waits for one that waits for a finalizer.
    let waiting = json!({"metadata": {"name": "old", "namespace": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"registryRef": {"name": "main"}}});
    let waiting: RegisteredService = serde_json::from_value(waiting).unwrap();
    bench.views.cluster().index.put(&waiting.key(), &waiting);
    bench.views.cluster().registered_services.insert(waiting.key(), Arc::new(waiting));
    bench.handle("main").unwrap().report_hold(&echo(), Incarnation::ClusterChanged, false);
    bench.after(STATUS_PACE).await;
    assert_eq!(described(&bench), ("2".to_owned(), None));
}

#[tokio::test(start_paused = true)]
async fn deletions_of_many_services_are_held_and_released_by_the_annotation() {
    let mut bench = with_main().await;
    let guards = bench.views.guards.clone();
    for service in 0..4 {
        let held = (0..5).map(|n| format!("import 10.0.{service}.{n}:80")).collect();
        let deletions = ServiceDeletions { known: 5, held, ..ServiceDeletions::default() };
        let key = ServiceKey::new("shop", format!("s{service}"));
        guards.report("main", &key, Some(deletions), &bench.views.env);
    }
    bench.handle("main").unwrap().requeue_all();
    bench.after(STATUS_PACE).await;
    let (message, conditions) = (bench.message("main", "DeletionsHeld"), bench.status("main").conditions);
    let held = conditions.iter().find(|condition| condition.type_ == "DeletionsHeld").unwrap();
    assert_eq!((held.status.as_str(), held.reason.as_str()), ("True", "Held"));
    assert!(message.starts_with("nothing shows that 20 instances of many services ended"), "{message}");
    let annotation = message.split_whitespace().find(|word| word.starts_with("twinspan.dev/")).unwrap();
    let (name, hash) = annotation.split_once('=').unwrap();

    bench.queue.take_enqueued();
    let annotated = |hash: &str| registry("main", 1, &json!({"metadata": {"annotations": {name: hash}}}));
    bench.put(annotated("another")).await;
    assert!(guards.released("main", &ServiceKey::new("shop", "s0")).is_empty());
    bench.put(annotated(hash)).await;
    assert_eq!(guards.released("main", &ServiceKey::new("shop", "s0")).len(), 5);
    assert!(bench.queue.take_enqueued().contains(&echo()));
}

/// A ServiceRegistry whose status reports a hold that another process began at 11:59.
fn held_by_another_process() -> Value {
    json!({"status": {
        "conditions": [{"type": "DeletionsHeld", "status": "True", "reason": "Held", "message": "until 12:04",
            "lastTransitionTime": "2026-01-01T11:59:00Z"}],
        "hold": {"since": "2026-01-01T11:59:00Z", "until": "2026-01-01T12:04:00Z", "hash": "0a1b2c3d4e5f"},
    }})
}

fn twenty() -> ServiceDeletions {
    let held = (0..20).map(|n| format!("import 10.0.0.{n}:80")).collect();
    ServiceDeletions { known: 20, held, ..ServiceDeletions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_hold_in_the_status_goes_on_in_another_process() {
    let mut bench = bench();
    bench.put(registry("main", 1, &held_by_another_process())).await;
    bench.after(STATUS_PACE).await;
    let before = bench.status("main").hold.unwrap();
    assert_eq!((before.hash.as_str(), bench.message("main", "DeletionsHeld")), ("0a1b2c3d4e5f", "until 12:04".into()));
    bench.views.guards.report("main", &echo(), Some(twenty()), &bench.views.env);
    bench.handle("main").unwrap().requeue_all();
    bench.after(STATUS_PACE).await;
    let resumed = bench.status("main").hold.unwrap();
    assert_eq!((&resumed.since, &resumed.until), (&before.since, &before.until));
    let (hold, _) = bench.views.guards.hold("main", &echo(), &bench.views.env);
    assert_eq!(hold.unwrap().ends.to_string(), "2026-01-01T12:04:00Z");
    // The approval of the same set by its old name is refused.
    let of_set = held::hash_of_set((0..20).map(|n| format!("shop/echo import 10.0.0.{n}:80")).collect::<BTreeSet<_>>());
    let annotated = json!({"metadata": {"annotations": {"twinspan.dev/approve-deletions": of_set}}});
    bench.events();
    for _ in 0..2 {
        bench.put(registry("main", 1, &annotated)).await;
    }
    let refused: Vec<String> = bench.events().into_iter().filter(|event| event.contains("ApprovalRefused")).collect();
    assert!(refused.len() == 1 && refused[0].contains(&resumed.hash), "{refused:?}");
    assert!(bench.views.guards.released("main", &echo()).is_empty());
    bench.queue.take_enqueued();
}

#[tokio::test(start_paused = true)]
async fn a_hold_whose_deletions_nobody_reports_leaves_the_status() {
    let bench = bench();
    bench.put(registry("main", 1, &held_by_another_process())).await;
    bench.after(Duration::from_secs(80)).await;
    assert_eq!((bench.status("main").hold, bench.message("main", "DeletionsHeld")), (None, String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_registry_is_not_held_by_a_process_that_does_not_lead() {
    let leadership = Leadership::none();
    let bench = bench_of(leadership.clone());
    bench.put(registry("main", 1, &held_by_another_process())).await;
    let Views { guards, env, .. } = &bench.views;
    assert_eq!(guards.report("main", &echo(), Some(twenty()), env), Effect::Nothing);
    assert_eq!(guards.hold("main", &echo(), env).0, None);
    leadership.acquired();
    bench.after(STATUS_PACE).await;
    guards.report("main", &echo(), Some(twenty()), env);
    assert_eq!(guards.hold("main", &echo(), env).0.unwrap().since.to_string(), "2026-01-01T11:59:00Z");
    leadership.lost();
    bench.after(STATUS_PACE).await;
    assert_eq!(guards.hold("main", &echo(), env).0, None);
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_a_status_and_a_new_one_writes_at_once() {
    let leadership = Leadership::none();
    let bench = bench_of(leadership.clone());
    bench.put(registry("main", 1, &json!({}))).await;
    assert_eq!(bench.handle("main").unwrap().status().phase, Phase::Watching, "its view is warm");
    assert_eq!(bench.api.take(""), []);
    leadership.acquired();
    bench.after(Duration::from_secs(1)).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    leadership.lost();
    bench.api.take("");
    etcd(MAIN).set_faults(Faults { away: true, ..Faults::default() });
    etcd(MAIN).cut();
    bench.after(RECONNECT).await;
    assert_eq!(bench.api.take(""), []);
}

/// Somebody empties the status of `main`, and the watch shows it.
async fn somebody_empties_the_status(bench: &Bench, version: &str) {
    let object = registry("main", 1, &json!({"metadata": {"resourceVersion": version}}));
    bench.api.put("/apis/twinspan.dev/v1alpha1/serviceregistries/main", serde_json::to_value(&object).unwrap());
    bench.views.cluster().service_registries.insert("main".to_owned(), Arc::new(object));
    bench.cluster_shows(ClusterEvent::StatusChanged(Object::ServiceRegistry("main".to_owned()))).await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_else_changed_is_put_right() {
    let leadership = Leadership::none();
    leadership.acquired();
    let mut bench = bench_of(leadership.clone());
    bench.put(registry("main", 1, &json!({}))).await;
    somebody_empties_the_status(&bench, "500").await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    let of_service = ClusterEvent::StatusChanged(Object::RegisteredService(echo()));
    bench.queue.take_enqueued();
    bench.cluster_shows(of_service.clone()).await;
    assert_eq!(bench.queue.take_enqueued(), [echo()]);

    // While this process does not lead it is none of its business, and it compares everything once it leads.
    leadership.lost();
    bench.after(STATUS_PACE).await;
    bench.queue.take_enqueued();
    somebody_empties_the_status(&bench, "900").await;
    bench.cluster_shows(of_service).await;
    assert_eq!((bench.conditions("main")[0].as_str(), bench.queue.take_enqueued()), ("", vec![]));
    leadership.acquired();
    bench.after(STATUS_PACE).await;
    assert_eq!((bench.conditions("main")[0].as_str(), bench.queue.take_enqueued()), ("True Connected", vec![echo()]));
}

#[tokio::test(start_paused = true)]
async fn an_audit_alone_writes_nothing_also_where_the_api_server_drops_a_field() {
    let bench = bench();
    bench.api.drop_field("status/prefix");
    bench.put(registry("main", 1, &json!({}))).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.status("main").prefix, None);
    bench.api.take("/status");
    let handle = bench.handle("main").unwrap();
    for _ in 0..3 {
        handle.audit.add(AuditResult::Agrees, bench.views.env.now());
        handle.report();
        bench.after(STATUS_PACE).await;
    }
    assert!(bench.api.take("/status").is_empty());
    assert_eq!(bench.status("main").last_verified, None);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_refused_is_tried_again_and_a_busy_one_is_paced() {
    put_own(&etcd(MAIN), "p/echo/10.0.1.1:80", LeaseId::NONE);
    let bench = bench();
    bench.api.refuse("/status", 500);
    bench.put(registry("main", 1, &json!({}))).await;
    let told = "main Connected: connected to the registry".to_owned();
    assert_eq!((bench.conditions("main")[0].as_str(), bench.events()), ("", vec![told]));
    bench.after(Duration::from_secs(120)).await;
    assert_eq!(bench.events(), [""; 0], "it does not wait for the status");
    bench.api.accept();
    bench.after(Duration::from_secs(61)).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    bench.api.take("");
    for n in 0..40 {
        put_own(&etcd(MAIN), &format!("p/echo/10.0.0.{n}:80"), LeaseId::NONE);
        bench.after(Duration::from_millis(500)).await;
    }
    let sent = bench.api.take("/status").len();
    assert!((3..=5).contains(&sent), "20 s of churn: {sent}");
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.status("main").records.unwrap().own, 41, "the last one is written");
}

#[tokio::test(start_paused = true)]
async fn a_service_range_that_nothing_shows_is_told() {
    let bench = with_main().await;
    assert_eq!(bench.message("main", "Ready"), "");
    bench.views.cluster().set_absent(Kind::ServiceCidr);
    bench.cluster_shows(ClusterEvent::Synced(Kind::ServiceCidr)).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    assert!(bench.message("main", "Ready").starts_with("no range of IPv4 and IPv6 ClusterIPs is known"));
    // A ClusterIP shows no range, and the settings do.
    bench.views.cluster().cluster_ips.insert("10.96.0.1".parse().unwrap());
    bench.cluster_shows(ClusterEvent::Heard).await;
    bench.after(STATUS_PACE).await;
    assert!(bench.message("main", "Ready").starts_with("no range of IPv4 ClusterIPs is known"));
    let named = NamedNetworks { services: vec![Cidr::parse("10.96.0.0/16").unwrap()] };
    bench.views.cluster().networks.name(&named);
    bench.cluster_shows(ClusterEvent::Heard).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.message("main", "Ready"), "");
}
