//! The incarnation of a registry: the known etcd, the same etcd after a rollback, or another etcd cluster.
//!
//! Owns the evidence: the keys that a session reads before its first list, that list's cluster ID and revision, and
//! records whose revision went back. etcd's cluster ID is a hash of peer URLs and a token, so that a restored, an
//! emptied and another etcd may have the known one. The evidence counts until every hold that follows from it is in a
//! status, however many sessions end before that: a standby lists everything and holds nothing. Refuses to read keys
//! and records.

use std::collections::BTreeSet;

use twinspan_core::codec::Range;
use twinspan_core::model::Revision;
use twinspan_core::plan::service::Incarnation;

use super::are_two_etcds;

/// The registry that answered last, from the status that an earlier process wrote or from this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastKnown {
    /// The ID of the etcd cluster; 0 if it is unknown.
    pub etcd: u64,
    pub revision: Revision,
    /// The value of the incarnation key; `None` before the first contact.
    pub incarnation: Option<String>,
    /// The highest counter of our epoch in this incarnation.
    pub epoch: Option<u64>,
    /// The highest counter of our epoch, whatever became of the registry since; 0 if none is known.
    pub highest_epoch: u64,
    /// How the registry came back, while not every hold that follows from it is in the status of its object.
    pub unsettled: Option<Incarnation>,
}

impl From<(u64, Revision)> for LastKnown {
    fn from((etcd, revision): (u64, Revision)) -> Self {
        Self { etcd, revision, ..Self::default() }
    }
}

/// Without a known incarnation there is nothing to compare with: it is the first contact with the key.
impl LastKnown {
    fn misses(&self, found: &IncarnationKey) -> bool {
        self.incarnation.is_some() && *found == IncarnationKey::Missing
    }

    fn differs(&self, found: &IncarnationKey) -> bool {
        matches!((&self.incarnation, found), (Some(known), IncarnationKey::Value(found)) if known != found)
    }

    /// The highest known counter of our epoch.
    pub fn highest(&self) -> u64 {
        self.epoch.unwrap_or_default().max(self.highest_epoch)
    }

    /// Whether the incarnation key, as it was found now, is one of the known registry.
    pub fn explains(&self, found: &IncarnationKey) -> bool {
        !self.misses(found) && !self.differs(found)
    }
}

/// The keys of the fence that a session reads before its first list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceValues {
    pub incarnation: IncarnationKey,
    /// The counter of our epoch; `None` if there is no epoch.
    pub epoch: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncarnationKey {
    /// Our user may not read it.
    Unreadable,
    Missing,
    Value(String),
}

#[derive(Debug)]
pub struct IncarnationTracker {
    /// `None` before the first contact.
    known: Option<LastKnown>,
    /// The values that this session found; `None` without a fence.
    found: Option<FenceValues>,
    incarnation: Incarnation,
    /// Every hold that follows from the incarnation is in a status.
    settled: bool,
    /// This session has received a list.
    first_list_seen: bool,
    /// An answer contradicted the known revision of its key.
    contradicted: bool,
    /// Ranges whose records are of the earlier incarnation.
    outdated_ranges: BTreeSet<Range>,
}

