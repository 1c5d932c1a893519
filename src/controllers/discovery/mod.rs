//! Discovery: for each ServiceRegistry, observe → plan → apply → status.
//!
//! - [`observe`]: all that a plan rests on, read from the views at one moment. [`objects`]: RegisteredServices and what
//!   discovery wants of them. [`hand_over`]: whether one that a person wrote has its instances.
//!   `twinspan_core::plan::discovery` plans.
//! - [`apply`]: hands the writes of a turn to the writer. [`report`]: status and condition. [`controller`]: all that is
//!   kept from pass to pass.
//!
//! Owns the order of these steps and the time of a pass: one over everything, at most once a second, where something
//! changed that discovery reads. Refuses to decide what is made, and to know instances.

mod apply;
mod controller;
mod hand_over;
mod objects;
pub mod observe;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::discovery::facts::SHOWN;
use twinspan_core::plan::discovery::turn::{in_turns, turn};
use twinspan_core::plan::discovery::{Plan, plan};
use twinspan_core::plan::earlier;
use twinspan_core::plan::service::Term;

pub use controller::Controller;

use self::apply::Applied;
use self::controller::OfRegistry;
use self::observe::Sight;
use super::service_registry::Command;
use crate::env::milliseconds;
use crate::registry::guards::{Effect, Swept};

/// Least time between the starts of two passes.
const PACE: Duration = Duration::from_secs(1);

/// The time from the start of a pass to that of the next. A pass that plans for long leaves as much time to others as
/// it took from them; while answers are waited for, the machine is free.
fn between(planning: Duration) -> Duration {
    PACE.max(planning * 2)
}

