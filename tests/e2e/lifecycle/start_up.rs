//! The start of a process: what it costs in a large cluster beside the lists that it has to read, and records of pods
//! that died before it looked.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use tokio::net::TcpListener;
use twinspan::api::{RegisteredService, ServiceRegistry};
use twinspan_testbed::{Bed, NODE, TwinspanOptions, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![records_of_dead_pods; long: five_thousand_nodes];

const NODES: u32 = 5000;
/// Creates under way at once.
const AT_ONCE: usize = 32;
/// Between two questions whether a process is ready.
const PAUSE: Duration = Duration::from_millis(5);
const DEADLINE: Duration = Duration::from_secs(120);

/// No Node tells pods' addresses from others. A pod that registered itself dies; its record outlives both it and the
/// process that saw it die.
async fn records_of_dead_pods(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let node = serde_json::from_value(json!({"metadata": {"name": NODE}}))?;
    Api::<Node>::all(bed.client()).create(&PostParams::default(), &node).await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "deadpods").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let (died, vm) = (SocketAddr::from((next_v4(), 80)), SocketAddr::from((next_v4(), 9000)));
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    sandbox.pods.run("pod", &labels, &[died.ip()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.put("echo", died).await?;
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    sandbox.pods.remove("pod").await?;
    let imported = || sandbox.imported("echo");
    holds("what is imported while the process runs", Duration::from_secs(3), imported).await?;

    first.part().stop().await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    // The process works: another server is imported.
    let other = SocketAddr::from((next_v4(), 9000));
    let _listener = TcpListener::bind(other).await?;
    sandbox.put("echo", other).await?;
    sandbox.imports_become("echo", &[vm, other]).await?;
    holds("what is imported after a restart", Duration::from_secs(5), imported).await?;
    // Another server took the address, and registers itself.
    sandbox.put("echo", died).await?;
    sandbox.imports_become_within("echo", &[died, vm, other], SOON).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The time that the lists of every kind take, as fast as a client can ask for them.
async fn raw_lists(bed: &Bed) -> Result<Duration> {
    let (client, all) = (bed.client(), ListParams::default());
    let began = Instant::now();
    let nodes = Api::<Node>::all(client.clone()).list(&all).await?.items.len();
    Api::<Namespace>::all(client.clone()).list(&all).await?;
    Api::<Service>::all(client.clone()).list(&all).await?;
    Api::<EndpointSlice>::all(client.clone()).list(&all).await?;
    Api::<Pod>::all(client.clone()).list(&all).await?;
    Api::<Secret>::all(client.clone()).list(&all).await?;
    Api::<ServiceCIDR>::all(client.clone()).list(&all).await?;
    Api::<ServiceRegistry>::all(client.clone()).list(&all).await?;
    Api::<RegisteredService>::all(client).list(&all).await?;
    ensure!(nodes >= NODES as usize, "{nodes} Nodes");
    Ok(began.elapsed())
}

async fn five_thousand_nodes(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let nodes: Api<Node> = Api::all(bed.client());
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 0));
    stream::iter(0..NODES)
        .map(|n| {
            let nodes = nodes.clone();
            let cidr = format!("{}/24", Ipv4Addr::from(first + (n << 8)));
            async move {
                let node = json!({"metadata": {"name": format!("node-{n}")},
                    "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
                nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
                Ok::<_, anyhow::Error>(())
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    // Other stories take the cores for a while, so each start has its own floor right before it, and the middle ratio
    // of five counts.
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (floor, took) = (raw_lists(&bed).await?, start(&bed).await?);
        let ratio = took.as_secs_f64() / floor.as_secs_f64();
        eprintln!("start-up with {NODES} Nodes: {took:?}, the raw lists {floor:?}, ratio {ratio:.2}");
        ratios.push(ratio);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    ensure!(ratios[2] < 3.0, "ready after so many times the time of the raw lists: {ratios:.2?}");
    Ok(())
}

/// The time from the start of a process to its readiness. Questions come often, for the pause between two of them
/// counts as time of the start.
async fn start(bed: &Bed) -> Result<Duration> {
    let began = Instant::now();
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    while !matches!(twinspan.get("/readyz").await, Ok((200, _))) {
        twinspan.part().check_running()?;
        ensure!(began.elapsed() < DEADLINE, "not ready after {:?}", began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    let took = began.elapsed();
    twinspan.part().stop().await?;
    Ok(took)
}