impl IncarnationTracker {
    pub fn new(known: Option<LastKnown>) -> Self {
        Self {
            known,
            found: None,
            incarnation: Incarnation::AsItWas,
            settled: true,
            first_list_seen: false,
            contradicted: false,
            outdated_ranges: BTreeSet::new(),
        }
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The registry that answers. Its revision and whether it is settled are not kept here.
    pub fn known(&self) -> Option<&LastKnown> {
        self.known.as_ref()
    }

    /// A session begins. `found` is `None` without a fence.
    pub fn begin(&mut self, found: Option<FenceValues>) {
        self.first_list_seen = false;
        self.found = found;
    }

    /// Every hold that follows from the incarnation is in a status.
    pub fn set_settled(&mut self) {
        self.settled = true;
    }

    /// This process raised the epoch, and created the incarnation key if it was missing.
    pub fn raised(&mut self, epoch: u64, incarnation: Option<String>) {
        if let Some(known) = &mut self.known {
            known.epoch = Some(epoch);
            known.incarnation = incarnation.or_else(|| known.incarnation.take());
        }
    }

    /// The status tells of the registry that the leader knows. A session meets the keys of the fence as it begins, and
    /// the leader may create them and raise the epoch after that: the next session has to miss what the leader wrote.
    /// `is_listed` is false while a session begins: the keys that it found may be older than the status.
    pub fn told(&mut self, told: &LastKnown, is_listed: bool) {
        // Of a registry that came back, the status may tell what it was before.
        let as_it_was = is_listed && self.incarnation == Incarnation::AsItWas && told.unsettled.is_none();
        let Some(known) = self.known.as_mut().filter(|_| as_it_was) else { return };
        let same = known.incarnation.is_none() || known.incarnation == told.incarnation;
        if same && told.incarnation.is_some() && !are_two_etcds(known.etcd, told.etcd) {
            known.incarnation.clone_from(&told.incarnation);
            known.epoch = known.epoch.max(told.epoch);
        }
    }

    /// The server says that a key has an older revision than the known one.
    pub fn set_contradicted(&mut self) {
        self.contradicted = true;
    }

    pub fn is_contradicted(&self) -> bool {
        self.contradicted
    }

    /// Takes the first list of a session. Returns true if it is not of the known registry, or of an older state of it.
    pub fn listed(&mut self, cluster_id: u64, revision: Revision, known_revision: Revision) -> bool {
        if std::mem::replace(&mut self.first_list_seen, true) {
            return false;
        }
        let found = self.found.take();
        let incarnation = self.judge(cluster_id, revision, known_revision, found.as_ref());
        self.take_over(cluster_id, found);
        self.contradicted = false;
        if incarnation != Incarnation::AsItWas {
            (self.incarnation, self.settled) = (incarnation, false);
            return true;
        }
        if self.settled {
            self.incarnation = incarnation;
        }
        false
    }

    fn judge(
        &self,
        cluster_id: u64,
        revision: Revision,
        known_revision: Revision,
        found: Option<&FenceValues>,
    ) -> Incarnation {
        let Some(known) = &self.known else { return Incarnation::AsItWas };
        let value = found.map_or(&IncarnationKey::Unreadable, |found| &found.incarnation);
        let (missing, differs) = (known.misses(value), known.differs(value));
        let epoch_went_back =
            found.is_some_and(|found| found.epoch.unwrap_or_default() < known.epoch.unwrap_or_default());
        if differs || are_two_etcds(known.etcd, cluster_id) {
            Incarnation::ClusterChanged
        } else if missing || epoch_went_back || revision < known_revision || self.contradicted {
            Incarnation::RolledBack
        } else {
            known.unsettled.unwrap_or(Incarnation::AsItWas)
        }
    }

    /// The registry that answers is the known one from now on.
    fn take_over(&mut self, cluster_id: u64, found: Option<FenceValues>) {
        let known = self.known.take().unwrap_or_default();
        let (incarnation, epoch) = match found {
            None => (known.incarnation, known.epoch),
            Some(FenceValues { incarnation, epoch }) => match incarnation {
                IncarnationKey::Unreadable => (known.incarnation, epoch),
                IncarnationKey::Missing => (None, epoch),
                IncarnationKey::Value(value) => (Some(value), epoch),
            },
        };
        let etcd = if cluster_id == 0 { known.etcd } else { cluster_id };
        self.known = Some(LastKnown { etcd, incarnation, epoch, ..LastKnown::default() });
    }

    /// Records show, after the first list, that the registry is at an older state.
    pub fn set_rolled_back(&mut self) {
        (self.incarnation, self.settled) = (Incarnation::RolledBack, false);
    }

    /// The view's records in these ranges are of the earlier incarnation.
    pub fn set_outdated(&mut self, ranges: BTreeSet<Range>) {
        self.outdated_ranges = ranges;
    }

    /// Whether any record is of the earlier incarnation.
    pub fn has_outdated(&self) -> bool {
        !self.outdated_ranges.is_empty()
    }

    pub fn is_outdated(&self, range: &Range) -> bool {
        self.outdated_ranges.contains(range)
    }

    /// Takes the list of a range. Returns true if the view's records in it are of the earlier incarnation.
    pub fn renew(&mut self, range: &Range) -> bool {
        self.outdated_ranges.remove(range)
    }
}
