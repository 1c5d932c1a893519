//! The checkpoint of the controller: the values that one pass over a RegisteredService hands to the next.
//!
//! It is lost with the process; see [`twinspan_core::plan::service::Checkpoint`] for the part that the planners need.
//! Refuses to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use twinspan_core::model::{InstanceAddr, Reason, ServiceKey};
use twinspan_core::plan::service;

/// The checkpoints by RegisteredService; clones are the same ones.
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

/// The values that one pass hands to the next.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    pub planned: service::Checkpoint,
    /// Instances that lost their registration, for the Event about a new one.
    pub lost: BTreeSet<InstanceAddr>,
    pub counted: Counted,
    pub unfinished: Unfinished,
    pub status_written: Option<Instant>,
    /// Changes that no Event has published yet, each direction by itself.
    pub pending_exports: Changes,
    pub pending_imports: Changes,
}

/// The values that the metrics count for the RegisteredService now. They outlive the object, so that they can be taken
/// off again.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// How the last pass ended.
    pub state: Option<&'static str>,
    pub skipped: BTreeMap<Reason, usize>,
    pub held: usize,
    pub lost: usize,
}

/// Directions whose last write failed: it may have taken effect all the same.
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
