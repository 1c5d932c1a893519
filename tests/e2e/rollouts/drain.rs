//! Drain: the story acts as the kubelet of a pod that is deleted, which calls its `preStop` hook; the pod stays until
//! the kubelet reports the end of its containers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use twinspan_testbed::{Twinspan, TwinspanOptions, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![
    a_pod_that_ends_outlasts_its_record_and_its_clients_lists,
    a_record_that_stays_ends_the_wait_before_the_grace_period,
    a_hold_of_the_guard_ends_the_wait_and_its_approval_drains,
    a_dead_registry_keeps_no_pod,
];

/// The time in which clients of Kitex learn that a record is gone.
const REFRESH: Duration = Duration::from_millis(5_500);

/// Calls a hook as a kubelet does. The code, the body and the time of the answer.
async fn hook(address: SocketAddr, namespace: &str, name: &str) -> Result<(u16, String, Duration)> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "GET /drained/{namespace}/{name} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-lifecycle/1.33\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    let code = head.split(' ').nth(1).context("a code")?.parse()?;
    Ok((code, body.to_owned(), began.elapsed()))
}

/// The number of answers with an outcome.
async fn answers(replica: &Twinspan, outcome: &str) -> Result<f64> {
    let line = format!("twinspan_drain_requests_total{{outcome=\"{outcome}\"}}");
    Ok(replica.metric(&line).await?.unwrap_or_default())
}

/// Waits until a request waits in a replica.
async fn waits(replica: &Twinspan) -> Result<()> {
    eventually("a request waits", SOON, || async {
        ensure!(replica.metric("twinspan_drains_waiting").await? == Some(1.0));
        Ok(())
    })
    .await
}

/// A ready pod of the Service `echo`.
async fn pod(sandbox: &Sandbox<'_>, name: &str) -> Result<SocketAddr> {
    let address = SocketAddr::from((next_v4(), 80));
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    sandbox.pods.run(name, &labels, &[address.ip()]).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(address)
}

fn pods(sandbox: &Sandbox<'_>) -> Api<Pod> {
    Api::namespaced(sandbox.client(), &sandbox.name)
}

async fn a_pod_that_ends_outlasts_its_record_and_its_clients_lists(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let leads = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    leads.ready().await?;
    let sandbox = Sandbox::new(&bed, "drain").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let (a, b) = (pod(&sandbox, "a").await?, pod(&sandbox, "b").await?);
    sandbox.records_become("echo", &[a, b]).await?;
    let stands_by = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    stands_by.ready().await?;
    ensure!(stands_by.metric("twinspan_leader").await? == Some(0.0));
    eventually("the standby has listed the registry", SOON, || async {
        let line = format!("twinspan_records{{registry=\"{}\",kind=\"own\"}}", sandbox.name);
        ensure!(stands_by.metric(&line).await? == Some(2.0));
        Ok(())
    })
    .await?;

    // Nothing is deleted: a container of either pod starts anew. Nobody has another name.
    for replica in [&leads, &stands_by] {
        for name in ["echo", "nobody"] {
            let (code, body, _) = hook(replica.drain(), &sandbox.name, name).await?;
            ensure!((code, body.as_str()) == (200, ""), "{name}: {code} {body}");
        }
        ensure!(answers(replica, "nothing").await? == 2.0);
    }
    sandbox.records_become("echo", &[a, b]).await?;

    // One pod is deleted, and its kubelet calls at once, whichever replica it gets.
    sandbox.pods.terminate("a").await?;
    let (first, second) =
        tokio::try_join!(hook(leads.drain(), &sandbox.name, "echo"), hook(stands_by.drain(), &sandbox.name, "echo"),)?;
    for (replica, (code, body, waited)) in [(&leads, first), (&stands_by, second)] {
        ensure!((code, body.as_str()) == (200, ""), "{code} {body}");
        ensure!(waited >= REFRESH, "clients had {waited:?}");
        ensure!(answers(replica, "drained").await? == 1.0);
    }
    let left = sandbox.registered_addresses("echo").await?;
    ensure!(left == [b.to_string()].into(), "{left:?}");
    let still = pods(&sandbox).get("a").await?;
    ensure!(still.metadata.deletion_timestamp.is_some(), "the pod is not at its end");
    sandbox.pods.remove("a").await?;

    // While nothing is written for it, no pod waits.
    sandbox.patch("echo", json!({"suspend": true})).await?;
    sandbox.seen("echo").await?;
    sandbox.pods.terminate("b").await?;
    let before = answers(&leads, "nothing").await?;
    hook(leads.drain(), &sandbox.name, "echo").await?;
    ensure!(answers(&leads, "nothing").await? == before + 1.0);
    sandbox.records_become("echo", &[b]).await?;
    sandbox.patch("echo", json!({"suspend": false})).await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.pods.remove("b").await?;

    // A process that ends answers those who wait.
    let c = pod(&sandbox, "c").await?;
    sandbox.records_become("echo", &[c]).await?;
    sandbox.pods.terminate("c").await?;
    let (ended, answer) = tokio::join!(
        async {
            waits(&stands_by).await?;
            stands_by.part().stop().await
        },
        hook(stands_by.drain(), &sandbox.name, "echo"),
    );
    ended?;
    let (code, ..) = answer.context("the connection broke off")?;
    ensure!(code == 200);
    sandbox.nothing_foreign_was_touched().await
}

