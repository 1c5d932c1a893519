//! A fake etcd in memory: revisions, leases, watches and compare-and-swap, with faults on demand.
//!
//! Owns the state of the server and the faults of tests. Passes the same contract test as the real etcd
//! (`tests/e2e/registry_contract.rs`). Leases expire on tokio's clock, which tests can pause. [`connection`] has the
//! calls, [`transaction`] the batches and [`watch`] the streams. Refuses to know the operator: it implements
//! [`Connector`] and [`Registry`] alone.

mod connection;
mod transaction;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision};

use super::{Change, Connector, MAX_BATCH, Registry, RegistryError, Result};
use connection::FakeConnection;

/// Faults that last until they are reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Nothing answers, and no connection succeeds.
    pub away: bool,
    /// Watches stay open and report nothing.
    pub silent: bool,
    /// Batches are written, but their answers get lost.
    pub answers_lost: bool,
    /// Users are rejected.
    pub refused: bool,
    /// A list takes a second.
    pub slow: bool,
    /// A grant takes a second.
    pub slow_grants: bool,
    /// A batch takes a tenth of a second.
    pub slow_commits: bool,
    /// The leases cannot be listed.
    pub no_lease_list: bool,
    /// The database is full and accepts only deletes.
    pub full: bool,
    /// Progress requests are not answered, as by etcd's proxy.
    pub no_progress: bool,
    /// The next call of this name panics.
    pub breaks_off: Option<&'static str>,
}

/// A copy of the server's state.
#[derive(Clone, Debug)]
pub struct Backup {
    revision: Revision,
    records: BTreeMap<RecordKey, RawRecord>,
    leases: BTreeMap<LeaseId, (Instant, Duration)>,
}

#[derive(Debug)]
struct State {
    cluster_id: u64,
    revision: Revision,
    records: BTreeMap<RecordKey, RawRecord>,
    /// In the order of revisions. A compaction leaves it, for watches that have caught up.
    history: Vec<Change>,
    /// A watch that begins below this revision ends.
    compacted: Revision,
    leases: BTreeMap<LeaseId, (Instant, Duration)>,
    /// A shorter TTL is raised to this one, as by a server with slow elections.
    least_ttl_seconds: i64,
    faults: Faults,
    /// Key prefixes whose lists fail, and their errors.
    unlisted: BTreeMap<String, RegistryError>,
    /// Key prefixes whose watches end, and their errors.
    unwatched: BTreeMap<String, RegistryError>,
    /// Keys whose next change no watch reports.
    swallowed: BTreeSet<RecordKey>,
    /// Leases whose keepalives fail, and their errors.
    unkept: BTreeMap<LeaseId, RegistryError>,
    /// Leases whose keepalives take five seconds.
    delayed: BTreeSet<LeaseId>,
    /// Prefixes of keys that our user may not write.
    forbidden: BTreeSet<String>,
    /// etcd's `--max-txn-ops`.
    max_txn_ops: usize,
    /// Leases without read permission; if there are any, the list of leases fails.
    secret_leases: BTreeSet<LeaseId>,
    /// Connections of an earlier generation are cut.
    generation: u64,
    /// Batches under way, and the most at a time.
    commits: (usize, usize),
    /// The number of calls by method.
    calls: BTreeMap<&'static str, usize>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cluster_id: 1,
            // An empty etcd is at revision 1.
            revision: 1,
            records: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            leases: BTreeMap::new(),
            least_ttl_seconds: 0,
            faults: Faults::default(),
            unlisted: BTreeMap::new(),
            unwatched: BTreeMap::new(),
            swallowed: BTreeSet::new(),
            unkept: BTreeMap::new(),
            delayed: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            max_txn_ops: MAX_BATCH + 1,
            secret_leases: BTreeSet::new(),
            generation: 0,
            commits: (0, 0),
            calls: BTreeMap::new(),
        }
    }
}

/// The server; clones share it.
#[derive(Clone, Default)]
pub struct FakeEtcd {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl fmt::Debug for FakeEtcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeEtcd")
    }
}

