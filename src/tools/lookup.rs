//! Lookups: a ServiceRegistry and the settings to connect to it, read once.
//!
//! Owns the way to read a single object: a list of its name, because the commands also run in a pod of the operator,
//! whose account has `list` and not `get`. Refuses to keep or watch anything.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use twinspan_core::model::ObjectKey;

use crate::api::ServiceRegistry;
use crate::causes::of_kube;
use crate::cluster::convert;
use crate::cluster::view::ClusterView;
use crate::controllers::service_registry::settings;
use crate::registry::Connector;
use crate::registry::etcd::EtcdConnector;
use crate::registry::sessions::SessionSettings;

/// The reason why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    // The text of the cause is whole: it is no `source`, which would be printed once more.
    #[error("cannot read {what}: {}", of_kube(.error))]
    Cluster { what: String, error: Box<kube::Error> },
    #[error("there is no {0}")]
    Missing(String),
    #[error("ServiceRegistry {0}: {1}")]
    Settings(String, String),
}

/// Names the object in the error of a read.
pub fn reading<T>(what: &str, answer: kube::Result<T>) -> Result<T, LookupError> {
    answer.map_err(|error| LookupError::Cluster { what: what.to_owned(), error: Box::new(error) })
}

/// The object of a name, if it exists; `what` is its name in messages.
///
/// # Errors
/// [`LookupError::Cluster`] if it could not be read.
pub async fn find<K>(api: &Api<K>, what: &str, name: &str) -> Result<Option<K>, LookupError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    Ok(reading(what, api.list(&named).await)?.items.into_iter().next())
}

/// The object of a name, which must exist.
///
/// # Errors
/// [`LookupError::Missing`] if it does not exist, [`LookupError::Cluster`] if it could not be read.
pub async fn one<K>(api: &Api<K>, kind: &str, key: &impl ToString, name: &str) -> Result<K, LookupError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let what = format!("{kind} {}", key.to_string());
    find(api, &what, name).await?.ok_or(LookupError::Missing(what))
}

/// The settings to connect to a registry: its spec, with the Secrets that it names.
pub async fn session_settings(
    client: &Client,
    operator_namespace: &str,
    object: &ServiceRegistry,
) -> Result<SessionSettings, LookupError> {
    let (mut view, mut object) = (ClusterView::default(), object.clone());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let in_force = object.status.as_ref().and_then(|status| status.cluster_id.clone());
    match find(&namespaces, "Namespace kube-system", "kube-system").await {
        Ok(found) => {
            view.namespaces.extend(found.map(|found| ("kube-system".to_owned(), Arc::new(convert::namespace(&found)))));
        }
        // Where it may not be read, as in namespaced mode, an operator that serves the registry tells the cluster ID.
        Err(_) if in_force.is_some() => object.spec.cluster_id = object.spec.cluster_id.or(in_force),
        Err(error) => return Err(error),
    }
    let etcd = &object.spec.etcd;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), operator_namespace);
    let named = etcd.auth.iter().map(|auth| &auth.secret_ref.name).chain(etcd.tls.iter().flat_map(|tls| {
        tls.ca_secret_ref.iter().map(|ca| &ca.name).chain(tls.client_cert_secret_ref.iter().map(|client| &client.name))
    }));
    for secret in named {
        if let Some(found) = find(&secrets, &format!("Secret {secret}"), secret).await? {
            view.secrets.insert(ObjectKey::new(operator_namespace, secret), Arc::new(convert::secret(found)));
        }
    }
    let name = object.metadata.name.clone().unwrap_or_default();
    settings::session_settings(&object, &view).map_err(|rejection| LookupError::Settings(name, rejection.message))
}

/// The way to a registry with these settings.
pub fn connector(settings: &SessionSettings) -> Arc<dyn Connector> {
    Arc::new(EtcdConnector::new(settings.connection.clone()))
}

/// The secret texts in the settings of a registry, to be looked for where none may be.
pub fn secrets(settings: &SessionSettings) -> Vec<String> {
    let connection = &settings.connection;
    let password = connection.user.iter().map(|(_, password)| password.clone());
    let keys = connection.tls.iter().filter_map(|tls| tls.identity.as_ref());
    password.chain(keys.map(|(_, key)| String::from_utf8_lossy(key).trim().to_owned())).collect()
}