/// A slice of another controller has the address of the pod as ready still, so that its record stays.
async fn a_record_that_stays_ends_the_wait_before_the_grace_period(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(&bed, "drainstays").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let a = pod(&sandbox, "a").await?;
    sandbox.records_become("echo", &[a]).await?;
    let slice: Value = json!({
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "echo",
            "endpointslice.kubernetes.io/managed-by": "somebody"}},
        "addressType": "IPv4", "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": [a.ip()], "conditions": {"ready": true}}],
    });
    sandbox.slices().create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    let grace = Duration::from_secs(12);
    let began = Instant::now();
    pods(&sandbox).delete("a", &DeleteParams::default().grace_period(12)).await?;
    let (code, body, _) = hook(twinspan.drain(), &sandbox.name, "echo").await?;
    ensure!((code, body.as_str()) == (200, ""), "{code} {body}");
    ensure!(began.elapsed() < grace, "the kubelet killed the container after {:?}", began.elapsed());
    ensure!(answers(&twinspan, "timeout").await? == 1.0);
    sandbox.records_become("echo", &[a]).await?;
    sandbox.slices().delete("by-hand", &DeleteParams::default()).await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The pods end while nobody runs, so that only a list shows it, and the guard holds their records.
async fn a_hold_of_the_guard_ends_the_wait_and_its_approval_drains(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "drainheld").await?;
    sandbox.selector_service("echo", 80).await?;
    let guard = json!({"minInstances": 2, "maxDeletePercent": 10, "holdSeconds": 3600});
    sandbox.register("echo", json!({"deletionGuard": guard})).await?;
    let both = [pod(&sandbox, "a").await?, pod(&sandbox, "b").await?];
    sandbox.records_become("echo", &both).await?;
    first.part().stop().await?;
    for name in ["a", "b"] {
        pods(&sandbox).delete(name, &DeleteParams::default().grace_period(20)).await?;
    }
    eventually("no endpoint is ready", SOON, || async {
        let echo = ListParams::default().labels("kubernetes.io/service-name=echo");
        let slices = sandbox.slices().list(&echo).await?;
        let mut endpoints = slices.items.iter().flat_map(|slice| &slice.endpoints);
        ensure!(endpoints.all(|it| it.conditions.as_ref().is_some_and(|it| it.ready != Some(true))));
        Ok(())
    })
    .await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    let held = sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let (code, _, waited) = hook(second.drain(), &sandbox.name, "echo").await?;
    ensure!(code == 200 && waited < Duration::from_secs(20), "{code} after {waited:?}");
    ensure!(answers(&second, "timeout").await? == 1.0);
    sandbox.records_become("echo", &both).await?;

    let hash = held.status.and_then(|status| status.hold).context("the hold")?.hash;
    let approval = Patch::Merge(json!({"metadata": {"annotations": {"twinspan.dev/approve-deletions": hash}}}));
    let (approved, answer) = tokio::join!(
        async {
            waits(&second).await?;
            anyhow::Ok(sandbox.registered().patch("echo", &PatchParams::default(), &approval).await?)
        },
        hook(second.drain(), &sandbox.name, "echo"),
    );
    approved?;
    let (code, _, waited) = answer?;
    ensure!(code == 200 && waited >= REFRESH, "{code} after {waited:?}");
    ensure!(answers(&second, "drained").await? == 1.0);
    sandbox.records_become("echo", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn a_dead_registry_keeps_no_pod(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(&bed, "draindead").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let (a, b) = (pod(&sandbox, "a").await?, pod(&sandbox, "b").await?);
    sandbox.records_become("echo", &[a, b]).await?;
    bed.registry.part().freeze()?;
    let grace = Duration::from_secs(60);
    let began = Instant::now();
    pods(&sandbox).delete("a", &DeleteParams::default().grace_period(60)).await?;
    let (code, ..) = hook(twinspan.drain(), &sandbox.name, "echo").await?;
    ensure!(code == 200 && began.elapsed() < grace, "{code} after {:?}", began.elapsed());
    // From now on it is known to be away.
    sandbox.registry_condition("Connected", "False", "Unreachable").await?;
    pods(&sandbox).delete("b", &DeleteParams::default().grace_period(60)).await?;
    let (code, _, waited) = hook(twinspan.drain(), &sandbox.name, "echo").await?;
    // Five seconds, and what a busy machine adds; its grace period is far longer.
    ensure!(code == 200 && waited < Duration::from_secs(15), "{code} after {waited:?}");
    ensure!(answers(&twinspan, "unreachable").await? >= 1.0);
    bed.registry.part().thaw()?;
    sandbox.records_become("echo", &[]).await?;
    let (code, ..) = hook(twinspan.drain(), &sandbox.name, "echo").await?;
    ensure!(code == 200 && answers(&twinspan, "drained").await? == 1.0);
    sandbox.nothing_foreign_was_touched().await
}
