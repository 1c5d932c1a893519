//! Answers to single requests, which tell of a key ahead of the watch or in its place.
//!
//! Owns the rule by which an answer counts: where the watch has told everything up to it, only what no order of events
//! explains. Refuses to send a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::codec::Range;
use twinspan_core::model::{LeaseId, RawRecord, Record, RecordKey, Revision, ServiceKey};
use twinspan_core::plan::RecordOp;

use super::RegistryView;
use super::in_flight::InFlight;
use crate::registry::records::Affected;
use crate::registry::scope::Scope;

impl RegistryView {
    /// A RegisteredService is about to send an operation.
    pub fn begin_write(&mut self, by: &Arc<ServiceKey>, op: &RecordOp) {
        self.writing.insert(op.key().clone(), InFlight { by: by.clone(), echo: None });
        if let RecordOp::Delete { key, if_revision, .. } = op {
            self.deleting.insert(key.clone(), *if_revision);
        }
    }

    /// The operation is no longer in flight, whether it succeeded or not.
    pub fn end_write(&mut self, op: &RecordOp) {
        self.writing.remove(op.key());
        self.deleting.remove(op.key());
    }

    /// The effects of events that came while a RegisteredService wrote their keys: they concern the others.
    pub fn take_echoes(&mut self) -> BTreeMap<Arc<ServiceKey>, Affected> {
        std::mem::take(&mut self.echoes)
    }

    /// True if an event has shown a later state of the key than the write at this revision left: then the writer was
    /// told of nothing, and does not know it.
    pub fn is_overtaken(&self, op: &RecordOp, revision: Revision) -> bool {
        let is_gone = || !matches!(op, RecordOp::Delete { .. }) && self.reached_of(op.key()) > revision;
        self.records.get(op.key()).map_or_else(is_gone, |known| known.mod_revision > revision)
    }

    /// Enters the state of a key at a revision from an answer, ahead of the watch.
    pub fn learnt(&mut self, key: &RecordKey, record: Option<&RawRecord>, revision: Revision, affected: &mut Affected) {
        self.answered = self.answered.max(revision);
        if record.is_some_and(|record| self.has_echoed(record)) {
            return;
        }
        let record = record.map(|raw| self.layout().decode(raw));
        let contradicts = record.as_ref().is_some_and(|record| self.contradicts(record, revision));
        let reached = self.reached_of(key);
        let shown = record.as_ref().map(|record| record.mod_revision);
        if !contradicts && reached >= revision && !self.is_behind_answer(key, shown, revision, reached) {
            return;
        }
        match record {
            Some(record) => {
                if contradicts {
                    self.incarnation.set_contradicted();
                }
                self.put(record, contradicts, affected);
            }
            None => {
                if self.records.get(key).is_some_and(|known| known.mod_revision < revision) {
                    self.records.remove(key, affected);
                }
                // Another range may have carried the view beyond the delete, which this range's watch still has to
                // report.
                if revision > self.revision || self.scope == Scope::FollowedNames {
                    self.tombstones.insert(key.clone(), revision);
                }
            }
        }
    }

    /// True if an event has shown the record of a write in flight already, and the view has it still.
    fn has_echoed(&self, record: &RawRecord) -> bool {
        let is_known = || self.records.get(&record.key).is_some_and(|known| known.mod_revision == record.mod_revision);
        self.writing.get(&record.key).is_some_and(|write| write.echo.as_ref() == Some(record)) && is_known()
    }

    /// True if the watch lost what an answer shows: it has told everything up to it, and no contradiction explains it.
    pub fn has_missed(&self, key: &RecordKey, record: Option<&RawRecord>, revision: Revision) -> bool {
        let (reached, shown) = (self.reached_of(key), record.map(|raw| raw.mod_revision));
        reached >= revision
            && self.is_behind_answer(key, shown, revision, reached)
            && !record.is_some_and(|raw| self.contradicts(&self.layout().decode(raw), revision))
    }

    /// True if the watch has told everything up to an answer, and yet lost what the answer shows (etcd issue 18089):
    /// the known record is older than the one of the answer, or than its revision, at which the key is gone.
    fn is_behind_answer(
        &self,
        key: &RecordKey,
        record: Option<Revision>,
        revision: Revision,
        reached: Revision,
    ) -> bool {
        let known = self.records.get(key).map(|record| record.mod_revision);
        match (record, known) {
            (Some(record), Some(known)) => known < record,
            // Later events may have deleted it again.
            (Some(_), None) => reached == revision,
            (None, Some(known)) => known < revision,
            (None, None) => false,
        }
    }

    /// Enters a record that a read found at a revision, and of which no event told. A read that later events have
    /// overtaken proves nothing.
    pub fn correct(&mut self, raw: &RawRecord, revision: Revision) -> Option<Affected> {
        let mut affected = Affected::default();
        if self.reached_of(&raw.key) > revision {
            return None;
        }
        self.put(self.layout().decode(raw), false, &mut affected);
        Some(affected)
    }

    /// The records of a range that are not newer than the revision.
    pub fn up_to(&self, range: &Range, at: Revision) -> Vec<Arc<Record>> {
        self.records.in_range(range).filter(|record| record.mod_revision <= at).cloned().collect()
    }

    /// True if a record of ours at the revision is not known, although the watch has told later events: it is gone, or
    /// its own event was lost.
    pub fn lacks(&self, key: &RecordKey, revision: Revision) -> bool {
        self.records.get(key).is_none() && self.reached_of(key) > revision
    }

    /// True if the key has a record that is not newer than the revision.
    pub fn has(&self, key: &RecordKey, at: Revision) -> bool {
        self.records.get(key).is_some_and(|record| record.mod_revision <= at)
    }

    /// True if the view knows nothing of the key that is as new as the revision.
    pub fn is_behind(&self, key: &RecordKey, revision: Revision) -> bool {
        self.layout().split_key(key).is_some() && self.revision_of(key).is_none_or(|known| known < revision)
    }

    /// Drops records that the registry no longer has, though no event told their deletion.
    pub fn vanished(&mut self, keys: &BTreeSet<RecordKey>, now: Timestamp) -> Affected {
        let mut affected = Affected::default();
        let vanished: Vec<Arc<Record>> = keys.iter().filter_map(|key| self.records.get(key).cloned()).collect();
        for record in &vanished {
            self.records.remove(&record.key, &mut affected);
        }
        let vanished: Vec<_> = vanished.into_iter().filter(|record| !self.is_our_delete(record)).collect();
        affected.look_ups = self.departures.unnoticed(self.records.layout(), &vanished, now);
        affected
    }

    /// One of our leases is gone: drops every record on it up to this revision, which the watch may not have reported
    /// yet. A later one is on a lease that was granted again.
    pub fn lease_lost(&mut self, lease: LeaseId, revision: Revision) -> Affected {
        let mut affected = Affected::default();
        for key in self.records.leases().get(&lease).cloned().unwrap_or_default() {
            if self.records.get(&key).is_some_and(|record| record.mod_revision <= revision) {
                self.records.remove(&key, &mut affected);
            }
        }
        affected
    }
}
