//! `explain` and `parity` name each reason for a missing instance; every reason is provoked.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use twinspan_testbed::{Bed, TwinspanOptions, eventually, next_v4};

use super::{echo, json_of, pod, run};
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, record};

/// Waits for the answer of `explain` about an address or a key.
async fn explained(bed: &Bed, about: &str, state: &str, text: &str) -> Result<()> {
    eventually(&format!("{about} is {state}"), SOON, || async {
        let (code, answer) = json_of(bed, &["explain", about]).await?;
        let services = answer["services"].as_array().context("services")?;
        let found =
            services.iter().any(|by| by["state"] == state && by["text"].as_str().is_some_and(|t| t.contains(text)));
        ensure!(code == 0 && found, "exit code {code}, {answer:#}");
        Ok(())
    })
    .await
}

/// The exit code of `parity` for `echo`, and its answer, or why there is none. On a slow machine standard error also
/// has the line about the wait.
async fn parity(sandbox: &Sandbox<'_>) -> Result<(i32, String)> {
    let dns = sandbox.bed.dns.address().to_string();
    let (code, out, errors) =
        run(sandbox.bed, &["parity", "echo", "-n", &sandbox.name, "--dns", &dns, "-o", "json"]).await?;
    Ok((code, if out.is_empty() { errors } else { out }))
}

/// `parity` has the same words for each reason, in the row of an instance or beside the rows.
async fn named_by_parity(sandbox: &Sandbox<'_>, reasons: &[(String, &str)]) -> Result<()> {
    let (code, text) = parity(sandbox).await?;
    ensure!(code == 3, "{code}: {text}");
    named_in(&serde_json::from_str(&text)?, reasons)
}

fn named_in(table: &Value, reasons: &[(String, &str)]) -> Result<()> {
    let rows = table["rows"].as_array().context("rows")?.iter().map(|row| &row["why"]);
    let explanations: Vec<&Value> = rows.chain(table["leftOut"].as_array().context("leftOut")?).collect();
    for (about, state) in reasons {
        // A key stands for the address at its end.
        let same = |instance: &str| about == instance || about.ends_with(&format!("/{instance}"));
        let found = explanations.iter().any(|a| a["state"] == *state && a["instance"].as_str().is_some_and(same));
        ensure!(found, "parity does not say {state} of {about}: {table:#}");
    }
    Ok(())
}

/// A reason of the whole service: `explain` shows it beside a record or an address, `parity` beside its table or
/// instead of it.
async fn named_by_both(sandbox: &Sandbox<'_>, about: &str, text: &str) -> Result<()> {
    eventually(&format!("both say {text:?} about {about}"), SOON * 3, || async {
        let (_, answer) = json_of(sandbox.bed, &["explain", about]).await?;
        let remarks = answer["remarks"].as_array().context("remarks")?;
        ensure!(remarks.iter().any(|r| r.as_str().is_some_and(|r| r.contains(text))), "{answer:#}");
        let falsely = remarks.iter().any(|r| r.as_str().is_some_and(|r| r.starts_with("no RegisteredService")));
        ensure!(!falsely, "somebody refers to it and has it: {answer:#}");
        let (_, said) = parity(sandbox).await?;
        ensure!(said.contains(text), "{said}");
        Ok(())
    })
    .await
}

