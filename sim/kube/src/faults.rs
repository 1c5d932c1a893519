//! The faults of one API server, and the age of its watch cache.
//!
//! Owns the switches, and which change the cache shows at a time. Refuses to answer requests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::status::Status;
use crate::store::Store;

/// The act of a request, as RBAC names it; a watch is not a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

/// Requests that fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// `None` for every verb.
    pub verb: Option<Verb>,
    /// The plural name; `None` for every kind.
    pub resource: Option<String>,
    pub status: Status,
    /// Whether the request takes effect all the same.
    pub after_applying: bool,
}

/// The switches of one server.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Connections are refused.
    pub down: bool,
    /// Nothing is answered.
    pub frozen: bool,
    /// Watches are open and silent.
    pub stalled: bool,
    /// The age of the watch cache.
    pub lag: Duration,
    /// Lists are older by this than what was seen already. No API server does that: its promises exclude it.
    pub stale_lists: Duration,
    /// The next events of a kind that a watch leaves out, by resource. No API server does that.
    pub skipped_events: BTreeMap<String, usize>,
    /// Kinds that may not be listed or watched.
    pub refused: BTreeSet<String>,
    /// The next failures, and how often each comes.
    failures: Vec<(usize, Failure)>,
    /// Counts up when open watches end.
    pub cuts: u64,
    /// The changes that the cache has shown; it never goes back.
    shown: usize,
    /// The version of the first list of the cache, which knows no event before it.
    started: u64,
}

impl Faults {
    pub fn fail_next(&mut self, times: usize, failure: Failure) {
        self.failures.push((times, failure));
    }

    /// The failure of a request, which counts as one.
    pub fn failure(&mut self, verb: Verb, resource: &str) -> Option<Failure> {
        let concerns = |failure: &Failure| {
            failure.verb.is_none_or(|of| of == verb) && failure.resource.as_deref().is_none_or(|of| of == resource)
        };
        let (left, failure) = self.failures.iter_mut().find(|(left, failure)| *left > 0 && concerns(failure))?;
        *left -= 1;
        let failure = failure.clone();
        self.failures.retain(|(left, _)| *left > 0);
        Some(failure)
    }

    /// Fails no more requests.
    pub fn clear_failures(&mut self) {
        self.failures.clear();
    }

    /// How many changes the cache has seen by now.
    pub fn seen(&mut self, store: &Store, now: Duration) -> usize {
        self.shown = self.shown.max(seen_at(store, now, self.lag));
        self.shown
    }

    /// How many changes a list shows that nothing makes newer.
    pub fn seen_by_list(&mut self, store: &Store, now: Duration) -> usize {
        let seen = self.seen(store, now);
        if self.stale_lists.is_zero() { seen } else { seen.min(seen_at(store, now, self.stale_lists)) }
    }

    /// The time at which the cache sees the next change.
    pub fn next_seen(&self, store: &Store) -> Option<Duration> {
        store.changes().get(self.shown).map(|change| change.at + self.lag)
    }

    /// The oldest version from which a watch may begin.
    pub fn oldest(&self, store: &Store, kind: usize) -> u64 {
        store.oldest(kind).max(self.started)
    }

    /// A new process: the cache begins with a list, and no connection is left.
    pub fn restart(&mut self, store: &Store) {
        self.cuts += 1;
        self.shown = store.changes().len();
        self.started = store.revision();
    }

    /// After the store was restored; its versions may have gone back.
    pub fn restored(&mut self, store: &Store) {
        self.started = 0;
        self.restart(store);
    }
}

fn seen_at(store: &Store, now: Duration, lag: Duration) -> usize {
    let changes = store.changes();
    let seen = match now.checked_sub(lag) {
        _ if lag.is_zero() => changes.len(),
        None => 0,
        Some(until) => changes.partition_point(|change| change.at <= until),
    };
    seen.max(store.era())
}
