//! Events about a RegisteredService.
//!
//! Owns the rule about when to publish. Under churn one Event stands for many changes, because a busy cluster must not
//! fill its API server with Events. Refuses to decide: every Event follows from the outcomes and from the result of the
//! writes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use twinspan_core::plan::service::{Directions, Outcomes};

use super::checkpoint::{Changes, Checkpoint};
use super::controller::Controller;
use super::observe::Observed;
use super::pass::Pass;
use super::validate::Validation;
use crate::api::conditions::{self, ACCEPTED};
use crate::api::{APPROVE_DELETIONS, RegisteredService};
use crate::cluster::events::{self, About, Reason};

/// Least time between two Events about changes in one direction; changes in between are counted together.
const PACE: Duration = Duration::from_secs(30);

impl Controller {
    /// Publishes the Events of a pass, if this process leads. Returns the time that the counted changes still have to
    /// wait.
    pub(super) fn publish_events(
        &self,
        object: &Arc<RegisteredService>,
        pass: &Pass<'_>,
        checkpoint: &mut Checkpoint,
    ) -> Option<Duration> {
        if !self.writers.leadership.is_leader() {
            return None;
        }
        let Pass { observed, validation, plan, applied, .. } = pass;
        let publish = |reason, note: String| {
            self.writers.events.publish(About::RegisteredService(object.clone()), reason, note);
        };
        not_accepted(observed, validation, &publish);
        let directions = plan.directions.as_ref()?;
        let (outcomes, counts) = (&plan.outcomes, plan.outcomes.counts());
        let imported = if applied.slices > 0 { (plan.slices.added, plan.slices.removed) } else { (0, 0) };
        let changed = |changes: &mut Changes, change, reason, verb: &str, in_all: usize| match changes.add(change) {
            Batch::Empty => None,
            Batch::Later(wait) => Some(wait),
            Batch::Now(added, removed) => {
                publish(reason, format!("{verb} +{added} -{removed}; {in_all} in all"));
                None
            }
        };
        let pending = &mut checkpoint.pending_exports;
        let exports = changed(pending, applied.records, Reason::Exported, "exported", counts.exported);
        let pending = &mut checkpoint.pending_imports;
        let imports = changed(pending, imported, Reason::Imported, "imported", counts.imported);
        skipped(observed, outcomes, &publish);
        held(observed, directions, checkpoint, &publish);
        if let Some(lost) = outcomes.lost().find(|lost| !observed.checkpoint.lost.contains(lost)) {
            let what = if counts.healed > 0 { "put back" } else { "kept while it accepts connections" };
            publish(Reason::LostRegistration, format!("{lost} lost its registration and lives; it is {what}"));
        }
        [exports, imports].into_iter().flatten().min()
    }
}

/// Publishes a rejection that the last status does not have.
fn not_accepted(observed: &Observed, validation: &Validation, publish: &impl Fn(Reason, String)) {
    let Some(rejection) = &validation.rejection else { return };
    let (key, reason, message) = (&observed.facts.key, rejection.reason.as_str(), &rejection.message);
    let status = observed.object.as_ref().and_then(|object| object.status.as_ref());
    let known = status.and_then(|status| conditions::find(&status.conditions, ACCEPTED));
    if known.is_none_or(|known| known.reason != reason || known.message != *message) {
        warn!("not accepted {key}: {reason}: {message}");
        publish(Reason::NotAccepted, format!("{reason}: {message}"));
    }
}

/// Publishes a reason that the last pass did not have.
fn skipped(observed: &Observed, outcomes: &Outcomes, publish: &impl Fn(Reason, String)) {
    let checkpoint = &observed.checkpoint;
    let known = checkpoint.planned.uid == observed.facts.uid;
    let new = outcomes.skipped().filter(|(_, reason)| !known || !checkpoint.counted.skipped.contains_key(reason));
    if let Some((example, reason)) = new.min_by_key(|(_, reason)| *reason) {
        publish(Reason::InstanceSkipped, format!("{reason}: {}; status.skipped has more", example.subject));
    }
}

/// Publishes a hold that the last status does not have, and an approval that does not say which hold it releases.
fn held(observed: &Observed, directions: &Directions, checkpoint: &mut Checkpoint, publish: &impl Fn(Reason, String)) {
    let Some((hold, hash)) = directions.hold().zip(directions.hash()) else { return };
    let held = directions.held();
    if observed.held_since() != Some(hold.since) {
        let note = format!(
            "{} deletions are held until {:.0}; the annotation {APPROVE_DELETIONS}={hash} releases them",
            held.len(),
            hold.until,
        );
        publish(Reason::DeletionsHeld, note);
    }
    if observed.approval() == Some(held.hash_of_set().as_str()) && checkpoint.refused.as_ref() != Some(&hash) {
        publish(Reason::ApprovalRefused, events::refused_approval(&hash));
        checkpoint.refused = Some(hash);
    }
}

/// The changes of one direction for an Event.
#[derive(Debug, PartialEq, Eq)]
enum Batch {
    Empty,
    /// Changes wait, because the last Event is too recent.
    Later(Duration),
    /// The numbers of instances added and removed since the last Event.
    Now(usize, usize),
}

impl Changes {
    fn add(&mut self, (added, removed): (usize, usize)) -> Batch {
        self.added += added;
        self.removed += removed;
        if (self.added, self.removed) == (0, 0) {
            return Batch::Empty;
        }
        if let Some(wait) = self.published.and_then(|at| PACE.checked_sub(at.elapsed())).filter(|wait| !wait.is_zero())
        {
            return Batch::Later(wait);
        }
        self.published = Some(Instant::now());
        Batch::Now(std::mem::take(&mut self.added), std::mem::take(&mut self.removed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_change_is_told_at_once_and_later_ones_together() {
        let mut changes = Changes::default();
        assert_eq!(changes.add((0, 0)), Batch::Empty);
        assert_eq!(changes.add((1, 0)), Batch::Now(1, 0));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(changes.add((2, 1)), Batch::Later(Duration::from_secs(20)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(changes.add((3, 0)), Batch::Later(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(changes.add((0, 0)), Batch::Now(5, 1));
        assert_eq!(changes.add((0, 0)), Batch::Empty);
    }
}
