//! The checkpoint: the values that one pass over a RegisteredService hands to the next.
//!
//! Owns the part that the planners need. It is lost with the process, so it refuses to be the only place of anything
//! that safety depends on: deadlines are also on slices, holds in status, owners in records.

use crate::plan::departure::held::HeldDeletions;
use crate::plan::export::ExportState;
use crate::plan::import::ImportState;

/// The values that one pass hands to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// UID of the RegisteredService: another one of the same name starts afresh. Empty before the first pass.
    pub uid: String,
    /// The generation that the last pass saw.
    pub generation: Option<i64>,
    /// Registry and name to which the planners' states belong.
    pub source: String,
    /// The number of lists that had changed the Service and its slices.
    pub relists: u64,
    pub import: ImportState,
    pub export: ExportState,
    /// Deletions that wait for the guard; an approval names them.
    pub held: HeldDeletions,
    /// The name of their hold, if there is one.
    pub held_hash: Option<String>,
    /// The approval that was carried out last: the hold of a whole registry may go on, and the same deletions come back.
    pub carried_out: Option<String>,
}

impl Checkpoint {
    /// Whether no pass of this process has looked at the RegisteredService yet.
    pub fn is_first_pass(&self) -> bool {
        self.uid.is_empty()
    }
}
