//! Events about a RegisteredService.
//!
//! Owns when there is something to announce. Under churn one Event stands for many changes: a cluster that is busy must not fill
//! its API server with Events.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use twinspan_core::model::Reason as SkipReason;

use super::apply::Applied;
use super::memory::{Changes, Memory};
use super::observe::Observed;
use super::plan::{Plan, Sides};
use super::status;
use super::validate::Verdict;
use crate::api::RegisteredService;
use crate::api::conditions::{ACCEPTED, DELETIONS_HELD};
use crate::cluster::events::{About, Reason};
use crate::controllers::APPROVE_DELETIONS;
use crate::controllers::context::Context;

/// Least time between two Events that tell of changes in one direction; what comes meanwhile is summed up.
const PACE: Duration = Duration::from_secs(30);

/// Publishes what there is to say; returns how long to wait for what may not be said yet.
pub fn announce(
    context: &Context,
    object: &Arc<RegisteredService>,
    observed: &Observed,
    verdict: &Verdict,
    plan: &Plan,
    applied: &Applied,
    memory: &mut Memory,
) -> Option<Duration> {
    if !context.claim.holds() {
        return None;
    }
    let publish = |reason, note: String| context.events.publish(About::RegisteredService(object.clone()), reason, note);
    if let Verdict::Refused(refusal) = verdict {
        let told = status::before(observed, ACCEPTED)
            .is_some_and(|c| c.reason == refusal.reason.as_str() && c.message == refusal.message);
        if !told {
            warn!("not accepted {}: {}: {}", observed.key, refusal.reason.as_str(), refusal.message);
            publish(Reason::NotAccepted, format!("{}: {}", refusal.reason.as_str(), refusal.message));
        }
    }
    let sides = plan.sides.as_ref()?;
    let imported = if applied.slices > 0 { (plan.slices.added, plan.slices.removed) } else { (0, 0) };
    let tell = |changes: &mut Changes, change, reason, verb: &str, in_all: usize| match changes.add(change) {
        Tell::Nothing => None,
        Tell::Later(wait) => Some(wait),
        Tell::Now(added, removed) => {
            publish(reason, format!("{verb} +{added} -{removed}; {in_all} in all"));
            None
        }
    };
    let exports =
        tell(&mut memory.exports_untold, applied.records, Reason::Exported, "exported", sides.export.exported);
    let imports =
        tell(&mut memory.imports_untold, imported, Reason::Imported, "imported", sides.import.endpoints.len());
    skipped(observed, sides, &publish);
    let held_before = status::before(observed, DELETIONS_HELD).is_some_and(|c| c.status == "True");
    if let Some((_, until)) = sides.held_since_until().filter(|_| !held_before) {
        let count = sides.import.ruling.stays.len() + sides.export.ruling.stays.len();
        publish(
            Reason::DeletionsHeld,
            format!(
                "{count} deletions are held until {until:.0}; the annotation {APPROVE_DELETIONS}={} releases them",
                sides.stays().hash()
            ),
        );
    }
    if let Some(lost) = sides.import.lost.iter().find(|lost| !observed.memory.lost.contains(lost)) {
        let what = if sides.import.healed > 0 { "put back" } else { "kept while it accepts connections" };
        publish(Reason::LostRegistration, format!("{lost} lost its registration and lives; it is {what}"));
    }
    [exports, imports].into_iter().flatten().min()
}

/// A reason that was not there before.
fn skipped(observed: &Observed, sides: &Sides, publish: &impl Fn(Reason, String)) {
    let mut now: Vec<SkipReason> = sides.skipped().map(|s| s.reason).collect();
    now.sort();
    let told = |reason: &SkipReason| {
        observed.memory.uid == observed.uid() && observed.memory.counted.skipped.contains_key(reason)
    };
    if let Some(new) = now.iter().find(|reason| !told(reason)) {
        let example = sides.skipped().find(|s| s.reason == *new).map(|s| s.instance.clone()).unwrap_or_default();
        publish(Reason::InstanceSkipped, format!("{new}: {example}; status.skipped has more"));
    }
}

/// What an Event should say of one direction.
#[derive(Debug, PartialEq, Eq)]
enum Tell {
    Nothing,
    /// There is something, but the last time was not long ago.
    Later(Duration),
    /// Everything that was added and removed since the last time.
    Now(usize, usize),
}

impl Changes {
    fn add(&mut self, (added, removed): (usize, usize)) -> Tell {
        self.added += added;
        self.removed += removed;
        if (self.added, self.removed) == (0, 0) {
            return Tell::Nothing;
        }
        if let Some(wait) = self.told.and_then(|at| PACE.checked_sub(at.elapsed())).filter(|wait| !wait.is_zero()) {
            return Tell::Later(wait);
        }
        self.told = Some(Instant::now());
        Tell::Now(std::mem::take(&mut self.added), std::mem::take(&mut self.removed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_change_is_told_at_once_and_later_ones_together() {
        let mut changes = Changes::default();
        assert_eq!(changes.add((0, 0)), Tell::Nothing);
        assert_eq!(changes.add((1, 0)), Tell::Now(1, 0));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(changes.add((2, 1)), Tell::Later(Duration::from_secs(20)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(changes.add((3, 0)), Tell::Later(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(changes.add((0, 0)), Tell::Now(5, 1));
        assert_eq!(changes.add((0, 0)), Tell::Nothing);
    }
}
