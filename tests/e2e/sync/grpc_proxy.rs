//! A registry behind etcd's own gRPC proxy, beside one without: import, export, leases, and sessions at rest.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use twinspan_testbed::{Twinspan, holds, next_v4};

use crate::harness::{Sandbox, Suite, stories};

stories![import_export_and_rest; long: two_minutes_at_rest];

/// Changes in each registry; the median of their delays is compared.
const CHANGES: usize = 11;
/// A service that was quiet for so long is written at once: the passes that follow a write, for its slice and its
/// status, are over by then.
const QUIET: Duration = Duration::from_secs(1);
/// The delay of a change that nobody notices, whatever its ratio.
const UNNOTICED: Duration = Duration::from_millis(150);

/// A silent session is connected again after 20 s.
async fn import_export_and_rest(suite: Arc<Suite>) -> Result<()> {
    behind_the_proxy(suite, Duration::from_secs(25)).await
}

async fn two_minutes_at_rest(suite: Arc<Suite>) -> Result<()> {
    behind_the_proxy(suite, Duration::from_secs(125)).await
}

async fn behind_the_proxy(suite: Arc<Suite>, rest: Duration) -> Result<()> {
    let shared = suite.shared().await?;
    let bed = &shared.bed;
    let etcd = bed.start_registry(&format!("registry-behind-{}", rest.as_secs())).await?;
    let proxy = bed.start_grpc_proxy(&format!("grpc-proxy-{}", rest.as_secs()), &etcd)?;
    let direct = Sandbox::with_registry(bed, "unproxied", &etcd).await?;
    let proxied = Sandbox::without_registry_object(bed, "proxied", &etcd).await?;
    proxied.create_registry(json!({"etcd": {"endpoints": [proxy.endpoint()]}})).await?;
    let both = [&direct, &proxied];
    let mut pods = Vec::new();
    for sandbox in both {
        sandbox.headless("echo").await?;
        sandbox.register("echo", json!({})).await?;
        let pod = sandbox.pod("echo", "pod", 80).await?;
        sandbox.pods.set_ready("pod", true).await?;
        sandbox.records_become("echo", &[pod.address()]).await?;
        sandbox.pods.set_ready("pod", false).await?;
        sandbox.records_become("echo", &[]).await?;
        sandbox.pods.set_ready("pod", true).await?;
        sandbox.records_become("echo", &[pod.address()]).await?;
        pods.push(pod);
    }
    let [without, with] = medians(both).await?;
    ensure!(with <= (without * 3).max(UNNOTICED), "a change took {without:?} without and {with:?} with the proxy");
    for (sandbox, pod) in both.iter().zip(&pods) {
        sandbox.records_become("echo", &[pod.address()]).await?;
    }

    let ended = sessions_ended(&shared.twinspan, &proxied.name)?;
    let records = proxied.records("echo").await?;
    holds("the records", rest, || proxied.records("echo")).await?;
    ensure!(proxied.records("echo").await? == records, "the lease is kept alive through the proxy");
    let now = sessions_ended(&shared.twinspan, &proxied.name)?;
    ensure!(now == ended, "{} sessions ended at rest", now - ended);
    let vm = SocketAddr::from((next_v4(), 9000));
    proxied.put("echo", vm).await?;
    proxied.imports_become("echo", &[vm]).await?;
    direct.nothing_foreign_was_touched().await?;
    proxied.nothing_foreign_was_touched().await
}

/// The median time between a change of a record and that of its endpoint, in each sandbox; registrations and
/// deregistrations alternate. The sandboxes take turns, so that a busy machine slows both.
async fn medians(sandboxes: [&Sandbox<'_>; 2]) -> Result<[Duration; 2]> {
    let vms = [0, 1].map(|_| SocketAddr::from((next_v4(), 9000)));
    for sandbox in sandboxes {
        sandbox.put("echo", vms[0]).await?;
        sandbox.imports_become("echo", &[vms[0]]).await?;
    }
    let mut delays = [Vec::new(), Vec::new()];
    for change in 0..CHANGES {
        tokio::time::sleep(QUIET).await;
        for (sandbox, delays) in sandboxes.iter().zip(&mut delays) {
            delays.push(delay(sandbox, vms, change % 2 == 0).await?);
        }
    }
    for (sandbox, vm) in sandboxes.iter().flat_map(|sandbox| vms.map(|vm| (sandbox, vm))) {
        sandbox.registry.delete(&sandbox.key("echo", vm)).await?;
    }
    for sandbox in sandboxes {
        sandbox.imports_become("echo", &[]).await?;
    }
    Ok(delays.map(|mut delays| {
        delays.sort();
        delays[CHANGES / 2]
    }))
}

/// The time until the second server is an endpoint, or is none any more.
async fn delay(sandbox: &Sandbox<'_>, vms: [SocketAddr; 2], registers: bool) -> Result<Duration> {
    let expected = if registers { BTreeSet::from(vms) } else { BTreeSet::from([vms[0]]) };
    let began = Instant::now();
    if registers {
        sandbox.put("echo", vms[1]).await?;
    } else {
        sandbox.registry.delete(&sandbox.key("echo", vms[1])).await?;
    }
    while sandbox.imported("echo").await? != expected {
        ensure!(began.elapsed() < Duration::from_secs(15), "a change is not seen within 15 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(began.elapsed())
}

/// The number of sessions of a registry that have ended, from the log.
fn sessions_ended(twinspan: &Twinspan, registry: &str) -> Result<usize> {
    let log = std::fs::read_to_string(twinspan.part().log())?;
    Ok(log.lines().filter(|line| line.contains("session ended") && line.contains(registry)).count())
}
