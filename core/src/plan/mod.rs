//! Decisions: observed state and `now` in; operations, outcomes and the time of the next look out.
//!
//! - [`service`]: one RegisteredService, both ways: facts, goal, siblings, checkpoint in; operations and outcomes out.
//! - [`export`]: cluster → registry, record operations.
//! - [`import`]: registry → cluster, the endpoints that slices should hold.
//! - [`slices`]: the EndpointSlices to write so that they hold those endpoints.
//! - [`trust`]: the addresses that the registry may put into a Service.
//! - [`departure`]: the consequence of a record's end for the other side, and the deletion guard.
//! - [`discovery`]: the RegisteredServices that a ServiceRegistry makes for Services and names.
//! - [`gate`]: whether a pod's readiness gate opens.
//! - [`fence`]: the leader whose writes a registry takes.
//!
//! Owns the operations on records. Planners are functions of values: they refuse to see a client, a lock or a clock.

pub mod departure;
pub mod discovery;
pub mod export;
pub mod fence;
pub mod gate;
pub mod import;
pub mod service;
pub mod slices;
pub mod trust;

use crate::Timestamp;
use crate::model::{LeaseId, RecordKey, Revision};

/// One change of the registry, always a compare-and-swap: an operation that lost a race is planned again, never forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOp {
    /// Applies only if the key does not exist.
    Create { key: RecordKey, value: Vec<u8> },
    /// Applies only if the key still has this `mod_revision`. The record stays on its lease; a record without a lease
    /// gets one.
    Update { key: RecordKey, value: Vec<u8>, if_revision: Revision, lease: LeaseId },
    /// Applies only if the key still has this `mod_revision`.
    Delete { key: RecordKey, if_revision: Revision, lease: LeaseId },
}

impl RecordOp {
    pub fn key(&self) -> &RecordKey {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// The name of the operation in metrics; a bounded set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
        }
    }
}

/// The earlier of two optional times.
pub fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
