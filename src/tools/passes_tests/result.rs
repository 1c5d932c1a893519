//! The result of a pass in words: operations, outcomes, counts and conditions.
//!
//! Refuses to judge it.

use serde_json::{Map, Value, json};
use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, SliceEndpoint};
use twinspan_core::plan::RecordOp;
use twinspan_core::plan::service::Plan;
use twinspan_core::plan::slices::{SliceOp, SliceSpec};

use super::scene::Passed;
use crate::api::Difference;
use crate::tools::preview::explanations;

pub fn of(passed: &Passed) -> Value {
    let Passed { observed, validation, plan, status, now, .. } = passed;
    let outcomes: Map<String, Value> = explanations(observed, validation, plan)
        .into_iter()
        .map(|explanation| (explanation.instance, json!(format!("{}: {}", explanation.state, explanation.text))))
        .collect();
    let conditions: Map<String, Value> = status
        .conditions
        .iter()
        .map(|c| (c.type_.clone(), json!(format!("{} {} {}", c.status, c.reason, c.message).trim_end())))
        .collect();
    let counts = serde_json::to_value(&status.instances).unwrap();
    let counts: Map<String, Value> = counts
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, n)| **n != json!(0))
        .map(|(k, n)| (k.clone(), n.clone()))
        .collect();
    let differences: Vec<String> = status.differences.iter().map(difference_in_words).collect();
    json!({
        "writes": validation.writes,
        "operations": operations(plan),
        "outcomes": outcomes,
        "counts": counts,
        "differences": differences,
        "conditions": conditions,
        "requeueAfter": plan.requeue_at.map(|at| seconds(at, *now)),
    })
}

fn difference_in_words(difference: &Difference) -> String {
    let Difference { instance, side, reason, message, .. } = difference;
    let words = message.iter().map(|message| format!(": {message}"));
    format!("{instance} in {side:?}: {reason}{}", words.collect::<String>())
}

fn seconds(at: Timestamp, now: Timestamp) -> i64 {
    at.duration_since(now).as_secs()
}

fn operations(plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(new) = &plan.create {
        all.push(format!("create Service {} headless={} {:?}", new.key, new.headless, new.ports));
    }
    all.extend(plan.adopt.iter().map(|service| format!("adopt Service {}", service.name)));
    all.extend(plan.amend.iter().map(|(new, _)| format!("amend Service {} {:?}", new.key, new.ports)));
    all.extend(plan.remove.iter().map(|old| format!("delete Service {}", old.name)));
    for (registry, ops) in &plan.records {
        all.extend(ops.iter().map(|op| record(registry, op)));
    }
    all.extend(plan.slices.ops.iter().map(slice));
    let probes = plan.directions.iter().flat_map(|directions| &directions.import.probe);
    all.extend(probes.map(|addr| format!("probe {addr}")));
    all
}

fn record(registry: &str, op: &RecordOp) -> String {
    match op {
        RecordOp::Create { key, value } => format!("{registry}: create {key} {}", String::from_utf8_lossy(value)),
        RecordOp::Update { key, value, if_revision, .. } => {
            format!("{registry}: update {key} if revision {if_revision} {}", String::from_utf8_lossy(value))
        }
        RecordOp::Delete { key, if_revision, .. } => format!("{registry}: delete {key} if revision {if_revision}"),
    }
}

fn slice(op: &SliceOp) -> String {
    match op {
        SliceOp::Create(spec) => format!("create EndpointSlice {} {}", spec.name, endpoints(spec)),
        SliceOp::Update { spec, if_version } => {
            format!("replace EndpointSlice {} if version {if_version} {}", spec.name, endpoints(spec))
        }
        SliceOp::Delete { name, if_version, .. } => format!("delete EndpointSlice {name} if version {if_version}"),
    }
}

fn endpoints(spec: &SliceSpec) -> String {
    let number = spec.port.number.unwrap_or_default();
    let endpoint = |endpoint: &SliceEndpoint| {
        let ip = endpoint.address.ip().unwrap();
        let mut text = InstanceAddr::new(ip, number).unwrap().to_string();
        text.extend(endpoint.zone.iter().map(|zone| format!(" zone {zone}")));
        if endpoint.mirrored {
            text += if endpoint.is_terminating() { " mirrored, terminating" } else { " mirrored" };
            text += if endpoint.is_ready() { "" } else { ", not ready" };
        }
        text.extend(endpoint.lost_until.iter().map(|until| format!(" lost until {until}")));
        text
    };
    let all: Vec<String> = spec.endpoints.iter().map(endpoint).collect();
    format!("{} [{}]", spec.port.name, all.join(", "))
}
