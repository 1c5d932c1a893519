//! The lifecycle of a release: from plain manifests to Helm, upgrades with new CRDs and registries, a rollback, the
//! uninstallation, and a cluster that never had Twinspan.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use tokio::process::Command;
use twinspan_chart::chart;
use twinspan_chart::helm::{Helm, objects};
use twinspan_testbed::{Bed, OPERATOR_NAMESPACE, TwinspanOptions, apply_file, eventually, next_v4};

use super::Cluster;
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN};
use crate::safety::audit::audited_as;

const CRD: &str = "registeredservices.twinspan.dev";
const BEFORE: &str = "How it was before.";

pub async fn install_upgrade_rollback_uninstall(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let cluster = Cluster::of(bed)?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "helm").await?;
    sandbox.headless_without_selector("echo", 80).await?;
    let server = sandbox.vm("echo", (next_v4(), 8888).into(), None).await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.imports_become("echo", &[server.address()]).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(bed.client());
    let uid = crds.get(CRD).await?.uid();

    // Helm does not adopt the objects that kubectl installed unless it is told to; then it adopts them unchanged.
    let message = cluster.refusal("install", &[]).await?;
    ensure!(message.contains("cannot be imported into the current release"), "{message}");
    let older = older_chart(bed.dir())?;
    let older = older.display().to_string();
    let notes = cluster.succeed("install", &[&older, "--take-ownership", "--force-conflicts"]).await?;
    for command in [
        "kubectl rollout status deployment/twinspan -n twinspan-system && helm test twinspan",
        "kind: ServiceRegistry",
        "kind: RegisteredService",
    ] {
        ensure!(notes.contains(command), "the notes have no {command:?}:\n{notes}");
    }
    ensure!(description(&crds).await? == BEFORE, "the CRD of the release is installed");
    everything_is_helms(bed).await?;

    // A cluster can have only one Twinspan, and Helm says so before it changes anything.
    let other = ["install", "other", &chart().display().to_string(), "--namespace=elsewhere", "--create-namespace"];
    let message = cluster.helm.refusal(&other)?;
    ensure!(message.contains("must equal \"other\": current value is \"twinspan\""), "{message}");

    // An upgrade brings new CRDs, and registries from values.
    let guarded = bed.start_registry("registry-guarded").await?;
    guarded.require_password("twinspan", "secret", &["from-values/", "twinspan/"]).await?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "etcd"}, "stringData": {"username": "twinspan", "password": "secret"}
    }))?;
    sandbox.secrets().create(&PostParams::default(), &secret).await?;
    let registry = serde_json::to_string(&json!({
        "etcd": {"endpoints": [guarded.endpoint()], "auth": {"secretRef": {"name": "etcd"}}},
        "format": "Kitex", "prefix": "from-values",
        "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}],
    }))?;
    let registries = format!("serviceRegistries={{\"main\":{registry}}}");
    // kubectl keeps the fields that it set by server-side apply until Helm is told to take them.
    cluster.succeed("upgrade", &["--force-conflicts", "--set", "replicas=3", "--set-json", &registries]).await?;
    ensure!(description(&crds).await? != BEFORE, "the upgrade brought the CRD of its version");
    ensure!(replicas(bed).await? == Some(3));
    eventually("the registry from values is connected", SOON, || async {
        let registry = sandbox.registries().get("main").await?;
        let status = serde_json::to_value(&registry)?["status"].clone();
        let ready = status["conditions"].as_array().is_some_and(|all| {
            all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        ensure!(ready, "{status}");
        Ok(())
    })
    .await?;
    let wrong = registries.replace("Kitex", "Hertz");
    let message = cluster.refusal("upgrade", &["--set-json", &wrong]).await?;
    ensure!(message.contains("spec.format is immutable"), "{message}");

    doctor(bed).await?;

    cluster.succeed("rollback", &["1"]).await?;
    ensure!(replicas(bed).await? == Some(2) && description(&crds).await? == BEFORE, "all is as it was");
    cluster.succeed("upgrade", &[]).await?;
    ensure!(sandbox.registries().get_opt("main").await?.is_some(), "a registry that values no longer have stays");

    // A pod would go with the Deployment; here the operator would stay behind without its roles.
    twinspan.part().stop().await?;
    sandbox.nothing_foreign_was_touched().await?;

    // The objects from before Helm still exist after the uninstallation.
    let said = cluster.succeed("uninstall", &[]).await?;
    ensure!(said.contains("kept due to the resource policy"), "{said}");
    eventually("the release is gone", SOON, || async {
        ensure!(replicas(bed).await?.is_none());
        Ok(())
    })
    .await?;
    ensure!(crds.get(CRD).await?.uid() == uid, "the CRD was never deleted");
    ensure!(sandbox.registered().get_opt("echo").await?.is_some(), "RegisteredServices stay");
    ensure!(sandbox.registries().get_opt("main").await?.is_some(), "ServiceRegistries stay");
    ensure!(sandbox.imported("echo").await? == [server.address()].into(), "imported endpoints stay");

    // Installed again, over the objects that were kept.
    cluster.succeed("install", &[]).await?;
    everything_is_helms(bed).await?;
    cluster.succeed("uninstall", &[]).await?;
    never_heard_of_it(&cluster, &crds, &registries).await
}

/// A cluster without the CRDs: registries from values have to wait for the first upgrade, and the message says so.
async fn never_heard_of_it(cluster: &Cluster, crds: &Api<CustomResourceDefinition>, registries: &str) -> Result<()> {
    for name in [CRD, "serviceregistries.twinspan.dev"] {
        crds.delete(name, &DeleteParams::default()).await?;
    }
    eventually("the kinds are gone", SOON, || async {
        let message = cluster.refusal("install", &["--set-json", registries, "--dry-run=server"]).await?;
        ensure!(message.contains("this cluster does not know the kind yet"), "{message}");
        ensure!(message.contains("Install without serviceRegistries first and then run `helm upgrade`"), "{message}");
        Ok(())
    })
    .await?;
    cluster.succeed("install", &[]).await?;
    eventually("the kinds are there", SOON, || async {
        cluster.succeed("upgrade", &["--set-json", registries]).await?;
        Ok(())
    })
    .await
}

/// The chart with different CRDs.
fn older_chart(dir: &Path) -> Result<PathBuf> {
    let copy = dir.join("older/twinspan");
    for below in ["", "templates", "templates/tests", "files", "files/crds"] {
        std::fs::create_dir_all(copy.join(below))?;
        for entry in std::fs::read_dir(chart().join(below))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), copy.join(below).join(entry.file_name()))?;
            }
        }
    }
    let path = copy.join("files/crds/registeredservices.yaml");
    let mut crd: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(&path)?)?;
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = BEFORE.into();
    std::fs::write(&path, serde_yaml::to_string(&crd)?)?;
    Ok(copy)
}

