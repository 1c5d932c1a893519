//! The view of a registry: the in-memory picture of every record that is followed.
//!
//! - [`answers`]: what answers to single requests tell, ahead of the watch or in its place.
//! - [`in_flight`]: a write whose answer is awaited. [`snapshots`]: what a pass reads.
//!
//! Owns the order of changes: a list, a watch event or an answer is older or newer than the known state, and only newer
//! ones count (`docs/decisions/0003`). [`super::records`] indexes the records,
//! [`twinspan_core::plan::departure::evidence`] classifies their departures, and [`super::incarnation`] detects another
//! etcd. Refuses to do I/O.

mod answers;
mod in_flight;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::codec::{Layout, Range};
use twinspan_core::model::{Record, RecordKey, Revision, ServiceKey};
use twinspan_core::plan::departure::evidence::DepartureTracker;
use twinspan_core::plan::service::{Incarnation, ViewState};

use self::in_flight::InFlight;
use super::incarnation::{FenceValues, IncarnationTracker, LastKnown};
use super::reached::Reached;
use super::records::{Affected, RecordStore};
use super::scope::Scope;
use super::{Change, ListResponse, RegistryError};

/// A complete list of a range, decoded.
#[derive(Clone, Debug)]
pub struct Listing {
    pub cluster_id: u64,
    pub revision: Revision,
    pub records: Vec<Record>,
}

impl Listing {
    /// Records that are decoded before somebody else has a turn.
    const IN_A_ROW: usize = 500;

    /// Decodes a list. The view is not locked meanwhile, and other tasks of the process go on.
    pub async fn decoded(layout: &Layout, list: ListResponse) -> Self {
        let ListResponse { cluster_id, revision, records: raw } = list;
        let mut records = Vec::with_capacity(raw.len());
        for some in raw.chunks(Self::IN_A_ROW) {
            records.extend(some.iter().map(|raw| layout.decode(raw)));
            tokio::task::yield_now().await;
        }
        Self { cluster_id, revision, records }
    }
}

#[derive(Debug)]
pub struct RegistryView {
    records: RecordStore,
    state: ViewState,
    /// The scope of the session.
    scope: Scope,
    /// Ranges that this session has listed.
    listed: BTreeSet<Range>,
    /// Ranges without read permission, while others can be listed.
    refused: BTreeMap<Range, RegistryError>,
    incarnation: IncarnationTracker,
    revision: Revision,
    /// The newest revision of an answer to a write or a read, which the watch may not have reached yet.
    answered: Revision,
    /// An answer that is not newer than this adds nothing: the events after it may have undone what it shows.
    reached: Reached,
    /// The time of the first list of this session.
    first_listed: Option<Timestamp>,
    pub(super) departures: DepartureTracker,
    /// Our deletes in flight: their events do not count as departures.
    deleting: BTreeMap<RecordKey, Revision>,
    /// The writes in flight, by key: their events are echoes.
    writing: BTreeMap<RecordKey, InFlight>,
    /// The effects of echoes, which the writer knows, until somebody takes them.
    echoes: BTreeMap<Arc<ServiceKey>, Affected>,
    /// Revisions of our deletes that the watch has not reported yet: an older event must not bring the record back.
    tombstones: BTreeMap<RecordKey, Revision>,
}

impl RegistryView {
    /// `before` is the registry in the status, which an earlier process wrote.
    pub fn new(layout: Layout, cluster_id: impl Into<String>, before: Option<LastKnown>) -> Self {
        let cluster_id = cluster_id.into();
        Self {
            departures: DepartureTracker::new(layout.format(), cluster_id.clone()),
            scope: Scope::at_first(&layout),
            records: RecordStore::new(layout, cluster_id),
            state: ViewState::Unknown,
            listed: BTreeSet::new(),
            refused: BTreeMap::new(),
            revision: before.as_ref().map(|before| before.revision).unwrap_or_default(),
            incarnation: IncarnationTracker::new(before),
            answered: 0,
            reached: Reached::default(),
            first_listed: None,
            deleting: BTreeMap::new(),
            writing: BTreeMap::new(),
            echoes: BTreeMap::new(),
            tombstones: BTreeMap::new(),
        }
    }

    pub fn layout(&self) -> &Layout {
        self.records.layout()
    }

    pub fn state(&self) -> ViewState {
        self.state
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation.incarnation()
    }

