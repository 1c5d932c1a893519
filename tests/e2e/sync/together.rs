//! A Service that holds pods and imports: its pods follow at once, whatever the registry and the guard say, and after a
//! pause of the operator.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::json;
use twinspan_testbed::{TwinspanOptions, eventually, holds};

use super::apart::servers;
use super::readers::{PORT, run_pod};
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![pods_follow_without_the_registry_and_after_a_pause_of_the_operator, a_service_of_both_comes_and_goes,];

const ALL: &str = "echo-all";
/// More than the guard of deletions lets go at once without evidence.
const PODS: usize = 12;
/// Two seconds after the take-over, doubled on a busy machine.
const AFTER_TAKE_OVER: Duration = Duration::from_secs(4);

async fn run_pods(sandbox: &Sandbox<'_>, generation: &str, count: usize) -> Result<Vec<SocketAddr>> {
    let mut pods = Vec::new();
    for n in 0..count {
        pods.push(run_pod(sandbox, "echo", &format!("{generation}-{n}")).await?);
    }
    Ok(pods)
}

/// Waits until Kubernetes' own slices have these pods.
async fn pods_become(sandbox: &Sandbox<'_>, expected: &[SocketAddr]) -> Result<()> {
    let of = ListParams::default().labels(
        "kubernetes.io/service-name=echo,endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io",
    );
    let expected: BTreeSet<String> = expected.iter().map(|addr| addr.ip().to_string()).collect();
    eventually("the slices of the pods", SOON, || async {
        let slices = sandbox.slices().list(&of).await?.items;
        let found: BTreeSet<String> =
            slices.into_iter().flat_map(|slice| slice.endpoints).flat_map(|endpoint| endpoint.addresses).collect();
        ensure!(found == expected, "{found:?}, want {expected:?}");
        Ok(())
    })
    .await
}

async fn pods_follow_without_the_registry_and_after_a_pause_of_the_operator(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "together").await?;
    sandbox.headless_on("echo", PORT).await?;
    sandbox.register("echo", json!({"import": {"into": "Together", "onExpiry": "Probe"}})).await?;
    let vms = servers(&sandbox, 2).await?;
    let former = run_pods(&sandbox, "former", PODS).await?;
    sandbox.imports_become(ALL, &[&former[..], &vms].concat()).await?;
    sandbox.dns_becomes(ALL, &[&former[..], &vms].concat()).await?;

    bed.registry.part().kill().await?;
    sandbox.condition("echo", "Ready", "False", "RegistryUnavailable").await?;
    let added = run_pods(&sandbox, "added", 1).await?;
    sandbox.imports_become(ALL, &[&former[..], &added, &vms].concat()).await?;
    sandbox.pods.remove("added-0").await?;
    sandbox.imports_become(ALL, &[&former[..], &vms].concat()).await?;
    bed.registry.start_again().await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    first.part().stop().await?;
    let replaced = run_pods(&sandbox, "replaced", PODS).await?;
    let pods: Api<Pod> = Api::namespaced(sandbox.client(), &sandbox.name);
    for n in 0..PODS {
        sandbox.pods.remove(&format!("former-{n}")).await?;
    }
    pods_become(&sandbox, &replaced).await?;
    ensure!(pods.list(&ListParams::default()).await?.items.len() == PODS, "pods are left");
    ensure!(sandbox.imported(ALL).await?.contains(&former[0]), "nobody runs who would take them out");
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    eventually("it takes over", SOON, || async {
        ensure!(second.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    sandbox.imports_become_within(ALL, &[&replaced[..], &vms].concat(), AFTER_TAKE_OVER).await?;
    sandbox.dns_becomes(ALL, &[&replaced[..], &vms].concat()).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn a_service_of_both_comes_and_goes(suite: Arc<Suite>) -> Result<()> {
    let sandbox = Sandbox::new(&suite.shared().await?.bed, "togethermoves").await?;
    sandbox.headless_on("echo", PORT).await?;
    sandbox.register("echo", json!({})).await?;
    let vms = servers(&sandbox, 2).await?;
    let pods = run_pods(&sandbox, "pod", 2).await?;
    sandbox.imports_become("echo", &vms).await?;
    sandbox.patch("echo", json!({"import": {"into": "Together"}})).await?;
    sandbox.imports_become(ALL, &[&pods[..], &vms].concat()).await?;
    sandbox.imports_become("echo", &[]).await?;
    let [slice] = &sandbox.our_slices(ALL).await?[..] else { anyhow::bail!("one slice holds all of them") };
    let named = slice.endpoints.iter().filter(|endpoint| endpoint.target_ref.is_some()).count();
    ensure!(named == pods.len(), "the pods are named: {:?}", slice.endpoints);
    let service = sandbox.services().get(ALL).await?.spec.unwrap_or_default();
    ensure!(service.ip_family_policy.as_deref() == Some("SingleStack") && service.selector.is_none(), "{service:?}");
    eventually("pods are no imports", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!((counts.exported, counts.imported) == (2, 2), "{counts:?}");
        Ok(())
    })
    .await?;

    // A pod that ends is terminating there too, until it is gone; its server answers meanwhile.
    sandbox.pods.terminate("pod-0").await?;
    eventually("it is terminating", SOON, || async {
        let slices = sandbox.our_slices(ALL).await?;
        let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let at =
            |ip: IpAddr| move |e: &&k8s_openapi::api::discovery::v1::Endpoint| e.addresses.contains(&ip.to_string());
        let found = endpoints.find(at(pods[0].ip()));
        let found = found.and_then(|endpoint| endpoint.conditions.as_ref()?.terminating);
        ensure!(found == Some(true), "{found:?}");
        Ok(())
    })
    .await?;
    sandbox.pods.remove("pod-0").await?;
    sandbox.imports_become(ALL, &[&pods[1..], &vms].concat()).await?;

    // A suspended service writes nothing.
    sandbox.patch("echo", json!({"suspend": true})).await?;
    sandbox.seen("echo").await?;
    run_pods(&sandbox, "unseen", 1).await?;
    holds("nothing is written", Duration::from_secs(2), || sandbox.imported(ALL)).await?;
    sandbox.patch("echo", json!({"suspend": false, "import": {"into": "Beside"}})).await?;
    sandbox.imports_become("echo", &vms).await?;
    eventually("the Service of both is gone", SOON, || async {
        ensure!(sandbox.services().get_opt(ALL).await?.is_none());
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}
