//! Shares: pods get a part of a real Kitex client's calls beside servers on VMs, while both come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twinspan::api::conditions::SHARE_LIMITED;
use twinspan_testbed::{Server, ServerOptions, Tallied, Tally, eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, record, stories};

stories![a_share_that_cannot_be_reached; long: a_share_of_the_calls];

/// The calls of one share.
const CALLS: usize = 20_000;

/// The client tells so many calls at once.
const TOLD: usize = 1_000;

/// One real Kitex server on a VM, with the weight that people give it.
async fn vm(sandbox: &Sandbox<'_>) -> Result<Server> {
    let options = ServerOptions { prefix: Some(sandbox.name.clone()), weight: Some(100), ..ServerOptions::default() };
    let address = SocketAddr::from((next_v4(), 9000));
    Server::start(sandbox.bed.dir(), sandbox.registry.endpoint(), "echo", address, &options).await
}

async fn pod(sandbox: &Sandbox<'_>, name: &str) -> Result<Server> {
    let server = sandbox.pod("echo", name, 8888).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(server)
}

/// Takes a server out of the registry. The server goes on answering, as one should that clients still have in their
/// lists.
async fn take_out(sandbox: &Sandbox<'_>, server: &Server) -> Result<()> {
    sandbox.registry.delete(&sandbox.key("echo", server.address())).await?;
    Ok(())
}

/// The part of the calls that went to some servers, in percent.
fn part(calls: &Tallied, of: &BTreeSet<SocketAddr>) -> f64 {
    let all: usize = calls.to.values().sum();
    let theirs: usize = calls.to.iter().filter(|(to, _)| of.contains(*to)).map(|(_, calls)| calls).sum();
    100.0 * theirs as f64 / all as f64
}

/// The part of the weights that the records of Twinspan have, in percent; and their number.
async fn registered(sandbox: &Sandbox<'_>) -> Result<(f64, usize)> {
    let (mut own, mut all, mut count) = (0, 0, 0);
    for (value, _, _) in sandbox.records("echo").await?.into_values() {
        let value: Value = serde_json::from_str(&value)?;
        let weight = value["weight"].as_i64().context("a weight")?;
        let ours = value["tags"]["twinspan.dev/owner"].is_string();
        (own, all, count) = (own + if ours { weight } else { 0 }, all + weight, count + usize::from(ours));
    }
    Ok((100.0 * own as f64 / f64::from(u32::try_from(all)?), count))
}

async fn a_share_of_the_calls(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "shares").await?;
    sandbox.selector_service("echo", 8888).await?;
    let mut vms = vec![vm(&sandbox).await?, vm(&sandbox).await?, vm(&sandbox).await?];
    sandbox.register("echo", json!({"direction": "Export", "export": {"share": 10}})).await?;
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        pods.push(pod(&sandbox, name).await?);
    }
    let of_pods = |pods: &[Server]| -> BTreeSet<SocketAddr> { pods.iter().map(Server::address).collect() };
    let client = Tally::start(bed.dir(), sandbox.registry.endpoint(), "echo", Some(&sandbox.name), TOLD)?;
    let mut goes = ["a", "b", "c"].into_iter();
    for (percent, comes) in [(10, "d"), (30, "e"), (70, "f")] {
        sandbox.patch("echo", json!({"export": {"share": percent}})).await?;
        eventually("the client goes by the new share", SOON, || async {
            let calls = client.calls_since(client.mark(), TOLD, SOON).await?;
            let part = part(&calls, &of_pods(&pods));
            ensure!((part - f64::from(percent)).abs() <= 3.0, "{part:.1} % of {calls:?}, want {percent} %");
            Ok(())
        })
        .await?;
        let mark = client.mark();
        // One of each comes, and later one of each goes, while the client calls.
        vms.push(vm(&sandbox).await?);
        pods.push(pod(&sandbox, comes).await?);
        client.calls_since(mark, CALLS / 3, SOON * 8).await?;
        take_out(&sandbox, &vms[vms.len() - 4]).await?;
        sandbox.pods.set_ready(goes.next().context("a pod that goes")?, false).await?;
        let calls = client.calls_since(mark, CALLS, SOON * 8).await?;
        let part = part(&calls, &of_pods(&pods));
        ensure!(calls.failed == 0, "{calls:?}");
        ensure!((part - f64::from(percent)).abs() <= 3.0, "{part:.1} % of {calls:?}, want {percent} %");
        let (weights, exported) = registered(&sandbox).await?;
        ensure!((weights - f64::from(percent)).abs() <= 2.0 && exported == 3, "{weights:.1} % of weights, {exported}");
    }
    holds("nothing is written at rest", Duration::from_secs(2), || async { sandbox.records("echo").await }).await?;
    let status = sandbox.condition("echo", "Ready", "True", "Synced").await?.status.unwrap_or_default();
    ensure!(status.conditions.iter().all(|condition| condition.type_ != SHARE_LIMITED), "{status:?}");
    sandbox.nothing_foreign_was_touched().await
}

async fn a_share_that_cannot_be_reached(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "sharelimit").await?;
    sandbox.selector_service("echo", 80).await?;
    let vms = [SocketAddr::from((next_v4(), 9000)), SocketAddr::from((next_v4(), 9000))];
    for vm in vms {
        // The weight of a Kitex server that sets none: 10.
        sandbox.put("echo", record(vm)).await?;
    }
    let labels = [("app".to_owned(), "echo".to_owned())].into();
    for n in 0..6 {
        let name = format!("pod-{n}");
        sandbox.run(&name, &labels, next_v4().into()).await?;
        sandbox.pods.set_ready(&name, true).await?;
    }
    sandbox.register("echo", json!({"direction": "Export", "export": {"share": 10}})).await?;
    eventually("the condition names the share of 6 of 26, and the weight that would do", SOON, || async {
        let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
        let limited = status.conditions.iter().find(|condition| condition.type_ == SHARE_LIMITED);
        let limited = limited.with_context(|| format!("{:?}", status.conditions))?;
        ensure!(limited.status == "True" && limited.reason == "ForeignWeightsTooLow", "{limited:?}");
        ensure!(limited.message.contains("23.1 %") && limited.message.contains("weight of 27"), "{limited:?}");
        Ok(())
    })
    .await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    for vm in vms {
        let heavier = record(vm).to_string().replace(r#""weight":10"#, r#""weight":27"#);
        sandbox.registry.put(&sandbox.key("echo", vm), &heavier).await?;
    }
    eventually("with that weight the share is reached", SOON, || async {
        let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
        ensure!(status.conditions.iter().all(|condition| condition.type_ != SHARE_LIMITED), "{:?}", status.conditions);
        let (weights, exported) = registered(&sandbox).await?;
        ensure!((weights - 10.0).abs() <= 2.0 && exported == 6, "{weights:.1} % of weights, {exported}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}
