//! Upgrade from an earlier version, and back: what it wrote is taken over as it is, and so is what waits for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use twinspan_testbed::{
    Bed, Server, ServerOptions, Twinspan, TwinspanOptions, apply_file, eventually, holds, namespace, next_v4,
};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};
use crate::safety::audit::audited;

stories![long: from_an_earlier_version_and_back];

/// The default of `spec.fence.keyPrefix`: the epoch and the incarnation, which are all that a take-over writes.
const FENCE: &str = "twinspan/";
const APPROVE: &str = "twinspan.dev/approve-deletions";
/// Longer than a pass, a probe, and the quiet time of the guard.
const SETTLED: Duration = Duration::from_secs(15);
/// Longer than the pace of a status.
const REST: Duration = Duration::from_secs(8);

/// Every key but those of the fence, and every slice, each with its revision.
async fn everything(sandbox: &Sandbox<'_>) -> Result<BTreeMap<String, String>> {
    let keys = sandbox.registry.dump("").await?.into_iter().filter(|(key, _)| !key.starts_with(FENCE));
    let mut all: BTreeMap<String, String> =
        keys.map(|(key, (value, revision, lease))| (key, format!("{revision} {lease:x} {value}"))).collect();
    for slice in sandbox.slices().list(&Default::default()).await? {
        let meta = slice.metadata;
        all.insert(format!("slice {}", meta.name.unwrap_or_default()), meta.resource_version.unwrap_or_default());
    }
    Ok(all)
}

/// Message and start of the hold of a RegisteredService, if there is one.
async fn hold(sandbox: &Sandbox<'_>, name: &str) -> Result<Option<(String, jiff::Timestamp)>> {
    let conditions = sandbox.registered().get(name).await?.status.unwrap_or_default().conditions;
    let held = conditions.into_iter().find(|condition| condition.type_ == "DeletionsHeld").context("no condition")?;
    Ok((held.status == "True").then_some((held.message, held.last_transition_time.0)))
}

async fn leads(twinspan: &Twinspan) -> Result<()> {
    eventually("it leads", Duration::from_secs(60), || async {
        ensure!(twinspan.metric("twinspan_leader").await? == Some(1.0), "it does not");
        Ok(())
    })
    .await
}

/// The earlier version does not know the flag of the audits.
fn options() -> TwinspanOptions {
    TwinspanOptions { unknown: vec!["--audit-interval=".to_owned()], ..TwinspanOptions::default() }
}

/// The CRDs become those of a version, before or after its process takes over.
async fn crds_become_those_of(bed: &Bed, sandbox: &Sandbox<'_>, binary: &str) -> Result<()> {
    let known = everything(sandbox).await?;
    crds_of(bed, binary).await?;
    holds("keys and slices after other CRDs came", REST, || async { everything(sandbox).await }).await?;
    ensure!(everything(sandbox).await? == known, "other CRDs changed something");
    Ok(())
}

/// Applies the CRDs that a version prints.
async fn crds_of(bed: &Bed, binary: &str) -> Result<()> {
    let crds = Command::new(binary).arg("crds").output().await?;
    ensure!(crds.status.success(), "{}", String::from_utf8_lossy(&crds.stderr));
    let path = bed.dir().join("crds.yaml");
    std::fs::write(&path, crds.stdout)?;
    apply_file(&bed.client(), &path).await
}

/// Waits until Twinspan writes nothing to the API server but its Lease.
async fn comes_to_rest(bed: &Bed) -> Result<()> {
    let writes = || async {
        let of_writes = |event: &serde_json::Value| {
            let written = ["create", "update", "patch", "delete"].iter().any(|verb| event["verb"] == *verb);
            written && event["objectRef"]["resource"] != "leases"
        };
        Ok::<_, anyhow::Error>(audited(bed)?.into_iter().filter(of_writes).count())
    };
    eventually("nothing is written at rest", Duration::from_secs(60), || async {
        let before = writes().await?;
        ensure!(before > 0, "the audit log shows what it wrote");
        tokio::time::sleep(REST).await;
        let after = writes().await?;
        ensure!(before == after, "{} requests within {REST:?}", after - before);
        Ok(())
    })
    .await
}

