//! RegisteredServices and ServiceRegistries that are gone, alone and with many others.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use twinspan_core::Timestamp;
use twinspan_core::model::{LeaseId, ObjectKey, ServiceKey};
use twinspan_core::plan::departure::held::Hold;

use super::bench::{Bench, SLICES, STATUS_PACE, bench, settle};
use crate::api::RegisteredService;
use crate::cluster::kinds::Watched;
use crate::controllers::queue::{Action, Finished};
use crate::registry::sessions::Draining;

const QUIET: Duration = Duration::from_secs(10);

fn owner(n: usize) -> ServiceKey {
    ServiceKey::new("shop", format!("s-{n:02}"))
}

fn ip(n: usize) -> String {
    format!("10.0.1.{n}")
}

/// Own records of this many RegisteredServices, each of one ready pod. Only those from `gone` on exist.
async fn exported(services: usize, gone: usize) -> Bench {
    let mut bench = bench(&["main"]).await;
    let ips: Vec<String> = (0..services).map(ip).collect();
    bench.ready(&ips.iter().map(String::as_str).collect::<Vec<_>>());
    for (n, ip) in ips.iter().enumerate() {
        let tags = json!({"twinspan.dev/owner": format!("c1/{}", owner(n))});
        let value = json!({"network": "tcp", "address": format!("{ip}:80"), "weight": 10, "tags": tags});
        bench.etcd().put(&format!("p/s-{n:02}/{ip}:80"), &value.to_string(), LeaseId::NONE);
    }
    for n in gone..services {
        exists(&bench, n);
    }
    settle().await;
    bench
}

fn exists(bench: &Bench, n: usize) {
    let object: RegisteredService = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": {"name": owner(n).name, "namespace": "shop", "uid": format!("uid-of-{n}"), "generation": 1},
        "spec": {"registryRef": {"name": "main"}, "service": {"name": "echo"}, "suspend": true},
    }))
    .unwrap();
    let mut view = bench.controller.views.cluster();
    view.index.put(&owner(n), &object);
    view.registered_services.insert(owner(n), object.into());
}

async fn pass(bench: &Bench, n: usize) -> Finished {
    let finished = bench.controller.clone().reconcile(owner(n), bench.controller.views.env.now()).await;
    settle().await;
    finished
}

/// A pass over the first ones. Returns the records of all that are left.
async fn passes(bench: &Bench, services: usize) -> usize {
    for n in 0..services {
        pass(bench, n).await;
    }
    bench.keys("main").len()
}

fn hold(bench: &Bench) -> Option<(usize, usize, String)> {
    let views = &bench.controller.views;
    views.guards.held("main", &views.env).map(|held| (held.deletions, held.gone, held.hash))
}

