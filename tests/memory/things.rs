//! Records and objects of the cluster, each as its server or controller writes it.
//!
//! Owns the examples. Refuses to know how memory is counted.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use twinspan::api::{RegisteredService, Stored};
use twinspan::cluster::interest::AddressInterest;
use twinspan::cluster::kinds::Watched;
use twinspan::cluster::view::ClusterView;
use twinspan::registry::records::Affected;
use twinspan::registry::view::{Listing, RegistryView};
use twinspan::registry::{Change, ListResponse};
use twinspan_core::Timestamp;
use twinspan_core::codec::{Format, Layout, Range};
use twinspan_core::model::{LeaseId, ObjectKey, RawRecord, ServiceKey};
use twinspan_core::plan::RecordOp;

use crate::{MANY, blocks, bytes_each};

/// Each thing, and the bytes that one takes; and the allocations of one event.
pub fn all() -> Vec<(&'static str, f64)> {
    vec![
        ("a record of a Kitex server", bytes_each(|| view(MANY, |n| value(n, "null")))),
        ("a record of Twinspan, with one tag beside its owner's", bytes_each(|| view(MANY, |n| value(n, OWNED)))),
        ("an endpoint in a slice of Twinspan", bytes_each(|| objects(MANY / 100, our_slice))),
        ("an endpoint of a pod, with its node and zone", bytes_each(|| objects(MANY / 100, pods_slice))),
        ("a pod", bytes_each(|| objects(MANY, pod))),
        ("a Service", bytes_each(|| objects(MANY, service))),
        ("an address at which a RegisteredService looks", bytes_each(|| interest(MANY))),
        ("a RegisteredService", bytes_each(|| registered_services(MANY))),
        ("allocations: a new record enters the view", record_enters()),
        ("allocations: the answer to a write whose event came first", answer_after_its_event()),
    ]
}

const OWNED: &str = r#"{"env":"prod","twinspan.dev/owner":"bench/shop/echo"}"#;

fn address(n: usize) -> String {
    format!("10.{}.{}.{}", 128 + n / 62_500, n / 250 % 250, 1 + n % 250)
}

fn value(n: usize, tags: &str) -> String {
    format!(r#"{{"network":"tcp","address":"{}:8888","weight":10,"tags":{tags}}}"#, address(n))
}

fn record(n: usize, value: &str) -> RawRecord {
    let key = format!("kitex/registry-etcd/echo-{:04}/{}:8888", n / 10, address(n)).into();
    RawRecord { key, value: value.as_bytes().to_vec(), mod_revision: 7, lease: LeaseId(7) }
}

/// A view of so many records, ten to a service.
fn view(many: usize, value: impl Fn(usize) -> String) -> RegistryView {
    let layout = Layout::new(Format::Kitex, "kitex/registry-etcd");
    let records = (0..many).map(|n| record(n, &value(n))).collect();
    let mut view = RegistryView::new(layout.clone(), "bench", None);
    let list = ListResponse { cluster_id: 1, revision: 100, records };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let listing = runtime.block_on(Listing::decoded(&layout, list));
    drop(view.reset(&Range::Everything, listing, Timestamp::UNIX_EPOCH));
    view
}

fn record_enters() -> f64 {
    let mut view = view(100, |n| value(n, "null"));
    let changes = [Change::Put(record(500, &value(500, "null")))];
    blocks(|| view.apply(&changes, Timestamp::UNIX_EPOCH))
}

fn answer_after_its_event() -> f64 {
    let mut view = view(100, |n| value(n, "null"));
    let written = record(500, &value(500, OWNED));
    let create = RecordOp::Create { key: written.key.clone(), value: written.value.clone() };
    view.begin_write(&ServiceKey::new("bench", "echo").into(), &create);
    view.apply(&[Change::Put(written.clone())], Timestamp::UNIX_EPOCH);
    blocks(|| view.learnt(&written.key, Some(&written), written.mod_revision, &mut Affected::default()))
}

/// The interest in so many addresses, ten to a RegisteredService.
fn interest(many: usize) -> AddressInterest {
    let mut interest = AddressInterest::default();
    for service in 0..many / 10 {
        let ips = (0..10).map(|n| address(service * 10 + n).parse::<IpAddr>().unwrap());
        interest.set(&ObjectKey::new("shop", format!("echo-{service}")), &ips.collect());
    }
    interest
}

fn objects(many: usize, make: fn(usize) -> Value) -> ClusterView {
    let mut view = ClusterView::default();
    for n in 0..many {
        let object = make(n);
        match object["kind"].as_str() {
            Some("EndpointSlice") => put::<k8s_openapi::api::discovery::v1::EndpointSlice>(&mut view, object),
            Some("Pod") => put::<k8s_openapi::api::core::v1::Pod>(&mut view, object),
            Some("Service") => put::<k8s_openapi::api::core::v1::Service>(&mut view, object),
            kind => panic!("{kind:?}"),
        }
    }
    view
}

fn registered_services(many: usize) -> ClusterView {
    let mut view = ClusterView::default();
    (0..many).for_each(|n| put::<Stored<RegisteredService>>(&mut view, registered_service(n)));
    view
}

fn put<K: Watched + DeserializeOwned>(view: &mut ClusterView, object: Value) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    drop(K::put(view, ObjectKey::new("shop", &name), serde_json::from_value(object).unwrap()));
}

