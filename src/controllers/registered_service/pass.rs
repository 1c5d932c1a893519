//! One pass over a RegisteredService as a value: the facts, the goal, the plan, the result of its writes, and its
//! outcome.
//!
//! Owns the outcomes of a pass and their labels. Refuses to know the readers.

use std::time::Duration;

use twinspan_core::Timestamp;
use twinspan_core::plan::service::{Plan, Written};

use super::apply::Applied;
use super::observe::Observed;
use super::validate::Validation;

/// A pass before its writes.
#[derive(Debug)]
pub(super) struct Planned {
    pub observed: Observed,
    pub validation: Validation,
    pub plan: Plan,
}

/// Everything about one pass, once its writes are done.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub observed: &'a Observed,
    pub validation: &'a Validation,
    pub plan: &'a Plan,
    pub applied: &'a Applied,
    /// The instances that are written on each side, now that they are done.
    pub written: &'a Written,
    /// The time of the change that triggered the pass.
    pub triggered: Timestamp,
    pub took: Duration,
}

/// The result of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassOutcome {
    Failed,
    Rejected,
    /// A view is incomplete or not fresh.
    Waiting,
    /// The RegisteredService is suspended, or only observes, or the process runs dry.
    Observed,
    Synced,
    Unchanged,
}

impl PassOutcome {
    pub(super) fn of(validation: &Validation, plan: &Plan, applied: &Applied) -> Self {
        // A group that the API server refused goes on to be refused until the next attempt. Without writes there is
        // none.
        if applied.failed() || (validation.writes && !plan.slices.refused.is_empty()) {
            Self::Failed
        } else if validation.rejection.is_some() {
            Self::Rejected
        } else if !validation.gone && plan.directions.is_none() {
            Self::Waiting
        } else if applied.dry_run || (!validation.gone && !validation.writes) {
            Self::Observed
        } else if applied.wrote() {
            Self::Synced
        } else {
            Self::Unchanged
        }
    }

    /// The name of the result in metrics; a bounded set.
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

    /// The state of the RegisteredService, whether or not there was something to write.
    pub(super) fn state(self) -> &'static str {
        if self == Self::Unchanged { Self::Synced.label() } else { self.label() }
    }
}