    /// The connection is gone: the records stay, but no plan may rest on them.
    pub fn set_stale(&mut self) {
        if self.state == ViewState::Fresh {
            self.state = ViewState::Stale;
        }
    }

    /// A session begins: it has listed nothing yet. `found` are the keys of the fence, if there is one.
    pub fn begin(&mut self, found: Option<FenceValues>) {
        self.incarnation.begin(found);
        // Every answer came before the first list is asked for, so an older list is one of an older state.
        self.revision = self.newest_revision();
        self.listed.clear();
        self.reached = Reached::default();
        self.first_listed = None;
    }

    /// The scope of the session that begins. Records that lie in no range of it are forgotten; those of an earlier
    /// incarnation stay such.
    pub fn set_scope(&mut self, scope: Scope) {
        if self.scope == scope {
            return;
        }
        self.scope = scope;
        self.refused.clear();
        for key in self.records.of_odd_names().filter(|_| scope == Scope::FollowedNames).collect::<Vec<_>>() {
            self.records.remove(&key, &mut Affected::default());
        }
        if self.incarnation.has_outdated() {
            self.incarnation.set_outdated(self.ranges_of_records());
        }
    }

    fn ranges_of_records(&self) -> BTreeSet<Range> {
        self.scope.ranges(self.records.names())
    }

    /// The registry that answers.
    pub fn last_known(&self) -> Option<&LastKnown> {
        self.incarnation.known()
    }

    /// This process raised the epoch, and created the incarnation key if it was missing.
    pub fn raised(&mut self, epoch: u64, incarnation: Option<String>) {
        self.incarnation.raised(epoch, incarnation);
    }

    /// The status tells of the registry that the leader knows.
    pub fn told(&mut self, told: &LastKnown) {
        self.incarnation.told(told, self.state == ViewState::Fresh);
    }

    /// The newest revision that is known, from the watch or from an answer.
    pub fn newest_revision(&self) -> Revision {
        self.revision.max(self.answered)
    }

    /// An answer contradicts what is known: no plan may rest on it.
    pub fn set_contradicted(&mut self) {
        self.incarnation.set_contradicted();
        self.set_stale();
    }

    /// An answer contradicts what is known, as after a rollback: the session has to list everything anew.
    pub fn is_contradicted(&self) -> bool {
        self.incarnation.is_contradicted()
    }

    /// Every hold that follows from the incarnation is in a status.
    pub fn set_settled(&mut self) {
        self.incarnation.set_settled();
    }

    /// Decodes a list and enters it.
    #[cfg(test)]
    pub fn reset_to(&mut self, range: &Range, list: &ListResponse, now: Timestamp) -> Affected {
        let records = list.records.iter().map(|raw| self.layout().decode(raw)).collect();
        self.reset(range, Listing { cluster_id: list.cluster_id, revision: list.revision, records }, now)
    }

    /// Enters the complete list of a range. It replaces what is known, but for what is newer than the list.
    pub fn reset(&mut self, range: &Range, listing: Listing, now: Timestamp) -> Affected {
        let mut affected = Affected::default();
        let first_listed = *self.first_listed.get_or_insert(now);
        let came_back = self.incarnation.listed(listing.cluster_id, listing.revision, self.revision);
        if came_back || self.goes_back(range, &listing) {
            if !came_back {
                self.incarnation.set_rolled_back();
                // The ranges that this session listed before were judged as those of the known registry.
                self.departures.rolled_back_since(first_listed);
            }
            let mut outdated = self.ranges_of_records();
            outdated.retain(|range| !self.listed.contains(range));
            outdated.insert(range.clone());
            self.begin_anew_at(listing.revision, outdated);
        }
        // The list may be one of another state, with another record at the same revision.
        self.writing.values_mut().for_each(|write| write.echo = None);
        let another = self.incarnation.renew(range);
        let newer = |revision: Revision| !another && revision > listing.revision;

        let listed: BTreeSet<&RecordKey> = listing.records.iter().map(|record| &record.key).collect();
        let vanished: Vec<Arc<Record>> = self
            .records
            .in_range(range)
            // The list lacks records that we wrote while it was in flight.
            .filter(|record| !listed.contains(&record.key) && !newer(record.mod_revision))
            .cloned()
            .collect();
        for record in &vanished {
            self.records.remove(&record.key, &mut affected);
        }
        let vanished: Vec<_> = vanished.into_iter().filter(|record| !self.is_our_delete(record)).collect();
        if another {
            self.departures.rolled_back(self.records.layout(), &vanished, now);
        } else {
            affected.look_ups = self.departures.missing_in_a_list(self.records.layout(), &vanished, now);
        }
        for record in listing.records {
            if !self.tombstones.get(&record.key).copied().is_some_and(newer) {
                let (key, before) = (record.key.clone(), self.records.get(&record.key).cloned());
                self.put(record, another, &mut affected);
                if let (true, Some(before)) = (another, before) {
                    let after = self.records.get(&key).cloned();
                    self.departures.set_back(self.records.layout(), &before, after.as_deref(), now);
                }
            }
        }
        let layout = self.records.layout();
        self.tombstones.retain(|key, revision| !in_range(layout, key, range) || newer(*revision));
        self.revision = self.revision.max(listing.revision);
        match range {
            Range::Everything => self.reached.set_all(listing.revision),
            Range::Service(name) => self.reached.set(name.as_str().as_bytes(), listing.revision),
        }
        self.listed.insert(range.clone());
        self.refused.remove(range);
        self.state = ViewState::Fresh;
        self.departures.forget(now);
        affected
    }

