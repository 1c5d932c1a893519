//! The choices of people for one Service: annotations, edits, objects that they write by hand, and grants.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use etcd_client::GetOptions;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use twinspan::api::RegisteredService;
use twinspan_testbed::eventually;

use super::scene::Scene;
use crate::harness::SOON;

pub async fn all(scene: &Scene<'_>) -> Result<()> {
    names_and_collisions(scene).await?;
    edits_are_put_back(scene).await?;
    opting_out_and_in(scene).await?;
    a_lost_grant(scene).await?;
    another_template(scene).await
}

async fn names_and_collisions(scene: &Scene<'_>) -> Result<()> {
    let sandbox = &scene.sandbox;
    scene.annotate("s-01", json!({"twinspan.dev/registry-name": "pay", "twinspan.dev/weight": "7"})).await?;
    sandbox.records_become("pay", &[scene.pod(1)]).await?;
    sandbox.records_become("s-01", &[]).await?;
    let value = sandbox.records("pay").await?.into_values().next().map(|(value, ..)| value).unwrap_or_default();
    ensure!(value.contains("\"weight\":7"), "{value}");
    // The younger one has no name of its own any more; a bad annotation costs its Service alone.
    scene.annotate("s-02", json!({"twinspan.dev/registry-name": "s-00"})).await?;
    scene.annotate("s-03", json!({"twinspan.dev/weight": "heavy"})).await?;
    let status = scene.status(|status| status.refused == 2).await?;
    let reasons: Vec<(&str, &str)> =
        status.refusals.iter().map(|refusal| (refusal.object.as_str(), refusal.reason.as_str())).collect();
    let of = |name: &str| format!("Service {}/{name}", sandbox.name);
    ensure!(
        reasons == [(of("s-02").as_str(), "NameCollision"), (of("s-03").as_str(), "InvalidAnnotation")],
        "{status:?}"
    );
    sandbox.records_become("s-03", &[scene.pod(3)]).await?;
    sandbox.records_become("s-02", &[]).await?;
    // A canary shares the name on purpose.
    scene.annotate("s-02", json!({"twinspan.dev/registry-name": "pay"})).await?;
    sandbox.records_become("pay", &[scene.pod(1), scene.pod(2)]).await?;
    let none = json!({"twinspan.dev/registry-name": null, "twinspan.dev/weight": null});
    for service in ["s-01", "s-02", "s-03"] {
        scene.annotate(service, none.clone()).await?;
    }
    for n in 0..4 {
        sandbox.records_become(&format!("s-{n:02}"), &[scene.pod(n)]).await?;
    }
    scene.status(|status| status.refused == 0 && status.pending == 0).await.map(drop)
}

async fn edits_are_put_back(scene: &Scene<'_>) -> Result<()> {
    let sandbox = &scene.sandbox;
    sandbox.patch("s-00", json!({"registryName": "hijacked", "suspend": true})).await?;
    let labels = Patch::Merge(json!({"metadata": {"labels": {"twinspan.dev/discovered-by": "nobody", "team": "a"}}}));
    sandbox.registered().patch("s-01", &PatchParams::default(), &labels).await?;
    eventually("both edits are put back", SOON, || async {
        let first = sandbox.registered().get("s-00").await?;
        ensure!(first.spec.registry_name.as_deref() == Some("s-00") && !first.spec.suspend, "{:?}", first.spec);
        let second = sandbox.registered().get("s-01").await?;
        let labels = second.metadata.labels.unwrap_or_default();
        ensure!(labels["twinspan.dev/discovered-by"] != "nobody" && labels["team"] == "a", "{labels:?}");
        Ok(())
    })
    .await?;
    eventually("an Event tells it", SOON, || async {
        let events = sandbox.events("s-00").await?;
        ensure!(events.iter().any(|(reason, _)| reason == "DiscoveryRestored"), "{events:?}");
        Ok(())
    })
    .await
}

async fn opting_out_and_in(scene: &Scene<'_>) -> Result<()> {
    scene.annotate("s-03", json!({"twinspan.dev/export": "false"})).await?;
    scene.sandbox.records_become("s-03", &[]).await?;
    ensure!(!scene.is_made("s-03").await?);
    scene.annotate("s-03", json!({"twinspan.dev/export": null})).await?;
    scene.sandbox.records_become("s-03", &[scene.pod(3)]).await
}