impl Controller {
    pub async fn run(mut self, stop: CancellationToken) {
        let mut leading = self.writers.leadership.changes();
        loop {
            let due = self.state.look_again.map(|at| {
                let wait = at.duration_since(self.views.env.now());
                Instant::now() + Duration::try_from(wait).unwrap_or_default()
            });
            let wait = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Ok(()) = leading.changed() => drop(leading.borrow_and_update()),
                () = self.views.discoveries.changed() => {}
                () = wait => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.rest() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = self.pass() => {}
            }
        }
    }

    /// Waits until the next pass may start.
    async fn rest(&self) {
        if let Some(next) = self.state.next {
            sleep_until(next).await;
        }
    }

    /// Looks at every ServiceRegistry, if something changed. Returns whether it did.
    async fn pass(&mut self) -> bool {
        let term = self.writers.leadership.term();
        if self.state.term != term {
            let registries = std::mem::take(&mut self.state).registries;
            for name in registries.keys() {
                self.views.discoveries.set(name, None);
            }
            self.state.term = term;
        }
        let (Some(term), now) = (term.map(Term), self.views.env.now()) else { return false };
        // The paces count from `now`, so the next pass has to come a whole second behind it.
        let started = Instant::now();
        let seen = observe::seen(&self.views, now);
        let asked = self.views.discoveries.take_due();
        let due = asked || self.state.look_again.is_some_and(|at| at <= now);
        if !due && self.state.seen.as_ref() == Some(&seen) {
            return false;
        }
        self.state.seen = Some(seen);
        (self.state.look_again, self.state.writing) = (None, Duration::ZERO);
        let names = observe::registries(&self.views, self.state.registries.keys());
        let mut awaited = BTreeSet::new();
        let names = in_turns(names, self.state.first.as_deref());
        self.state.first = names.first().cloned();
        for name in names {
            match observe::observe(&self.views, &name) {
                Some(sight) => awaited.extend(self.pass_over(&name, &sight, term, now).await),
                None => self.forget(&name),
            }
        }
        // A status that changed during this pass woke nobody, unless it was waited for before.
        if !awaited.is_subset(&self.state.awaited) {
            self.state.look_again = earlier(self.state.look_again, now.checked_add(SHOWN).ok());
        }
        self.views.discoveries.set_awaited(awaited.clone());
        self.state.awaited = awaited;
        self.state.next = Some(started + between(started.elapsed().saturating_sub(self.state.writing)));
        true
    }

    /// A ServiceRegistry that is gone, or makes nothing any more.
    fn forget(&mut self, name: &str) {
        self.state.registries.remove(name);
        // The guard has to forget what it was asked before.
        self.ask_guard(name, &BTreeSet::new(), 0);
        self.writers.metrics.forget_discovery(name);
        if self.views.discoveries.set(name, None) {
            self.report(name);
        }
    }

    fn report(&self, name: &str) {
        // The receiver is dropped only while the process ends.
        let _ = self.reports.send(Command::Report(name.to_owned()));
    }

    /// Plans and carries out one turn. Returns the RegisteredServices whose status is waited for.
    async fn pass_over(&mut self, name: &str, sight: &Sight, term: Term, now: Timestamp) -> BTreeSet<ServiceKey> {
        let started = Instant::now();
        let mut of_registry = self.state.registries.remove(name).unwrap_or_default();
        of_registry.memory.created = of_registry.history.created(now);
        let mut plan = plan(&sight.facts(), &of_registry.memory, now);
        of_registry.memory = std::mem::take(&mut plan.memory);
        let writes = sight.is_whole() && sight.writes();
        let swept = if writes { self.sweep(sight, &plan, term) } else { Swept::default() };
        if !sight.writes() {
            // Nobody asks for a sweep any more; with Sync it is asked for anew, and held anew.
            self.ask_guard(name, &BTreeSet::new(), plan.staying);
            of_registry.history.forget_refusals();
        }
        let mut look_again = earlier(plan.look_again, swept.held_until);
        let mut applied = Applied::default();
        if writes && self.writers.leadership.may_write() {
            let turn = turn(&plan, &swept.let_go, &mut of_registry.history, &mut self.state.paces, now);
            look_again = earlier(look_again, turn.look_again);
            let sent = Instant::now();
            applied = self.apply(sight, &turn.ops, &mut of_registry.history).await;
            self.state.writing += sent.elapsed();
            // Nothing tells that a refusal is over: a grant of verbs is in no view.
            look_again = earlier(look_again, of_registry.history.next(self.views.env.now()));
        } else if writes {
            self.tell_dry_run(sight, &plan, &mut of_registry);
        }
        let found = report::found(sight, &plan, &swept, &of_registry.history, self.views.env.now());
        self.writers.metrics.set_discovered(name, plan.exports, plan.imports);
        if applied.wrote > 0 {
            info!(
                registry = name,
                created = applied.created,
                updated = applied.updated,
                deleted = applied.deleted,
                pending = plan.pending().saturating_sub(applied.wrote),
                duration_ms = milliseconds(started.elapsed()),
                "discovery: {} RegisteredServices written, {} ms",
                applied.wrote,
                milliseconds(started.elapsed())
            );
        } else {
            let (pending, duration_ms) = (plan.pending(), milliseconds(started.elapsed()));
            debug!(registry = name, pending, duration_ms, "discovery planned, {duration_ms} ms");
        }
        if self.views.discoveries.set(name, Some(found)) {
            self.report(name);
        }
        self.state.registries.insert(name.to_owned(), of_registry);
        self.state.look_again = earlier(self.state.look_again, look_again);
        plan.awaited
    }

    /// Asks the guard of the registry which sweeps may go. An object that writes nothing goes without it: anybody who
    /// may write RegisteredServices could otherwise hold the deletions of a registry that grants nothing to them.
    fn sweep(&self, sight: &Sight, plan: &Plan, term: Term) -> Swept {
        let (guards, env) = (&self.views.guards, &self.views.env);
        let restored = self.views.cluster().held_since(&sight.registry);
        guards.begin(&sight.name, term, restored, env);
        let keys =
            |idle: bool| plan.sweeps.iter().filter(move |sweep| sweep.idle == idle).map(|sweep| sweep.key.clone());
        let mut swept = self.ask_guard(&sight.name, &keys(false).collect(), plan.staying);
        swept.let_go.extend(keys(true));
        swept
    }

    /// Tells the guard which sweeps are asked for, while so many others stay, and acts on the effect.
    fn ask_guard(&self, name: &str, going: &BTreeSet<ServiceKey>, staying: usize) -> Swept {
        let swept = self.views.guards.sweep(name, going, staying, &self.views.env);
        let handle = self.views.registries.get(name);
        match (swept.effect, handle) {
            (Effect::Everything, Some(handle)) => handle.requeue_all(),
            (Effect::Everything | Effect::Status, _) => self.report(name),
            (Effect::Nothing, _) => {}
        }
        swept
    }

    /// Logs what would be written, where it changed.
    fn tell_dry_run(&self, sight: &Sight, plan: &Plan, of_registry: &mut OfRegistry) {
        if !self.writers.leadership.is_dry_run() {
            return;
        }
        let (creates, updates) = (plan.creates.len(), plan.updates.len());
        let deletes = plan.yields.len() + plan.sweeps.len();
        let told = format!("create {creates}, update {updates}, delete {deletes}");
        if of_registry.told != told {
            info!(registry = sight.name, "dry run: discovery would {told} RegisteredServices");
            of_registry.told = told;
        }
    }
}