async fn description(crds: &Api<CustomResourceDefinition>) -> Result<String> {
    let crd = crds.get(CRD).await?;
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()).context("a CRD without a schema")?;
    Ok(schema.description.clone().unwrap_or_default())
}

async fn replicas(bed: &Bed) -> Result<Option<i32>> {
    let deployments: Api<Deployment> = Api::namespaced(bed.client(), OPERATOR_NAMESPACE);
    Ok(deployments.get_opt("twinspan").await?.and_then(|deployment| deployment.spec?.replicas))
}

/// Every object of the release exists, and belongs to Helm.
async fn everything_is_helms(bed: &Bed) -> Result<()> {
    let cluster = Cluster::of(bed)?;
    let text = cluster.helm.succeed(&["get", "manifest", "twinspan", "--namespace=twinspan-system"])?;
    let all = objects(&text)?;
    ensure!(all.len() == 17, "{} objects", all.len());
    for object in all {
        let object: kube::api::DynamicObject = serde_json::from_value(serde_json::to_value(object)?)?;
        let types = object.types.clone().context("an object without a kind")?;
        let kind = kube::core::GroupVersionKind::try_from(&types)?;
        let (resource, _) = kube::discovery::pinned_kind(&bed.client(), &kind).await?;
        let api: Api<kube::api::DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(bed.client(), &namespace, &resource),
            None => Api::all_with(bed.client(), &resource),
        };
        let stored = api.get(&object.name_any()).await?;
        let manager = stored.labels().get("app.kubernetes.io/managed-by").map(String::as_str);
        ensure!(manager == Some("Helm"), "{} {}: {manager:?}", kind.kind, object.name_any());
    }
    Ok(())
}