/// The record goes from one to the other in one write, and nobody sees the service without it.
pub async fn what_is_written_by_hand_wins(scene: &Scene<'_>) -> Result<()> {
    let sandbox = &scene.sandbox;
    sandbox.records_become("s-02", &[scene.pod(2)]).await?;
    let vm = format!("{}/vm-0", scene.vms);
    eventually("the name is imported", SOON, || async {
        let object = scene.import("vm-0").await?;
        ensure!(object.status.is_some_and(|status| status.instances.imported == 1), "nothing is imported yet");
        Ok(())
    })
    .await?;
    let before = created(scene, "s-02").await?;
    ensure!(before.len() == 1, "{before:?}");
    sandbox
        .register("by-hand", json!({"service": {"name": "s-02"}, "registryName": "s-02", "direction": "Export"}))
        .await?;
    eventually("the discovered one gives way", SOON * 2, || async {
        ensure!(!scene.is_made("s-02").await?, "it is still there");
        Ok(())
    })
    .await?;
    ensure!(created(scene, "s-02").await? == before, "the record was gone for a moment");
    // An import is won by its name, in whichever namespace.
    let import = json!({"registryName": "vm-0", "direction": "Import"});
    sandbox.register("vm-by-hand", import).await?;
    // The Service comes later, so that discovery does not make an object of that name first.
    sandbox.headless_without_selector("vm-by-hand", 80).await?;
    eventually("the discovered import gives way", SOON * 2, || async {
        ensure!(!scene.made().await?.contains(&vm), "it is still there");
        Ok(())
    })
    .await?;
    // And the other way round, without either they are made again.
    sandbox.unregister("by-hand").await?;
    sandbox.unregister("vm-by-hand").await?;
    eventually("both are made again", SOON, || async {
        let made = scene.made().await?;
        ensure!(scene.is_made("s-02").await? && made.contains(&vm), "{made:?}");
        Ok(())
    })
    .await?;
    sandbox.records_become("s-02", &[scene.pod(2)]).await
}

/// The revision at which each record of a service was created, by its key; an update keeps it.
async fn created(scene: &Scene<'_>, service: &str) -> Result<BTreeMap<Vec<u8>, i64>> {
    let mut client = scene.sandbox.registry.client().await?;
    let answer = client.get(scene.sandbox.key(service, ""), Some(GetOptions::new().with_prefix())).await?;
    Ok(answer.kvs().iter().map(|kv| (kv.key().to_vec(), kv.create_revision())).collect())
}

/// Discovery asks for no grant: the pass over the object does, and withdraws what was granted before.
async fn a_lost_grant(scene: &Scene<'_>) -> Result<()> {
    let sandbox = &scene.sandbox;
    let granted = |names: Value| {
        let selector = json!({"matchLabels": {"story": sandbox.name}});
        json!({"allowed": [{"namespaceSelector": selector, "registryNames": names}]})
    };
    scene.registry_spec(granted(json!(["s-00"]))).await?;
    sandbox.condition("s-01", "Accepted", "False", "NotAllowed").await?;
    sandbox.records_become("s-01", &[]).await?;
    ensure!(scene.is_made("s-01").await?, "the object says why");
    scene.registry_spec(granted(json!(["*"]))).await?;
    sandbox.records_become("s-01", &[scene.pod(1)]).await
}

async fn another_template(scene: &Scene<'_>) -> Result<()> {
    let before = uid(scene, "s-01").await?;
    scene.discovery(json!({"export": {"nameTemplate": "new.{name}"}})).await?;
    scene.sandbox.records_become("new.s-01", &[scene.pod(1)]).await?;
    scene.sandbox.records_become("s-01", &[]).await?;
    ensure!(uid(scene, "s-01").await? == before, "the same object moves, and puts before it withdraws");
    scene.discovery(json!({"export": {"nameTemplate": "{name}"}})).await?;
    scene.sandbox.records_become("s-01", &[scene.pod(1)]).await
}

async fn uid(scene: &Scene<'_>, name: &str) -> Result<Option<String>> {
    let api: Api<RegisteredService> = scene.sandbox.registered();
    Ok(api.get(name).await?.metadata.uid)
}
