//! The checkpoint of the controller: the values that one pass over a RegisteredService hands to the next.
//!
//! Owns the part beside [`twinspan_core::plan::service::Checkpoint`], for Events, metrics and status. It is lost with
//! the process. Refuses to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, Reason, ServiceKey};
use twinspan_core::plan::service::{self, Term};

use crate::api::RegisteredService;
use crate::api::conditions::{IMPORTED, find_true};
use crate::api::crds::UNSEEN;

/// The checkpoints by RegisteredService; clones share them. Boxes, because a map keeps room for more than it has.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints(Arc<Mutex<BTreeMap<ServiceKey, Box<Checkpoint>>>>);

impl Checkpoints {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, Box<Checkpoint>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &ServiceKey) -> Option<Checkpoint> {
        self.lock().get(key).map(|checkpoint| Checkpoint::clone(checkpoint))
    }

    pub fn set(&self, key: &ServiceKey, checkpoint: Checkpoint) {
        self.lock().insert(key.clone(), Box::new(checkpoint));
    }

    pub fn remove(&self, key: &ServiceKey) {
        self.lock().remove(key);
    }
}

/// The checkpoint of one RegisteredService.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    pub planned: service::Checkpoint,
    pub told: Told,
    pub counted: Counted,
    pub unfinished: Unfinished,
    /// The yielded endpoints of which the other RegisteredServices of the Service were told.
    pub yielded: BTreeSet<InstanceAddr>,
    pub found: Option<Found>,
    /// Since when slices of ours wait that an unknown RegisteredService owns.
    pub strays_since: Option<Timestamp>,
    /// Since when records that no session claims wait for a ServiceRegistry that has none yet.
    pub unserved_since: Option<Timestamp>,
    /// Passes in a row whose writes to the cluster lost a race.
    pub lost_races: u32,
    /// Passes in a row that left groups of slices over. Each begins with another group.
    pub unanswered_passes: usize,
    /// The writes that a dry run logged last.
    pub dry_run: String,
}

/// The status that a leadership found. Its own first status, before it can plan, would tell nothing of the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub term: Option<Term>,
    /// The generation that was processed.
    pub generation: Option<i64>,
    /// Whether the registry was read for it, though it may not be possible now.
    pub imported: bool,
}

impl Found {
    pub fn new(object: Option<&RegisteredService>, term: Option<Term>) -> Self {
        let Some(status) = object.and_then(|object| object.status.as_ref()) else {
            return Self { term, ..Self::default() };
        };
        let counted = status.instances.imported > 0 || status.instances.registry > 0;
        let imported = counted || find_true(&status.conditions, IMPORTED).is_some();
        // The API server gives a new object a status that says so.
        let generation = status.observed_generation.filter(|generation| *generation != UNSEEN);
        Self { term, generation, imported }
    }
}

/// The facts that Events have told, so that each is told once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The leadership in which it was told; another process may have led before.
    pub term: Option<Term>,
    /// Reason and message of a rejection.
    pub rejection: Option<(String, String)>,
    /// The start of a hold.
    pub hold: Option<Timestamp>,
    /// The reasons for which instances are left out.
    pub skipped: BTreeSet<String>,
    /// Instances that lost their registration; `None` if those that are found first were told.
    pub lost: Option<BTreeSet<InstanceAddr>>,
    /// The hash of the hold for which an approval was refused.
    pub refused: Option<String>,
    /// Risks of clients that read slices; `None` if those that are found first were told.
    pub risks: Option<BTreeSet<service::Risk>>,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A spec that nobody acted upon did not change since, or what it lacks would count as proven to be gone.
    #[test]
    fn the_status_of_a_new_object_is_no_earlier_generation() {
        let object = |status: serde_json::Value| -> RegisteredService {
            serde_json::from_value(json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
                "metadata": {"name": "echo"}, "spec": {"registryRef": {"name": "main"}}, "status": status}))
            .unwrap()
        };
        let found = |status| Found::new(Some(&object(status)), None).generation;
        assert_eq!(found(json!({"observedGeneration": UNSEEN})), None);
        assert_eq!(found(json!({"observedGeneration": 3})), Some(3));
    }
}