#[tokio::test(start_paused = true)]
async fn many_that_are_gone_leave_the_records_of_ready_endpoints_behind_for_a_hold() {
    let mut bench = exported(20, 14).await;
    assert_eq!(passes(&bench, 14).await, 20);
    let (deletions, gone, _) = hold(&bench).expect("a hold");
    assert_eq!((deletions, gone), (14, 14));
    assert_eq!(bench.metric("twinspan_held_deletions"), "14");
    // The next pass knows how long it waits.
    let Action::RequeueAfter(wait) = pass(&bench, 0).await.action else { panic!("it forgets what it holds") };
    assert!(wait > Duration::from_secs(200), "{wait:?}");
    bench.after(QUIET * 3).await;
    assert_eq!(passes(&bench, 14).await, 20);
    // A pod that ends does not wait.
    let ips: Vec<String> = (1..20).map(ip).collect();
    bench.ready(&ips.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(passes(&bench, 1).await, 19);
    // The ones that come back have nothing to wait for, and the others still wait.
    (1..6).for_each(|n| exists(&bench, n));
    assert_eq!(passes(&bench, 14).await, 19);
    assert_eq!(hold(&bench).map(|(deletions, ..)| deletions), Some(8));
    bench.after(Duration::from_secs(300)).await;
    passes(&bench, 14).await;
    assert_eq!(passes(&bench, 14).await, 11, "a hold ends");
    assert_eq!(hold(&bench), None);
    assert_eq!(bench.metric("twinspan_held_deletions"), "0");
    assert_eq!(pass(&bench, 13).await.action, Action::Forget);
}

/// The endpoints of the Service are pods that only their readiness gate keeps from being ready, or that are not ready
/// for another reason.
fn gated(bench: &Bench, ips: &[String], containers: &str) {
    let endpoint = |ip: &String| {
        json!({"addresses": [ip], "conditions": {"ready": false, "serving": false},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": ip, "uid": ip}})
    };
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "echo-abc", "namespace": "shop", "resourceVersion": format!("gated-{containers}"),
            "labels": {"kubernetes.io/service-name": "echo",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "addressType": "IPv4", "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}],
        "endpoints": ips.iter().map(endpoint).collect::<Vec<_>>(),
    }))
    .unwrap();
    let mut view = bench.controller.views.cluster();
    Watched::put(&mut view, ObjectKey::new("shop", "echo-abc"), slice);
    for ip in ips {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": ip, "namespace": "shop", "uid": ip, "resourceVersion": "1"},
            "spec": {"containers": [], "readinessGates": [{"conditionType": "twinspan.dev/registered"}]},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "ContainersReady", "status": containers}]},
        }))
        .unwrap();
        Watched::put(&mut view, ObjectKey::new("shop", ip), pod);
    }
}

#[tokio::test(start_paused = true)]
async fn records_of_pods_that_wait_for_their_gate_are_held_like_those_of_ready_ones() {
    let ips: Vec<String> = (0..20).map(ip).collect();
    for (containers, left, held) in [("True", 20, Some(14)), ("False", 6, None)] {
        let bench = exported(20, 14).await;
        gated(&bench, &ips, containers);
        assert_eq!(passes(&bench, 14).await, left, "containers are ready: {containers}");
        assert_eq!(hold(&bench).map(|(deletions, ..)| deletions), held, "containers are ready: {containers}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_wait_for_a_finalizer_are_gone_too() {
    let bench = exported(30, 0).await;
    for n in 0..10 {
        let mut view = bench.controller.views.cluster();
        let object = Arc::make_mut(view.registered_services.get_mut(&owner(n)).unwrap());
        object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    }
    assert_eq!(passes(&bench, 10).await, 30);
    let (deletions, gone, _) = hold(&bench).expect("a hold");
    assert_eq!((deletions, gone), (10, 10), "a third of them");
}

#[tokio::test(start_paused = true)]
async fn slices_of_one_of_many_that_is_gone_do_not_wait_for_its_records() {
    let bench = exported(20, 0).await;
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES).len(), 1);
    bench.unregister();
    bench.pass().await;
    let written = bench.api.take(SLICES);
    assert_eq!((written.len(), written[0].method.as_str()), (1, "DELETE"));
}

#[tokio::test(start_paused = true)]
async fn an_approval_on_the_registry_releases_what_many_left_behind() {
    let bench = exported(12, 12).await;
    passes(&bench, 12).await;
    // Another process finds the owners by their marks.
    let bench = bench.restarted(0).await;
    assert_eq!(passes(&bench, 12).await, 12);
    let (_, _, hash) = hold(&bench).expect("a hold");
    let views = &bench.controller.views;
    views.guards.approve("main", &hash, &views.env);
    assert_eq!(passes(&bench, 12).await, 0);
}

#[tokio::test(start_paused = true)]
async fn few_of_many_go_after_a_quiet_time_and_few_of_few_at_once() {
    let bench = exported(12, 3).await;
    assert_eq!(passes(&bench, 3).await, 12);
    assert_eq!(hold(&bench), None);
    bench.after(QUIET).await;
    assert_eq!(passes(&bench, 3).await, 9);
    let bench = exported(5, 5).await;
    assert_eq!(passes(&bench, 5).await, 0);
}

