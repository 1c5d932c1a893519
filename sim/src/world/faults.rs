//! The faults of a run, and when processes of the operator started.
//!
//! Owns the times of both. Refuses to carry a fault out.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::World;
use crate::plan::Op;

impl World {
    /// Every fault of this run is entered.
    pub fn enter_faults(&self) {
        self.enters_faults.store(true, Ordering::Relaxed);
    }

    /// Whether no fault lasted at any moment of this time.
    pub fn was_quiet(&self, from: Duration, to: Duration) -> bool {
        self.enters_faults.load(Ordering::Relaxed) && !self.was_impaired(from, to)
    }

    /// A fault begins.
    pub fn impair(&self, op: Op) {
        let now = self.now();
        self.faults().push((now, now + op.length(), op));
    }

    fn faults(&self) -> MutexGuard<'_, Vec<(Duration, Duration, Op)>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fault lasted at any moment of this time.
    pub fn was_impaired(&self, from: Duration, to: Duration) -> bool {
        self.was_impaired_by(from, to, |_| true)
    }

    /// Whether one of these faults lasted at any moment of this time.
    pub fn was_impaired_by(&self, from: Duration, to: Duration, of: impl Fn(Op) -> bool) -> bool {
        self.faults().iter().any(|(began, ended, op)| *began <= to && *ended >= from && of(*op))
    }

    /// Whether a process can see that the registry was replaced at this time: by its cluster ID, or by revisions if it
    /// ran before.
    pub fn is_restore_evident(&self, at: Duration, author: &str) -> bool {
        let ran = self.started(author).is_some_and(|started| started < at);
        self.faults().iter().filter(|(began, _, _)| *began == at).any(|(_, _, op)| match op {
            Op::EtcdRestored { new_cluster_id: true, .. } | Op::EtcdEmptied { new_cluster_id: true } => true,
            Op::EtcdRestored { bumped, .. } => ran && !bumped,
            _ => ran,
        })
    }

    /// The times in which nothing that changed in a cluster was ever told by a watch.
    pub fn blind(&self, cluster: usize) -> Vec<(Duration, Duration)> {
        let clusters = self.clusters.len();
        let blinds = |op: &Op| matches!(op, Op::ApiBlind { cluster: of, .. } if of % clusters == cluster);
        let stalls = |op: &Op| blinds(op) || matches!(op, Op::ApiWatchesStalled { .. });
        let faults = self.faults();
        let all = faults.iter().filter(|(_, _, op)| blinds(op)).map(|(began, ended, _)| {
            // The first stall that ends lets every watch go on.
            let ends = faults.iter().filter(|(_, to, op)| stalls(op) && to > began).map(|(_, to, _)| *to);
            (*began, ends.min().unwrap_or(*ended))
        });
        all.collect()
    }

    /// A process of the operator starts.
    pub fn starts(&self, author: &str) {
        let now = self.now();
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).insert(author.to_owned(), now);
    }

    /// When a process of the operator started.
    pub fn started(&self, author: &str) -> Option<Duration> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).get(author).copied()
    }
}