fn meta(name: &str, kind: &str, labels: &Value) -> Value {
    json!({
        "name": name, "namespace": "shop", "uid": format!("3c0f7a52-2c0e-4a7c-9d59-{name:0>12}"),
        "resourceVersion": "123456", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels,
        "managedFields": [{"manager": "test", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        "annotations": {"example.com/kind": kind},
    })
}

/// A hundred endpoints, as Twinspan writes them.
fn our_slice(n: usize) -> Value {
    let endpoint = |at: usize| {
        json!({"addresses": [address(n * 100 + at)],
            "conditions": {"ready": true, "serving": true, "terminating": false}})
    };
    let labels =
        json!({"kubernetes.io/service-name": "echo", "endpointslice.kubernetes.io/managed-by": "twinspan.dev"});
    let mut meta = meta(&format!("echo-{n}"), "slice", &labels);
    meta["annotations"] = json!({"twinspan.dev/imported-from": "main/echo",
        "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"});
    json!({"kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
        "ports": [{"name": "rpc", "port": 8888, "protocol": "TCP"}],
        "endpoints": (0..100).map(endpoint).collect::<Vec<_>>()})
}

/// A hundred endpoints, as the built-in controller writes them.
fn pods_slice(n: usize) -> Value {
    let endpoint = |at: usize| {
        let pod = n * 100 + at;
        json!({"addresses": [address(pod)], "nodeName": format!("node-{}", pod % 50), "zone": "zone-a",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("echo-{pod}"),
                "uid": format!("3c0f7a52-2c0e-4a7c-9d59-{pod:0>12}")}})
    };
    let labels = json!({"kubernetes.io/service-name": "echo",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
    json!({"kind": "EndpointSlice", "metadata": meta(&format!("echo-{n}"), "slice", &labels), "addressType": "IPv4",
        "ports": [{"name": "rpc", "port": 8888, "protocol": "TCP"}],
        "endpoints": (0..100).map(endpoint).collect::<Vec<_>>()})
}

fn pod(n: usize) -> Value {
    let labels = json!({"app": "echo", "pod-template-hash": "6f7d9c5b8d", "version": "v1"});
    json!({"kind": "Pod", "metadata": meta(&format!("echo-{n}"), "pod", &labels),
        "spec": {"nodeName": format!("node-{}", n % 50),
            "containers": [{"name": "echo", "image": "registry.example/echo:v1", "ports": [{"containerPort": 8888}]}]},
        "status": {"phase": "Running", "podIP": address(n), "podIPs": [{"ip": address(n)}],
            "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn service(n: usize) -> Value {
    json!({"kind": "Service", "metadata": meta(&format!("echo-{n}"), "service", &json!({"app": "echo"})),
        "spec": {"clusterIP": address(n), "clusterIPs": [address(n)], "ipFamilies": ["IPv4"], "type": "ClusterIP",
            "selector": {"app": "echo"}, "ports": [{"name": "rpc", "port": 8888, "protocol": "TCP"}]}})
}

fn registered_service(n: usize) -> Value {
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "Synced", "observedGeneration": 1,
            "message": "0 exported, 10 imported, 0 skipped", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions: Vec<Value> = ["Ready", "Accepted", "Exported", "Imported", "DeletionsHeld"].map(condition).into();
    json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": meta(&format!("echo-{n}"), "registered", &json!({})),
        "spec": {"registryRef": {"name": "main"}, "service": {"name": format!("echo-{n}")}, "direction": "Import"},
        "status": {"observedGeneration": 1, "conditions": conditions, "instances": {"imported": 10, "registry": 10}}})
}
