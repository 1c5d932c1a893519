//! The report of a pass: log line, metrics, status, Events, the line of the status page, checkpoint, and the action
//! that follows.
//!
//! Owns the measurements and the time of the next pass. Nothing waits here: status and Events are handed over to their
//! writers, and no pass runs because one of them waits. Refuses to decide: it reads the outcomes.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{debug, info, warn};
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::departure::registry_guard::ServiceDeletions;
use twinspan_core::plan::earlier;
use twinspan_core::plan::service::Plan;

use super::apply::Applied;
use super::checkpoint::{Checkpoint, Counted, Unfinished};
use super::controller::Controller;
use super::line::line;
use super::observe::Observed;
use super::pass::{Pass, PassOutcome};
use super::places::SERVED_WITHIN;
use super::seen::Seen;
use super::status;
use super::validate::Validation;
use super::{dry_run, gates};
use crate::api::RegisteredService;
use crate::cluster::ClusterError;
use crate::cluster::status_queue::{Object, Status};
use crate::controllers::queue::{Action, PACE};
use crate::env::milliseconds;
use crate::registry::RegistryError;
use crate::registry::guards::Effect;
use crate::registry::handle::RegistryHandle;
use crate::telemetry::metrics::{Direction, Metrics, Skipped};

/// Later passes are planned anew: a time in an object must not make a wait that no timer takes.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

impl Controller {
    pub(super) fn report(&self, pass: &Pass<'_>) -> (PassOutcome, Action) {
        let Pass { observed, validation, plan, applied, .. } = *pass;
        let key = &observed.facts.key;
        log(pass);
        let outcome = PassOutcome::of(validation, plan, applied);
        let mut checkpoint = next_checkpoint(observed, plan, applied, self.views.env.now());
        if applied.dry_run && outcome != PassOutcome::Waiting {
            checkpoint.dry_run = dry_run::log(key, &plan.written(validation.writes), &checkpoint.dry_run);
        }
        let propagation;
        (checkpoint.unfinished, propagation) = self.measure(pass, checkpoint.unfinished);
        checkpoint.counted = counted(observed, validation, plan, outcome);
        count(&self.writers.metrics, &observed.checkpoint.counted, &checkpoint.counted);
        if let Some(object) = observed.shown() {
            checkpoint.told = self.publish_events(object, pass);
            self.hand_over_status(object, pass, propagation);
        }
        self.report_to_registry_guard(observed, plan);
        self.report_hold(observed, plan);
        if self.views.gates.is_on() {
            match gates::says(&self.views, pass) {
                Some(says) => self.views.gates.say(key, says),
                None => self.views.gates.forget(key),
            }
        }
        if validation.gone {
            self.writers.statuses.forget(&Object::RegisteredService(key.clone()));
            self.writers.board.remove(key);
        }
        let action = self.action(pass);
        if validation.gone && action == Action::Forget {
            self.checkpoints.remove(key);
            self.views.interest().set(key, &BTreeSet::new());
            self.views.probes.ask(key, &BTreeSet::new());
        } else {
            let probe = plan.directions.as_ref().map(|directions| directions.import.probe.clone());
            self.views.probes.ask(key, &probe.unwrap_or_default());
            let yields = !checkpoint.yielded.is_subset(&observed.checkpoint.yielded);
            self.checkpoints.set(key, checkpoint);
            if let (true, Some(accepted)) = (yields, validation.accepted()) {
                // The others weigh the checkpoint that is set now.
                self.writers.cluster.tell_yielded(&accepted.import_service, key);
            }
        }
        (outcome, action)
    }

    /// Records propagation latency, and returns it too. A write that failed but had taken effect is measured up to the
    /// pass that finds it.
    fn measure(&self, pass: &Pass<'_>, unfinished: Unfinished) -> (Unfinished, Option<Duration>) {
        let Pass { plan, applied, triggered, .. } = *pass;
        if !self.writers.leadership.is_leader() {
            return (Unfinished::default(), None);
        }
        if plan.directions.is_none() {
            return (unfinished, None);
        }
        let took = Duration::try_from(self.views.env.now().duration_since(triggered)).unwrap_or_default();
        let mut observed = None;
        let mut observe = |direction| {
            self.writers.metrics.propagation.get_or_create(&Direction { direction }).observe(took.as_secs_f64());
            observed = Some(took);
        };
        let now = Unfinished { export: applied.registry_error.is_some(), import: applied.cluster_error.is_some() };
        if !now.export && (applied.records != (0, 0) || unfinished.export) {
            observe("export");
        }
        let imported = applied.slices > 0 && (plan.slices.added > 0 || plan.slices.removed > 0);
        if !now.import && (imported || unfinished.import) {
            observe("import");
        }
        (now, observed)
    }

