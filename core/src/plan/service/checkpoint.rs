//! The checkpoint: the values that one pass over a RegisteredService hands to the next.
//!
//! Owns the part that the planners need. It is lost with the process, so it refuses to be the only place of anything
//! that safety depends on: deadlines are also on slices, holds in status, owners in records. A process that does not
//! lead hands on evidence only, and a leadership judges anew.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::Term;
use super::facts::{Place, RegistryFacts};
use crate::Timestamp;
use crate::plan::departure::held::HeldDeletions;
use crate::plan::export::ExportState;
use crate::plan::import::ImportState;

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
    /// Deletions that wait for the guard; an approval names them.
    pub held: HeldDeletions,
    /// The name of their hold, if there is one.
    pub held_hash: Option<String>,
    /// The approval that was carried out last: the hold of a whole registry may go on, and the same deletions come back.
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
    pub fn in_term(self, term: Option<Term>, now: Timestamp) -> Self {
        if term.is_some() && self.term == term {
            return self;
        }
        let (import, export) = (self.import.evidence(), self.export.evidence(now));
        let former = self.former.into_iter().map(|(place, export)| (place, export.evidence(now))).collect();
        Self { term: None, import, export, former, held: HeldDeletions::default(), ..self }
    }

    /// The state of the export in a former place; before the first pass after a move it is the current one's.
    pub fn former_export(&self, registry: &RegistryFacts) -> &ExportState {
        static NEW: LazyLock<ExportState> = LazyLock::new(ExportState::default);
        let known = self.former.get(&registry.place());
        let here =
            registry.registry_name.as_ref().is_some_and(|name| self.source == format!("{}/{name}", registry.name));
        known.unwrap_or(if here { &self.export } else { &NEW })
    }

    /// Whether no pass of this process has looked at the RegisteredService yet.
    pub fn is_first_pass(&self) -> bool {
        self.uid.is_empty()
    }
}
