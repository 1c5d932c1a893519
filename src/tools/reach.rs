//! A ServiceRegistry and what it takes to connect to it, read once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, Client};

use crate::api::ServiceRegistry;
use crate::cluster::convert;
use crate::cluster::view::{ClusterView, ObjectKey};
use crate::controllers::registries::settings;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error("cannot read {what}: {source}")]
    Cluster { what: String, source: Box<kube::Error> },
    #[error("ServiceRegistry {0}: {1}")]
    Settings(String, String),
}

/// Says what was read where that failed.
pub fn reading<T>(what: &str, answer: kube::Result<T>) -> Result<T, ReachError> {
    answer.map_err(|source| ReachError::Cluster { what: what.to_owned(), source: Box::new(source) })
}

pub async fn service_registry(client: &Client, name: &str) -> Result<ServiceRegistry, ReachError> {
    reading(&format!("ServiceRegistry {name}"), Api::all(client.clone()).get(name).await)
}

/// How to connect to it: its spec, with the Secrets that it names.
pub async fn settings(
    client: &Client,
    operator_namespace: &str,
    object: &ServiceRegistry,
) -> Result<settings::Wanted, ReachError> {
    let mut view = ClusterView::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if let Some(namespace) = reading("Namespace kube-system", namespaces.get_opt("kube-system").await)? {
        view.namespaces.insert("kube-system".to_owned(), Arc::new(convert::namespace(&namespace)));
    }
    let etcd = &object.spec.etcd;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), operator_namespace);
    let named = etcd.auth.iter().map(|auth| &auth.secret_ref.name).chain(etcd.tls.iter().flat_map(|tls| {
        tls.ca_secret_ref.iter().map(|ca| &ca.name).chain(tls.client_cert_secret_ref.iter().map(|client| &client.name))
    }));
    for secret in named {
        if let Some(found) = reading(&format!("Secret {secret}"), secrets.get_opt(secret).await)? {
            view.secrets.insert(ObjectKey::new(operator_namespace, secret), Arc::new(convert::secret(found)));
        }
    }
    let name = object.metadata.name.clone().unwrap_or_default();
    settings::wanted(object, &view).map_err(|problem| ReachError::Settings(name, problem.message))
}
