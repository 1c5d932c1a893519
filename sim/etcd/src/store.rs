//! The multi-version store of etcd.
//!
//! Owns records, revisions, the events of each revision, and compaction (`server/storage/mvcc` of etcd 3.7). Refuses to
//! know leases, members and clients, and to decide who may write.

use std::collections::BTreeMap;

use etcd_client::proto::{PbEvent, PbKeyValue};

use crate::key_range::KeyRange;

/// A record of the store: what etcd calls a key-value pair, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub value: Vec<u8>,
    /// The revision at which the key was created last.
    pub create_revision: i64,
    /// The revision of the last change.
    pub mod_revision: i64,
    /// The number of changes since the key was created, from 1.
    pub version: i64,
    /// The lease that the record is attached to; 0 is none.
    pub lease: i64,
}

impl Record {
    pub(crate) fn to_pb(&self, key: &[u8]) -> PbKeyValue {
        PbKeyValue {
            key: key.to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: self.value.clone(),
            lease: self.lease,
        }
    }
}

/// A key of one revision, with its record before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyChange {
    pub(crate) key: Vec<u8>,
    pub(crate) before: Option<Record>,
    pub(crate) after: Option<Record>,
}

#[derive(Clone, Debug)]
struct Version {
    revision: i64,
    /// No record: the key was deleted.
    record: Option<Record>,
}

#[derive(Clone, Debug)]
struct Event {
    key: Vec<u8>,
    record: Option<Record>,
}

/// How far a reader sees: every member has applied the log up to its own point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) revision: i64,
    /// The revision compacted last; -1 is none (`compactMainRev` of kvstore.go).
    pub(crate) compacted: i64,
}

impl View {
    pub(crate) const NEW: Self = Self { revision: 1, compacted: -1 };
}

#[derive(Clone, Debug)]
pub(crate) struct Store {
    head: View,
    /// Versions of each key, in the order of their revisions; an empty history is removed.
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Events of each revision, in the order of their sub-revisions.
    log: BTreeMap<i64, Vec<Event>>,
    /// The compaction whose data is gone.
    pruned: i64,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { head: View::NEW, keys: BTreeMap::new(), log: BTreeMap::new(), pruned: View::NEW.compacted }
    }

    /// The newest revision, and the revision compacted last.
    pub(crate) fn head(&self) -> View {
        self.head
    }

    pub(crate) fn record(&self, key: &[u8]) -> Option<&Record> {
        self.keys.get(key)?.last()?.record.as_ref()
    }

    /// The records of a range as they were at a revision, in the order of keys.
    pub(crate) fn at(&self, range: &KeyRange, revision: i64) -> impl Iterator<Item = (&Vec<u8>, &Record)> {
        range.bounds().into_iter().flat_map(|bounds| self.keys.range::<[u8], _>(bounds)).filter_map(
            move |(key, versions)| {
                let after = versions.partition_point(|version| version.revision <= revision);
                Some((key, versions[..after].last()?.record.as_ref()?))
            },
        )
    }

    /// The events of a range at a revision; deletes have the key and the revision only. A compaction that this view has
    /// seen has removed all but the last event of each key at its revision.
    pub(crate) fn events(&self, revision: i64, view: View, range: &KeyRange) -> Vec<PbEvent> {
        let events = self.log.get(&revision).map_or(&[][..], Vec::as_slice);
        let superseded = |index: usize, key: &[u8]| {
            revision == view.compacted && events[index + 1..].iter().any(|later| later.key == key)
        };
        let kept = |(index, event): &(usize, &Event)| range.contains(&event.key) && !superseded(*index, &event.key);
        events.iter().enumerate().filter(kept).map(|(_, event)| to_event(revision, event)).collect()
    }

    /// The revisions from `from` up to and with `to` that have events.
    pub(crate) fn revisions(&self, from: i64, to: i64) -> impl Iterator<Item = i64> {
        (from <= to).then(|| self.log.range(from..=to)).into_iter().flatten().map(|(revision, _)| *revision)
    }

    /// Logical compaction; [`Store::prune`] removes the data.
    pub(crate) fn compact(&mut self, revision: i64) {
        self.head.compacted = revision;
    }

    /// Removes what no reader can ask for who has seen the compaction of this revision: all versions before it but the
    /// last one of each key.
    pub(crate) fn prune(&mut self, compacted: i64) {
        if compacted <= self.pruned {
            return;
        }
        self.pruned = compacted;
        self.log = self.log.split_off(&compacted);
        self.keys.retain(|_, versions| {
            let after = versions.partition_point(|version| version.revision <= compacted);
            let kept = after.saturating_sub(1);
            let deleted = versions.get(kept).is_some_and(|version| after > 0 && version.record.is_none());
            versions.drain(..if deleted { after } else { kept });
            !versions.is_empty()
        });
    }

    /// Raises the revision, and marks everything before as compacted (`etcdutl snapshot restore --bump-revision
    /// --mark-compacted`).
    pub(crate) fn bump(&mut self, by: i64) {
        self.head.revision += by;
        self.compact(self.head.revision);
        self.prune(self.head.revision);
    }

    pub(crate) fn put(&mut self, key: &[u8], value: Vec<u8>, lease: i64) -> KeyChange {
        let revision = self.head.revision + 1;
        let before = self.record(key).cloned();
        let record = Record {
            value,
            create_revision: before.as_ref().map_or(revision, |record| record.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(0, |record| record.version) + 1,
            lease,
        };
        self.add(key, Some(record.clone()));
        KeyChange { key: key.to_vec(), before, after: Some(record) }
    }

    /// Deletes a key that exists.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Option<KeyChange> {
        let before = self.record(key).cloned()?;
        self.add(key, None);
        Some(KeyChange { key: key.to_vec(), before: Some(before), after: None })
    }

    fn add(&mut self, key: &[u8], record: Option<Record>) {
        let version = Version { revision: self.head.revision + 1, record };
        self.keys.entry(key.to_vec()).or_default().push(version);
    }

    /// The changes since the last commit become a revision.
    pub(crate) fn commit(&mut self, changes: &[KeyChange]) -> i64 {
        self.head.revision += 1;
        let event = |change: &KeyChange| Event { key: change.key.clone(), record: change.after.clone() };
        self.log.insert(self.head.revision, changes.iter().map(event).collect());
        self.head.revision
    }
}

