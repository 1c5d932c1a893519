//! The deletion guard: many unexplained deletions are held, shown to an administrator, and released by approval or by
//! timeout. These stories are the rows of the table in `docs/departures.md`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::{TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, part_name, stories};

stories![
    the_registry_comes_back_empty,
    the_prefix_is_deleted,
    below_the_limits_it_waits_for_quiet,
    a_hold_lets_go_in_the_end,
    a_hold_survives_a_failover,
    the_registry_as_a_whole,
    exports_that_only_a_list_lacks,
    exports_that_vanish_while_nobody_runs,
];

pub async fn the_registry_comes_back_empty(suite: Arc<Suite>) -> Result<()> {
    emptied(suite, true).await
}

pub async fn the_prefix_is_deleted(suite: Arc<Suite>) -> Result<()> {
    emptied(suite, false).await
}

const APPROVE: &str = "twinspan.dev/approve-deletions";

/// Records without a server, which last until the story ends.
async fn instances(sandbox: &Sandbox<'_>, service: &str, count: usize) -> Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let address = SocketAddr::from((next_v4(), 9000));
        sandbox.put(service, address).await?;
        all.push(address);
    }
    sandbox.imports_become(service, &all).await?;
    Ok(all)
}

/// A Service without pods, for imports.
async fn service(sandbox: &Sandbox<'_>, name: &str, extra: Value) -> Result<()> {
    sandbox.selector_service(name, 80).await?;
    sandbox.register(name, extra).await
}

/// The hash that a condition's message names for the approval.
fn hash_of(condition: &Condition) -> Result<String> {
    let (_, rest) = condition.message.split_once(&format!("{APPROVE}=")).context("no hash in the message")?;
    Ok(rest.chars().take_while(char::is_ascii_hexdigit).collect())
}

fn approval(hash: &str) -> Patch<Value> {
    Patch::Merge(json!({"metadata": {"annotations": {APPROVE: hash}}}))
}

/// Twelve servers vanish together with our records: the imported servers stay until the approval, our records are put
/// back.
async fn emptied(suite: Arc<Suite>, comes_back_empty: bool) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let kind = if comes_back_empty { "empty" } else { "swept" };
    let registry = bed.start_registry(&part_name(&format!("registry-guard-{kind}"))).await?;
    let sandbox = Sandbox::with_registry(bed, &format!("guard{kind}"), &registry).await?;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({"import": {"onExpiry": "Remove"}})).await?;
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        pods.push(sandbox.pod("echo", name, 80).await?.address());
        sandbox.pods.set_ready(name, true).await?;
    }
    let vms = instances(&sandbox, "echo", 12).await?;
    sandbox.records_become("echo", &[&vms[..], &pods[..]].concat()).await?;
    sandbox.dns_becomes("echo", &[&vms[..], &pods[..]].concat()).await?;

    if comes_back_empty {
        registry.part().kill().await?;
        registry.start_empty().await?;
    } else {
        registry.delete_prefix(&sandbox.key("echo", "")).await?;
    }
    let vanished = Instant::now();
    sandbox.records_become("echo", &pods).await?;
    ensure!(vanished.elapsed() < Duration::from_secs(15), "own records are back after {:?}", vanished.elapsed());
    let all: BTreeSet<SocketAddr> = vms.iter().copied().collect();
    while vanished.elapsed() < Duration::from_secs(25) {
        let found = sandbox.imported("echo").await?;
        ensure!(found == all, "{} of 12 after {:?}", found.len(), vanished.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let object = sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let status = object.status.unwrap_or_default();
    ensure!(status.instances.held == 12, "{:?}", status.instances);
    let held = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
    let (_, until) = held
        .message
        .split_once("12 imported and 0 exported instances ended; they stay until ")
        .with_context(|| held.message.clone())?;
    let until: jiff::Timestamp = until.split(',').next().unwrap_or_default().parse()?;
    // The registry guard holds as well, and may have begun a moment later.
    let hold = until.duration_since(held.last_transition_time.0).as_secs();
    ensure!((300..=310).contains(&hold), "{hold} s; {}", held.message);
    eventually("an Event tells it", SOON, || async {
        let events = sandbox.events("echo").await?;
        ensure!(events.iter().any(|(reason, _)| reason == "DeletionsHeld"), "{events:?}");
        Ok(())
    })
    .await?;

    // The registry is unreachable for a moment: the hold stays, and its time goes on.
    registry.part().kill().await?;
    sandbox.condition("echo", "Imported", "Unknown", "RegistryUnavailable").await?;
    let away = sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?.status.unwrap_or_default();
    registry.start_again().await?;
    sandbox.condition("echo", "Imported", "True", "Synced").await?;
    let back = sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?.status.unwrap_or_default();
    for status in [&away, &back] {
        let held_now = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
        ensure!(held_now.last_transition_time == held.last_transition_time, "{held_now:?}, was {held:?}");
    }

    // Other stories have holds too.
    let metric = suite.shared().await?.twinspan.metric("twinspan_held_deletions").await?.context("no metric")?;
    ensure!(metric >= 12.0, "{metric}");

    // One server registers itself again, so the held set differs from the one that was shown: approving the old one
    // releases nothing.
    sandbox.put("echo", vms[0]).await?;
    let hash = eventually("eleven are held", SOON, || async {
        let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
        let held = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
        ensure!(held.status == "True" && held.message.contains(" 11 imported"), "{}", held.message);
        hash_of(held)
    })
    .await?;
    sandbox.registered().patch("echo", &PatchParams::default(), &approval(&hash_of(held)?)).await?;
    let imported = || async { sandbox.imported("echo").await };
    holds("an approval of something else", Duration::from_secs(3), imported).await?;
    ensure!(imported().await? == all, "an approval of something else");
    sandbox.registered().patch("echo", &PatchParams::default(), &approval(&hash)).await?;
    sandbox.imports_become("echo", &vms[..1]).await?;
    sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    sandbox.dns_becomes("echo", &[&vms[..1], &pods[..]].concat()).await?;
    Ok(())
}

/// Two simultaneous unexplained deletions wait for more of them, and then take effect.
pub async fn below_the_limits_it_waits_for_quiet(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "guardbelow").await?;
    service(&sandbox, "echo", json!({})).await?;
    let vms = instances(&sandbox, "echo", 6).await?;
    let keys: Vec<String> = vms[..2].iter().map(|vm| sandbox.key("echo", vm)).collect();
    let vanished = Instant::now();
    bed.registry.delete_at_once(&keys).await?;
    sandbox.imports_become_within("echo", &vms[2..], Duration::from_secs(40)).await?;
    ensure!(vanished.elapsed() > Duration::from_secs(9), "{:?}", vanished.elapsed());
    sandbox.nothing_foreign_was_touched().await
}

