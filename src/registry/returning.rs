//! Whether the registry that answers is the one that was known.
//!
//! Owns what the first list of a session says about that, and for how long it counts: until every range was listed once, also where a
//! session ends before that. Takes it from lists alone, for a member's own status may lag behind them. Refuses to know records.

use std::collections::BTreeSet;

use twinspan_core::codec::Range;
use twinspan_core::model::Revision;

/// How a registry came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// As it was, or as one that is met for the first time.
    AsItWas,
    /// Another etcd cluster answers.
    ClusterChanged,
    /// The same one, at an older revision.
    RolledBack,
}

#[derive(Debug)]
pub struct Returning {
    etcd_cluster_id: Option<u64>,
    returned: Return,
    /// A session has listed everything since.
    settled: bool,
    /// Whether this session has had a list.
    met: bool,
    /// Ranges whose records are still those of the registry as it was before.
    former: BTreeSet<Range>,
}

impl Returning {
    /// `etcd_cluster_id` is what another process met, where status tells of one.
    pub fn new(etcd_cluster_id: Option<u64>) -> Self {
        Self { etcd_cluster_id, returned: Return::AsItWas, settled: true, met: false, former: BTreeSet::new() }
    }

    pub fn returned(&self) -> Return {
        self.returned
    }

    /// A session begins.
    pub fn begin(&mut self) {
        self.met = false;
    }

    /// Every range was listed.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// A list arrived, and everything was known up to a revision. Whether it is the first of a registry that did not come back as it was.
    pub fn listed(&mut self, cluster_id: u64, revision: Revision, known: Revision) -> bool {
        if std::mem::replace(&mut self.met, true) {
            return false;
        }
        let returned = match self.etcd_cluster_id {
            Some(before) if before != cluster_id => Return::ClusterChanged,
            Some(_) if revision < known => Return::RolledBack,
            _ => Return::AsItWas,
        };
        self.etcd_cluster_id = Some(cluster_id);
        if returned != Return::AsItWas {
            (self.returned, self.settled) = (returned, false);
            return true;
        }
        if self.settled {
            self.returned = returned;
        }
        false
    }

    /// What is known of these ranges is of the registry as it was before.
    pub fn set_former(&mut self, ranges: BTreeSet<Range>) {
        self.former = ranges;
    }

    /// The list of a range is here. Whether what was known of it is of the registry as it was before.
    pub fn renew(&mut self, range: &Range) -> bool {
        self.former.remove(range)
    }
}
