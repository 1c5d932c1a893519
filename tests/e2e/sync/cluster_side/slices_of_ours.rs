//! Slices of ours that others touch: their labels and finalizers, their owner, and the servers that were in slices
//! before.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::{Value, json};
use twinspan_testbed::{TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN};

fn vm() -> SocketAddr {
    SocketAddr::from((next_v4(), 9000))
}

/// An imported server of the Service `user`, and the name of its slice.
async fn one_import(sandbox: &Sandbox<'_>) -> Result<(SocketAddr, String)> {
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    let address = vm();
    sandbox.put("user", address).await?;
    sandbox.imports_become("user", &[address]).await?;
    let name = sandbox.our_slices("user").await?.pop().and_then(|slice| slice.metadata.name).context("a slice")?;
    Ok((address, name))
}

pub async fn what_others_put_there_stays(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "theirs").await?;
    let (first, name) = one_import(&sandbox).await?;
    let second = vm();
    let patch = |metadata: Value| {
        let (api, name) = (sandbox.slices(), name.clone());
        // As every program that calls itself by its own name.
        let params = PatchParams { field_manager: Some("mesh".to_owned()), ..PatchParams::default() };
        async move { api.patch(&name, &params, &Patch::Merge(json!({"metadata": metadata}))).await }
    };
    let theirs = json!({"finalizers": ["mesh.example/drain"], "labels": {"mesh.example/on": "yes"},
        "annotations": {"mesh.example/note": "x"}});
    let patched = patch(theirs).await?;
    holds("what they put there is no reason to write", Duration::from_secs(2), || async {
        let version = sandbox.slices().get(&name).await?.metadata.resource_version;
        Ok(version == patched.metadata.resource_version)
    })
    .await?;
    sandbox.put("user", second).await?;
    sandbox.imports_become("user", &[first, second]).await?;
    let metadata = sandbox.slices().get(&name).await?.metadata;
    ensure!(metadata.finalizers.clone().unwrap_or_default() == ["mesh.example/drain"], "{metadata:?}");
    ensure!(metadata.labels.clone().unwrap_or_default().contains_key("mesh.example/on"), "{metadata:?}");
    ensure!(metadata.annotations.clone().unwrap_or_default().contains_key("mesh.example/note"), "{metadata:?}");

    // A label that the Service loses goes from the slice nevertheless.
    let label = |team: Value| {
        let (api, body) = (sandbox.services(), json!({"metadata": {"labels": {"team": team}}}));
        async move { api.patch("user", &PatchParams::default(), &Patch::Merge(body)).await }
    };
    for (team, there) in [(json!("a"), true), (Value::Null, false)] {
        label(team).await?;
        eventually("labels of the Service are followed", SOON, || async {
            let labels = sandbox.slices().get(&name).await?.metadata.labels.unwrap_or_default();
            ensure!(labels.contains_key("team") == there && labels.contains_key("mesh.example/on"), "{labels:?}");
            Ok(())
        })
        .await?;
    }
    patch(json!({"finalizers": null})).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Without the garbage collector: a deletion with `Orphan` takes the owner references from the slices.
pub async fn slices_go_without_the_garbage_collector(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "orphaned").await?;
    let (first, name) = one_import(&sandbox).await?;
    let second = vm();
    // Somebody strips the reference: it is put back, and the slice is corrected as before.
    let stripped = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
    sandbox.slices().patch(&name, &PatchParams::default(), &stripped).await?;
    eventually("the slice has its owner again", SOON, || async {
        let owners = sandbox.slices().get(&name).await?.metadata.owner_references.unwrap_or_default();
        ensure!(owners.len() == 1 && owners[0].name == "user", "{owners:?}");
        Ok(())
    })
    .await?;
    sandbox.put("user", second).await?;
    sandbox.imports_become("user", &[first, second]).await?;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    sandbox.registered().delete("user", &orphan).await?;
    sandbox.imports_become("user", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The way from hand-written Endpoints and slices to a RegisteredService: the servers stay in the Service.
pub async fn servers_in_hand_written_endpoints_stay(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "byhand").await?;
    sandbox.headless_without_selector("user", 80).await?;
    let (in_endpoints, in_slice) = (vm(), vm());
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": {"name": "user"},
        "subsets": [{"addresses": [{"ip": in_endpoints.ip()}], "ports": [{"name": "rpc", "port": 9000}]}],
    }))?;
    let all: Api<Endpoints> = Api::namespaced(sandbox.client(), &sandbox.name);
    all.create(&PostParams::default(), &endpoints).await?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "user",
            "endpointslice.kubernetes.io/managed-by": "by-hand.example"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [in_slice.ip()]}], "ports": [{"name": "rpc", "port": 9000}],
    }))?;
    sandbox.slices().create(&PostParams::default(), &slice).await?;
    sandbox.put("user", in_endpoints).await?;
    sandbox.put("user", in_slice).await?;
    sandbox.dns_becomes("user", &[in_endpoints, in_slice]).await?;
    sandbox.register("user", json!({"direction": "Import"})).await?;
    sandbox.condition("user", "Ready", "True", "Synced").await?;
    ensure!(sandbox.imported("user").await?.is_empty(), "the cluster has them");
    all.delete("user", &DeleteParams::default()).await?;
    sandbox.slices().delete("by-hand", &DeleteParams::default()).await?;
    sandbox.imports_become("user", &[in_endpoints, in_slice]).await?;
    sandbox.dns_becomes("user", &[in_endpoints, in_slice]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The older of two RegisteredServices of one Service begins to want what the younger has; a restart finds nothing to
/// write.
pub async fn an_address_that_changes_hands(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "hands").await?;
    sandbox.headless_without_selector("user", 80).await?;
    let older = json!({"registryName": "user", "service": {"name": "user"}, "direction": "Export"});
    sandbox.register("older", older).await?;
    // Creation times have whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    sandbox.register("younger", json!({"registryName": "user", "service": {"name": "user"}})).await?;
    let address = vm();
    sandbox.put("user", address).await?;
    sandbox.imports_become("user", &[address]).await?;
    sandbox.patch("older", json!({"direction": "Both"})).await?;
    let slices = || async {
        let labels = ListParams::default().labels("endpointslice.kubernetes.io/managed-by=twinspan.dev");
        Ok::<_, anyhow::Error>(sandbox.slices().list(&labels).await?.items)
    };
    // Two seconds, doubled for a busy machine.
    eventually("the older has it, in one slice", Duration::from_secs(4), || async {
        let slices = slices().await?;
        let owners: BTreeSet<_> =
            slices.iter().flat_map(|s| s.metadata.owner_references.iter().flatten().map(|o| o.name.as_str())).collect();
        let endpoints: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
        ensure!(owners == BTreeSet::from(["older"]) && endpoints == 1, "{slices:?}");
        Ok(())
    })
    .await?;
    sandbox.dns_becomes("user", &[address]).await?;

    for name in ["older", "younger"] {
        sandbox.seen(name).await?;
    }
    let before = slices().await?;
    first.part().stop().await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    eventually("it leads", SOON, || async {
        ensure!(second.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    holds("the slices after a restart", Duration::from_secs(5), slices).await?;
    ensure!(slices().await? == before, "the restart wrote: {before:?}");
    sandbox.nothing_foreign_was_touched().await
}
