//! Every registry of the cluster, and the RegisteredServices that use its names.
//!
//! Owns the choice of registries and names, and the time that one registry may take. A registry that cannot be asked
//! is a line of the answer. Refuses to know tables.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use kube::api::ListParams;
use kube::{Api, Client};
use twinspan_core::model::{RegistryName, ServiceKey};

use super::contents::{Contents, Wanted};
use crate::api::{RegisteredService, ServiceRegistry};
use crate::registry::sessions::SessionSettings;
use crate::tools::lookup::{self, LookupError, reading};

/// The question.
pub struct Request<'a> {
    pub client: Client,
    /// The namespace of the Secrets of ServiceRegistries.
    pub operator_namespace: &'a str,
    /// Only names of RegisteredServices of this namespace; every name without one.
    pub namespace: Option<&'a str>,
    /// Only these ServiceRegistries; all without any.
    pub registries: &'a [String],
    /// Only this name: in the registry, or of a RegisteredService.
    pub name: Option<&'a str>,
    /// More names, where not every name is read.
    pub also: &'a [String],
    /// The time that one registry may take.
    pub within: Duration,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("namespace", &self.namespace).field("name", &self.name).finish_non_exhaustive()
    }
}

/// One registry, and what it answered.
#[derive(Debug)]
pub struct Source {
    pub object: ServiceRegistry,
    pub wanted: Wanted,
    /// `None` if they could not be read.
    pub settings: Option<SessionSettings>,
    pub contents: Result<Contents, String>,
}

impl Source {
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }
}

/// The answers of all registries.
#[derive(Debug)]
pub struct Gathered {
    /// By name.
    pub sources: Vec<Source>,
    /// The RegisteredServices of each name of a registry, sorted.
    pub users: BTreeMap<(String, String), Vec<ServiceKey>>,
    /// Things other than registries that could not be seen.
    pub notes: Vec<String>,
}

/// Asks every registry at once.
///
/// # Errors
/// [`LookupError`] if the ServiceRegistries cannot be listed, or one that is named does not exist.
pub async fn gather(request: &Request<'_>) -> Result<Gathered, LookupError> {
    let registries: Api<ServiceRegistry> = Api::all(request.client.clone());
    let mut objects = reading("ServiceRegistries", registries.list(&ListParams::default()).await)?.items;
    for name in request.registries {
        if !objects.iter().any(|object| object.metadata.name.as_ref() == Some(name)) {
            return Err(LookupError::Missing(format!("ServiceRegistry {name}")));
        }
    }
    let is_chosen = |name: &String| request.registries.is_empty() || request.registries.contains(name);
    objects.retain(|object| object.metadata.name.as_ref().is_some_and(is_chosen));
    objects.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));

    let services: Api<RegisteredService> = match request.namespace {
        Some(namespace) => Api::namespaced(request.client.clone(), namespace),
        None => Api::all(request.client.clone()),
    };
    let (services, notes) = match reading("RegisteredServices", services.list(&ListParams::default()).await) {
        Ok(list) => (list.items, Vec::new()),
        Err(error) => (Vec::new(), vec![format!("{error}, so the names have none in this table")]),
    };
    let mut users: BTreeMap<(String, String), Vec<ServiceKey>> = BTreeMap::new();
    for service in services.iter().filter(|service| is_meant(request, service)) {
        let place = (service.spec.registry_ref.name.clone(), service.registry_name());
        users.entry(place).or_default().push(service.key());
    }
    users.values_mut().for_each(|users| users.sort());
    let sources = join_all(objects.into_iter().map(|object| source(request, object, &users))).await;
    Ok(Gathered { sources, users, notes })
}

fn is_meant(request: &Request<'_>, service: &RegisteredService) -> bool {
    request.name.is_none_or(|name| service.registry_name() == name || service.metadata.name.as_deref() == Some(name))
}

async fn source(
    request: &Request<'_>,
    object: ServiceRegistry,
    users: &BTreeMap<(String, String), Vec<ServiceKey>>,
) -> Source {
    let registry = object.metadata.name.clone().unwrap_or_default();
    let used = users.keys().filter(|(of, _)| *of == registry).map(|(_, name)| name.as_str());
    let also = request.also.iter().map(String::as_str);
    let names = used.chain(request.name).chain(also).filter_map(|name| RegistryName::new(name).ok()).collect();
    let wanted = Wanted { names, only: request.name.is_some() || request.namespace.is_some() };
    let settings = match lookup::session_settings(&request.client, request.operator_namespace, &object).await {
        Ok(settings) => settings,
        Err(error) => return Source { object, wanted, settings: None, contents: Err(error.to_string()) },
    };
    let reading = async {
        let registry = lookup::connector(&settings).connect().await?;
        Contents::read(registry.as_ref(), &settings.identity, &wanted).await
    };
    let contents = match tokio::time::timeout(request.within, reading).await {
        Ok(contents) => contents.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it was not read within {} s; see --within", request.within.as_secs())),
    };
    Source { object, wanted, settings: Some(settings), contents }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::fake_api::FakeApi;

    fn request(api: &FakeApi) -> Request<'static> {
        let (operator_namespace, within) = ("twinspan-system", Duration::from_secs(5));
        Request {
            client: api.client(),
            operator_namespace,
            namespace: None,
            registries: &[],
            name: None,
            also: &[],
            within,
        }
    }

    fn listed(api: &FakeApi, path: &str, items: &serde_json::Value) {
        api.put(path, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}));
    }

    #[tokio::test]
    async fn a_registry_that_cannot_be_asked_is_a_line_and_names_without_a_registered_service_are_wanted_too() {
        let api = FakeApi::default();
        assert!(gather(&request(&api)).await.is_err(), "without ServiceRegistries there is nothing to ask");
        let registry = |name: &str| {
            json!({"metadata": {"name": name}, "spec": {"format": "GoZero", "allowed": [],
                "etcd": {"endpoints": ["http://127.0.0.1:1"]}, "clusterID": "c"}})
        };
        listed(&api, "/apis/twinspan.dev/v1alpha1/serviceregistries", &json!([registry("b"), registry("a")]));
        listed(&api, "/api/v1/namespaces", &json!([]));
        let found = gather(&request(&api)).await.unwrap();
        assert_eq!(found.sources.iter().map(Source::name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(found.sources.iter().all(|source| source.contents.is_err()), "nothing listens there");
        assert_eq!(found.notes.len(), 1, "RegisteredServices cannot be listed: {:?}", found.notes);

        let service = |name: &str, spec: serde_json::Value| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        listed(
            &api,
            "/apis/twinspan.dev/v1alpha1/registeredservices",
            &json!([
                service("user", json!({"registryRef": {"name": "a"}, "registryName": "team.user"})),
                service("cart", json!({"registryRef": {"name": "b"}})),
            ]),
        );
        let wanted = |found: &Gathered| -> Vec<String> {
            let all = found.sources.iter();
            all.map(|source| source.wanted.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
                .collect()
        };
        let found = gather(&request(&api)).await.unwrap();
        assert_eq!((wanted(&found), found.notes.len()), (vec!["team.user".to_owned(), "cart".to_owned()], 0));
        assert!(!found.sources[0].wanted.only);
        let found = gather(&Request { name: Some("user"), ..request(&api) }).await.unwrap();
        assert_eq!(wanted(&found), ["team.user,user", "user"], "by the one name or the other");
        assert!(found.sources[0].wanted.only);
        let missing = ["c".to_owned()];
        assert!(gather(&Request { registries: &missing, ..request(&api) }).await.is_err());
    }
}
