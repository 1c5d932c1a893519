//! A dry run beside a release that writes, and in its place: it writes nothing, and own records stay.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use twinspan_testbed::{Bed, OPERATOR_NAMESPACE, Twinspan, TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};
use crate::safety::audit;

stories![
    beside_a_release_that_fails_over,
    in_place_of_a_release;
    long: no_record_ends_in_three_ttls,
];

fn start(bed: &Bed, args: &[&str]) -> Result<Twinspan> {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    bed.start_twinspan(TWINSPAN, &TwinspanOptions { args, ..TwinspanOptions::default() })
}

async fn leads(twinspan: &Twinspan) -> Result<()> {
    eventually("it leads", Duration::from_secs(60), || async {
        ensure!(twinspan.metric("twinspan_leader").await? == Some(1.0), "it does not");
        Ok(())
    })
    .await
}

/// A Service with one ready pod and one imported instance; returns both.
async fn both_ways<'a>(bed: &'a Bed, name: &str) -> Result<(Sandbox<'a>, SocketAddr, SocketAddr)> {
    let sandbox = Sandbox::new(bed, name).await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let (pod, vm) = (SocketAddr::from((next_v4(), 80)), SocketAddr::from((next_v4(), 9000)));
    sandbox.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[pod.ip()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.records_become("echo", &[pod, vm]).await?;
    Ok((sandbox, pod, vm))
}

/// Everything that a release writes: the revision of each key, and the requests that write to the API server.
async fn written(sandbox: &Sandbox<'_>) -> Result<(BTreeMap<String, i64>, usize)> {
    let keys = sandbox.registry.dump("").await?.into_iter().map(|(key, (_, revision, _))| (key, revision)).collect();
    let reads = ["get", "list", "watch"];
    let asked = audit::audited(sandbox.bed)?;
    let writes = asked.iter().filter(|event| !reads.iter().any(|verb| event["verb"] == *verb));
    Ok((keys, writes.count()))
}

async fn holder(bed: &Bed) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(bed.client(), OPERATOR_NAMESPACE);
    leases.get("twinspan").await?.spec.and_then(|spec| spec.holder_identity).context("a holder")
}

/// Waits until the log of a dry run says that it would do this.
async fn plans(dry: &Twinspan, write: &str) -> Result<()> {
    eventually(&format!("the dry run plans: {write}"), SOON, || async {
        let log = std::fs::read_to_string(dry.part().log())?;
        let last = log.lines().rfind(|line| line.contains("dry run: ")).context("no plan")?;
        ensure!(last.contains(write), "{last}");
        Ok(())
    })
    .await
}

/// Three times the leader ends, and the dry run is alone with something to write until the next release starts.
async fn beside_a_release_that_fails_over(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let mut release = start(&bed, &[])?;
    release.ready().await?;
    let (sandbox, pod, vm) = both_ways(&bed, "dryrun").await?;
    let dry = start(&bed, &["--dry-run"])?;
    dry.ready().await?;
    for round in 0..3 {
        // A killed leader leaves a Lease that nobody renews; a stopped one releases it.
        if round == 0 {
            release.part().kill().await?;
        } else {
            release.part().stop().await?;
        }
        let before = written(&sandbox).await?;
        let key = sandbox.key("echo", pod);
        sandbox.pods.set_ready("pod", false).await?;
        plans(&dry, &format!("delete {key} in {}", sandbox.name)).await?;
        // Longer than a Lease lasts, so that a candidate would have won it.
        let alone = Duration::from_secs(18);
        holds("everything while only the dry run runs", alone, || async { written(&sandbox).await }).await?;
        ensure!(written(&sandbox).await? == before, "{before:?}\n{:?}", written(&sandbox).await?);

        release = start(&bed, &[])?;
        leads(&release).await?;
        sandbox.records_become("echo", &[vm]).await?;
        sandbox.pods.set_ready("pod", true).await?;
        sandbox.records_become("echo", &[pod, vm]).await?;
        plans(&dry, "has nothing to write any more").await?;
        let holder = holder(&bed).await?;
        let ready = release.get("/readyz?verbose").await?.1;
        ensure!(ready.contains("this replica writes"), "{ready}");
        let epochs = bed.registry.dump("twinspan/").await?;
        let held =
            epochs.get(&format!("twinspan/{}/{}", cluster_id(&sandbox).await?, sandbox.name)).context("an epoch")?;
        ensure!(held.0.ends_with(&format!("/{holder}")), "{held:?}, and the Lease is of {holder}");
    }
    let ready = dry.get("/readyz?verbose").await?.1;
    ensure!(ready.contains("a dry run, which writes nothing"), "{ready}");
    ensure!(dry.metric("twinspan_leader").await? == Some(0.0));
    sandbox.nothing_foreign_was_touched().await
}

async fn cluster_id(sandbox: &Sandbox<'_>) -> Result<String> {
    let object = sandbox.registries().get(&sandbox.name).await?;
    object.status.and_then(|status| status.cluster_id).context("no cluster ID")
}

/// The seconds that the lease of a record still lasts, and its TTL.
async fn rest(sandbox: &Sandbox<'_>, pod: SocketAddr) -> Result<(i64, i64)> {
    let records = sandbox.records("echo").await?;
    let (_, _, lease) = records.get(&sandbox.key("echo", pod)).context("its record is gone")?;
    let answer = sandbox.registry.client().await?.lease_time_to_live(*lease, None).await?;
    Ok((answer.ttl(), answer.granted_ttl()))
}

/// A release that is turned to `--dry-run` keeps the leases of its own records alive.
async fn in_place_of_a_release(suite: Arc<Suite>) -> Result<()> {
    turned_to_dry_run(suite, 1).await
}

async fn no_record_ends_in_three_ttls(suite: Arc<Suite>) -> Result<()> {
    turned_to_dry_run(suite, 10).await
}

/// Waits for this many keepalives, which come after a third of the TTL.
async fn turned_to_dry_run(suite: Arc<Suite>, keepalives: usize) -> Result<()> {
    let bed = suite.own_bed().await?;
    let release = start(&bed, &[])?;
    release.ready().await?;
    let (sandbox, pod, _) = both_ways(&bed, "turneddry").await?;
    release.part().stop().await?;
    let before = written(&sandbox).await?;
    let dry = start(&bed, &["--dry-run"])?;
    dry.ready().await?;
    for keepalive in 0..keepalives {
        eventually("the lease gets older", SOON, || async {
            let (rest, ttl) = rest(&sandbox, pod).await?;
            ensure!(rest < ttl - 5, "{rest} of {ttl} s");
            Ok(())
        })
        .await?;
        eventually(&format!("keepalive {keepalive}"), SOON * 2, || async {
            let (rest, ttl) = rest(&sandbox, pod).await?;
            ensure!(rest >= ttl - 2, "{rest} of {ttl} s");
            Ok(())
        })
        .await?;
    }
    ensure!(written(&sandbox).await? == before, "{before:?}\n{:?}", written(&sandbox).await?);
    sandbox.nothing_foreign_was_touched().await
}
