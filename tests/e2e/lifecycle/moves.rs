//! Moves: a RegisteredService that refers to another registry is put there before it is withdrawn from the former one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use twinspan_testbed::{Etcd, eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![to_a_registry_that_is_down, not_allowed_in_the_former_registry];

/// A second ServiceRegistry of the sandbox, with the same settings.
async fn second(sandbox: &Sandbox<'_>, etcd: &Etcd) -> Result<String> {
    let name = format!("{}-new", sandbox.name);
    let mut object = sandbox.registries().get(&sandbox.name).await?;
    object.metadata = serde_json::from_value(json!({"name": name}))?;
    object.status = None;
    object.spec.etcd.endpoints = vec![etcd.endpoint().to_owned()];
    sandbox.registries().create(&PostParams::default(), &object).await?;
    Ok(name)
}

async fn pod(sandbox: &Sandbox<'_>, name: &str) -> Result<SocketAddr> {
    let address = SocketAddr::from((next_v4(), 80));
    sandbox.pods.run(name, &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[address.ip()]).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(address)
}

/// The keys of `echo` in another etcd become these addresses.
async fn records_become(sandbox: &Sandbox<'_>, etcd: &Etcd, expected: &[SocketAddr]) -> Result<()> {
    let expected: Vec<String> = expected.iter().map(|address| sandbox.key("echo", address)).collect();
    eventually("the records in the new registry", SOON, || async {
        let found = etcd.dump(&sandbox.key("echo", "")).await?;
        ensure!(found.len() == expected.len() && expected.iter().all(|key| found.contains_key(key)), "{found:?}");
        Ok(())
    })
    .await
}

/// All pods are replaced while the new registry is down; the former one follows, and is emptied once the new one has
/// all.
async fn to_a_registry_that_is_down(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "moving").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let old = [pod(&sandbox, "a").await?, pod(&sandbox, "b").await?];
    sandbox.records_become("echo", &old).await?;
    let etcd = bed.start_registry("registry-moved-to").await?;
    etcd.part().freeze()?;
    let new = second(&sandbox, &etcd).await?;

    sandbox.patch("echo", json!({"registryRef": {"name": new}})).await?;
    sandbox.condition("echo", "Exported", "Unknown", "RegistryUnavailable").await?;
    holds("the former records", std::time::Duration::from_secs(3), || async { sandbox.records("echo").await }).await?;
    sandbox.records_become("echo", &old).await?;
    for name in ["a", "b"] {
        sandbox.pods.set_ready(name, false).await?;
    }
    sandbox.records_become("echo", &[]).await?;
    let all = [pod(&sandbox, "c").await?, pod(&sandbox, "d").await?, pod(&sandbox, "e").await?];
    sandbox.records_become("echo", &all).await?;

    etcd.part().thaw()?;
    records_become(&sandbox, &etcd, &all).await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    // A registry that does not exist, and back again.
    sandbox.patch("echo", json!({"registryRef": {"name": "nowhere"}})).await?;
    sandbox.condition("echo", "Accepted", "False", "RegistryNotFound").await?;
    sandbox.pods.set_ready("c", false).await?;
    sandbox.pods.set_ready("a", true).await?;
    records_become(&sandbox, &etcd, &[all[1], all[2], old[0]]).await?;
    sandbox.patch("echo", json!({"registryRef": {"name": sandbox.name}})).await?;
    sandbox.records_become("echo", &[all[1], all[2], old[0]]).await?;
    records_become(&sandbox, &etcd, &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn not_allowed_in_the_former_registry(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "movedout").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let address = pod(&sandbox, "a").await?;
    sandbox.records_become("echo", &[address]).await?;
    sandbox.patch("echo", json!({"registryRef": {"name": "nowhere"}})).await?;
    sandbox.condition("echo", "Accepted", "False", "RegistryNotFound").await?;
    sandbox.records_become("echo", &[address]).await?;
    let patch = json!({"spec": {"allowed": []}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}
