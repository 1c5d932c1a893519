//! The store below the API servers: objects, one counter of versions for all kinds, and every change since the
//! beginning.
//!
//! Owns the order of changes, the state at each of them, and the window from which watches may begin. Refuses to know
//! what a write does to an object, and how time passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

/// An applied change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The `resourceVersion` of the object after it; of a deletion, the version at which it happened.
    pub revision: u64,
    /// The time since the cluster began.
    pub at: Duration,
    pub author: Arc<str>,
    pub resource: Arc<str>,
    pub namespace: String,
    pub name: String,
    /// `status`, or empty.
    pub subresource: &'static str,
    /// `None` for a creation.
    pub before: Option<Arc<Value>>,
    /// `None` for a deletion.
    pub after: Option<Arc<Value>>,
}

/// The place and the origin of a change.
#[derive(Clone, Debug)]
pub struct Origin {
    pub at: Duration,
    pub author: Arc<str>,
    pub subresource: &'static str,
}

/// A complete state, as a backup has it.
#[derive(Clone, Debug)]
pub struct Backup {
    objects: Vec<BTreeMap<String, Arc<Value>>>,
    revision: u64,
}

#[derive(Debug)]
pub struct Store {
    /// The resource of each kind, by the kind's number.
    resources: Vec<Arc<str>>,
    /// By kind and key.
    objects: Vec<BTreeMap<String, Arc<Value>>>,
    revision: u64,
    changes: Vec<Change>,
    /// The indices of each kind's changes.
    by_kind: Vec<Vec<usize>>,
    /// The changes before this one belong to a past that a restore replaced; no watch can see them.
    era: usize,
    /// The version of the state with which the era began.
    era_revision: u64,
    /// Versions below this one were compacted.
    compacted: u64,
    /// The events of each kind from which a watch may begin.
    window: usize,
    /// Objects with defaults that only readings have: the next write stores them, also one that changes nothing.
    pub defaulted: BTreeSet<(usize, String)>,
}

