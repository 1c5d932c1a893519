//! Labels that come and go, of a Service and of a namespace, and a namespace that is selected without a grant.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use twinspan::api::RegisteredService;
use twinspan_testbed::eventually;

use super::scene::Scene;
use crate::harness::SOON;

/// The label by which namespaces and Services are selected here.
const LABEL: &str = "discover";

/// Four Services of the sandbox have their objects before, and after.
pub async fn all(scene: &Scene<'_>) -> Result<()> {
    let (sandbox, bed) = (&scene.sandbox, scene.bed());
    let (other, ungranted) = (format!("{}-other", sandbox.name), format!("{}-ungranted", sandbox.name));
    let label = |value: Value| json!({"metadata": {"labels": {LABEL: value}}});
    let story = ("story".to_owned(), sandbox.name.clone());
    bed.create_namespace(&other, &BTreeMap::from([story])).await?;
    bed.create_namespace(&ungranted, &BTreeMap::from([(LABEL.to_owned(), "yes".to_owned())])).await?;
    for namespace in [&sandbox.name, &other] {
        relabel_namespace(scene, namespace, label(json!("yes"))).await?;
    }
    for n in 0..4 {
        relabel(scene, &format!("s-{n:02}"), label(json!("yes"))).await?;
    }
    let moved = scene.service_in(&other, "moved", json!({LABEL: "yes"}), json!({})).await?;
    let annotations = json!({"twinspan.dev/registry-name": "payment"});
    scene.service_in(&ungranted, "theirs", json!({LABEL: "yes"}), annotations).await?;
    let by_label = |story: Value, value: Value| json!({"matchLabels": {"story": story, LABEL: value}});
    scene
        .discovery(json!({"export": {
            "namespaceSelector": by_label(json!(null), json!("yes")),
            "serviceSelector": {"matchLabels": {LABEL: "yes"}},
        }}))
        .await?;
    sandbox.records_become("moved", &[moved]).await?;

    // A Service and a namespace lose the label, and get it back; the others stay.
    relabel(scene, "s-03", label(json!(null))).await?;
    relabel_namespace(scene, &other, label(json!(null))).await?;
    goes(scene, &sandbox.name, "s-03", "s-03").await?;
    goes(scene, &other, "moved", "moved").await?;
    for n in 0..3 {
        sandbox.records_become(&format!("s-{n:02}"), &[scene.pod(n)]).await?;
    }
    relabel(scene, "s-03", label(json!("yes"))).await?;
    relabel_namespace(scene, &other, label(json!("yes"))).await?;
    sandbox.records_become("s-03", &[scene.pod(3)]).await?;
    sandbox.records_become("moved", &[moved]).await?;

    no_grant_writes_nothing(scene, &ungranted, "theirs", "payment").await?;
    // As it was.
    scene
        .discovery(json!({"export": {
            "namespaceSelector": by_label(json!(sandbox.name), json!(null)), "serviceSelector": {"matchLabels": null},
        }}))
        .await?;
    let services: Api<k8s_openapi::api::core::v1::Service> = Api::namespaced(sandbox.client(), &other);
    services.delete("moved", &Default::default()).await?;
    goes(scene, &other, "moved", "moved").await?;
    goes(scene, &ungranted, "theirs", "payment").await?;
    for n in 0..4 {
        sandbox.records_become(&format!("s-{n:02}"), &[scene.pod(n)]).await?;
    }
    Ok(())
}

async fn relabel(scene: &Scene<'_>, service: &str, labels: Value) -> Result<()> {
    scene.sandbox.services().patch(service, &PatchParams::default(), &Patch::Merge(labels)).await?;
    Ok(())
}

async fn relabel_namespace(scene: &Scene<'_>, namespace: &str, labels: Value) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(scene.sandbox.client());
    namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(labels)).await?;
    Ok(())
}

/// An object and its records are gone.
async fn goes(scene: &Scene<'_>, namespace: &str, object: &str, registered: &str) -> Result<()> {
    let key = format!("{namespace}/{object}");
    eventually(&format!("{key} is gone"), SOON, || async {
        ensure!(!scene.made().await?.contains(&key), "it is there");
        Ok(())
    })
    .await?;
    let none: [SocketAddr; 0] = [];
    scene.sandbox.records_become(registered, &none).await
}

/// The annotation asks for a name; only the pass over the object asks whether the namespace may have it.
async fn no_grant_writes_nothing(scene: &Scene<'_>, namespace: &str, object: &str, registered: &str) -> Result<()> {
    let objects: Api<RegisteredService> = Api::namespaced(scene.sandbox.client(), namespace);
    eventually("the object says that it is not granted", SOON, || async {
        let object = objects.get(object).await?;
        ensure!(object.spec.registry_name.as_deref() == Some(registered), "{:?}", object.spec);
        let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
        let accepted = conditions.iter().find(|c| c.type_ == "Accepted").context("no condition Accepted")?;
        ensure!((&*accepted.status, &*accepted.reason) == ("False", "NotAllowed"), "{accepted:?}");
        Ok(())
    })
    .await?;
    let keys = scene.sandbox.registry.dump(&scene.sandbox.key(registered, "")).await?;
    ensure!(keys.is_empty(), "{keys:?}");
    Ok(())
}
