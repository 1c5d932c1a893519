//! The writer of the cluster: slices by create and replace, our own Services, the RegisteredServices of discovery, and
//! the readiness gates of pods.
//!
//! Owns the check of the claim to lead, and the effect of an answer on the view. Slices are replaced with the
//! `resourceVersion` in the view: server-side apply costs the API server twice as much, and does not notice other
//! writers (`docs/decisions/0004`). Refuses to plan: the operations come from the planners; and to know the pace of
//! requests, which [`super::calls`] keeps.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tokio::sync::mpsc;
use twinspan_core::Timestamp;
use twinspan_core::model::{NewService, ObjectKey, ServiceKey};
use twinspan_core::plan::gate::Passed;
use twinspan_core::plan::slices::SliceOp;

use super::calls::{Calls, unless_gone};
use super::convert::OthersMetadata;
use super::turns::Line;
use super::view::{ClusterEvent, ClusterView};
use super::{ClusterError, Result, convert, readiness_gate};
use crate::api::RegisteredService;
use crate::telemetry::metrics::Metrics;

/// Writes slices and Services. Every method checks the claim to lead before its request, because the API server has no
/// fence.
#[derive(Clone)]
pub struct ClusterWriter {
    calls: Calls,
    view: Arc<Mutex<ClusterView>>,
    metrics: Arc<Metrics>,
    events: mpsc::UnboundedSender<ClusterEvent>,
}

impl fmt::Debug for ClusterWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterWriter")
    }
}

impl ClusterWriter {
    /// `events` takes what the view learnt from answers, because the watch will show nothing new.
    pub fn new(
        calls: Calls,
        view: Arc<Mutex<ClusterView>>,
        metrics: Arc<Metrics>,
        events: mpsc::UnboundedSender<ClusterEvent>,
    ) -> Self {
        Self { calls, view, metrics, events }
    }

    fn ask(&self) -> Result<()> {
        self.calls.ask()
    }

    fn view(&self) -> MutexGuard<'_, ClusterView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one slice of a RegisteredService, enters the answer into the view, and tells the others of its Service.
    pub async fn slice(&self, owner: &Owner<'_>, op: &SliceOp) -> Result<()> {
        self.ask()?;
        let key = ObjectKey::new(&owner.key.namespace, op.name());
        let mut in_flight = InFlight::begin(self, &key, owner.key);
        let outcome = self.send_slice(owner, op, &mut in_flight).await;
        drop(in_flight);
        let result = outcome.as_ref().map_or_else(ClusterError::label, |_| "ok");
        self.metrics.wrote("cluster", op.label(), result, 1);
        let services = outcome?;
        // The receiver is dropped only while the process ends.
        let _ = self.events.send(ClusterEvent::Wrote { services, by: owner.key.clone() });
        Ok(())
    }

    /// Tells the others of a Service that this RegisteredService keeps endpoints only until their slices hold them.
    pub fn tell_yielded(&self, service: &ServiceKey, by: &ServiceKey) {
        // The receiver is dropped only while the process ends.
        let _ = self.events.send(ClusterEvent::Yielded { service: service.clone(), by: by.clone() });
    }

    /// Returns the affected Services.
    async fn send_slice(
        &self,
        owner: &Owner<'_>,
        op: &SliceOp,
        in_flight: &mut InFlight<'_>,
    ) -> Result<Vec<ServiceKey>> {
        let namespace = &owner.key.namespace;
        let api: Api<EndpointSlice> = Api::namespaced(self.calls.client.clone(), namespace);
        let line = Line::Namespace(namespace.to_owned());
        let post = PostParams::default();
        let written = match op {
            SliceOp::Create(spec) => {
                let object =
                    convert::endpoint_slice(namespace, owner.reference(), spec, None, OthersMetadata::default());
                let what = format!("create EndpointSlice {namespace}/{}", spec.name);
                self.calls.call(line, what, || api.create(&post, &object)).await?
            }
            SliceOp::Update { spec, if_version } => {
                let others = self.view().slices.others(&ObjectKey::new(namespace, &spec.name));
                let object = convert::endpoint_slice(namespace, owner.reference(), spec, Some(if_version), others);
                let what = format!("replace EndpointSlice {namespace}/{}", spec.name);
                self.calls.call(line, what, || api.replace(&spec.name, &post, &object)).await?
            }
            SliceOp::Delete { name, if_version, .. } => {
                let preconditions = Preconditions { resource_version: Some(if_version.clone()), uid: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                let what = format!("delete EndpointSlice {namespace}/{name}");
                self.calls.call(line, what, || unless_gone(api.delete(name, &params))).await?;
                return Ok(self.view().slices.set_deleting(&ObjectKey::new(namespace, name), if_version));
            }
        };
        let others = convert::others_metadata(&written.metadata);
        let slice = convert::slice(written);
        let key = ObjectKey::new(namespace, &slice.name);
        let mut view = self.view();
        let version = slice.resource_version.clone();
        let services = view.slices.wrote(namespace, slice);
        if view.slices.version(&key) == Some(version.as_str()) {
            view.slices.set_others(&key, others);
        }
        in_flight.answered = Some(version);
        Ok(services)
    }

    /// Creates a Service without a selector, so that only our endpoints belong to it. Garbage collection deletes it
    /// with its owner.
    pub async fn create_service(&self, owner: &Owner<'_>, new: &NewService) -> Result<()> {
        self.ask()?;
        let mut spec = json!({"ports": ports(new), "ipFamilyPolicy": "PreferDualStack"});
        if let Some(family) = new.family {
            spec["ipFamilyPolicy"] = json!("SingleStack");
            spec["ipFamilies"] = json!([family.as_str()]);
        }
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
        let api: Api<Service> = Api::namespaced(self.calls.client.clone(), &new.key.namespace);
        let post = PostParams::default();
        self.calls
            .call(line_of(&new.key), format!("create Service {}", new.key), || api.create(&post, &object))
            .await?;
        Ok(())
    }

    /// Sets the ports of a Service that was created for a RegisteredService, if its UID still matches.
    pub async fn amend_service(&self, new: &NewService, uid: &str) -> Result<()> {
        self.ask()?;
        let api: Api<Service> = Api::namespaced(self.calls.client.clone(), &new.key.namespace);
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"ports": ports(new)}}));
        let what = format!("patch the ports of Service {}", new.key);
        let params = PatchParams::default();
        self.calls.call(line_of(&new.key), what, || api.patch(&new.key.name, &params, &patch)).await?;
        Ok(())
    }

    /// Makes a RegisteredService the owner of a Service that was created for another one, if its UID still matches.
    pub async fn adopt_service(&self, key: &ServiceKey, uid: &str, owner: &Owner<'_>) -> Result<()> {
        self.ask()?;
        let api: Api<Service> = Api::namespaced(self.calls.client.clone(), &key.namespace);
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "ownerReferences": [owner.reference()]}}));
        let what = format!("patch the owner of Service {key}");
        let params = PatchParams::default();
        self.calls.call(line_of(key), what, || api.patch(&key.name, &params, &patch)).await?;
        Ok(())
    }

    /// Deletes a Service that was created for a RegisteredService, if its UID still matches.
    pub async fn delete_service(&self, key: &ServiceKey, uid: &str) -> Result<()> {
        self.ask()?;
        let api: Api<Service> = Api::namespaced(self.calls.client.clone(), &key.namespace);
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let what = format!("delete Service {key}");
        self.calls.call(line_of(key), what, || unless_gone(api.delete(&key.name, &params))).await.map(drop)
    }
}

