//! The log of the wire: every request that could write, and the news that each process got.
//!
//! Owns what oracles ask about messages. Refuses to judge.

use std::time::Duration;

use bytes::Bytes;

use super::{Moment, Sender, Wire};

/// A process that thawed sends what it was about to send within this time.
const THAWED: Duration = Duration::from_millis(100);

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: Duration,
    /// The author.
    pub by: String,
    pub to: String,
    /// The method and the path.
    pub what: String,
    pub body: Bytes,
    /// The sender was stopped just before: what it asked then may have changed.
    pub thawed: bool,
    /// When the sender got the answer of a call to etcd.
    pub answered: Option<Duration>,
}

/// A fault that a process met at one of its messages.
#[derive(Clone, Debug)]
pub struct Met {
    pub at: Duration,
    /// The author.
    pub by: String,
    pub moment: Moment,
    /// The message, where the log has it.
    pub request: Option<Sent>,
}

/// The answer to a keepalive that says that its lease is gone.
#[derive(Clone, Debug)]
pub struct LeaseGone {
    pub at: Duration,
    /// The author of the keepalive.
    pub told: String,
    pub lease: i64,
}

impl Wire {
    /// Every message so far that could write, and every read of a Lease.
    pub fn log(&self) -> Vec<Sent> {
        self.state().log.clone()
    }

    /// Whether a sender got something from etcd within this time.
    pub fn heard_from_etcd(&self, author: &str, from: Duration, to: Duration) -> bool {
        self.state().heard.get(author).is_some_and(|times| times.iter().any(|at| *at >= from && *at <= to))
    }

    /// Every answer to a keepalive that told of the end of a lease.
    pub fn leases_gone(&self) -> Vec<LeaseGone> {
        self.state().leases_gone.clone()
    }

    pub(super) fn heard(&self, author: &str) {
        const PAUSE: Duration = Duration::from_secs(1);
        let now = self.0.trace.elapsed();
        let mut state = self.state();
        let times = state.heard.entry(author.to_owned()).or_default();
        if times.last().is_none_or(|last| now >= *last + PAUSE) {
            times.push(now);
        }
    }

    /// The fault that a process met last before this time.
    pub fn met_last(&self, author: &str, before: Duration) -> Option<Met> {
        let state = self.state();
        state.met.iter().rev().find(|met| met.by == author && met.at < before).cloned()
    }

    /// Enters a fault that a message meets right after it was sent.
    pub(super) fn meets(&self, by: &Sender, summary: &str, moment: Moment) {
        let (at, by) = (self.0.trace.elapsed(), by.author.clone());
        let mut state = self.state();
        let request = state.log.last().filter(|sent| sent.by == by && sent.at == at && sent.what == summary).cloned();
        state.met.push(Met { at, by, moment, request });
    }

    pub(super) fn lease_gone(&self, author: &str, lease: i64) {
        let at = self.0.trace.elapsed();
        self.state().leases_gone.push(LeaseGone { at, told: author.to_owned(), lease });
    }

    pub(super) fn answered(&self, request: usize) {
        let now = self.0.trace.elapsed();
        if let Some(sent) = self.state().log.get_mut(request) {
            sent.answered = Some(now);
        }
    }

    /// Enters a request into the log, and returns its number there.
    pub(super) fn log_request(&self, by: &Sender, to: &str, what: &str, body: Bytes) -> usize {
        let at = self.0.trace.elapsed();
        let thawed = self.0.scheduler.thawed_within(by.process, THAWED);
        let answered = None;
        let sent = Sent { at, by: by.author.clone(), to: to.to_owned(), what: what.to_owned(), body, thawed, answered };
        let mut state = self.state();
        state.log.push(sent);
        state.log.len() - 1
    }
}
