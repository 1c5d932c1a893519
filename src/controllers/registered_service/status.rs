//! The status of a RegisteredService: a function of the facts, the plan and the result of its writes.
//!
//! Owns the messages of its conditions. Refuses to decide: counts and differences come from the outcomes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use twinspan_core::Timestamp;
use twinspan_core::plan::service::{Accepted, Directions, Goal, Outcomes, Plan, Written};

use super::apply::Applied;
use super::differences::differences;
use super::observe::Observed;
use super::share;
use super::validate::Validation;
use crate::api::conditions::{
    self, ACCEPTED, ConditionStatus, DELETIONS_HELD, DesiredCondition, EXPORTED, IMPORTED, READY, Reason, STALLED,
    find_true,
};
use crate::api::{APPROVE_DELETIONS, Counts, Differences, HoldStatus, RegisteredServiceStatus};
use crate::cluster::ClusterError;
use crate::cluster::view::SILENT_AFTER;

/// A race that is lost so many times in a row is reported.
const LOST_RACES: u32 = 3;

/// The right status now. `known` is the last one.
pub fn desired(
    observed: &Observed,
    known: RegisteredServiceStatus,
    validation: &Validation,
    plan: &Plan,
    (applied, written): (&Applied, &Written),
    now: Timestamp,
) -> RegisteredServiceStatus {
    let generation = observed.facts.generation;
    // Where nothing is planned the counts are not known now, so the last ones stay.
    let instances = if plan.directions.is_some() {
        counts(&plan.outcomes, written)
    } else if validation.withdraws() {
        left(written)
    } else {
        known.instances.clone()
    };
    let conditions = desired_conditions(observed, &known, &instances, validation, plan, applied);
    let mut status = RegisteredServiceStatus {
        observed_generation: generation,
        conditions: conditions::set(&known.conditions, &conditions, generation, now),
        instances,
        ..known
    };
    if let Some(directions) = &plan.directions {
        if !goes_on(directions, &plan.outcomes) {
            status.hold = directions.hold().zip(directions.hash()).map(|(hold, hash)| HoldStatus::new(hold, hash));
        }
        status.differences = differences(plan, &status.differences, now);
    } else if validation.withdraws() {
        status.hold = None;
        status.differences = Differences::default();
    }
    status
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The rest of everything that is withdrawn.
fn left(written: &Written) -> Counts {
    let (exported, imported) = (number(written.records), number(written.imported.len()));
    Counts { exported, imported, ..Counts::default() }
}

fn counts(outcomes: &Outcomes, written: &Written) -> Counts {
    let (counts, progress) = (outcomes.counts(), outcomes.progress(written));
    Counts {
        cluster: number(counts.cluster),
        registry: number(counts.registry),
        exported: number(progress.exported),
        imported: number(progress.imported),
        pending: (progress.pending > 0).then(|| number(progress.pending)),
        lost: number(counts.lost),
        healed: number(counts.healed),
        skipped: number(counts.skipped),
        held: number(counts.held),
    }
}

/// The counts in words: what people read first.
fn summary(counts: &Counts) -> String {
    let always = [(counts.exported, "exported"), (counts.imported, "imported"), (counts.skipped, "skipped")];
    let seldom = [(counts.pending.unwrap_or_default(), "pending"), (counts.lost, "lost"), (counts.held, "held")];
    let told = always.into_iter().chain(seldom.into_iter().filter(|(n, _)| *n > 0));
    told.map(|(n, what)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
}

fn desired_conditions(
    observed: &Observed,
    known: &RegisteredServiceStatus,
    instances: &Counts,
    validation: &Validation,
    plan: &Plan,
    applied: &Applied,
) -> Vec<DesiredCondition> {
    let (accepted, exported, imported) = match (&validation.goal, &validation.rejection) {
        (Goal::Sync(accepted), _) => (
            DesiredCondition::new(ACCEPTED, ConditionStatus::True, Reason::Accepted, ""),
            exported(accepted, plan, applied).condition(observed, validation, accepted, plan, applied),
            imported(observed, accepted, plan, applied).condition(observed, validation, accepted, plan, applied),
        ),
        (_, Some(rejection)) => {
            let not = |kind| {
                let message = "see the condition Accepted";
                DesiredCondition::new(kind, ConditionStatus::False, Reason::NotAccepted, message)
            };
            let (reason, message) = (rejection.reason, &rejection.message);
            let accepted = DesiredCondition::new(ACCEPTED, ConditionStatus::False, reason, message);
            (accepted, not(EXPORTED), not(IMPORTED))
        }
        (_, None) => return Vec::new(),
    };
    let held = match &plan.directions {
        Some(directions) if !goes_on(directions, &plan.outcomes) => held(directions, &plan.outcomes),
        None if validation.withdraws() => nothing_held(""),
        // The deletions are unknown now: a hold stays, and its time goes on.
        _ => find_true(&known.conditions, DELETIONS_HELD).map_or_else(
            || nothing_held(""),
            |held| DesiredCondition {
                since: Some(held.last_transition_time.0),
                ..DesiredCondition::new(DELETIONS_HELD, ConditionStatus::True, Reason::Held, held.message.clone())
            },
        ),
    };
    // An owner who asked for no writes has what was asked for, and tools must not wait for another spec. A refusal
    // stands until the next attempt, and without writes there is none.
    let is_idle = |reason| match reason {
        Reason::NotWritten => true,
        Reason::RefusedByCluster => !validation.writes,
        _ => false,
    };
    let first_not_true = [&accepted, &exported, &imported]
        .into_iter()
        .find(|condition| condition.status != ConditionStatus::True && !is_idle(condition.reason));
    let ready = match first_not_true {
        None => {
            let (reason, message) = ready(observed, validation, instances);
            DesiredCondition::new(READY, ConditionStatus::True, reason, message)
        }
        Some(condition) => {
            let pending = condition.status == ConditionStatus::Unknown && condition.reason == Reason::Pending;
            let status = if pending { ConditionStatus::Unknown } else { ConditionStatus::False };
            DesiredCondition::new(READY, status, condition.reason, condition.message.clone())
        }
    };
    // Absent where it is not True, as kstatus wants it. A namespace that was not seen yet may allow what was refused.
    let rejection = validation.rejection.as_ref().filter(|it| it.reason.stalls() && observed.namespace.is_some());
    let stalled = rejection.map(|it| DesiredCondition::new(STALLED, ConditionStatus::True, it.reason, &it.message));
    let share_limited = validation.goal.accepted().and_then(|accepted| share::limited(accepted, known, plan));
    [ready, accepted, exported, imported, held].into_iter().chain(share_limited).chain(stalled).collect()
}

/// The words of a Ready that is True.
fn ready(observed: &Observed, validation: &Validation, instances: &Counts) -> (Reason, String) {
    let counts = summary(instances);
    let suspended = observed.object.as_ref().is_some_and(|object| object.spec.suspend);
    match (validation.writes, suspended) {
        (true, _) => (Reason::Synced, counts),
        (false, true) => (Reason::Suspended, format!("{counts}; nothing is written while spec.suspend is true")),
        (false, false) => (Reason::Observing, format!("{counts}; nothing is written with policy Observe")),
    }
}

fn nothing_held(message: impl Into<String>) -> DesiredCondition {
    DesiredCondition::new(DELETIONS_HELD, ConditionStatus::False, Reason::NothingHeld, message)
}

/// Whether the hold of an earlier process stays in the status: its deletions wait for the same evidence again.
fn goes_on(directions: &Directions, outcomes: &Outcomes) -> bool {
    directions.hold().is_none() && directions.may_resume() && outcomes.counts().held > 0
}

fn held(directions: &Directions, outcomes: &Outcomes) -> DesiredCondition {
    let Some((hold, hash)) = directions.hold().zip(directions.hash()) else {
        let message = match outcomes.counts().held {
            0 => String::new(),
            n => format!("{n} wait for more evidence; it comes by itself"),
        };
        return nothing_held(message);
    };
    let held = directions.held();
    let message = format!(
        "nothing shows that {} imported and {} exported instances ended; they stay until {:.0}, or until the \
         annotation {APPROVE_DELETIONS}={hash} releases them",
        held.import.len(),
        held.export.len(),
        hold.until,
    );
    DesiredCondition {
        since: Some(hold.since),
        ..DesiredCondition::new(DELETIONS_HELD, ConditionStatus::True, Reason::Held, message)
    }
}

/// The condition of one direction.
struct Direction<'a> {
    kind: &'static str,
    requested: bool,
    /// The value of `spec.direction` that does not request it.
    without: &'static str,
    /// The reason why its writes failed.
    failure: Option<(Reason, String)>,
    note: &'a str,
}

fn exported<'a>(accepted: &Accepted, plan: &'a Plan, applied: &Applied) -> Direction<'a> {
    let failure = applied.registry_error.as_ref().map(|error| (error.reason(), error.to_string()));
    let note = plan.note.as_deref().unwrap_or_default();
    Direction { kind: EXPORTED, requested: accepted.exports, without: "Import", failure, note }
}

