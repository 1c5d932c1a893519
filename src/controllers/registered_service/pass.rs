//! One pass over a RegisteredService as a value: the facts, the goal, the plan, the result of its writes, and its
//! outcome.
//!
//! Owns the outcomes of a pass and their labels. Refuses to know the readers.

use std::time::Duration;

use twinspan_core::Timestamp;
use twinspan_core::plan::service::Plan;

use super::apply::Applied;
use super::observe::Observed;
use super::validate::Validation;

/// Everything about one pass, once its writes are done.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub observed: &'a Observed,
    pub validation: &'a Validation,
    pub plan: &'a Plan,
    pub applied: &'a Applied,
    /// When the change that led here began.
    pub triggered: Timestamp,
    pub took: Duration,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassOutcome {
    Failed,
    Rejected,
    /// A view is not complete or not fresh.
    Waiting,
    /// Suspended, or only observing.
    Observed,
    Synced,
    Unchanged,
}

impl PassOutcome {
    pub(super) fn of(validation: &Validation, plan: &Plan, applied: &Applied) -> Self {
        if applied.failed() {
            Self::Failed
        } else if validation.rejection.is_some() {
            Self::Rejected
        } else if !validation.gone && plan.directions.is_none() {
            Self::Waiting
        } else if !validation.gone && !validation.writes {
            Self::Observed
        } else if applied.wrote() {
            Self::Synced
        } else {
            Self::Unchanged
        }
    }

    /// Bounded, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Waiting => "waiting",
            Self::Observed => "observed",
            Self::Synced => "synced",
            Self::Unchanged => "unchanged",
        }
    }

    /// The state of the RegisteredService: whether there was something to write does not matter.
    pub(super) fn state(self) -> &'static str {
        if self == Self::Unchanged { Self::Synced.label() } else { self.label() }
    }
}
