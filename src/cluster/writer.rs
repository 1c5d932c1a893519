//! The writer of the cluster: slices by create and replace, our own Services, status by patch.
//!
//! Owns the check of the claim to lead, the deadline of each call, the pace of status writes, and the effect of an
//! answer on the view. Slices are replaced with the `resourceVersion` in the view: server-side apply costs the API
//! server twice as much, and does not notice other writers (`docs/decisions/0004`). Refuses to plan: the operations
//! come from the planners.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use twinspan_core::model::{NewService, ObjectKey, ServiceKey};
use twinspan_core::plan::slices::SliceOp;

use super::convert::OthersMetadata;
use super::status_budget::StatusBudget;
use super::view::{ClusterEvent, ClusterView};
use super::{ClusterError, Result, convert};
use crate::api::{RegisteredService, RegisteredServiceStatus, ServiceRegistry, ServiceRegistryStatus};
use crate::leadership::Leadership;
use crate::telemetry::metrics::Metrics;

/// The deadline of one call; the API server's own SLO is 1 s at the 99th percentile.
const CALL: Duration = Duration::from_secs(10);

/// Writes slices, Services and statuses. Every method checks the claim to lead before its request, because the API
/// server has no fence.
#[derive(Clone)]
pub struct ClusterWriter {
    client: Client,
    leadership: Leadership,
    view: Arc<Mutex<ClusterView>>,
    metrics: Arc<Metrics>,
    status_budget: Arc<StatusBudget>,
    events: mpsc::UnboundedSender<ClusterEvent>,
}

impl fmt::Debug for ClusterWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterWriter")
    }
}

/// The result of a status write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusWrite {
    Written,
    /// The budget of status writes is spent; try again after this time.
    Throttled(Duration),
    /// This process does not lead, or runs dry.
    NotLeader,
}

impl ClusterWriter {
    /// `events` takes what the view learnt from answers, because the watch will show nothing new.
    pub fn new(
        client: Client,
        leadership: Leadership,
        view: Arc<Mutex<ClusterView>>,
        metrics: Arc<Metrics>,
        events: mpsc::UnboundedSender<ClusterEvent>,
    ) -> Self {
        Self { client, leadership, view, metrics, status_budget: Arc::default(), events }
    }

    /// True if a request may be sent now.
    pub fn may_write(&self) -> bool {
        self.leadership.may_write()
    }

    fn ask(&self) -> Result<()> {
        if self.may_write() { Ok(()) } else { Err(ClusterError::NotLeader) }
    }

    fn view(&self) -> MutexGuard<'_, ClusterView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one slice of a RegisteredService, enters the answer into the view, and tells the others of its Service.
    pub async fn slice(&self, owner: &Owner<'_>, op: &SliceOp) -> Result<()> {
        self.ask()?;
        let outcome = self.send_slice(owner, op).await;
        let result = outcome.as_ref().map_or_else(ClusterError::label, |_| "ok");
        self.metrics.wrote("cluster", op.label(), result, 1);
        let services = outcome?;
        // The receiver is dropped only while the process ends.
        let _ = self.events.send(ClusterEvent::Wrote { services, by: owner.key.clone() });
        Ok(())
    }

