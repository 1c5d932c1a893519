//! The objects that the discovery of each ServiceRegistry would make, change and delete now, for `twinspan plan`.
//!
//! Owns the words. Refuses to plan, which the core does, and to write.

use std::fmt;

use serde::{Deserialize, Serialize};
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::discovery::facts::{Names, Wanted};
use twinspan_core::plan::discovery::written::Wait;
use twinspan_core::plan::discovery::{Delete, Memory, Plan, plan};

use super::preview::ChangeOp;
use super::print::{Tone, line, toned};
use crate::controllers::discovery::observe::{self, Sight};
use crate::controllers::views::Views;

/// The discovery of one ServiceRegistry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveryPreview {
    pub registry: String,
    /// Whether nothing of it is written, because the policy is Observe.
    pub passive: bool,
    pub changes: Vec<ObjectChange>,
    /// Objects that stay beside one that a person wrote, until that one has its instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingObject>,
    /// The number of Services and names that are refused, and the first of them.
    pub refused: usize,
    pub refusals: Vec<String>,
    /// Names beyond `maxServices`.
    pub limited: usize,
    /// The reason why names of the registry are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether the names of the registry are still waited for.
    #[serde(skip)]
    pub pending: bool,
}

/// A RegisteredService that is created, updated or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    pub op: ChangeOp,
    pub namespace: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_name: Option<String>,
    /// `Export` or `Import`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
}

/// A RegisteredService that waits for one that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingObject {
    pub namespace: String,
    pub name: String,
    /// The RegisteredService of the person, with its namespace.
    pub rival: String,
    /// The reason why that one has not won yet.
    pub reason: String,
}

/// Every ServiceRegistry with discovery, or with objects that one made, in order.
pub fn previews(views: &Views) -> Vec<DiscoveryPreview> {
    let names = observe::registries(views, std::iter::empty());
    names.iter().filter_map(|name| Some(preview(&observe::observe(views, name)?, views))).collect()
}

fn preview(sight: &Sight, views: &Views) -> DiscoveryPreview {
    let plan = plan(&sight.facts(), &Memory::default(), views.env.now());
    let asks = sight.settings.as_ref().is_some_and(|settings| settings.import.is_some());
    let problem = match sight.names() {
        Names::Unknown if asks => Some("its registry has not been listed in time"),
        Names::TooMany if asks => Some("it has too many records to follow all names"),
        Names::Unknown | Names::TooMany | Names::Complete { .. } => None,
    };
    DiscoveryPreview {
        registry: sight.name.clone(),
        passive: !sight.writes(),
        changes: changes(&plan),
        waiting: plan.yielding.iter().map(|(key, wait)| waiting(key, wait)).collect(),
        refused: plan.refusals.count,
        refusals: plan
            .refusals
            .told
            .iter()
            .map(|(object, refusal)| format!("{object}: {}: {}", refusal.why.as_str(), refusal.message))
            .collect(),
        limited: plan.limited,
        problem: problem.map(ToOwned::to_owned),
        pending: asks && *sight.names() == Names::Unknown,
    }
}

fn changes(plan: &Plan) -> Vec<ObjectChange> {
    let wanted = |op, wanted: &Wanted| ObjectChange {
        op,
        namespace: wanted.key.namespace.clone(),
        name: wanted.key.name.clone(),
        registry_name: Some(wanted.registry_name.as_str().to_owned()),
        direction: Some(if wanted.imports() { "Import" } else { "Export" }.to_owned()),
    };
    let gone = |Delete { key: ServiceKey { namespace, name }, .. }: &Delete| ObjectChange {
        op: ChangeOp::Delete,
        namespace: namespace.clone(),
        name: name.clone(),
        registry_name: None,
        direction: None,
    };
    let creates = plan.creates.iter().map(|one| wanted(ChangeOp::Create, one));
    let updates = plan.updates.iter().map(|one| wanted(ChangeOp::Update, &one.wanted));
    creates.chain(updates).chain(plan.yields.iter().chain(&plan.sweeps).map(gone)).collect()
}

fn waiting(key: &ServiceKey, wait: &Wait) -> WaitingObject {
    WaitingObject {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        rival: wait.rival.to_string(),
        reason: format!("RegisteredService {}, which wins over it, {}", wait.rival, wait.lag.words()),
    }
}

impl DiscoveryPreview {
    /// Keeps what is about one namespace, and one name in it.
    pub fn narrow(&mut self, namespace: Option<&str>, name: Option<&str>) {
        if namespace.is_none() && name.is_none() {
            return;
        }
        let keeps = |of: &str, named: &str| {
            namespace.is_none_or(|namespace| of == namespace) && name.is_none_or(|name| named == name)
        };
        self.changes.retain(|change| keeps(&change.namespace, &change.name));
        self.waiting.retain(|waiting| keeps(&waiting.namespace, &waiting.name));
        (self.refused, self.limited, self.problem) = (0, 0, None);
        self.refusals.clear();
    }

    /// Whether there is anything to print.
    pub fn says_something(&self) -> bool {
        !self.changes.is_empty()
            || !self.waiting.is_empty()
            || self.refused > 0
            || self.limited > 0
            || self.problem.is_some()
    }
}

impl fmt::Display for DiscoveryPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "discovery of ServiceRegistry ", &self.registry)?;
        if let Some(problem) = &self.problem {
            line(f, "  ! ", problem)?;
        }
        if self.passive && !self.changes.is_empty() {
            writeln!(f, "  ! nothing of this is written: spec.discovery.policy is Observe")?;
        }
        let (plus, minus) = (toned("+", Tone::Good), toned("-", Tone::Bad));
        for change in &self.changes {
            let sign = match change.op {
                ChangeOp::Create => plus.as_str(),
                ChangeOp::Delete => minus.as_str(),
                ChangeOp::Amend | ChangeOp::Update => "~",
            };
            let about = change.direction.iter().zip(&change.registry_name);
            let about: String = about.map(|(direction, name)| format!(" ({direction} {name})")).collect();
            line(
                f,
                &format!("  {sign} RegisteredService "),
                format_args!("{}/{}{about}", change.namespace, change.name),
            )?;
        }
        for WaitingObject { namespace, name, reason, .. } in &self.waiting {
            line(f, "  = ", format_args!("RegisteredService {namespace}/{name} stays: {reason}"))?;
        }
        for refusal in &self.refusals {
            line(f, "  ! ", refusal)?;
        }
        if self.refused > self.refusals.len() {
            writeln!(f, "  ! and {} more that are refused", self.refused - self.refusals.len())?;
        }
        if self.limited > 0 {
            writeln!(
                f,
                "  ! DiscoveryLimited: {} more names are beyond spec.discovery.import.maxServices",
                self.limited
            )?;
        }
        Ok(())
    }
}
