use std::time::Duration;

use serde_json::{Value, json};
use twinspan_core::model::ServiceKey;

use super::bench::{Bench, SERVICES, SLICES, STATUS_PACE, bench, key};
use crate::cluster::fake_api::Received;
use crate::cluster::view::ClusterEvent;
use crate::controllers::queue::{Action, PACE};

const POLICY: &str = "ValidatingAdmissionPolicy 'no-mcs' with binding 'no-mcs' denied request: not 22623";

fn addresses(body: &Value) -> Vec<&str> {
    body["endpoints"].as_array().unwrap().iter().filter_map(|e| e["addresses"][0].as_str()).collect()
}

/// Method, port and addresses of each write of a slice.
fn writes(bench: &Bench) -> Vec<String> {
    let write = |Received { method, body, .. }: Received| match method.as_str() {
        "DELETE" => "DELETE".to_owned(),
        method => format!("{method} {} {}", body["ports"][0]["port"], addresses(&body).join(" ")),
    };
    bench.api.take(SLICES).into_iter().map(write).collect()
}

#[tokio::test(start_paused = true)]
async fn a_port_that_a_policy_refuses_costs_no_other_port() {
    let bench = bench(&["main"]).await;
    bench.api.refuse_bodies(r#""port":22623"#, 422, POLICY);
    for server in ["192.0.2.1:22623", "192.0.2.7:9000", "192.0.2.8:30000"] {
        bench.server_registers(server).await;
    }
    let first = bench.pass().await.action;
    assert_eq!(first, Action::RequeueAfter(PACE), "the group is planned without what was refused");
    let mut written = writes(&bench);
    written.sort();
    assert_eq!(written, ["POST 22623 192.0.2.1", "POST 30000 192.0.2.8", "POST 9000 192.0.2.7"], "each group is tried");
    bench.after(STATUS_PACE - Duration::from_secs(2)).await;
    bench.pass().await;
    assert_eq!(writes(&bench), [""; 0], "it has its own backoff");
    assert_eq!(bench.metric(r#"twinspan_services{state="failed"}"#), "1", "and is refused meanwhile");
    bench.server_registers("192.0.2.9:9000").await;
    bench.etcd().delete(&["p/echo/192.0.2.8:30000"]);
    bench.after(Duration::from_millis(500)).await;
    bench.pass().await;
    let mut written = writes(&bench);
    written.sort();
    assert_eq!(written, ["DELETE", "PUT 9000 192.0.2.7 192.0.2.9"]);

    bench.after(STATUS_PACE).await;
    bench.pass().await;
    let status = bench.status();
    assert_eq!(
        (bench.differences()[0].instance.as_str(), bench.differences()[0].reason.as_str()),
        ("192.0.2.1:22623", "RefusedByCluster")
    );
    let words = bench.differences()[0].message.clone().unwrap();
    assert!(words.starts_with("a policy refuses to create EndpointSlice") && words.contains("no-mcs"), "{words}");
    assert_eq!((status.instances.imported, status.instances.skipped), (2, 1));
    let (imported, message) = bench.condition("Imported");
    assert_eq!(imported, "False RefusedByCluster");
    assert!(message.starts_with("port 22623 (IPv4): a policy refuses"), "{message}");

    bench.api.take(SLICES);
    bench.api.accept();
    bench.after(Duration::from_secs(20)).await;
    bench.pass().await;
    assert_eq!(writes(&bench), ["POST 22623 192.0.2.1"]);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.condition("Imported").0, "True Synced");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_gets_no_answer_costs_the_others_little() {
    let bench = bench(&["main"]).await;
    for server in ["192.0.2.1:9000", "192.0.2.2:9001", "192.0.2.3:9002"] {
        bench.server_registers(server).await;
    }
    bench.api.stall_next("/endpointslices", 2);
    assert_eq!(bench.pass().await.action, Action::Retry);
    assert_eq!(writes(&bench), [""; 0], "two without an answer are enough");
    assert_eq!(bench.condition("Imported").0, "False WriteFailed");
    bench.api.stall_next("/endpointslices", 1);
    bench.pass().await;
    assert_eq!(writes(&bench), ["POST 9002 192.0.2.3", "POST 9000 192.0.2.1"], "another one was the first");
    bench.pass().await;
    assert_eq!(writes(&bench), ["POST 9001 192.0.2.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_refused_is_tried_again_by_itself() {
    let bench = bench(&["main"]).await;
    for server in ["192.0.2.1:9000", "192.0.2.2:9001", "192.0.2.3:9002"] {
        bench.server_registers(server).await;
    }
    bench.pass().await;
    bench.api.take(SLICES);
    bench.api.refuse("endpointslices", 403);
    bench.etcd().delete(&["p/echo/192.0.2.1:9000"]);
    bench.after(Duration::from_millis(500)).await;
    bench.pass().await;
    bench.pass().await;
    // Whatever else has it looked at meanwhile.
    let Action::RequeueAfter(wait) = bench.pass().await.action else { panic!("it waits for the next attempt") };
    assert!(wait <= Duration::from_secs(5), "{wait:?}");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="cluster",op="delete",result="forbidden"}"#), "2");
    assert_eq!(bench.metric(r#"twinspan_services{state="failed"}"#), "1");
    assert_eq!(writes(&bench), ["DELETE", "DELETE"]);
    bench.api.accept();
    bench.after(wait).await;
    bench.pass().await;
    assert_eq!(writes(&bench), ["DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn removals_pass_where_an_addition_to_the_same_slice_is_refused() {
    let bench = bench(&["main"]).await;
    for server in ["192.0.2.6:9000", "192.0.2.7:9000", "192.0.2.8:9000"] {
        bench.server_registers(server).await;
    }
    bench.pass().await;
    bench.api.take(SLICES);
    bench.api.refuse_bodies("192.0.2.66", 403, "endpoint address 192.0.2.66 is not allowed");
    bench.server_registers("192.0.2.66:9000").await;
    bench.etcd().delete(&["p/echo/192.0.2.7:9000"]);
    bench.after(Duration::from_millis(500)).await;
    bench.pass().await;
    bench.pass().await;
    assert_eq!(writes(&bench), ["PUT 9000 192.0.2.6 192.0.2.8 192.0.2.66", "PUT 9000 192.0.2.6 192.0.2.8"]);
    bench.etcd().delete(&["p/echo/192.0.2.8:9000"]);
    bench.after(Duration::from_millis(500)).await;
    bench.pass().await;
    assert_eq!(writes(&bench), ["PUT 9000 192.0.2.6"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_a_quota_refuses_is_named_and_keeps_no_endpoint() {
    let bench = bench(&["main"]).await;
    for server in ["192.0.2.7:9000", "192.0.2.8:9000"] {
        bench.server_registers(server).await;
    }
    bench.pass().await;
    bench.api.take("");
    bench.remove_service();
    let ports = json!([{"name": "rpc", "number": 80}]);
    bench.register(&json!({"registryRef": {"name": "main"}, "service": {"create": "Headless", "ports": ports}}));
    let quota = "services \"echo\" is forbidden: exceeded quota: small, requested: count/services=1";
    bench.api.refuse_bodies(r#""clusterIP":"None""#, 403, quota);
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.pass().await.action, Action::Retry);
    for kind in ["Imported", "Exported", "Ready"] {
        let (state, message) = bench.condition(kind);
        assert_eq!(state, "False RefusedByCluster", "{kind}");
        assert!(message.contains("quota: small") && !message.contains("chart"), "{message}");
    }
    assert_eq!(writes(&bench), ["DELETE"], "a Service that is refused keeps no slice");
    bench.api.accept();
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.api.take(SERVICES).len(), 2);
    assert_eq!(bench.condition("Ready").0, "Unknown Pending");
}

/// The writes of slices that were told since the last call.
fn writes_told(bench: &mut Bench) -> Vec<ClusterEvent> {
    let told = std::iter::from_fn(|| bench.cluster_events.try_recv().ok());
    told.filter(|event| matches!(event, ClusterEvent::Wrote { .. })).collect()
}

#[tokio::test(start_paused = true)]
async fn a_written_slice_is_told_to_the_others_of_its_service() {
    let mut bench = bench(&["main"]).await;
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    let told = ClusterEvent::Wrote { services: vec![key()], by: key() };
    assert_eq!(writes_told(&mut bench), std::slice::from_ref(&told));
    bench.etcd().delete(&["p/echo/192.0.2.7:9000"]);
    bench.after(Duration::from_secs(40)).await;
    bench.pass().await;
    assert_eq!(writes_told(&mut bench), [told], "a deletion too");
    assert_eq!(key(), ServiceKey::new("shop", "echo"));
}

/// One server, imported; returns the name of the slice.
async fn one_slice(bench: &Bench) -> String {
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    bench.api.take(SLICES)[0].body["metadata"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_vanished_under_its_replacement_is_a_lost_race() {
    let bench = bench(&["main"]).await;
    one_slice(&bench).await;
    bench.api.refuse("endpointslices", 404);
    bench.server_registers("192.0.2.8:9000").await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.pass().await.action, Action::Retry);
    assert_eq!(bench.condition("Imported").0, "True Synced");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="cluster",op="update",result="conflict"}"#), "1");
}

#[tokio::test(start_paused = true)]
async fn a_race_that_is_lost_again_and_again_is_told() {
    let bench = bench(&["main"]).await;
    one_slice(&bench).await;
    bench.server_registers("192.0.2.8:9000").await;
    bench.api.refuse("endpointslices", 409);
    for (n, expected) in ["True Synced", "True Synced", "False WriteFailed"].into_iter().enumerate() {
        bench.after(STATUS_PACE).await;
        bench.pass().await;
        assert_eq!(bench.condition("Imported").0, expected, "{n}");
    }
    assert!(bench.condition("Imported").1.starts_with("cannot replace EndpointSlice shop/echo-"));
    bench.api.accept();
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.condition("Imported").0, "True Synced");
}

#[tokio::test(start_paused = true)]
async fn what_others_put_onto_our_slice_stays() {
    let bench = bench(&["main"]).await;
    let name = one_slice(&bench).await;
    let path = format!("{SLICES}/{name}");
    let mut object = bench.api.object(&path).unwrap();
    object["metadata"]["resourceVersion"] = json!("500");
    object["metadata"]["finalizers"] = json!(["mesh.example/drain"]);
    object["metadata"]["labels"]["mesh.example/on"] = json!("yes");
    object["metadata"]["annotations"]["mesh.example/note"] = json!("x");
    let other = json!({"apiVersion": "example.org/v1", "kind": "Mesh", "name": "m", "uid": "m-uid"});
    object["metadata"]["ownerReferences"].as_array_mut().unwrap().push(other);
    object["metadata"]["managedFields"] = json!([
        {"manager": "twinspan", "operation": "Update", "apiVersion": "discovery.k8s.io/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:endpoints": {}, "f:metadata": {"f:labels": {"f:kubernetes.io/service-name": {}}}}},
        {"manager": "kubectl", "operation": "Update", "apiVersion": "discovery.k8s.io/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:mesh.example/on": {}, "f:kubernetes.io/service-name": {}}}}},
    ]);
    bench.api.put(&path, object);
    bench.show_slice(&name);
    bench.pass().await;
    assert_eq!(writes(&bench), [""; 0], "it is no reason to write");

    bench.server_registers("192.0.2.8:9000").await;
    bench.after(Duration::from_millis(500)).await;
    bench.pass().await;
    let replaced = bench.api.take(SLICES)[0].body["metadata"].clone();
    assert_eq!(replaced["finalizers"], json!(["mesh.example/drain"]));
    assert_eq!(replaced["labels"]["mesh.example/on"], "yes");
    assert_eq!(replaced["annotations"]["mesh.example/note"], "x");
    let owners: Vec<&Value> = replaced["ownerReferences"].as_array().unwrap().iter().map(|o| &o["uid"]).collect();
    assert_eq!(owners, [&json!("uid-1"), &json!("m-uid")]);

    // The watch has not shown our write yet.
    bench.server_registers("192.0.2.9:9000").await;
    bench.after(Duration::from_millis(500)).await;
    bench.pass().await;
    let again = &bench.api.take(SLICES)[0].body["metadata"];
    assert_eq!(again["finalizers"], replaced["finalizers"]);
    assert_eq!(again["ownerReferences"], replaced["ownerReferences"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_hand_written_endpoints_go_is_imported() {
    let mut bench = bench(&["main"]).await;
    bench.register(&json!({"registryRef": {"name": "main"}, "direction": "Import"}));
    bench.server_registers("192.0.2.7:80").await;
    // The endpoints name no pod.
    bench.ready(&["192.0.2.7"]);
    bench.pass().await;
    assert_eq!(writes(&bench), [""; 0]);
    bench.ready(&[]);
    bench.pass().await;
    assert_eq!(writes(&bench), ["POST 80 192.0.2.7"]);
}

#[tokio::test(start_paused = true)]
async fn the_cluster_ip_of_a_service_is_not_imported() {
    let bench = bench(&["main"]).await;
    bench.controller.views.cluster().cluster_ips.insert("10.96.0.7".parse().unwrap());
    bench.server_registers("10.96.0.7:80").await;
    bench.pass().await;
    assert_eq!(writes(&bench), [""; 0]);
    assert_eq!(bench.differences()[0].reason, "ServiceAddress");
}
