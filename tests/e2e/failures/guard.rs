//! The deletion guard: what nothing explains is held where it is much, said where an administrator looks, and let go by approval or in
//! the end. `docs/departures.md` has the table of which these are the rows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::{Etcd, TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{Corner, SOON, Suite, TWINSPAN, stories};

stories![
    the_registry_comes_back_empty,
    the_prefix_is_deleted,
    below_the_limits_it_waits_for_quiet,
    a_hold_lets_go_in_the_end,
    the_registry_as_a_whole,
    exports_that_only_a_list_lacks,
];

async fn the_registry_comes_back_empty(suite: Arc<Suite>) -> Result<()> {
    emptied(suite, true).await
}

async fn the_prefix_is_deleted(suite: Arc<Suite>) -> Result<()> {
    emptied(suite, false).await
}

const APPROVE: &str = "twinspan.dev/approve-deletions";

fn value(address: SocketAddr) -> String {
    json!({"network": "tcp", "address": address.to_string(), "weight": 10, "tags": null}).to_string()
}

/// Records of instances that nobody keeps alive, and that end with the story.
async fn instances(corner: &Corner<'_>, registry: &Etcd, service: &str, count: usize) -> Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let address = SocketAddr::from((next_v4(), 9000));
        registry.put_leased(&corner.key(service, address), &value(address), 600).await?;
        all.push(address);
    }
    corner.imports_become(service, &all).await?;
    Ok(all)
}

async fn headless(corner: &Corner<'_>, name: &str, extra: Value) -> Result<()> {
    corner
        .service(name, json!({"clusterIP": "None", "selector": {"app": name}, "ports": [{"name": "rpc", "port": 80}]}))
        .await?;
    corner.register(name, extra).await
}

/// The hash that a condition's message tells to approve.
fn hash_of(condition: &Condition) -> Result<String> {
    let (_, rest) = condition.message.split_once(&format!("{APPROVE}=")).context("no hash in the message")?;
    Ok(rest.chars().take_while(char::is_ascii_hexdigit).collect())
}

fn approval(hash: &str) -> Patch<Value> {
    Patch::Merge(json!({"metadata": {"annotations": {APPROVE: hash}}}))
}