    /// The session has nothing to list: the keys of the fence, read at this revision, are all that it sees of the
    /// registry before anything is written there.
    pub fn listed_nothing(&mut self, cluster_id: u64, revision: Revision) {
        if self.incarnation.listed(cluster_id, revision, self.revision) {
            self.begin_anew_at(revision, self.ranges_of_records());
        }
        self.revision = self.revision.max(revision);
    }

    /// The registry came back as an older or another one, whose revisions cannot be compared with known ones.
    fn begin_anew_at(&mut self, revision: Revision, outdated: BTreeSet<Range>) {
        self.incarnation.set_outdated(outdated);
        self.tombstones.clear();
        (self.revision, self.answered) = (revision, 0);
    }

    /// True if the list proves a rollback.
    fn goes_back(&self, range: &Range, listing: &Listing) -> bool {
        let proof = |record: &Record| self.contradicts(record, listing.revision);
        !self.incarnation.is_outdated(range) && listing.records.iter().any(proof)
    }

    /// True if the server has, at a revision, a record that the known one rules out: on one line of revisions, a key
    /// never has an older revision than before, nor another value at the same one.
    fn contradicts(&self, record: &Record, at: Revision) -> bool {
        let known = self.records.get(&record.key);
        let newest = known.map(|known| known.mod_revision).max(self.tombstones.get(&record.key).copied());
        newest.is_some_and(|known| record.mod_revision < known && known <= at)
            || known.is_some_and(|known| known.mod_revision == record.mod_revision && **known != *record)
    }

    /// A range cannot be listed: its records stay, but no plan may rest on them.
    pub fn refuse(&mut self, range: &Range, error: RegistryError) -> Affected {
        let mut affected = Affected::default();
        self.listed.remove(range);
        let before = self.refused.insert(range.clone(), error.clone());
        if let Range::Service(name) = range
            && before != Some(error)
        {
            affected.names.insert(name.as_str().as_bytes().into());
        }
        affected
    }

    /// The ranges that cannot be listed while others can.
    pub fn refused(&self) -> impl ExactSizeIterator<Item = &Range> {
        self.refused.keys()
    }

    /// The ranges with records, a list or an error.
    pub fn ranges(&self) -> BTreeSet<Range> {
        let mut ranges = self.ranges_of_records();
        ranges.extend(self.listed.iter().chain(self.refused.keys()).cloned());
        ranges
    }

    /// A range is no longer watched: drops everything known of it.
    pub fn forget(&mut self, range: &Range) {
        self.listed.remove(range);
        self.refused.remove(range);
        self.incarnation.renew(range);
        if let Range::Service(name) = range {
            self.reached.forget(name.as_str().as_bytes());
        }
        let keys: Vec<RecordKey> = self.records.in_range(range).map(|record| record.key.clone()).collect();
        for key in keys {
            self.records.remove(&key, &mut Affected::default());
        }
    }