fn imported(observed: &Observed, accepted: &Accepted, plan: &Plan, applied: &Applied) -> Direction<'static> {
    // A lost race is planned again immediately; it is a state to report only if it is lost again and again.
    let races = observed.checkpoint.lost_races.saturating_add(1);
    let error = applied.cluster_error.as_ref().filter(|_| !applied.lost_race() || races >= LOST_RACES);
    let failure = error.map(cluster_failure).or_else(|| refused(plan));
    Direction { kind: IMPORTED, requested: accepted.imports, without: "Export", failure, note: "" }
}

fn cluster_failure(error: &ClusterError) -> (Reason, String) {
    let reason = if error.is_refusal() { Reason::RefusedByCluster } else { Reason::WriteFailed };
    (reason, error.to_string())
}

/// The groups of slices that the API server refuses, with its words for the first.
fn refused(plan: &Plan) -> Option<(Reason, String)> {
    let refused = &plan.slices.refused;
    let (first, words) = refused.first_key_value()?;
    let more = match refused.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let message = format!("{first}{more}: {words}. Endpoints that ended are removed, and others are not affected");
    Some((Reason::RefusedByCluster, message))
}

impl Direction<'_> {
    fn condition(
        self,
        observed: &Observed,
        validation: &Validation,
        accepted: &Accepted,
        plan: &Plan,
        applied: &Applied,
    ) -> DesiredCondition {
        if !self.requested {
            let message = format!("spec.direction is {}", self.without);
            return DesiredCondition::new(self.kind, ConditionStatus::True, Reason::NotRequested, message);
        }
        if let Some(waiting) = waiting(self.kind, observed, validation, accepted, plan, applied) {
            return waiting;
        }
        match self.failure {
            Some((reason, message)) => DesiredCondition::new(self.kind, ConditionStatus::False, reason, message),
            None => DesiredCondition::new(self.kind, ConditionStatus::True, Reason::Synced, self.note),
        }
    }
}

