//! What one pass over a RegisteredService tells the next.

use std::collections::BTreeMap;

use tokio::time::Instant;
use twinspan_core::model::Reason;
use twinspan_core::plan::import::Shadows;

/// Lost with the process; nothing depends on it for safety.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Of the RegisteredService that this is about: another one of its name starts afresh.
    pub uid: String,
    pub shadows: Shadows,
    /// What the metrics count for it now.
    pub skipped: BTreeMap<Reason, usize>,
    pub held: usize,
    pub status_written: Option<Instant>,
    /// What Events have not told yet, each direction by itself.
    pub exports: Changes,
    pub imports: Changes,
}

/// Changes of one direction since an Event last told of them.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub added: usize,
    pub removed: usize,
    pub told: Option<Instant>,
}
