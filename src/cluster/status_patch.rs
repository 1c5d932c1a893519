//! The patch of a status, and what the view and the answers know of its object.
//!
//! Owns the preconditions of the patch, the fields that it removes, and the times that it keeps. Refuses to know when
//! the patch is sent, which [`super::status_writer`] does.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reach::Holding;
use super::status_queue::{Object, Status};
use super::view::ClusterView;
use super::{ClusterError, Result};
use crate::api::conditions::{DELETIONS_HELD, find_true};
use crate::api::{APPROVE_HOLDER, Difference, RegisteredService, ServiceRegistry};

/// An object as the view or an answer shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub uid: String,
    pub version: String,
    pub status: Option<Status>,
    /// The release that an annotation of a ServiceRegistry approves as its holder.
    pub approved: Option<String>,
}

impl Status {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::ServiceRegistry(_) => "ServiceRegistry",
            Self::RegisteredService(_) => "RegisteredService",
        }
    }

    /// Whether it reports a hold.
    pub(super) fn holds(&self) -> bool {
        let conditions = match self {
            Self::ServiceRegistry(status) => &status.conditions,
            Self::RegisteredService(status) => &status.conditions,
        };
        find_true(conditions, DELETIONS_HELD).is_some()
    }

    /// Whether both list differences, and not the same ones: those that go on keep their times, which only the API
    /// server has.
    pub(super) fn continues_a_list(&self, base: &Known) -> bool {
        let (Self::RegisteredService(status), Some(Self::RegisteredService(known))) = (self, &base.status) else {
            return false;
        };
        let (now, before) = (&status.differences, &known.differences);
        now != before && !now.is_empty() && !before.is_empty()
    }

    /// Takes the times of differences that go on from the object that the API server has.
    pub(super) fn keep_times(&mut self, live: &Value) {
        if let Self::RegisteredService(status) = self {
            // A list that cannot be read has no times to keep.
            let before = Vec::<Difference>::deserialize(&live["status"]["differences"]).unwrap_or_default();
            status.differences.keep_times(&before);
        }
    }

    /// Whether the object lists these differences already.
    fn has_same_differences(&self, base: &Known) -> bool {
        match (self, &base.status) {
            (Self::RegisteredService(status), Some(Self::RegisteredService(known))) => {
                status.differences == known.differences
            }
            _ => false,
        }
    }

    fn to_json(&self) -> serde_json::Result<Value> {
        match self {
            Self::ServiceRegistry(status) => serde_json::to_value(status),
            Self::RegisteredService(status) => serde_json::to_value(status),
        }
    }

    /// The merge patch that makes it the status of the object.
    pub(super) fn patch(&self, base: &Known) -> Result<Value> {
        let rejected =
            |e: serde_json::Error| ClusterError::Rejected { what: "a status".to_owned(), message: e.to_string() };
        let mut status = self.to_json().map_err(rejected)?;
        let known = base.status.as_ref().map(Self::to_json).transpose().map_err(rejected)?;
        name_removed(&mut status, &known.unwrap_or_default());
        if self.has_same_differences(base) {
            // A merge patch keeps what it does not name, times included.
            drop(status.as_object_mut().map(|status| status.remove("differences")));
        }
        let mut metadata = json!({"uid": base.uid});
        if !base.version.is_empty() {
            metadata["resourceVersion"] = json!(base.version);
        }
        Ok(json!({"metadata": metadata, "status": status}))
    }
}

/// A merge patch keeps the fields that it does not name, so a removed field has to be named.
fn name_removed(status: &mut Value, known: &Value) {
    let (Some(status), Some(known)) = (status.as_object_mut(), known.as_object()) else { return };
    for (field, known) in known {
        name_removed(status.entry(field).or_insert(Value::Null), known);
    }
}

impl Known {
    fn new(meta: &ObjectMeta, status: Option<Status>) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let approved = meta.annotations.as_ref().and_then(|all| all.get(APPROVE_HOLDER)).cloned();
        Self { uid: text(&meta.uid), version: text(&meta.resource_version), status, approved }
    }

    /// Whether it is a ServiceRegistry that another release holds.
    pub fn is_anothers(&self, view: &ClusterView, object: &Object) -> bool {
        let (Object::ServiceRegistry(name), Some(Status::ServiceRegistry(status))) = (object, &self.status) else {
            return false;
        };
        let holding = view.holding_as(name, status.holder.as_deref(), self.approved.as_deref());
        matches!(holding, Holding::Another(_))
    }

    pub fn in_view(view: &ClusterView, object: &Object) -> Option<Self> {
        match object {
            Object::ServiceRegistry(name) => view.service_registries.get(name).map(|object| Self::from(&**object)),
            Object::RegisteredService(key) => view.registered_services.get(key).map(|object| Self::from(&**object)),
        }
    }

    /// Makes status and version those of the object in the view.
    pub fn enter(&self, view: &mut ClusterView, object: &Object) {
        let version = Some(self.version.clone()).filter(|version| !version.is_empty());
        match (object, self.status.clone()) {
            (Object::ServiceRegistry(name), Some(Status::ServiceRegistry(status))) => {
                if let Some(found) = view.service_registries.get_mut(name).map(Arc::make_mut) {
                    (found.status, found.metadata.resource_version) = (Some(*status), version);
                }
                view.note_holder(name);
            }
            (Object::RegisteredService(key), Some(Status::RegisteredService(status))) => {
                if let Some(found) = view.registered_services.get_mut(key).map(Arc::make_mut) {
                    (found.status, found.metadata.resource_version) = (Some(*status), version);
                }
            }
            _ => {}
        }
    }
}

impl From<&ServiceRegistry> for Known {
    fn from(object: &ServiceRegistry) -> Self {
        Self::new(&object.metadata, object.status.clone().map(|status| Status::ServiceRegistry(Box::new(status))))
    }
}

impl From<&RegisteredService> for Known {
    fn from(object: &RegisteredService) -> Self {
        Self::new(&object.metadata, object.status.clone().map(|status| Status::RegisteredService(Box::new(status))))
    }
}
