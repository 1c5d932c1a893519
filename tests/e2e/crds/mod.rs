//! The CRDs on the real API server: accepted objects, refused objects, and the text of the answer.
//!
//! - [`rules`], [`bounds`]: a wrong object for every rule and every bound, from the [`schema`]s.
//! - Here: valid objects, texts at the edge of a pattern, defaults, and the examples of the documents.

mod bounds;
mod desk;
mod rules;
mod schema;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};

use self::desk::Desk;
use crate::harness::{Suite, merge, stories};

stories![every_rule_and_every_bound, service_registries, registered_services, the_examples_of_the_reference];

/// In a bed without a Twinspan, whose status would interfere.
async fn every_rule_and_every_bound(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    rules::every_rule(&bed.client()).await?;
    bounds::every_bound(&bed.client()).await
}

/// The smallest spec, with `extra` merged into it.
fn registry(extra: Value) -> Value {
    let mut spec = json!({
        "etcd": {"endpoints": ["https://etcd-0.etcd:2379"]},
        "format": "Kitex",
        "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}],
    });
    merge(&mut spec, extra);
    spec
}

/// The smallest spec, with `extra` merged into it.
fn service(extra: Value) -> Value {
    let mut spec = json!({"registryRef": {"name": "main"}});
    merge(&mut spec, extra);
    spec
}

async fn check(desk: &Desk, accepted: Vec<Value>, refused: Vec<(Value, &str)>) -> Result<()> {
    for spec in accepted {
        let answer = desk.would_create(&desk.object("case", &spec)).await?;
        ensure!(answer.is_ok(), "{spec} is refused: {answer:?}");
    }
    for (spec, field) in refused {
        let answer = desk.would_create(&desk.object("case", &spec)).await?;
        let named = answer.as_ref().is_err_and(|refusal| refusal.causes.iter().any(|(at, _)| at == field));
        ensure!(named, "{spec}: want a refusal of {field:?}, got {answer:?}");
    }
    Ok(())
}

