//! Cluster → registry: ready pods of a Service are found by Kitex clients that know nothing but etcd.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use crate::harness::{Corner, SOON, Suite, stories};

stories![pods_come_and_go];

async fn pods_come_and_go(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "export").await?;
    corner.selector_service("echo", 8888).await?;
    corner.register("echo", json!({"registryName": "douyinec.user"})).await?;

    let a = corner.pod("echo", "a", 8888).await?;
    let b = corner.pod("echo", "b", 8888).await?;
    corner.pods.set_ready("a", true).await?;
    corner.records_become(&bed.registry, "douyinec.user", &[a.address()]).await?;
    let client = corner.kitex_client("douyinec.user")?;
    client.answered_by(&[a.address()].into(), SOON).await?;

    // A client that was already running finds the second pod.
    corner.pods.set_ready("b", true).await?;
    corner.records_become(&bed.registry, "douyinec.user", &[a.address(), b.address()]).await?;
    client.answered_by(&[a.address(), b.address()].into(), SOON).await?;

    // Not ready, terminating, deleted: each leaves.
    corner.pods.set_ready("a", false).await?;
    corner.records_become(&bed.registry, "douyinec.user", &[b.address()]).await?;
    client.answered_by(&[b.address()].into(), SOON).await?;
    corner.pods.set_ready("a", true).await?;
    corner.records_become(&bed.registry, "douyinec.user", &[a.address(), b.address()]).await?;
    corner.pods.terminate("b").await?;
    corner.records_become(&bed.registry, "douyinec.user", &[a.address()]).await?;
    corner.pods.remove("b").await?;
    corner.pods.remove("a").await?;
    corner.records_become(&bed.registry, "douyinec.user", &[]).await?;

    let object = corner.condition("echo", "Ready", "True", "Synced").await?;
    anyhow::ensure!(object.status.as_ref().is_some_and(|s| s.observed_generation == object.metadata.generation));
    corner.nothing_foreign_was_touched(&bed.registry).await
}
