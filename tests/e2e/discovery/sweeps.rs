//! A selector that is removed takes along what it made: held by the guard, whichever process leads, released by an
//! approval, and not held twice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use twinspan_testbed::{eventually, holds};

use super::scene::Scene;
use crate::harness::SOON;

/// Services with a pod each: enough to be many.
const SERVICES: usize = 14;

pub async fn held_and_approved(scene: &Scene<'_>) -> Result<()> {
    let sandbox = &scene.sandbox;
    for n in 4..SERVICES {
        scene.service(n).await?;
    }
    for n in 0..SERVICES {
        sandbox.records_become(&format!("s-{n:02}"), &[scene.pod(n)]).await?;
    }
    // Names go at once below the limit; what is left is counted.
    scene.discovery(json!({"import": null})).await?;
    scene.made_become(SERVICES).await?;
    // Twelve of fourteen are not selected any more.
    let some = json!({"matchExpressions": [{"key": "keep", "operator": "Exists"}]});
    for n in 0..2 {
        let labels = Patch::Merge(json!({"metadata": {"labels": {"keep": "yes"}}}));
        sandbox.services().patch(&format!("s-{n:02}"), &PatchParams::default(), &labels).await?;
    }
    scene.discovery(json!({"export": {"serviceSelector": some}})).await?;
    // An object of which no status tells yet what it writes is asked for a moment later.
    let status = eventually("twelve are held", SOON, || async {
        let held = sandbox.registry_condition("DeletionsHeld", "True", "Held").await?;
        let status = held.status.context("a status")?;
        let message = status.conditions.iter().find(|c| c.type_ == "DeletionsHeld").map(|c| c.message.clone());
        let says = message.is_some_and(|m| m.contains("discovery would delete 12 RegisteredServices"));
        ensure!(says, "{:?}", status.conditions);
        Ok(status)
    })
    .await?;
    scene.condition("False", "Held").await?;
    holds("what is held stays", Duration::from_secs(4), || async { Ok(scene.made().await?.len()) }).await?;
    ensure!(scene.made().await?.len() == SERVICES);
    for n in 0..SERVICES {
        sandbox.records_become(&format!("s-{n:02}"), &[scene.pod(n)]).await?;
    }

    let hold = status.hold.context("a hold")?;
    scene.restart().await?;
    let deleted = scene.written_objects("delete")?;
    let hash = hold.hash.clone();
    holds("the next process goes on with the hold", Duration::from_secs(4), || async {
        let object = sandbox.registries().get(&sandbox.name).await?;
        let now = object.status.and_then(|status| status.hold);
        ensure!(now.as_ref() == Some(&hold), "{now:?}, not {hold:?}");
        Ok(scene.made().await?.len())
    })
    .await?;
    scene.condition("False", "Held").await?;
    ensure!(scene.made().await?.len() == SERVICES && scene.written_objects("delete")? == deleted);
    let approval = json!({"metadata": {"annotations": {"twinspan.dev/approve-deletions": hash}}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(approval)).await?;
    scene.made_become(2).await?;
    let mut once = scene.written_objects("delete")?.split_off(deleted.len());
    once.sort();
    let swept: Vec<String> = (2..SERVICES).map(|n| format!("{}/s-{n:02}", sandbox.name)).collect();
    ensure!(once == swept, "each is deleted once: {once:?}");
    for n in 2..SERVICES {
        sandbox.records_become(&format!("s-{n:02}"), &[]).await?;
    }
    sandbox.registry_condition("DeletionsHeld", "False", "NothingHeld").await?;
    for n in 0..2 {
        sandbox.records_become(&format!("s-{n:02}"), &[scene.pod(n)]).await?;
    }
    scene.condition("True", "AllDiscovered").await
}
