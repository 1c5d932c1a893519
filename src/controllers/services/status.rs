//! What the status of a RegisteredService says, as a function of what was observed, planned and applied.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use twinspan_core::Timestamp;
use twinspan_core::model::Skipped;

use super::apply::Applied;
use super::observe::{Observed, Session};
use super::plan::{Plan, Sides};
use super::validate::{Accepted, Verdict};
use crate::api::conditions::{ACCEPTED, DELETIONS_HELD, EXPORTED, IMPORTED, READY, Reason};
use crate::api::{Counts, RegisteredServiceStatus, SkippedInstance};
use crate::controllers::APPROVE_DELETIONS;
use crate::controllers::conditions::{self, Is, Wanted};

/// How many skipped instances are named.
const SAMPLE: usize = 5;

pub fn desired(
    observed: &Observed,
    verdict: &Verdict,
    plan: &Plan,
    applied: &Applied,
    now: Timestamp,
) -> RegisteredServiceStatus {
    let known = observed.object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
    let generation = observed.object.as_ref().and_then(|object| object.metadata.generation);
    let wanted = wanted(observed, verdict, plan, applied);
    let mut status = RegisteredServiceStatus {
        observed_generation: generation,
        conditions: conditions::set(&known.conditions, &wanted, generation, now),
        ..known
    };
    match (&plan.sides, verdict) {
        (Some(sides), _) => count(&mut status, plan, sides),
        // Withdrawn: there is nothing on either side.
        (None, Verdict::Refused(refusal)) if refusal.withdraw => {
            status.instances = Counts::default();
            status.skipped = Vec::new();
        }
        // Not known now: the numbers are the last ones that were.
        (None, _) => {}
    }
    status
}

fn count(status: &mut RegisteredServiceStatus, plan: &Plan, sides: &Sides) {
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    status.instances = Counts {
        cluster: number(plan.cluster),
        registry: number(sides.registry),
        exported: number(sides.export.exported),
        imported: number(sides.import.endpoints.len()),
        lost: number(sides.import.lost.len().saturating_sub(sides.import.healed)),
        healed: number(sides.import.healed),
        skipped: number(sides.skipped().count()),
        held: number(sides.held()),
    };
    let shown = |s: &Skipped| SkippedInstance { instance: s.instance.clone(), reason: s.reason.label().to_owned() };
    status.skipped = sides.skipped().take(SAMPLE).map(shown).collect();
}

impl Sides {
    /// Everything that is left out, exports first.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.export.skipped.iter().chain(&self.import.skipped)
    }
}

fn wanted(observed: &Observed, verdict: &Verdict, plan: &Plan, applied: &Applied) -> Vec<Wanted> {
    let (accepted, exported, imported) = match verdict {
        Verdict::Accepted(accepted) => (
            Wanted::new(ACCEPTED, Is::True, Reason::Accepted, ""),
            exported(observed, accepted, plan, applied),
            imported(observed, accepted, plan, applied),
        ),
        Verdict::Refused(refusal) => {
            let not = |kind| Wanted::new(kind, Is::False, Reason::NotAccepted, "see the condition Accepted");
            (Wanted::new(ACCEPTED, Is::False, refusal.reason, &refusal.message), not(EXPORTED), not(IMPORTED))
        }
        Verdict::Gone { .. } => return Vec::new(),
    };
    let held = match (&plan.sides, verdict) {
        (Some(sides), _) => held(sides),
        (None, Verdict::Refused(refusal)) if refusal.withdraw => nothing_held(""),
        // Not known now: what was held stays, and its time goes on.
        (None, _) => before(observed, DELETIONS_HELD).filter(|held| held.status == "True").map_or_else(
            || nothing_held(""),
            |held| Wanted {
                since: Some(held.last_transition_time.0),
                ..Wanted::new(DELETIONS_HELD, Is::True, Reason::Held, held.message.clone())
            },
        ),
    };
    let first_not_true = [&accepted, &exported, &imported].into_iter().find(|wanted| wanted.is != Is::True);
    let ready = match first_not_true {
        None => Wanted::new(READY, Is::True, Reason::Synced, ""),
        Some(wanted) if wanted.is == Is::Unknown && wanted.reason == Reason::Pending => {
            Wanted::new(READY, Is::Unknown, Reason::Pending, wanted.message.clone())
        }
        Some(wanted) => Wanted::new(READY, Is::False, wanted.reason, wanted.message.clone()),
    };
    vec![ready, accepted, exported, imported, held]
}

