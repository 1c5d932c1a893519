//! A registry in which nearly all records have names that nobody here asks for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use etcd_client::{PutOptions, Txn, TxnOp};
use serde_json::json;
use twinspan_testbed::{eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, record, stories};

stories![only_names_that_are_asked_for_are_followed];

/// Names of others, with ten records each: more than make a registry a large one.
const NAMES: usize = 2_100;

async fn only_names_that_are_asked_for_are_followed(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::without_registry_object(bed, "crowd", &bed.registry).await?;
    let (mut client, value) = (bed.registry.client().await?, record("10.77.252.1:80").to_string());
    for ten in (0..NAMES).collect::<Vec<_>>().chunks(10) {
        let keys = ten.iter().flat_map(|n| (0..10).map(move |record| (format!("other-{n}"), record)));
        let put =
            |(name, record): (String, usize)| TxnOp::put(sandbox.key(&name, record), value.clone(), None::<PutOptions>);
        client.txn(Txn::new().and_then(keys.map(put).collect::<Vec<_>>())).await.context("the records of others")?;
    }
    sandbox.headless_without_selector("user", 8888).await?;
    sandbox.register("user", json!({})).await?;
    let first = sandbox.vm("user", SocketAddr::from((next_v4(), 9000)), None).await?;
    sandbox.create_registry(json!({})).await?;
    sandbox.imports_become("user", &[first.address()]).await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    follows(&sandbox, 1).await?;
    let second = sandbox.vm("user", SocketAddr::from((next_v4(), 9000)), None).await?;
    sandbox.imports_become("user", &[first.address(), second.address()]).await?;

    // One name more: its Service is exported, and the records of others under it are imported.
    sandbox.headless_on("other-7", 80).await?;
    sandbox.register("other-7", json!({})).await?;
    let pod = sandbox.pod("other-7", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.imports_become("other-7", &["10.77.252.1:80".parse()?]).await?;
    let others: BTreeSet<String> = (0..10).map(|record| record.to_string()).collect();
    let both = others.iter().cloned().chain([pod.address().to_string()]).collect();
    registered(&sandbox, &both).await?;
    follows(&sandbox, 2 + 10).await?;
    // One name less: what was exported under it goes, and nothing else.
    sandbox.unregister("other-7").await?;
    registered(&sandbox, &others).await?;
    sandbox.imports_become("user", &[first.address(), second.address()]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Records with these last segments lie under the other name.
async fn registered(sandbox: &Sandbox<'_>, expected: &BTreeSet<String>) -> Result<()> {
    eventually("the records of the other name", SOON, || async {
        let found = sandbox.registered_addresses("other-7").await?;
        ensure!(found == *expected, "{found:?}, not {expected:?}");
        Ok(())
    })
    .await
}

/// The status counts so many records of others, and says that there are more.
async fn follows(sandbox: &Sandbox<'_>, foreign: i64) -> Result<()> {
    eventually("the status", SOON, || async {
        let status = sandbox.registries().get(&sandbox.name).await?.status.unwrap_or_default();
        let records = status.records.context("no records")?;
        ensure!(records.scope.is_some() && records.foreign == foreign, "{records:?}");
        Ok(())
    })
    .await
}
