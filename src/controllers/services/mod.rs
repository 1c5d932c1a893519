//! RegisteredService: one pass is observe → validate → plan → apply → status.
//!
//! - [`observe`]: everything that the pass rests on, read from the views at one moment.
//! - [`sharing`]: what others want of the same name or Service.
//! - [`validate`]: whether it may be acted upon, and the settings that follow from the spec.
//! - [`plan`]: calls the planners of the core.
//! - [`apply`]: the only part that writes records, slices and Services.
//! - [`status`]: counts and conditions.
//! - [`outlook`]: what people who ask are told; [`account`]: about each instance.
//! - [`report`]: tells people: status, log, metrics; [`announce`]: Events.

pub mod account;
mod announce;
mod apply;
mod endpoints;
mod memory;
mod observe;
pub mod outlook;
mod plan;
mod report;
mod sharing;
mod status;
mod validate;

use std::time::Duration;

use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, info_span};
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

pub use memory::Memory;
pub use outlook::{Outlook, outlook};
pub use validate::schemes;

use super::context::Context;
use super::queue::{Ended, Next};
use crate::telemetry::metrics::Outcome;

/// One pass.
pub async fn reconcile(context: Context, key: ServiceKey, triggered: Timestamp) -> Ended {
    let span = info_span!("pass", service = %key, outcome = Empty);
    let (outcome, next) = pass(&context, &key, triggered).instrument(span.clone()).await;
    span.record("outcome", outcome);
    context.metrics.reconciles.get_or_create(&Outcome { outcome }).inc();
    Ended { next, open: next == Next::Retry || outcome == "waiting" }
}

async fn pass(context: &Context, key: &ServiceKey, triggered: Timestamp) -> (&'static str, Next) {
    let started = Instant::now();
    let Some(observed) = observe::observe(context, key) else {
        // The views are not complete; when they are, everything is marked.
        return ("waiting", Next::Settled);
    };
    let verdict = validate::validate(&observed, context.dry_run);
    let plan = plan::plan(&observed, &verdict, context.world.now(), triggered);
    let applied = if verdict.writes() && context.claim.holds() {
        apply::apply(context, &observed, &plan).await
    } else {
        apply::nothing(context, &observed)
    };
    report::finish(context, &observed, &verdict, &plan, &applied, triggered, started.elapsed()).await
}

/// How long until a time that the planners named; never negative.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    // A little later rather than a little earlier: a pass that comes too soon finds the same wait again.
    at.duration_since(now).unsigned_abs().saturating_add(Duration::from_millis(5))
}
