//! Kubernetes' own code (`dev/parts/oracle`), for the behaviour of Kubernetes in a given case.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::Result;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ask::ask;

/// The writes of the built-in EndpointSlice controller as a Service goes through a sequence of states.
#[derive(Clone, Debug, Deserialize)]
pub struct BuiltIn {
    /// Slices that are created, updated or deleted on the way to each state.
    pub writes: Vec<usize>,
    /// Endpoints that stay and move to another slice.
    pub moved: Vec<usize>,
    /// The slices after each state.
    pub slices: Vec<Vec<EndpointSlice>>,
}

/// k8s.io/endpointslice, with 100 endpoints a slice.
pub async fn built_in_controller(states: &[BTreeSet<SocketAddr>]) -> Result<BuiltIn> {
    let states: Vec<Vec<Value>> =
        states.iter().map(|state| state.iter().map(|a| json!({"ip": a.ip(), "port": a.port()})).collect()).collect();
    ask("oracle", &["slices"], &json!({"states": states})).await
}

/// The ready endpoints that k8s.io/kubernetes/pkg/proxy finds in slices, by the name of the Service port.
pub async fn kube_proxy(slices: &[EndpointSlice]) -> Result<BTreeMap<String, BTreeSet<SocketAddr>>> {
    ask("oracle", &["proxy"], &json!({"slices": slices})).await
}
