//! The checkpoint of the controller: the values that one pass over a RegisteredService hands to the next.
//!
//! Owns the part beside [`twinspan_core::plan::service::Checkpoint`], for Events, metrics and status. It is lost with
//! the process. Refuses to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, Reason, ServiceKey};
use twinspan_core::plan::service;

/// The checkpoints by RegisteredService; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints(Arc<Mutex<BTreeMap<ServiceKey, Checkpoint>>>);

impl Checkpoints {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, Checkpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &ServiceKey) -> Option<Checkpoint> {
        self.lock().get(key).cloned()
    }

    pub fn set(&self, key: &ServiceKey, checkpoint: Checkpoint) {
        self.lock().insert(key.clone(), checkpoint);
    }

    pub fn remove(&self, key: &ServiceKey) {
        self.lock().remove(key);
    }
}

/// The checkpoint of one RegisteredService.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    pub planned: service::Checkpoint,
    /// Instances that lost their registration; a new one is worth an Event.
    pub lost: BTreeSet<InstanceAddr>,
    pub counted: Counted,
    pub unfinished: Unfinished,
    /// Since when slices of ours wait that an unknown RegisteredService owns.
    pub strays_since: Option<Timestamp>,
    /// Passes in a row whose writes to the cluster lost a race.
    pub lost_races: u32,
    pub status_written: Option<Instant>,
    /// The writes that a dry run logged last.
    pub dry_run: String,
    /// The hash of the hold for which an Event has refused an approval.
    pub refused: Option<String>,
    /// Changes that no Event has published yet, for each direction.
    pub pending_exports: Changes,
    pub pending_imports: Changes,
}

/// The values of the RegisteredService that are in the gauges now. They outlive the object, so that they can be
/// subtracted again.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// The state after the last pass.
    pub state: Option<&'static str>,
    pub skipped: BTreeMap<Reason, usize>,
    pub held: usize,
    pub lost: usize,
}

/// Directions whose last write failed; it may have taken effect nevertheless.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unfinished {
    pub export: bool,
    pub import: bool,
}

/// Changes of one direction since its last Event.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub added: usize,
    pub removed: usize,
    pub published: Option<Instant>,
}