    /// Reports the deletions to the guard of each registry; when a hold begins or ends, every service must be
    /// reconciled.
    fn report_to_registry_guard(&self, observed: &Observed, plan: &Plan) {
        let key: &ServiceKey = &observed.facts.key;
        let report = |handle: &RegistryHandle, deletions: Option<ServiceDeletions>| match self.views.guards.report(
            &handle.name,
            key,
            deletions,
            &self.views.env,
        ) {
            Effect::Everything => handle.requeue_all(),
            Effect::Status => handle.report(),
            Effect::Nothing => {}
        };
        let current = observed.facts.registry.as_ref().map(|registry| registry.name.as_str());
        for name in plan.left_behind.keys() {
            let Some(term) = observed.facts.term else { break };
            let restored = {
                let view = self.views.cluster();
                view.service_registries.get(name).and_then(|object| view.held_since(object))
            };
            self.views.guards.begin(name, term, restored, &self.views.env);
        }
        // A registry that is not fresh says nothing about what is left behind there.
        let unknown = |name: &str| observed.facts.former.iter().any(|place| place.name == name && !place.is_fresh());
        for handle in self.views.registries.all() {
            match &plan.directions {
                // The next leader resumes the hold from the status.
                _ if observed.facts.term.is_none() => self.views.guards.forget(&handle.name),
                None if observed.object.is_none() && unknown(&handle.name) => {}
                _ if current != Some(handle.name.as_str()) => {
                    report(&handle, plan.left_behind.get(&handle.name).cloned());
                }
                Some(directions) => report(&handle, Some(directions.deletions())),
                // The deletions are unknown now, so the last report stands.
                None => {}
            }
        }
    }

    /// Tells the registry whether the pass holds something; it waits until the status says so too. Without the Lease a
    /// pass holds nothing, whatever is due.
    fn report_hold(&self, observed: &Observed, plan: &Plan) {
        let Some(registry) = observed.facts.fresh_registry().filter(|_| observed.facts.term.is_some()) else { return };
        let key = &observed.facts.key;
        let holds = plan.directions.as_ref().is_some_and(|directions| directions.hold().is_some());
        if let Some(handle) = self.views.registries.get(&registry.name) {
            handle.report_hold(key, registry.snapshot.incarnation, holds);
        }
    }

    /// Hands the status over to its writer, and puts it on the board of the status page.
    fn hand_over_status(&self, object: &RegisteredService, pass: &Pass<'_>, propagation: Option<Duration>) {
        let Pass { observed, validation, plan, applied, written, .. } = *pass;
        let statuses = &self.writers.statuses;
        // The status that waits to be written is newer than the one that the API server has.
        let known = statuses.latest_of_service(object).or_else(|| object.status.clone()).unwrap_or_default();
        let status = status::desired(observed, known, validation, plan, (applied, written), self.views.env.now());
        let (key, uid) = (observed.facts.key.clone(), &observed.facts.uid);
        let (board, is_dry_run) = (&self.writers.board, self.writers.leadership.is_dry_run());
        let row = board.is_on().then(|| line(object, &status, Seen::of(pass, &status, is_dry_run)));
        statuses.hand_over(Object::RegisteredService(key.clone()), uid, Status::RegisteredService(Box::new(status)));
        // A reader that sees the row asks for the status behind it.
        if let Some((service, hold)) = row {
            board.put(&key, service, hold, propagation, self.views.env.now());
        }
    }

    fn action(&self, pass: &Pass<'_>) -> Action {
        let Pass { observed, validation, plan, applied, .. } = *pass;
        if applied.failed() || applied.conflicts > 0 {
            return Action::Retry;
        }
        let (now, refusals) = (self.views.env.now(), &observed.checkpoint.planned.refused);
        if refusals.lacks(&applied.refused, now) {
            // The rest of the group is planned without what was refused.
            return Action::RequeueAfter(PACE);
        }
        let again = (!applied.refused.is_empty()).then(|| refusals.next_attempt(now)).flatten();
        let served = observed.unserved_since.map(|since| since + SERVED_WITHIN).filter(|at| *at > now);
        let again = earlier(again, served);
        // No wait ends where nobody judges; a leadership begins with a pass over everything.
        match earlier(plan.requeue_at, again).filter(|_| observed.facts.term.is_some()) {
            Some(at) => Action::RequeueAfter(until(at, now)),
            None if validation.gone => Action::Forget,
            None => Action::Await,
        }
    }
}

