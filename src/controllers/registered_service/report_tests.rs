use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::bench::{Bench, PATH, STATUS_PACE, bench, key};
use crate::api::Counts;
use crate::api::conditions::{DELETIONS_HELD, find};
use crate::controllers::queue::{Action, Finished};
use crate::registry::handle::RegistryEvent;
use crate::registry::testing::Faults;

/// Requests for the status.
const STATUS: &str = "/status";

#[tokio::test(start_paused = true)]
async fn a_status_is_sent_only_where_it_differs() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    let sent = bench.api.take(STATUS);
    assert_eq!((sent.len(), sent[0].method.as_str()), (1, "PATCH"));
    assert_eq!(sent[0].body["status"]["instances"]["exported"], 1);
    assert_eq!(sent[0].body["status"]["differences"], json!(null), "a field that is empty is named, or it would stay");
    for _ in 0..3 {
        bench.after(STATUS_PACE).await;
        bench.pass().await;
    }
    assert_eq!(bench.api.take(STATUS), []);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_changes_often_is_written_now_and_then_and_the_last_one_is_written() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    bench.api.take(STATUS);
    bench.after(Duration::from_secs(2)).await;
    for more in [&["10.0.0.1", "10.0.0.2"][..], &["10.0.0.1", "10.0.0.2", "10.0.0.3"]] {
        bench.ready(more);
        assert_eq!(bench.pass().await.action, Action::Await, "no pass runs because a status waits");
    }
    assert_eq!(bench.api.take(STATUS), []);
    bench.after(Duration::from_secs(3)).await;
    let sent = bench.api.take(STATUS);
    assert_eq!((sent.len(), &sent[0].body["status"]["instances"]["exported"]), (1, &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_the_api_server_refuses_is_tried_again_later() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.api.refuse(STATUS, 500);
    assert_eq!(bench.pass().await.action, Action::Await);
    assert_eq!(bench.keys("main").len(), 1, "what people read does not keep records back");
    assert_eq!(bench.status().conditions, []);
    bench.after(Duration::from_secs(120)).await;
    let tries = bench.api.take(STATUS).len();
    assert!((3..=8).contains(&tries), "{tries} in two minutes");
    bench.api.accept();
    bench.after(Duration::from_secs(61)).await;
    assert_eq!(bench.condition("Ready").0, "True Synced");
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_view_of_the_cluster_decides_nothing() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    let known = std::mem::take(&mut *bench.controller.views.cluster());
    bench.api.take("");
    assert_eq!(bench.pass().await, Finished { action: Action::Await, keep_trigger_time: true });
    assert_eq!((bench.keys("main").len(), bench.api.take("")), (1, vec![]));
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="waiting"}"#), "1");
    *bench.controller.views.cluster() = known;
}

