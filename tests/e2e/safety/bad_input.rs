//! Bad input: each case has a condition with the right reason, an Event and a count; valid objects beside it are
//! synchronised.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use twinspan_testbed::{eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, record, stories};

stories![records, objects, registries, not_supported];

async fn records(suite: Arc<Suite>) -> Result<()> {
    let shared = suite.shared().await?;
    let bed = &shared.bed;
    let sandbox = Sandbox::new(bed, "badrecords").await?;
    sandbox.headless_without_selector("user", 8888).await?;
    sandbox.register("user", json!({})).await?;
    for (suffix, value) in [
        ("malformed", "{\"network\":\"tcp\",".to_owned()),
        ("null", "null".to_owned()),
        ("empty", "{}".to_owned()),
        ("127.0.0.1:80", record("127.0.0.1:80").to_string()),
        ("hostname", record("svc.example:80").to_string()),
        ("10.77.251.1:80", record("10.77.251.2:80").to_string()),
    ] {
        bed.registry.put(&sandbox.key("user", suffix), &value).await?;
    }
    let good = sandbox.vm("user", SocketAddr::from((next_v4(), 9000)), None).await?;
    sandbox.imports_become("user", &[good.address()]).await?;
    let object = eventually("all six are counted", SOON, || async {
        let object = sandbox.registered().get("user").await?;
        let status = object.status.clone().unwrap_or_default();
        ensure!(status.instances.skipped == 6 && status.instances.imported == 1, "{:?}", status.instances);
        Ok(object)
    })
    .await?;
    let status = object.status.unwrap_or_default();
    ensure!(status.differences.len() == 6, "{:?}", status.differences);
    let reasons: Vec<&str> = status.differences.iter().map(|s| s.reason.as_str()).collect();
    for reason in ["KeyValueMismatch", "LoopbackAddress", "HostnameAddress", "NotTCP", "Undecodable"] {
        let shown = reasons.contains(&reason);
        let metric = shared.twinspan.metric(&format!("twinspan_skipped_instances{{reason=\"{reason}\"}}")).await?;
        ensure!(metric.is_some_and(|n| n >= 1.0), "{reason} is not counted: {metric:?}");
        ensure!(shown, "{reason} is not shown: {reasons:?}");
    }
    eventually("an Event", SOON, || async {
        let events = sandbox.events("user").await?;
        ensure!(events.iter().any(|(reason, _)| reason == "InstanceSkipped"), "{events:?}");
        Ok(())
    })
    .await?;
    sandbox.condition("user", "Ready", "True", "Synced").await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn objects(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "badobjects").await?;
    let narrow = json!({"spec": {"allowed": [{"namespaceSelector": {"matchLabels": {"story": sandbox.name}}, "registryNames": ["ok.*", "exact"]}]}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(narrow)).await?;
    sandbox.selector_service("one", 80).await?;
    sandbox
        .service(
            "two",
            json!({"selector": {"app": "two"}, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}),
        )
        .await?;
    sandbox
        .service("udp", json!({"selector": {"app": "udp"}, "ports": [{"name": "rpc", "port": 80, "protocol": "UDP"}]}))
        .await?;
    sandbox.service("outside", json!({"type": "ExternalName", "externalName": "example.com"})).await?;

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
        sandbox.register(name, spec.clone()).await?;
    }
    let pod = sandbox.pod("one", "good", 80).await?;
    sandbox.pods.set_ready("good", true).await?;
    sandbox.register("good", json!({"registryName": "ok.good", "service": {"name": "one"}})).await?;
    for (name, _, reason, names) in &cases {
        let object = sandbox.condition(name, "Accepted", "False", reason).await?;
        let status = object.status.unwrap_or_default();
        let message =
            status.conditions.iter().find(|c| c.type_ == "Accepted").map(|c| c.message.clone()).unwrap_or_default();
        ensure!(message.contains(names), "{name}: the message does not name {names}: {message}");
        sandbox.condition(name, "Ready", "False", reason).await?;
        eventually("an Event", SOON, || async {
            let events = sandbox.events(name).await?;
            ensure!(events.iter().any(|(r, note)| r == "NotAccepted" && note.contains(reason)), "{name}: {events:?}");
            Ok(())
        })
        .await?;
    }
    // The valid neighbour is exported, and no other.
    sandbox.records_become("ok.good", &[pod.address()]).await?;
    for name in ["payment", "ok.a", "ok.b", "ok.c", "ok.d", "ok.e", "ok.f"] {
        let records = sandbox.records(name).await?;
        ensure!(records.is_empty(), "{name}: {records:?}");
    }
    // Each object is corrected without a restart.
    sandbox.patch("which-port", json!({"service": {"ports": [{"name": "a"}]}})).await?;
    sandbox.condition("which-port", "Ready", "True", "Synced").await?;
    sandbox.patch("not-allowed", json!({"registryName": "exact"})).await?;
    sandbox.records_become("exact", &[pod.address()]).await?;
    sandbox.patch("not-allowed", json!({"registryName": "payment"})).await?;
    // A name that is refused costs no record under the former one, until that one is refused as well.
    sandbox.condition("not-allowed", "Accepted", "False", "NotAllowed").await?;
    sandbox.records_become("exact", &[pod.address()]).await?;
    let narrower = json!({"spec": {"allowed": [{"namespaceSelector": {"matchLabels": {"story": sandbox.name}}, "registryNames": ["ok.*"]}]}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(narrower)).await?;
    sandbox.records_become("exact", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn registries(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "badregistries").await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    let spec = |etcd: Value| json!({"spec": {"etcd": etcd}});
    // The first endpoint does not answer; the next one is tried, and one answer is enough.
    sandbox_patch(&sandbox, spec(json!({"endpoints": ["http://10.77.255.254:1"]}))).await?;
    sandbox.registry_condition("Connected", "False", "Unreachable").await?;
    sandbox_patch(&sandbox, spec(json!({"endpoints": ["http://10.77.255.254:1", sandbox.registry.endpoint()]})))
        .await?;
    sandbox.registry_condition("Connected", "True", "Connected").await?;

    // A missing Secret, then one that is wrong for this etcd, which has no password.
    sandbox_patch(&sandbox, spec(json!({"auth": {"secretRef": {"name": format!("{}-user", sandbox.name)}}}))).await?;
    sandbox.registry_condition("Ready", "False", "SecretNotFound").await?;
    let secret = serde_json::from_value(
        json!({"metadata": {"name": format!("{}-user", sandbox.name)}, "stringData": {"username": "root"}}),
    )?;
    sandbox.secrets().create(&Default::default(), &secret).await?;
    sandbox.registry_condition("Ready", "False", "SecretInvalid").await?;
    let password = json!({"stringData": {"password": "wrong"}});
    sandbox
        .secrets()
        .patch(&format!("{}-user", sandbox.name), &PatchParams::default(), &Patch::Merge(password))
        .await?;
    sandbox.registry_condition("Ready", "False", "AuthFailed").await?;
    sandbox_patch(&sandbox, spec(json!({"auth": null}))).await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn sandbox_patch(sandbox: &Sandbox<'_>, body: Value) -> Result<()> {
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(body)).await?;
    Ok(())
}

/// A setting that the format cannot carry is refused, never ignored, and existing records stay.
async fn not_supported(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "notsupported").await?;
    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    for (n, spec) in [
        json!({"service": {"ports": [{"name": "rpc", "scheme": "grpc"}]}}),
        json!({"service": {"ports": [{"name": "rpc"}, {"name": "b"}]}}),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("odd-{n}");
        sandbox.register(&name, json!({"service": {"name": "echo"}})).await?;
        sandbox.records_become(&name, &[pod.address()]).await?;
        sandbox.patch(&name, spec.clone()).await?;
        sandbox.condition(&name, "Accepted", "False", "NotSupported").await?;
        let records = sandbox.registered_addresses(&name).await?;
        ensure!(records.contains(&pod.address().to_string()), "{spec}: {records:?}");
    }
    sandbox.nothing_foreign_was_touched().await
}