impl FakeEtcd {
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire();
        state
    }

    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
        self.changed.notify_waiters();
    }

    /// Lists of this key prefix fail with the error; `None` ends that.
    pub fn fail_lists(&self, key_prefix: &str, error: Option<RegistryError>) {
        let mut state = self.lock();
        match error {
            Some(error) => drop(state.unlisted.insert(key_prefix.to_owned(), error)),
            None => drop(state.unlisted.remove(key_prefix)),
        }
    }

    /// No watch reports the next change of the key.
    pub fn swallow(&self, key: &str) {
        self.lock().swallowed.insert(key.into());
    }

    /// The watch of this key prefix ends with the error, once.
    pub fn end_watch(&self, key_prefix: &str, error: RegistryError) {
        self.lock().unwatched.insert(key_prefix.to_owned(), error);
        self.changed.notify_waiters();
    }

    /// These leases carry keys that our user may not read: etcd lists neither these keys nor any leases.
    pub fn hide_leases(&self, leases: &[LeaseId]) {
        self.lock().secret_leases.extend(leases);
    }

    /// Keepalives of this lease fail with the error; `None` ends that.
    pub fn fail_keepalives(&self, lease: LeaseId, error: Option<RegistryError>) {
        let mut state = self.lock();
        match error {
            Some(error) => drop(state.unkept.insert(lease, error)),
            None => drop(state.unkept.remove(&lease)),
        }
    }

    /// Keepalives of this lease take five seconds.
    pub fn delay_keepalives(&self, lease: LeaseId) {
        self.lock().delayed.insert(lease);
    }

    /// Our user may not write keys with these prefixes any more; every other key stays permitted.
    pub fn forbid_writes(&self, key_prefixes: &[&str]) {
        self.lock().forbidden = key_prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
    }

    /// Sets etcd's `--max-txn-ops`.
    pub fn set_max_txn_ops(&self, operations: usize) {
        self.lock().max_txn_ops = operations;
    }

    /// Ends every open connection.
    pub fn cut(&self) {
        self.lock().generation += 1;
        self.changed.notify_waiters();
    }

    /// Compacts the history: a watch that begins at an earlier revision ends.
    pub fn compact(&self) {
        {
            let mut state = self.lock();
            state.compacted = state.revision;
        }
        self.changed.notify_waiters();
    }

    /// An empty cluster with another ID answers from now on.
    pub fn replace_with_empty(&self) {
        {
            let mut state = self.lock();
            let (cluster_id, generation) = (state.cluster_id + 1, state.generation + 1);
            let unlisted = std::mem::take(&mut state.unlisted);
            let (forbidden, max_txn_ops) = (std::mem::take(&mut state.forbidden), state.max_txn_ops);
            let calls = std::mem::take(&mut state.calls);
            *state = State { cluster_id, generation, unlisted, forbidden, max_txn_ops, calls, ..State::default() };
        }
        self.changed.notify_waiters();
    }

    /// The current state, for [`FakeEtcd::restore`].
    pub fn backup(&self) -> Backup {
        let state = self.lock();
        Backup { revision: state.revision, records: state.records.clone(), leases: state.leases.clone() }
    }

    /// The same cluster answers from now on, with the state of the backup.
    pub fn restore(&self, backup: &Backup) {
        {
            let mut state = self.lock();
            state.generation += 1;
            state.revision = backup.revision;
            state.records.clone_from(&backup.records);
            state.leases.clone_from(&backup.leases);
            state.history.clear();
            state.compacted = 0;
        }
        self.changed.notify_waiters();
    }

    /// Puts a record as any client could, with a lease or `NONE`.
    pub fn put(&self, key: &str, value: &str, lease: LeaseId) {
        let mut state = self.lock();
        state.revision += 1;
        let record = RawRecord { key: key.into(), value: value.into(), mod_revision: state.revision, lease };
        state.put(record);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Deletes keys in one revision, as any client could.
    pub fn delete(&self, keys: &[&str]) {
        let mut state = self.lock();
        if keys.iter().any(|key| state.records.contains_key(&(*key).into())) {
            state.revision += 1;
        }
        for key in keys {
            state.delete(&(*key).into());
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Revokes a lease as any client could; its records are deleted in one revision.
    pub fn revoke(&self, lease: LeaseId) {
        let mut state = self.lock();
        if let Some((expires, _)) = state.leases.get_mut(&lease) {
            *expires = Instant::now();
        }
        state.expire();
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn set_least_ttl(&self, seconds: i64) {
        self.lock().least_ttl_seconds = seconds;
    }

    pub fn grant_for(&self, lease: LeaseId, ttl: Duration) {
        self.lock().leases.insert(lease, (Instant::now() + ttl, ttl));
        self.changed.notify_waiters();
    }

    pub fn records(&self) -> BTreeMap<String, RawRecord> {
        self.lock().records.iter().map(|(key, record)| (key.to_string(), record.clone())).collect()
    }

    pub fn leases(&self) -> Vec<LeaseId> {
        self.lock().leases.keys().copied().collect()
    }

    pub fn revision(&self) -> Revision {
        self.lock().revision
    }

    /// The number of calls: `list`, `watch`, `commit`, `keep_alive`, `progress`, ….
    pub fn calls(&self, what: &str) -> usize {
        self.lock().calls.get(what).copied().unwrap_or_default()
    }

    /// The most batches that were under way at a time.
    pub fn most_commits(&self) -> usize {
        self.lock().commits.1
    }

    fn connection(&self) -> FakeConnection {
        let generation = self.lock().generation;
        FakeConnection::new(self.clone(), generation)
    }
}

#[async_trait]
impl Connector for FakeEtcd {
    async fn connect(&self) -> Result<Arc<dyn Registry>> {
        let registry = self.connection();
        registry.status().await?;
        Ok(Arc::new(registry))
    }
}

impl State {
    fn put(&mut self, record: RawRecord) {
        if !self.swallowed.remove(&record.key) {
            self.history.push(Change::Put(record.clone()));
        }
        self.records.insert(record.key.clone(), record);
    }

    fn delete(&mut self, key: &RecordKey) {
        if self.records.remove(key).is_some() && !self.swallowed.remove(key) {
            self.history.push(Change::Delete { key: key.clone(), revision: self.revision });
        }
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.leases.values().map(|(at, _)| *at).min()
    }

    /// Deletes the records of expired leases, in one revision each.
    fn expire(&mut self) {
        let now = Instant::now();
        let expired: Vec<LeaseId> = self.leases.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| *id).collect();
        for lease in expired {
            self.leases.remove(&lease);
            let keys: Vec<RecordKey> =
                self.records.values().filter(|record| record.lease == lease).map(|record| record.key.clone()).collect();
            if !keys.is_empty() {
                self.revision += 1;
            }
            for key in keys {
                self.delete(&key);
            }
        }
    }
}
