//! Status and Events: complete from the first pass, written only on change and at a limited rate, and few under churn.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use twinspan::api::crds::UNSEEN;
use twinspan_testbed::{eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, record, stories};
use crate::safety::audit::audited;

stories![every_condition_from_the_first_visit, paced_under_churn_and_silent_at_rest, put_right_after_others];

async fn every_condition_from_the_first_visit(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "firstvisit").await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    sandbox.register("nowhere", json!({"registryRef": {"name": "nobody"}})).await?;
    for name in ["user", "nowhere"] {
        // The first status, whatever its conditions are.
        let status = eventually("a status", SOON, || async {
            let status = sandbox.registered().get(name).await?.status.context("no status")?;
            // The API server gives a new object one that says that nobody saw it.
            ensure!(status.observed_generation != Some(UNSEEN), "no pass yet");
            Ok(status)
        })
        .await?;
        let kinds: BTreeSet<&str> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
        ensure!(
            kinds == BTreeSet::from(["Ready", "Accepted", "Exported", "Imported", "DeletionsHeld"]),
            "{name}: {kinds:?}"
        );
        ensure!(status.conditions.iter().all(|c| !c.reason.is_empty()), "{name}: {:?}", status.conditions);
        ensure!(status.observed_generation == Some(1), "{name}: {:?}", status.observed_generation);
    }
    sandbox.condition("nowhere", "Accepted", "False", "RegistryNotFound").await?;
    sandbox.nothing_foreign_was_touched().await
}

/// A status that somebody else changed, or emptied, is right again without any other change.
async fn put_right_after_others(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "putright").await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    let object = sandbox.condition("user", "Ready", "True", "Synced").await?;
    let ready = object.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == "Ready");
    ensure!(ready.is_some_and(|ready| ready.message == "0 exported, 0 imported, 0 skipped"), "{ready:?}");
    let wrong = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Unreachable",
        "message": "by hand", "lastTransitionTime": "2026-01-01T00:00:00Z"}], "instances": {"exported": 99}}});
    let params = PatchParams::default();
    sandbox.registered().patch_status("user", &params, &Patch::Merge(&wrong)).await?;
    sandbox.registry_condition("Connected", "True", "Connected").await?;
    sandbox.registries().patch_status(&sandbox.name, &params, &Patch::Merge(&wrong)).await?;
    sandbox.condition("user", "Ready", "True", "Synced").await?;
    ensure!(sandbox.counts("user").await?.exported == 0);
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    sandbox.registry_condition("Connected", "True", "Connected").await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn paced_under_churn_and_silent_at_rest(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "paced").await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    sandbox.condition("user", "Ready", "True", "Synced").await?;
    let writes = |verb: &str, resource: &str, subresource: &str| {
        let ours = |event: &&serde_json::Value| {
            let object = &event["objectRef"];
            event["verb"] == verb
                && object["resource"] == resource
                && object["subresource"].as_str().unwrap_or_default() == subresource
                && object["namespace"] == sandbox.name.as_str()
        };
        Ok::<_, anyhow::Error>(audited(bed)?.iter().filter(ours).count())
    };
    let statuses = || writes("patch", "registeredservices", "status");
    let (before, started) = (statuses()?, Instant::now());
    let mut all = Vec::new();
    for _ in 0..60 {
        let instance = SocketAddr::from((next_v4(), 9000));
        bed.registry.put(&sandbox.key("user", instance), &record(instance).to_string()).await?;
        all.push(instance);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sandbox.imports_become("user", &all).await?;
    eventually("status has the last count", SOON, || async {
        let counts = sandbox.registered().get("user").await?.status.unwrap_or_default().instances;
        ensure!(counts.imported == 60, "{counts:?}");
        Ok(())
    })
    .await?;
    let allowed = usize::try_from(started.elapsed().as_secs() / 5)? + 2;
    let written = statuses()? - before;
    ensure!(written <= allowed, "{written} status writes in {:?}; at most {allowed}", started.elapsed());
    let slices = writes("update", "endpointslices", "")? + writes("create", "endpointslices", "")?;
    let paced = usize::try_from(started.elapsed().as_millis() / 200)? + 2;
    ensure!(slices <= paced, "{slices} slice writes in {:?}; at most {paced}", started.elapsed());

    // One Event stands for many, so that the API server does not have to keep one for each change.
    let events: Api<Event> = Api::namespaced(sandbox.client(), &sandbox.name);
    let imported: Vec<Event> = events
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter(|e| e.reason.as_deref() == Some("Imported"))
        .collect();
    ensure!(
        imported.len() <= 3,
        "{} Events: {:?}",
        imported.len(),
        imported.iter().map(|e| &e.note).collect::<Vec<_>>()
    );
    // Without changes there are no writes.
    holds("the status at rest", Duration::from_secs(6), || async {
        Ok(sandbox.registered().get("user").await?.metadata.resource_version)
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}
