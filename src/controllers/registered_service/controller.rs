//! The controller of RegisteredServices: the views that it reads, and the writers that it may use.
//!
//! Refuses to know a pass ([`super`]) and its steps.

use twinspan_core::plan::service::Term;

use super::checkpoint::Checkpoints;
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;

/// Reconciles RegisteredServices; clones share everything.
#[derive(Clone, Debug)]
pub struct Controller {
    pub views: Views,
    pub writers: Writers,
    pub checkpoints: Checkpoints,
    /// Whether the controller only plans and reports, and writes nothing.
    pub dry_run: bool,
}

impl Controller {
    /// The term in which this process judges. A dry run shows the judgements of a leader, whoever leads.
    pub(super) fn term(&self) -> Option<Term> {
        self.writers.leadership.term().or(self.dry_run.then_some(Term(0)))
    }
}
