//! The checkpoint: the values that one pass over a RegisteredService hands to the next.
//!
//! Owns the part that the planners need. It is lost with the process, so it refuses to be the only place of anything
//! that safety depends on: deadlines are also on slices, holds in status, owners in records. A process that does not
//! lead hands on evidence only, and a leadership judges anew.

use super::Term;
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
        Self { term: None, import, export, held: HeldDeletions::default(), ..self }
    }

    /// Whether no pass of this process has looked at the RegisteredService yet.
    pub fn is_first_pass(&self) -> bool {
        self.uid.is_empty()
    }
}
