//! Events of a watch that get lost on their way: only an audit can tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use twinspan_testbed::{LossyProxy, TwinspanOptions, eventually, next_v4};

use crate::harness::{Sandbox, Suite, TWINSPAN, stories};

stories![a_lost_delete_is_found_by_an_audit];

const SERVICES: [&str; 3] = ["one", "two", "three"];
/// An audit, and the 10 s in which nothing else may go.
const FOUND: Duration = Duration::from_secs(40);

/// Three of three servers whose deregistration no event told leave, and so does an own record that somebody deleted: it
/// is put back.
async fn a_lost_delete_is_found_by_an_audit(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let beyond: SocketAddr = bed.registry.endpoint().trim_start_matches("http://").parse()?;
    let proxy = LossyProxy::start(SocketAddr::from((next_v4(), 2379)), beyond).await?;
    let args = vec!["--audit-interval=5s".to_owned()];
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions { args, ..TwinspanOptions::default() })?;
    twinspan.ready().await?;
    let sandbox = Sandbox::without_registry_object(bed, "lossy", &bed.registry).await?;
    sandbox.create_registry(json!({"etcd": {"endpoints": [proxy.endpoint()]}})).await?;
    let mut servers = Vec::new();
    for service in SERVICES {
        let vms: Vec<SocketAddr> = (0..4).map(|_| SocketAddr::from((next_v4(), 9000))).collect();
        sandbox.headless(service).await?;
        sandbox.register(service, json!({})).await?;
        for vm in &vms {
            sandbox.put(service, *vm).await?;
        }
        sandbox.imports_become(service, &vms).await?;
        servers.push((service, vms));
    }
    let pod = sandbox.pod("one", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let all: Vec<SocketAddr> = servers[0].1.iter().copied().chain([pod.address()]).collect();
    sandbox.records_become("one", &all).await?;

    let own = sandbox.key("one", pod.address());
    let gone = servers.iter().map(|(service, vms)| sandbox.key(service, vms[0])).chain([own.clone()]);
    for key in gone {
        proxy.swallow_delete(&key);
        sandbox.registry.delete(&key).await?;
    }
    eventually("the events get lost", FOUND, || async {
        ensure!(proxy.waiting() == 0, "{} are still to come", proxy.waiting());
        Ok(())
    })
    .await?;
    for (service, vms) in &servers {
        sandbox.imports_become_within(service, &vms[1..], FOUND).await?;
    }
    eventually("the own record is put back", FOUND, || async {
        ensure!(sandbox.registry.dump(&own).await?.len() == 1);
        Ok(())
    })
    .await?;
    let differs = format!("twinspan_audits_total{{registry=\"{}\",result=\"differs\"}}", sandbox.name);
    ensure!(twinspan.metric(&differs).await?.context("no such metric")? >= 1.0);
    sandbox.nothing_foreign_was_touched().await
}