/// Twelve servers vanish at once, and with them what we wrote: the servers stay until somebody approves, and ours is back at once.
async fn emptied(suite: Arc<Suite>, comes_back_empty: bool) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let kind = if comes_back_empty { "empty" } else { "swept" };
    let registry = bed.start_registry(&format!("registry-guard-{kind}")).await?;
    let corner = Corner::with_registry(bed, &format!("guard{kind}"), &registry).await?;
    headless(&corner, "echo", json!({"import": {"onExpiry": "Remove"}})).await?;
    let vms = instances(&corner, &registry, "echo", 12).await?;
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        pods.push(corner.pod("echo", name, 80).await?.address());
        corner.pods.set_ready(name, true).await?;
    }
    corner.records_become(&registry, "echo", &[&vms[..], &pods[..]].concat()).await?;
    corner.dns_becomes("echo", &[&vms[..], &pods[..]].concat()).await?;

    if comes_back_empty {
        registry.part().kill().await?;
        registry.start_empty().await?;
    } else {
        registry.delete_prefix(&corner.key("echo", "")).await?;
    }
    let vanished = Instant::now();
    corner.records_become(&registry, "echo", &pods).await?;
    ensure!(vanished.elapsed() < Duration::from_secs(15), "own records are back after {:?}", vanished.elapsed());
    let everybody: BTreeSet<SocketAddr> = vms.iter().copied().collect();
    while vanished.elapsed() < Duration::from_secs(25) {
        let found = corner.imported("echo").await?;
        ensure!(found == everybody, "{} of 12 after {:?}", found.len(), vanished.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let object = corner.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let status = object.status.unwrap_or_default();
    ensure!(status.instances.held == 12, "{:?}", status.instances);
    let held = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
    let (_, until) = held
        .message
        .split_once("12 imported and 0 exported instances ended; they stay until ")
        .with_context(|| held.message.clone())?;
    let until: jiff::Timestamp = until.split(',').next().unwrap_or_default().parse()?;
    // The registry as a whole holds as well, and may have begun a moment later.
    let hold = until.duration_since(held.last_transition_time.0).as_secs();
    ensure!((300..=310).contains(&hold), "{hold} s; {}", held.message);
    eventually("an Event tells it", SOON, || async {
        let events = corner.events("echo").await?;
        ensure!(events.iter().any(|(reason, _)| reason == "DeletionsHeld"), "{events:?}");
        Ok(())
    })
    .await?;

    // The registry is away for a moment: what is held stays so, and its time goes on.
    registry.part().kill().await?;
    corner.condition("echo", "Imported", "Unknown", "RegistryUnavailable").await?;
    let away = corner.condition("echo", "DeletionsHeld", "True", "Held").await?.status.unwrap_or_default();
    registry.start_again().await?;
    corner.condition("echo", "Imported", "True", "Synced").await?;
    let back = corner.condition("echo", "DeletionsHeld", "True", "Held").await?.status.unwrap_or_default();
    for status in [&away, &back] {
        let held_now = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
        ensure!(held_now.last_transition_time == held.last_transition_time, "{held_now:?}, was {held:?}");
    }

    // Other stories hold something too.
    let metric = suite.shared().await?.twinspan.metric("twinspan_held_deletions").await?.context("no metric")?;
    ensure!(metric >= 12.0, "{metric}");

    // One registers itself again, so another set is held than was shown: approving the old one lets nothing go.
    registry.put_leased(&corner.key("echo", vms[0]), &value(vms[0]), 600).await?;
    let hash = eventually("eleven are held", SOON, || async {
        let status = corner.registered().get("echo").await?.status.unwrap_or_default();
        let held = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
        ensure!(held.status == "True" && held.message.contains(" 11 imported"), "{}", held.message);
        hash_of(held)
    })
    .await?;
    corner.registered().patch("echo", &PatchParams::default(), &approval(&hash_of(held)?)).await?;
    let imported = || async { corner.imported("echo").await };
    holds("an approval of something else", Duration::from_secs(3), imported).await?;
    ensure!(imported().await? == everybody, "an approval of something else");
    corner.registered().patch("echo", &PatchParams::default(), &approval(&hash)).await?;
    corner.imports_become("echo", &vms[..1]).await?;
    corner.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    corner.dns_becomes("echo", &[&vms[..1], &pods[..]].concat()).await?;
    Ok(())
}

/// Two at once, of which no server knows: they wait a little for more, and go.
async fn below_the_limits_it_waits_for_quiet(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "guardbelow").await?;
    headless(&corner, "echo", json!({})).await?;
    let vms = instances(&corner, &bed.registry, "echo", 6).await?;
    let keys: Vec<String> = vms[..2].iter().map(|vm| corner.key("echo", vm)).collect();
    let vanished = Instant::now();
    bed.registry.delete_at_once(&keys).await?;
    corner.imports_become_within("echo", &vms[2..], Duration::from_secs(40)).await?;
    ensure!(vanished.elapsed() > Duration::from_secs(9), "{:?}", vanished.elapsed());
    corner.nothing_foreign_was_touched(&bed.registry).await
}

/// Whoever does not approve serves the dead for `holdSeconds`, and no longer.
async fn a_hold_lets_go_in_the_end(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "guardlets").await?;
    headless(&corner, "echo", json!({"deletionGuard": {"minInstances": 2, "maxDeletePercent": 10, "holdSeconds": 40}}))
        .await?;
    let vms = instances(&corner, &bed.registry, "echo", 6).await?;
    let keys: Vec<String> = vms[..2].iter().map(|vm| corner.key("echo", vm)).collect();
    let vanished = Instant::now();
    bed.registry.delete_at_once(&keys).await?;
    corner.condition("echo", "DeletionsHeld", "True", "Held").await?;
    // One that leaves as servers do goes at once, whatever is held beside it.
    bed.registry.delete(&corner.key("echo", vms[2])).await?;
    corner.imports_become("echo", &[&vms[..2], &vms[3..]].concat()).await?;
    ensure!(vanished.elapsed() < Duration::from_secs(38), "{:?}", vanished.elapsed());
    corner.imports_become_within("echo", &vms[3..], Duration::from_secs(70)).await?;
    ensure!(vanished.elapsed() > Duration::from_secs(39), "{:?}", vanished.elapsed());
    corner.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

