//! A file of a pass → views, as watches and sessions would have filled them, and the passes over them.
//!
//! - [`given`]: the inputs of one pass and their defaults.
//! - [`objects`]: short forms of Kubernetes objects, and the view of the cluster.
//! - [`records`]: short forms of records, of deletions and of answers; [`registries`]: the views of registries, filled
//!   from them.
//!
//! Owns the order of passes and the values that one hands to the next. Refuses to judge the result.

mod given;
mod objects;
mod records;
mod registries;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, InstanceOutcome, Outcome, ServiceKey};
use twinspan_core::plan::service::{self, Outcomes, Plan, Term, Written};

use crate::api::RegisteredServiceStatus;
use crate::controllers::registered_service::apply::Applied;
use crate::controllers::registered_service::checkpoint::{Checkpoint, Checkpoints};
use crate::controllers::registered_service::observe::{Observed, observe, read_pods};
use crate::controllers::registered_service::validate::{Validation, validate};
use crate::controllers::registered_service::{siblings, status};
use crate::controllers::views::Views;
use crate::env::Env;
use crate::registry::guards::Guards;
use given::Given;

/// The time of a pass that names none.
const NOON: i64 = 1_767_268_800;
const UID: &str = "uid-1";

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scene {
    /// The rule that the file shows, in a sentence.
    pub about: String,
    /// The observations of docs/departures.md that it shows: one, or a list.
    #[serde(default)]
    row: Value,
    /// Earlier passes of this process, oldest first: each states only the inputs that differ from the last pass.
    #[serde(default)]
    before: Vec<Value>,
    #[serde(default)]
    given: Value,
    /// Compared by the caller.
    #[serde(default)]
    pub expect: Value,
}

/// Everything about one pass.
#[derive(Debug)]
pub struct Passed {
    pub observed: Observed,
    pub validation: Validation,
    pub plan: Plan,
    pub applied: Applied,
    pub status: RegisteredServiceStatus,
    pub now: Timestamp,
}

/// The values that one pass hands to the next.
#[derive(Debug, Default)]
struct Memory {
    checkpoints: Checkpoints,
    guards: Guards,
    status: Option<RegisteredServiceStatus>,
}

impl Scene {
    pub fn rows(&self) -> Vec<&str> {
        match &self.row {
            Value::Array(rows) => rows.iter().map(|row| row.as_str().unwrap()).collect(),
            row => row.as_str().into_iter().collect(),
        }
    }

    /// Runs the earlier passes, then the one that the file is about.
    pub fn run(&self, name: &str) -> Passed {
        assert!(self.about.ends_with('.'), "{name}: no sentence: {}", self.about);
        let mut memory = Memory::default();
        for earlier in &self.before {
            let mut given = self.given.clone();
            merge(&mut given, earlier.clone());
            let passed = Given::read(name, given).pass(&memory);
            let before = &passed.observed.checkpoint.planned;
            let mut planned = passed.plan.checkpoint(&passed.observed.facts, before);
            planned.refused = before.refused.after(&passed.applied.refused, true, passed.now);
            memory.checkpoints.set(&key(), Checkpoint { planned, ..Checkpoint::default() });
            memory.status = Some(passed.status);
        }
        Given::read(name, self.given.clone()).pass(&memory)
    }
}

impl Given {
    fn pass(&self, memory: &Memory) -> Passed {
        let (now, checkpoints) = (at(self.time), &memory.checkpoints);
        let mut views = Views::new(Env::standing(now, || 0.5));
        views.guards = memory.guards.clone();
        self.fill_cluster(&mut views.cluster(), memory.status.as_ref());
        let evidence = self.fill_registries(&views);
        self.fill_guards(&views);
        let mut observed = observe(&views, checkpoints, &key(), self.leads.then_some(Term(self.term))).unwrap();
        self.override_facts(&mut observed, &evidence);
        read_pods(&views, &views.cluster(), &mut observed);
        let validation = validate(&observed);
        let siblings = siblings::siblings(&views, checkpoints, &observed, validation.accepted());
        let checkpoint = &observed.checkpoint.planned;
        let (facts, former) = (&observed.facts, &validation.former);
        let mut plan = service::plan(facts, &validation.goal, former, &siblings, checkpoint, now, now);
        let applied = self.errors.applied(&validation, &plan);
        plan.leave_out(&applied.refused);
        let written = self.written(&observed, &validation, &plan, &applied);
        let known = observed.object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
        let status = status::desired(&observed, known, &validation, &plan, (&applied, &written), now);
        if let Some(directions) = &plan.directions {
            views.guards.report(registries::MAIN, &key(), Some(directions.deletions()), &views.env);
        }
        Passed { observed, validation, plan, applied, status, now }
    }
}

impl Given {
    /// The state after the writes, as far as they succeed.
    fn written(&self, observed: &Observed, validation: &Validation, plan: &Plan, applied: &Applied) -> Written {
        let facts = &observed.facts;
        let own = facts.registry.iter().chain(&facts.former).flat_map(|registry| {
            let records = registry.snapshot.records.values().chain(registry.snapshot.under_other_names.values());
            records.filter(|record| record.own(&registry.owner.cluster_id) == Some(&registry.owner))
        });
        let mut written = Written::new(own.map(AsRef::as_ref), &facts.cluster.our_slices);
        let writes = self.leads && validation.writes && (plan.directions.is_some() || validation.withdraws());
        if writes && applied.registry_error.is_none() {
            let stays = |i: &&InstanceOutcome| i.outcome.is_exported() || i.outcome == Outcome::RecordWithoutEndpoint;
            let Outcomes { ready, gated, records, .. } = &plan.outcomes;
            let exported: Vec<_> = ready.iter().chain(gated).chain(records).filter(stays).collect();
            written.records = exported.iter().filter(|instance| instance.counts).count();
            written.exported = exported.iter().filter_map(|instance| instance.subject.address()).collect();
        }
        if writes && applied.cluster_error.is_none() {
            let imported = plan.outcomes.imported.iter().filter(|instance| instance.outcome.is_imported());
            written.imported = imported.filter_map(|instance| instance.subject.address()).collect();
        }
        written
    }
}

/// Objects merge; everything else is replaced, also by `null`.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into @ Value::Null, Value::Object(from)) => {
            *into = json!({});
            merge(into, Value::Object(from));
        }
        (into, from) => *into = from,
    }
}

fn object<K: DeserializeOwned>(mut default: Value, given: &Value) -> K {
    merge(&mut default, given.clone());
    drop_nulls(&mut default);
    serde_json::from_value(default).unwrap_or_else(|error| panic!("{given}: {error}"))
}

/// A field that is `null` is not there, as in the Kubernetes API.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| !field.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

fn key() -> ServiceKey {
    ServiceKey::new("shop", "echo")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOON + seconds).unwrap()
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap_or_else(|reason| panic!("{text}: {reason}"))
}
