//! The checkpoint: the values that one pass over a RegisteredService hands to the next.
//!
//! Owns the part that the planners need. It is lost with the process, so it refuses to be the only place of anything
//! that safety depends on: deadlines are also on slices, holds in status, owners in records. A process that does not
//! lead hands on evidence only, and a leadership judges anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use crate::Timestamp;
use crate::model::{InstanceAddr, RegistryName};
use crate::plan::departure::held::HeldDeletions;
use crate::plan::export::ExportState;
use crate::plan::import::ImportState;
use crate::plan::slices::Refusals;

/// The number of a leadership of this process: each one judges anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(pub u64);

/// A name in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub registry: String,
    /// `None` stands for every name.
    pub name: Option<RegistryName>,
}

/// The values that one pass hands to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// UID of the RegisteredService: another one of the same name starts afresh. Empty before the first pass.
    pub uid: String,
    /// The state of the cluster in the last pass that could plan; `None` before it.
    pub planned: Option<Planned>,
    /// The leadership that judged; `None` if the planners' states are only evidence.
    pub term: Option<Term>,
    /// Registry and name to which the planners' states belong.
    pub source: String,
    pub import: ImportState,
    pub export: ExportState,
    /// The states of the exports in former places.
    pub former: BTreeMap<Place, ExportState>,
    /// The leadership that judged them, which may happen while the current place cannot be planned.
    pub former_term: Option<Term>,
    /// The endpoints behind each exported address that is not their own, and those that ended unseen while it was.
    pub behind: BTreeMap<InstanceAddr, BTreeSet<IpAddr>>,
    /// Groups of slices that the API server refuses.
    pub refused: Refusals,
    /// Deletions that wait for the guard; an approval names them.
    pub held: HeldDeletions,
    /// The name of their hold, if there is one.
    pub held_hash: Option<String>,
    /// The approval that was carried out last: the hold of a whole registry may go on, and the same deletions come
    /// back.
    pub carried_out: Option<String>,
}

/// The state of the cluster up to which deletions are explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub generation: Option<i64>,
    /// The number of lists that had changed the Service and its slices.
    pub relists: u64,
}

impl Checkpoint {
    /// The checkpoint for a pass in this term: of another term's states, only the evidence counts.
    pub fn in_term(mut self, term: Option<Term>, now: Timestamp) -> Self {
        if term.is_none() || self.former_term != term {
            self.former_term = None;
            self.former = self.former.into_iter().map(|(place, export)| (place, export.evidence(now))).collect();
        }
        if term.is_some() && self.term == term {
            return self;
        }
        let (import, export) = (self.import.evidence(), self.export.evidence(now));
        Self { term: None, import, export, held: HeldDeletions::default(), held_hash: None, ..self }
    }

    /// The state of the export in a former place; before the first pass after a move it is the current one's.
    pub fn former_export(&self, place: &Place) -> &ExportState {
        static NEW: LazyLock<ExportState> = LazyLock::new(ExportState::default);
        let here = place.name.as_ref().is_some_and(|name| self.source == format!("{}/{name}", place.registry));
        self.former.get(place).unwrap_or(if here { &self.export } else { &NEW })
    }

    /// Whether no pass of this process has looked at the RegisteredService yet.
    pub fn is_first_pass(&self) -> bool {
        self.uid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn each_term_begins_with_evidence_and_former_places_count_by_themselves() {
        let addr = crate::model::InstanceAddr::parse("10.0.0.1:80").unwrap();
        let export = || ExportState { departing: [(addr, at(5))].into(), ..ExportState::default() };
        let place = Place { registry: "old".into(), name: None };
        let (one, two) = (Some(Term(1)), Some(Term(2)));
        // The current place could not be planned yet.
        let checkpoint = Checkpoint {
            former: [(place.clone(), export())].into(),
            former_term: one,
            export: export(),
            ..Checkpoint::default()
        };
        let since = |term| {
            let checkpoint = checkpoint.clone().in_term(term, at(9));
            (checkpoint.export.departing[&addr], checkpoint.former[&place].departing[&addr])
        };
        assert_eq!(since(one), (at(9), at(5)));
        assert_eq!(since(two), (at(9), at(9)));
        assert_eq!(since(None), (at(9), at(9)));
        let judged = Checkpoint { term: one, held_hash: Some("h".into()), ..checkpoint };
        assert_eq!(judged.clone().in_term(one, at(9)), judged);
        assert_eq!(judged.in_term(None, at(9)).held_hash, None);
    }
}
