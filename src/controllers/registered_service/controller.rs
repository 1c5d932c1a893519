//! The controller of RegisteredServices: the views that it reads, and the writers that it may use.
//!
//! Refuses to know a pass ([`super`]) and its steps.

use super::checkpoint::Checkpoints;
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;

/// Reconciles RegisteredServices; clones share everything.
#[derive(Clone, Debug)]
pub struct Controller {
    pub views: Views,
    pub writers: Writers,
    pub checkpoints: Checkpoints,
}
