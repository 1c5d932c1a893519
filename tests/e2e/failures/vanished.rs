//! Custom resources that vanish together although nobody wanted the end of their services: the registry keeps what is
//! ready until an administrator has seen it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use twinspan_testbed::{Bed, TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![registered_services_that_a_restored_control_plane_lacks, custom_resources_deleted_and_put_back];

const SERVICES: usize = 60;
/// The number that the restored control plane still has, and two of the others.
const KEPT: usize = 10;
const ENDS: usize = SERVICES - 1;
const COMES_BACK: usize = SERVICES - 2;

/// RegisteredServices of one pod each, the first of which also imports a server.
async fn exported(sandbox: &Sandbox<'_>) -> Result<Vec<(String, SocketAddr)>> {
    let mut services = Vec::new();
    for n in 0..SERVICES {
        let name = format!("echo-{n:02}");
        sandbox.headless(&name).await?;
        sandbox.register(&name, json!({})).await?;
        // Nobody calls it, so nothing runs there.
        let ip = next_v4();
        sandbox.pods.run(&name, &BTreeMap::from([("app".to_owned(), name.clone())]), &[IpAddr::V4(ip)]).await?;
        sandbox.pods.set_ready(&name, true).await?;
        services.push((name, SocketAddr::from((ip, 80))));
    }
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put(&services[0].0, vm).await?;
    sandbox.imports_become(&services[0].0, &[vm]).await?;
    for (name, address) in &services[1..] {
        sandbox.records_become(name, &[*address]).await?;
    }
    sandbox.records_become(&services[0].0, &[vm, services[0].1]).await?;
    Ok(services)
}

/// How many of the services have their pod in the registry.
async fn registered(sandbox: &Sandbox<'_>, services: &[(String, SocketAddr)]) -> Result<usize> {
    let mut found = 0;
    for (name, address) in services {
        found += usize::from(sandbox.registered_addresses(name).await?.contains(&address.to_string()));
    }
    Ok(found)
}

/// Fifty of sixty RegisteredServices are gone from the cluster's etcd when the API server and Twinspan come back.
async fn registered_services_that_a_restored_control_plane_lacks(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(&bed, "restored").await?;
    let services = exported(&sandbox).await?;
    let kept: BTreeSet<&String> = services.iter().map(|(name, _)| name).take(KEPT).collect();
    let before: Vec<_> = sandbox.registered().list(&Default::default()).await?.items;

    bed.cluster.apiserver.kill().await?;
    for (name, _) in services.iter().filter(|(name, _)| !kept.contains(name)) {
        let key = format!("/registry/twinspan.dev/registeredservices/{}/{name}", sandbox.name);
        bed.cluster.etcd.delete(&key).await?;
    }
    bed.cluster.apiserver.start_again()?;
    bed.cluster.api_ready().await?;

    let held = sandbox.registry_condition("DeletionsHeld", "True", "Held").await?;
    let all = || registered(&sandbox, &services);
    holds("what is ready stays", Duration::from_secs(12), all).await?;
    ensure!(all().await? == SERVICES, "{} are left", all().await?);
    // A pod that ends does not wait.
    sandbox.pods.remove(&services[ENDS].0).await?;
    sandbox.records_become(&services[ENDS].0, &[]).await?;
    // The ones that come back are synced at once.
    for object in before.iter().filter(|object| object.name_any() == services[COMES_BACK].0) {
        sandbox.registered().create(&PostParams::default(), &again(object)?).await?;
    }
    sandbox.condition(&services[COMES_BACK].0, "Ready", "True", "Synced").await?;
    ensure!(all().await? == SERVICES - 1);

    let hold = held.status.and_then(|status| status.hold).context("no hold in the status")?;
    let hash = eventually("the hold of the others", SOON, || async {
        let status = sandbox.registries().get(&sandbox.name).await?.status.context("no status")?;
        let now = status.hold.context("no hold")?;
        let message = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").map(|c| c.message.clone());
        let left = format!("that {} instances", COMES_BACK - KEPT);
        ensure!(message.as_ref().is_some_and(|m| m.contains(&left)), "{message:?}");
        ensure!(now.hash != hold.hash && now.since == hold.since, "{now:?}");
        Ok(now.hash)
    })
    .await?;
    let approval = json!({"metadata": {"annotations": {"twinspan.dev/approve-deletions": hash}}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(approval)).await?;
    for (name, _) in &services[KEPT..COMES_BACK] {
        sandbox.records_become(name, &[]).await?;
    }
    ensure!(all().await? == KEPT + 1, "those that exist stay");
    sandbox.registry_condition("DeletionsHeld", "False", "NothingHeld").await?;
    sandbox.nothing_foreign_was_touched().await
}

/// An object as a backup has it.
fn again<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(object: &K) -> Result<K> {
    let mut value = serde_json::to_value(object)?;
    let name = object.name_any();
    value["metadata"] = json!({"name": name, "namespace": object.namespace()});
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    Ok(serde_json::from_value(value)?)
}

/// Somebody deletes both CRDs, and puts them back with all objects.
async fn custom_resources_deleted_and_put_back(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(&bed, "crdsgone").await?;
    let services = exported(&sandbox).await?;
    let vm: Vec<SocketAddr> = sandbox.imported(&services[0].0).await?.into_iter().collect();
    let objects = sandbox.registered().list(&Default::default()).await?.items;
    let registries = sandbox.registries().list(&Default::default()).await?.items;
    let crds = definitions(&bed).await?;

    for crd in &crds {
        let api: Api<CustomResourceDefinition> = Api::all(bed.client());
        api.delete(&crd.name_any(), &DeleteParams::default()).await?;
    }
    eventually("both CRDs are gone", SOON, || async {
        ensure!(definitions(&bed).await?.is_empty());
        Ok(())
    })
    .await?;
    let all = || registered(&sandbox, &services);
    holds("what is ready stays", Duration::from_secs(12), all).await?;
    ensure!(all().await? == SERVICES, "{} are left", all().await?);

    for crd in &crds {
        let api: Api<CustomResourceDefinition> = Api::all(bed.client());
        api.create(&PostParams::default(), &again(crd)?).await?;
    }
    eventually("the ServiceRegistry is back", SOON, || async {
        for object in &registries {
            sandbox.registries().create(&PostParams::default(), &again(object)?).await?;
        }
        Ok(())
    })
    .await?;
    eventually("the RegisteredServices are back", SOON, || async {
        let known = sandbox.registered().list(&Default::default()).await?.items;
        let known: BTreeSet<String> = known.iter().map(ResourceExt::name_any).collect();
        for object in objects.iter().filter(|object| !known.contains(&object.name_any())) {
            sandbox.registered().create(&PostParams::default(), &again(object)?).await?;
        }
        Ok(())
    })
    .await?;
    sandbox.imports_become_within(&services[0].0, &vm, Duration::from_secs(10)).await?;
    for (name, _) in &services {
        sandbox.condition(name, "Ready", "True", "Synced").await?;
    }
    ensure!(all().await? == SERVICES, "{} are left", all().await?);
    sandbox.registry_condition("DeletionsHeld", "False", "NothingHeld").await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn definitions(bed: &Bed) -> Result<Vec<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(bed.client());
    let all = api.list(&Default::default()).await?.items;
    Ok(all.into_iter().filter(|crd| crd.spec.group == "twinspan.dev").collect())
}