pub async fn every_reason_is_named(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "reasons").await?;
    let registry = &bed.registry;
    echo(&sandbox, json!({"import": {"tagSelector": {"matchLabels": {"lane": "blue"}}, "keepLostSeconds": 3600}}))
        .await?;
    let blue = |address: SocketAddr| record(address).tags(json!({"lane": "blue"}));
    let ready = pod(&sandbox, "ready", true).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    let vm_key = sandbox.key("echo", vm);
    sandbox.put("echo", blue(vm)).await?;

    // Reasons in the cluster.
    let not_ready = pod(&sandbox, "not-ready", false).await?;
    let terminating = pod(&sandbox, "terminating", true).await?;
    explained(bed, &terminating.to_string(), "Exported", "as reasons").await?;
    sandbox.pods.terminate("terminating").await?;
    let doubled = pod(&sandbox, "doubled", true).await?;
    sandbox.put("echo", blue(doubled)).await?;

    // Reasons in the registry.
    let unwanted = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", record(unwanted).tags(json!({"lane": "green"}))).await?;
    sandbox.put("echo", blue(([127, 0, 0, 1], 9000).into())).await?;
    let service = SocketAddr::from(([10, 96, 200, 200], 80));
    sandbox.put("echo", blue(service)).await?;
    let undecodable = sandbox.key("echo", "nonsense");
    registry.put(&undecodable, "{").await?;
    let (one, another) = (SocketAddr::from((next_v4(), 9000)), SocketAddr::from((next_v4(), 9000)));
    let contradicts = sandbox.key("echo", one);
    registry.put_leased(&contradicts, &blue(another).to_string(), 600).await?;
    let owner = json!({"lane": "blue", "twinspan.dev/owner": "another-cluster/shop/echo"});
    sandbox.put("echo", record("10.77.249.1:80").tags(owner)).await?;
    let stranger = Sandbox::new(bed, "stranger").await?;
    let theirs = pod(&stranger, "theirs", true).await?;
    sandbox.put("echo", blue(theirs)).await?;

    // The lease of a live server ends.
    let lives = SocketAddr::from((next_v4(), 9000));
    let _listener = TcpListener::bind(lives).await?;
    let lease = sandbox.put("echo", blue(lives)).await?;
    explained(bed, &lives.to_string(), "Imported", "").await?;
    registry.revoke(lease).await?;

    // The same list for both commands.
    let mut reasons = Vec::new();
    for (about, state, text) in [
        (ready.to_string(), "Exported", "as reasons"),
        (not_ready.to_string(), "NotReady", "readiness probe"),
        (SocketAddr::new(ready.ip(), 9090).to_string(), "WrongPort", "metrics"),
        (terminating.to_string(), "Terminating", "not exported any more"),
        (doubled.to_string(), "SelfRegistered", "double its traffic"),
        (vm.to_string(), "Imported", "endpoint of the Service"),
        (vm_key, "Imported", "endpoint of the Service"),
        (unwanted.to_string(), "NotSelected", "tagSelector"),
        ("127.0.0.1:9000".to_owned(), "LoopbackAddress", "leads every client to itself"),
        (service.to_string(), "ServiceAddress", "in a circle"),
        (undecodable, "Undecodable", "cannot be parsed in the registry's format"),
        (contradicts.clone(), "KeyValueMismatch", "another address"),
        ("10.77.249.1:80".to_owned(), "OtherCluster", "otherClusters All"),
        (theirs.to_string(), "OtherNamespacesPod", "another namespace"),
        (lives.to_string(), "Lost", "Restart it"),
    ] {
        explained(bed, &about, state, text).await?;
        // Its row is that of the address that clients dial, which only the value of the record shows.
        reasons.push((if about == contradicts { another.to_string() } else { about }, state));
    }
    explained(bed, &not_ready.ip().to_string(), "NotReady", "readiness probe").await?;
    named_by_parity(&sandbox, &reasons).await?;

    let held = Sandbox::new(bed, "reasonsheld").await?;
    let last = hold(&held).await?;
    refuse(&sandbox, not_ready, vm).await?;

    // No replica leads: a killed replica cannot release its Lease.
    twinspan.part().kill().await?;
    named_by_both(&held, &last.to_string(), "no leader").await?;
    let late = pod(&held, "late", true).await?;
    explained(bed, &late.to_string(), "ToBeExported", "waits for the leader").await?;
    unreachable(&held, last).await
}

