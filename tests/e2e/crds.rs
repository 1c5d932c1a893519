//! Every rule of the CRDs on the real API server: a case that it accepts and one that it refuses, with a message that names the
//! field.

use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::{Api, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use twinspan::api::{RegisteredService, ServiceRegistry};

use crate::harness::{Suite, merge};

pub fn stories(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.story("crds::service_registry_rules", service_registry_rules),
        suite.story("crds::registered_service_rules", registered_service_rules),
    ]
}

fn registry(extra: Value) -> Value {
    let mut spec = json!({
        "etcd": {"endpoints": ["https://etcd-0.etcd:2379"]},
        "format": "Kitex",
        "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}],
    });
    merge(&mut spec, extra);
    spec
}

async fn dry_create<K>(api: &Api<K>, kind: &str, name: &str, spec: Value) -> Result<(), String>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    let object = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    // Not through the Rust type, which could not even hold some of the wrong values.
    let params = PatchParams { dry_run: true, ..PatchParams::apply("e2e") };
    api.patch(name, &params, &Patch::Apply(&object)).await.map(|_| ()).map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => format!("unexpected: {other}"),
    })
}

async fn check<K>(api: &Api<K>, kind: &str, accepted: Vec<Value>, refused: Vec<(Value, &str)>) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    for spec in accepted {
        let answer = dry_create(api, kind, "case", spec.clone()).await;
        ensure!(answer.is_ok(), "{spec} is refused: {answer:?}");
    }
    for (spec, names) in refused {
        match dry_create(api, kind, "case", spec.clone()).await {
            Ok(()) => anyhow::bail!("{spec} is accepted"),
            Err(message) => ensure!(message.contains(names), "{spec}: the message does not name {names:?}: {message}"),
        }
    }
    Ok(())
}