    /// Enters events of the watch, in order. The effects of [`Self::take_echoes`] are not among the returned ones.
    pub fn apply(&mut self, changes: &[Change], now: Timestamp) -> Affected {
        let mut affected = Affected::default();
        // Events of one revision always arrive together.
        for together in changes.chunk_by(|a, b| a.revision() == b.revision()) {
            let (mut deleted, mut unknown) = (Vec::new(), Vec::new());
            for change in together {
                let mut own = Affected::default();
                match change {
                    // The answer to our own write came first, as it mostly does.
                    Change::Put(raw) if self.knows(&raw.key, raw.mod_revision) => {}
                    Change::Put(raw) => self.put(self.records.layout().decode(raw), false, &mut own),
                    Change::Delete { key, revision } => {
                        if self.tombstones.get(key).is_some_and(|deleted| deleted <= revision) {
                            self.tombstones.remove(key);
                        }
                        let known = self.records.get(key).filter(|record| record.mod_revision < *revision).cloned();
                        if let Some(record) = known {
                            self.records.remove(key, &mut own);
                            if !self.is_our_delete(&record) {
                                deleted.push(record);
                            }
                        } else {
                            unknown.push(key);
                        }
                    }
                }
                match self.writing.get_mut(change.key()).filter(|_| !own.is_empty()) {
                    Some(write) => {
                        write.echo = change.record().cloned();
                        self.echoes.entry(write.by.clone()).or_default().add(own);
                    }
                    None => affected.add(own),
                }
            }
            let layout = self.records.layout();
            affected.look_ups.extend(self.departures.deleted_together(layout, &deleted, &unknown, now));
            if let Some(change) = together.first() {
                self.revision = self.revision.max(change.revision());
            }
            self.set_reached(together);
        }
        if self.listed.contains(&Range::Everything) {
            // One range has one order. With several ranges, only the progress of all rules out older events.
            self.tombstones.retain(|_, revision| *revision > self.revision);
        }
        self.departures.forget(now);
        affected
    }

    /// Events of one range arrive in order; nothing follows for the others.
    fn set_reached(&mut self, together: &[Change]) {
        let everything = self.listed.contains(&Range::Everything);
        for change in together {
            match self.records.layout().split_key(change.key()) {
                _ if everything => self.reached.set_all(change.revision()),
                Some((name, _)) => self.reached.set(name, change.revision()),
                None => {}
            }
        }
    }

    fn is_our_delete(&self, record: &Record) -> bool {
        self.deleting.get(&record.key) == Some(&record.mod_revision)
    }

    /// The watch has reported everything up to the revision.
    pub fn progressed(&mut self, revision: Revision, now: Timestamp) {
        self.revision = self.revision.max(revision);
        self.reached.set_all(revision);
        self.tombstones.retain(|_, deleted| *deleted > revision);
        self.departures.forget(now);
    }

    fn reached_of(&self, key: &RecordKey) -> Revision {
        self.records.layout().split_key(key).map(|(name, _)| self.reached.of(name)).unwrap_or_default()
    }

    /// The ranges that this session has listed.
    pub fn followed(&self) -> BTreeSet<Range> {
        self.listed.clone()
    }

    /// True if this session has listed the range and follows it still.
    pub fn is_listed(&self, range: &Range) -> bool {
        self.listed.contains(range)
    }

    /// The newest revision at which the key was written or deleted, as far as it is known.
    fn revision_of(&self, key: &RecordKey) -> Option<Revision> {
        let known = self.records.get(key).map(|record| record.mod_revision);
        known.max(self.tombstones.get(key).copied())
    }

    /// Whether what is known of a key is as new as a revision of it.
    fn knows(&self, key: &RecordKey, revision: Revision) -> bool {
        self.revision_of(key).is_some_and(|known| known >= revision)
    }

    fn put(&mut self, record: Record, any_revision: bool, affected: &mut Affected) {
        if !any_revision && self.knows(&record.key, record.mod_revision) {
            return;
        }
        if any_revision && self.records.get(&record.key).is_some_and(|known| **known == record) {
            return;
        }
        if let Some((name, _)) = self.records.layout().split_key(&record.key) {
            self.departures.registered(name, record.endpoint_addresses());
        }
        self.records.insert(record, affected);
    }
}

fn in_range(layout: &Layout, key: &RecordKey, range: &Range) -> bool {
    match range {
        Range::Everything => true,
        Range::Service(name) => layout.split_key(key).is_some_and(|(found, _)| found == name.as_str().as_bytes()),
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
