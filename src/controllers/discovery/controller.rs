//! The controller of discovery: the views that it reads, the writers that it may use, and what it keeps.
//!
//! Refuses to know a pass ([`super`]) and its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::discovery::Memory;
use twinspan_core::plan::discovery::history::History;
use twinspan_core::plan::discovery::turn::Paces;

use super::observe::Seen;
use crate::controllers::service_registry::Command;
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;

/// Makes RegisteredServices for Services and names.
#[derive(Debug)]
pub struct Controller {
    pub(super) views: Views,
    pub(super) writers: Writers,
    pub(super) reports: mpsc::UnboundedSender<Command>,
    pub(super) state: State,
}

/// All that is kept from pass to pass, in one leadership.
#[derive(Debug, Default)]
pub(super) struct State {
    pub term: Option<u64>,
    pub seen: Option<Seen>,
    pub look_again: Option<Timestamp>,
    /// The earliest start of the next pass.
    pub next: Option<Instant>,
    /// The time for which the last pass waited for answers to its writes.
    pub writing: Duration,
    /// RegisteredServices whose status the last pass waited for.
    pub awaited: BTreeSet<ServiceKey>,
    pub registries: BTreeMap<String, OfRegistry>,
    pub paces: Paces,
    /// The ServiceRegistry that was the first of the last pass.
    pub first: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct OfRegistry {
    pub memory: Memory,
    pub history: History,
    /// The last line of a dry run.
    pub told: String,
}

impl Controller {
    /// `reports` takes the names of ServiceRegistries whose status has to be looked at.
    pub fn new(views: Views, writers: Writers, reports: mpsc::UnboundedSender<Command>) -> Self {
        Self { views, writers, reports, state: State::default() }
    }
}
