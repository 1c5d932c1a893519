//! Events about a RegisteredService.
//!
//! Owns the rule about what is worth an Event, and the memory of what was told: each is told once, whether or not a
//! status says so by now. Refuses to decide: every Event follows from the outcomes and from the result of the writes.
//! The pace is that of [`crate::cluster::events`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::warn;
use twinspan_core::model;
use twinspan_core::plan::service::{Directions, Facts, Outcomes, Risk, Term};

use super::checkpoint::Told;
use super::controller::Controller;
use super::observe::Observed;
use super::pass::Pass;
use super::risks;
use super::validate::Validation;
use crate::api::conditions::{self, ACCEPTED, ConditionStatus};
use crate::api::{APPROVE_DELETIONS, RegisteredService, RegisteredServiceStatus, held_since};
use crate::cluster::events::{self, About, Note, Reason};

impl Controller {
    /// Publishes the Events of a pass, if this process leads. Returns what has been told by then.
    pub(super) fn publish_events(&self, object: &Arc<RegisteredService>, pass: &Pass<'_>) -> Told {
        let Pass { observed, validation, plan, applied, written, .. } = pass;
        let Some(term) = observed.facts.term.filter(|_| self.writers.leadership.is_leader()) else {
            return Told::default();
        };
        let mut told = observed.checkpoint.told.clone();
        if told.term != Some(term) {
            told = Told::by_status(term, object.status.as_ref());
        }
        let publish = |reason, note: Note| {
            self.writers.events.publish(About::RegisteredService(object.clone()), reason, note);
        };
        not_accepted(observed, validation, &mut told, &publish);
        let Some(directions) = plan.directions.as_ref() else { return told };
        let (outcomes, progress) = (&plan.outcomes, plan.outcomes.progress(written));
        let imported = if applied.slices > 0 { (plan.slices.added, plan.slices.removed) } else { (0, 0) };
        let changed = |reason, verb, (added, removed), in_all| {
            if (added, removed) != (0, 0) {
                publish(reason, Note::Changes { verb, added, removed, in_all });
            }
        };
        changed(Reason::Exported, "exported", applied.records, progress.exported);
        // An endpoint that gives way to this cluster's own is no loss.
        let removed = imported.1.saturating_sub(directions.import.stood_back.len());
        changed(Reason::Imported, "imported", (imported.0, removed), progress.imported);
        skipped(outcomes, &mut told, &publish);
        held(observed, directions, &mut told, &publish);
        lost(outcomes, &mut told, &publish);
        risks(&observed.facts, outcomes, &mut told, &publish);
        told
    }
}

impl Told {
    /// The facts that the leader before has told, as far as the status shows it.
    fn by_status(term: Term, status: Option<&RegisteredServiceStatus>) -> Self {
        let (term, lost) = (Some(term), Some(BTreeSet::new()));
        let Some(status) = status else { return Self { term, lost, ..Self::default() } };
        let accepted = conditions::find(&status.conditions, ACCEPTED);
        let rejected = accepted.filter(|accepted| accepted.status != ConditionStatus::True.as_str());
        let some_are_lost = status.instances.lost + status.instances.healed > 0;
        Self {
            term,
            rejection: rejected.map(|rejected| (rejected.reason.clone(), rejected.message.clone())),
            hold: held_since(&status.conditions),
            skipped: status.differences.reasons().clone(),
            lost: lost.filter(|_| !some_are_lost),
            refused: None,
            risks: None,
        }
    }
}

/// Tells a rejection.
fn not_accepted(observed: &Observed, validation: &Validation, told: &mut Told, publish: &impl Fn(Reason, Note)) {
    let rejection = validation.rejection.as_ref();
    let rejection = rejection.map(|rejection| (rejection.reason.as_str().to_owned(), rejection.message.clone()));
    if let Some((reason, message)) = rejection.as_ref().filter(|now| told.rejection.as_ref() != Some(*now)) {
        let model::ServiceKey { namespace, name } = &observed.facts.key;
        warn!(namespace, name, reason, "not accepted {namespace}/{name}: {reason}: {message}");
        publish(Reason::NotAccepted, Note::Text(format!("{reason}: {message}")));
    }
    told.rejection = rejection;
}

/// Tells reasons that the last pass did not have, but for one by which nothing is wrong.
fn skipped(outcomes: &Outcomes, told: &mut Told, publish: &impl Fn(Reason, Note)) {
    let (mut all, mut new) = (BTreeSet::new(), BTreeMap::new());
    for (example, reason) in outcomes.skipped().filter(|(_, reason)| *reason != model::Reason::Standby) {
        if all.insert(reason.label().to_owned()) && !told.skipped.contains(reason.label()) {
            new.insert(reason, example.subject.to_string());
        }
    }
    told.skipped = all;
    if !new.is_empty() {
        publish(Reason::InstanceSkipped, Note::Skipped(new));
    }
}

/// Tells a hold, and an approval that does not say which hold it releases.
fn held(observed: &Observed, directions: &Directions, told: &mut Told, publish: &impl Fn(Reason, Note)) {
    let Some((hold, hash)) = directions.hold().zip(directions.hash()) else {
        // One that may go on has been told.
        told.hold = told.hold.filter(|_| directions.may_resume());
        return;
    };
    let held = directions.held();
    let since = conditions::whole_seconds(hold.since);
    if told.hold != Some(since) {
        let note = format!(
            "{} deletions are held until {:.0}; the annotation {APPROVE_DELETIONS}={hash} releases them",
            held.len(),
            hold.until,
        );
        publish(Reason::DeletionsHeld, Note::Text(note));
    }
    told.hold = Some(since);
    if observed.approval() == Some(held.hash_of_set().as_str()) && told.refused.as_ref() != Some(&hash) {
        publish(Reason::ApprovalRefused, Note::Text(events::refused_approval(&hash)));
        told.refused = Some(hash);
    }
}

/// Tells the risks that the slices did not show before, each once in a term: pods come and go.
fn risks(facts: &Facts, outcomes: &Outcomes, told: &mut Told, publish: &impl Fn(Reason, Note)) {
    let known = told.risks.get_or_insert_with(|| risks::before(facts, outcomes));
    for risk in risks::after(facts, outcomes) {
        if !known.insert(risk) {
            continue;
        }
        let (reason, note) = match risk {
            Risk::SecondSlice => (
                Reason::SecondSlice,
                "pods and imports are in different EndpointSlices of one Service, and clients that keep one slice miss \
                 instances; with spec.import.into: Together one Service has both in one slice, and with Apart \
                 imports have a Service of their own",
            ),
            Risk::PortDiffers => (
                Reason::PortDiffers,
                "servers outside listen on other ports than the pods, and clients that use one port for every address do \
                 not reach them; SRV records have the ports",
            ),
        };
        publish(reason, Note::Text(note.to_owned()));
    }
}

/// Tells an instance that lost its registration.
fn lost(outcomes: &Outcomes, told: &mut Told, publish: &impl Fn(Reason, Note)) {
    let all: BTreeSet<_> = outcomes.lost().collect();
    let new = told.lost.as_ref().and_then(|told| all.iter().find(|lost| !told.contains(*lost)));
    if let Some(lost) = new {
        let what = if outcomes.counts().healed > 0 { "restored" } else { "kept while it accepts connections" };
        let note = format!("{lost} lost its registration and lives; it is {what}");
        publish(Reason::LostRegistration, Note::Text(note));
    }
    told.lost = Some(all);
}