impl ClusterWriter {
    /// Opens the readiness gate of a pod, if it is still this version of it. The version that the pod has then is told
    /// by the watch.
    pub async fn open_gate(
        &self,
        key: &ObjectKey,
        uid: &str,
        version: &str,
        why: Passed,
        now: Timestamp,
    ) -> Result<()> {
        self.ask()?;
        let api: Api<Pod> = Api::namespaced(self.calls.client.clone(), &key.namespace);
        let patch = Patch::Strategic(readiness_gate::opened(uid, version, why, now));
        let (what, params) = (format!("patch the readiness gate of Pod {key}"), PatchParams::default());
        let line = Line::Namespace(key.namespace.clone());
        let sent = self.calls.call(line, what, || api.patch_subresource("status", &key.name, &params, &patch)).await;
        let result = sent.as_ref().map_or_else(ClusterError::label, |_| "ok");
        self.metrics.wrote("cluster", "gate", result, 1);
        sent.map(drop)
    }

    /// Creates a RegisteredService that discovery wants.
    pub async fn create_registered(&self, object: &RegisteredService) -> Result<()> {
        self.ask()?;
        let key = object.key();
        let api: Api<RegisteredService> = Api::namespaced(self.calls.client.clone(), &key.namespace);
        let post = PostParams::default();
        let what = format!("create RegisteredService {key}");
        self.calls.call(line_of(&key), what, || api.create(&post, object)).await?;
        Ok(())
    }

    /// Replaces a RegisteredService that discovery made, if it is still the version that it names.
    pub async fn replace_registered(&self, object: &RegisteredService) -> Result<()> {
        self.ask()?;
        let key = object.key();
        let api: Api<RegisteredService> = Api::namespaced(self.calls.client.clone(), &key.namespace);
        let post = PostParams::default();
        let what = format!("replace RegisteredService {key}");
        self.calls.call(line_of(&key), what, || api.replace(&key.name, &post, object)).await?;
        Ok(())
    }

    /// Deletes a RegisteredService that discovery made, if its UID and version still match.
    pub async fn delete_registered(&self, key: &ServiceKey, uid: &str, version: &str) -> Result<()> {
        self.ask()?;
        let api: Api<RegisteredService> = Api::namespaced(self.calls.client.clone(), &key.namespace);
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: Some(version.to_owned()) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let what = format!("delete RegisteredService {key}");
        self.calls.call(line_of(key), what, || unless_gone(api.delete(&key.name, &params))).await.map(drop)
    }
}

/// A write of a slice in flight, of which the view knows: the watch may show it before its answer comes.
struct InFlight<'a> {
    writer: &'a ClusterWriter,
    key: &'a ObjectKey,
    by: &'a ServiceKey,
    /// The version in the answer.
    answered: Option<String>,
}

impl<'a> InFlight<'a> {
    fn begin(writer: &'a ClusterWriter, key: &'a ObjectKey, by: &'a ServiceKey) -> Self {
        writer.view().slices.begin_write(key, by);
        Self { writer, key, by, answered: None }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.writer.view().slices.end_write(self.key, self.answered.as_deref()) {
            // Somebody else changed the slice meanwhile. The receiver is dropped only while the process ends.
            let _ = self.writer.events.send(ClusterEvent::RegisteredService(self.by.clone()));
        }
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

fn line_of(key: &ServiceKey) -> Line {
    Line::Namespace(key.namespace.clone())
}

fn ports(new: &NewService) -> Vec<serde_json::Value> {
    let port =
        |(name, number): &(String, i32)| json!({"name": name, "port": number, "targetPort": number, "protocol": "TCP"});
    new.ports.iter().map(port).collect()
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
