//! A plan: the writes of an operator now, as a diff.
//!
//! Owns the printed form. Refuses to plan: the writes come from previews.

use std::fmt;

use serde::Serialize;

use super::discovery::DiscoveryPreview;
use super::explanation::Explanation;
use super::preview::{ChangeOp, Changes, Preview};
use super::print::{Tone, line, toned};

/// One RegisteredService of a plan.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    pub namespace: String,
    pub name: String,
    /// Whether nothing is written, because the RegisteredService is suspended or only observes.
    pub passive: bool,
    pub changes: Changes,
    /// The number of instances that the operator's status calls pending, where the writes themselves are not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,
    /// Instances that stay although one side lacks them.
    pub waiting: Vec<Explanation>,
    /// The reason why nothing, or only a withdrawal, can be planned.
    pub problem: Option<String>,
    /// Whether the writes are known, because the registry could be asked.
    pub known: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub services: Vec<Planned>,
    /// The RegisteredServices that ServiceRegistries would make by themselves, or give up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discovery: Vec<DiscoveryPreview>,
    /// Notes on what the plan rests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Plan {
    pub fn new(previews: Vec<Preview>) -> Self {
        Self { services: previews.into_iter().map(planned).collect(), discovery: Vec::new(), notes: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.services.iter().any(Planned::has_changes) && self.discovery.iter().all(|one| one.changes.is_empty())
    }

    /// The number of ServiceRegistries whose discovery cannot be seen.
    pub fn unknown_discoveries(&self) -> usize {
        self.discovery.iter().filter(|discovery| discovery.problem.is_some()).count()
    }

    /// The names of the RegisteredServices, as `kubectl get -o name` prints them.
    pub fn names(&self) -> Vec<String> {
        self.services.iter().map(|service| format!("registeredservice.twinspan.dev/{}", service.name)).collect()
    }

    /// The number of RegisteredServices whose writes are unknown.
    pub fn unknown(&self) -> usize {
        self.services.iter().filter(|service| !service.known).count()
    }
}

impl Planned {
    fn has_changes(&self) -> bool {
        !self.changes.is_empty() || self.pending.is_some_and(|pending| pending > 0)
    }
}

fn planned(preview: Preview) -> Planned {
    let waits = |explanation: &Explanation| explanation.waits();
    let pending = preview.pending.then(|| "its registry has not been listed in time".to_owned());
    let refused = preview.refused.map(|(reason, message)| format!("{reason}: {message}"));
    let known = preview.unavailable.is_none() && pending.is_none();
    let problems: Vec<String> = refused.into_iter().chain(preview.unavailable).chain(pending).collect();
    Planned {
        namespace: preview.namespace,
        name: preview.name,
        passive: !preview.writes && !preview.changes.is_empty(),
        changes: preview.changes,
        pending: None,
        waiting: preview.instances.into_iter().filter(waits).collect(),
        problem: (!problems.is_empty()).then(|| problems.join("; ")),
        known,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for service in &self.services {
            if !service.has_changes() && service.waiting.is_empty() && service.problem.is_none() {
                continue;
            }
            line(f, "", format_args!("{}/{}", service.namespace, service.name))?;
            if let Some(problem) = &service.problem {
                line(f, "  ! ", problem)?;
            }
            if service.passive {
                writeln!(f, "  ! nothing of this is written: it is suspended, or its policy is Observe")?;
            }
            diff(f, &service.changes)?;
            if let Some(pending) = service.pending.filter(|pending| *pending > 0) {
                writeln!(f, "  ~ {pending} pending, as the operator's status says")?;
            }
            for explanation in &service.waiting {
                line(f, "  = ", format_args!("{} stays: {}", explanation.instance, explanation.text))?;
            }
        }
        for discovery in self.discovery.iter().filter(|discovery| discovery.says_something()) {
            write!(f, "{discovery}")?;
        }
        if self.services.is_empty() && self.discovery.is_empty() {
            return writeln!(f, "No resources found");
        }
        let found: usize = self.discovery.iter().map(|discovery| discovery.changes.len()).sum();
        if found > 0 {
            writeln!(f, "discovery: {found} RegisteredServices to create, change or delete")?;
        }
        if self.services.is_empty() {
            return Ok(());
        }
        let changes = self.services.iter().filter(|service| service.has_changes()).count();
        match (changes, self.unknown()) {
            (0, 0) => writeln!(f, "nothing to write")?,
            (n, 0) => writeln!(f, "{n} of {} RegisteredServices have changes", self.services.len())?,
            (n, unknown) => writeln!(
                f,
                "{n} of {} RegisteredServices have changes; what {unknown} of them would write is not known",
                self.services.len()
            )?,
        }
        self.notes.iter().try_for_each(|note| line(f, "note: ", note))
    }
}

fn diff(f: &mut fmt::Formatter<'_>, changes: &Changes) -> fmt::Result {
    let (plus, minus) = (toned("+", Tone::Good), toned("-", Tone::Bad));
    let sign = |op| match op {
        ChangeOp::Create => plus.as_str(),
        ChangeOp::Delete => minus.as_str(),
        ChangeOp::Amend | ChangeOp::Update => "~",
    };
    for service in &changes.services {
        line(f, &format!("  {} Service ", sign(service.op)), &service.name)?;
    }
    for record in &changes.records {
        let what = format_args!("{} in registry {}", record.key, record.registry);
        line(f, &format!("  {} ", sign(record.op)), what)?;
        if let Some(before) = record.before.iter().find(|_| record.op != ChangeOp::Create) {
            line(f, &format!("      {minus} "), before)?;
        }
        if let Some(after) = &record.after {
            line(f, &format!("      {plus} "), after)?;
        }
    }
    for slice in &changes.slices {
        line(f, "  ~ EndpointSlice ", format_args!("{} ({})", slice.name, slice.op))?;
        for instance in &slice.added {
            line(f, &format!("      {plus} "), instance)?;
        }
        for instance in &slice.removed {
            line(f, &format!("      {minus} "), instance)?;
        }
        if slice.added.is_empty() && slice.removed.is_empty() {
            writeln!(f, "      the same endpoints, other conditions, labels, hints or ports")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview(name: &str) -> Preview {
        Preview {
            namespace: "shop".into(),
            name: name.into(),
            registry: "main".into(),
            registry_name: name.into(),
            refused: None,
            unavailable: None,
            writes: true,
            pending: false,
            changes: Changes::default(),
            instances: Vec::new(),
        }
    }

    #[test]
    fn what_could_not_be_seen_is_not_nothing() {
        let refused = Some(("PortNotFound".to_owned(), "no port".to_owned()));
        let plan = Plan::new(vec![preview("user"), Preview { refused: refused.clone(), ..preview("refused") }]);
        assert_eq!((plan.is_empty(), plan.unknown()), (true, 0));
        let text = plan.to_string();
        assert_eq!(text, "shop/refused\n  ! PortNotFound: no port\nnothing to write\n");

        let away = Preview { unavailable: Some("no endpoint answers".to_owned()), refused, ..preview("away") };
        let plan = Plan::new(vec![preview("user"), away, Preview { pending: true, ..preview("late") }]);
        assert_eq!((plan.is_empty(), plan.unknown()), (true, 2));
        let text = plan.to_string();
        assert!(text.contains("  ! PortNotFound: no port; no endpoint answers\n"), "{text}");
        assert!(text.ends_with("what 2 of them would write is not known\n"), "{text}");
    }
}