async fn service_registries(suite: Arc<Suite>) -> Result<()> {
    let desk = Desk::new(suite.shared().await?.bed.client(), "ServiceRegistry");
    let endpoints = |list: Value| registry(json!({"etcd": {"endpoints": list}}));
    let accepted = vec![
        registry(json!({})),
        endpoints(json!(["http://10.0.0.1:2379", "http://[2001:db8::1]:2379", "http://etcd"])),
        registry(
            json!({"etcd": {"tls": {"caSecretRef": {"name": "etcd-ca"}, "clientCertSecretRef": {"name": "c"}, "serverName": "etcd"}}}),
        ),
        registry(json!({"etcd": {"auth": {"secretRef": {"name": "etcd-user"}}}})),
        registry(json!({"prefix": ""})),
        registry(json!({"format": "GRPC", "prefix": "", "leadingSlash": true})),
        registry(json!({"format": "Kratos", "prefix": "", "leadingSlash": true})),
        registry(json!({"format": "GoZero", "prefix": "svc", "leadingSlash": true})),
        registry(json!({"prefix": "my/prefix"})),
        registry(json!({"format": "Hertz", "prefix": "hertz/registry-etcd"})),
        registry(json!({"format": "Hertz"})),
        registry(json!({"format": "Kratos"})),
        registry(json!({"format": "GoZero"})),
        registry(json!({"format": "GRPC"})),
        registry(json!({"format": "GoFrame"})),
        registry(json!({"format": "GoFrame", "prefix": "/service/prod/shop"})),
        registry(json!({"clusterID": "prod-1"})),
        registry(json!({"lease": {"ttlSeconds": 60}})),
        registry(json!({"lease": {"ttlSeconds": 86400}})),
        registry(json!({"fence": {"mode": "None"}})),
        registry(json!({"fence": {"keyPrefix": "elsewhere/"}})),
        registry(json!({"allowed": []})),
        registry(json!({"discovery": {"export": {"namespaceSelector": {}}}})),
        registry(json!({"discovery": {"export": {"namespaceSelector": {}, "nameTemplate": "{namespace}.{name}"}}})),
        registry(
            json!({"format": "GoZero", "discovery": {"export": {"namespaceSelector": {}, "serviceSelector": {}}}}),
        ),
        registry(json!({"format": "GoZero", "prefix": "p", "discovery": {"import": {"namespace": "vms"}}})),
        registry(
            json!({"allowed": [{"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "registryNames": ["shop.*", "a"]}]}),
        ),
        registry(
            json!({"importPolicy": {"allowCIDRs": ["10.0.0.0/8", "fd00::/8"], "denyCIDRs": ["10.1.0.0/16"], "podCIDRs": ["10.244.0.0/16"]}}),
        ),
    ];
    let names = |name: &str| registry(json!({"allowed": [{"namespaceSelector": {}, "registryNames": [name]}]}));
    let refused = vec![
        (endpoints(json!(["etcd:2379"])), "spec.etcd.endpoints[0]"),
        (endpoints(json!(["http://2001:db8::1:2379"])), "spec.etcd.endpoints[0]"),
        (endpoints(json!(["http://etcd:2379/path"])), "spec.etcd.endpoints[0]"),
        (registry(json!({"prefix": "a%20b"})), "spec.prefix"),
        (registry(json!({"clusterID": "Prod"})), "spec.clusterID"),
        (names("a/b"), "spec.allowed[0].registryNames[0]"),
        (names("a%b"), "spec.allowed[0].registryNames[0]"),
    ];
    check(&desk, accepted, refused).await
}

async fn registered_services(suite: Arc<Suite>) -> Result<()> {
    let client = suite.shared().await?.bed.client();
    let desk = Desk::new(client.clone(), "RegisteredService");
    let port = |extra: Value| {
        let mut port = json!({"name": "rpc"});
        merge(&mut port, extra);
        port
    };
    let accepted = vec![
        service(json!({})),
        service(json!({"registryName": "douyinec.user"})),
        service(json!({"registryName": "Wsp.earn_QA.int-1"})),
        service(json!({"service": {"name": "echo", "ports": [port(json!({}))]}})),
        service(json!({"service": {"create": "Headless", "ports": [port(json!({"number": 8888}))]}})),
        service(
            json!({"service": {"create": "ClusterIP", "ports": [port(json!({"number": 1, "scheme": "grpc"})), {"name": "http", "number": 65535}]}}),
        ),
        service(json!({"direction": "Export", "policy": "Observe", "suspend": true})),
        service(
            json!({"export": {"weight": 10000, "tags": {"lane": "blue"}, "tagsFromPodLabels": [{"label": "app.kubernetes.io/version", "tag": "v"}],
            "ipFamilyPolicy": "All", "share": 99, "zoneTag": "az"}}),
        ),
        service(
            json!({"import": {"tagSelector": {"matchLabels": {"lane": "blue"}}, "otherClusters": "All", "zoneTag": "zone", "onExpiry": "Heal",
            "keepLostSeconds": 60, "into": "Apart", "serviceName": "vms"}}),
        ),
        service(json!({"import": {"into": "Together"}})),
        service(json!({"import": {"otherClusters": "All", "clusters": {}}})),
        service(
            json!({"import": {"otherClusters": "All", "clusters": {"names": ["prod-2", "3"], "preference": "LocalFirst", "minLocal": 3}}}),
        ),
        service(json!({"export": {"address": "Node", "nodeAddressType": "ExternalIP", "nodes": 100}})),
        service(json!({"export": {"address": "LoadBalancer"}})),
        service(json!({"deletionGuard": {"minInstances": 1, "maxDeletePercent": 100, "holdSeconds": 0}})),
    ];
    let refused = vec![
        (service(json!({"registryName": "a/b"})), "spec.registryName"),
        (service(json!({"registryName": "a%b"})), "spec.registryName"),
        (
            service(json!({"import": {"otherClusters": "All", "clusters": {"names": ["Prod"]}}})),
            "spec.import.clusters.names[0]",
        ),
        (service(json!({"service": {"name": "Echo"}})), "spec.service.name"),
        (service(json!({"service": {"name": "a.b"}})), "spec.service.name"),
        (service(json!({"service": {"ports": [port(json!({"scheme": "GRPC"}))]}})), "spec.service.ports[0].scheme"),
    ];
    check(&desk, accepted, refused).await?;
    // metadata.name need not be a valid name of a Service if the spec names the Service.
    let answer = desk.would_create(&desk.object("a.b", &service(json!({"service": {"name": "ab"}})))).await?;
    ensure!(answer.is_ok(), "{answer:?}");
    defaults(&desk).await
}

/// The API server fills in the documented defaults.
async fn defaults(desk: &Desk) -> Result<()> {
    let answer = desk.would_create(&desk.object("defaults", &service(json!({})))).await?;
    let stored = answer.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    let expected = json!({
        "registryRef": {"name": "main"},
        "service": {"create": "Never"},
        "direction": "Both",
        "policy": "Sync",
        "export": {"weight": 10, "ipFamilyPolicy": "Primary", "address": "Pod", "nodeAddressType": "InternalIP", "nodes": 3},
        "import": {"tagSelector": {}, "otherClusters": "Ignore", "zoneTag": "", "onExpiry": "Probe", "into": "Beside",
            "keepLostSeconds": 86400},
        "deletionGuard": {"minInstances": 10, "maxDeletePercent": 50, "holdSeconds": 300},
        "suspend": false,
    });
    ensure!(stored["spec"] == expected, "{}\nwant\n{expected}", stored["spec"]);
    Ok(())
}

/// The API server accepts every YAML block of `docs/api.md` unchanged.
async fn the_examples_of_the_reference(suite: Arc<Suite>) -> Result<()> {
    let client = suite.shared().await?.bed.client();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
    let page = std::fs::read_to_string(path).with_context(|| path)?;
    let mut kinds = Vec::new();
    for block in page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        kinds.push(example(&client, serde_yaml::from_str(block).context("an example is YAML")?).await?);
    }
    ensure!(kinds == ["ServiceRegistry", "RegisteredService"], "{path} has examples of {kinds:?}");
    Ok(())
}

async fn example(client: &Client, object: Value) -> Result<&'static str> {
    let kind = match object["kind"].as_str() {
        Some("ServiceRegistry") => "ServiceRegistry",
        Some("RegisteredService") => "RegisteredService",
        other => anyhow::bail!("an example of kind {other:?}"),
    };
    let answer = Desk::new(client.clone(), kind).would_create(&object).await?;
    ensure!(answer.is_ok(), "the example of {kind} is refused: {answer:?}");
    Ok(kind)
}