    /// Returns the affected Services.
    async fn send_slice(&self, owner: &Owner<'_>, op: &SliceOp) -> Result<Vec<ServiceKey>> {
        let namespace = &owner.key.namespace;
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let written = match op {
            SliceOp::Create(spec) => {
                let object =
                    convert::endpoint_slice(namespace, owner.reference(), spec, None, OthersMetadata::default());
                let what = format!("create EndpointSlice {namespace}/{}", spec.name);
                call(what, api.create(&PostParams::default(), &object)).await?
            }
            SliceOp::Update { spec, if_version } => {
                let others = self.view().slices.others(&ObjectKey::new(namespace, &spec.name));
                let object = convert::endpoint_slice(namespace, owner.reference(), spec, Some(if_version), others);
                let what = format!("replace EndpointSlice {namespace}/{}", spec.name);
                call(what, api.replace(&spec.name, &PostParams::default(), &object)).await?
            }
            SliceOp::Delete { name, if_version, .. } => {
                let preconditions = Preconditions { resource_version: Some(if_version.clone()), uid: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                let what = format!("delete EndpointSlice {namespace}/{name}");
                call(what, unless_gone(api.delete(name, &params))).await?;
                return Ok(self.view().slices.set_deleting(&ObjectKey::new(namespace, name)));
            }
        };
        let others = convert::others_metadata(&written.metadata);
        let slice = convert::slice(written);
        let key = ObjectKey::new(namespace, &slice.name);
        let mut view = self.view();
        let services = view.slices.wrote(namespace, slice);
        view.slices.set_others(&key, others);
        Ok(services)
    }

    /// Creates a Service without a selector, so that only our endpoints belong to it. Garbage collection deletes it
    /// with its owner.
    pub async fn create_service(&self, owner: &Owner<'_>, new: &NewService) -> Result<()> {
        self.ask()?;
        let mut spec = json!({"ports": ports(new), "ipFamilyPolicy": "PreferDualStack"});
        if new.headless {
            spec["clusterIP"] = json!("None");
        }
        let object: Service = serde_json::from_value(json!({
            "metadata": {
                "name": new.key.name,
                "namespace": new.key.namespace,
                "labels": {"app.kubernetes.io/managed-by": "twinspan"},
                "ownerReferences": [owner.reference()],
            },
            "spec": spec,
        }))
        .map_err(|e| ClusterError::Rejected { what: format!("Service {}", new.key), message: e.to_string() })?;
        let api: Api<Service> = Api::namespaced(self.client.clone(), &new.key.namespace);
        call(format!("create Service {}", new.key), api.create(&PostParams::default(), &object)).await?;
        Ok(())
    }

    /// Sets the ports of a Service that was created for a RegisteredService, if its UID still matches.
    pub async fn amend_service(&self, new: &NewService, uid: &str) -> Result<()> {
        self.ask()?;
        let api: Api<Service> = Api::namespaced(self.client.clone(), &new.key.namespace);
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"ports": ports(new)}}));
        let what = format!("patch the ports of Service {}", new.key);
        call(what, api.patch(&new.key.name, &PatchParams::default(), &patch)).await?;
        Ok(())
    }

    /// Deletes a Service that was created for a RegisteredService, if its UID still matches.
    pub async fn delete_service(&self, key: &ServiceKey, uid: &str) -> Result<()> {
        self.ask()?;
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let what = format!("delete Service {key}");
        call(what, unless_gone(api.delete(&key.name, &params))).await
    }

    /// Replaces the status of a RegisteredService; does nothing if the object is gone.
    pub async fn registered_service_status(
        &self,
        owner: &Owner<'_>,
        status: &RegisteredServiceStatus,
    ) -> Result<StatusWrite> {
        let Owner { key, uid } = owner;
        let api: Api<RegisteredService> = Api::namespaced(self.client.clone(), &key.namespace);
        let what = format!("patch the status of RegisteredService {key}");
        let written = self.send_status(api, &key.name, what, status, &["hold", "skipped"]).await?;
        // The watch lags behind, and the next pass must not compare with the previous status.
        if written == StatusWrite::Written
            && let Some(object) = self.view().registered_services.get_mut(*key)
            && object.metadata.uid.as_deref() == Some(uid)
        {
            Arc::make_mut(object).status = Some(status.clone());
        }
        Ok(written)
    }

    /// Replaces the status of a ServiceRegistry; does nothing if the object is gone.
    pub async fn service_registry_status(&self, name: &str, status: &ServiceRegistryStatus) -> Result<StatusWrite> {
        let api: Api<ServiceRegistry> = Api::all(self.client.clone());
        let optional = ["hold", "clusterID", "prefix", "etcd", "returnedAs", "epochInUse", "records"];
        let what = format!("patch the status of ServiceRegistry {name}");
        let written = self.send_status(api, name, what, status, &optional).await?;
        if written == StatusWrite::Written
            && let Some(object) = self.view().service_registries.get_mut(name)
        {
            Arc::make_mut(object).status = Some(status.clone());
        }
        Ok(written)
    }

    async fn send_status<K>(
        &self,
        api: Api<K>,
        name: &str,
        what: String,
        status: &impl Serialize,
        optional: &[&str],
    ) -> Result<StatusWrite>
    where
        K: Clone + fmt::Debug + serde::de::DeserializeOwned,
    {
        if !self.may_write() {
            return Ok(StatusWrite::NotLeader);
        }
        if let Err(wait) = self.status_budget.take() {
            return Ok(StatusWrite::Throttled(wait));
        }
        let mut patch = json!({"status": status});
        // A merge patch keeps the fields that it does not name, so a removed field has to be named.
        for field in optional {
            if patch["status"].get(field).is_none() {
                patch["status"][field] = serde_json::Value::Null;
            }
        }
        let patch = Patch::Merge(patch);
        call(what, unless_gone(api.patch_status(name, &PatchParams::default(), &patch))).await?;
        Ok(StatusWrite::Written)
    }
}

/// The RegisteredService that a write belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub key: &'a ServiceKey,
    pub uid: &'a str,
}

impl Owner<'_> {
    fn reference(&self) -> OwnerReference {
        convert::owner_reference(&self.key.name, self.uid)
    }
}

async fn call<T>(what: impl Into<String>, future: impl Future<Output = kube::Result<T>>) -> Result<T> {
    let what = what.into();
    match tokio::time::timeout(CALL, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ClusterError::of(what, error)),
        Err(_) => Err(ClusterError::Timeout { what, seconds: CALL.as_secs() }),
    }
}

/// A missing object needs neither a deletion nor a status.
async fn unless_gone<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<()> {
    match call.await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

fn ports(new: &NewService) -> Vec<serde_json::Value> {
    let port =
        |(name, number): &(String, i32)| json!({"name": name, "port": number, "targetPort": number, "protocol": "TCP"});
    new.ports.iter().map(port).collect()
}
