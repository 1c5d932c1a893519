//! One side is away for a while: nothing is lost or deleted because of it, conditions say so, sync goes on without a restart.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use twinspan_testbed::{TwinspanOptions, eventually, next_v4};

use crate::harness::{Corner, SOON, Suite, TWINSPAN, stories};

stories![
    the_registry_is_down_at_start,
    the_registry_is_away_for_20_s,
    the_registry_comes_back_empty;
    long: the_registry_is_away_for_90_s, the_api_server_is_away_for_two_lease_ttls,
];

async fn the_registry_is_away_for_20_s(suite: Arc<Suite>) -> Result<()> {
    registry_away(suite, Duration::from_secs(20)).await
}

async fn the_registry_is_away_for_90_s(suite: Arc<Suite>) -> Result<()> {
    registry_away(suite, Duration::from_secs(90)).await
}

fn value(address: SocketAddr) -> String {
    format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":null}}"#)
}

async fn the_registry_is_down_at_start(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let corner = Corner::new(&bed, "downatstart").await?;
    corner.selector_service("echo", 80).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    corner.register("echo", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    bed.registry.put_leased(&corner.key("echo", vm), &value(vm), 600).await?;
    corner.imports_become("echo", &[vm]).await?;
    corner.records_become(&bed.registry, "echo", &[vm, pod.address()]).await?;

    // Twinspan starts while the registry is down: it knows nothing of it, and nothing follows from that.
    first.part().stop().await?;
    bed.registry.part().kill().await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    corner.registry_condition("Connected", "False", "Unreachable").await?;
    corner.condition("echo", "Exported", "Unknown", "RegistryUnavailable").await?;
    corner.condition("echo", "Ready", "False", "RegistryUnavailable").await?;
    corner.register("late", json!({"service": {"name": "echo"}})).await?;
    corner.condition("late", "Ready", "False", "RegistryUnavailable").await?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let found = corner.imported("echo").await?;
        ensure!(found == BTreeSet::from([vm]), "imported {found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bed.registry.start_again().await?;
    corner.records_become(&bed.registry, "late", &[pod.address()]).await?;
    corner.records_become(&bed.registry, "echo", &[vm, pod.address()]).await?;
    corner.imports_become("echo", &[vm]).await?;
    corner.condition("echo", "Ready", "True", "Synced").await?;
    corner.condition("late", "Ready", "True", "Synced").await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

/// Imported and exported instances are counted all the time, on the side that is not away.
async fn registry_away(suite: Arc<Suite>, away: Duration) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry(&format!("registry-away-{}", away.as_secs())).await?;
    let corner = Corner::with_registry(bed, "away", &registry).await?;
    corner
        .service(
            "echo",
            json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": [{"name": "rpc", "port": 80}]}),
        )
        .await?;
    corner.register("echo", json!({})).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    let vms: Vec<SocketAddr> = (0..5).map(|n| SocketAddr::from((next_v4(), 9000 + n % 2))).collect();
    for vm in &vms {
        registry.put_leased(&corner.key("echo", vm), &value(*vm), 600).await?;
    }
    corner.imports_become("echo", &vms).await?;
    corner.records_become(&registry, "echo", &[&vms[..], &[pod.address()]].concat()).await?;
    corner.condition("echo", "Ready", "True", "Synced").await?;

    let imported: BTreeSet<SocketAddr> = vms.iter().copied().collect();
    let counted = || async {
        let found = corner.imported("echo").await?;
        ensure!(found == imported, "imported {found:?} while the registry is away");
        Ok::<_, anyhow::Error>(())
    };
    registry.part().kill().await?;
    let started = Instant::now();
    corner.condition("echo", "Ready", "False", "RegistryUnavailable").await?;
    corner.registry_condition("Connected", "False", "Unreachable").await?;
    while started.elapsed() < away {
        counted().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    registry.start_again().await?;
    corner.registry_condition("Ready", "True", "Connected").await?;
    corner.condition("echo", "Ready", "True", "Synced").await?;
    // The first list after it deletes nothing on either side.
    let back = Instant::now();
    let everything: BTreeSet<String> = vms.iter().chain([&pod.address()]).map(ToString::to_string).collect();
    while back.elapsed() < Duration::from_secs(5) {
        counted().await?;
        let records = corner.registered_addresses(&registry, "echo").await?;
        ensure!(records == everything, "registered {records:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // And sync goes on.
    let new = SocketAddr::from((next_v4(), 9000));
    registry.put_leased(&corner.key("echo", new), &value(new), 600).await?;
    corner.imports_become("echo", &[&vms[..], &[new]].concat()).await?;
    corner.pods.set_ready("pod", false).await?;
    corner.records_become(&registry, "echo", &[&vms[..], &[new]].concat()).await?;
    corner.nothing_foreign_was_touched(&registry).await
}

/// Another etcd cluster answers at the same address, with nothing in it: own records are put back, and what is imported is held.
async fn the_registry_comes_back_empty(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-comes-back-empty").await?;
    let corner = Corner::with_registry(bed, "empty", &registry).await?;
    corner
        .service(
            "echo",
            json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": [{"name": "rpc", "port": 80}]}),
        )
        .await?;
    corner.register("echo", json!({})).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    registry.put_leased(&corner.key("echo", vm), &value(vm), 600).await?;
    corner.imports_become("echo", &[vm]).await?;
    corner.records_become(&registry, "echo", &[vm, pod.address()]).await?;

    registry.part().kill().await?;
    registry.start_empty().await?;
    corner.records_become(&registry, "echo", &[pod.address()]).await?;
    corner.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let found = corner.imported("echo").await?;
        ensure!(found == BTreeSet::from([vm]), "imported {found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // It registers again: nothing is held any more.
    registry.put_leased(&corner.key("echo", vm), &value(vm), 600).await?;
    corner.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    corner.imports_become("echo", &[vm]).await
}

async fn the_api_server_is_away_for_two_lease_ttls(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let corner = Corner::new(&bed, "apiaway").await?;
    corner.selector_service("echo", 80).await?;
    corner.register("echo", json!({})).await?;
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        pods.push(corner.pod("echo", name, 80).await?);
        corner.pods.set_ready(name, true).await?;
    }
    let addresses: Vec<SocketAddr> = pods.iter().map(twinspan_testbed::Server::address).collect();
    corner.records_become(&bed.registry, "echo", &addresses).await?;
    let before = corner.records(&bed.registry, "echo").await?;

    bed.cluster.apiserver.kill().await?;
    let started = Instant::now();
    // The corner's leases have a TTL of 60 s.
    while started.elapsed() < Duration::from_secs(125) {
        let now = corner.records(&bed.registry, "echo").await?;
        ensure!(now == before, "records changed after {:?} without an API server: {now:?}", started.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ensure!(twinspan.metric("twinspan_leader").await? == Some(0.0), "nobody can hold the Lease");
    bed.cluster.apiserver.start_again()?;
    bed.cluster.api_ready().await?;
    corner.pods.set_ready("a", false).await?;
    eventually("it leads and syncs again", SOON * 3, || async {
        let now = corner.registered_addresses(&bed.registry, "echo").await?;
        ensure!(now.len() == 2, "{now:?}");
        Ok(())
    })
    .await?;
    let after = corner.records(&bed.registry, "echo").await?;
    ensure!(
        after.iter().all(|(key, record)| before.get(key) == Some(record)),
        "the others were not written: {after:?}"
    );
    twinspan.part().check_running()?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}
