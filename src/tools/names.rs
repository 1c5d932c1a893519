//! Names of objects, for completion.
//!
//! Owns the bounds: a person waits for the answer. Refuses to report errors.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::{RegisteredService, ServiceRegistry};

/// The kind of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// RegisteredServices of one namespace.
    RegisteredServices,
    ServiceRegistries,
    Namespaces,
}

/// The time that a person waits after a TAB.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: u32 = 1000;

/// The names, sorted; none if the cluster does not answer in time. Without a namespace it is that of the context.
pub async fn list(config: Config, kind: Names, namespace: Option<&str>) -> Vec<String> {
    let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
    let Ok(client) = Client::try_from(config) else { return Vec::new() };
    let listing = async {
        match kind {
            Names::RegisteredServices => names(&Api::<RegisteredService>::namespaced(client, &namespace)).await,
            Names::ServiceRegistries => names(&Api::<ServiceRegistry>::all(client)).await,
            Names::Namespaces => names(&Api::<Namespace>::all(client)).await,
        }
    };
    tokio::time::timeout(PATIENCE, listing).await.unwrap_or_default()
}

async fn names<K: Resource + Clone + DeserializeOwned + Debug>(api: &Api<K>) -> Vec<String> {
    let listed = api.list_metadata(&ListParams::default().limit(MOST)).await;
    let mut names: Vec<String> = listed.into_iter().flatten().map(|object| object.name_any()).collect();
    names.sort();
    names
}