impl Store {
    pub fn new(resources: Vec<Arc<str>>, window: usize) -> Self {
        let kinds = resources.len();
        Self {
            resources,
            objects: vec![BTreeMap::new(); kinds],
            revision: 1,
            changes: Vec::new(),
            by_kind: vec![Vec::new(); kinds],
            era: 0,
            era_revision: 1,
            compacted: 0,
            window,
            defaulted: BTreeSet::new(),
        }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The first change that is not undone by a restore.
    pub fn era(&self) -> usize {
        self.era
    }

    pub fn get(&self, kind: usize, key: &str) -> Option<&Arc<Value>> {
        self.objects[kind].get(key)
    }

    pub fn all(&self, kind: usize) -> impl Iterator<Item = (&String, &Arc<Value>)> {
        self.objects[kind].iter()
    }

    /// Writes an object at the next version, or removes it.
    pub fn write(&mut self, kind: usize, key: &str, object: Option<Value>, origin: Origin) -> Option<Arc<Value>> {
        self.revision += 1;
        self.defaulted.remove(&(kind, key.to_owned()));
        let revision = self.revision;
        let after = object.map(|mut object| {
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
            Arc::new(object)
        });
        self.record(kind, key, after.clone(), origin, revision);
        after
    }

    fn record(&mut self, kind: usize, key: &str, after: Option<Arc<Value>>, origin: Origin, revision: u64) {
        let before = match &after {
            Some(object) => self.objects[kind].insert(key.to_owned(), object.clone()),
            None => self.objects[kind].remove(key),
        };
        let text = |field: &str| {
            let object = after.as_ref().or(before.as_ref());
            object.and_then(|object| object["metadata"][field].as_str()).unwrap_or_default().to_owned()
        };
        let (namespace, name) = (text("namespace"), text("name"));
        self.by_kind[kind].push(self.changes.len());
        self.changes.push(Change {
            revision,
            at: origin.at,
            author: origin.author,
            resource: self.resources[kind].clone(),
            namespace,
            name,
            subresource: origin.subresource,
            before,
            after,
        });
    }

    /// The objects of a kind after so many changes of all kinds, in the order of their keys.
    pub fn list_at(&self, kind: usize, changes: usize) -> Vec<(String, Arc<Value>)> {
        let mine = &self.by_kind[kind];
        let undone = &mine[mine.partition_point(|index| *index < changes)..];
        if undone.is_empty() {
            return self.all(kind).map(|(key, object)| (key.clone(), object.clone())).collect();
        }
        let mut objects = self.objects[kind].clone();
        for change in undone.iter().rev().map(|index| &self.changes[*index]) {
            let key = match change.namespace.as_str() {
                "" => change.name.clone(),
                namespace => format!("{namespace}/{}", change.name),
            };
            match &change.before {
                Some(before) => drop(objects.insert(key, before.clone())),
                None => drop(objects.remove(&key)),
            }
        }
        objects.into_iter().collect()
    }

    /// An object after so many changes.
    pub fn get_at(&self, kind: usize, key: &str, changes: usize) -> Option<Arc<Value>> {
        if changes >= self.changes.len() {
            return self.get(kind, key).cloned();
        }
        self.list_at(kind, changes).into_iter().find(|(known, _)| known == key).map(|(_, object)| object)
    }

    /// The version of the state after so many changes.
    pub fn revision_at(&self, changes: usize) -> u64 {
        match changes.checked_sub(1) {
            Some(last) if changes > self.era => self.changes[last].revision,
            _ => self.era_revision,
        }
    }

    /// How many changes the state at a version has seen.
    pub fn changes_until(&self, revision: u64) -> usize {
        self.era + self.changes[self.era..].partition_point(|change| change.revision <= revision)
    }

    /// A change of a kind by its number among them.
    pub fn event(&self, kind: usize, number: usize) -> Option<(usize, &Change)> {
        let index = *self.by_kind[kind].get(number)?;
        Some((index, &self.changes[index]))
    }

    /// The number of a kind's first change after so many changes of all kinds.
    pub fn next_event(&self, kind: usize, changes: usize) -> usize {
        self.by_kind[kind].partition_point(|index| *index < changes)
    }

    /// The oldest version from which a watch of the kind may begin.
    pub fn oldest(&self, kind: usize) -> u64 {
        let mine = &self.by_kind[kind];
        let dropped = mine.len().checked_sub(self.window + 1).and_then(|last| {
            let index = mine[last];
            (index >= self.era).then(|| self.changes[index].revision)
        });
        dropped.unwrap_or_default().max(self.compacted).max(self.era_revision)
    }

    /// The oldest version that can still be listed.
    pub fn oldest_listable(&self) -> u64 {
        self.compacted.max(self.era_revision)
    }

    /// Drops the window.
    pub fn compact(&mut self) {
        self.compacted = self.revision;
    }

    pub fn back_up(&self) -> Backup {
        Backup { objects: self.objects.clone(), revision: self.revision }
    }

    /// Puts the objects back as they were, and begins an era. Versions go on, or continue from the backup's.
    pub fn restore(&mut self, backup: Backup, goes_back: bool, origin: &Origin) {
        for (kind, objects) in backup.objects.into_iter().enumerate() {
            let keys: BTreeSet<String> = objects.keys().chain(self.objects[kind].keys()).cloned().collect();
            for key in keys {
                if objects.get(&key) != self.objects[kind].get(&key) {
                    self.record(kind, &key, objects.get(&key).cloned(), origin.clone(), backup.revision);
                }
            }
        }
        self.revision = if goes_back { backup.revision } else { self.revision + 1 };
        self.era = self.changes.len();
        self.era_revision = self.revision;
        self.compacted = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin { at: Duration::ZERO, author: "a".into(), subresource: "" }
    }

    fn object(name: &str, value: u32) -> Option<Value> {
        Some(json!({"metadata": {"name": name}, "value": value}))
    }

    fn store(window: usize) -> Store {
        Store::new(vec!["as".into(), "bs".into()], window)
    }

    fn values(objects: &[(String, Arc<Value>)]) -> Vec<(String, u64)> {
        objects.iter().map(|(key, object)| (key.clone(), object["value"].as_u64().unwrap())).collect()
    }

    #[test]
    fn every_past_state_can_be_listed() {
        let mut store = store(10);
        store.write(0, "a", object("a", 1), origin());
        store.write(1, "x", object("x", 9), origin());
        store.write(0, "a", object("a", 2), origin());
        store.write(0, "b", object("b", 3), origin());
        store.write(0, "a", None, origin());
        let at = |changes| values(&store.list_at(0, changes));
        assert_eq!(at(0), []);
        assert_eq!(at(2), [("a".to_owned(), 1)]);
        assert_eq!(at(3), [("a".to_owned(), 2)]);
        assert_eq!(at(4), [("a".to_owned(), 2), ("b".to_owned(), 3)]);
        assert_eq!(at(5), [("b".to_owned(), 3)]);
        assert_eq!((store.revision_at(0), store.revision_at(3), store.changes_until(4)), (1, 4, 3));
        assert_eq!(store.get_at(0, "a", 3).unwrap()["metadata"]["resourceVersion"], "4");
    }

    #[test]
    fn the_window_is_counted_by_kind() {
        let mut store = store(2);
        for value in 0..3 {
            store.write(0, "a", object("a", value), origin());
        }
        store.write(1, "x", object("x", 9), origin());
        assert_eq!((store.oldest(0), store.oldest(1)), (2, 1));
        store.compact();
        assert_eq!((store.oldest(0), store.oldest_listable()), (5, 5));
    }

    #[test]
    fn a_restore_puts_objects_back_and_begins_an_era() {
        for goes_back in [false, true] {
            let mut store = store(10);
            store.write(0, "a", object("a", 1), origin());
            let backup = store.back_up();
            store.write(0, "a", object("a", 2), origin());
            store.write(0, "b", object("b", 3), origin());
            store.restore(backup, goes_back, &origin());
            assert_eq!(values(&store.list_at(0, store.changes().len())), [("a".to_owned(), 1)]);
            assert_eq!(store.get(0, "a").unwrap()["metadata"]["resourceVersion"], "2");
            let now = if goes_back { 2 } else { 5 };
            assert_eq!((store.revision(), store.oldest(0), store.revision_at(store.changes().len())), (now, now, now));
            assert_eq!(store.next_event(0, store.changes_until(now)), 5 - 1 + 1);
            store.write(0, "a", object("a", 4), origin());
            assert_eq!(store.event(0, 5).unwrap().1.revision, now + 1);
        }
    }
}