/// A ready pod that a record of others names is not exported. The reason is the true one, also where that record is not
/// imported, or another cluster's Twinspan wrote it.
pub async fn a_pod_that_others_registered(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "named").await?;
    echo(&sandbox, json!({})).await?;
    let names = ["at-another-key", "mapped", "elsewhere"];
    let mut pods = Vec::new();
    for name in names {
        pods.push(pod(&sandbox, name, false).await?);
    }
    let (at_another_key, mapped, elsewhere) = (pods[0], pods[1], pods[2]);
    let another = sandbox.key("echo", SocketAddr::from((next_v4(), 9000)));
    bed.registry.put_leased(&another, &record(at_another_key).to_string(), 600).await?;
    let mapped_key = sandbox.key("echo", mapped);
    let odd = format!("[::ffff:{}]:{}", mapped.ip(), mapped.port());
    bed.registry.put_leased(&mapped_key, &record(odd).to_string(), 600).await?;
    let owner = json!({"twinspan.dev/owner": "another-cluster/shop/echo"});
    sandbox.put("echo", record(elsewhere).tags(owner)).await?;
    for name in names {
        sandbox.pods.set_ready(name, true).await?;
    }
    let mut reasons = Vec::new();
    for (pod, state, texts) in [
        (at_another_key, "SelfRegistered", [another.as_str(), "KeyValueMismatch"]),
        (mapped, "SelfRegistered", [mapped_key.as_str(), "is not imported"]),
        (elsewhere, "TakenByOtherCluster", ["another cluster's Twinspan", "double its traffic"]),
    ] {
        for text in texts {
            explained(bed, &pod.to_string(), state, text).await?;
        }
        reasons.push((pod.to_string(), state));
    }
    // Clients and DNS see all of them, so nothing is missing.
    let (code, text) = parity(&sandbox).await?;
    ensure!(code == 0, "{code}: {text}");
    named_in(&serde_json::from_str(&text)?, &reasons)?;
    // No pass adds a second record.
    ensure!(sandbox.records("echo").await?.len() == names.len(), "{:?}", sandbox.records("echo").await?);
    sandbox.nothing_foreign_was_touched().await
}

/// The last two instances leave together, so their deletion is held. Returns one of them.
async fn hold(sandbox: &Sandbox<'_>) -> Result<SocketAddr> {
    let registry = &sandbox.bed.registry;
    echo(sandbox, json!({})).await?;
    let mut keys = Vec::new();
    let mut last = SocketAddr::from((next_v4(), 9000));
    for _ in 0..2 {
        last = SocketAddr::from((next_v4(), 9000));
        sandbox.put("echo", last).await?;
        keys.push(sandbox.key("echo", last));
    }
    explained(sandbox.bed, &last.to_string(), "Imported", "").await?;
    registry.delete_at_once(&keys).await?;
    sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    explained(sandbox.bed, &last.to_string(), "Held", "approve-deletions=").await?;
    named_by_parity(sandbox, &[(last.to_string(), "Held")]).await?;
    Ok(last)
}

/// The namespace loses the permission for the name: the reason is shown for pods, for records, and for the whole
/// service.
async fn refuse(sandbox: &Sandbox<'_>, pod: SocketAddr, vm: SocketAddr) -> Result<()> {
    let allowed = json!({"spec": {"allowed": [{"namespaceSelector": {}, "registryNames": ["other-*"]}]}});
    let patch = kube::api::Patch::Merge(allowed);
    sandbox.registries().patch(&sandbox.name, &Default::default(), &patch).await?;
    let mut reasons = Vec::new();
    for about in [pod.to_string(), vm.to_string(), sandbox.key("echo", vm)] {
        explained(sandbox.bed, &about, "NotAllowed", "does not allow namespace").await?;
        named_by_both(sandbox, &about, "is not accepted (NotAllowed)").await?;
        reasons.push((about, "NotAllowed"));
    }
    named_by_parity(sandbox, &reasons).await
}

/// The registry is unreachable: imported endpoints are still known, and unknown records are not reported as missing.
async fn unreachable(sandbox: &Sandbox<'_>, imported: SocketAddr) -> Result<()> {
    let (bed, about) = (sandbox.bed, imported.to_string());
    bed.registry.part().kill().await?;
    named_by_both(sandbox, &about, "no endpoint of the registry answers").await?;
    explained(bed, &about, "RegistryUnavailable", "is kept").await?;
    let (code, said) = parity(sandbox).await?;
    ensure!(code == 1, "half a picture is none: {code}, {said}");
    let (code, answer) = json_of(bed, &["explain", "192.0.2.77"]).await?;
    ensure!(code == 1 && answer["complete"] == false, "nobody knows who has it: {code}, {answer:#}");
    let (code, out, errors) = run(bed, &["plan", "-n", &sandbox.name]).await?;
    ensure!(code == 1 && !out.contains("nothing to write"), "{code}: {out}{errors}");
    ensure!(out.contains("no endpoint of the registry answers") && errors.contains("not known"), "{out}{errors}");
    Ok(())
}
