//! `status.hold`: a hold of the deletion guard, as people and the next leader read it.
//!
//! Owns its fields, and the rule about which hold a status reports. Refuses to know limits and lengths.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use twinspan_core::Timestamp;
use twinspan_core::plan::departure::held::Hold;

use super::conditions::{DELETIONS_HELD, find_true};
use super::schema;

/// A hold of the deletion guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct HoldStatus {
    /// When it began, by the API server's clock. No two holds of an object have the same.
    #[schemars(schema_with = "schema::time")]
    pub since: Time,
    /// When the held deletions are released.
    #[schemars(schema_with = "schema::time")]
    pub until: Time,
    /// Follows from `since` and the held deletions: the annotation `twinspan.dev/approve-deletions` with this value
    /// releases them, once.
    #[schemars(length(max = 64))]
    pub hash: String,
}

impl HoldStatus {
    pub fn new(hold: Hold, hash: String) -> Self {
        Self { since: Time(hold.since), until: Time(hold.until), hash }
    }
}

/// The start of the hold that a status reports. The condition repeats it, and is what versions without `status.hold`
/// write too.
pub fn held_since(conditions: &[Condition]) -> Option<Timestamp> {
    find_true(conditions, DELETIONS_HELD).map(|held| held.last_transition_time.0)
}
