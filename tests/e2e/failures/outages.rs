//! Outages: one side is unreachable for a while. Nothing is lost or deleted, conditions say so, and sync continues
//! without a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::api::ListParams;
use serde_json::json;
use twinspan::api::RegisteredServiceStatus;
use twinspan_testbed::{TwinspanOptions, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![
    the_registry_is_down_at_start,
    the_registry_is_away_for_20_s,
    the_registry_comes_back_empty,
    statuses_cost_no_passes;
    long: many_records_are_put_back_at_once, the_registry_is_away_for_90_s, the_api_server_is_away_for_two_lease_ttls,
];

async fn the_registry_is_away_for_20_s(suite: Arc<Suite>) -> Result<()> {
    registry_away(suite, Duration::from_secs(20)).await
}

async fn the_registry_is_away_for_90_s(suite: Arc<Suite>) -> Result<()> {
    registry_away(suite, Duration::from_secs(90)).await
}

async fn the_registry_is_down_at_start(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "downatstart").await?;
    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.records_become("echo", &[vm, pod.address()]).await?;

    // Twinspan starts while the registry is down: it does not know the records, and must conclude nothing.
    first.part().stop().await?;
    bed.registry.part().kill().await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    sandbox.registry_condition("Connected", "False", "Unreachable").await?;
    sandbox.condition("echo", "Exported", "Unknown", "RegistryUnavailable").await?;
    sandbox.condition("echo", "Ready", "False", "RegistryUnavailable").await?;
    sandbox.register("late", json!({"service": {"name": "echo"}})).await?;
    sandbox.condition("late", "Ready", "False", "RegistryUnavailable").await?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let found = sandbox.imported("echo").await?;
        ensure!(found == BTreeSet::from([vm]), "imported {found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bed.registry.start_again().await?;
    sandbox.records_become("late", &[pod.address()]).await?;
    sandbox.records_become("echo", &[vm, pod.address()]).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    sandbox.condition("late", "Ready", "True", "Synced").await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Counts imported or exported instances all the time, on the side that is reachable.
async fn registry_away(suite: Arc<Suite>, away: Duration) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry(&format!("registry-away-{}", away.as_secs())).await?;
    let sandbox = Sandbox::with_registry(bed, "away", &registry).await?;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let vms: Vec<SocketAddr> = (0..5).map(|n| SocketAddr::from((next_v4(), 9000 + n % 2))).collect();
    for vm in &vms {
        sandbox.put("echo", *vm).await?;
    }
    sandbox.imports_become("echo", &vms).await?;
    sandbox.records_become("echo", &[&vms[..], &[pod.address()]].concat()).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    let imported: BTreeSet<SocketAddr> = vms.iter().copied().collect();
    let counted = || async {
        let found = sandbox.imported("echo").await?;
        ensure!(found == imported, "imported {found:?} while the registry is away");
        Ok::<_, anyhow::Error>(())
    };
    registry.part().kill().await?;
    let started = Instant::now();
    sandbox.condition("echo", "Ready", "False", "RegistryUnavailable").await?;
    sandbox.registry_condition("Connected", "False", "Unreachable").await?;
    while started.elapsed() < away {
        counted().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    registry.start_again().await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    // The first list after the outage deletes nothing on either side.
    let back = Instant::now();
    let everything: BTreeSet<String> = vms.iter().chain([&pod.address()]).map(ToString::to_string).collect();
    while back.elapsed() < Duration::from_secs(5) {
        counted().await?;
        let records = sandbox.registered_addresses("echo").await?;
        ensure!(records == everything, "registered {records:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Sync goes on.
    let new = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", new).await?;
    sandbox.imports_become("echo", &[&vms[..], &[new]].concat()).await?;
    sandbox.pods.set_ready("pod", false).await?;
    sandbox.records_become("echo", &[&vms[..], &[new]].concat()).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Two hundred statuses that wait to be written cost no passes, and that of the registry does not wait behind them.
async fn statuses_cost_no_passes(suite: Arc<Suite>) -> Result<()> {
    const NAMES: usize = 200;
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let registry = bed.start_registry("registry-statuses").await?;
    let sandbox = Sandbox::with_registry(&bed, "statuses", &registry).await?;
    for n in 0..NAMES {
        let name = format!("name-{n}");
        sandbox.headless_without_selector(&name, 80).await?;
        sandbox.register(&name, json!({})).await?;
    }
    let all_say = |reason: &'static str| {
        let services = sandbox.registered();
        let all = move || {
            let services = services.clone();
            async move {
                let all = services.list(&ListParams::default()).await?.items;
                let says = |status: &RegisteredServiceStatus| {
                    status.conditions.iter().any(|c| c.type_ == "Exported" && c.reason == reason)
                };
                let found = all.iter().filter(|object| object.status.as_ref().is_some_and(says)).count();
                ensure!(found == NAMES, "{found} say {reason}");
                Ok(())
            }
        };
        eventually(reason, SOON * 6, all)
    };
    let passes = || async {
        let mut all = 0.0;
        for outcome in ["failed", "rejected", "waiting", "observed", "synced", "unchanged"] {
            let series = format!("twinspan_reconcile_total{{outcome=\"{outcome}\"}}");
            all += twinspan.metric(&series).await?.unwrap_or_default();
        }
        Ok::<_, anyhow::Error>(all)
    };
    all_say("Synced").await?;
    let before = passes().await?;
    for (status, reason, all) in [("False", "Unreachable", "RegistryUnavailable"), ("True", "Connected", "Synced")] {
        if status == "False" {
            registry.part().kill().await?;
        } else {
            registry.start_again().await?;
        }
        let since = Instant::now();
        sandbox.registry_condition("Connected", status, reason).await?;
        // Ten seconds, doubled for a busy machine: two hundred statuses wait meanwhile.
        ensure!(since.elapsed() < Duration::from_secs(20), "the ServiceRegistry was told after {:?}", since.elapsed());
        all_say(all).await?;
    }
    let cost = passes().await? - before;
    ensure!(cost <= 6.0 * NAMES as f64, "{cost} passes for {NAMES} services and two changes");
    sandbox.nothing_foreign_was_touched().await
}

/// Six hundred records are put back at once: no lease gets more than it may carry, and each is granted once.
async fn many_records_are_put_back_at_once(suite: Arc<Suite>) -> Result<()> {
    const NAMES: usize = 30;
    const PODS: usize = 20;
    const RECORDS: usize = NAMES * PODS;
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let registry = bed.start_registry("registry-many-at-once").await?;
    let sandbox = Sandbox::with_registry(&bed, "many-at-once", &registry).await?;
    sandbox.selector_service("echo", 80).await?;
    for n in 0..PODS {
        let name = format!("pod-{n}");
        sandbox.pod("echo", &name, 80).await?;
        sandbox.pods.set_ready(&name, true).await?;
    }
    for n in 0..NAMES {
        let extra = json!({"service": {"name": "echo"}, "direction": "Export"});
        sandbox.register(&format!("name-{n}"), extra).await?;
    }
    let root = format!("{}/", sandbox.name);
    let exported = || async {
        let mut found = registry.dump(&root).await?;
        found.retain(|key, _| key.starts_with(&format!("{root}name-")));
        ensure!(found.len() == RECORDS, "{} records", found.len());
        Ok(found)
    };
    eventually("everything is exported", Duration::from_secs(120), exported).await?;

    registry.part().kill().await?;
    registry.start_empty().await?;
    let records = eventually("everything is put back", Duration::from_secs(120), exported).await?;
    let mut leases = BTreeMap::<i64, usize>::new();
    for (_, _, lease) in records.into_values() {
        *leases.entry(lease).or_default() += 1;
    }
    ensure!(leases.values().all(|records| *records <= 500), "{leases:?}");
    let grants = registry.metric("etcd_debugging_lease_granted_total").await?;
    ensure!(grants <= 3.0, "{grants} grants for {leases:?}");
    Ok(())
}

/// Another etcd cluster answers at the same address, and is empty: our records are put back, imported endpoints are
/// held.
async fn the_registry_comes_back_empty(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-comes-back-empty").await?;
    let sandbox = Sandbox::with_registry(bed, "empty", &registry).await?;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.records_become("echo", &[vm, pod.address()]).await?;

    registry.part().kill().await?;
    registry.start_empty().await?;
    sandbox.records_become("echo", &[pod.address()]).await?;
    sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let found = sandbox.imported("echo").await?;
        ensure!(found == BTreeSet::from([vm]), "imported {found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The server registers again: nothing is held any more.
    sandbox.put("echo", vm).await?;
    sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    sandbox.imports_become("echo", &[vm]).await
}

async fn the_api_server_is_away_for_two_lease_ttls(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(&bed, "apiaway").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        pods.push(sandbox.pod("echo", name, 80).await?);
        sandbox.pods.set_ready(name, true).await?;
    }
    let addresses: Vec<SocketAddr> = pods.iter().map(twinspan_testbed::Server::address).collect();
    sandbox.records_become("echo", &addresses).await?;
    let before = sandbox.records("echo").await?;

    bed.cluster.apiserver.kill().await?;
    let started = Instant::now();
    // The sandbox's leases have a TTL of 60 s.
    while started.elapsed() < Duration::from_secs(125) {
        let now = sandbox.records("echo").await?;
        ensure!(now == before, "records changed after {:?} without an API server: {now:?}", started.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ensure!(twinspan.metric("twinspan_leader").await? == Some(0.0), "nobody can hold the Lease");
    bed.cluster.apiserver.start_again()?;
    bed.cluster.api_ready().await?;
    sandbox.pods.set_ready("a", false).await?;
    eventually("it leads and syncs again", SOON * 3, || async {
        let now = sandbox.registered_addresses("echo").await?;
        ensure!(now.len() == 2, "{now:?}");
        Ok(())
    })
    .await?;
    let after = sandbox.records("echo").await?;
    ensure!(
        after.iter().all(|(key, record)| before.get(key) == Some(record)),
        "the others were not written: {after:?}"
    );
    twinspan.part().check_running()?;
    sandbox.nothing_foreign_was_touched().await
}
