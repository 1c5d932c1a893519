//! Imports in a Service of their own: nothing is lost on the way there and back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use twinspan_testbed::{eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, record, stories};

stories![imports_move_there_and_back, a_service_that_somebody_made_is_used_and_left,];

const APART: &str = "echo-imported";
const PORT: u16 = 8888;

async fn apart<'a>(suite: &'a crate::harness::Suite, name: &str, import: serde_json::Value) -> Result<Sandbox<'a>> {
    let sandbox = Sandbox::new(&suite.shared().await?.bed, name).await?;
    sandbox.headless_on("echo", PORT).await?;
    sandbox.register("echo", json!({"import": import})).await?;
    Ok(sandbox)
}

/// Servers on VMs that register themselves.
pub async fn servers(sandbox: &Sandbox<'_>, count: usize) -> Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let vm = SocketAddr::from((next_v4(), PORT));
        sandbox.put("echo", record(vm)).await?;
        all.push(vm);
    }
    Ok(all)
}

async fn imports_move_there_and_back(suite: Arc<Suite>) -> Result<()> {
    let sandbox = apart(&suite, "apartmoves", json!({})).await?;
    let vms = servers(&sandbox, 2).await?;
    sandbox.imports_become("echo", &vms).await?;
    let pod = sandbox.pod("echo", "pod", PORT).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.records_become("echo", &[vms[0], vms[1], pod.address()]).await?;

    // At no moment an import is in neither Service.
    let lost = Mutex::new(Vec::new());
    let watch = async |from: &str, to: &str| -> Result<()> {
        eventually("the imports moved", SOON, || async {
            let slices = sandbox.slices().list(&ListParams::default()).await?.items;
            let services = sandbox.services().list(&ListParams::default()).await?.items;
            let names: BTreeSet<&String> =
                services.iter().filter_map(|service| service.metadata.name.as_ref()).collect();
            let lives = |slice: &&EndpointSlice| {
                let labels = slice.metadata.labels.iter().flatten();
                labels.into_iter().any(|(label, name)| label == "kubernetes.io/service-name" && names.contains(name))
            };
            let endpoints = slices.iter().filter(lives).flat_map(|slice| &slice.endpoints);
            let held: BTreeSet<&String> = endpoints.flat_map(|endpoint| &endpoint.addresses).collect();
            if !vms.iter().all(|vm| held.contains(&vm.ip().to_string())) {
                lost.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{held:?}"));
            }
            let there = sandbox.imported(to).await?;
            let here = sandbox.imported(from).await?;
            ensure!(there == vms.iter().copied().collect() && here.is_empty(), "{here:?} {there:?}");
            Ok(())
        })
        .await
    };
    sandbox.patch("echo", json!({"import": {"into": "Apart"}})).await?;
    watch("echo", APART).await?;
    sandbox.dns_becomes(APART, &vms).await?;
    sandbox.dns_becomes("echo", &[pod.address()]).await?;
    sandbox.records_become("echo", &[vms[0], vms[1], pod.address()]).await?;
    let made = sandbox.services().get(APART).await?.spec.context("a spec")?;
    ensure!(made.selector.is_none() && made.cluster_ip.as_deref() == Some("None"), "{made:?}");

    sandbox.patch("echo", json!({"import": {"serviceName": "other"}})).await?;
    watch(APART, "other").await?;
    eventually("the former Service of the imports is gone", SOON, || async {
        ensure!(sandbox.services().get_opt(APART).await?.is_none());
        Ok(())
    })
    .await?;
    sandbox.patch("echo", json!({"import": {"into": "Beside", "serviceName": null}})).await?;
    watch("other", "echo").await?;
    let lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(lost.is_empty(), "an import was in neither Service: {lost:?}");
    eventually("the Service of the imports is gone", SOON, || async {
        ensure!(sandbox.services().get_opt("other").await?.is_none());
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn a_service_that_somebody_made_is_used_and_left(suite: Arc<Suite>) -> Result<()> {
    let sandbox = Sandbox::new(&suite.shared().await?.bed, "apartmade").await?;
    sandbox.headless_on("echo", PORT).await?;
    sandbox.selector_service("pods", PORT).await?;
    sandbox.register("echo", json!({"import": {"into": "Apart", "serviceName": "pods"}})).await?;
    sandbox.condition("echo", "Accepted", "False", "NotSupported").await?;
    sandbox.headless_without_selector("vms", PORT).await?;
    sandbox.patch("echo", json!({"import": {"serviceName": "vms"}})).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    let vms = servers(&sandbox, 2).await?;
    sandbox.imports_become("vms", &vms).await?;
    // A Service of the imports that somebody deletes is made again by nobody but them: ours is.
    sandbox.patch("echo", json!({"import": {"serviceName": null}})).await?;
    sandbox.imports_become(APART, &vms).await?;
    sandbox.services().delete(APART, &DeleteParams::default()).await?;
    eventually("it is made again", SOON, || async {
        let made = sandbox.services().get_opt(APART).await?.context("it is gone")?;
        ensure!(made.metadata.deletion_timestamp.is_none(), "it goes");
        Ok(())
    })
    .await?;
    sandbox.imports_become_within(APART, &vms, Duration::from_secs(60)).await?;
    sandbox.unregister("echo").await?;
    eventually("what was made for it is gone", SOON, || async {
        ensure!(sandbox.services().get_opt(APART).await?.is_none());
        ensure!(sandbox.services().get_opt("vms").await?.is_some());
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}
