//! `status.records` of a ServiceRegistry: how many records it has, and which are counted.
//!
//! Owns the fields. Refuses to count.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The records that Twinspan follows, where they are not those of the whole registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecordScope {
    /// Only the records of names that RegisteredServices have, and those with own records.
    FollowedNames,
}

/// How many of the records that Twinspan follows there are, by whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecordCounts {
    /// Records that this cluster's Twinspan exported.
    pub own: i64,
    /// Records of anybody else.
    pub foreign: i64,
    /// Records whose value cannot be read; they are passed over.
    pub undecodable: i64,
    /// Absent where the whole registry is followed. A registry with at least 20,000 records is followed by names where
    /// few names are asked for, and one without a prefix always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<RecordScope>,
}
