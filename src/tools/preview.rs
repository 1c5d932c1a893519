//! A preview: the writes and outcomes of a pass over a RegisteredService now, for the command line.
//!
//! Owns the words for planned writes. Refuses to write anything.

use std::fmt;

use serde::{Deserialize, Serialize};
use twinspan_core::codec::Layout;
use twinspan_core::model::{Content, InstanceAddr, Record, RecordKey, ServiceKey};
use twinspan_core::plan::service::{self, Facts, Plan, Term};
use twinspan_core::plan::slices::{SliceOp, SliceSpec};
use twinspan_core::plan::{RecordOp, service::RegistryFacts};

use super::explanation::{Context, Explanation, explain_all};
use crate::api::conditions::DELETIONS_HELD;
use crate::controllers::registered_service::observe::{Observed, observe};
use crate::controllers::registered_service::validate::{Validation, validate};
use crate::controllers::registered_service::{Checkpoints, siblings, status};
use crate::controllers::service_registry::settings;
use crate::controllers::views::Views;

/// One RegisteredService, seen by an operator that has just started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    pub namespace: String,
    pub name: String,
    /// The ServiceRegistry that it refers to.
    pub registry: String,
    /// Its name there.
    pub registry_name: String,
    /// The reason and the advice, if the RegisteredService is not accepted.
    pub refused: Option<(String, String)>,
    /// The reason why its registry cannot be asked.
    pub unavailable: Option<String>,
    /// Whether an operator may write for it: not while it is suspended or only observes.
    pub writes: bool,
    /// Whether the registry is not listed yet.
    pub pending: bool,
    pub changes: Changes,
    /// Each instance that one side has, in address order.
    pub instances: Vec<Explanation>,
}

/// The writes of a pass, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    pub services: Vec<ServiceChange>,
    pub records: Vec<RecordChange>,
    pub slices: Vec<SliceChange>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.records.is_empty() && self.slices.is_empty()
    }
}

/// The kind of a change; in JSON its name in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeOp {
    Create,
    /// Only Services are amended: fields of others stay.
    Amend,
    Update,
    Delete,
}

