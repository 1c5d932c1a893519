//! Rollouts: a pod with the readiness gate `twinspan.dev/registered` is ready once its record is in the registry, and
//! no pod waits for a record that nobody writes.
//!
//! - [`drain`]: pods that end, and are answered once their records are gone.
//! - [`scene`]: a cluster whose operator may open gates, and gated pods.
//! - [`policy`]: what somebody with the operator's token can do to the status of a pod.

mod drain;
mod policy;
mod scene;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use twinspan_testbed::{TwinspanOptions, eventually, holds};

use self::scene::Scene;
use crate::harness::{Suite, stories};

stories![
    from_the_first_record_to_the_last_gate,
    without_the_permission_nothing_is_asked;
    modules: drain, policy,
];

/// One control plane for all: each step begins where the one before ended.
async fn from_the_first_record_to_the_last_gate(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let scene = Scene::new(&bed).await?;
    a_pod_is_registered_before_it_is_ready(&scene).await?;
    nobody_waits_for_what_nobody_writes(&scene).await?;
    while_the_registry_is_frozen_pods_wait(&scene).await?;
    scene.sandbox.nothing_foreign_was_touched().await
}

async fn a_pod_is_registered_before_it_is_ready(scene: &Scene<'_>) -> Result<()> {
    let sandbox = &scene.sandbox;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({})).await?;
    // Another gate is not ours, and comes first.
    let first = scene.pod_with("echo", "echo-a", &["example.com/other"], json!({})).await?;
    scene.stays_closed("echo-a", Duration::from_secs(3)).await?;
    ensure!(sandbox.registered_addresses("echo").await?.is_empty(), "it is not ready for another reason");
    sandbox.pods.condition("echo-a", "example.com/other", true, "").await?;
    let before = scene.opened("echo-a", "Registered").await?;
    let records = sandbox.records("echo").await?;
    ensure!(records.contains_key(&sandbox.key("echo", first)), "the gate opens after the record: {records:?}");
    ensure!(bed_dns(scene, "echo").await?.is_empty(), "its kubelet has not looked yet, and DNS does not have it");
    // The version after the gate still stands for a pod that is not ready: its record stays.
    holds("the record stays", Duration::from_secs(2), || async {
        ensure!(sandbox.records("echo").await?.contains_key(&sandbox.key("echo", first)));
        Ok(())
    })
    .await?;
    ensure!(sandbox.pods.kubelet("echo-a").await?, "every gate is open");
    sandbox.dns_becomes("echo", &[first]).await?;
    ensure!(sandbox.records("echo").await? == records, "its record stays while the slice is behind the pod");
    ensure!(scene.gate("echo-a").await? == Some(before), "it is written once");
    // A pod that is not ready any more leaves, gate or not, and the gate stays open.
    sandbox.pods.condition("echo-a", "ContainersReady", false, "").await?;
    sandbox.pods.kubelet("echo-a").await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.pods.condition("echo-a", "ContainersReady", true, "").await?;
    sandbox.pods.kubelet("echo-a").await?;
    sandbox.records_become("echo", &[first]).await?;
    // A Node that is lost makes its pods unready, and says no reason.
    sandbox.pods.condition("echo-a", "Ready", false, "").await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.pods.kubelet("echo-a").await?;
    sandbox.records_become("echo", &[first]).await?;
    // Two RegisteredServices select one pod: it waits for both.
    sandbox.register("canary", json!({"service": {"name": "echo"}, "registryName": "canary"})).await?;
    let second = scene.pod("echo", "echo-b").await?;
    scene.opened("echo-b", "Registered").await?;
    for name in ["echo", "canary"] {
        let records = sandbox.records(name).await?;
        ensure!(records.contains_key(&sandbox.key(name, second)), "{name}: {records:?}");
    }
    sandbox.unregister("canary").await
}

async fn bed_dns(scene: &Scene<'_>, service: &str) -> Result<Vec<SocketAddr>> {
    let found = scene.sandbox.bed.dns.srv_addresses(&scene.sandbox.srv_name(service)).await;
    Ok(found.map(|all| all.into_iter().collect()).unwrap_or_default())
}

