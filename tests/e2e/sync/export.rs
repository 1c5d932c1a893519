//! Export, cluster → registry: Kitex clients that know only etcd find the ready pods of a Service.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![pods_come_and_go];

async fn pods_come_and_go(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "export").await?;
    sandbox.selector_service("echo", 8888).await?;
    sandbox.register("echo", json!({"registryName": "douyinec.user"})).await?;

    let a = sandbox.pod("echo", "a", 8888).await?;
    let b = sandbox.pod("echo", "b", 8888).await?;
    sandbox.pods.set_ready("a", true).await?;
    sandbox.records_become("douyinec.user", &[a.address()]).await?;
    let client = sandbox.kitex_client("douyinec.user")?;
    client.answered_by(&[a.address()].into(), SOON).await?;

    // A client that was already running finds the second pod.
    sandbox.pods.set_ready("b", true).await?;
    sandbox.records_become("douyinec.user", &[a.address(), b.address()]).await?;
    client.answered_by(&[a.address(), b.address()].into(), SOON).await?;

    // A pod that is not ready, terminating or deleted leaves.
    sandbox.pods.set_ready("a", false).await?;
    sandbox.records_become("douyinec.user", &[b.address()]).await?;
    client.answered_by(&[b.address()].into(), SOON).await?;
    sandbox.pods.set_ready("a", true).await?;
    sandbox.records_become("douyinec.user", &[a.address(), b.address()]).await?;
    sandbox.pods.terminate("b").await?;
    sandbox.records_become("douyinec.user", &[a.address()]).await?;
    sandbox.pods.remove("b").await?;
    sandbox.pods.remove("a").await?;
    sandbox.records_become("douyinec.user", &[]).await?;

    let object = sandbox.condition("echo", "Ready", "True", "Synced").await?;
    anyhow::ensure!(object.status.as_ref().is_some_and(|s| s.observed_generation == object.metadata.generation));
    sandbox.nothing_foreign_was_touched().await
}
