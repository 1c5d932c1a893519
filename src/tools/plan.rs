//! What an operator would write now, as a diff.

use std::fmt;

use serde::Serialize;

use super::print::{Tone, toned};
use crate::controllers::services::outlook::Changes;
use crate::controllers::services::{Outlook, account::Account};

/// One RegisteredService of a plan.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    pub namespace: String,
    pub name: String,
    /// Nothing is written: it is suspended, or only observes.
    pub passive: bool,
    pub changes: Changes,
    /// What stays although one side lacks it.
    pub waiting: Vec<Account>,
    /// Why nothing can be planned.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub services: Vec<Planned>,
}

impl Plan {
    pub fn new(outlooks: Vec<Outlook>) -> Self {
        Self { services: outlooks.into_iter().map(planned).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.services.iter().all(|service| service.changes.is_empty())
    }
}

fn planned(outlook: Outlook) -> Planned {
    let waits = |account: &Account| matches!(account.state.as_str(), "Waiting" | "Held");
    let pending = outlook.pending.then(|| "its registry has not been listed in time".to_owned());
    let refused = outlook.refused.map(|(reason, message)| format!("{reason}: {message}"));
    Planned {
        namespace: outlook.namespace,
        name: outlook.name,
        passive: !outlook.writes && !outlook.changes.is_empty(),
        changes: outlook.changes,
        waiting: outlook.instances.into_iter().filter(waits).collect(),
        problem: refused.or(outlook.unavailable).or(pending),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for service in &self.services {
            if service.changes.is_empty() && service.waiting.is_empty() && service.problem.is_none() {
                continue;
            }
            writeln!(f, "{}/{}", service.namespace, service.name)?;
            if let Some(problem) = &service.problem {
                writeln!(f, "  ! {problem}")?;
            }
            if service.passive {
                writeln!(f, "  ! nothing of this is written: it is suspended, or its policy is Observe")?;
            }
            diff(f, &service.changes)?;
            for account in &service.waiting {
                writeln!(f, "  = {} stays: {}", account.instance, account.text)?;
            }
        }
        let changes = self.services.iter().filter(|service| !service.changes.is_empty()).count();
        match changes {
            0 => writeln!(f, "nothing to write"),
            n => writeln!(f, "{n} of {} RegisteredServices have changes", self.services.len()),
        }
    }
}

fn diff(f: &mut fmt::Formatter<'_>, changes: &Changes) -> fmt::Result {
    let (plus, minus) = (toned("+", Tone::Good), toned("-", Tone::Bad));
    for service in &changes.services {
        let sign = match service.op {
            "create" => &plus,
            "delete" => &minus,
            _ => "~",
        };
        writeln!(f, "  {sign} Service {}", service.name)?;
    }
    for record in &changes.records {
        writeln!(
            f,
            "  {} {} in registry {}",
            if record.op == "update" {
                "~"
            } else if record.op == "create" {
                &plus
            } else {
                &minus
            },
            record.key,
            record.registry
        )?;
        if let Some(before) = record.before.iter().find(|_| record.op != "create") {
            writeln!(f, "      {minus} {before}")?;
        }
        if let Some(after) = &record.after {
            writeln!(f, "      {plus} {after}")?;
        }
    }
    for slice in &changes.slices {
        writeln!(f, "  ~ EndpointSlice {} ({})", slice.name, slice.op)?;
        for instance in &slice.added {
            writeln!(f, "      {plus} {instance}")?;
        }
        for instance in &slice.removed {
            writeln!(f, "      {minus} {instance}")?;
        }
        if slice.added.is_empty() && slice.removed.is_empty() {
            writeln!(f, "      the same endpoints, other labels, hints or ports")?;
        }
    }
    Ok(())
}
