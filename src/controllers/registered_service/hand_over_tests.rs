//! A RegisteredService that a person wrote takes over what a discovered one has: put before withdraw, on both sides.
//! Another release takes over what refers to its ServiceRegistry, or lies in its namespaces.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use twinspan_core::model::{RawRecord, ServiceKey};

use super::bench::{Bench, SERVICES, SLICES, bench, settle};
use crate::api::{APPROVE_WITHDRAWAL, RegisteredService, ServiceRegistry, ServiceRegistryStatus, Stored};
use crate::cluster::kinds::Watched;
use crate::cluster::reach::{Limits, Reach};
use crate::cluster::view::{ClusterEvent, Kind};
use crate::controllers::queue::Action;

const RECORD: &str = "p/echo/10.0.0.1:80";
const SERVER: &str = "192.0.2.7";

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", name)
}

/// The watch shows a RegisteredService for the Service and the name `echo`. Returns those whose pass follows.
fn shows(bench: &Bench, name: &str, day: u8, labels: &Value) -> BTreeSet<ServiceKey> {
    let spec = json!({"registryRef": {"name": "main"}, "registryName": "echo", "service": {"name": "echo"}});
    shows_with(bench, name, day, labels, &spec)
}

fn shows_with(bench: &Bench, name: &str, day: u8, labels: &Value, spec: &Value) -> BTreeSet<ServiceKey> {
    let object = json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-of-{name}"), "generation": 1,
            "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z"), "labels": labels},
        "spec": spec,
    });
    bench.api.put(&format!("/apis/twinspan.dev/v1alpha1/namespaces/shop/registeredservices/{name}"), object.clone());
    let stored: Stored<RegisteredService> = serde_json::from_value(object).unwrap();
    let events = Watched::put(&mut bench.controller.views.cluster(), key(name), stored).into_iter();
    let passes = events.filter_map(|event| match event {
        ClusterEvent::RegisteredService(key) => Some(key),
        _ => None,
    });
    passes.collect()
}

fn discovered(bench: &Bench) {
    shows(bench, "found", 1, &json!({"twinspan.dev/discovered-by": "registry-uid"}));
}

fn hand_written(bench: &Bench) -> BTreeSet<ServiceKey> {
    shows(bench, "written", 9, &json!({}))
}

/// The watch shows that it is gone.
fn goes(bench: &Bench, name: &str) {
    let _: Vec<ClusterEvent> =
        <Stored<RegisteredService> as Watched>::remove(&mut bench.controller.views.cluster(), &key(name));
}

async fn pass(bench: &Bench, name: &str) {
    bench.controller.clone().reconcile(key(name), bench.controller.views.env.now()).await;
    settle().await;
}

/// A discovered one has a record and an endpoint.
async fn found() -> Bench {
    let mut bench = bench(&["main"]).await;
    bench.unregister();
    discovered(&bench);
    bench.ready(&["10.0.0.1"]);
    bench.server_registers(&format!("{SERVER}:9000")).await;
    pass(&bench, "found").await;
    assert_eq!((writer(&bench), importers(&bench)), ("c1/shop/found".to_owned(), vec!["found".to_owned()]));
    bench
}

fn record(bench: &Bench) -> RawRecord {
    bench.etcd().records().get(RECORD).cloned().expect("the record never goes")
}

fn writer(bench: &Bench) -> String {
    let value: Value = serde_json::from_slice(&record(bench).value).unwrap();
    value["tags"]["twinspan.dev/owner"].as_str().unwrap().to_owned()
}

/// The RegisteredServices in whose slices the endpoint is: never none.
fn importers(bench: &Bench) -> Vec<String> {
    let keepers = keepers(bench);
    assert!(!keepers.is_empty(), "the endpoint never goes");
    keepers
}

fn keepers(bench: &Bench) -> Vec<String> {
    let view = bench.controller.views.cluster();
    let slices = view.slices.of_service(&key("echo")).into_iter().filter(|slice| slice.is_ours() && !slice.deleting);
    let has = |ip: std::net::IpAddr| ip.to_string() == SERVER;
    let holding = slices.filter(|slice| slice.endpoints.iter().any(|e| e.address.ip().is_some_and(has)));
    let mut keepers: Vec<String> = holding.filter_map(|slice| slice.keeper.clone()).collect();
    keepers.sort();
    keepers
}