/// Another version takes over, as a rolling update replaces pods; nothing changes.
async fn replace(bed: &Bed, sandbox: &Sandbox<'_>, before: Twinspan, binary: &str) -> Result<Twinspan> {
    let (known, held) = (everything(sandbox).await?, hold(sandbox, "held").await?.context("no hold")?.1);
    let after = bed.start_twinspan(binary, &options())?;
    after.ready().await?;
    before.part().stop().await?;
    leads(&after).await?;
    holds("keys and slices after another version took over", SETTLED, || async { everything(sandbox).await }).await?;
    let now = everything(sandbox).await?;
    ensure!(now == known, "it changed something:\n{known:#?}\n{now:#?}");
    let (_, since) = hold(sandbox, "held").await?.context("the hold is over")?;
    // The earlier version begins a hold anew whenever it takes over, from its own replicas too.
    ensure!(binary != TWINSPAN || since == held, "the hold began anew at {since}, was {held}");
    for name in ["echo", "heals"] {
        ensure!(hold(sandbox, name).await?.is_none(), "{name} is held");
    }
    // It writes: a pod leaves and comes back.
    for ready in [false, true] {
        sandbox.pods.set_ready("a", ready).await?;
        eventually("it follows the pod", SOON, || async {
            let found = sandbox.registered_addresses("echo").await?.len();
            ensure!(found == if ready { 5 } else { 4 }, "{found} records");
            Ok(())
        })
        .await?;
    }
    if binary == TWINSPAN {
        comes_to_rest(bed).await?;
    }
    Ok(after)
}

async fn from_an_earlier_version_and_back(suite: Arc<Suite>) -> Result<()> {
    let earlier = namespace::binary("earlier")?;
    // A shallow clone cannot build it; `dev/parts/build` told so.
    if earlier.is_empty() {
        return Ok(());
    }
    let bed = suite.own_bed().await?;
    crds_of(&bed, &earlier).await?;
    let first = bed.start_twinspan(&earlier, &options())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "upgrade").await?;
    // Own records and imports.
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        let pod = SocketAddr::from((next_v4(), 80));
        sandbox.pods.run(name, &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[pod.ip()]).await?;
        sandbox.pods.set_ready(name, true).await?;
        all.push(pod);
    }
    for _ in 0..2 {
        let vm = SocketAddr::from((next_v4(), 9000));
        sandbox.put("echo", vm).await?;
        all.push(vm);
    }
    sandbox.imports_become("echo", &all[3..]).await?;
    sandbox.records_become("echo", &all).await?;
    // A server that lost its registration, and whose record was put back.
    sandbox.headless_without_selector("heals", 9000).await?;
    sandbox.register("heals", json!({"import": {"onExpiry": "Heal"}})).await?;
    let lost = SocketAddr::from((next_v4(), 9000));
    let silent = ServerOptions { silent: true, ..ServerOptions::default() };
    let _server = Server::start(bed.dir(), sandbox.registry.endpoint(), "heals", lost, &silent).await?;
    sandbox.put_for("heals", lost, 3).await?;
    sandbox.imports_become("heals", &[lost]).await?;
    eventually("its record is put back", SOON, || async {
        let records = sandbox.records("heals").await?;
        ensure!(records.values().any(|(value, ..)| value.contains("twinspan.dev/healed")), "{records:?}");
        Ok(())
    })
    .await?;
    // Twelve that are held, and whose servers live.
    let mut listening = JoinSet::new();
    sandbox.headless_without_selector("held", 9000).await?;
    sandbox.register("held", json!({"import": {"onExpiry": "Remove"}})).await?;
    let mut kept = Vec::new();
    for _ in 0..12 {
        let address = SocketAddr::from((next_v4(), 9000));
        // A process that starts now has no evidence, so it probes: an endpoint that refuses would go at once.
        let listener = TcpListener::bind(address).await?;
        listening.spawn(async move { while listener.accept().await.is_ok() {} });
        sandbox.put("held", address).await?;
        kept.push(address);
    }
    sandbox.imports_become("held", &kept).await?;
    sandbox.registry.delete_prefix(&sandbox.key("held", "")).await?;
    sandbox.condition("held", "DeletionsHeld", "True", "Held").await?;

    // Helm leaves the CRDs as they are; whoever upgrades applies them before or after it.
    let second = replace(&bed, &sandbox, first, TWINSPAN).await?;
    let fence: BTreeSet<String> = bed.registry.dump(FENCE).await?.into_keys().collect();
    ensure!(fence.iter().filter(|key| key.ends_with(&sandbox.name)).count() == 1 && fence.len() <= 2, "{fence:?}");
    crds_become_those_of(&bed, &sandbox, TWINSPAN).await?;
    comes_to_rest(&bed).await?;
    let third = replace(&bed, &sandbox, second, &earlier).await?;
    let fourth = replace(&bed, &sandbox, third, TWINSPAN).await?;
    crds_become_those_of(&bed, &sandbox, &earlier).await?;
    comes_to_rest(&bed).await?;
    let last = replace(&bed, &sandbox, fourth, &earlier).await?;

    // The earlier version takes the approval.
    let (message, _) = hold(&sandbox, "held").await?.context("no hold")?;
    let (_, rest) = message.split_once(&format!("{APPROVE}=")).context("no hash in the message")?;
    let hash: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    let approval = Patch::Merge(json!({"metadata": {"annotations": {APPROVE: hash}}}));
    sandbox.registered().patch("held", &PatchParams::default(), &approval).await?;
    sandbox.imports_become("held", &[]).await?;
    last.part().check_running()?;
    sandbox.nothing_foreign_was_touched().await
}
