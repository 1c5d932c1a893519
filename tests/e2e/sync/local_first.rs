//! Two clusters on one etcd, of which one prefers its own instances.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::Instant;
use twinspan_testbed::{TwinspanOptions, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, part_name, stories};

stories![others_answer_while_this_clusters_own_are_gone];

/// A second, doubled on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long others stay after enough are back.
const STAY: Duration = Duration::from_secs(30);

/// A ready pod of `echo`, without a process.
async fn pod(sandbox: &Sandbox<'_>, name: &str) -> Result<SocketAddr> {
    let address = SocketAddr::from((next_v4(), 80));
    sandbox.run(name, &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), address.ip()).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(address)
}

/// The SRV answers become these within the time.
async fn answers_become(sandbox: &Sandbox<'_>, expected: &[SocketAddr], within: Duration) -> Result<()> {
    let expected: BTreeSet<SocketAddr> = expected.iter().map(|addr| sandbox.in_services(*addr)).collect();
    eventually("the SRV answers", within, || async {
        let found = sandbox.bed.dns.srv_addresses(&sandbox.srv_name("echo")).await?;
        ensure!(found == expected, "DNS answers {found:?}, want {expected:?}");
        Ok(())
    })
    .await
}

/// The local three are killed, the others answer in DNS within a second, and go back 30 s after they return. None of it
/// is a departure.
async fn others_answer_while_this_clusters_own_are_gone(suite: Arc<Suite>) -> Result<()> {
    let (here, there) = tokio::try_join!(suite.own_bed(), suite.own_bed())?;
    let twinspan = here.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    let other = there.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    other.ready().await?;
    let registry = here.start_registry(&part_name("registry-local-first")).await?;
    let one = Sandbox::with_registry(&here, "localfirst", &registry).await?;
    one.registry_condition("Ready", "True", "Connected").await?;
    let two = one.twin(&there).await?;
    two.create_registry(json!({})).await?;
    for sandbox in [&one, &two] {
        sandbox.headless("echo").await?;
    }
    let clusters = json!({"preference": "LocalFirst", "minLocal": 1});
    one.register("echo", json!({"import": {"otherClusters": "All", "clusters": clusters}})).await?;
    two.register("echo", json!({})).await?;
    let (a, b, vm) = (pod(&one, "a").await?, pod(&one, "b").await?, SocketAddr::from((next_v4(), 9000)));
    one.put("echo", vm).await?;
    let (x, y) = (pod(&two, "x").await?, pod(&two, "y").await?);
    one.records_become("echo", &[a, b, vm, x, y]).await?;
    one.dns_becomes("echo", &[a, b, vm]).await?;
    eventually("the others stand by", SOON, || async {
        let status = one.registered().get("echo").await?.status.unwrap_or_default();
        ensure!(status.instances.skipped == 2, "{status:?}");
        ensure!(status.differences.iter().all(|difference| difference.reason == "Standby"), "{status:?}");
        Ok(())
    })
    .await?;
    one.imports_become("echo", &[vm]).await?;
    // The leader of the second cluster finds the epoch of the first one as it takes over.
    let id = one.registries().get(&one.name).await?.status.and_then(|status| status.cluster_id);
    eventually("the clusters that share the registry", SOON, || async {
        let status = two.registries().get(&two.name).await?.status.unwrap_or_default();
        ensure!(status.clusters == [id.clone().context("an ID")?], "{status:?}");
        Ok(())
    })
    .await?;

    let key = one.key("echo", vm);
    tokio::try_join!(one.pods.remove("a"), one.pods.remove("b"), registry.delete(&key))?;
    answers_become(&one, &[x, y], AT_ONCE).await?;
    one.imports_become("echo", &[x, y]).await?;

    let back = Instant::now();
    let (a, b) = (pod(&one, "a-again").await?, pod(&one, "b-again").await?);
    one.put("echo", vm).await?;
    answers_become(&one, &[a, b, vm, x, y], SOON).await?;
    answers_become(&one, &[a, b, vm], STAY + SOON).await?;
    ensure!(back.elapsed() >= STAY, "they left after {:?}", back.elapsed());
    one.imports_become("echo", &[vm]).await?;

    let object = one.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    let counts = object.status.unwrap_or_default().instances;
    ensure!((counts.held, counts.lost, counts.healed) == (0, 0, 0), "{counts:?}");
    for metric in ["twinspan_held_deletions", "twinspan_lost_instances"] {
        ensure!(twinspan.metric(metric).await? == Some(0.0), "{metric}");
    }
    let events = one.events("echo").await?;
    let untold = ["DeletionsHeld", "LostRegistration", "InstanceSkipped"];
    ensure!(events.iter().all(|(reason, _)| !untold.contains(&reason.as_str())), "{events:?}");
    let lost = |note: &str| note.starts_with("imported ") && !note.contains(" -0;") && !note.contains(" -1;");
    ensure!(!events.iter().any(|(_, note)| lost(note)), "two stood back, and nothing was lost: {events:?}");
    two.nothing_foreign_was_touched().await?;
    one.nothing_foreign_was_touched().await
}