#[tokio::test(start_paused = true)]
async fn a_hand_written_one_takes_over_from_an_older_discovered_one_in_one_update() {
    for order in [["found", "written"], ["written", "found"]] {
        let bench = found().await;
        let before = (bench.etcd().revision(), record(&bench));
        assert_eq!(hand_written(&bench), ["found", "written"].map(key).into(), "both are planned anew");
        for name in order {
            pass(&bench, name).await;
            importers(&bench);
            record(&bench);
        }
        assert_eq!(writer(&bench), "c1/shop/written");
        assert_eq!(bench.etcd().revision(), before.0 + 1, "one update");
        assert_eq!(record(&bench).lease, before.1.lease);
        pass(&bench, "found").await;
        assert_eq!(importers(&bench), ["written"]);
        // Nothing follows when the other one goes.
        let (revision, writes) = (bench.etcd().revision(), bench.api.take("/endpointslices").len());
        assert!((2..=4).contains(&writes), "{writes} writes of slices");
        goes(&bench, "found");
        for name in ["found", "written"] {
            pass(&bench, name).await;
        }
        assert_eq!((bench.etcd().revision(), bench.api.take("/endpointslices").len()), (revision, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_discovered_one_leaves_behind_before_it_has_handed_over_waits_for_the_hand_written_one() {
    let bench = found().await;
    let revision = bench.etcd().revision();
    hand_written(&bench);
    goes(&bench, "found");
    bench.api.take("/endpointslices");
    pass(&bench, "found").await;
    assert_eq!((writer(&bench), importers(&bench)), ("c1/shop/found".to_owned(), vec!["found".to_owned()]));
    assert_eq!(bench.api.take("/endpointslices").len(), 0, "its slice waits too");
    pass(&bench, "written").await;
    assert_eq!(writer(&bench), "c1/shop/written");
    assert_eq!(importers(&bench), ["found", "written"]);
    bench.after(Duration::from_secs(1)).await;
    pass(&bench, "found").await;
    assert_eq!((bench.etcd().revision(), importers(&bench)), (revision + 1, vec!["written".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn one_whose_label_a_person_removes_is_weighed_as_hand_written_at_once() {
    let bench = found().await;
    hand_written(&bench);
    for name in ["written", "found"] {
        pass(&bench, name).await;
    }
    assert_eq!((writer(&bench), importers(&bench)), ("c1/shop/written".to_owned(), vec!["written".to_owned()]));
    let revision = bench.etcd().revision();
    // Nothing but the label changes.
    assert_eq!(shows(&bench, "found", 1, &json!({})), ["found", "written"].map(key).into());
    for name in ["written", "found", "written"] {
        pass(&bench, name).await;
        importers(&bench);
    }
    assert_eq!((writer(&bench), importers(&bench)), ("c1/shop/found".to_owned(), vec!["found".to_owned()]));
    assert_eq!(bench.etcd().revision(), revision + 1);
}

#[tokio::test(start_paused = true)]
async fn a_discovered_one_waits_behind_a_hand_written_one_that_is_there_before() {
    let mut bench = bench(&["main"]).await;
    bench.unregister();
    hand_written(&bench);
    bench.ready(&["10.0.0.1"]);
    bench.server_registers(&format!("{SERVER}:9000")).await;
    pass(&bench, "written").await;
    let revision = bench.etcd().revision();
    bench.api.take("/endpointslices");
    discovered(&bench);
    for name in ["found", "written"] {
        pass(&bench, name).await;
    }
    assert_eq!((bench.etcd().revision(), bench.api.take("/endpointslices").len()), (revision, 0));
    // The hand-written one goes: its record changes hands, and its endpoint waits.
    goes(&bench, "written");
    pass(&bench, "written").await;
    assert_eq!((writer(&bench), importers(&bench)), ("c1/shop/written".to_owned(), vec!["written".to_owned()]));
    pass(&bench, "found").await;
    pass(&bench, "written").await;
    assert_eq!((writer(&bench), importers(&bench)), ("c1/shop/found".to_owned(), vec!["found".to_owned()]));
    assert_eq!(bench.etcd().revision(), revision + 1);
}

/// Garbage collection takes a Service with its owner.
#[tokio::test(start_paused = true)]
async fn a_service_that_was_created_for_a_discovered_one_becomes_that_of_the_hand_written_one() {
    let bench = bench(&["main"]).await;
    bench.unregister();
    bench.remove_service();
    let spec = |port: &str| {
        let service = json!({"name": "echo", "create": "Headless", "ports": [{"name": port, "number": 80}]});
        json!({"registryRef": {"name": "main"}, "registryName": "echo", "service": service, "direction": "Import"})
    };
    shows_with(&bench, "found", 1, &json!({"twinspan.dev/discovered-by": ""}), &spec("rpc"));
    pass(&bench, "found").await;
    assert_eq!(bench.api.take(SERVICES).len(), 1);
    let created = |owner: &str| {
        let owner = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": owner,
            "uid": format!("uid-of-{owner}"), "controller": true});
        json!({"metadata": {"name": "echo", "namespace": "shop", "uid": "service-uid", "ownerReferences": [owner]},
            "spec": {"clusterIP": "None", "ipFamilies": ["IPv4"], "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}]}})
    };
    bench.put_service(&created("found"));
    bench.api.put(&format!("{SERVICES}/echo"), created("found"));
    for (port, adopted) in [("rpc", 1), ("grpc", 2)] {
        shows_with(&bench, "written", 9, &json!({}), &spec(port));
        for name in ["found", "written"] {
            pass(&bench, name).await;
        }
        let written = bench.api.take(SERVICES);
        assert_eq!(written.len(), adopted, "{written:?}");
        assert!(written.iter().all(|write| write.method == "PATCH" && write.body["metadata"]["uid"] == "service-uid"));
        assert_eq!(written.last().unwrap().body["metadata"]["ownerReferences"][0]["uid"], "uid-of-written");
    }
    // Then it stays as it is, whatever becomes of the former owner.
    bench.put_service(&created("written"));
    shows_with(&bench, "written", 9, &json!({}), &spec("rpc"));
    for name in ["found", "written"] {
        pass(&bench, name).await;
    }
    goes(&bench, "found");
    pass(&bench, "found").await;
    assert_eq!(bench.api.take(SERVICES).len(), 0);
    // A discovered one takes over from nobody.
    shows_with(&bench, "found", 1, &json!({"twinspan.dev/discovered-by": ""}), &spec("rpc"));
    pass(&bench, "found").await;
    assert_eq!(bench.api.take(SERVICES).len(), 0);
}

/// A name that a stranger registered reaches into no Service that somebody made.
#[tokio::test(start_paused = true)]
async fn a_discovered_import_keeps_out_of_a_service_of_others() {
    let bench = bench(&["main"]).await;
    bench.unregister();
    bench.server_registers(&format!("{SERVER}:9000")).await;
    let service = json!({"name": "echo", "create": "Headless", "ports": [{"name": "rpc", "number": 80}]});
    let spec =
        json!({"registryRef": {"name": "main"}, "registryName": "echo", "service": service, "direction": "Import"});
    let of = |owners: Value| {
        json!({"metadata": {"name": "echo", "namespace": "shop", "uid": "service-uid", "ownerReferences": owners},
            "spec": {"clusterIP": "None", "ipFamilies": ["IPv4"], "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}]}})
    };
    let own = json!([{"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "found",
        "uid": "uid-of-found", "controller": true}]);
    let accepted = || {
        let path = "/apis/twinspan.dev/v1alpha1/namespaces/shop/registeredservices/found";
        let object = bench.api.object(path).unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap();
        conditions.iter().find(|condition| condition["type"] == "Accepted").unwrap()["reason"].clone()
    };
    let label = json!({"twinspan.dev/discovered-by": "registry-uid"});
    // The team's own Service takes the place of the one that was created for the name.
    for (owners, importer, reason) in [
        (own.clone(), vec!["found".to_owned()], "Accepted"),
        (json!([]), vec![], "NameTaken"),
        (own, vec!["found".to_owned()], "Accepted"),
    ] {
        bench.put_service(&of(owners));
        shows_with(&bench, "found", 1, &label, &spec);
        pass(&bench, "found").await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!((keepers(&bench), accepted()), (importer, json!(reason)));
    }
    // Without the label it is the team's choice.
    bench.put_service(&of(json!([])));
    shows_with(&bench, "found", 1, &json!({}), &spec);
    pass(&bench, "found").await;
    assert_eq!(keepers(&bench), ["found"]);
    assert!(bench.api.take(SERVICES).is_empty(), "a Service of others is never changed");
}

/// The release team-a, with these namespaces in namespaced mode.
fn of_release(bench: &Bench, namespaces: &[&str]) {
    let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    let limits = Limits { namespaces, cluster_id: "c1".into(), ..Limits::default() };
    let mut view = bench.controller.views.cluster();
    view.set_reach(Reach { release: Some("team-a".into()), limits: Some(limits), ..Reach::default() });
    for kind in Kind::ALL {
        for part in view.reach().parts(kind) {
            view.watching.set_listed(kind, &part);
        }
    }
}

/// The watch shows another ServiceRegistry than before.
fn changes_registry(bench: &Bench, name: &str, change: impl FnOnce(&mut ServiceRegistry)) {
    let mut view = bench.controller.views.cluster();
    change(Arc::make_mut(view.service_registries.get_mut(name).unwrap()));
}

fn held_by(bench: &Bench, name: &str, holder: &str) {
    let status = ServiceRegistryStatus { holder: Some(holder.to_owned()), ..ServiceRegistryStatus::default() };
    changes_registry(bench, name, |object| object.status = Some(status));
}

/// `shop/echo` has a record and a slice in `main`, which this release holds; another one holds `other`.
async fn exported_by_team_a() -> Bench {
    let mut bench = bench(&["main", "other"]).await;
    of_release(&bench, &["shop"]);
    held_by(&bench, "main", "team-a");
    held_by(&bench, "other", "team-b");
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    assert!(bench.keys("main").contains(&RECORD.to_owned()));
    bench.api.take(SLICES);
    bench
}

#[tokio::test(start_paused = true)]
async fn one_that_moves_to_a_registry_of_another_release_is_withdrawn_and_its_slices_stay() {
    let bench = exported_by_team_a().await;
    bench.register(&json!({"registryRef": {"name": "other"}}));
    assert_eq!(bench.pass().await.action, Action::Forget);
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"]);
    assert!(bench.keys("other").is_empty());
    assert_eq!(bench.api.take(SLICES), []);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_precedes_the_end_of_a_session_withdraws_nothing_that_is_handed_over() {
    let bench = exported_by_team_a().await;
    held_by(&bench, "main", "team-b");
    bench.pass().await;
    assert_eq!(bench.keys("main"), [RECORD, "p/echo/192.0.2.7:9000"]);
    assert_eq!(bench.api.take(SLICES), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_exported_for_a_namespace_that_is_not_looked_at_any_more_stays_until_a_person_lets_it_go() {
    let bench = exported_by_team_a().await;
    let bench = bench.restarted(0).await;
    of_release(&bench, &["pay"]);
    held_by(&bench, "main", "team-a");
    {
        let mut view = bench.controller.views.cluster();
        <Stored<RegisteredService> as Watched>::remove(&mut view, &key("echo"));
    }
    bench.pass().await;
    assert_eq!(bench.keys("main"), [RECORD, "p/echo/192.0.2.7:9000"]);
    let lets_go = [(APPROVE_WITHDRAWAL.to_owned(), "other, shop".to_owned())];
    changes_registry(&bench, "main", |object| object.metadata.annotations = Some(lets_go.into()));
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_listed_or_silent_keeps_no_other_waiting() {
    let mut bench = bench(&["main"]).await;
    of_release(&bench, &["shop", "pay"]);
    let now = bench.controller.views.env.now();
    {
        let mut view = bench.controller.views.cluster();
        let reach = view.reach().clone();
        view.set_reach(reach);
        for kind in Kind::ALL {
            for part in view.reach().parts(kind).into_iter().filter(|part| part != "pay") {
                view.watching.set_listed(kind, &part);
                view.watching.heard(kind, &part, now);
                view.watching.heard(kind, "pay", now - jiff::SignedDuration::from_secs(100));
            }
        }
    }
    held_by(&bench, "main", "team-a");
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    bench.pass().await;
    assert_eq!(bench.keys("main"), [RECORD, "p/echo/10.0.0.2:80"]);
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    assert_eq!(bench.keys("main"), [RECORD]);
    bench.controller.views.cluster().watching.heard(Kind::Pod, "shop", now - jiff::SignedDuration::from_secs(100));
    bench.ready(&["10.0.0.3"]);
    bench.pass().await;
    assert_eq!(bench.keys("main"), [RECORD, "p/echo/10.0.0.3:80"], "its own silence counts");
}