impl fmt::Display for ChangeOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Amend => "amend",
            Self::Update => "update",
            Self::Delete => "delete",
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceChange {
    pub op: ChangeOp,
    pub name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordChange {
    pub op: ChangeOp,
    pub registry: String,
    pub key: String,
    /// The record that is there now.
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SliceChange {
    pub op: ChangeOp,
    pub name: String,
    /// `10.0.0.1:80`, sorted.
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

/// One pass that writes nothing, as a value.
pub(super) struct DryPass {
    pub observed: Observed,
    pub validation: Validation,
    pub plan: Plan,
}

/// The pass of an operator that has just begun to lead; `None` while the view of the cluster is not complete, or if
/// there is no such RegisteredService.
pub(super) fn dry_pass(views: &Views, key: &ServiceKey) -> Option<DryPass> {
    let checkpoints = Checkpoints::default();
    let observed = observe(views, &checkpoints, key, Some(Term(1)))?;
    observed.object.as_ref()?;
    let validation = validate(&observed);
    let siblings = siblings::siblings(views, &checkpoints, &observed, validation.accepted());
    let now = views.env.now();
    let checkpoint = &observed.checkpoint.planned;
    let (facts, former) = (&observed.facts, &validation.former);
    let plan = service::plan(facts, &validation.goal, former, &siblings, checkpoint, now, now);
    Some(DryPass { observed, validation, plan })
}

/// Previews one RegisteredService; `None` while the view of the cluster is not complete.
pub fn preview(views: &Views, key: &ServiceKey) -> Option<Preview> {
    let DryPass { observed, validation, plan } = dry_pass(views, key)?;
    let object = observed.object.as_ref()?;
    let failed = observed.registry_failure.as_ref().map(ToString::to_string);
    let rejected = match (&observed.facts.registry, &observed.registry) {
        (None, Some(registry)) => {
            settings::session_settings(registry, &views.cluster()).err().map(|rejection| rejection.message)
        }
        _ => None,
    };
    // Planned writes are known only if the registry is.
    let needs_registry = validation.rejection.is_none() || (validation.withdraws() && observed.registry.is_some());
    let unknown = needs_registry && observed.facts.fresh_registry().is_none();
    let unavailable = failed.or(rejected).filter(|_| unknown);
    let refused = validation.rejection.as_ref().map(|r| (r.reason.as_str().to_owned(), r.message.clone()));
    let revokes = !plan.written(false).is_empty();
    Some(Preview {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        registry: object.spec.registry_ref.name.clone(),
        registry_name: object.registry_name(),
        refused,
        pending: unknown && unavailable.is_none(),
        unavailable,
        writes: validation.writes || revokes,
        changes: changes(&observed.facts, &plan.written(validation.writes || !revokes)),
        instances: explanations(&observed, &validation, &plan),
    })
}

pub(super) fn explanations(observed: &Observed, validation: &Validation, plan: &Plan) -> Vec<Explanation> {
    let accepted = validation.goal.accepted();
    let ports: Vec<&str> =
        accepted.into_iter().flat_map(|a| &a.ports).map(|accepted| accepted.port.name.as_str()).collect();
    let rejection = validation.rejection.as_ref();
    let context = Context {
        writes: validation.writes,
        held: status::before(observed, DELETIONS_HELD).map(|held| held.message.as_str()),
        rejection: rejection.map(|rejection| (rejection.reason.as_str(), rejection.message.as_str())),
        ports: &ports,
    };
    let registry = observed.facts.registry.as_ref().filter(|_| accepted.is_some_and(|accepted| accepted.imports));
    let registered_as = |addr| registry.map(|registry| foreign_keys(registry, addr)).unwrap_or_default();
    let (by_address, rest) = plan.outcomes.by_address();
    explain_all(by_address.iter().map(|(addr, instance)| (addr, *instance)), &rest, registered_as, context)
}

/// The keys of records with an address that this cluster did not export; empty if the view is not fresh.
fn foreign_keys(registry: &RegistryFacts, addr: InstanceAddr) -> Vec<&RecordKey> {
    let records = registry.snapshot.records.values().filter(|_| registry.is_fresh());
    let foreign = records.filter(|record| record.own(&registry.owner.cluster_id).is_none());
    foreign.filter(|record| record.endpoint_addresses().any(|other| other == addr)).map(|record| &record.key).collect()
}

fn changes(facts: &Facts, plan: &Plan) -> Changes {
    let mut changes = Changes::default();
    let service = |op, name: String| ServiceChange { op, name };
    changes.services.extend(plan.create.iter().map(|new| service(ChangeOp::Create, new.key.name.clone())));
    changes.services.extend(plan.amend.iter().map(|(new, _)| service(ChangeOp::Amend, new.key.name.clone())));
    changes.services.extend(plan.remove.iter().map(|old| service(ChangeOp::Delete, old.name.clone())));
    for (name, ops) in &plan.records {
        changes.records.extend(ops.iter().map(|op| record(name, facts.registry(name), op)));
    }
    changes.slices = plan.slices.ops.iter().map(|op| slice(facts, op)).collect();
    changes
}

fn record(name: &str, registry: Option<&RegistryFacts>, op: &RecordOp) -> RecordChange {
    let (change, after) = match op {
        RecordOp::Create { value, .. } => (ChangeOp::Create, Some(value)),
        RecordOp::Update { value, .. } => (ChangeOp::Update, Some(value)),
        RecordOp::Delete { .. } => (ChangeOp::Delete, None),
    };
    RecordChange {
        op: change,
        registry: name.to_owned(),
        key: op.key().to_string(),
        before: registry.and_then(|registry| before(registry, op.key())),
        after: after.map(|value| String::from_utf8_lossy(value).into_owned()),
    }
}

fn before(registry: &RegistryFacts, key: &RecordKey) -> Option<String> {
    let snapshot = &registry.snapshot;
    let record = snapshot.records.get(key).or_else(|| snapshot.under_other_names.get(key))?;
    Some(read(&registry.layout, record))
}

/// The content of a record in canonical form, or the reason why it does not decode.
fn read(layout: &Layout, record: &Record) -> String {
    match &record.content {
        Content::Registered { registration, .. } => String::from_utf8_lossy(&layout.encode(registration)).into_owned(),
        Content::Undecodable { why, .. } => why.clone(),
    }
}

fn slice(facts: &Facts, op: &SliceOp) -> SliceChange {
    let (change, name) = match op {
        SliceOp::Create(spec) => (ChangeOp::Create, &spec.name),
        SliceOp::Update { spec, .. } => (ChangeOp::Update, &spec.name),
        SliceOp::Delete { name, .. } => (ChangeOp::Delete, name),
    };
    let found = facts.cluster.our_slices.iter().find(|slice| slice.name == *name);
    let mut before: Vec<String> = Vec::new();
    if let Some(slice) = found {
        for number in slice.ports.iter().filter_map(|port| port.number) {
            before.extend(slice.endpoints.iter().map(|endpoint| instance(&endpoint.address.to_string(), number)));
        }
    }
    let after = match op {
        SliceOp::Create(spec) | SliceOp::Update { spec, .. } => endpoints(spec),
        SliceOp::Delete { .. } => Vec::new(),
    };
    let lacks = |one: &[String], other: &[String]| -> Vec<String> {
        let mut only: Vec<String> = one.iter().filter(|item| !other.contains(item)).cloned().collect();
        only.sort();
        only
    };
    SliceChange { op: change, name: name.clone(), added: lacks(&after, &before), removed: lacks(&before, &after) }
}

fn endpoints(spec: &SliceSpec) -> Vec<String> {
    let number = spec.port.number.unwrap_or_default();
    spec.endpoints.iter().map(|endpoint| instance(&endpoint.address.to_string(), number)).collect()
}

fn instance(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