/// The ServiceRegistry is gone; its session is kept until then.
fn retired(bench: &Bench, kept: bool) {
    let views = &bench.controller.views;
    views.cluster().service_registries.remove("main");
    let running = views.registries.running().remove("main").unwrap();
    let ends = Timestamp::MAX;
    running.handle.kept.set(kept.then_some(Hold { since: views.env.now(), until: ends, ends }));
    views.registries.draining().push(Draining { running, adopted: CancellationToken::new() });
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_vanished_keeps_ready_endpoints_on_both_sides() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    bench.server_registers("192.0.2.1:9000").await;
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.keys("main").len(), 3);
    bench.api.take(SLICES);
    retired(&bench, true);
    bench.ready(&["10.0.0.2"]);
    bench.pass().await;
    assert_eq!(bench.condition("Accepted").0, "False RegistryNotFound");
    assert_eq!(bench.keys("main"), ["p/echo/10.0.0.2:80", "p/echo/192.0.2.1:9000"], "only an ended pod goes");
    assert!(bench.api.take(SLICES).is_empty(), "nothing is imported or removed");
    bench.controller.views.registries.draining()[0].running.handle.kept.set(None);
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.1:9000"]);
    assert_eq!(bench.api.take(SLICES).len(), 1);
}

/// An endpoint was imported, and then this process began, in one way or the other.
async fn begun_again(at_once: bool) -> Bench {
    let bench = bench(&["main"]).await;
    bench.server_registers("192.0.2.1:9000").await;
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.status().instances.imported, 1);
    if at_once { bench.restarted(0).await } else { bench.restarted_while_the_registries_were_away().await }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_may_be_a_dead_pods_waits_for_an_answer_in_the_next_process() {
    for at_once in [true, false] {
        let bench = begun_again(at_once).await;
        assert_eq!(
            bench.condition("Imported").0 == "True Synced",
            at_once,
            "the process told that it does not know yet"
        );
        // The server was a pod of the Service when it registered itself; no slice of ours has it.
        bench.server_registers("10.0.0.7:80").await;
        bench.api.take(SLICES);
        let Action::RequeueAfter(wait) = bench.pass().await.action else { panic!("it waits for the answer") };
        assert!(wait <= Duration::from_secs(3), "{wait:?}");
        assert!(bench.api.take(SLICES).is_empty());
        // Nobody answers in time: a firewall may be between them.
        bench.after(Duration::from_secs(3)).await;
        bench.pass().await;
        assert_eq!(bench.api.take(SLICES).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_changed_while_nobody_ran_is_no_accident_also_if_the_registry_is_away_at_first() {
    for at_once in [true, false] {
        let mut bench = bench(&["main"]).await;
        let ips: Vec<String> = (0..12).map(ip).collect();
        bench.ready(&ips.iter().map(String::as_str).collect::<Vec<_>>());
        bench.pass().await;
        bench.after(STATUS_PACE).await;
        assert_eq!(bench.keys("main").len(), 12);
        bench.register(&json!({"registryRef": {"name": "main"}, "export": {"weight": 5}}));
        bench.ready(&[]);
        {
            let mut view = bench.controller.views.cluster();
            let object = Arc::make_mut(view.registered_services.get_mut(&super::bench::key()).unwrap());
            object.metadata.generation = Some(2);
        }
        let bench =
            if at_once { bench.restarted(0).await } else { bench.restarted_while_the_registries_were_away().await };
        bench.pass().await;
        assert_eq!(bench.keys("main"), Vec::<String>::new(), "{:?}", bench.condition("DeletionsHeld"));
    }
}

/// A pass may come before the session learns that its ServiceRegistry is gone, perhaps with many other objects.
#[tokio::test(start_paused = true)]
async fn nothing_is_withdrawn_before_somebody_decided_about_a_registry_that_is_gone() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    bench.controller.views.cluster().service_registries.clear();
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/10.0.0.1:80"]);
    retired(&bench, false);
    bench.pass().await;
    assert!(bench.keys("main").is_empty(), "one of few goes at once");
}
