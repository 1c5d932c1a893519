use serde_json::json;
use twinspan_core::model::LeaseId;

use super::bench::{Bench, SERVICES, SLICES, STATUS_PACE, bench, key};
use crate::api::RegisteredServiceStatus;
use crate::controllers::queue::{Action, Finished};
use crate::leadership::Leadership;
use crate::registry::RegistryError;
use crate::registry::handle::RegistryEvent;
use crate::registry::testing::Faults;

#[tokio::test(start_paused = true)]
async fn one_pass_writes_both_sides_and_the_next_one_nothing() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    assert_eq!(bench.pass().await, Finished { action: Action::Await, keep_trigger_time: false });
    assert_eq!(bench.keys("main"), ["p/echo/10.0.0.1:80", "p/echo/192.0.2.7:9000"]);
    let slices = bench.api.take(SLICES);
    assert_eq!(slices.len(), 1, "{slices:?}");
    assert_eq!(slices[0].method, "POST");
    assert_eq!(slices[0].body["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
    assert_eq!(slices[0].body["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="synced"}"#), "1");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="registry",op="create",result="ok"}"#), "1");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="cluster",op="create",result="ok"}"#), "1");

    bench.api.take("");
    let revision = bench.etcd().revision();
    bench.pass().await;
    bench.pass().await;
    assert_eq!(bench.etcd().revision(), revision);
    assert_eq!(bench.api.take(SLICES), []);
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="unchanged"}"#), "2");
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_nothing_is_written_on_either_side() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    let before = bench.etcd().revision();
    bench.controller.writers.leadership.lost();
    for _ in 0..2 {
        assert_eq!(bench.pass().await, Finished { action: Action::Await, keep_trigger_time: false });
    }
    assert_eq!(bench.etcd().revision(), before);
    assert_eq!(bench.api.take(""), [], "no slice, no status, no Event");
    assert_eq!(bench.status(), RegisteredServiceStatus::default());

    // The one that leads next finds everything still to be written.
    bench.controller.writers.leadership.acquired();
    bench.pass().await;
    assert_eq!(bench.keys("main").len(), 2);
    assert_eq!(bench.api.take(SLICES).len(), 1);
    assert_eq!(bench.condition("Ready").0, "True Synced");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_plans_as_a_leader_and_sends_nothing() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    let before = bench.etcd().records();
    let leadership = Leadership::dry_run();
    leadership.acquired();
    bench.run_as(&leadership);
    let finished = bench.pass().await;
    assert_eq!(finished.action, Action::Await);
    assert_eq!((bench.etcd().records(), bench.etcd().leases().len()), (before, 0));
    assert_eq!(bench.api.take(""), [], "neither slice nor status nor Event");
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="observed"}"#), "1");
    let logged = bench.controller.checkpoints.get(&key()).unwrap().dry_run;
    assert!(logged.starts_with("create p/echo/10.0.0.1:80 in main, create EndpointSlice echo-"), "{logged}");

    // A RegisteredService that is gone: its records would be withdrawn.
    bench.unregister();
    assert_eq!(bench.pass().await.action, Action::Forget);
    assert_eq!(bench.api.take(""), []);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_service_only_looks() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    for (spec, ready) in [
        (json!({"registryRef": {"name": "main"}, "suspend": true}), "True Suspended"),
        (json!({"registryRef": {"name": "main"}, "policy": "Observe"}), "True Observing"),
    ] {
        bench.register(&spec);
        bench.after(STATUS_PACE).await;
        bench.pass().await;
        assert_eq!(bench.keys("main"), [""; 0], "{spec}");
        assert_eq!(bench.condition("Exported").0, "False NotWritten");
        assert_eq!(bench.condition("Ready").0, ready);
    }
    assert_eq!(bench.api.take(SLICES), []);
    assert_eq!(bench.metric(r#"twinspan_services{state="observed"}"#), "1");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_withdrawn_is_counted() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    bench.put_service(&json!({"metadata": {"name": "echo", "namespace": "shop", "uid": "service-uid"},
        "spec": {"type": "ExternalName", "externalName": "example.org"}}));
    bench.register(&json!({"registryRef": {"name": "main"}, "suspend": true}));
    bench.pass().await;
    let (status, keys) = (bench.status(), bench.keys("main"));
    assert_eq!((status.instances.exported, status.instances.imported, keys.len()), (1, 1, 2), "{status:?}");
    assert_eq!(bench.condition("Accepted").0, "False ExternalName");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_refuses_costs_neither_the_other_registry_nor_the_cluster() {
    let mut bench = bench(&["main", "old"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.register(&json!({"registryRef": {"name": "old"}}));
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.keys("old").len()), (0, 1));

    bench.server_registers("192.0.2.7:9000").await;
    bench.etcd().set_faults(Faults { full: true, ..Faults::default() });
    bench.register(&json!({"registryRef": {"name": "main"}}));
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.pass().await, Finished { action: Action::Retry, keep_trigger_time: true });
    assert_eq!((bench.keys("main"), bench.keys("old").len()), (vec!["p/echo/192.0.2.7:9000".to_owned()], 1));
    assert_eq!(bench.api.take(SLICES).len(), 1);
    assert_eq!(bench.condition("Imported").0, "True Synced");
    let (exported, message) = bench.condition("Exported");
    assert_eq!(exported, "False NoSpace");
    assert!(message.contains("database is full"), "{message}");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="registry",op="any",result="NoSpace"}"#), "1");
    assert!(matches!(bench.handle("main").problem(true), Some(RegistryError::NoSpace(_))));
    assert_eq!(bench.handle("old").problem(true), None);

    bench.etcd().set_faults(Faults::default());
    bench.after(STATUS_PACE).await;
    assert_ne!(bench.pass().await.action, Action::Retry);
    assert_eq!((bench.keys("main").len(), bench.condition("Exported").0.as_str()), (2, "True Synced"));
    assert_eq!(bench.handle("main").problem(true), None, "it took the write");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_refuses_does_not_keep_records_from_the_registry() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.api.refuse("endpointslices", 403);
    bench.pass().await;
    assert_eq!(bench.keys("main").len(), 2);
    assert_eq!(bench.condition("Exported").0, "True Synced");
    let (imported, message) = bench.condition("Imported");
    assert_eq!(imported, "False RefusedByCluster");
    assert!(message.contains("not permitted to create EndpointSlice"), "{message}");
    assert_eq!(bench.metric(r#"twinspan_services{state="failed"}"#), "1");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="cluster",op="create",result="forbidden"}"#), "1");

    bench.api.accept();
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.pass().await.action, Action::Await);
    assert_eq!(bench.condition("Imported").0, "True Synced");
    assert_eq!(bench.metric(r#"twinspan_services{state="failed"}"#), "0");
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_somebody_else_changed_is_planned_again_and_is_no_state_to_report() {
    let bench = bench(&["main"]).await;
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    let created = &bench.api.take(SLICES)[0].body;
    let path = format!("{SLICES}/{}", created["metadata"]["name"].as_str().unwrap());
    let mut changed = bench.api.object(&path).unwrap();
    changed["metadata"]["resourceVersion"] = json!("900");
    bench.api.put(&path, changed);
    bench.server_registers("192.0.2.8:9000").await;
    assert_eq!(bench.pass().await.action, Action::Retry);
    assert_eq!(bench.condition("Imported").0, "True Synced");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="cluster",op="update",result="conflict"}"#), "1");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_lost_its_race_is_planned_again() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.etcd().set_faults(Faults { silent: true, ..Faults::default() });
    bench.etcd().put("p/echo/10.0.0.1:80", r#"{"network":"tcp","address":"10.0.0.1:80","weight":1}"#, LeaseId::NONE);
    assert_eq!(bench.pass().await.action, Action::Retry);
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="registry",op="any",result="lost_race"}"#), "1");
    // The server registered itself, so its record stays as it is.
    assert_ne!(bench.pass().await.action, Action::Retry);
    assert_eq!(bench.keys("main"), ["p/echo/10.0.0.1:80"]);
    assert!(String::from_utf8_lossy(&bench.etcd().records()["p/echo/10.0.0.1:80"].value).contains(r#""weight":1}"#));
}

#[tokio::test(start_paused = true)]
async fn a_missing_service_is_created_followed_and_removed() {
    let bench = bench(&["main"]).await;
    bench.remove_service();
    let spec = |create: &str, number: i32| json!({"registryRef": {"name": "main"}, "service": {"create": create, "ports": [{"name": "rpc", "number": number}]}});
    bench.register(&spec("Headless", 80));
    bench.pass().await;
    let created = bench.api.take(SERVICES);
    assert_eq!((created.len(), created[0].method.as_str()), (1, "POST"));
    assert_eq!(created[0].body["spec"]["clusterIP"], "None");
    assert_eq!(created[0].body["spec"].get("selector"), None, "its endpoints are ours alone");
    assert_eq!(created[0].body["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(
        bench.condition("Imported"),
        ("Unknown Pending".into(), "waiting for Service shop/echo to be created".into())
    );
    assert_eq!(bench.condition("Ready").0, "Unknown Pending");
    // The watch has not shown it yet: that it is there already is no error.
    assert_eq!(bench.pass().await.action, Action::Await);
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="failed"}"#), "0");
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="synced"}"#), "1", "only the first pass created it");

    bench.api.take("");
    let mut object = bench.api.object(&format!("{SERVICES}/echo")).unwrap();
    object["metadata"]["uid"] = json!("created-uid");
    bench.api.put(&format!("{SERVICES}/echo"), object.clone());
    bench.put_service(&object);
    bench.register(&spec("Headless", 81));
    bench.pass().await;
    let amended = bench.api.take(SERVICES);
    assert_eq!((amended.len(), amended[0].method.as_str()), (1, "PATCH"));
    assert_eq!(amended[0].body["metadata"]["uid"], "created-uid", "another Service of the name is left alone");
    assert_eq!(amended[0].body["spec"]["ports"][0]["port"], 81);

    // `spec.clusterIP` is immutable, so it is made anew.
    bench.register(&spec("ClusterIP", 81));
    bench.pass().await;
    let removed = bench.api.take(SERVICES);
    assert_eq!((removed.len(), removed[0].method.as_str()), (1, "DELETE"));
    assert_eq!(removed[0].body["preconditions"]["uid"], "created-uid");
    assert_eq!(bench.api.object(&format!("{SERVICES}/echo")), None);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_may_not_be_created_is_told() {
    let bench = bench(&["main"]).await;
    bench.remove_service();
    bench.register(
        &json!({"registryRef": {"name": "main"}, "service": {"create": "ClusterIP", "ports": [{"name": "rpc", "number": 80}]}}),
    );
    bench.api.refuse(SERVICES, 422);
    assert_eq!(bench.pass().await.action, Action::Retry);
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="failed"}"#), "1");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_service_is_withdrawn_and_forgotten() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    assert!(bench.controller.checkpoints.get(&key()).is_some());
    bench.unregister();
    bench.etcd().set_faults(Faults { answers_lost: true, ..Faults::default() });
    bench.api.take("");
    assert_eq!(bench.pass().await.action, Action::Retry, "its deletion may not have reached the registry");
    bench.etcd().set_faults(Faults::default());
    assert_eq!(bench.pass().await, Finished { action: Action::Forget, keep_trigger_time: false });
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"], "what others registered stays");
    assert_eq!(bench.handle("main").owners(), []);
    assert!(bench.controller.checkpoints.get(&key()).is_none());
    bench.events();
    let written = bench.api.take("");
    assert_eq!(
        (written.len(), written[0].method.as_str()),
        (1, "DELETE"),
        "no status any more, and no collector is needed"
    );
    assert!(written[0].path.starts_with(SLICES), "{written:?}");
    assert_eq!(bench.metric(r#"twinspan_services{state="synced"}"#), "0");
}

#[tokio::test(start_paused = true)]
async fn records_that_others_refer_to_as_well_wake_them_and_not_the_one_that_wrote_them() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    while bench.events.try_recv().is_ok() {}
    bench.pass().await;
    let mut by = Vec::new();
    while let Ok(event) = bench.events.try_recv() {
        if let RegistryEvent::Affected { by: Some(key), .. } = event {
            by.push(key);
        }
    }
    assert_eq!(by, [key()]);
}

#[tokio::test(start_paused = true)]
async fn a_former_registry_that_refuses_does_not_keep_records_from_the_new_one() {
    let mut bench = bench(&["main", "old"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.register(&json!({"registryRef": {"name": "old"}}));
    bench.pass().await;
    bench.etcds["old"].set_faults(Faults { answers_lost: true, ..Faults::default() });
    bench.register(&json!({"registryRef": {"name": "main"}}));
    bench.after(STATUS_PACE).await;
    assert_ne!(bench.pass().await.action, Action::Retry);
    assert_eq!((bench.keys("main").len(), bench.keys("old").len()), (1, 1));
    assert_eq!(bench.pass().await.action, Action::Retry);
    assert_eq!(bench.keys("main"), ["p/echo/10.0.0.1:80"]);
    assert!(matches!(bench.handle("old").problem(true), Some(RegistryError::Timeout { .. })));
    assert_eq!(bench.handle("main").problem(true), None);
}

#[tokio::test(start_paused = true)]
async fn records_leave_a_lease_that_etcd_refuses_with_the_next_pass() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    let [first, second] = [0, 1].map(|n| bench.handle("main").leases.id(n));
    // Another name on the same lease, which our user may not write any more.
    bench.etcd().put("p/payment/10.0.0.9:80", "", first);
    bench.etcd().forbid_writes(&["p/payment/"]);
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    assert_ne!(bench.pass().await.action, Action::Retry);
    let leases: Vec<LeaseId> = bench.etcd().records().into_values().map(|record| record.lease).collect();
    assert_eq!(leases, [second, second, first]);
}

/// Whether another pass was asked for after the last one.
fn comes_again(bench: &mut Bench) -> bool {
    let mut again = false;
    while let Ok(event) = bench.events.try_recv() {
        again |=
            matches!(event, RegistryEvent::Affected { by: None, affected, .. } if affected.owners.contains(&key()));
    }
    again
}

#[tokio::test(start_paused = true)]
async fn a_move_puts_before_it_withdraws() {
    let mut bench = bench(&["main", "old"]).await;
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    bench.register(&json!({"registryRef": {"name": "old"}}));
    bench.pass().await;
    // The new registry has no session: it is refused as a duplicate, or its Secret is missing.
    let running = bench.controller.views.registries.running().remove("main").unwrap();
    bench.register(&json!({"registryRef": {"name": "main"}}));
    for (ready, registered) in [
        (&["10.0.0.1", "10.0.0.2"][..], &["p/echo/10.0.0.1:80", "p/echo/10.0.0.2:80"][..]),
        (&["10.0.0.2", "10.0.0.3"], &["p/echo/10.0.0.2:80", "p/echo/10.0.0.3:80"]),
        (&[], &[]),
        (&["10.0.0.4", "10.0.0.5"], &["p/echo/10.0.0.4:80", "p/echo/10.0.0.5:80"]),
    ] {
        bench.ready(ready);
        bench.pass().await;
        assert_eq!(bench.keys("old"), registered, "{ready:?}");
    }
    // It comes back, and refuses one write.
    bench.controller.views.registries.running().insert("main".to_owned(), running);
    bench.etcd().set_faults(Faults { full: true, ..Faults::default() });
    assert_eq!(bench.pass().await.action, Action::Retry);
    assert_eq!((bench.keys("main").len(), bench.keys("old").len()), (0, 2));
    bench.etcd().set_faults(Faults::default());
    comes_again(&mut bench);
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.keys("old").len()), (2, 2));
    assert!(comes_again(&mut bench), "its own next pass withdraws from the former registry");
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.keys("old").len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_name_that_is_refused_costs_no_record_under_the_old_one() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    bench.etcd().set_faults(Faults { full: true, ..Faults::default() });
    bench.register(&json!({"registryRef": {"name": "main"}, "registryName": "echo.v2"}));
    assert_eq!(bench.pass().await.action, Action::Retry);
    assert_eq!(bench.keys("main"), ["p/echo/10.0.0.1:80"]);
    bench.etcd().set_faults(Faults::default());
    bench.pass().await;
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo.v2/10.0.0.1:80"]);
}
