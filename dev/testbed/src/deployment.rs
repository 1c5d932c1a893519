//! How `deploy/twinspan.yaml` starts Twinspan: the arguments and the environment of its Deployment's container.
//!
//! Does for them what a kubelet would do, so that every story runs Twinspan as users of the chart run it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar};
use serde::Deserialize;

use crate::repository;

/// The manifest of all of Twinspan's own objects, except the CRDs.
pub fn manifest() -> PathBuf {
    repository().join("deploy/twinspan.yaml")
}

/// The manifest that discovery needs besides; its ClusterRole replaces that of Twinspan.
pub fn discovery_manifest() -> PathBuf {
    repository().join("deploy/discovery.yaml")
}

/// The manifest that readiness gates need besides.
pub fn rollouts_manifest() -> PathBuf {
    repository().join("deploy/rollouts.yaml")
}

/// The container of the Deployment.
pub fn container() -> Result<Container> {
    let path = manifest();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for document in serde_yaml::Deserializer::from_str(&text) {
        let document = serde_json::Value::deserialize(document)?;
        if document["kind"] == "Deployment" {
            let deployment: Deployment = serde_json::from_value(document)?;
            let pod = deployment.spec.and_then(|spec| spec.template.spec);
            return pod.and_then(|pod| pod.containers.into_iter().next()).context("a Deployment without a container");
        }
    }
    bail!("{} has no Deployment", path.display())
}

/// The environment of a pod with this name in this namespace.
pub fn environment(container: &Container, namespace: &str, pod: &str) -> Result<Vec<(String, String)>> {
    let value = |variable: &EnvVar| {
        let field =
            variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref()).map(|f| f.field_path.as_str());
        let value = match (&variable.value, field) {
            (Some(value), None) => value.clone(),
            (None, Some("metadata.namespace")) => namespace.to_owned(),
            (None, Some("metadata.name")) => pod.to_owned(),
            _ => bail!("the bed does not know where {} comes from", variable.name),
        };
        Ok((variable.name.clone(), value))
    };
    container.env.iter().flatten().map(value).collect()
}
