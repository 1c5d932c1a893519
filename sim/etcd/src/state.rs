//! The state of the cluster, and its time.
//!
//! Owns the log that members apply, the order of what is due, and that nothing is due without a cause. Refuses to know
//! the wire; requests are in `requests.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::auth::AuthStore;
use crate::error::Error;
use crate::etcd::Options;
use crate::history::Change;
use crate::leases::{Leases, round_up};
use crate::members::{ELECTION, Members};
use crate::store::{KeyChange, Store};
use crate::watch::WatchFaults;
use crate::write::Write;

/// Watchers that are behind catch up this often (`watchResyncPeriod` of watchable_store.go).
const CATCH_UP_PERIOD: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
enum Entry {
    Revision(i64),
    Compaction(i64),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    /// Time since the cluster was made.
    pub(crate) now: Duration,
    pub(crate) cluster_id: u64,
    pub(crate) incarnation: u32,
    pub(crate) store: Store,
    pub(crate) leases: Leases,
    pub(crate) auth: AuthStore,
    pub(crate) members: Members,
    pub(crate) history: Vec<Change>,
    pub(crate) quota_full: bool,
    /// Keys that are counted and that nothing else shows.
    pub(crate) crowd: i64,
    /// Watch streams are open and silent.
    pub(crate) stalled: bool,
    pub(crate) watch_faults: WatchFaults,
    pub(crate) streams_opened: u64,
    /// Calls that wait for the cluster have to look again.
    pub(crate) changed: bool,
    /// Entries that some member has yet to apply, with the times at which they were committed.
    log: VecDeque<(Duration, Entry)>,
    log_start: u64,
    /// The last time at which the leader looked for expired leases.
    leases_checked: Duration,
}

