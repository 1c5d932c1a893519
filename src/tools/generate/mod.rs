//! RegisteredServices for what exists: the Services of a namespace, and the names of registries that match them.
//!
//! - [`choice`]: which Service, which name and which direction. [`port`]: which of several ports.
//! - [`manifest`]: the YAML, with the reason of each choice.
//!
//! Owns the questions to the cluster and the registries. Refuses to create anything: a person reads and applies it.

mod choice;
mod manifest;
mod port;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use twinspan_core::model::RegistryName;

pub use choice::{Facts, RegistryFacts, choose};
pub use manifest::Manifest;

use super::instances::{self, Contents, Source};
use super::lookup::{LookupError, find, reading};
use crate::api::RegisteredService;
use crate::cluster::convert;
use crate::controllers::registered_service::validate::is_allowed;

/// The question.
pub struct Request<'a> {
    pub client: Client,
    pub operator_namespace: &'a str,
    pub namespace: &'a str,
    /// Only these ServiceRegistries; all without any.
    pub registries: &'a [String],
    /// The time that one registry may take.
    pub within: Duration,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Looks at the namespace and the registries, and writes down what would connect them.
///
/// # Errors
/// [`LookupError`] if the cluster does not answer, or there is no such namespace.
pub async fn generate(request: &Request<'_>) -> Result<Manifest, LookupError> {
    let (client, namespace) = (&request.client, request.namespace);
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let services = reading("Services", services.list(&ListParams::default()).await)?.items;
    let registered: Api<RegisteredService> = Api::namespaced(client.clone(), namespace);
    let registered = reading("RegisteredServices", registered.list(&ListParams::default()).await)?.items;
    let labels = labels(client, namespace).await?;
    let services: Vec<_> = services.iter().map(convert::service).collect();
    let names: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
    let gathered = instances::gather(&instances::Request {
        client: client.clone(),
        operator_namespace: request.operator_namespace,
        namespace: None,
        registries: request.registries,
        name: None,
        also: &names,
        within: request.within,
    })
    .await?;
    let registries = gathered.sources.iter().map(|source| facts(source, labels.as_ref())).collect();
    Ok(choose(&Facts { namespace: namespace.to_owned(), services, registered, registries }))
}

/// The labels of the namespace; `None` if this account may not read them.
async fn labels(client: &Client, namespace: &str) -> Result<Option<BTreeMap<String, String>>, LookupError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match find(&namespaces, &format!("Namespace {namespace}"), namespace).await {
        Ok(Some(found)) => Ok(Some(found.metadata.labels.unwrap_or_default())),
        Ok(None) => Err(LookupError::Missing(format!("namespace {namespace}"))),
        Err(LookupError::Cluster { error, .. }) if matches!(&*error, kube::Error::Api(status) if status.is_forbidden()) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn facts(source: &Source, labels: Option<&BTreeMap<String, String>>) -> RegistryFacts {
    let read = source.contents.as_ref().map(Contents::by_name).unwrap_or_default();
    let foreign = read.into_iter().filter_map(|(name, all)| {
        let count = all.iter().filter(|instance| matches!(instance.whose, "foreign" | "healed")).count();
        Some((RegistryName::new(name).ok()?, count)).filter(|(_, count)| *count > 0)
    });
    let object = source.object.clone();
    let labels = labels.cloned();
    RegistryFacts {
        name: source.name().to_owned(),
        format: object.spec.format.into(),
        foreign: foreign.collect(),
        problem: source.contents.as_ref().err().cloned(),
        partial: source.contents.as_ref().ok().and_then(|contents| contents.partial.clone()),
        allows: Box::new(move |name| labels.as_ref().is_none_or(|labels| is_allowed(&object, labels, name))),
    }
}
