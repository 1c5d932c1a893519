//! Values of any size under a watched prefix, from somebody who may write there.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use twinspan_testbed::{Twinspan, TwinspanOptions, eventually, namespace, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![two_hundred_values_of_1_4_mb];

const VALUES: usize = 200;
const BYTES: usize = 1_400_000;
/// The memory limit of the chart.
const LIMIT_KB: usize = 512 * 1024;

/// They take 280 MB of etcd, and neither stop the other names nor fill the operator's memory: not as changes, and not
/// as a list at a start.
async fn two_hundred_values_of_1_4_mb(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let (sandbox, other) = (Sandbox::new(bed, "large").await?, Sandbox::new(bed, "besides").await?);
    for sandbox in [&sandbox, &other] {
        sandbox.headless("echo").await?;
        sandbox.register("echo", json!({})).await?;
        let pod = sandbox.pod("echo", "pod", 80).await?;
        sandbox.pods.set_ready("pod", true).await?;
        sandbox.records_become("echo", &[pod.address()]).await?;
    }
    let own = [sandbox.records("echo").await?, other.records("echo").await?];

    let mut client = bed.registry.client().await?;
    let value = "x".repeat(BYTES);
    for n in 0..VALUES {
        client.put(sandbox.key("echo-large", n), value.as_str(), None).await?;
    }
    go_on(&sandbox, &other).await?;
    ensure!(peak_kb(&first)? < LIMIT_KB, "{} kB as changes", peak_kb(&first)?);
    let undecodable = format!("twinspan_records{{registry=\"{}\",kind=\"undecodable\"}}", sandbox.name);
    all_known(&first, &undecodable).await?;

    first.part().stop().await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    all_known(&second, &undecodable).await?;
    go_on(&sandbox, &other).await?;
    ensure!(peak_kb(&second)? < LIMIT_KB, "{} kB as a list", peak_kb(&second)?);
    for (before, sandbox) in own.iter().zip([&sandbox, &other]) {
        let now = sandbox.records("echo").await?;
        ensure!(before.iter().all(|(key, record)| now.get(key) == Some(record)), "own records were written: {now:?}");
    }
    sandbox.nothing_foreign_was_touched().await?;
    other.nothing_foreign_was_touched().await
}

/// Their keys are known, without their values.
async fn all_known(twinspan: &Twinspan, undecodable: &str) -> Result<()> {
    eventually(undecodable, SOON, || async {
        let count = twinspan.metric(undecodable).await?.context("no such metric")?;
        ensure!(count >= VALUES as f64, "{count}");
        Ok(())
    })
    .await
}

/// Import goes on under both prefixes.
async fn go_on(sandbox: &Sandbox<'_>, other: &Sandbox<'_>) -> Result<()> {
    for sandbox in [sandbox, other] {
        let vm = SocketAddr::from((next_v4(), 9000));
        let mut expected: Vec<SocketAddr> = sandbox.imported("echo").await?.into_iter().collect();
        expected.push(vm);
        sandbox.put("echo", vm).await?;
        sandbox.imports_become("echo", &expected).await?;
    }
    Ok(())
}

/// The largest resident set so far (`VmHWM`).
fn peak_kb(twinspan: &Twinspan) -> Result<usize> {
    let status = namespace::process_status(twinspan.part().pid()?)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