impl State {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            now: Duration::ZERO,
            cluster_id: options.cluster_id,
            incarnation: 0,
            store: Store::new(),
            leases: Leases::new(options.min_lease_ttl),
            auth: AuthStore::default(),
            members: Members::new(options.members),
            history: Vec::new(),
            quota_full: false,
            crowd: 0,
            stalled: false,
            watch_faults: WatchFaults::default(),
            streams_opened: 0,
            changed: false,
            log: VecDeque::new(),
            log_start: 0,
            leases_checked: Duration::ZERO,
            options,
        }
    }

    /// The number of entries that are committed.
    pub(crate) fn committed(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// Does all that is due, each at its time.
    pub(crate) fn advance(&mut self, now: Duration) {
        while let Some(at) = self.next_deadline().filter(|at| *at <= now) {
            self.now = self.now.max(at);
            self.run_due();
        }
        self.now = self.now.max(now);
    }

    /// When the next thing is due by itself; none if only requests can change anything.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let leases = || self.leases.next_tick(self.leases_checked);
        let leases = if self.members.commits() { leases() } else { None };
        let running = || self.members.list.iter().filter(|member| member.runs());
        let entry = |applied: u64| self.log.get(usize::try_from(applied - self.log_start).ok()?);
        let applies = running().filter_map(|member| Some(entry(member.applied)?.0 + member.lag));
        let streams = || running().flat_map(|member| member.streams.values()).filter(|s| s.ended().is_none());
        let behind = streams().any(|stream| stream.watchers.is_unsynced());
        let catch_up = behind.then(|| round_up(self.now + Duration::from_nanos(1), CATCH_UP_PERIOD));
        let progress = streams().filter_map(|stream| stream.next_progress());
        let deadlines = leases.into_iter().chain(self.members.next_deadline(self.now)).chain(catch_up);
        deadlines.chain(applies).chain(progress).min()
    }

    fn run_due(&mut self) {
        if self.members.elect(self.now) {
            self.promote();
        }
        if self.members.is_leaderless(self.now) {
            self.end_streams(Error::NoLeader, |stream_requires_leader| stream_requires_leader);
            self.changed = true;
        }
        let tick = self.members.commits().then(|| self.leases.next_tick(self.leases_checked)).flatten();
        if tick.is_some_and(|tick| tick <= self.now) {
            self.leases_checked = self.now;
            for lease in self.leases.expired(self.now) {
                _ = self.revoke("etcd", lease, Some(lease));
            }
            self.changed = true;
        }
        self.apply_all();
        let at_tick = self.now == round_up(self.now, CATCH_UP_PERIOD);
        for member in self.members.list.iter_mut().filter(|member| member.runs()) {
            for stream in member.streams.values_mut().filter(|stream| stream.ended().is_none()) {
                if at_tick {
                    stream.watchers.catch_up(&self.store, member.view, self.watch_faults);
                }
                if stream.progress_is_due(self.now) {
                    stream.watchers.progress_tick(member.view);
                }
                stream.wake_if_ready();
            }
        }
    }

    /// A new leader takes over the leases.
    pub(crate) fn promote(&mut self) {
        self.leases.promote(self.now, ELECTION);
        self.leases_checked = self.now;
        self.changed = true;
    }

    /// Looks again at who leads and who applies, after a member has changed.
    pub(crate) fn review(&mut self) {
        self.members.review(self.now);
        if self.members.elect(self.now) {
            self.promote();
        }
        // A leader that was stopped looks at its leases at the next tick.
        self.leases_checked = self.now;
        self.apply_all();
        self.changed = true;
    }

    /// Ends the watch streams of all members that are asked for by whether they require a leader.
    pub(crate) fn end_streams(&mut self, error: Error, which: impl Fn(bool) -> bool) {
        for stream in self.members.list.iter_mut().flat_map(|member| member.streams.values_mut()) {
            if which(stream.require_leader) {
                stream.end(error);
            }
        }
    }

    /// Runs a write transaction, and makes its changes a revision.
    pub(crate) fn write<R>(&mut self, author: &str, expired: Option<i64>, run: impl FnOnce(&mut Write) -> R) -> R {
        let view = self.store.head();
        let mut write = Write::new(&mut self.store, &mut self.leases, view);
        let result = run(&mut write);
        if let Some((revision, changes)) = write.commit() {
            self.record(author, expired, revision, changes);
            self.log.push_back((self.now, Entry::Revision(revision)));
            self.apply_all();
        }
        result
    }

    fn record(&mut self, author: &str, expired_lease: Option<i64>, revision: i64, changes: Vec<KeyChange>) {
        let (incarnation, time) = (self.incarnation, self.now);
        self.history.extend(changes.into_iter().map(|KeyChange { key, before, after }| Change {
            incarnation,
            revision,
            time,
            author: author.to_owned(),
            key,
            before,
            after,
            expired_lease,
        }));
    }

    /// Revokes a lease: its keys go at one revision.
    pub(crate) fn revoke(&mut self, author: &str, lease: i64, expired: Option<i64>) -> Result<(), Error> {
        let keys = self.leases.remove(lease)?;
        self.write(author, expired, |write| write.delete_keys(&keys));
        self.changed = true;
        Ok(())
    }

    /// `updateCompactRev` of kvstore.go.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Error> {
        let head = self.store.head();
        if revision <= head.compacted {
            return Err(Error::Compacted);
        }
        if revision > head.revision {
            return Err(Error::FutureRevision);
        }
        self.store.compact(revision);
        self.log.push_back((self.now, Entry::Compaction(revision)));
        self.apply_all();
        Ok(())
    }

    /// Every member that runs applies what is committed and due there.
    fn apply_all(&mut self) {
        for member in self.members.list.iter_mut().filter(|member| member.runs()) {
            let next = |applied: u64| self.log.get(usize::try_from(applied - self.log_start).ok()?);
            while let Some((_, entry)) = next(member.applied).filter(|(at, _)| *at + member.lag <= self.now) {
                member.applied += 1;
                self.changed |= !member.lag.is_zero();
                match entry {
                    Entry::Compaction(revision) => member.view.compacted = *revision,
                    Entry::Revision(revision) => {
                        member.view.revision = *revision;
                        for stream in member.streams.values_mut() {
                            stream.watchers.notify(&self.store, member.view);
                            stream.wake_if_ready();
                        }
                    }
                }
            }
        }
        self.forget_applied();
    }

    fn forget_applied(&mut self) {
        let members = || self.members.list.iter().filter(|member| !member.removed);
        let applied = members().map(|member| member.applied).min().unwrap_or_else(|| self.committed());
        let compacted = members().map(|member| member.view.compacted).min().unwrap_or(self.store.head().compacted);
        while self.log_start < applied && self.log.pop_front().is_some() {
            self.log_start += 1;
        }
        self.store.prune(compacted);
    }

    /// The data is another from now on: every member has it, and starts anew.
    pub(crate) fn replace(&mut self, store: Store, mut leases: Leases, auth: AuthStore) {
        self.incarnation += 1;
        leases.promote(self.now, ELECTION);
        leases.choose_after(&self.leases);
        self.store = store;
        self.leases = leases;
        self.auth = auth;
        self.log.clear();
        self.log_start = 0;
        let view = self.store.head();
        for index in 0..self.members.list.len() {
            self.break_connections(index);
            if let Some(member) = self.members.get_mut(index) {
                member.applied = 0;
                member.view = view;
            }
        }
        self.members.term += 1;
        self.review();
    }

    /// A member has stopped: its streams end, and it forgets its tokens.
    pub(crate) fn break_connections(&mut self, index: usize) {
        if let Some(member) = self.members.get_mut(index) {
            member.breaks += 1;
            member.tokens.forget_all();
            member.streams.values_mut().for_each(|stream| stream.end(Error::Unreachable));
        }
    }

    /// A member that joins anew has the data already.
    pub(crate) fn join(&mut self, index: usize) {
        let (applied, view) = (self.committed(), self.store.head());
        if let Some(member) = self.members.get_mut(index) {
            member.applied = applied;
            member.view = view;
        }
    }
}
