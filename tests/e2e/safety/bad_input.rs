//! Bad input: each has a condition with the right reason, an Event, a count; good neighbours sync all the same.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use twinspan_testbed::{eventually, next_v4};

use crate::harness::{Corner, SOON, Suite, stories};

stories![records, objects, registries, not_supported,];

async fn records(suite: Arc<Suite>) -> Result<()> {
    let shared = suite.shared().await?;
    let bed = &shared.bed;
    let corner = Corner::new(bed, "badrecords").await?;
    corner.service("user", json!({"clusterIP": "None", "ports": [{"name": "rpc", "port": 8888}]})).await?;
    corner.register("user", json!({})).await?;
    let value = |address: &str| format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":null}}"#);
    for (suffix, value) in [
        ("malformed", "{\"network\":\"tcp\",".to_owned()),
        ("null", "null".to_owned()),
        ("empty", "{}".to_owned()),
        ("127.0.0.1:80", value("127.0.0.1:80")),
        ("hostname", value("svc.example:80")),
        ("10.77.251.1:80", value("10.77.251.2:80")),
    ] {
        bed.registry.put(&corner.key("user", suffix), &value).await?;
    }
    let good = corner.vm("user", SocketAddr::from((next_v4(), 9000)), None).await?;
    corner.imports_become("user", &[good.address()]).await?;
    let object = eventually("all six are counted", SOON, || async {
        let object = corner.registered().get("user").await?;
        let status = object.status.clone().unwrap_or_default();
        ensure!(status.instances.skipped == 6 && status.instances.imported == 1, "{:?}", status.instances);
        Ok(object)
    })
    .await?;
    let status = object.status.unwrap_or_default();
    ensure!(status.skipped.len() == 5, "a sample of five: {:?}", status.skipped);
    let reasons: Vec<&str> = status.skipped.iter().map(|s| s.reason.as_str()).collect();
    for reason in ["KeyValueMismatch", "LoopbackAddress", "HostnameAddress", "NotTCP", "Undecodable"] {
        let shown = reasons.contains(&reason);
        let metric = shared.twinspan.metric(&format!("twinspan_skipped_instances{{reason=\"{reason}\"}}")).await?;
        ensure!(metric.is_some_and(|n| n >= 1.0), "{reason} is not counted: {metric:?}");
        ensure!(shown || reason == "Undecodable" || reason == "NotTCP", "{reason} is not shown: {reasons:?}");
    }
    eventually("an Event", SOON, || async {
        let events = corner.events("user").await?;
        ensure!(events.iter().any(|(reason, _)| reason == "InstanceSkipped"), "{events:?}");
        Ok(())
    })
    .await?;
    corner.condition("user", "Ready", "True", "Synced").await?;
    corner.registry_condition("Ready", "True", "Connected").await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn objects(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "badobjects").await?;
    let narrow = json!({"spec": {"allowed": [{"namespaceSelector": {"matchLabels": {"story": corner.name}}, "registryNames": ["ok.*", "exact"]}]}});
    corner.registries().patch(&corner.name, &PatchParams::default(), &Patch::Merge(narrow)).await?;
    corner.selector_service("one", 80).await?;
    corner
        .service(
            "two",
            json!({"selector": {"app": "two"}, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}),
        )
        .await?;
    corner
        .service("udp", json!({"selector": {"app": "udp"}, "ports": [{"name": "rpc", "port": 80, "protocol": "UDP"}]}))
        .await?;
    corner.service("outside", json!({"type": "ExternalName", "externalName": "example.com"})).await?;

    let cases: Vec<(&str, Value, &str, &str)> = vec![
        (
            "no-registry",
            json!({"registryRef": {"name": "nobody"}, "registryName": "ok.a", "service": {"name": "one"}}),
            "RegistryNotFound",
            "nobody",
        ),
        ("not-allowed", json!({"registryName": "payment", "service": {"name": "one"}}), "NotAllowed", "payment"),
        ("no-service", json!({"registryName": "ok.b", "service": {"name": "missing"}}), "ServiceMissing", "missing"),
        (
            "no-port",
            json!({"registryName": "ok.c", "service": {"name": "one", "ports": [{"name": "grpc"}]}}),
            "PortNotFound",
            "grpc",
        ),
        ("udp-port", json!({"registryName": "ok.d", "service": {"name": "udp"}}), "PortNotFound", "TCP"),
        ("which-port", json!({"registryName": "ok.e", "service": {"name": "two"}}), "PortAmbiguous", "a, b"),
        ("external", json!({"registryName": "ok.f", "service": {"name": "outside"}}), "ExternalName", "outside"),
    ];
    for (name, spec, ..) in &cases {
        corner.register(name, spec.clone()).await?;
    }
    let pod = corner.pod("one", "good", 80).await?;
    corner.pods.set_ready("good", true).await?;
    corner.register("good", json!({"registryName": "ok.good", "service": {"name": "one"}})).await?;
    for (name, _, reason, names) in &cases {
        let object = corner.condition(name, "Accepted", "False", reason).await?;
        let status = object.status.unwrap_or_default();
        let message =
            status.conditions.iter().find(|c| c.type_ == "Accepted").map(|c| c.message.clone()).unwrap_or_default();
        ensure!(message.contains(names), "{name}: the message does not name {names}: {message}");
        corner.condition(name, "Ready", "False", reason).await?;
        eventually("an Event", SOON, || async {
            let events = corner.events(name).await?;
            ensure!(events.iter().any(|(r, note)| r == "NotAccepted" && note.contains(reason)), "{name}: {events:?}");
            Ok(())
        })
        .await?;
    }
    // The neighbour is exported all the same, and nobody else is.
    corner.records_become(&bed.registry, "ok.good", &[pod.address()]).await?;
    for name in ["payment", "ok.a", "ok.b", "ok.c", "ok.d", "ok.e", "ok.f"] {
        let records = corner.records(&bed.registry, name).await?;
        ensure!(records.is_empty(), "{name}: {records:?}");
    }
    // Each is mended without a restart.
    corner.patch("which-port", json!({"service": {"ports": [{"name": "a"}]}})).await?;
    corner.condition("which-port", "Ready", "True", "Synced").await?;
    corner.patch("not-allowed", json!({"registryName": "exact"})).await?;
    corner.records_become(&bed.registry, "exact", &[pod.address()]).await?;
    corner.patch("not-allowed", json!({"registryName": "payment"})).await?;
    corner.records_become(&bed.registry, "exact", &[]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn registries(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "badregistries").await?;
    corner.registry_condition("Ready", "True", "Connected").await?;
    let spec = |etcd: Value| json!({"spec": {"etcd": etcd}});
    // Nobody listens there; the next endpoint is tried, and one that answers is enough.
    corner_patch(&corner, spec(json!({"endpoints": ["http://10.77.255.254:1"]}))).await?;
    corner.registry_condition("Connected", "False", "Unreachable").await?;
    corner_patch(&corner, spec(json!({"endpoints": ["http://10.77.255.254:1", corner.etcd]}))).await?;
    corner.registry_condition("Connected", "True", "Connected").await?;

    // A Secret that is missing, then one that is wrong for this etcd, which wants no password.
    corner_patch(&corner, spec(json!({"auth": {"secretRef": {"name": format!("{}-user", corner.name)}}}))).await?;
    corner.registry_condition("Ready", "False", "SecretNotFound").await?;
    let secret = serde_json::from_value(
        json!({"metadata": {"name": format!("{}-user", corner.name)}, "stringData": {"username": "root"}}),
    )?;
    corner.secrets().create(&Default::default(), &secret).await?;
    corner.registry_condition("Ready", "False", "SecretInvalid").await?;
    let password = json!({"stringData": {"password": "wrong"}});
    corner.secrets().patch(&format!("{}-user", corner.name), &PatchParams::default(), &Patch::Merge(password)).await?;
    corner.registry_condition("Ready", "False", "AuthFailed").await?;
    corner_patch(&corner, spec(json!({"auth": null}))).await?;
    corner.registry_condition("Ready", "True", "Connected").await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn corner_patch(corner: &Corner<'_>, body: Value) -> Result<()> {
    corner.registries().patch(&corner.name, &PatchParams::default(), &Patch::Merge(body)).await?;
    Ok(())
}

/// What a format has no place for is refused, never ignored, and touches nothing that is there.
async fn not_supported(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "notsupported").await?;
    corner.selector_service("echo", 80).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    for (n, spec) in [
        json!({"service": {"ports": [{"name": "rpc", "scheme": "grpc"}]}}),
        json!({"service": {"ports": [{"name": "rpc"}, {"name": "b"}]}}),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("odd-{n}");
        corner.register(&name, json!({"service": {"name": "echo"}})).await?;
        corner.records_become(&bed.registry, &name, &[pod.address()]).await?;
        corner.patch(&name, spec.clone()).await?;
        corner.condition(&name, "Accepted", "False", "NotSupported").await?;
        let records = corner.registered_addresses(&bed.registry, &name).await?;
        ensure!(records.contains(&pod.address().to_string()), "{spec}: {records:?}");
    }
    corner.nothing_foreign_was_touched(&bed.registry).await
}
