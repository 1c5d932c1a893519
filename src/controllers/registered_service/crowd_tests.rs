use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use twinspan_core::model::ServiceKey;

use super::bench::{Bench, bench};
use super::crowd::{MOST, first};
use super::observe::OBSERVATIONS;
use crate::api::RegisteredService;
use crate::api::conditions::find;

fn key(n: usize) -> ServiceKey {
    ServiceKey::new("shop", format!("s{n:03}"))
}

/// So many RegisteredServices under the name `echo`, the first of them the oldest, each with a Service of its own.
fn fill(bench: &Bench, all: usize) {
    bench.unregister();
    for n in 0..all {
        let name = key(n).name;
        bench.put_service(&json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("service-{n}")},
            "spec": {"clusterIP": "None", "selector": {"app": name}, "ipFamilies": ["IPv4"],
                "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}]},
        }));
        let object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{n}"), "generation": 1,
                "creationTimestamp": format!("2025-01-01T{:02}:{:02}:00Z", n / 60, n % 60)},
            "spec": {"registryRef": {"name": "main"}, "registryName": "echo"},
        });
        bench
            .api
            .put(&format!("/apis/twinspan.dev/v1alpha1/namespaces/shop/registeredservices/{name}"), object.clone());
        let object: RegisteredService = serde_json::from_value(object).unwrap();
        let mut view = bench.controller.views.cluster();
        view.index.put(&key(n), &object);
        view.registered_services.insert(key(n), Arc::new(object));
    }
}

async fn passes(bench: &Bench, all: usize) {
    for n in 0..all {
        bench.controller.clone().reconcile(key(n), bench.controller.views.env.now()).await;
    }
}

/// The observations that one more record costs.
async fn work_of_a_change(all: usize) -> usize {
    let bench = bench(&["main"]).await;
    fill(&bench, all);
    bench.server_registers("192.0.2.1:9000").await;
    passes(&bench, all).await;
    let before = OBSERVATIONS.get();
    bench.server_registers("192.0.2.2:9000").await;
    passes(&bench, all).await;
    OBSERVATIONS.get() - before
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_name_costs_little_more_however_many_want_it() {
    let (some, many) = (work_of_a_change(40).await, work_of_a_change(160).await);
    assert!(many <= 2 * some, "{some} observations with 40, {many} with 160");
}

/// The reason of its condition Accepted, and the instances that it imports.
fn accepted(bench: &Bench, n: usize) -> (String, i64) {
    let view = bench.controller.views.cluster();
    let status = view.registered_services[&key(n)].status.clone().unwrap();
    let accepted = find(&status.conditions, "Accepted").unwrap();
    (accepted.reason.clone(), status.instances.imported)
}

#[tokio::test(start_paused = true)]
async fn the_first_share_a_name_and_the_others_are_told() {
    let bench = bench(&["main"]).await;
    fill(&bench, MOST + 2);
    bench.server_registers("192.0.2.1:9000").await;
    passes(&bench, MOST + 2).await;
    bench.after(Duration::from_secs(10)).await;
    assert_eq!(accepted(&bench, MOST - 1), ("Accepted".to_owned(), 1));
    for n in [MOST, MOST + 1] {
        assert_eq!(accepted(&bench, n), ("Conflict".to_owned(), 0));
    }

    // One goes, and the next has its place.
    {
        let mut view = bench.controller.views.cluster();
        view.index.remove(&key(0));
        view.registered_services.remove(&key(0));
    }
    passes(&bench, MOST + 2).await;
    bench.after(Duration::from_secs(10)).await;
    assert_eq!(accepted(&bench, MOST), ("Accepted".to_owned(), 1));
    assert_eq!(accepted(&bench, MOST + 1).0, "Conflict");
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_finalizer_does_not_count() {
    let bench = bench(&["main"]).await;
    fill(&bench, MOST + 2);
    {
        let mut view = bench.controller.views.cluster();
        let first = Arc::make_mut(view.registered_services.get_mut(&key(0)).unwrap());
        first.metadata.finalizers = Some(vec!["example.org/wait".to_owned()]);
        first.metadata.deletion_timestamp = Some(Time(bench.controller.views.env.now()));
        let first = first.clone();
        view.index.put(&key(0), &first);
    }
    bench.server_registers("192.0.2.1:9000").await;
    passes(&bench, MOST + 2).await;
    bench.after(Duration::from_secs(10)).await;
    assert_eq!(accepted(&bench, MOST), ("Accepted".to_owned(), 1), "it has the place of the first");
    assert_eq!(accepted(&bench, MOST + 1).0, "Conflict");
    let siblings = first(&bench.controller.views.cluster(), "main", b"echo");
    assert_eq!(siblings, (1..=MOST).map(key).collect());
}