async fn nobody_waits_for_what_nobody_writes(scene: &Scene<'_>) -> Result<()> {
    let sandbox = &scene.sandbox;
    scene.pod("nothing-selects-it", "alone").await?;
    scene.opened("alone", "NotSelected").await?;
    for (name, spec, reason) in [
        ("import-only", json!({"direction": "Import"}), "ImportOnly"),
        ("observe", json!({"policy": "Observe"}), "Observed"),
        ("suspended", json!({"suspend": true}), "Suspended"),
        ("balanced", json!({"export": {"address": "LoadBalancer"}}), "AddressNotPod"),
        ("refused", json!({"registryRef": {"name": "there-is-none"}}), "NotAccepted"),
    ] {
        sandbox.headless(name).await?;
        sandbox.register(name, spec).await?;
        sandbox.seen(name).await?;
        scene.pod(name, name).await?;
        scene.opened(name, reason).await?;
        ensure!(sandbox.registered_addresses(name).await?.is_empty(), "{name}");
    }
    // Somebody else's record has the key that ours would have.
    sandbox.headless("taken").await?;
    let ip = twinspan_testbed::next_v4();
    sandbox.registry.put(&sandbox.key("taken", SocketAddr::from((ip, 80))), "no record at all").await?;
    sandbox.register("taken", json!({})).await?;
    sandbox.seen("taken").await?;
    scene.pod_at("taken", "taken", ip, &[], json!({})).await?;
    scene.opened("taken", "Refused").await?;
    // Its own server registered it before.
    sandbox.headless("itself").await?;
    let ip = twinspan_testbed::next_v4();
    sandbox.put("itself", SocketAddr::from((ip, 80))).await?;
    sandbox.register("itself", json!({})).await?;
    sandbox.seen("itself").await?;
    scene.pod_at("itself", "itself", ip, &[], json!({})).await?;
    scene.opened("itself", "SelfRegistered").await?;
    Ok(())
}

async fn while_the_registry_is_frozen_pods_wait(scene: &Scene<'_>) -> Result<()> {
    let frozen = scene.sandbox.registry.part();
    scene.sandbox.headless("frozen").await?;
    scene.sandbox.register("frozen", json!({})).await?;
    let known = scene.pod("frozen", "before").await?;
    scene.opened("before", "Registered").await?;
    scene.sandbox.pods.kubelet("before").await?;
    frozen.freeze()?;
    let result = async {
        let waits = scene.pod("frozen", "waits").await?;
        let timeout = json!({"twinspan.dev/registered-timeout": "8s"});
        let hurries = scene.pod_with("frozen", "hurries", &[], timeout).await?;
        scene.opened("hurries", "TimedOut").await?;
        scene.event("hurries", "GateTimedOut").await?;
        // A new leader goes on where the one before ended; it has not even a list.
        scene.restart().await?;
        scene.stays_closed("waits", Duration::from_secs(12)).await?;
        anyhow::Ok((waits, hurries))
    }
    .await;
    frozen.thaw()?;
    let (waits, hurries) = result?;
    scene.opened("waits", "Registered").await?;
    scene.sandbox.pods.kubelet("waits").await?;
    scene.sandbox.pods.kubelet("hurries").await?;
    scene.sandbox.records_become("frozen", &[known, waits, hurries]).await?;
    scene.sandbox.dns_becomes("frozen", &[known, waits, hurries]).await
}

/// The operator without the flag never asks for a permission that it does not have; gated pods are exported, and wait.
async fn without_the_permission_nothing_is_asked(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let scene = Scene::without_permission(&bed, &TwinspanOptions::default()).await?;
    let sandbox = &scene.sandbox;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({})).await?;
    let pod = scene.pod("echo", "a").await?;
    sandbox.records_become("echo", &[pod]).await?;
    scene.stays_closed("a", Duration::from_secs(3)).await?;
    eventually("the log says why", Duration::from_secs(10), || async {
        ensure!(scene.log().await?.contains("rollouts.enabled"));
        Ok(())
    })
    .await?;
    let asked = crate::safety::audit::audited(&bed)?;
    let gates = asked.iter().filter(|event| event["objectRef"]["subresource"] == "status");
    ensure!(gates.filter(|event| event["objectRef"]["resource"] == "pods").count() == 0, "it asked");
    crate::safety::audit::no_denied_requests(&bed)?;
    sandbox.nothing_foreign_was_touched().await
}
