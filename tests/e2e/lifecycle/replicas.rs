//! Restart, failover and stop: with nothing changed, nothing is written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use twinspan_testbed::{Bed, Etcd, OPERATOR_NAMESPACE, TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![a_restart_changes_nothing, a_second_release_refuses_to_start, observe_and_suspend_write_nothing];

/// The default of `spec.fence.keyPrefix`.
const EPOCHS: &str = "twinspan/";

/// The counter of the only epoch.
async fn epoch(registry: &Etcd) -> Result<u64> {
    let mut epochs = registry.dump(EPOCHS).await?;
    epochs.retain(|key, _| !key.ends_with("//incarnation"));
    ensure!(epochs.len() == 1, "{epochs:?}");
    let (_, (value, ..)) = epochs.pop_first().context("one")?;
    Ok(value.split('/').next().context("a counter")?.parse()?)
}

type Versions = (BTreeMap<String, i64>, BTreeMap<String, String>);

/// `mod_revision` of every key but the epochs, and `resourceVersion` of every slice.
async fn versions(sandbox: &Sandbox<'_>) -> Result<Versions> {
    let all = sandbox.registry.dump("").await?.into_iter().filter(|(key, _)| !key.starts_with(EPOCHS));
    let records = all.map(|(key, (_, revision, _))| (key, revision)).collect();
    let slices = sandbox.slices().list(&Default::default()).await?;
    let slices = slices
        .items
        .into_iter()
        .map(|s| (s.metadata.name.unwrap_or_default(), s.metadata.resource_version.unwrap_or_default()));
    Ok((records, slices.collect()))
}

/// 50 instances on mixed ports, both ways.
async fn fifty(bed: &Bed) -> Result<(Sandbox<'_>, Vec<SocketAddr>)> {
    let sandbox = Sandbox::new(bed, "fifty").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    let mut all = Vec::new();
    for n in 0..20 {
        let ip = next_v4();
        let name = format!("pod-{n}");
        sandbox.pods.run(&name, &labels, &[ip.into()]).await?;
        sandbox.pods.set_ready(&name, true).await?;
        all.push(SocketAddr::from((ip, 80)));
    }
    let mut imported = Vec::new();
    for n in 0..30u16 {
        let address = SocketAddr::from((next_v4(), 9000 + n % 7));
        sandbox.put("echo", address).await?;
        imported.push(address);
    }
    sandbox.imports_become("echo", &imported).await?;
    all.extend(imported);
    sandbox.records_become("echo", &all).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    Ok((sandbox, all))
}

async fn a_restart_changes_nothing(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let (sandbox, _) = fifty(&bed).await?;
    let before = versions(&sandbox).await?;
    let epoch_before = epoch(&bed.registry).await?;
    ensure!(before.0.len() >= 50 && before.1.len() >= 8, "{before:?}");

    // Stopped as Kubernetes stops it: the process ends by itself and releases its Lease.
    first.part().stop().await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    eventually("the successor leads at once", Duration::from_secs(10), || async {
        ensure!(second.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    let watched = || async { versions(&sandbox).await };
    ensure!(watched().await? == before, "the restart changed something:\n{before:?}\n{:?}", watched().await?);
    holds("records and slices after a restart", Duration::from_secs(30), watched).await?;
    ensure!(watched().await? == before);
    let epoch_after = epoch(&bed.registry).await?;
    ensure!(epoch_after > epoch_before, "{epoch_after} after {epoch_before}");
    let log = std::fs::read_to_string(second.part().log())?;
    let lists = log.lines().filter(|line| line.contains("listed registry=")).count();
    ensure!(lists == 1, "{lists} lists of a registry in which nothing happened");

    // A second replica stands by with warm views and takes over when the first is killed. It writes nothing either.
    let third = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    third.ready().await?;
    ensure!(third.metric("twinspan_leader").await? == Some(0.0));
    second.part().kill().await?;
    eventually("the standby leads", Duration::from_secs(40), || async {
        ensure!(third.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    eventually("it raises the epoch", SOON, || async {
        let now = epoch(&bed.registry).await?;
        ensure!(now > epoch_after, "{now} after {epoch_after}");
        Ok(())
    })
    .await?;
    ensure!(watched().await? == before, "the failover changed something");
    // The new leader synchronises.
    sandbox.pods.set_ready("pod-0", false).await?;
    eventually("the new leader syncs", SOON, || async {
        let count = sandbox.registered_addresses("echo").await?.len();
        ensure!(count == 49, "{count} records");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn a_second_release_refuses_to_start(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let options = TwinspanOptions { namespace: Some("elsewhere".to_owned()), ..TwinspanOptions::default() };
    let second = bed.start_twinspan(TWINSPAN, &options)?;
    let error = eventually("it ends", SOON, || async { second.part().check_running().err().context("it runs") })
        .await?
        .to_string();
    let why = format!("another release of Twinspan runs in namespace {OPERATOR_NAMESPACE}");
    ensure!(error.contains("exit status: 1") && error.contains(&why), "{error}");
    // The first release goes on, and no request was denied.
    suite.shared().await?.twinspan.ready().await?;
    crate::safety::audit::no_denied_requests(bed)
}

async fn observe_and_suspend_write_nothing(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "passive").await?;
    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({"policy": "Observe"})).await?;
    // Observe: status says what would be written, and nothing is written.
    let object = sandbox.condition("echo", "Exported", "False", "NotWritten").await?;
    let counts = object.status.unwrap_or_default().instances;
    ensure!((counts.cluster, counts.exported, counts.pending) == (1, 0, Some(1)), "{counts:?}");
    // Nobody waits for what nobody asked for.
    sandbox.condition("echo", "Ready", "True", "Observing").await?;
    ensure!(sandbox.records("echo").await?.is_empty());
    sandbox.patch("echo", json!({"policy": "Sync"})).await?;
    sandbox.records_become("echo", &[pod.address()]).await?;

    // Suspended: records stay, whatever happens.
    sandbox.patch("echo", json!({"suspend": true})).await?;
    sandbox.seen("echo").await?;
    sandbox.pods.set_ready("pod", false).await?;
    sandbox.condition("echo", "Exported", "False", "NotWritten").await?;
    sandbox.condition("echo", "Ready", "True", "Suspended").await?;
    holds("the record while suspended", Duration::from_secs(2), || async { sandbox.records("echo").await }).await?;
    sandbox.patch("echo", json!({"suspend": false})).await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}