async fn service_registry_rules(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let api: Api<ServiceRegistry> = Api::all(bed.client());
    let endpoints = |list: Value| registry(json!({"etcd": {"endpoints": list}}));
    let accepted = vec![
        registry(json!({})),
        endpoints(json!(["http://10.0.0.1:2379", "http://[2001:db8::1]:2379", "http://etcd"])),
        registry(
            json!({"etcd": {"tls": {"caSecretRef": {"name": "etcd-ca"}, "clientCertSecretRef": {"name": "c"}, "serverName": "etcd"}}}),
        ),
        registry(json!({"etcd": {"auth": {"secretRef": {"name": "etcd-user"}}}})),
        registry(json!({"prefix": ""})),
        registry(json!({"prefix": "my/prefix"})),
        registry(json!({"format": "Hertz", "prefix": "hertz/registry-etcd"})),
        registry(json!({"format": "Hertz"})),
        registry(json!({"format": "Kratos"})),
        registry(json!({"format": "GoZero"})),
        registry(json!({"format": "GRPC"})),
        registry(json!({"clusterID": "prod-1"})),
        registry(json!({"lease": {"ttlSeconds": 60}})),
        registry(json!({"lease": {"ttlSeconds": 86400}})),
        registry(json!({"fence": {"mode": "None"}})),
        registry(json!({"fence": {"keyPrefix": "elsewhere/"}})),
        registry(json!({"allowed": []})),
        registry(
            json!({"allowed": [{"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "registryNames": ["shop.*", "a"]}]}),
        ),
        registry(
            json!({"importPolicy": {"allowCIDRs": ["10.0.0.0/8", "fd00::/8"], "denyCIDRs": ["10.1.0.0/16"], "podCIDRs": ["10.244.0.0/16"]}}),
        ),
    ];
    let refused = vec![
        (json!({"format": "Kitex", "allowed": []}), "spec.etcd"),
        (json!({"etcd": {"endpoints": ["http://a"]}, "allowed": []}), "spec.format"),
        (json!({"etcd": {"endpoints": ["http://a"]}, "format": "Kitex"}), "spec.allowed"),
        (endpoints(json!([])), "spec.etcd.endpoints"),
        (endpoints(json!((0..17).map(|n| format!("http://e{n}")).collect::<Vec<_>>())), "spec.etcd.endpoints"),
        (endpoints(json!(["http://a", "http://a"])), "spec.etcd.endpoints"),
        (endpoints(json!(["etcd:2379"])), "spec.etcd.endpoints"),
        (endpoints(json!(["http://2001:db8::1:2379"])), "spec.etcd.endpoints"),
        (endpoints(json!(["http://a", "https://b"])), "use https for all or http for all"),
        (registry(json!({"etcd": {"endpoints": ["http://a"], "tls": {}}})), "spec.etcd.tls needs https"),
        (registry(json!({"format": "Consul"})), "spec.format"),
        (registry(json!({"prefix": "a%20b"})), "spec.prefix"),
        (registry(json!({"prefix": "a b"})), "spec.prefix"),
        (registry(json!({"prefix": "x".repeat(254)})), "spec.prefix"),
        (registry(json!({"format": "Kratos", "prefix": ""})), "only Kitex may have an empty prefix"),
        (registry(json!({"format": "Hertz", "prefix": "other"})), "Hertz programs always use"),
        (registry(json!({"clusterID": ""})), "spec.clusterID"),
        (registry(json!({"clusterID": "Prod"})), "spec.clusterID"),
        (registry(json!({"clusterID": "x".repeat(64)})), "spec.clusterID"),
        (registry(json!({"lease": {"ttlSeconds": 59}})), "spec.lease.ttlSeconds"),
        (registry(json!({"lease": {"ttlSeconds": 86401}})), "spec.lease.ttlSeconds"),
        (registry(json!({"fence": {"mode": "Perhaps"}})), "spec.fence.mode"),
        (registry(json!({"fence": {"keyPrefix": ""}})), "spec.fence.keyPrefix"),
        (registry(json!({"fence": {"keyPrefix": "kitex/registry-etcd/x"}})), "spec.fence.keyPrefix lies under"),
        (registry(json!({"prefix": "p", "fence": {"keyPrefix": "p/x"}})), "spec.fence.keyPrefix lies under"),
        (
            registry(json!({"format": "Hertz", "fence": {"keyPrefix": "hertz/registry-etcd/"}})),
            "spec.fence.keyPrefix lies under",
        ),
        (
            registry(json!({"format": "Kratos", "fence": {"keyPrefix": "/microservices/"}})),
            "spec.fence.keyPrefix lies under",
        ),
        (registry(json!({"allowed": [{"registryNames": ["*"]}]})), "spec.allowed[0].namespaceSelector"),
        (
            registry(json!({"allowed": [{"namespaceSelector": {}, "registryNames": []}]})),
            "spec.allowed[0].registryNames",
        ),
        (
            registry(json!({"allowed": [{"namespaceSelector": {}, "registryNames": ["a/b"]}]})),
            "spec.allowed[0].registryNames",
        ),
        (
            registry(
                json!({"allowed": [{"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "registryNames": ["*"]}]}),
            ),
            "values: give at least one",
        ),
        (
            registry(
                json!({"allowed": [{"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
            "registryNames": ["*"]}]}),
            ),
            "values: give at least one",
        ),
        (registry(json!({"importPolicy": {"allowCIDRs": ["10.0.0.1/8"]}})), "importPolicy.allowCIDRs"),
        (registry(json!({"importPolicy": {"denyCIDRs": ["10.0.0.1"]}})), "importPolicy.denyCIDRs"),
        (registry(json!({"importPolicy": {"podCIDRs": ["here"]}})), "importPolicy.podCIDRs"),
        (registry(json!({"surprise": 1})), "surprise"),
    ];
    check(&api, "ServiceRegistry", accepted, refused).await?;
    transitions(&api).await
}

/// Rules about what may change, on an object that is really there.
async fn transitions(api: &Api<ServiceRegistry>) -> Result<()> {
    let create = |name: &str, spec: Value| {
        let object: ServiceRegistry = serde_json::from_value(
            json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name}, "spec": spec}),
        )
        .expect("a ServiceRegistry");
        async move { api.create(&PostParams::default(), &object).await }
    };
    // An address where nobody answers: what is tested is the API server's answer alone.
    let base = registry(json!({"etcd": {"endpoints": ["http://10.77.255.254:1"]}}));
    let mut named = base.clone();
    merge(&mut named, json!({"prefix": "p", "clusterID": "c1"}));
    create("transitions-plain", base).await?;
    create("transitions-named", named).await?;
    let answer = |name: &'static str, spec: Value| async move {
        let patch = Patch::Merge(json!({"spec": spec}));
        match api.patch(name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status.message),
            Err(other) => Err(format!("unexpected: {other}")),
        }
    };
    for (name, spec, names) in [
        ("transitions-plain", json!({"format": "Kratos"}), "spec.format is immutable"),
        ("transitions-plain", json!({"prefix": "p"}), "spec.prefix is immutable"),
        ("transitions-plain", json!({"fence": {"mode": "None"}}), "spec.fence is immutable"),
        ("transitions-named", json!({"prefix": "q"}), "spec.prefix is immutable"),
        ("transitions-named", json!({"prefix": null}), "spec.prefix is immutable"),
        ("transitions-named", json!({"clusterID": "c2"}), "spec.clusterID is immutable"),
        ("transitions-named", json!({"clusterID": null}), "spec.clusterID cannot be removed"),
    ] {
        let message = answer(name, spec.clone()).await.err().unwrap_or_default();
        ensure!(message.contains(names), "{spec} on {name}: want {names:?}, got {message:?}");
    }
    for (name, spec) in [
        ("transitions-plain", json!({"lease": {"ttlSeconds": 600}, "etcd": {"endpoints": ["http://10.77.255.254:2"]}})),
        ("transitions-named", json!({"clusterID": "c1", "allowed": []})),
    ] {
        let message = answer(name, spec.clone()).await;
        ensure!(message.is_ok(), "{spec} on {name}: {message:?}");
    }
    // What status says is in force is the only ID that may be written down.
    let status = Patch::Merge(json!({"status": {"clusterID": "in-force"}}));
    api.patch_status("transitions-plain", &PatchParams::default(), &status).await?;
    let message = answer("transitions-plain", json!({"clusterID": "another"})).await.err().unwrap_or_default();
    ensure!(message.contains("may only be set to what status.clusterID has"), "{message}");
    let message = answer("transitions-plain", json!({"clusterID": "in-force"})).await;
    ensure!(message.is_ok(), "{message:?}");
    for name in ["transitions-plain", "transitions-named"] {
        api.delete(name, &Default::default()).await?;
    }
    Ok(())
}

fn service(extra: Value) -> Value {
    let mut spec = json!({"registryRef": {"name": "main"}});
    merge(&mut spec, extra);
    spec
}

async fn registered_service_rules(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let api: Api<RegisteredService> = Api::namespaced(bed.client(), "default");
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
            "ipFamilyPolicy": "All"}}),
        ),
        service(
            json!({"import": {"tagSelector": {"matchLabels": {"lane": "blue"}}, "otherClusters": "All", "zoneTag": "zone", "onExpiry": "Heal",
            "keepLostSeconds": 60}}),
        ),
        service(json!({"deletionGuard": {"minInstances": 1, "maxDeletePercent": 100, "holdSeconds": 0}})),
    ];
    let refused = vec![
        (json!({}), "spec.registryRef"),
        (service(json!({"registryRef": {"name": ""}})), "spec.registryRef.name"),
        (service(json!({"registryName": ""})), "spec.registryName"),
        (service(json!({"registryName": "a/b"})), "spec.registryName"),
        (service(json!({"registryName": "a%b"})), "spec.registryName"),
        (service(json!({"registryName": "a b"})), "spec.registryName"),
        (service(json!({"registryName": "x".repeat(254)})), "spec.registryName"),
        (service(json!({"service": {"name": "Echo"}})), "spec.service.name"),
        (service(json!({"service": {"name": "a.b"}})), "spec.service.name"),
        (service(json!({"service": {"ports": [port(json!({"number": 80}))]}})), "spec.service.ports: give a number"),
        (service(json!({"service": {"create": "Headless"}})), "spec.service.ports: give a number"),
        (service(json!({"service": {"create": "Headless", "ports": []}})), "spec.service.ports: give a number"),
        (
            service(json!({"service": {"create": "ClusterIP", "ports": [port(json!({}))]}})),
            "spec.service.ports: give a number",
        ),
        (
            service(json!({"service": {"create": "Headless", "ports": [port(json!({"number": 0}))]}})),
            "spec.service.ports[0].number",
        ),
        (
            service(json!({"service": {"create": "Headless", "ports": [port(json!({"number": 65536}))]}})),
            "spec.service.ports[0].number",
        ),
        (service(json!({"service": {"ports": [port(json!({})), port(json!({}))]}})), "duplicate"),
        (service(json!({"service": {"ports": [{"name": ""}]}})), "spec.service.ports[0].name"),
        (service(json!({"service": {"ports": [port(json!({"scheme": "GRPC"}))]}})), "spec.service.ports[0].scheme"),
        (service(json!({"service": {"create": "Sometimes"}})), "spec.service.create"),
        (service(json!({"direction": "Sideways"})), "spec.direction"),
        (service(json!({"policy": "Perhaps"})), "spec.policy"),
        (service(json!({"export": {"weight": 0}})), "spec.export.weight"),
        (service(json!({"export": {"weight": 10001}})), "spec.export.weight"),
        (
            service(json!({"export": {"tags": {"twinspan.dev/owner": "me"}}})),
            "spec.export.tags: keys that begin with twinspan.dev/",
        ),
        (
            service(json!({"export": {"tagsFromPodLabels": [{"label": "a", "tag": "twinspan.dev/x"}]}})),
            "tagsFromPodLabels: tags that begin with twinspan.dev/",
        ),
        (
            service(json!({"export": {"tagsFromPodLabels": [{"label": "a", "tag": "t"}, {"label": "b", "tag": "t"}]}})),
            "duplicate",
        ),
        (service(json!({"export": {"ipFamilyPolicy": "Some"}})), "spec.export.ipFamilyPolicy"),
        (
            service(json!({"import": {"tagSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn"}]}}})),
            "values: give at least one",
        ),
        (service(json!({"import": {"otherClusters": "Some"}})), "spec.import.otherClusters"),
        (service(json!({"import": {"onExpiry": "Keep"}})), "spec.import.onExpiry"),
        (service(json!({"import": {"keepLostSeconds": 0}})), "spec.import.keepLostSeconds"),
        (service(json!({"deletionGuard": {"minInstances": 0}})), "spec.deletionGuard.minInstances"),
        (service(json!({"deletionGuard": {"maxDeletePercent": 101}})), "spec.deletionGuard.maxDeletePercent"),
        (service(json!({"deletionGuard": {"holdSeconds": -1}})), "spec.deletionGuard.holdSeconds"),
        (service(json!({"surprise": 1})), "surprise"),
    ];
    check(&api, "RegisteredService", accepted, refused).await?;

    // metadata.name stands in for the Service's name only where it can be one.
    for (name, spec, names) in [
        ("a.b", service(json!({})), Some("spec.service.name: set it")),
        ("a.b", service(json!({"service": {"name": "ab"}})), None),
        (&*"x".repeat(64), service(json!({})), Some("spec.service.name: set it")),
    ] {
        let answer = dry_create(&api, "RegisteredService", name, spec).await;
        match names {
            None => ensure!(answer.is_ok(), "{name}: {answer:?}"),
            Some(names) => ensure!(answer.as_ref().is_err_and(|m| m.contains(names)), "{name}: {answer:?}"),
        }
    }
    defaults(&api).await
}

/// What the API server fills in is what the design promises.
async fn defaults(api: &Api<RegisteredService>) -> Result<()> {
    let object = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": "defaults"},
        "spec": {"registryRef": {"name": "main"}}});
    let params = PatchParams { dry_run: true, ..PatchParams::apply("e2e") };
    let stored = api.patch("defaults", &params, &Patch::Apply(&object)).await?;
    let expected = json!({
        "registryRef": {"name": "main"},
        "service": {"create": "Never"},
        "direction": "Both",
        "policy": "Sync",
        "export": {"weight": 10, "ipFamilyPolicy": "Primary"},
        "import": {"tagSelector": {}, "otherClusters": "Ignore", "zoneTag": "", "onExpiry": "Probe", "keepLostSeconds": 86400},
        "deletionGuard": {"minInstances": 10, "maxDeletePercent": 50, "holdSeconds": 300},
        "suspend": false,
    });
    let found = serde_json::to_value(&stored.spec)?;
    ensure!(found == expected, "{found}\nwant\n{expected}");
    Ok(())
}
