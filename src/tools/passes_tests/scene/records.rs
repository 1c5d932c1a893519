//! Short forms of records, of their deletions, and of the answers that others give: connections, guards and writes.
//!
//! Owns the default of each. Refuses to fill views from them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;
use twinspan_core::model::{Family, LeaseId, RawRecord};
use twinspan_core::plan::departure::registry_guard::ServiceDeletions;
use twinspan_core::plan::departure::{Answer, MISSING_ANSWERS, Probe};
use twinspan_core::plan::service::Plan;
use twinspan_core::plan::slices::SliceGroup;

use super::at;
use crate::cluster::ClusterError;
use crate::controllers::registered_service::apply::Applied;
use crate::controllers::registered_service::validate::Validation;
use crate::registry::RegistryError;

const LEASE: i64 = 7;

/// A record: the whole value as text, or a Kitex registration in short form.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RecordGiven {
    value: Option<String>,
    address: String,
    network: String,
    weight: i64,
    tags: BTreeMap<String, String>,
    /// The mark of an export.
    owner: Option<String>,
    /// The mark of a registration that was put back.
    healed: Option<String>,
    lease: i64,
    revision: Option<i64>,
}

impl Default for RecordGiven {
    fn default() -> Self {
        Self {
            value: None,
            address: String::new(),
            network: "tcp".into(),
            weight: 10,
            tags: BTreeMap::new(),
            owner: None,
            healed: None,
            lease: LEASE,
            revision: None,
        }
    }
}

impl RecordGiven {
    pub fn raw(&self, key: &str, revision: i64) -> RawRecord {
        let mut tags = self.tags.clone();
        tags.extend(self.owner.iter().chain(&self.healed).map(|owner| ("twinspan.dev/owner".into(), owner.clone())));
        tags.extend(self.healed.iter().map(|_| ("twinspan.dev/healed".into(), "true".into())));
        let short = || {
            // The last segment of a Kitex key is the address.
            let last = key.rsplit('/').next().unwrap_or_default();
            let address = if self.address.is_empty() { last } else { &self.address };
            let value = json!({"network": self.network, "address": address, "weight": self.weight, "tags": tags});
            value.to_string()
        };
        let value = self.value.clone().unwrap_or_else(short).into_bytes();
        RawRecord {
            key: key.into(),
            value,
            mod_revision: self.revision.unwrap_or(revision),
            lease: LeaseId(self.lease),
        }
    }
}

/// Records that went together.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeletionGiven {
    /// Seconds after noon.
    #[serde(default)]
    pub at: i64,
    #[serde(default)]
    pub seen_by: SeenBy,
    /// The answer to the look-up of their leases; none while it is under way.
    #[serde(default)]
    pub lease: Option<LeaseAnswer>,
    /// The records as they were.
    pub records: BTreeMap<String, RecordGiven>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum SeenBy {
    /// Events of one revision.
    #[default]
    Watch,
    /// A list that lacks them.
    List,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum LeaseAnswer {
    Lives,
    Gone,
    Unreadable,
}

/// The answer to connections.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeGiven {
    answer: String,
    #[serde(default)]
    since: i64,
}

impl ProbeGiven {
    pub fn probe(&self) -> Probe {
        let answer = match self.answer.as_str() {
            "Accepted" => Answer::Accepted,
            "Refused" => Answer::Refused,
            "NoAnswer" => Answer::NoAnswer,
            other => panic!("no answer {other}"),
        };
        Probe { answer, since: at(self.since), times: MISSING_ANSWERS }
    }
}

/// The deletions of another RegisteredService.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportGiven {
    known: usize,
    held: usize,
}

impl ReportGiven {
    pub fn deletions(&self) -> ServiceDeletions {
        let held: BTreeSet<String> = (0..self.held).map(|n| format!("import 192.0.2.{n}:80")).collect();
        ServiceDeletions { known: self.known, held, ..ServiceDeletions::default() }
    }
}

/// The errors of writes; none where they succeed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ErrorsGiven {
    registry: Option<String>,
    cluster: Option<String>,
    /// The API server's words about groups of slices, by their port numbers.
    refused: BTreeMap<u16, String>,
}

impl ErrorsGiven {
    /// An error needs a write.
    pub fn applied(&self, validation: &Validation, plan: &Plan) -> Applied {
        let records = validation.writes && plan.records.iter().any(|(_, ops)| !ops.is_empty());
        let slices = validation.writes && (!plan.slices.ops.is_empty() || plan.create.is_some());
        assert!((records || self.registry.is_none()) && (slices || self.cluster.is_none()), "no write: {self:?}");
        Applied {
            registry_error: self.registry.as_deref().map(registry_error),
            cluster_error: self.cluster.as_deref().map(|error| match error {
                "Timeout" => ClusterError::Timeout { what: "create EndpointSlices in shop".into(), seconds: 10 },
                "Conflict" => ClusterError::Conflict {
                    what: "replace EndpointSlice shop/echo-abc".into(),
                    message: "the object has been modified".into(),
                },
                "Quota" => ClusterError::Quota {
                    what: "create Service shop/echo".into(),
                    message: "exceeded quota: q, requested: count/services=1".into(),
                },
                other => panic!("no error {other}"),
            }),
            refused: self.refused.iter().map(|(number, words)| (group(*number), words.clone())).collect(),
            service_failed: plan.create.is_some() && self.cluster.is_some(),
            attempted: true,
            ..Applied::default()
        }
    }
}

fn group(number: u16) -> SliceGroup {
    SliceGroup { family: Family::V4, number }
}

/// By the name of its variant.
pub fn registry_error(name: &str) -> RegistryError {
    match name {
        "Unreachable" => RegistryError::Unreachable("connection refused".into()),
        "Timeout" => RegistryError::Timeout { what: "write", seconds: 5 },
        "AuthFailed" => RegistryError::AuthFailed("invalid auth token".into()),
        "PermissionDenied" => RegistryError::PermissionDenied("permission denied".into()),
        "TlsFailed" => RegistryError::TlsFailed("certificate has expired".into()),
        "Secret" => RegistryError::Secret("the Secret etcd has no key password".into()),
        "NotSole" => RegistryError::NotSole,
        "ClusterIdInUse" => RegistryError::ClusterIdInUse { key: "twinspan/epoch/c1".into(), value: "9".into() },
        "NoSpace" => RegistryError::NoSpace("database space exceeded".into()),
        "Server" => RegistryError::Server("too many requests".into()),
        "LeaseGone" => RegistryError::LeaseGone,
        "NoEpoch" => RegistryError::NoEpoch,
        "Fenced" => RegistryError::Fenced,
        "NotLeader" => RegistryError::NotLeader,
        other => panic!("no error {other}"),
    }
}
