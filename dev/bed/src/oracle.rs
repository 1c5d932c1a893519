//! Kubernetes' own code (`dev/oracle`), asked what it would do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::namespace;

/// What the built-in EndpointSlice controller does as a Service goes through a sequence of states.
#[derive(Clone, Debug, Deserialize)]
pub struct BuiltIn {
    /// Slices that are created, updated or deleted on the way to each state.
    pub writes: Vec<usize>,
    /// Endpoints that stay and change their slice.
    pub moved: Vec<usize>,
    /// The slices that there are then.
    pub slices: Vec<Vec<EndpointSlice>>,
}

/// k8s.io/endpointslice, with 100 endpoints a slice.
pub async fn built_in_controller(states: &[BTreeSet<SocketAddr>]) -> Result<BuiltIn> {
    let states: Vec<Vec<Value>> =
        states.iter().map(|state| state.iter().map(|a| json!({"ip": a.ip(), "port": a.port()})).collect()).collect();
    ask("slices", &json!({"states": states})).await
}

/// The ready endpoints that k8s.io/kubernetes/pkg/proxy finds in slices, by the name of the Service port.
pub async fn kube_proxy(slices: &[EndpointSlice]) -> Result<BTreeMap<String, BTreeSet<SocketAddr>>> {
    ask("proxy", &json!({"slices": slices})).await
}

async fn ask<T: DeserializeOwned>(question: &str, input: &Value) -> Result<T> {
    let mut child = Command::new(namespace::binary("oracle")?)
        .arg(question)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(&serde_json::to_vec(input)?).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "oracle {question}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| format!("oracle {question} printed no JSON that is meant"))
}
