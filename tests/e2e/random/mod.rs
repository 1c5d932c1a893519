//! A long random run: two replicas, killed and frozen now and then, against thousands of operations.
//!
//! - [`driver`]: makes the operations. [`witness`]: a second watcher, and the registry's own log.
//! - [`check`]: the invariants over the records of the witness.
//!
//! Owns the seed and the length of a run. Refuses to judge by Twinspan's own words.

mod check;
mod driver;
mod witness;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use etcd_client::{Txn, TxnOp};
use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::harness::{Sandbox, Suite, record};
use check::Kind;
use driver::Driver;
use witness::Witness;

pub fn stories(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.story("random::1000_operations", |suite| run(suite, 1_000, true)),
        suite.story("random::1000_operations_without_a_prefix", |suite| run(suite, 1_000, false)),
        suite.long_story("random::10000_operations", |suite| run(suite, 10_000, true)),
    ]
}

async fn run(suite: Arc<Suite>, operations: usize, prefix: bool) -> Result<()> {
    let seed = std::env::var("TWINSPAN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("random: TWINSPAN_SEED={seed} runs the same operations again");
    happens(suite, operations, prefix, seed).await.with_context(|| format!("with TWINSPAN_SEED={seed}"))
}

async fn happens(suite: Arc<Suite>, operations: usize, prefix: bool, seed: u64) -> Result<()> {
    let bed = suite.own_bed().await?;
    // The log of this etcd names every request.
    let registry = bed.start_registry_with("registry-random", &["--log-level=debug"]).await?;
    let witness = Witness::start(&registry).await?;
    let sandbox = if prefix {
        Sandbox::with_registry(&bed, "random", &registry).await?
    } else {
        Sandbox::without_prefix(&bed, "random", &registry).await?
    };
    let mut driver = Driver::start(&sandbox, StdRng::seed_from_u64(seed)).await?;
    for _ in 0..operations {
        driver.step().await?;
    }
    driver.comes_to_rest().await?;
    sandbox.nothing_foreign_was_touched().await?;

    audits_found_nothing(bed.dir())?;

    let written = driver.written().await?;
    let history = witness.history().await?;
    let (events, requests) = (history.events.len(), history.requests.len());
    ensure!(events > operations / 2 && requests > operations / 2, "{events} events, {requests} requests");
    let violations = check::check(&history, &written);
    let seen: Vec<&str> = violations.iter().take(5).map(|violation| violation.seen.as_str()).collect();
    ensure!(violations.is_empty(), "{} violations: {seen:#?}", violations.len());
    eprintln!(
        "random: {operations} operations, {events} events, {requests} write requests, {} restarts",
        driver.restarts
    );

    // The check itself is tested: three violations, each made on the real registry, are found, and nothing else.
    plant(&sandbox).await?;
    let found: Vec<Kind> = check::check(&witness.history().await?, &written).iter().map(|v| v.kind).collect();
    ensure!(found == [Kind::ForeignTouched, Kind::NoLease, Kind::Unfenced], "{found:?}");
    Ok(())
}

/// No replica, whether it still runs or not, found a difference in an audit.
fn audits_found_nothing(dir: &Path) -> Result<()> {
    let mut audits = 0;
    for file in
        std::fs::read_dir(dir)?.flatten().filter(|file| file.file_name().to_string_lossy().starts_with("twinspan-"))
    {
        let log = std::fs::read_to_string(file.path())?;
        let found: Vec<&str> = log.lines().filter(|line| line.contains("found by the audit")).take(5).collect();
        ensure!(found.is_empty(), "{found:#?}");
        audits += log.lines().filter(|line| line.contains("audited")).count();
    }
    ensure!(audits > 0, "there were audits");
    Ok(())
}

/// Makes the forbidden writes by hand, in the name of Twinspan.
async fn plant(sandbox: &Sandbox<'_>) -> Result<()> {
    let mut client = sandbox.registry.client().await?;
    let fence = client.get("twinspan/", Some(etcd_client::GetOptions::new().with_prefix())).await?;
    let fence = fence.kvs().first().context("no epoch")?.clone();
    let fenced = || {
        let compare = etcd_client::Compare::value(fence.key(), etcd_client::CompareOp::Equal, fence.value());
        Txn::new().when([compare])
    };
    let foreign = format!("{}/bystander/10.77.250.1:7000", sandbox.name);
    client.txn(fenced().and_then([TxnOp::delete(foreign, None)])).await?;
    let own = record("10.77.250.9:80").tags(json!({"twinspan.dev/owner": "x/y/z"}));
    let key = sandbox.key("planted", "10.77.250.9:80");
    client.txn(fenced().and_then([TxnOp::put(key.as_str(), own.to_string(), None)])).await?;
    let lease = client.lease_grant(600, None).await?.id();
    let leased = Some(etcd_client::PutOptions::new().with_lease(lease));
    client.txn(Txn::new().and_then([TxnOp::put(key.as_str(), own.to_string(), leased)])).await?;
    Ok(())
}

/// A number below `n`.
fn below(rng: &mut StdRng, n: usize) -> usize {
    usize::try_from(rng.next_u64() % n.max(1) as u64).unwrap_or_default()
}
