//! `helm install --wait`, as a user's chart with our objects sees them. Helm asks the library kstatus, as Flux does, so
//! these waits are those of every tool that rests on it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::discovery::pinned_kind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use twinspan_testbed::next_v4;

use super::Cluster;
use crate::harness::{Sandbox, Suite, merge};

/// Longer than any pass, so that a wait that takes as long hangs.
const PATIENCE: &str = "--timeout=120s";

pub async fn helm_waits_for_what_can_come_and_for_nothing_else(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "waits").await?;
    let releases = Releases { cluster: Cluster::of(bed)?, namespace: &sandbox.name, dir: bed.dir().join("waits") };
    for name in ["synced", "suspended", "stalled", "lonely"] {
        sandbox.headless_without_selector(name, 80).await?;
    }
    sandbox.put("suspended", SocketAddr::from((next_v4(), 9000))).await?;
    let service = |name: &str, extra: Value| {
        let mut spec = json!({"registryRef": {"name": sandbox.name}});
        merge(&mut spec, extra);
        json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": name, "namespace": sandbox.name}, "spec": spec})
    };

    // An object that no operator has seen yet is not taken for one that is as it should be: the pass came first.
    let synced = service("synced", json!({}));
    releases.succeed(&synced).await?;
    sandbox.is("synced", "Ready", "True Synced").await?;
    same(&bed.client(), &synced).await?;
    // An owner who wants no writes has what was asked for, also where a Service would be created.
    releases.succeed(&service("suspended", json!({"suspend": true}))).await?;
    sandbox.is("suspended", "Ready", "True Suspended").await?;
    sandbox.is("suspended", "Imported", "False NotWritten").await?;
    let created =
        json!({"policy": "Observe", "service": {"create": "Headless", "ports": [{"name": "rpc", "number": 80}]}});
    releases.succeed(&service("observed", created)).await?;
    sandbox.is("observed", "Ready", "True Observing").await?;
    sandbox.is("observed", "Imported", "False NotWritten").await?;
    ensure!(sandbox.imported("suspended").await?.is_empty(), "nothing is written");

    // A spec that cannot work ends the wait with the reason, and its correction ends the condition.
    let began = Instant::now();
    let message =
        releases.refusal(&service("stalled", json!({"service": {"ports": [{"name": "web"}]}})), PATIENCE).await?;
    ensure!(message.contains("status: Failed") && message.contains("has no port web"), "{message}");
    ensure!(began.elapsed() < Duration::from_secs(60), "the wait took {:?}", began.elapsed());
    sandbox.is("stalled", "Stalled", "True PortNotFound").await?;
    sandbox.patch("stalled", json!({"service": {"ports": null}})).await?;
    let object = sandbox.condition("stalled", "Ready", "True", "Synced").await?;
    let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
    ensure!(conditions.iter().all(|condition| condition.type_ != "Stalled"), "{conditions:?}");
    // An object that may still come is waited for.
    let lonely = service("lonely", json!({"registryRef": {"name": "waits-nobody"}}));
    let message = releases.refusal(&lonely, "--timeout=5s").await?;
    ensure!(message.contains("status: InProgress"), "{message}");
    sandbox.is("lonely", "Accepted", "False RegistryNotFound").await?;

    let registry = |name: &str, spec: Value| json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name}, "spec": spec});
    let place = json!({"etcd": {"endpoints": [bed.registry.endpoint()]}, "format": "Kitex", "prefix": "waits-other", "allowed": []});
    let other = registry("waits-other", place.clone());
    releases.succeed(&other).await?;
    same(&bed.client(), &other).await?;
    let message = releases.refusal(&registry("waits-twin", place), PATIENCE).await?;
    ensure!(message.contains("status: Failed") && message.contains("waits-other"), "{message}");
    for name in ["waits-other", "waits-twin"] {
        sandbox.registries().delete(name, &DeleteParams::default()).await?;
    }
    sandbox.nothing_foreign_was_touched().await
}

impl Sandbox<'_> {
    /// A condition is this at this moment.
    async fn is(&self, name: &str, kind: &str, wanted: &str) -> Result<()> {
        let status = self.registered().get(name).await?.status.context("no status")?;
        let found = status.conditions.iter().find(|condition| condition.type_ == kind);
        let found = found.map(|condition| format!("{} {}", condition.status, condition.reason));
        ensure!(found.as_deref() == Some(wanted), "{name}: {kind} is {found:?}");
        Ok(())
    }
}

/// Releases of one object each.
struct Releases<'a> {
    cluster: Cluster,
    namespace: &'a str,
    dir: PathBuf,
}

impl Releases<'_> {
    async fn succeed(&self, object: &Value) -> Result<()> {
        let (succeeded, said) = self.install(object, PATIENCE).await?;
        ensure!(succeeded, "{said}");
        Ok(())
    }

    async fn refusal(&self, object: &Value, timeout: &str) -> Result<String> {
        let (succeeded, said) = self.install(object, timeout).await?;
        ensure!(!succeeded, "the wait for {object} ended well: {said}");
        Ok(said)
    }

    async fn install(&self, object: &Value, timeout: &str) -> Result<(bool, String)> {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let chart = chart_of(&self.dir.join(name), object)?;
        let (chart, namespace) = (chart.display().to_string(), format!("--namespace={}", self.namespace));
        let all = ["install", name, &chart, &namespace, "--wait", timeout];
        self.cluster.helm(all.map(str::to_owned).into()).await
    }
}

fn chart_of(dir: &Path, object: &Value) -> Result<PathBuf> {
    std::fs::create_dir_all(dir.join("templates"))?;
    std::fs::write(dir.join("Chart.yaml"), "apiVersion: v2\nname: one\nversion: 0.1.0\n")?;
    std::fs::write(dir.join("templates/object.yaml"), serde_yaml::to_string(object)?)?;
    Ok(dir.to_owned())
}

/// Nothing has drifted: applied again, as a tool looks for drift, the manifest changes nothing but who manages it.
async fn same(client: &Client, manifest: &Value) -> Result<()> {
    let wanted: DynamicObject = serde_json::from_value(manifest.clone())?;
    let kind = kube::core::GroupVersionKind::try_from(wanted.types.as_ref().context("no kind")?)?;
    let (resource, _) = pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = match wanted.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut params = PatchParams::apply("drift").force();
    params.dry_run = true;
    let stripped = |mut object: DynamicObject| {
        object.managed_fields_mut().clear();
        object.metadata.resource_version = None;
        (object.metadata, object.data["spec"].clone())
    };
    let live = stripped(api.get(&wanted.name_any()).await?);
    let applied = stripped(api.patch(&wanted.name_any(), &params, &Patch::Apply(&wanted)).await?);
    ensure!(live == applied, "{live:?} drifted from {applied:?}");
    Ok(())
}
