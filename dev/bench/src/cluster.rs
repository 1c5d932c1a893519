//! Calls of a raw client to the API server.
//!
//! Owns the making and removing of objects by the thousand. Refuses to measure.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use twinspan::api::{RegisteredService, ServiceRegistry};

use crate::records::{PORT, Place};

/// Calls under way at once where nothing is measured.
const AT_ONCE: usize = 32;
const DEADLINE: Duration = Duration::from_secs(60);

/// Creates objects, so many at once.
pub async fn create_all<K>(api: &Api<K>, objects: &[K], at_once: usize) -> Result<()>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let once = &PostParams::default();
    let create = async |object: &K| {
        let created = tokio::time::timeout(DEADLINE, api.create(once, object));
        created.await.context("no answer of the API server before the deadline")??;
        anyhow::Ok(())
    };
    stream::iter(objects.iter().map(create)).buffer_unordered(at_once).try_collect::<()>().await
}

/// Deletes every object of a kind in a namespace.
pub async fn delete_all<K>(client: &Client, namespace: &str) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let names: Vec<String> =
        api.list_metadata(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect();
    let delete = async |name: &String| match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        // The garbage collector was faster.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(anyhow::Error::from(error)),
    };
    stream::iter(names.iter().map(delete)).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Creates the ServiceRegistry of a prefix, open for everybody.
pub async fn create_registry(client: &Client, name: &str, endpoint: &str, prefix: &str) -> Result<()> {
    let registry: ServiceRegistry = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name},
        "spec": {"etcd": {"endpoints": [endpoint]}, "format": "Kitex", "prefix": prefix,
            "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
    }))?;
    Api::all(client.clone()).create(&PostParams::default(), &registry).await?;
    Ok(())
}

/// Creates headless Services without selector, and a RegisteredService for each.
pub async fn create_services(client: &Client, place: &Place, registry: &str, names: &[String]) -> Result<()> {
    create_headless(client, place, names).await?;
    register(client, place, registry, names).await
}

/// Creates headless Services without selector.
pub async fn create_headless(client: &Client, place: &Place, names: &[String]) -> Result<()> {
    let service = |name: &String| -> Result<Service> {
        Ok(serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"clusterIP": "None", "ports": [{"name": "rpc", "port": PORT}]},
        }))?)
    };
    let services: Vec<Service> = names.iter().map(service).collect::<Result<_>>()?;
    create_all(&Api::namespaced(client.clone(), &place.namespace), &services, AT_ONCE).await
}

/// Creates a RegisteredService for each Service.
pub async fn register(client: &Client, place: &Place, registry: &str, names: &[String]) -> Result<()> {
    let registered = |name: &String| -> Result<RegisteredService> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": name},
            "spec": {"registryRef": {"name": registry}},
        }))?)
    };
    let registered: Vec<RegisteredService> = names.iter().map(registered).collect::<Result<_>>()?;
    create_all(&Api::namespaced(client.clone(), &place.namespace), &registered, AT_ONCE).await
}

/// Creates slices in the namespace of a place.
pub async fn create_slices(client: &Client, place: &Place, slices: &[EndpointSlice]) -> Result<()> {
    create_all(&Api::namespaced(client.clone(), &place.namespace), slices, AT_ONCE).await
}
