//! No secret is in a bundle, wherever somebody put it.

use serde_json::{Value, json};

use super::{Bundle, Request, collect};
use crate::cluster::fake_api::FakeApi;
use crate::cluster::networks::NamedNetworks;

const SECRET: &str = "Tr0ub4dor&3";
const NAMESPACE: &str = "twinspan-system";

fn listed(api: &FakeApi, path: &str, items: &Value) {
    api.put(path, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}));
}

/// A cluster with the secret in every place that a bundle is collected from. Where nobody may read the Secret, its
/// value stands nowhere without a sign that tells it.
fn cluster(knows_secret: bool) -> FakeApi {
    let api = FakeApi::default();
    let url = format!("http://root:{SECRET}@127.0.0.1:1");
    let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": SECRET, "note": SECRET});
    let metadata = |name: &str| {
        json!({"name": name, "namespace": "shop", "annotations": annotations,
            "managedFields": [{"manager": SECRET}]})
    };
    let condition = json!([{"type": "Ready", "status": "False", "reason": "Unreachable",
        "message": format!("cannot connect to {url}"), "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let service = json!({"metadata": metadata("user"), "spec": {
        "registryRef": {"name": "main"},
        "export": {"tags": {"lane": SECRET}},
        "import": {"tagSelector": {"matchLabels": {"lane": SECRET},
            "matchExpressions": [{"key": "lane", "operator": "In", "values": [SECRET]}]}}},
        "status": {"conditions": condition}});
    listed(&api, "/apis/twinspan.dev/v1alpha1/registeredservices", &json!([service]));
    let registry = json!({"metadata": metadata("main"), "spec": {"format": "Kitex", "allowed": [], "clusterID": "c",
        "etcd": {"endpoints": [url], "auth": {"secretRef": {"name": "etcd-user"}}}},
        "status": {"conditions": condition}});
    listed(&api, "/apis/twinspan.dev/v1alpha1/serviceregistries", &json!([registry]));
    let password = json!("VHIwdWI0ZG9yJjM=");
    let secret = json!({"metadata": {"name": "etcd-user"}, "data": {"username": "cm9vdA==", "password": password}});
    if knows_secret {
        listed(&api, &format!("/api/v1/namespaces/{NAMESPACE}/secrets"), &json!([secret]));
    }
    listed(&api, "/api/v1/namespaces", &json!([]));
    listed(
        &api,
        "/apis/discovery.k8s.io/v1/endpointslices",
        &json!([{"metadata": metadata("user-1"), "endpoints": []}]),
    );
    listed(&api, "/api/v1/namespaces/shop/services", &json!([{"metadata": metadata("user"), "spec": {}}]));
    let container = |name: &str| {
        json!({"name": name, "image": "twinspan", "args": ["run", format!("--otlp-endpoint={url}")],
            "env": [{"name": "PASSWORD", "value": SECRET}],
            "livenessProbe": {"httpGet": {"path": "/livez", "httpHeaders": [{"name": "x", "value": SECRET}]}},
            "readinessProbe": {"exec": {"command": ["check", SECRET]}},
            "lifecycle": {"preStop": {"exec": {"command": [SECRET]}}}})
    };
    let mut sidecar = container("sidecar");
    sidecar["args"] = json!(["--pass", SECRET]);
    sidecar["command"] = json!(["sh", "-c", SECRET]);
    let spec = json!({"containers": [container("twinspan"), sidecar], "initContainers": [container("init")],
        "volumes": [{"name": "v", "csi": {"driver": "d", "volumeAttributes": {"key": SECRET}}},
            {"name": "s", "secret": {"secretName": "etcd-user", "items": [{"key": SECRET, "path": "x"}]}}]});
    let status = json!({"containerStatuses": [{"name": "twinspan", "restartCount": 1}]});
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    listed(&api, &pods, &json!([{"metadata": metadata("pod-1"), "spec": spec, "status": status}]));
    let template = json!({"metadata": metadata(""), "spec": spec});
    let deployment = json!({"metadata": metadata("twinspan"), "spec": {"template": template}});
    listed(&api, &format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments"), &json!([deployment]));
    let bare = if knows_secret { SECRET } else { "nothing" };
    let log = format!("connecting to {url}; a bare {bare}, password={SECRET}");
    api.put(&format!("{pods}/pod-1/log"), json!(log));
    api.put(&format!("{pods}/pod-1:8080/proxy/metrics"), json!(format!("info{{endpoint=\"{url}\"}} 1")));
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/twinspan");
    api.put(&lease, json!({"metadata": metadata("twinspan"), "spec": {"holderIdentity": "pod-1"}}));
    let event = json!({"metadata": metadata("e"), "reason": "NotAccepted", "message": format!("{url} refused")});
    listed(&api, "/api/v1/events", &json!([event]));
    api
}

async fn collected(api: &FakeApi, with_values: bool) -> Bundle {
    let (operator_namespace, service_account) = (NAMESPACE, "twinspan");
    let (client, server, networks) = (api.client(), "https://api", NamedNetworks::default());
    collect(&Request { client, server, operator_namespace, service_account, networks, with_values }).await
}

#[tokio::test]
async fn a_secret_in_every_place_is_in_no_file() {
    let api = cluster(true);
    let bundle = collected(&api, false).await;
    let names: Vec<&str> = bundle.files.keys().map(String::as_str).collect();
    let wanted = [
        "deployments.yaml",
        "doctor.txt",
        "endpointslices.yaml",
        "events.yaml",
        "instances.json",
        "lease.yaml",
        "logs/pod-1-sidecar.log",
        "logs/pod-1-twinspan.log",
        "logs/pod-1-twinspan.previous.log",
        "metrics/pod-1.txt",
        "pods.yaml",
        "registeredservices.yaml",
        "serviceregistries.yaml",
        "services.yaml",
        "status.txt",
        "version.json",
    ];
    for name in wanted {
        assert!(names.contains(&name) || name.contains("sidecar"), "no {name} in {names:?}: {:?}", bundle.problems);
    }
    for (name, text) in &bundle.files {
        assert!(!text.contains(SECRET) && !text.contains("VHIwdWI0"), "{name}:\n{text}");
    }
    assert!(bundle.problems.iter().all(|problem| !problem.contains(SECRET)), "{:?}", bundle.problems);
    // Everything that explains a fault is still there.
    let file = |name: &str| bundle.files[name].as_str();
    assert!(
        file("serviceregistries.yaml").contains("http://(removed)@127.0.0.1:1"),
        "{}",
        file("serviceregistries.yaml")
    );
    assert!(file("pods.yaml").contains("name: PASSWORD"), "{}", file("pods.yaml"));
    assert!(file("logs/pod-1-twinspan.log").contains("connecting to"));
}

#[tokio::test]
async fn a_secret_that_nobody_may_read_is_in_no_file_either() {
    let bundle = collected(&cluster(false), false).await;
    assert!(bundle.files.len() > 12, "{:?}", bundle.problems);
    for (name, text) in &bundle.files {
        assert!(!text.contains(SECRET), "{name}:\n{text}");
    }
}

#[tokio::test]
async fn tags_are_shown_on_demand_and_what_is_missing_is_told() {
    let api = cluster(true);
    api.put(
        "/apis/twinspan.dev/v1alpha1/registeredservices",
        json!({"items": [
        {"metadata": {"name": "user", "namespace": "shop"},
            "spec": {"registryRef": {"name": "main"}, "export": {"tags": {"lane": "canary"}}}}]}),
    );
    let shown = |bundle: &Bundle| bundle.files["registeredservices.yaml"].contains("lane: canary");
    assert!(shown(&collected(&api, true).await));
    assert!(!shown(&collected(&api, false).await));
    api.refuse("/proxy/metrics", 403);
    let bundle = collected(&api, false).await;
    assert!(bundle.files["problems.txt"].contains("metrics/pod-1.txt: it is forbidden"), "{:?}", bundle.problems);
}
