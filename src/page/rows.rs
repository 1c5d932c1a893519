//! The lines of the page: one for each RegisteredService and each ServiceRegistry.
//!
//! Owns their fields and the words of a state. Refuses to decide: a pass fills them in from its status.

use std::time::Duration;

use serde::{Serialize, Serializer};
use twinspan_core::Timestamp;

/// The state of a service, for a glance; the worst that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// Both sides have the same instances. Pods that the cluster does not serve do not count, and neither does anything
    /// that the spec leaves out.
    InSync,
    /// Nothing is written: policy Observe, `spec.suspend`, or a dry run.
    Observing,
    /// Something is about to be written, or waits for evidence, or its writing fails and is tried again.
    Pending,
    /// One side has instances that are left out on the other, each for a reason.
    Differs,
    /// Instances lost their registration and live.
    Lost,
    /// The guard holds deletions.
    Held,
    /// The spec, or a write for it, is refused.
    Refused,
    /// One side cannot be seen now, or is not listed yet.
    Unknown,
}

/// One RegisteredService. Counts are those of its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The ServiceRegistry that it refers to.
    pub registry: String,
    /// The name there.
    pub registry_name: String,
    /// The Kubernetes Service.
    pub service: String,
    pub direction: &'static str,
    pub policy: &'static str,
    /// Whether discovery made the object.
    pub discovered: bool,
    pub state: State,
    /// Reason and message of the condition Ready.
    pub reason: String,
    pub message: String,
    pub cluster: i64,
    pub registry_instances: i64,
    pub exported: i64,
    pub imported: i64,
    pub lost: i64,
    pub healed: i64,
    pub skipped: i64,
    pub held: i64,
    /// Equal while the details are: a line whose counts are equal changes with them.
    #[serde(skip)]
    pub digest: u64,
}

/// A hold of the deletion guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    #[serde(serialize_with = "time")]
    pub since: Timestamp,
    #[serde(serialize_with = "time")]
    pub until: Timestamp,
    pub hash: String,
    /// The number of deletions that it holds.
    pub held: i64,
    /// The command that lets them go.
    pub command: String,
}

/// One ServiceRegistry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registry {
    pub name: String,
    pub format: &'static str,
    pub prefix: String,
    /// `Synced`, or the reason why its session is not.
    pub session: String,
    pub ready: Ready,
    pub records: Records,
    #[serde(serialize_with = "optional_time")]
    pub last_verified: Option<Timestamp>,
    pub hold: Option<Hold>,
    /// The clusters that share it.
    pub clusters: Vec<String>,
    /// The conditions besides Ready of which a reader has to know.
    pub notes: Vec<Note>,
    /// Whether a complete list has arrived and is being followed.
    pub synced: bool,
    /// The cluster ID in force.
    #[serde(skip)]
    pub cluster_id: String,
}

/// The condition Ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ready {
    pub status: String,
    pub reason: String,
    pub message: String,
    /// The name of the message, if it is one of the page's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

/// A condition, as a reader needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    #[serde(rename = "type")]
    pub kind: String,
    pub reason: String,
    pub message: String,
    /// The name of the message, if it is one of the page's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

impl Note {
    /// Whether it tells of a hold, which a replica that stands by does not.
    pub(super) fn tells_of_hold(&self) -> bool {
        self.reason == "Held"
    }
}

/// The records of a registry, by whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Records {
    pub own: i64,
    pub foreign: i64,
    /// The sum over the services that refer to it; the board keeps it.
    pub healed: i64,
    pub undecodable: i64,
}

/// Whole milliseconds of a propagation; 49 days at most.
pub(super) fn milliseconds(latency: Duration) -> u32 {
    u32::try_from(latency.as_millis()).unwrap_or(u32::MAX)
}

/// RFC 3339 with milliseconds.
pub(super) fn time<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.3}"))
}

pub(super) fn optional_time<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}
