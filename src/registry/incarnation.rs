//! The incarnation of a registry: the known etcd, the same etcd after a rollback, or another etcd cluster.
//!
//! Owns the evidence from the first list of a session. It counts until every range was listed once, even if the session
//! ends before that. It comes from lists alone, because a member's own status may lag behind them. Refuses to know
//! records.

use std::collections::BTreeSet;

use twinspan_core::codec::Range;
use twinspan_core::model::Revision;
use twinspan_core::plan::service::Incarnation;

#[derive(Debug)]
pub struct IncarnationTracker {
    etcd_cluster_id: Option<u64>,
    incarnation: Incarnation,
    /// A session has listed every range since the incarnation changed.
    all_listed: bool,
    /// This session has received a list.
    first_list_seen: bool,
    /// Ranges whose records are of the earlier incarnation.
    outdated_ranges: BTreeSet<Range>,
}

impl IncarnationTracker {
    /// `etcd_cluster_id` is the one in the status, which an earlier process wrote.
    pub fn new(etcd_cluster_id: Option<u64>) -> Self {
        Self {
            etcd_cluster_id,
            incarnation: Incarnation::AsItWas,
            all_listed: true,
            first_list_seen: false,
            outdated_ranges: BTreeSet::new(),
        }
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// A session begins.
    pub fn begin(&mut self) {
        self.first_list_seen = false;
    }

    /// Every range was listed.
    pub fn set_all_listed(&mut self) {
        self.all_listed = true;
    }

    /// Takes the first list of a session. Returns true if etcd has another cluster ID, or a revision below `known`.
    pub fn listed(&mut self, cluster_id: u64, revision: Revision, known: Revision) -> bool {
        if std::mem::replace(&mut self.first_list_seen, true) {
            return false;
        }
        let incarnation = match self.etcd_cluster_id {
            Some(before) if before != cluster_id => Incarnation::ClusterChanged,
            Some(_) if revision < known => Incarnation::RolledBack,
            _ => Incarnation::AsItWas,
        };
        self.etcd_cluster_id = Some(cluster_id);
        if incarnation != Incarnation::AsItWas {
            (self.incarnation, self.all_listed) = (incarnation, false);
            return true;
        }
        if self.all_listed {
            self.incarnation = incarnation;
        }
        false
    }

    /// The view's records in these ranges are of the earlier incarnation.
    pub fn set_outdated(&mut self, ranges: BTreeSet<Range>) {
        self.outdated_ranges = ranges;
    }

    /// Takes the list of a range. Returns true if the view's records in it are of the earlier incarnation.
    pub fn renew(&mut self, range: &Range) -> bool {
        self.outdated_ranges.remove(range)
    }
}
