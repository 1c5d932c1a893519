use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use twinspan_core::model::ServiceKey;

use super::queue;
use super::registered_service::{self, Checkpoints};
use super::service_registry::bench::{Bench, bench, etcd, registry};
use crate::api::RegisteredService;
use crate::api::conditions::find;
use crate::cluster::view::ClusterEvent;
use crate::env::Env;
use crate::registry::testing::Faults;

const SERVICES: usize = 2000;

fn key(n: usize) -> ServiceKey {
    ServiceKey::new("shop", format!("s{n:04}"))
}

/// Everybody refers to `main`, and is reconciled by the queue.
async fn fill(bench: &mut Bench) {
    for n in 0..SERVICES {
        let name = key(n).name;
        let service = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("service-{n}")},
            "spec": {"clusterIP": "None", "selector": {"app": name}, "ipFamilies": ["IPv4"],
                "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}]},
        });
        let service = crate::cluster::convert::service(&serde_json::from_value(service).unwrap());
        let object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{n}"), "generation": 1},
            "spec": {"registryRef": {"name": "main"}},
        });
        bench
            .api
            .put(&format!("/apis/twinspan.dev/v1alpha1/namespaces/shop/registeredservices/{name}"), object.clone());
        let object: RegisteredService = serde_json::from_value(object).unwrap();
        let mut view = bench.views.cluster();
        view.services.put(key(n), service);
        view.index.put(&key(n), &object);
        view.registered_services.insert(key(n), Arc::new(object));
    }
    let namespace = json!({"metadata": {"name": "shop", "uid": "shop-uid"}});
    let namespace = crate::cluster::convert::namespace(&serde_json::from_value(namespace).unwrap());
    bench.views.cluster().namespaces.insert("shop".into(), Arc::new(namespace));
    let (views, writers) = (bench.views.clone(), bench.writers.clone());
    let controller = registered_service::Controller { views, writers, checkpoints: Checkpoints::default() };
    let queue = std::mem::replace(&mut bench.queue, queue::new(Env::real()).1);
    let pass = move |key, triggered| controller.clone().reconcile(key, triggered);
    tokio::spawn(queue.run(pass, bench.stop.clone()));
    let open = json!({"spec": {"allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]}});
    bench.put(registry("main", 1, &open)).await;
    bench.cluster_shows(ClusterEvent::Name { registry: "main".into(), name: "echo".into() }).await;
}

fn passes(bench: &Bench) -> usize {
    let text = bench.writers.metrics.print().unwrap();
    let counts = text.lines().filter_map(|line| line.strip_prefix("twinspan_reconcile_total{")?.split_once(' '));
    counts.map(|(_, count)| count.parse::<usize>().unwrap()).sum()
}

/// The RegisteredServices whose status says this of their export.
fn say(bench: &Bench, reason: &str) -> usize {
    let view = bench.views.cluster();
    let says = |n: &usize| {
        let status = view.registered_services[&key(*n)].status.as_ref();
        status.and_then(|status| find(&status.conditions, "Exported")).is_some_and(|c| c.reason == reason)
    };
    (0..SERVICES).filter(says).count()
}

async fn until_all_say(bench: &Bench, reason: &str) -> Duration {
    let start = Instant::now();
    while say(bench, reason) < SERVICES {
        assert!(start.elapsed() < Duration::from_secs(300), "{} of {SERVICES} say {reason}", say(bench, reason));
        bench.after(Duration::from_secs(1)).await;
    }
    start.elapsed()
}

/// N statuses that wait cost N map entries, and no pass.
#[tokio::test(start_paused = true)]
async fn an_outage_of_etcd_costs_each_service_a_few_passes_and_the_registry_is_told_first() {
    let mut bench = bench();
    fill(&mut bench).await;
    until_all_say(&bench, "Synced").await;
    bench.after(Duration::from_secs(60)).await;
    for (faults, exported, connected) in [
        (Faults { away: true, ..Faults::default() }, "RegistryUnavailable", "False Unreachable"),
        (Faults::default(), "Synced", "True Connected"),
    ] {
        let before = passes(&bench);
        etcd("http://main:2379").set_faults(faults);
        etcd("http://main:2379").cut();
        let changed = Instant::now();
        while bench.conditions("main")[1] != connected {
            assert!(changed.elapsed() < Duration::from_secs(60), "{:?}", bench.conditions("main"));
            bench.after(Duration::from_millis(100)).await;
        }
        let told_after = changed.elapsed();
        let all = until_all_say(&bench, exported).await;
        let cost = passes(&bench) - before;
        assert!(cost <= 3 * SERVICES, "{cost} passes for {SERVICES}, {exported} after {all:?}");
        // The session finds out by itself, which takes a few seconds of these.
        assert!(told_after <= Duration::from_secs(40), "{told_after:?}");
        assert!(all >= Duration::from_secs(60), "20 a second: {all:?}");
    }
}