fn nothing_held(message: impl Into<String>) -> Wanted {
    Wanted::new(DELETIONS_HELD, Is::False, Reason::NothingHeld, message)
}

fn held(sides: &Sides) -> Wanted {
    let Some((since, until)) = sides.held_since_until() else {
        let message = match sides.held() {
            0 => String::new(),
            n => format!("{n} wait for more evidence; it comes by itself"),
        };
        return nothing_held(message);
    };
    let (imported, exported) = (sides.import.ruling.stays.len(), sides.export.ruling.stays.len());
    let hash = sides.stays().hash();
    let message = format!(
        "nothing shows that {imported} imported and {exported} exported instances ended; they stay until {until:.0}, or until the \
         annotation {APPROVE_DELETIONS}={hash} releases them"
    );
    Wanted { since: Some(since), ..Wanted::new(DELETIONS_HELD, Is::True, Reason::Held, message) }
}

fn exported(observed: &Observed, accepted: &Accepted, plan: &Plan, applied: &Applied) -> Wanted {
    if !accepted.direction.exports() {
        return Wanted::new(EXPORTED, Is::True, Reason::NotRequested, "spec.direction is Import");
    }
    if let Some(waiting) = waiting(EXPORTED, observed, accepted, plan) {
        return waiting;
    }
    match &applied.registry_error {
        Some(error) => Wanted::new(EXPORTED, Is::False, error.reason(), error.to_string()),
        None => Wanted::new(EXPORTED, Is::True, Reason::Synced, plan.remark.clone().unwrap_or_default()),
    }
}

fn imported(observed: &Observed, accepted: &Accepted, plan: &Plan, applied: &Applied) -> Wanted {
    if !accepted.direction.imports() {
        return Wanted::new(IMPORTED, Is::True, Reason::NotRequested, "spec.direction is Export");
    }
    if let Some(waiting) = waiting(IMPORTED, observed, accepted, plan) {
        return waiting;
    }
    match &applied.cluster_error {
        // A lost race is planned again at once; it is no state to report.
        Some(crate::cluster::ClusterError::Conflict { .. }) | None => {
            Wanted::new(IMPORTED, Is::True, Reason::Synced, "")
        }
        Some(error) => Wanted::new(IMPORTED, Is::False, Reason::WriteFailed, error.to_string()),
    }
}

/// Why nothing could be planned, or is not to be written, where that is so.
fn waiting(kind: &'static str, observed: &Observed, accepted: &Accepted, plan: &Plan) -> Option<Wanted> {
    if plan.sides.is_none() {
        let registry = observed.object.as_ref().map(|o| o.spec.registry_ref.name.clone()).unwrap_or_default();
        return Some(match observed.session.as_ref().and_then(Session::failure) {
            Some(error) => Wanted::new(
                kind,
                Is::Unknown,
                Reason::RegistryUnavailable,
                format!("ServiceRegistry {registry}: {error}. What is there is kept"),
            ),
            None => pending(kind, observed, &registry),
        });
    }
    if plan.create.is_some() {
        return Some(Wanted::new(
            kind,
            Is::Unknown,
            Reason::Pending,
            format!("waiting for Service {} to be created", accepted.service),
        ));
    }
    if !accepted.writes && !plan.is_empty() {
        return Some(Wanted::new(
            kind,
            Is::False,
            Reason::NotWritten,
            "there is something to write, but writing is suspended or only observed",
        ));
    }
    None
}

/// There is no session, or it has no list yet; the ServiceRegistry may know why.
fn pending(kind: &'static str, observed: &Observed, registry: &str) -> Wanted {
    let told = observed.registry.as_ref().and_then(|object| object.status.as_ref());
    let ready = told.and_then(|status| conditions::find(&status.conditions, READY)).filter(|c| c.status == "False");
    match ready.filter(|_| observed.session.is_none()) {
        Some(ready) => {
            let message = format!("ServiceRegistry {registry}: {}. What is there is kept", ready.message);
            Wanted::new(kind, Is::Unknown, Reason::RegistryUnavailable, message)
        }
        None => Wanted::new(
            kind,
            Is::Unknown,
            Reason::Pending,
            format!("waiting for a complete list of ServiceRegistry {registry}"),
        ),
    }
}

/// A condition as it was before.
pub fn before<'a>(observed: &'a Observed, kind: &str) -> Option<&'a Condition> {
    let status = observed.object.as_ref()?.status.as_ref()?;
    conditions::find(&status.conditions, kind)
}
