//! The state that the session, the audits and the status of a registry share.
//!
//! Owns the progress of the watch, as far as the server tells it, and the results of audits. Refuses to audit, which
//! [`super::audit`] does.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use twinspan_core::Timestamp;
use twinspan_core::model::Revision;

/// The progress of a watch, as far as the server tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchProgress {
    #[default]
    Unknown,
    /// Everything up to the revision has been delivered.
    Reached(Revision),
    /// The server does not answer requests for progress.
    Unanswered,
}

/// The result of one audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditResult {
    Agrees,
    Differs,
    /// The registry could not be read, or the session ended meanwhile.
    Failed,
}

impl AuditResult {
    /// Bounded, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Agrees => "agrees",
            Self::Differs => "differs",
            Self::Failed => "failed",
        }
    }
}

/// The state that the session, the audit and the status share.
#[derive(Debug, Default)]
pub struct AuditState {
    progress: watch::Sender<WatchProgress>,
    pub(super) progress_wanted: Notify,
    log: Mutex<AuditLog>,
}

#[derive(Debug, Default)]
struct AuditLog {
    /// Results that no metric counts yet.
    new: BTreeMap<AuditResult, u64>,
    last_verified: Option<Timestamp>,
}

impl AuditState {
    pub(super) fn set_progress(&self, progress: WatchProgress) {
        self.progress.send_replace(progress);
    }

    pub(super) fn progress(&self) -> watch::Receiver<WatchProgress> {
        self.progress.subscribe()
    }

    /// The results since the last call, with their numbers.
    pub fn take_results(&self) -> BTreeMap<AuditResult, u64> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner).new)
    }

    /// The time of the last audit that could read everything.
    pub fn last_verified(&self) -> Option<Timestamp> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).last_verified
    }

    pub(crate) fn add(&self, result: AuditResult, now: Timestamp) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        *log.new.entry(result).or_default() += 1;
        if result != AuditResult::Failed {
            log.last_verified = Some(now);
        }
    }
}
