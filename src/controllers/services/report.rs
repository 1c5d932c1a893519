//! Tells people what a pass did: status, one log line, metrics, and Events ([`announce`]); and decides when to look again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};
use twinspan_core::Timestamp;

use super::apply::Applied;
use super::memory::{Counted, Unfinished};
use super::observe::{Observed, Session};
use super::plan::Plan;
use super::validate::Verdict;
use super::{Memory, announce, status, until};
use crate::api::RegisteredServiceStatus;
use crate::cluster::{ClusterError, write};
use crate::controllers::context::Context;
use crate::controllers::queue::Next;
use crate::registry::RegistryError;
use crate::registry::handle::RegistryHandle;
use crate::telemetry::metrics::{Direction, Metrics, Skipped};

/// Least time between two status writes of one RegisteredService.
const STATUS_PACE: Duration = Duration::from_secs(5);

pub async fn finish(
    context: &Context,
    observed: &Observed,
    verdict: &Verdict,
    plan: &Plan,
    applied: &Applied,
    triggered: Timestamp,
    took: Duration,
) -> (&'static str, Next) {
    log(observed, plan, applied, took);
    let mut memory = remember(observed, plan);
    memory.unfinished = measure(context, plan, applied, triggered, memory.unfinished);
    let outcome = outcome(verdict, plan, applied);
    memory.counted = counts(observed, verdict, plan, outcome);
    count(&context.metrics, &observed.memory.counted, &memory.counted);
    let mut next = next(context, verdict, plan, applied);
    if let (Some(object), false) = (&observed.object, matches!(verdict, Verdict::Gone { .. })) {
        let wanted = status::desired(observed, verdict, plan, applied, context.world.now());
        let events = announce::announce(context, object, observed, verdict, plan, applied, &mut memory);
        let again = write_status(context, observed, &mut memory, wanted).await;
        next = sooner(sooner(next, events), again);
    }
    share(context, observed, plan);
    match verdict {
        Verdict::Gone { .. } => {
            context.memory().remove(&observed.key);
            context.addresses().set(&observed.key, BTreeSet::new());
            context.probes.ask(&observed.key, &BTreeSet::new());
        }
        _ => {
            let probe = plan.sides.as_ref().map(|sides| sides.import.probe.clone()).unwrap_or_default();
            context.probes.ask(&observed.key, &probe);
            context.memory().insert(observed.key.clone(), memory);
        }
    }
    (outcome, next)
}

fn outcome(verdict: &Verdict, plan: &Plan, applied: &Applied) -> &'static str {
    match verdict {
        _ if applied.failed() => "failed",
        Verdict::Refused(_) => "rejected",
        Verdict::Accepted(_) if plan.sides.is_none() => "waiting",
        Verdict::Accepted(accepted) if !accepted.writes => "observed",
        _ if applied.wrote() => "synced",
        _ => "unchanged",
    }
}

/// One line that a person can read for each applied plan; errors say what to do.
fn log(observed: &Observed, plan: &Plan, applied: &Applied, took: Duration) {
    let key = &observed.key;
    if applied.wrote() {
        info!(
            "synced {key}: exported +{} -{}, imported +{} -{}, registry rev {}, {} ms",
            applied.records.0,
            applied.records.1,
            if applied.slices > 0 { plan.slices.added } else { 0 },
            if applied.slices > 0 { plan.slices.removed } else { 0 },
            applied.revision.max(observed.session.as_ref().map_or(0, |s| s.snapshot.revision)),
            took.as_millis()
        );
    }
    if applied.created_service {
        info!("created the Service of {key}");
    }
    match &applied.registry_error {
        // Another epoch is being raised, or another session judged; everybody looks again when it is.
        Some(RegistryError::NotLeader | RegistryError::NoEpoch | RegistryError::NotAdmitted) | None => {}
        Some(error) => warn!("cannot export {key}: {error}"),
    }
    match &applied.cluster_error {
        Some(ClusterError::NotLeader) | None => {}
        Some(ClusterError::Conflict { what }) => debug!("{key}: {what} was changed by somebody else; planning again"),
        Some(error) => warn!("cannot import {key}: {error}"),
    }
}

/// How long a change took to the other side. One whose write failed and that is found done now took until now.
fn measure(
    context: &Context,
    plan: &Plan,
    applied: &Applied,
    triggered: Timestamp,
    unfinished: Unfinished,
) -> Unfinished {
    if !context.claim.holds() {
        return Unfinished::default();
    }
    if plan.sides.is_none() {
        return unfinished;
    }
    let seconds = context.world.now().duration_since(triggered).as_secs_f64().max(0.0);
    let observe = |direction| context.metrics.propagation.get_or_create(&Direction { direction }).observe(seconds);
    let now = Unfinished { export: applied.registry_error.is_some(), import: applied.cluster_error.is_some() };
    if !now.export && (applied.records != (0, 0) || unfinished.export) {
        observe("export");
    }
    let imported = applied.slices > 0 && (plan.slices.added > 0 || plan.slices.removed > 0);
    if !now.import && (imported || unfinished.import) {
        observe("import");
    }
    now
}

