//! Decisions: observed state and `now` in, what to write and when to look again out.
//!
//! - [`export`]: cluster → registry, record operations.
//! - [`import`]: registry → cluster, the endpoints that slices should hold.
//! - [`slices`]: which EndpointSlices to write so that they hold them.
//! - [`trust`]: which addresses the registry may put into a Service.
//! - [`departures`]: what the end of a record means for the other side, and [`keep`], what becomes of endpoints because of it.
//! - [`epoch`]: which leader's writes a registry takes.
//! - [`guard`]: how many unexplained deletions may go, and when.
//!
//! Planners are functions of values. They never see a client, a lock or a clock.

pub mod departures;
pub mod epoch;
pub mod export;
pub mod guard;
pub mod import;
pub mod keep;
pub mod slices;
pub mod trust;

use crate::Timestamp;
use crate::model::{LeaseId, RecordKey, Revision};

/// One change of the registry, always a compare-and-swap: what lost its race is planned again, never forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOp {
    /// Only where the key does not exist.
    Create { key: RecordKey, value: Vec<u8> },
    /// Only where the key is still as it was seen. It stays on its lease; without one it gets one.
    Update { key: RecordKey, value: Vec<u8>, seen: Revision, lease: LeaseId },
    /// Only where the key is still as it was seen.
    Delete { key: RecordKey, seen: Revision, lease: LeaseId },
}

impl RecordOp {
    pub fn key(&self) -> &RecordKey {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// Bounded, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
        }
    }
}

/// The earlier of two times to look again, where there are any.
pub fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
