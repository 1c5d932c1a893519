//! What one pass over a RegisteredService tells the next.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use twinspan_core::model::{InstanceAddr, Reason};
use twinspan_core::plan::guard::Stays;
use twinspan_core::plan::{export, import};

/// Lost with the process. What safety depends on is in objects as well: deadlines on slices, holds in status, owners in records.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Of the RegisteredService that this is about: another one of its name starts afresh.
    pub uid: String,
    /// Its spec, as the last pass saw it.
    pub generation: Option<i64>,
    /// Registry and name that the planners' memories are about.
    pub source: String,
    /// How often a list had changed what is known of its Service.
    pub listings: u64,
    pub import: import::Memory,
    pub export: export::Memory,
    /// What waits for the guard; an approval names it.
    pub stays: Stays,
    pub lost: BTreeSet<InstanceAddr>,
    pub counted: Counted,
    /// Directions whose last write failed: it may have been done all the same.
    pub unfinished: Unfinished,
    pub status_written: Option<Instant>,
    /// What Events have not told yet, each direction by itself.
    pub exports_untold: Changes,
    pub imports_untold: Changes,
}

/// What the metrics count for it now. It outlives the object that it was counted for, so that it can be taken off again.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// How its last pass ended.
    pub state: Option<&'static str>,
    pub skipped: BTreeMap<Reason, usize>,
    pub held: usize,
    pub lost: usize,
}

/// Of each direction, whether its last write failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unfinished {
    pub export: bool,
    pub import: bool,
}

/// Changes of one direction since an Event last told of them.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub added: usize,
    pub removed: usize,
    pub told: Option<Instant>,
}
