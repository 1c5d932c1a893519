//! The word of whole passes about readiness gates.
//!
//! Owns a gated pod behind the Service of the bench. Refuses to open gates.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use twinspan_core::model::{ObjectKey, PodView};
use twinspan_core::plan::gate::{Passed, Verdict};

use super::bench::{Bench, bench, key};
use crate::cluster::kinds::Watched;
use crate::controllers::gates::book::Gates;

const KEY: &str = "p/echo/10.0.0.1:80";

async fn gated() -> Bench {
    let mut bench = bench(&["main"]).await;
    bench.controller.views.gates = Gates::on();
    show_pod(&bench, "True");
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "echo-abc", "namespace": "shop", "resourceVersion": "7",
            "labels": {"kubernetes.io/service-name": "echo",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "addressType": "IPv4", "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": false},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "a", "uid": "uid-of-a"}}],
    }))
    .unwrap();
    Watched::put(&mut bench.controller.views.cluster(), ObjectKey::new("shop", "echo-abc"), slice);
    bench
}

fn show_pod(bench: &Bench, containers: &str) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "a", "namespace": "shop", "uid": "uid-of-a", "resourceVersion": "1", "labels": {"app": "echo"}},
        "spec": {"containers": [], "readinessGates": [{"conditionType": "twinspan.dev/registered"}]},
        "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "ContainersReady", "status": containers}]},
    }))
    .unwrap();
    Watched::put(&mut bench.controller.views.cluster(), ObjectKey::new("shop", "a"), pod);
}

fn pod(bench: &Bench) -> PodView {
    let view = bench.controller.views.cluster();
    let found = view.pods.waiting(&ObjectKey::new("shop", "a"));
    (**found.unwrap().0).clone()
}

fn about(bench: &Bench) -> Option<Verdict> {
    bench.controller.views.gates.about(&key(), Some("uid-1"), Some(1), &pod(bench))
}

async fn verdict(bench: &Bench, spec: Value) -> Option<Verdict> {
    bench.register(&spec);
    bench.pass().await;
    about(bench)
}

fn passes(why: Passed) -> Option<Verdict> {
    Some(Verdict::Pass(why))
}

#[tokio::test(start_paused = true)]
async fn a_pass_exports_a_gated_pod_and_says_so() {
    let bench = gated().await;
    assert_eq!(about(&bench), None, "no pass");
    bench.pass().await;
    assert_eq!((bench.keys("main"), about(&bench)), (vec![KEY.to_owned()], passes(Passed::Registered)));
    let counts = bench.status().instances;
    assert_eq!((counts.cluster, counts.exported), (0, 1), "it is not ready");
    show_pod(&bench, "False");
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), about(&bench)), (0, Some(Verdict::Wait)));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_is_waited_for() {
    let bench = gated().await;
    bench.etcd().forbid_writes(&["p/"]);
    bench.pass().await;
    assert_eq!(about(&bench), Some(Verdict::Wait));
    bench.etcd().forbid_writes(&[]);
    bench.pass().await;
    assert_eq!(about(&bench), passes(Passed::Registered));
}

#[tokio::test(start_paused = true)]
async fn no_pod_waits_for_one_that_writes_no_record_of_it() {
    let bench = gated().await;
    let with = |extra: Value| {
        let mut spec = json!({"registryRef": {"name": "main"}});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    };
    for (extra, why, records) in [
        (json!({"suspend": true}), Passed::Suspended, 0),
        (json!({"policy": "Observe"}), Passed::Observed, 0),
        (json!({"direction": "Import"}), Passed::ImportOnly, 0),
        (json!({"export": {"address": "LoadBalancer"}}), Passed::AddressNotPod, 0),
        (json!({"service": {"ports": [{"name": "no-such"}]}}), Passed::NotAccepted, 0),
        // The former registry goes on meanwhile.
        (json!({"registryRef": {"name": "nowhere"}}), Passed::NotAccepted, 1),
    ] {
        assert_eq!(verdict(&bench, with(extra)).await, passes(why));
        assert_eq!(bench.keys("main").len(), records, "{why}");
    }
    bench.server_registers("10.0.0.1:80").await;
    assert_eq!(verdict(&bench, with(json!({}))).await, passes(Passed::SelfRegistered));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_gone_says_nothing() {
    let bench = gated().await;
    bench.pass().await;
    bench.unregister();
    bench.pass().await;
    assert_eq!(about(&bench), None);
}

#[tokio::test(start_paused = true)]
async fn while_the_registry_is_away_a_pod_waits() {
    let bench = gated().await;
    bench.replace_by_one_without_a_session("main");
    bench.pass().await;
    assert_eq!(about(&bench), Some(Verdict::Wait));
}
