//! `twinspan doctor`: a healthy cluster, and one fault at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::process::Command;
use twinspan_testbed::{Bed, TwinspanOptions, apply_file, discovery_manifest, eventually, next_v4, twinspan_manifest};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![what_is_wrong_and_what_to_do, every_exported_address_is_tried_from_here];

/// The exit code and the output.
async fn ask(bed: &Bed, registry: &str) -> Result<(i32, String)> {
    ask_for(bed, registry, "--audit").await
}

async fn ask_for(bed: &Bed, registry: &str, more: &str) -> Result<(i32, String)> {
    let output = Command::new(TWINSPAN)
        .args(["doctor", registry, more])
        .arg(format!("--kubeconfig={}", bed.cluster.admin.path.display()))
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code().context("no exit code")?, text))
}

/// Exactly these lines are not `ok`.
fn complaints<T: AsRef<str>>(text: &str, expected: &[T]) -> Result<()> {
    let found: Vec<&str> = text.lines().filter(|line| line.starts_with("FAIL") || line.starts_with("warn")).collect();
    ensure!(found.len() == expected.len(), "{text}");
    for wanted in expected.iter().map(AsRef::as_ref) {
        ensure!(found.iter().any(|line| line.contains(wanted)), "nothing about {wanted:?} in:\n{text}");
    }
    Ok(())
}

async fn what_is_wrong_and_what_to_do(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "doctor").await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    let before = bed.registry.dump("").await?;

    let policies: Api<ValidatingAdmissionPolicy> = Api::all(bed.client());
    let both = ["twinspan-endpointslices", "twinspan-services"];
    for policy in both {
        policies.delete(policy, &DeleteParams::default()).await?;
    }
    let (code, text) = ask(bed, &sandbox.name).await?;
    complaints(&text, &both.map(|policy| format!("there is no ValidatingAdmissionPolicy {policy};")))?;
    ensure!(code == 0, "a warning is no failure: {code}");
    apply_file(&bed.client(), &twinspan_manifest()).await?;
    let (code, text) = ask(bed, &sandbox.name).await?;
    complaints::<&str>(&text, &[])?;
    for wanted in [
        "ok    Kubernetes v",
        &format!("\nregistry {}\nok    ", sandbox.name),
        " passed, 0 warnings, 0 failed",
        "clocks differ by less than 2 s",
        "CRD registeredservices.twinspan.dev is the one of this version",
        "system:serviceaccount:twinspan-system:twinspan is allowed all",
        "leads",
        "limited to EndpointSlices of its own",
        "limited to Services of its own",
        "etcd 3.7.3 answers in",
        &format!("may read \"{}/\", 2 keys", sandbox.name),
        &format!("may write \"{}/twinspan-doctor\"", sandbox.name),
        "may write \"twinspan/",
    ] {
        ensure!(text.contains(wanted), "nothing about {wanted:?} in:\n{text}");
    }
    ensure!(code == 0, "exit code {code}");
    ensure!(bed.registry.dump("").await? == before, "it wrote something");

    // Discovery that writes needs more than one that observes.
    let discovery = |policy: &str| json!({"spec": {"discovery": {"policy": policy, "export": {"namespaceSelector": {"matchLabels": {"none": "none"}}}}}});
    let set = async |patch: serde_json::Value| {
        sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(patch)).await
    };
    set(discovery("Observe")).await?;
    let (_, text) = ask(bed, &sandbox.name).await?;
    complaints::<&str>(&text, &[])?;
    set(discovery("Sync")).await?;
    let (code, text) = ask(bed, &sandbox.name).await?;
    let lacks = "is not allowed: create registeredservices, delete registeredservices, update registeredservices; apply the roles";
    complaints(&text, &[lacks, "there is no ValidatingAdmissionPolicy twinspan-registeredservices;"])?;
    ensure!(code == 3, "exit code {code}");
    apply_file(&bed.client(), &discovery_manifest()).await?;
    let (_, text) = ask(bed, &sandbox.name).await?;
    complaints::<&str>(&text, &[])?;
    ensure!(text.contains("is allowed all 3 verbs that discovery uses"), "{text}");
    set(json!({"spec": {"discovery": null}})).await?;

    let (code, text) = ask(bed, "nobody").await?;
    complaints(&text, &["there is no such ServiceRegistry"])?;
    ensure!(code == 3, "exit code {code}");

    // One endpoint refuses.
    let refuses = format!("http://{}:2379", next_v4());
    let endpoints = json!({"spec": {"etcd": {"endpoints": [sandbox.registry.endpoint(), refuses]}}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(endpoints)).await?;
    let (code, text) = ask(bed, &sandbox.name).await?;
    complaints(&text, &[&format!("{refuses}: no endpoint of the registry answers")])?;
    ensure!(code == 3, "exit code {code}");

    // Endpoints of two clusters.
    let other = bed.start_registry("registry-doctor-other").await?;
    let endpoints = json!({"spec": {"etcd": {"endpoints": [sandbox.registry.endpoint(), other.endpoint()]}}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(endpoints)).await?;
    let (_, text) = ask(bed, &sandbox.name).await?;
    complaints(&text, &["belong to 2 different etcd clusters"])?;

    // A user that may read and not write, and a registry that no namespace may use.
    let guarded = bed.start_registry("registry-doctor-guarded").await?;
    guarded.require_password("twinspan", "secret", &["elsewhere"]).await?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "doctor"}, "stringData": {"username": "twinspan", "password": "secret"}
    }))?;
    sandbox.secrets().create(&PostParams::default(), &secret).await?;
    let spec = json!({"spec": {
        "etcd": {"endpoints": [guarded.endpoint()], "auth": {"secretRef": {"name": "doctor"}}}, "allowed": [],
    }});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(spec)).await?;
    let (_, text) = ask(bed, &sandbox.name).await?;
    let (read, write) = (format!("may not read \"{}/\"", sandbox.name), format!("may not write \"{}/", sandbox.name));
    let clear = "the password of spec.etcd.auth goes in clear";
    complaints(&text, &[read.as_str(), &write, "may not write \"twinspan/", clear, "no namespace may use it"])?;
    sandbox.secrets().delete("doctor", &DeleteParams::default()).await?;
    let (_, text) = ask(bed, &sandbox.name).await?;
    complaints(&text, &["there is no Secret doctor", clear, "no namespace may use it"])?;

    // A missing verb, and a missing CRD.
    let back = json!({"spec": {"etcd": {"endpoints": [sandbox.registry.endpoint()], "auth": null}, "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(back)).await?;
    let roles: Api<ClusterRole> = Api::all(bed.client());
    let mut role = roles.get("twinspan").await?;
    for rule in role.rules.iter_mut().flatten() {
        if rule.resources.iter().flatten().any(|resource| resource == "endpointslices") {
            rule.verbs.retain(|verb| verb != "update");
        }
    }
    roles.replace("twinspan", &PostParams::default(), &role).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(bed.client());
    let mut crd = crds.get("serviceregistries.twinspan.dev").await?;
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            schema.description = Some("another one".to_owned());
        }
    }
    crds.replace("serviceregistries.twinspan.dev", &PostParams::default(), &crd).await?;
    let (code, text) = ask(bed, &sandbox.name).await?;
    complaints(
        &text,
        &["is not allowed: update endpointslices;", "CRD serviceregistries.twinspan.dev is another one"],
    )?;
    ensure!(code == 3, "exit code {code}");
    Ok(())
}

