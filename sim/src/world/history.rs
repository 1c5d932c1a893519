//! The history of the registry, with what a restore changed in it.
//!
//! Owns the changes that no request made: a restored or emptied etcd has other records from one moment to the next.
//! Refuses to judge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use sim_etcd::{Change, Record};

use super::World;

/// The records of a version of the registry: how often it was replaced, and how often it was changed.
pub type Records = ((u32, usize), Arc<BTreeMap<Vec<u8>, Record>>);

/// The author of what a restore changes.
pub const RESTORE: &str = "restore";

impl World {
    /// Replaces the data of the registry, and enters the differences.
    pub fn replace_registry(&self, replace: impl FnOnce(&sim_etcd::Etcd)) {
        let before = self.etcd.records();
        replace(&self.etcd);
        let (after, time) = (self.etcd.records(), self.now());
        let (incarnation, revision) = (self.etcd.incarnation(), self.etcd.revision());
        let keys: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
        let changes = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).map(|key| Change {
            incarnation,
            revision,
            time,
            author: RESTORE.to_owned(),
            key: key.clone(),
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
            expired_lease: None,
        });
        let at = self.etcd.changes_len();
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push((at, changes.collect()));
    }

    /// All records by key, as they are committed.
    pub fn records(&self) -> Arc<BTreeMap<Vec<u8>, Record>> {
        let version = (self.etcd.incarnation(), self.etcd.changes_len());
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.0 != version {
            *records = (version, Arc::new(self.etcd.records()));
        }
        records.1.clone()
    }

    /// Every change of the registry, in order.
    pub fn registry_history(&self) -> Vec<Change> {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let mut history = Vec::new();
        let mut rest = self.etcd.history().into_iter().enumerate().peekable();
        for (at, changes) in replaced.iter() {
            while let Some((_, change)) = rest.next_if(|(index, _)| index < at) {
                history.push(change);
            }
            history.extend(changes.iter().cloned());
        }
        history.extend(rest.map(|(_, change)| change));
        history
    }
}