/// The API server comes back without the pods: nobody saw them end, so their records stay until somebody approves. What is seen to
/// end goes at once.
async fn exports_that_only_a_list_lacks(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let corner = Corner::new(&bed, "guardexports").await?;
    headless(&corner, "echo", json!({})).await?;
    let labels = [("app".to_owned(), "echo".to_owned())].into();
    let mut pods = Vec::new();
    for n in 0..12 {
        let address = SocketAddr::from((next_v4(), 80));
        corner.pods.run(&format!("pod-{n:02}"), &labels, &[address.ip()]).await?;
        corner.pods.set_ready(&format!("pod-{n:02}"), true).await?;
        pods.push(address);
    }
    corner.records_become(&bed.registry, "echo", &pods).await?;

    bed.cluster.apiserver.kill().await?;
    for kind in ["pods", "endpointslices"] {
        bed.cluster.etcd.delete_prefix(&format!("/registry/{kind}/{}/", corner.name)).await?;
    }
    bed.cluster.apiserver.start_again()?;
    bed.cluster.api_ready().await?;
    let held = || async {
        let status = corner.registered().get("echo").await?.status.unwrap_or_default();
        let held = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").cloned().context("the condition")?;
        ensure!(held.status == "True" && held.message.contains("12 exported"), "{held:?} {:?}", status.instances);
        Ok(held)
    };
    let object = eventually("they are held", Duration::from_secs(60), held).await?;
    let expected: BTreeSet<String> = pods.iter().map(ToString::to_string).collect();
    holds("their records", Duration::from_secs(15), || async {
        let found = corner.registered_addresses(&bed.registry, "echo").await?;
        ensure!(found == expected, "{found:?}");
        Ok(found)
    })
    .await?;
    // Whoever manages slices may remember the pods longer than the API server: named once more and taken out again, they were not
    // seen to end either.
    let endpoints: Vec<Value> = pods.iter().map(|pod| json!({"addresses": [pod.ip()]})).collect();
    let slice = serde_json::from_value(json!({
        "metadata": {"name": "late", "labels": {"kubernetes.io/service-name": "echo",
            "endpointslice.kubernetes.io/managed-by": "late.example"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "rpc", "port": 80}],
    }))?;
    corner.slices().create(&PostParams::default(), &slice).await?;
    corner.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    let emptied = Patch::Merge(json!({"endpoints": []}));
    corner.slices().patch("late", &PatchParams::default(), &emptied).await?;
    eventually("they are held again", SOON, held).await?;
    // One comes back, and is then seen to end.
    corner.pods.run("pod-00", &labels, &[pods[0].ip()]).await?;
    corner.pods.set_ready("pod-00", true).await?;
    eventually("eleven are held", SOON, || async {
        let counts = corner.counts("echo").await?;
        ensure!((counts.held, counts.cluster) == (11, 1), "{counts:?}");
        Ok(())
    })
    .await?;
    corner.pods.remove("pod-00").await?;
    corner.records_become(&bed.registry, "echo", &pods[1..]).await?;
    corner.registered().patch("echo", &PatchParams::default(), &approval(&hash_of(&object)?)).await?;
    let hash = eventually("the set that is held now", SOON, || async {
        let status = corner.registered().get("echo").await?.status.unwrap_or_default();
        let held = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
        ensure!(held.message.contains("11 exported"), "{}", held.message);
        hash_of(held)
    })
    .await?;
    corner.registered().patch("echo", &PatchParams::default(), &approval(&hash)).await?;
    corner.records_become(&bed.registry, "echo", &[]).await?;
    corner.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    twinspan.part().check_running()
}

/// Six services lose two of five each: none of them would hold it, all of them together do.
async fn the_registry_as_a_whole(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "guardwhole").await?;
    let mut services = Vec::new();
    for n in 0..6 {
        let name = format!("echo-{n}");
        headless(&corner, &name, json!({})).await?;
        let vms = instances(&corner, &bed.registry, &name, 5).await?;
        services.push((name, vms));
    }
    for (name, vms) in &services {
        let keys: Vec<String> = vms[..2].iter().map(|vm| corner.key(name, vm)).collect();
        bed.registry.delete_at_once(&keys).await?;
    }
    corner.registry_condition("DeletionsHeld", "True", "Held").await?;
    let imported = || async {
        let mut all = Vec::new();
        for (name, _) in &services {
            all.push(corner.imported(name).await?.len());
        }
        Ok(all)
    };
    holds("everything stays past the ten quiet seconds", Duration::from_secs(15), imported).await?;
    ensure!(imported().await? == [5; 6]);
    let hash = eventually("all of them are held", SOON, || async {
        let conditions = corner.registries().get(&corner.name).await?.status.unwrap_or_default().conditions;
        let held = conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
        ensure!(held.message.contains("12 instances"), "{}", held.message);
        hash_of(held)
    })
    .await?;
    corner.registries().patch(&corner.name, &PatchParams::default(), &approval(&hash)).await?;
    for (name, vms) in &services {
        corner.imports_become(name, &vms[2..]).await?;
    }
    corner.registry_condition("DeletionsHeld", "False", "NothingHeld").await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}
