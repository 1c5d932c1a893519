//! RegisteredService: one pass is observe → validate → siblings → plan → apply → report.
//!
//! - [`observe`]: everything that the pass rests on, read from the views at one moment, as a value ([`observed`]);
//!   [`places`]: where it has records, and which ServiceRegistry may write them.
//! - [`validate`]: the goal, and the settings that follow from the spec; [`target_service`]: its Service;
//!   [`import_service`]: that of imports, where it is another one; [`rejection`]: why a spec is not carried out.
//! - [`siblings`]: other RegisteredServices that want the same name or Service; [`crowd`]: how many may share a name.
//! - `twinspan_core::plan::service` plans: operations, and an outcome for every instance.
//! - [`apply`]: hands the operations to the writers; [`dry_run`]: logs them instead.
//! - [`report`]: log, metrics and [`checkpoint`]; [`status`]: counts and conditions, [`share`] one of them;
//!   [`differences`]: the instances that it names; [`events`]: Events; [`risks`]: one kind of what they tell;
//!   [`line`]: the line of the status page; [`gates`]: readiness gates.
//!
//! Owns the order of these steps. Refuses to decide what to write.

pub mod apply;
pub mod checkpoint;
mod controller;
mod crowd;
mod differences;
mod dry_run;
mod events;
mod gates;
mod import_service;
mod line;
pub mod observe;
mod observed;
mod pass;
mod places;
mod rejection;
mod report;
mod risks;
mod seen;
mod share;
pub mod siblings;
pub mod status;
mod target_service;
pub mod validate;

use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, info_span};
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::service::{self, Term};

pub use checkpoint::{Checkpoint, Checkpoints};
pub use controller::Controller;

use self::pass::{Pass, PassOutcome, Planned};
use super::queue::{Action, Finished};
use crate::telemetry::metrics::Outcome;

impl Controller {
    /// Runs one pass.
    pub async fn reconcile(self, key: ServiceKey, triggered: Timestamp) -> Finished {
        let span = info_span!("pass", service = %key, outcome = Empty);
        let began = Instant::now();
        let (outcome, action) = self.pass(&key, triggered).instrument(span.clone()).await;
        self.writers.metrics.passes.observe(began.elapsed().as_secs_f64());
        let label = outcome.label();
        span.record("outcome", label);
        self.writers.metrics.reconciles.get_or_create(&Outcome { outcome: label }).inc();
        Finished { action, keep_trigger_time: action == Action::Retry || outcome == PassOutcome::Waiting }
    }

    async fn pass(&self, key: &ServiceKey, triggered: Timestamp) -> (PassOutcome, Action) {
        let started = Instant::now();
        let Some(mut planned) = self.planned(key, triggered) else {
            // Once the views are complete, every RegisteredService is enqueued.
            return (PassOutcome::Waiting, Action::Await);
        };
        let Planned { observed, validation, plan } = &mut *planned;
        let applied = self.apply(observed, validation, plan).await;
        let written = self.written(observed);
        plan.leave_out(&applied.refused);
        let took = started.elapsed();
        self.report(&Pass { observed, validation, plan, applied: &applied, written: &written, triggered, took })
    }

    /// Everything before the first write. It is large, and lies outside the future of the pass, which is moved several
    /// times before it begins.
    fn planned(&self, key: &ServiceKey, triggered: Timestamp) -> Option<Box<Planned>> {
        let term = self.writers.leadership.term().map(Term);
        let observed = observe::observe(&self.views, &self.checkpoints, key, term)?;
        let validation = validate::validate(&observed);
        let siblings = siblings::siblings(&self.views, &self.checkpoints, &observed, validation.accepted());
        let checkpoint = &observed.checkpoint.planned;
        let now = self.views.env.now();
        let (facts, former) = (&observed.facts, &validation.former);
        let plan = service::plan(facts, &validation.goal, former, &siblings, checkpoint, now, triggered);
        Some(Box::new(Planned { observed, validation, plan }))
    }
}

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod events_tests;
#[cfg(test)]
mod gates_tests;
#[cfg(test)]
mod hand_over_tests;
#[cfg(test)]
mod hold_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod reduced_tests;
#[cfg(test)]
mod report_tests;
#[cfg(test)]
mod revoked_tests;
#[cfg(test)]
mod share_tests;
#[cfg(test)]
mod side_by_side_tests;
#[cfg(test)]
mod slices_tests;
#[cfg(test)]
mod stray_tests;
#[cfg(test)]
mod term_tests;
#[cfg(test)]
mod vanish_tests;
