//! Writes to the cluster: slices by create and replace, Services of our own, status by patch.
//!
//! Owns the deadline of each call and what its answer means for the view. Slices are replaced with the `resourceVersion` that was
//! seen: server-side apply would cost the API server twice as much, and would not notice who else wrote.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::slices::SliceOp;

use super::view::{ClusterView, ObjectKey};
use super::{ClusterError, Result, convert};
use crate::api::{RegisteredService, RegisteredServiceStatus, ServiceRegistry, ServiceRegistryStatus};

/// The deadline of one call; the API server's own SLO is 1 s at the 99th percentile.
const CALL: Duration = Duration::from_secs(10);

async fn call<T>(what: impl Into<String>, future: impl Future<Output = kube::Result<T>>) -> Result<T> {
    let what = what.into();
    match tokio::time::timeout(CALL, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ClusterError::of(what, error)),
        Err(_) => Err(ClusterError::Timeout { what, seconds: CALL.as_secs() }),
    }
}

/// Writes one slice of a RegisteredService, and enters the answer into the view.
pub async fn slice(
    client: &Client,
    view: &Mutex<ClusterView>,
    namespace: &str,
    owner: OwnerReference,
    op: &SliceOp,
) -> Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let written = match op {
        SliceOp::Create(body) => {
            let object = convert::endpoint_slice(namespace, owner, body, None);
            call(format!("create EndpointSlice {namespace}/{}", body.name), api.create(&PostParams::default(), &object))
                .await?
        }
        SliceOp::Update { body, seen } => {
            let object = convert::endpoint_slice(namespace, owner, body, Some(seen));
            let what = format!("replace EndpointSlice {namespace}/{}", body.name);
            call(what, api.replace(&body.name, &PostParams::default(), &object)).await?
        }
        SliceOp::Delete { name, seen } => {
            let preconditions = Preconditions { resource_version: Some(seen.clone()), uid: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let what = format!("delete EndpointSlice {namespace}/{name}");
            match tokio::time::timeout(CALL, api.delete(name, &params)).await {
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {}
                Ok(Err(error)) => return Err(ClusterError::of(what, error)),
                Err(_) => return Err(ClusterError::Timeout { what, seconds: CALL.as_secs() }),
            }
            lock(view).slice_deleting(&ObjectKey::new(namespace, name));
            return Ok(());
        }
    };
    lock(view).wrote_slice(namespace, convert::slice(written));
    Ok(())
}

/// A Service to be created for a RegisteredService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewService {
    pub key: ServiceKey,
    pub headless: bool,
    /// Name and number.
    pub ports: Vec<(String, i32)>,
}

/// Creates a Service without a selector: its endpoints are ours alone. It goes with its owner.
pub async fn create_service(client: &Client, owner: OwnerReference, new: &NewService) -> Result<()> {
    let mut spec = json!({"ports": ports(new), "ipFamilyPolicy": "PreferDualStack"});
    if new.headless {
        spec["clusterIP"] = json!("None");
    }
    let object: Service = serde_json::from_value(json!({
        "metadata": {
            "name": new.key.name,
            "namespace": new.key.namespace,
            "labels": {"app.kubernetes.io/managed-by": "twinspan"},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }))
    .map_err(|e| ClusterError::Rejected { what: format!("Service {}", new.key), message: e.to_string() })?;
    let api: Api<Service> = Api::namespaced(client.clone(), &new.key.namespace);
    call(format!("create Service {}", new.key), api.create(&PostParams::default(), &object)).await?;
    Ok(())
}

/// Gives a Service that was created for a RegisteredService the ports that it should have, where it is still the same one.
pub async fn amend_service(client: &Client, new: &NewService, uid: &str) -> Result<()> {
    let api: Api<Service> = Api::namespaced(client.clone(), &new.key.namespace);
    let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"ports": ports(new)}}));
    call(format!("patch the ports of Service {}", new.key), api.patch(&new.key.name, &PatchParams::default(), &patch))
        .await?;
    Ok(())
}

fn ports(new: &NewService) -> Vec<serde_json::Value> {
    let port =
        |(name, number): &(String, i32)| json!({"name": name, "port": number, "targetPort": number, "protocol": "TCP"});
    new.ports.iter().map(port).collect()
}

/// Deletes a Service that was created for a RegisteredService, where it is still the same one.
pub async fn delete_service(client: &Client, key: &ServiceKey, uid: &str) -> Result<()> {
    let api: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let what = format!("delete Service {key}");
    match tokio::time::timeout(CALL, api.delete(&key.name, &params)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Ok(Err(error)) => Err(ClusterError::of(what, error)),
        Err(_) => Err(ClusterError::Timeout { what, seconds: CALL.as_secs() }),
    }
}

/// Replaces the status of a RegisteredService; an object that is gone meanwhile is none to report on.
pub async fn registered_service_status(
    client: &Client,
    key: &ServiceKey,
    status: &RegisteredServiceStatus,
) -> Result<()> {
    let api: Api<RegisteredService> = Api::namespaced(client.clone(), &key.namespace);
    patch_status(api, &key.name, format!("patch the status of RegisteredService {key}"), status, &["skipped"]).await
}

/// The same for a ServiceRegistry.
pub async fn service_registry_status(client: &Client, name: &str, status: &ServiceRegistryStatus) -> Result<()> {
    let api: Api<ServiceRegistry> = Api::all(client.clone());
    let optional = ["clusterID", "prefix", "etcd", "records"];
    patch_status(api, name, format!("patch the status of ServiceRegistry {name}"), status, &optional).await
}

async fn patch_status<K>(
    api: Api<K>,
    name: &str,
    what: String,
    status: &impl Serialize,
    optional: &[&str],
) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut patch = json!({"status": status});
    // A merge patch leaves alone what it does not name: what is no longer there has to be named.
    for field in optional {
        if patch["status"].get(field).is_none() {
            patch["status"][field] = serde_json::Value::Null;
        }
    }
    let patch = Patch::Merge(patch);
    match tokio::time::timeout(CALL, api.patch_status(name, &PatchParams::default(), &patch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Ok(Err(error)) => Err(ClusterError::of(what, error)),
        Err(_) => Err(ClusterError::Timeout { what, seconds: CALL.as_secs() }),
    }
}

fn lock(view: &Mutex<ClusterView>) -> std::sync::MutexGuard<'_, ClusterView> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}