async fn every_exported_address_is_tried_from_here(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "reach").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    let (_, text) = ask_for(bed, &sandbox.name, "--reach").await?;
    ensure!(text.contains("exports nothing to it"), "{text}");

    // The bed has no other part of the doctor's cluster in order: only what is about reach counts.
    let tells = async |wanted: &str| {
        eventually("the doctor tells it", SOON, || async {
            let (code, text) = ask_for(bed, &sandbox.name, "--reach").await?;
            ensure!(text.contains(wanted), "nothing about {wanted:?} in:\n{text}");
            Ok(code)
        })
        .await
    };
    let answers = sandbox.pod("echo", "answers", 80).await?;
    sandbox.pods.set_ready("answers", true).await?;
    sandbox.records_become("echo", &[answers.address()]).await?;
    tells(&format!("ok    {}/echo: all of 1 exported addresses answer", sandbox.name)).await?;

    let silent = next_v4();
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    sandbox.pods.run("silent", &labels, &[silent.into()]).await?;
    sandbox.pods.set_ready("silent", true).await?;
    sandbox.records_become("echo", &[answers.address(), (silent, 80).into()]).await?;
    let code = tells(&format!("1 of 2 exported addresses do not answer from here: {silent}:80")).await?;
    ensure!(code == 3, "exit code {code}");
    sandbox.nothing_foreign_was_touched().await
}
