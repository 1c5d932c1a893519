//! One service in full: its conditions, and each instance with its sides and the reason.
//!
//! Owns the fields and their bounds. Refuses to explain: the composition hands the explanation in, which is that of
//! `twinspan explain`.

use std::sync::Arc;

use serde::Serialize;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::rows::{optional_time, time};

/// The greatest number of instances; the total is told beside them.
pub const MAX_INSTANCES: usize = 1_000;
/// The greatest number of keys of one instance.
pub const MAX_RECORDS: usize = 5;

/// Explains one RegisteredService; `None` if there is none. The second argument says whether this replica leads: one
/// that stands by knows of no hold.
pub type Explain = Arc<dyn Fn(&ServiceKey, bool) -> Option<Detail> + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    pub conditions: Vec<Condition>,
    /// In the order of `explain`.
    pub instances: Vec<Instance>,
    pub instances_total: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    /// The name of the message, if it is one of the page's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    #[serde(serialize_with = "time")]
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// The address; the key of a record that has none.
    pub instance: String,
    /// Whether an EndpointSlice of the Service has it.
    pub cluster: bool,
    /// Whether a record has it.
    pub registry: bool,
    /// State and words of `explain`.
    pub state: String,
    pub why: String,
    #[serde(serialize_with = "optional_time")]
    pub until: Option<Timestamp>,
    /// The keys of its records.
    pub records: Vec<String>,
}