/// The wait until a time from the planners; never negative.
pub(super) fn until(at: Timestamp, now: Timestamp) -> Duration {
    // A time that has passed meanwhile is no wait.
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    // A pass that comes too early finds the same wait again.
    wait.min(LONGEST_WAIT) + Duration::from_millis(5)
}

/// Logs one readable line for each applied plan; errors say what to do.
fn log(pass: &Pass<'_>) {
    let Pass { observed, plan, applied, took, .. } = *pass;
    let key = &observed.facts.key;
    let ServiceKey { namespace, name } = key;
    let registry = observed.facts.registry.as_ref().map(|registry| registry.name.as_str());
    if applied.wrote() {
        let revision = observed.facts.registry.as_ref().map_or(0, |registry| registry.snapshot.revision);
        info!(
            namespace,
            name,
            registry,
            records_created = applied.records.0,
            records_deleted = applied.records.1,
            endpoints_added = if applied.slices > 0 { plan.slices.added } else { 0 },
            endpoints_removed = if applied.slices > 0 { plan.slices.removed } else { 0 },
            registry_revision = applied.revision.max(revision),
            duration_ms = milliseconds(took),
            "synced {key}: exported +{} -{}, imported +{} -{}, registry rev {}, {} ms",
            applied.records.0,
            applied.records.1,
            if applied.slices > 0 { plan.slices.added } else { 0 },
            if applied.slices > 0 { plan.slices.removed } else { 0 },
            applied.revision.max(revision),
            took.as_millis()
        );
        let stood_back = plan.directions.as_ref().map_or(0, |directions| directions.import.stood_back.len());
        if stood_back > 0 && applied.slices > 0 {
            info!(
                namespace,
                name,
                registry,
                stood_back,
                "{stood_back} of other clusters stand by for {key}: enough of this cluster are there"
            );
        }
    }
    if applied.created_service {
        info!(namespace, name, registry, "created the Service of {key}");
    }
    match &applied.registry_error {
        // The epoch is being raised, or a session is being checked; every service is reconciled afterwards.
        Some(RegistryError::NotLeader | RegistryError::NoEpoch | RegistryError::NotSole) | None => {}
        Some(error) => warn!(namespace, name, registry, reason = error.label(), "cannot export {key}: {error}"),
    }
    match &applied.cluster_error {
        Some(ClusterError::NotLeader) | None => {}
        Some(error @ ClusterError::Conflict { .. }) => debug!(namespace, name, registry, "{key}: {error}"),
        Some(error) => warn!(namespace, name, registry, reason = error.label(), "cannot import {key}: {error}"),
    }
    for (group, message) in &applied.refused {
        warn!(namespace, name, registry, group = %group, "cannot import {group} into {key}: {message}");
    }
}

fn next_checkpoint(observed: &Observed, plan: &Plan, applied: &Applied, now: Timestamp) -> Checkpoint {
    let last = &observed.checkpoint;
    let planned = plan.checkpoint(&observed.facts, &last.planned);
    let mut checkpoint = Checkpoint { planned, unserved_since: observed.unserved_since, ..last.clone() };
    if let Some(directions) = &plan.directions {
        checkpoint.yielded.clone_from(&directions.import.yielded);
    }
    if applied.attempted {
        checkpoint.planned.refused = last.planned.refused.after(&applied.refused, !applied.left_over, now);
        checkpoint.unanswered_passes = if applied.left_over { last.unanswered_passes.wrapping_add(1) } else { 0 };
        checkpoint.lost_races = if applied.lost_race() { last.lost_races.saturating_add(1) } else { 0 };
    }
    checkpoint
}

/// The counts of a pass for the gauges; unknown ones keep their last value.
fn counted(observed: &Observed, validation: &Validation, plan: &Plan, outcome: PassOutcome) -> Counted {
    let mut counted = Counted { state: (!validation.gone).then(|| outcome.state()), ..Counted::default() };
    if plan.directions.is_some() {
        let counts = plan.outcomes.counts();
        plan.outcomes.skipped().for_each(|(_, reason)| *counted.skipped.entry(reason).or_default() += 1);
        (counted.held, counted.lost) = (counts.held, counts.lost);
    } else if observed.object.is_none() {
        counted.held = plan.left_behind.values().map(|deletions| deletions.held.len()).sum();
    } else {
        counted = Counted { state: counted.state, ..observed.checkpoint.counted.clone() };
    }
    counted
}

/// Subtracts the last counts from the gauges, and adds the new ones.
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
