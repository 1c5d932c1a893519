//! The lines as JSON.
//!
//! Owns the fields that the page's script reads (`docs/page.md`), and the rule that a replica which stands by shows no
//! hold. Refuses to know how an answer is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::board::{Delta, Line, Snapshot};
use super::detail::{Condition, Detail, Instance};
use super::rows::{Hold, Registry, Service, State, optional_time, time};
use super::text;

/// A service, as every answer has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    key: String,
    namespace: String,
    name: String,
    #[serde(flatten)]
    service: Service,
    /// The name of the message, if it is one of the page's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_code: Option<&'static str>,
    #[serde(serialize_with = "time")]
    updated: Timestamp,
    #[serde(serialize_with = "optional_time")]
    last_verified: Option<Timestamp>,
    latency: Vec<u32>,
}

/// The answer to `/state`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Everything<'a> {
    version: u64,
    boot: &'a str,
    leader: bool,
    replica: &'a str,
    #[serde(rename = "clusterID")]
    cluster_id: String,
    twinspan: &'static str,
    /// Whether everything was looked at once: what is not here is not there.
    complete: bool,
    #[serde(serialize_with = "time")]
    now: Timestamp,
    registries: Vec<Registry>,
    services: Vec<Row>,
}

/// The data of one `change`.
#[derive(Debug, Serialize)]
pub struct Change {
    version: u64,
    leader: bool,
    complete: bool,
    #[serde(serialize_with = "time")]
    now: Timestamp,
    /// All, if one of them changed or is gone.
    registries: Option<Vec<Registry>>,
    services: Vec<Row>,
    gone: Vec<String>,
}

/// The data of one `alive`.
#[derive(Debug, Serialize)]
pub struct Alive {
    #[serde(serialize_with = "time")]
    now: Timestamp,
}

/// The answer to `/service/<namespace>/<name>`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InFull {
    row: Row,
    conditions: Vec<Condition>,
    hold: Option<Hold>,
    instances: Vec<Instance>,
    instances_total: usize,
}

/// The process, as answers name it.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a> {
    pub boot: &'a str,
    pub replica: &'a str,
    pub leads: bool,
    pub now: Timestamp,
}

/// When each registry was verified last.
type Verified = BTreeMap<String, Option<Timestamp>>;

pub fn verified(registries: &[Arc<Registry>]) -> Verified {
    registries.iter().map(|registry| (registry.name.clone(), registry.last_verified)).collect()
}

pub fn everything<'a>(snapshot: &Snapshot, process: Process<'a>) -> Everything<'a> {
    let verified = verified(&snapshot.registries);
    let cluster_id = snapshot.registries.iter().map(|registry| &registry.cluster_id).find(|id| !id.is_empty());
    Everything {
        version: snapshot.version,
        boot: process.boot,
        leader: process.leads,
        replica: process.replica,
        cluster_id: cluster_id.cloned().unwrap_or_default(),
        twinspan: env!("CARGO_PKG_VERSION"),
        complete: snapshot.complete,
        now: process.now,
        registries: registries(&snapshot.registries, process.leads),
        services: snapshot.services.iter().map(|line| row(line, &verified, process.leads)).collect(),
    }
}

pub fn change(delta: &Delta, verified: &Verified, process: Process<'_>) -> Change {
    Change {
        version: delta.version,
        leader: process.leads,
        complete: delta.complete,
        now: process.now,
        registries: delta.registries.as_ref().map(|all| registries(all, process.leads)),
        services: delta.services.iter().map(|line| row(line, verified, process.leads)).collect(),
        gone: delta.gone.iter().map(ServiceKey::to_string).collect(),
    }
}

pub fn alive(process: Process<'_>) -> Alive {
    Alive { now: process.now }
}

pub fn in_full(line: &Line, detail: Detail, verified: &Verified, leads: bool) -> InFull {
    let Detail { conditions, instances, instances_total } = detail;
    InFull {
        row: row(line, verified, leads),
        conditions,
        hold: line.hold.clone().filter(|_| leads),
        instances,
        instances_total,
    }
}

fn registries(all: &[Arc<Registry>], leads: bool) -> Vec<Registry> {
    let shown = |registry: &Arc<Registry>| {
        let mut registry = Registry::clone(registry);
        registry.hold = registry.hold.filter(|_| leads);
        registry.notes.retain(|note| leads || !note.tells_of_hold());
        registry
    };
    all.iter().map(shown).collect()
}

fn row(line: &Line, verified: &Verified, leads: bool) -> Row {
    let mut service = line.service.clone();
    if !leads && (service.held > 0 || service.state == State::Held) {
        // Left over from a leadership that ended, or waiting for evidence that only a leader judges.
        (service.held, service.message) = (0, String::new());
        service.state = if service.state == State::Held { State::Pending } else { service.state };
    }
    Row {
        key: line.key.to_string(),
        namespace: line.key.namespace.clone(),
        name: line.key.name.clone(),
        last_verified: verified.get(&service.registry).copied().flatten(),
        message_code: text::code(&service.reason).filter(|_| !service.message.is_empty()),
        service,
        updated: line.updated,
        latency: line.latency.clone(),
    }
}
