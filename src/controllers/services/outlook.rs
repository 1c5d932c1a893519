//! What a pass over a RegisteredService would find and do now, for people and programs that ask.
//!
//! Owns the words for what would be written. Refuses to write anything.

use serde::Serialize;
use twinspan_core::codec::Layout;
use twinspan_core::model::{Content, Record, RecordKey, ServiceKey};
use twinspan_core::plan::RecordOp;
use twinspan_core::plan::slices::{Body, SliceOp};

use super::account::{self, Account, accounts};
use super::observe::{self, Observed, Session};
use super::plan::{self, Plan};
use super::validate::{self, Verdict};
use crate::cluster::index;
use crate::controllers::context::Context;
use crate::controllers::registries::settings;
use crate::registry::view::State;

/// One RegisteredService, seen by an operator that has just started.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    pub namespace: String,
    pub name: String,
    /// The ServiceRegistry that it refers to.
    pub registry: String,
    /// The name that it asks for there.
    pub registry_name: String,
    /// Why it is not accepted: the reason of its condition, and what to do.
    pub refused: Option<(String, String)>,
    /// Why its registry cannot be asked.
    pub unavailable: Option<String>,
    /// Whether an operator may write for it; not where it is suspended or only observes.
    pub writes: bool,
    /// Nothing can be said yet.
    #[serde(skip)]
    pub pending: bool,
    pub changes: Changes,
    /// Each instance that one side has, in address order.
    pub instances: Vec<Account>,
}

/// What a pass would write, in order.
#[derive(Clone, Debug, Default, Serialize)]
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

#[derive(Clone, Debug, Serialize)]
pub struct ServiceChange {
    /// `create`, `amend` or `delete`.
    pub op: &'static str,
    pub name: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct RecordChange {
    /// `create`, `update` or `delete`.
    pub op: &'static str,
    pub registry: String,
    pub key: String,
    /// What Twinspan reads there now.
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SliceChange {
    /// `create`, `update` or `delete`.
    pub op: &'static str,
    pub name: String,
    /// `10.0.0.1:80`, sorted.
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

/// `None` while the view of the cluster is not complete.
pub fn outlook(context: &Context, key: &ServiceKey) -> Option<Outlook> {
    let observed = observe::observe(context, key)?;
    let object = observed.object.as_ref()?;
    // As if nobody had asked for a dry run: what would be written is the question.
    let verdict = validate::validate(&observed, false);
    let now = context.world.now();
    let plan = plan::plan(&observed, &verdict, now, now);
    let failed = observed.session.as_ref().and_then(Session::failure).map(|error| error.to_string());
    let problem = match (&observed.session, &observed.registry) {
        (None, Some(registry)) => settings::wanted(registry, &context.cluster()).err().map(|problem| problem.message),
        _ => None,
    };
    // What it takes to know what is to be written.
    let (instances, refused, needs_registry) = match &verdict {
        Verdict::Accepted(accepted) => (accounts(&observed, accepted, &plan, now), None, true),
        Verdict::Refused(refusal) => {
            let said = (refusal.reason.as_str().to_owned(), refusal.message.clone());
            let withdraws = refusal.withdraw && observed.registry.is_some();
            (account::refused(&observed, refusal), Some(said), withdraws)
        }
        Verdict::Gone { .. } => (Vec::new(), None, false),
    };
    let fresh = observed.session.as_ref().is_some_and(|session| session.snapshot.state == State::Fresh);
    let unknown = needs_registry && !fresh;
    let unavailable = failed.or(problem).filter(|_| unknown);
    Some(Outlook {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        registry: object.spec.registry_ref.name.clone(),
        registry_name: index::registry_name(key, object),
        refused,
        pending: unknown && unavailable.is_none(),
        unavailable,
        writes: verdict.writes(),
        changes: changes(&observed, &plan),
        instances,
    })
}

fn changes(observed: &Observed, plan: &Plan) -> Changes {
    let mut changes = Changes::default();
    let service = |op, name: String| ServiceChange { op, name };
    changes.services.extend(plan.create.iter().map(|new| service("create", new.key.name.clone())));
    changes.services.extend(plan.amend.iter().map(|(new, _)| service("amend", new.key.name.clone())));
    changes.services.extend(plan.remove.iter().map(|old| service("delete", old.name.clone())));
    for (handle, ops) in &plan.records {
        let session =
            observed.session.iter().chain(&observed.former).find(|session| session.handle.name == handle.name);
        changes.records.extend(ops.iter().map(|op| record(&handle.name, session, op)));
    }
    changes.slices = plan.slices.ops.iter().map(|op| slice(observed, op)).collect();
    changes
}

fn record(registry: &str, session: Option<&Session>, op: &RecordOp) -> RecordChange {
    let (label, after) = match op {
        RecordOp::Create { value, .. } => ("create", Some(value)),
        RecordOp::Update { value, .. } => ("update", Some(value)),
        RecordOp::Delete { .. } => ("delete", None),
    };
    RecordChange {
        op: label,
        registry: registry.to_owned(),
        key: op.key().to_string(),
        before: session.and_then(|session| before(session, op.key())),
        after: after.map(|value| String::from_utf8_lossy(value).into_owned()),
    }
}

fn before(session: &Session, key: &RecordKey) -> Option<String> {
    let snapshot = &session.snapshot;
    let record = snapshot.records.get(key).or_else(|| snapshot.elsewhere.get(key))?;
    Some(read(&session.handle.layout, record))
}

/// As it would be written again.
fn read(layout: &Layout, record: &Record) -> String {
    match &record.content {
        Content::Registered { registration, .. } => String::from_utf8_lossy(&layout.encode(registration)).into_owned(),
        Content::Undecodable(why) => why.clone(),
    }
}

fn slice(observed: &Observed, op: &SliceOp) -> SliceChange {
    let name = match op {
        SliceOp::Create(body) | SliceOp::Update { body, .. } => &body.name,
        SliceOp::Delete { name, .. } => name,
    };
    let found = observed.our_slices.iter().find(|slice| slice.name == *name);
    let mut before: Vec<String> = Vec::new();
    if let Some(slice) = found {
        for number in slice.ports.iter().filter_map(|port| port.number) {
            before.extend(slice.endpoints.iter().map(|endpoint| instance(&endpoint.address, number)));
        }
    }
    let after = match op {
        SliceOp::Create(body) | SliceOp::Update { body, .. } => endpoints(body),
        SliceOp::Delete { .. } => Vec::new(),
    };
    let lacks = |one: &[String], other: &[String]| -> Vec<String> {
        let mut only: Vec<String> = one.iter().filter(|item| !other.contains(item)).cloned().collect();
        only.sort();
        only
    };
    SliceChange { op: op.label(), name: name.clone(), added: lacks(&after, &before), removed: lacks(&before, &after) }
}

fn endpoints(body: &Body) -> Vec<String> {
    let number = body.port.number.unwrap_or_default();
    body.endpoints.iter().map(|endpoint| instance(&endpoint.address, number)).collect()
}

fn instance(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