/// Without an approval, dead instances are served for `holdSeconds` and no longer.
pub async fn a_hold_lets_go_in_the_end(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "guardlets").await?;
    service(&sandbox, "echo", json!({"deletionGuard": {"minInstances": 2, "maxDeletePercent": 10, "holdSeconds": 40}}))
        .await?;
    let vms = instances(&sandbox, "echo", 6).await?;
    let keys: Vec<String> = vms[..2].iter().map(|vm| sandbox.key("echo", vm)).collect();
    let vanished = Instant::now();
    bed.registry.delete_at_once(&keys).await?;
    sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    // A server that deregisters is deleted without delay, whatever is held beside it.
    bed.registry.delete(&sandbox.key("echo", vms[2])).await?;
    sandbox.imports_become("echo", &[&vms[..2], &vms[3..]].concat()).await?;
    ensure!(vanished.elapsed() < Duration::from_secs(38), "{:?}", vanished.elapsed());
    sandbox.imports_become_within("echo", &vms[3..], Duration::from_secs(70)).await?;
    ensure!(vanished.elapsed() > Duration::from_secs(39), "{:?}", vanished.elapsed());
    sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The leader is killed: its successor resumes the holds as they were. An approval releases one hold of one service,
/// and does not count when the same servers vanish again.
pub async fn a_hold_survives_a_failover(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let leader = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    leader.ready().await?;
    let sandbox = Sandbox::new(&bed, "guardfailover").await?;
    for name in ["echo", "other"] {
        service(&sandbox, name, json!({"import": {"onExpiry": "Remove"}})).await?;
    }
    let (vms, others) = (instances(&sandbox, "echo", 12).await?, instances(&sandbox, "other", 2).await?);
    let standby = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    standby.ready().await?;
    // A replica that saw the records go holds what one that starts later would ask and remove.
    eventually("the standby follows the registry", SOON, || async {
        ensure!(std::fs::read_to_string(standby.part().log())?.contains("listed registry="));
        Ok(())
    })
    .await?;
    let vanish = async |service: &str, vms: &[SocketAddr]| {
        let keys: Vec<String> = vms.iter().map(|vm| sandbox.key(service, vm)).collect();
        bed.registry.delete_at_once(&keys).await
    };
    vanish("echo", &vms).await?;
    vanish("other", &others).await?;
    let hold_of = async |service: &str| {
        let status = sandbox.registered().get(service).await?.status.unwrap_or_default();
        status.hold.with_context(|| format!("no hold: {:?}", status.conditions))
    };
    let whole = async || {
        let status = sandbox.registries().get(&sandbox.name).await?.status.unwrap_or_default();
        status.hold.context("no hold of the registry")
    };
    let all = || async { Ok((hold_of("echo").await?, hold_of("other").await?, whole().await?)) };
    eventually("they are held", SOON, all).await?;
    // The last writes of the statuses follow within their pace.
    holds("the holds", Duration::from_secs(12), || async {
        Ok((sandbox.imported("echo").await?, sandbox.imported("other").await?))
    })
    .await?;
    let before = all().await?;

    leader.part().kill().await?;
    eventually("the standby leads", Duration::from_secs(40), || async {
        ensure!(standby.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    holds("the holds after the failover", Duration::from_secs(15), all).await?;
    let after = all().await?;
    ensure!(after == before, "{after:?}, was {before:?}");
    ensure!(sandbox.imported("echo").await? == vms.iter().copied().collect());

    let (first, other, _) = before;
    sandbox.registered().patch("echo", &PatchParams::default(), &approval(&first.hash)).await?;
    sandbox.imports_become("echo", &[]).await?;
    sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    ensure!(hold_of("other").await? == other, "the other service is still held");
    ensure!(sandbox.imported("other").await?.len() == 2);

    for vm in &vms {
        sandbox.put("echo", *vm).await?;
    }
    sandbox.imports_become("echo", &vms).await?;
    vanish("echo", &vms).await?;
    let second = eventually("they are held again", SOON, || hold_of("echo")).await?;
    ensure!(second.since > first.since && second.hash != first.hash, "{second:?} after {first:?}");
    holds("the approval of the first hold does not count", Duration::from_secs(5), || sandbox.imported("echo")).await?;
    ensure!(sandbox.imported("echo").await?.len() == 12);
    sandbox.registered().patch("echo", &PatchParams::default(), &approval(&second.hash)).await?;
    sandbox.imports_become("echo", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Twelve exported pods.
async fn twelve_pods(sandbox: &Sandbox<'_>) -> Result<Vec<SocketAddr>> {
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let labels = [("app".to_owned(), "echo".to_owned())].into();
    let mut pods = Vec::new();
    for n in 0..12 {
        let address = SocketAddr::from((next_v4(), 80));
        sandbox.run(&format!("pod-{n:02}"), &labels, address.ip()).await?;
        sandbox.pods.set_ready(&format!("pod-{n:02}"), true).await?;
        pods.push(address);
    }
    sandbox.records_become("echo", &pods).await?;
    Ok(pods)
}

/// While no replica runs, nothing shows how endpoints end.
pub async fn exports_that_vanish_while_nobody_runs(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "guardstart").await?;
    let pods = twelve_pods(&sandbox).await?;
    first.part().stop().await?;
    for n in 0..12 {
        sandbox.pods.remove(&format!("pod-{n:02}")).await?;
    }
    eventually("no slice has an endpoint", SOON, || async {
        let slices = sandbox.slices().list(&Default::default()).await?;
        let mut labelled = slices.items.iter().filter(|slice| {
            let labels = slice.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get("kubernetes.io/service-name")).is_some_and(|name| name == "echo")
        });
        ensure!(labelled.all(|slice| slice.endpoints.is_empty()));
        Ok(())
    })
    .await?;

    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let expected: BTreeSet<String> = pods.iter().map(|pod| sandbox.exported(*pod).to_string()).collect();
    holds("their records", Duration::from_secs(15), || async {
        let found = sandbox.registered_addresses("echo").await?;
        ensure!(found == expected, "{found:?}");
        Ok(found)
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The API server comes back without the pods: no watch event showed their end, so their records stay until the
/// approval. A pod whose end is seen loses its record without delay.
pub async fn exports_that_only_a_list_lacks(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(&bed, "guardexports").await?;
    let pods = twelve_pods(&sandbox).await?;
    let labels = [("app".to_owned(), "echo".to_owned())].into();

    bed.cluster.apiserver.kill().await?;
    for kind in ["pods", "endpointslices"] {
        bed.cluster.etcd.delete_prefix(&format!("/registry/{kind}/{}/", sandbox.name)).await?;
    }
    bed.cluster.apiserver.start_again()?;
    bed.cluster.api_ready().await?;
    let held = || async {
        let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
        let held = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").cloned().context("the condition")?;
        ensure!(held.status == "True" && held.message.contains("12 exported"), "{held:?} {:?}", status.instances);
        Ok(held)
    };
    let object = eventually("they are held", Duration::from_secs(60), held).await?;
    let expected: BTreeSet<String> = pods.iter().map(|pod| sandbox.exported(*pod).to_string()).collect();
    holds("their records", Duration::from_secs(15), || async {
        let found = sandbox.registered_addresses("echo").await?;
        ensure!(found == expected, "{found:?}");
        Ok(found)
    })
    .await?;
    // A controller of slices may remember the pods longer than the API server does. Adding them to a slice and removing
    // them again does not prove that they ended.
    let endpoints: Vec<Value> = pods.iter().map(|pod| json!({"addresses": [pod.ip()]})).collect();
    let slice = serde_json::from_value(json!({
        "metadata": {"name": "late", "labels": {"kubernetes.io/service-name": "echo",
            "endpointslice.kubernetes.io/managed-by": "late.example"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "rpc", "port": 80}],
    }))?;
    sandbox.slices().create(&PostParams::default(), &slice).await?;
    sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    let emptied = Patch::Merge(json!({"endpoints": []}));
    sandbox.slices().patch("late", &PatchParams::default(), &emptied).await?;
    eventually("they are held again", SOON, held).await?;
    // One pod comes back, and a watch event shows its end.
    sandbox.run("pod-00", &labels, pods[0].ip()).await?;
    sandbox.pods.set_ready("pod-00", true).await?;
    eventually("eleven are held", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!((counts.held, counts.cluster) == (11, 1), "{counts:?}");
        Ok(())
    })
    .await?;
    sandbox.pods.remove("pod-00").await?;
    sandbox.records_become("echo", &pods[1..]).await?;
    sandbox.registered().patch("echo", &PatchParams::default(), &approval(&hash_of(&object)?)).await?;
    let hash = eventually("the set that is held now", SOON, || async {
        let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
        let held = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
        ensure!(held.message.contains("11 exported"), "{}", held.message);
        hash_of(held)
    })
    .await?;
    sandbox.registered().patch("echo", &PatchParams::default(), &approval(&hash)).await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    twinspan.part().check_running()
}

/// Six services lose two of five instances each: no service guard holds them, the registry guard does.
pub async fn the_registry_as_a_whole(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "guardwhole").await?;
    let mut services = Vec::new();
    for n in 0..6 {
        let name = format!("echo-{n}");
        service(&sandbox, &name, json!({})).await?;
        let vms = instances(&sandbox, &name, 5).await?;
        services.push((name, vms));
    }
    for (name, vms) in &services {
        let keys: Vec<String> = vms[..2].iter().map(|vm| sandbox.key(name, vm)).collect();
        bed.registry.delete_at_once(&keys).await?;
    }
    sandbox.registry_condition("DeletionsHeld", "True", "Held").await?;
    let imported = || async {
        let mut all = Vec::new();
        for (name, _) in &services {
            all.push(sandbox.imported(name).await?.len());
        }
        Ok(all)
    };
    holds("everything stays past the ten quiet seconds", Duration::from_secs(15), imported).await?;
    ensure!(imported().await? == [5; 6]);
    let hash = eventually("all of them are held", SOON, || async {
        let conditions = sandbox.registries().get(&sandbox.name).await?.status.unwrap_or_default().conditions;
        let held = conditions.iter().find(|c| c.type_ == "DeletionsHeld").context("the condition")?;
        ensure!(held.message.contains("12 instances"), "{}", held.message);
        hash_of(held)
    })
    .await?;
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &approval(&hash)).await?;
    for (name, vms) in &services {
        sandbox.imports_become(name, &vms[2..]).await?;
    }
    sandbox.registry_condition("DeletionsHeld", "False", "NothingHeld").await?;
    sandbox.nothing_foreign_was_touched().await
}