/// The registry and the name that a plan was about.
fn source(observed: &Observed) -> String {
    match &observed.session {
        Some(Session { handle, name: Some(name), .. }) => format!("{}/{name}", handle.name),
        _ => String::new(),
    }
}

/// Tells the guard of the whole registry; when it begins or ends to hold, every service has to look again.
fn share(context: &Context, observed: &Observed, plan: &Plan) {
    let now = context.world.now();
    let report = |handle: &RegistryHandle, share| {
        if context.guards.report(&handle.name, &observed.key, share, now) {
            handle.everybody_looks();
        }
    };
    let current = observed.session.as_ref().map(|session| &session.handle);
    for handle in context.registries.all() {
        match &plan.sides {
            _ if current.is_none_or(|current| !Arc::ptr_eq(current, &handle)) => report(&handle, None),
            Some(sides) => report(&handle, Some(sides.share())),
            // Not known now: it is as it was.
            None if observed.object.is_some() => {}
            None => report(&handle, None),
        }
    }
}

/// What the next pass has to know.
fn remember(observed: &Observed, plan: &Plan) -> Memory {
    let mut memory = Memory {
        uid: observed.uid().to_owned(),
        generation: observed.generation(),
        listings: observed.listings,
        ..observed.memory.clone()
    };
    if let Some(sides) = &plan.sides {
        memory.source = source(observed);
        memory.import = sides.import.memory.clone();
        memory.export = sides.export.memory.clone();
        memory.stays = sides.stays();
        memory.lost = sides.import.lost.clone();
    }
    memory
}

/// What a pass found, for the gauges; what it could not find out is as it was.
fn counts(observed: &Observed, verdict: &Verdict, plan: &Plan, outcome: &'static str) -> Counted {
    let mut counted = Counted::default();
    if !matches!(verdict, Verdict::Gone { .. }) {
        // Whether there was something to write does not matter.
        counted.state = Some(if outcome == "unchanged" { "synced" } else { outcome });
    }
    match &plan.sides {
        Some(sides) => {
            sides.skipped().for_each(|s| *counted.skipped.entry(s.reason).or_default() += 1);
            counted.held = sides.held();
            counted.lost = sides.import.lost.len().saturating_sub(sides.import.healed);
        }
        None if observed.object.is_none() => {}
        None => counted = Counted { state: counted.state, ..observed.memory.counted.clone() },
    }
    counted
}

/// Takes off the gauges what was counted before, and adds what is counted now.
fn count(metrics: &Metrics, before: &Counted, now: &Counted) {
    let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    for (reason, count) in &now.skipped {
        metrics.skipped.get_or_create(&Skipped { reason: reason.label() }).inc_by(gauge(*count));
    }
    for (reason, count) in &before.skipped {
        metrics.skipped.get_or_create(&Skipped { reason: reason.label() }).dec_by(gauge(*count));
    }
    metrics.held.inc_by(gauge(now.held));
    metrics.held.dec_by(gauge(before.held));
    metrics.lost.inc_by(gauge(now.lost));
    metrics.lost.dec_by(gauge(before.lost));
    metrics.moved(before.state, now.state);
}

/// Writes the status where it changed, at most once in [`STATUS_PACE`]; returns how long to wait where it is too soon.
async fn write_status(
    context: &Context,
    observed: &Observed,
    memory: &mut Memory,
    wanted: RegisteredServiceStatus,
) -> Option<Duration> {
    let known = observed.object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
    if wanted == known || context.dry_run || !context.claim.holds() {
        return None;
    }
    if let Some(wait) = memory.status_written.and_then(|at| STATUS_PACE.checked_sub(at.elapsed())) {
        return Some(wait);
    }
    if let Err(wait) = context.status_budget.take() {
        return Some(wait);
    }
    match write::registered_service_status(&context.client, &observed.key, &wanted).await {
        Ok(()) => {
            memory.status_written = Some(Instant::now());
            // The watch lags behind: the next pass must not compare with what was there before.
            if let Some(object) = context.cluster().registered_services.get_mut(&observed.key)
                && object.metadata.uid.as_deref() == Some(observed.uid())
            {
                Arc::make_mut(object).status = Some(wanted);
            }
            None
        }
        Err(error) => {
            warn!("cannot write the status of {}: {error}", observed.key);
            Some(STATUS_PACE)
        }
    }
}

fn next(context: &Context, verdict: &Verdict, plan: &Plan, applied: &Applied) -> Next {
    if applied.failed() || applied.lost_races > 0 {
        return Next::Retry;
    }
    if matches!(verdict, Verdict::Gone { .. }) {
        return Next::Gone;
    }
    match plan.look_again {
        Some(at) => Next::After(until(at, context.world.now())),
        None => Next::Settled,
    }
}

fn sooner(next: Next, again: Option<Duration>) -> Next {
    match (next, again) {
        (Next::Settled, Some(wait)) => Next::After(wait),
        (Next::After(a), Some(b)) => Next::After(a.min(b)),
        (next, _) => next,
    }
}
