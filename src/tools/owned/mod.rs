//! The view of one namespace, for people who may read no more than their own.
//!
//! - [`rights`]: the accounts that see everything; [`instances`]: the instances of one RegisteredService in words.
//! - [`answers`]: the same answers as with the view of an operator, from less.
//!
//! Owns the reads: three lists of one namespace. Refuses to list anything of the whole cluster and to ask a registry:
//! what only these know is said by the status that the operator writes, or not claimed.

mod answers;
mod instances;
mod rights;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use twinspan_core::model::Slice;

pub use rights::sees_everything;

use super::lookup::{LookupError, reading};
use crate::api::RegisteredService;
use crate::cluster::convert;

/// The objects of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    pub namespace: String,
    /// Sorted by name.
    services: Vec<RegisteredService>,
    slices: Vec<Slice>,
    /// Pods by their addresses; empty where pods may not be listed.
    pods: BTreeMap<IpAddr, OwnedPod>,
}

/// A pod of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnedPod {
    name: String,
    /// Nothing but the readiness gate of Twinspan keeps it from being ready.
    waits: bool,
}

impl Owned {
    /// Reads a namespace once.
    ///
    /// # Errors
    /// [`LookupError`] if RegisteredServices or EndpointSlices may not be listed. Pods are worth a line, and no error.
    pub async fn read(client: &Client, namespace: &str) -> Result<Self, LookupError> {
        let all = ListParams::default();
        let services: Api<RegisteredService> = Api::namespaced(client.clone(), namespace);
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let (services, slices, pods) = tokio::join!(services.list(&all), slices.list(&all), pods.list(&all));
        let place = format!("of namespace {namespace}");
        let mut services = reading(&format!("RegisteredServices {place}"), services)?.items;
        services.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let slices = reading(&format!("EndpointSlices {place}"), slices)?.items;
        let pods = pods.map(|pods| pods.items).unwrap_or_default();
        let addresses = pods.iter().flat_map(|pod| {
            let view = convert::pod(pod);
            let waits = view.gate.is_some_and(|gate| gate.otherwise_ready && !gate.passed);
            let pod = OwnedPod { name: view.name, waits };
            view.ips.into_iter().map(move |ip| (ip, pod.clone()))
        });
        Ok(Self {
            namespace: namespace.to_owned(),
            services,
            slices: slices.into_iter().map(convert::slice).collect(),
            pods: addresses.collect(),
        })
    }
}