#[tokio::test(start_paused = true)]
async fn while_the_registry_is_away_everything_stays_and_the_change_waits_for_its_answer() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    let known = bench.status().instances;
    bench.api.take("");
    bench.etcd().set_faults(Faults { away: true, ..Faults::default() });
    bench.after(Duration::from_secs(60)).await;
    bench.ready(&[]);
    assert_eq!(bench.pass().await, Finished { action: Action::Await, keep_trigger_time: true });
    assert_eq!(bench.api.take("endpointslices"), []);
    let (exported, message) = bench.condition("Exported");
    assert_eq!(exported, "Unknown RegistryUnavailable");
    assert!(
        message.starts_with("ServiceRegistry main: no endpoint") && message.ends_with("What is there is kept"),
        "{message}"
    );
    assert_eq!(bench.condition("Ready").0, "False RegistryUnavailable");
    assert_eq!(bench.status().instances, known, "not known now: the last counts stay");
    assert_eq!(bench.metric(r#"twinspan_services{state="waiting"}"#), "1");

    // The time of the change counts from when it was seen to the write that answers it.
    bench.etcd().set_faults(Faults::default());
    bench.after(Duration::from_secs(60)).await;
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_session_says_what_it_waits_for() {
    let bench = bench(&["main"]).await;
    let running = bench.controller.views.registries.running().remove("main").unwrap();
    bench.pass().await;
    let pending = "waiting for a complete list of ServiceRegistry main";
    assert_eq!(bench.condition("Exported"), ("Unknown Pending".into(), pending.into()));
    assert_eq!(bench.condition("Ready").0, "Unknown Pending");
    let mut object = (*bench.controller.views.cluster().service_registries["main"]).clone();
    object.status = serde_json::from_value(json!({"conditions": [{"type": "Ready", "status": "False",
        "reason": "SecretNotFound", "message": "there is no Secret etcd", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
    .unwrap();
    bench.controller.views.cluster().service_registries.insert("main".into(), object.into());
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    let told = "ServiceRegistry main: there is no Secret etcd. What is there is kept";
    assert_eq!(bench.condition("Imported"), ("Unknown RegistryUnavailable".into(), told.into()));
    bench.controller.views.registries.running().insert("main".into(), running);
    bench.handle("main").confirm_sole(None);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.condition("Exported").0, "Unknown Pending", "its records may be another ServiceRegistry's");
}

#[tokio::test(start_paused = true)]
async fn one_direction_alone_is_told_as_not_requested() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.register(&json!({"registryRef": {"name": "main"}, "direction": "Import"}));
    bench.pass().await;
    assert_eq!(bench.condition("Exported"), ("True NotRequested".into(), "spec.direction is Import".into()));
    assert_eq!((bench.keys("main").len(), bench.api.take("endpointslices").len()), (1, 1));
    bench.register(&json!({"registryRef": {"name": "main"}, "direction": "Export"}));
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.condition("Imported"), ("True NotRequested".into(), "spec.direction is Export".into()));
    assert_eq!(bench.keys("main").len(), 2);
    assert_eq!(bench.api.take("endpointslices")[0].method, "DELETE");
}

#[tokio::test(start_paused = true)]
async fn propagation_is_measured_from_the_change_to_the_write_that_took_effect() {
    let mut bench = bench(&["main"]).await;
    let count = r#"twinspan_propagation_seconds_count{direction="export"}"#;
    bench.ready(&["10.0.0.1"]);
    let changed = bench.controller.views.env.now();
    bench.etcd().set_faults(Faults { answers_lost: true, ..Faults::default() });
    bench.after(Duration::from_secs(1)).await;
    let finished = bench.controller.clone().reconcile(key(), changed).await;
    assert_eq!(finished, Finished { action: Action::Retry, keep_trigger_time: true });
    assert_eq!(
        (bench.keys("main").len(), bench.metric(count).as_str()),
        (1, "0"),
        "whether it was written is not known"
    );
    bench.etcd().set_faults(Faults::default());
    bench.after(Duration::from_secs(1)).await;
    bench.controller.clone().reconcile(key(), changed).await;
    assert_eq!(bench.metric(count), "1");
    let seconds: f64 = bench.metric(r#"twinspan_propagation_seconds_sum{direction="export"}"#).parse().unwrap();
    assert!((7.0..7.5).contains(&seconds), "{seconds}: the answer that was lost was awaited for 5 s");
    bench.pass().await;
    assert_eq!(bench.metric(count), "1", "nothing was written");
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    assert_eq!(bench.metric(r#"twinspan_propagation_seconds_count{direction="import"}"#), "1");
}

#[tokio::test(start_paused = true)]
async fn gauges_follow_what_is_skipped_and_are_taken_off_with_the_service() {
    let bench = bench(&["main"]).await;
    let skipped = r#"twinspan_skipped_instances{reason="LoopbackAddress"}"#;
    bench.server_registers("127.0.0.1:80").await;
    bench.server_registers("127.0.0.1:81").await;
    bench.pass().await;
    assert_eq!(bench.metric(skipped), "2");
    let named: Vec<String> = bench.differences().iter().map(|skipped| skipped.reason.clone()).collect();
    assert_eq!(named, ["LoopbackAddress", "LoopbackAddress"]);
    bench.etcd().delete(&["p/echo/127.0.0.1:81"]);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.metric(skipped), "1");
    bench.unregister();
    bench.pass().await;
    assert_eq!(bench.metric(skipped), "0");
}

#[tokio::test(start_paused = true)]
async fn another_object_of_the_same_name_starts_afresh() {
    let bench = bench(&["main"]).await;
    bench.pass().await;
    let mut object = (*bench.object().unwrap()).clone();
    (object.metadata.uid, object.status) = (Some("uid-2".into()), None);
    object.metadata.resource_version = Some("500".into());
    bench.api.put(PATH, serde_json::to_value(&object).unwrap());
    bench.controller.views.cluster().registered_services.insert(key(), object.into());
    bench.api.take("");
    bench.pass().await;
    assert_eq!(bench.controller.checkpoints.get(&key()).unwrap().planned.uid, "uid-2");
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.api.take(PATH).len(), 1);
    assert_eq!(bench.metric(r#"twinspan_services{state="synced"}"#), "1", "there is still one");
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_the_whole_registry_wakes_every_service_when_it_begins_and_when_it_ends() {
    let mut bench = bench(&["main"]).await;
    let servers: Vec<String> = (0..12).map(|n| format!("192.0.2.{n}:9000")).collect();
    for server in &servers {
        bench.server_registers(server).await;
    }
    bench.pass().await;
    let state = |bench: &mut Bench| {
        let events = std::iter::from_fn(|| bench.events.try_recv().ok());
        events.filter(|event| matches!(event, RegistryEvent::State { .. })).count()
    };
    state(&mut bench);
    let keys: Vec<String> = servers.iter().map(|server| format!("p/echo/{server}")).collect();
    bench.etcd().delete(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(state(&mut bench), 1);
    let env = bench.controller.views.env.clone();
    assert_eq!(bench.controller.views.guards.held("main", &env).unwrap().deletions, 12);

    // While the registry is away nothing is known anew: the hold stays and its time goes on.
    let since = |bench: &Bench| find(&bench.status().conditions, DELETIONS_HELD).unwrap().last_transition_time.clone();
    let (before, message) = (since(&bench), bench.condition(DELETIONS_HELD).1);
    bench.etcd().set_faults(Faults { away: true, ..Faults::default() });
    bench.after(Duration::from_secs(60)).await;
    bench.pass().await;
    assert_eq!(bench.condition("Imported").0, "Unknown RegistryUnavailable");
    assert_eq!(bench.condition(DELETIONS_HELD), ("True Held".into(), message));
    assert_eq!(since(&bench), before);
    assert_eq!(bench.controller.views.guards.held("main", &env).unwrap().deletions, 12);
    assert_eq!(bench.metric("twinspan_held_deletions"), "12");

    bench.etcd().set_faults(Faults::default());
    bench.after(Duration::from_secs(30)).await;
    state(&mut bench);
    bench.unregister();
    bench.pass().await;
    assert_eq!(state(&mut bench), 1);
    assert_eq!(bench.controller.views.guards.held("main", &env), None);
    assert_eq!(bench.metric("twinspan_held_deletions"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_withdrawn_has_nothing_and_holds_nothing() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    // A move to a registry that does not exist: the former place goes on, and so do the counts.
    bench.register(&json!({"registryRef": {"name": "nowhere"}}));
    bench.api.take("");
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take("endpointslices")), (2, vec![]));
    assert_eq!(
        (bench.condition("Accepted").0.as_str(), bench.status().instances.exported),
        ("False RegistryNotFound", 1)
    );
    // The former place does not allow the name any more.
    let mut object = bench.controller.views.cluster().service_registries["main"].clone();
    Arc::make_mut(&mut object).spec.allowed.clear();
    bench.controller.views.cluster().service_registries.insert("main".to_owned(), object);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"]);
    assert_eq!(bench.api.take("endpointslices").last().unwrap().method, "DELETE");
    assert_eq!(bench.status().instances, Counts::default());
    assert_eq!(bench.condition(DELETIONS_HELD), ("False NothingHeld".into(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_cannot_be_understood_leaves_everything_as_it_is() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    bench.api.take("");
    bench.register(&json!({"registryRef": {"name": "main"}, "service": {"ports": [{"name": "typo"}]}}));
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.condition("Accepted").0, "False PortNotFound");
    assert_eq!((bench.keys("main").len(), bench.api.take("endpointslices")), (2, vec![]));
    assert_eq!(bench.status().instances.exported, 1, "it still is");
    assert_eq!(bench.metric(r#"twinspan_services{state="rejected"}"#), "1");
}