fn to_event(revision: i64, event: &Event) -> PbEvent {
    let kv = match &event.record {
        Some(record) => record.to_pb(&event.key),
        None => PbKeyValue { key: event.key.clone(), mod_revision: revision, ..PbKeyValue::default() },
    };
    PbEvent { r#type: i32::from(event.record.is_none()), kv: Some(kv), prev_kv: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Store, key: &str, value: &str) -> i64 {
        let change = store.put(key.as_bytes(), value.into(), 0);
        store.commit(&[change])
    }

    fn delete(store: &mut Store, key: &str) -> i64 {
        let change = store.delete(key.as_bytes()).expect("the key exists");
        store.commit(&[change])
    }

    fn values(store: &Store, revision: i64) -> Vec<String> {
        let all = KeyRange::prefix(b"");
        store.at(&all, revision).map(|(_, record)| String::from_utf8_lossy(&record.value).into_owned()).collect()
    }

    #[test]
    fn revisions_versions_and_creation_are_counted_as_etcd_does() {
        let mut store = Store::new();
        assert_eq!(put(&mut store, "a", "1"), 2);
        assert_eq!(put(&mut store, "a", "2"), 3);
        let record = store.record(b"a").expect("a");
        assert_eq!((record.create_revision, record.mod_revision, record.version), (2, 3, 2));
        assert_eq!(delete(&mut store, "a"), 4);
        assert_eq!(store.record(b"a"), None);
        put(&mut store, "a", "3");
        let record = store.record(b"a").expect("a");
        assert_eq!((record.create_revision, record.mod_revision, record.version), (5, 5, 1));
        assert_eq!(values(&store, 2), ["1"]);
        assert!(values(&store, 4).is_empty());
    }

    #[test]
    fn compaction_keeps_the_last_version_before_it_and_the_events_at_it() {
        let mut store = Store::new();
        for value in ["1", "2", "3"] {
            put(&mut store, "a", value);
        }
        put(&mut store, "b", "x");
        delete(&mut store, "b");
        store.compact(4);
        store.prune(4);
        assert_eq!(values(&store, 4), ["3"]);
        let all = KeyRange::prefix(b"");
        assert_eq!(store.revisions(1, 9).collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(store.events(4, store.head(), &all).len(), 1);
        store.compact(6);
        store.prune(6);
        assert_eq!(store.keys.len(), 1, "the deleted key has no version left");
        let kept = store.events(6, store.head(), &all);
        assert_eq!(kept.len(), 1, "the delete at the compacted revision stays (etcd issue 19179)");
        assert_eq!(kept[0].r#type, 1);
    }

    #[test]
    fn a_bump_raises_the_revision_and_compacts() {
        let mut store = Store::new();
        put(&mut store, "a", "1");
        store.bump(1000);
        assert_eq!(store.head(), View { revision: 1002, compacted: 1002 });
        assert_eq!(values(&store, 1002), ["1"]);
        assert_eq!(put(&mut store, "a", "2"), 1003);
    }
}
