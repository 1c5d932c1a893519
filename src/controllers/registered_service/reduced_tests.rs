use serde_json::{Value, json};

use super::bench::{Bench, SLICES, STATUS_PACE, bench};

const SERVERS: [&str; 2] = ["192.0.2.7:9000", "192.0.2.8:9000"];

/// Two pods and two servers on VMs, on both sides.
async fn synced() -> Bench {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    for server in SERVERS {
        bench.server_registers(server).await;
    }
    bench.pass().await;
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES).len()), (4, 1));
    bench
}

fn addresses(body: &Value) -> Vec<&str> {
    body["endpoints"].as_array().unwrap().iter().filter_map(|e| e["addresses"][0].as_str()).collect()
}

/// Every pod is replaced and a VM leaves: what ended goes, and nothing comes.
async fn what_ended_goes(mut bench: Bench, port: &str, reason: &str) {
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES).len()), (4, 0), "all of them live: {reason}");
    assert_eq!(bench.condition("Accepted").0, format!("False {reason}"));
    let before = bench.etcd().revision();
    bench.pass().await;
    assert_eq!(bench.etcd().revision(), before, "nothing is written at rest");

    bench.ready_at(port, &["10.0.0.2", "10.0.0.3"]);
    bench.etcd().delete(&["p/echo/192.0.2.7:9000"]);
    bench.server_registers("192.0.2.9:9000").await;
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    let left = ["p/echo/10.0.0.2:80", "p/echo/192.0.2.8:9000", "p/echo/192.0.2.9:9000"];
    assert_eq!(bench.keys("main"), left, "{reason}");
    let slices = bench.api.take(SLICES);
    assert_eq!((slices.len(), slices[0].method.as_str()), (1, "PUT"), "{reason}");
    assert_eq!(addresses(&slices[0].body), ["192.0.2.8"], "{reason}");
    let counts = bench.status().instances;
    assert_eq!((counts.exported, counts.imported), (1, 1), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_gone_keeps_no_dead_instance() {
    let bench = synced().await;
    bench.put_service(&json!({
        "metadata": {"name": "echo", "namespace": "shop", "uid": "service-uid"},
        "spec": {"clusterIP": "None", "selector": {"app": "echo"}, "ipFamilies": ["IPv4"],
            "ports": [{"name": "grpc", "port": 80, "protocol": "TCP"}, {"name": "web", "port": 81, "protocol": "TCP"}]},
    }));
    what_ended_goes(bench, "grpc", "PortAmbiguous").await;
}

#[tokio::test(start_paused = true)]
async fn a_setting_that_the_format_cannot_carry_keeps_no_dead_instance() {
    let bench = synced().await;
    bench
        .register(&json!({"registryRef": {"name": "main"}, "service": {"ports": [{"name": "rpc", "scheme": "http"}]}}));
    what_ended_goes(bench, "rpc", "NotSupported").await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_spec_that_cannot_be_carried_out_changes_nothing() {
    let mut bench = synced().await;
    let ports = json!([{"name": "rpc", "scheme": "http"}]);
    bench.register(&json!({"registryRef": {"name": "main"}, "suspend": true, "service": {"ports": ports}}));
    bench.pass().await;
    bench.ready(&["10.0.0.3"]);
    bench.etcd().delete(&["p/echo/192.0.2.7:9000"]);
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES).len()), (3, 0));
}

/// A RegisteredService that cannot be decoded, with a replaced pod and a VM that left.
async fn unreadable(spec: &Value) -> (Vec<String>, Vec<Value>) {
    let mut bench = synced().await;
    bench.register_unreadable(spec);
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES).len()), (4, 0), "{spec}");
    bench.ready(&["10.0.0.2", "10.0.0.3"]);
    bench.etcd().delete(&["p/echo/192.0.2.7:9000"]);
    bench.pass().await;
    // Without a generation that was synced, the end of a pod is judged by the guard.
    bench.after(STATUS_PACE * 3).await;
    bench.pass().await;
    (bench.keys("main"), bench.api.take(SLICES).into_iter().map(|slice| slice.body).collect())
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_decoded_is_no_deleted_one() {
    for spec in [
        json!({"registryRef": {"name": "main"}, "direction": "Sideways"}),
        // Not even its place can be read.
        json!({"registryRef": "main"}),
    ] {
        let (keys, slices) = unreadable(&spec).await;
        assert_eq!(keys, ["p/echo/10.0.0.2:80", "p/echo/192.0.2.8:9000"], "{spec}");
        assert_eq!(slices.len(), 1, "{spec}: {slices:?}");
        assert_eq!(addresses(&slices[0]), ["192.0.2.8"], "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_beside_imports_stay_as_they_are_while_the_spec_cannot_be_read() {
    for spec in [
        json!({"registryRef": {"name": "main"}, "import": {"into": "Around"}}),
        // Not even its place can be read.
        json!({"registryRef": "main"}),
    ] {
        let mut bench = bench(&["main"]).await;
        bench.put_service(&json!({
            "metadata": {"name": "echo-all", "namespace": "shop", "uid": "all-uid"},
            "spec": {"clusterIP": "None", "ipFamilies": ["IPv4"],
                "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}]},
        }));
        bench.register(&json!({"registryRef": {"name": "main"}, "import": {"into": "Together"}}));
        bench.ready(&["10.0.0.1"]);
        bench.server_registers("192.0.2.7:80").await;
        bench.pass().await;
        bench.pass().await;
        let slices = bench.api.take(SLICES);
        let last = slices.last().map(|slice| addresses(&slice.body)).unwrap();
        assert_eq!(last, ["10.0.0.1", "192.0.2.7"], "{spec}");

        bench.register_unreadable(&spec);
        bench.ready(&["10.0.0.2"]);
        for _ in 0..3 {
            bench.after(STATUS_PACE).await;
            bench.pass().await;
        }
        let written: Vec<Value> = bench.api.take(SLICES).into_iter().map(|slice| slice.body).collect();
        assert!(written.is_empty(), "{spec}: {written:?}");
    }
}