/// `helm test` without its kubelet: the command of the pod, under the ServiceAccount of the pod. The account may do
/// exactly what the command needs.
async fn doctor(bed: &Bed) -> Result<()> {
    let rendered = Helm::find()?.objects(&[])?;
    let hooks: Vec<_> =
        rendered.iter().filter(|object| object["metadata"]["annotations"]["helm.sh/hook"] == "test").collect();
    let (pods, grants): (Vec<_>, Vec<_>) = hooks.into_iter().partition(|object| object["kind"] == "Pod");
    ensure!(pods.len() == 1 && grants.len() == 5, "{} pods, {} others", pods.len(), grants.len());
    let granted = grants.iter().flat_map(|object| rules(object)).collect::<BTreeSet<_>>();
    let path = bed.dir().join("hooks.yaml");
    let texts: Result<Vec<String>, _> = grants.into_iter().map(serde_yaml::to_string).collect();
    std::fs::write(&path, texts?.join("---\n"))?;
    apply_file(&bed.client(), &path).await?;

    let spec = &pods[0]["spec"];
    let account = spec["serviceAccountName"].as_str().context("no ServiceAccount")?;
    let kubeconfig = bed.account(account).await?;
    let args: Vec<&str> =
        spec["containers"][0]["args"].as_sequence().into_iter().flatten().filter_map(|arg| arg.as_str()).collect();
    let output = eventually("the roles are in force", SOON, || async {
        let output = Command::new(TWINSPAN)
            .args(&args)
            .arg("main")
            .env("TWINSPAN_NAMESPACE", OPERATOR_NAMESPACE)
            .env("TWINSPAN_KUBECONFIG", &kubeconfig.path)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{text}");
        Ok(text)
    })
    .await?;
    // The registry of the bed has no TLS.
    let warnings: Vec<&str> = output.lines().filter(|line| line.starts_with("warn")).collect();
    ensure!(warnings.len() == 1 && warnings[0].contains("the password of spec.etcd.auth goes in clear"), "{output}");
    ensure!(output.contains(" 1 warning, 0 failed"), "{output}");
    ensure!(output.contains("system:serviceaccount:twinspan-system:twinspan is allowed all"), "{output}");
    let asked = audited_as(bed, &format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{account}"))?;
    ensure!(!asked.is_empty(), "the audit log shows what it asked for");
    let used = |verb: &str, resource: &str| {
        asked.iter().any(|event| {
            event["verb"] == verb
                && event["objectRef"]["resource"] == resource
                && event["responseStatus"]["code"] != 403
        })
    };
    ensure!(granted.len() >= 8, "{granted:?}");
    for (verb, resource) in granted {
        ensure!(used(&verb, &resource), "{verb} {resource} is granted and not used");
    }
    Ok(())
}

/// Verb and resource of everything that a role grants.
fn rules(role: &serde_yaml::Value) -> Vec<(String, String)> {
    let texts = |list: &serde_yaml::Value| -> Vec<String> {
        list.as_sequence().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut all = Vec::new();
    for rule in role["rules"].as_sequence().into_iter().flatten() {
        for verb in texts(&rule["verbs"]) {
            all.extend(texts(&rule["resources"]).into_iter().map(|resource| (verb.clone(), resource)));
        }
    }
    all
}