/// The reason why nothing could be planned, or why the plan is not written.
fn waiting(
    kind: &'static str,
    observed: &Observed,
    validation: &Validation,
    accepted: &Accepted,
    plan: &Plan,
    applied: &Applied,
) -> Option<DesiredCondition> {
    if let Some(silent) = silent(kind, observed) {
        return Some(silent);
    }
    if plan.directions.is_none() {
        let registry = observed.object.as_ref().map(|o| o.spec.registry_ref.name.clone()).unwrap_or_default();
        return Some(match observed.registry_failure.as_ref() {
            Some(error) => DesiredCondition::new(
                kind,
                ConditionStatus::Unknown,
                Reason::RegistryUnavailable,
                format!("ServiceRegistry {registry}: {error}. What is there is kept"),
            ),
            None => pending(kind, observed, &registry),
        });
    }
    // Where nothing is written no Service is created either, and nobody waits for one.
    if !validation.writes && !plan.is_empty() {
        return Some(DesiredCondition::new(
            kind,
            ConditionStatus::False,
            Reason::NotWritten,
            "there is something to write, but writing is suspended or only observed",
        ));
    }
    let service_error = applied.cluster_error.as_ref().filter(|_| applied.service_failed);
    // Neither direction has anything without the Service; only imports need one of their own.
    let created = plan.create.as_ref().filter(|_| kind == IMPORTED || !accepted.has_import_service());
    if let (Some(_), Some(error)) = (created, service_error) {
        let (reason, message) = cluster_failure(error);
        return Some(DesiredCondition::new(kind, ConditionStatus::False, reason, message));
    }
    if created.is_some() {
        return Some(DesiredCondition::new(
            kind,
            ConditionStatus::Unknown,
            Reason::Pending,
            format!("waiting for Service {} to be created", accepted.import_service),
        ));
    }
    None
}

/// The condition while a kind that the direction rests on was not heard of for long.
fn silent(kind: &'static str, observed: &Observed) -> Option<DesiredCondition> {
    let silent = observed.facts.cluster.silent;
    let kinds = [
        (silent.specs, "RegisteredServices"),
        (silent.endpoints && kind == EXPORTED, "EndpointSlices or Pods"),
        (silent.outer && kind == EXPORTED, "Nodes or Services"),
        (silent.services && kind == IMPORTED, "Services"),
    ];
    let unheard: Vec<&str> = kinds.into_iter().filter(|(silent, _)| *silent).map(|(_, kind)| kind).collect();
    (!unheard.is_empty()).then(|| {
        let message = format!(
            "no news of {} from the API server for {} s; nothing is removed because of it",
            unheard.join(" and "),
            SILENT_AFTER.as_secs()
        );
        DesiredCondition::new(kind, ConditionStatus::Unknown, Reason::ClusterUnavailable, message)
    })
}

/// The condition without a session, or before its first list; the status of the ServiceRegistry may have the reason.
fn pending(kind: &'static str, observed: &Observed, registry: &str) -> DesiredCondition {
    let status = observed.registry.as_ref().and_then(|object| object.status.as_ref());
    let ready = status.and_then(|status| conditions::find(&status.conditions, READY)).filter(|c| c.status == "False");
    match ready.filter(|_| observed.facts.registry.is_none()) {
        Some(ready) => {
            let message = format!("ServiceRegistry {registry}: {}. What is there is kept", ready.message);
            DesiredCondition::new(kind, ConditionStatus::Unknown, Reason::RegistryUnavailable, message)
        }
        None => DesiredCondition::new(
            kind,
            ConditionStatus::Unknown,
            Reason::Pending,
            format!("waiting for a complete list of ServiceRegistry {registry}"),
        ),
    }
}

/// A condition of the last status, if it is True.
pub fn before<'a>(observed: &'a Observed, kind: &str) -> Option<&'a Condition> {
    find_true(&observed.object.as_ref()?.status.as_ref()?.conditions, kind)
}
