//! A fake etcd for unit tests: one member of [`sim_etcd`], reached through etcd's client as in production.
//!
//! Owns the calls of tests: records and leases as other clients change them, permissions of our user, and faults. Those
//! that etcd has itself are those of [`sim_etcd`]; [`transport`] has those of the way to it. Authentication is on, so
//! that permissions can change while a session is connected. Refuses to know the operator: it implements [`Connector`].

mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sim_etcd::{Auth, Etcd, Options, Permission, Restore, Snapshot};
use twinspan_core::model::{LeaseId, RawRecord, Revision};

use self::transport::Transport;
use super::etcd::{EtcdConnector, Settings};
use super::{Connector, Registry, Result};

/// The author of what tests change by themselves.
const STRANGER: &str = "stranger";
const USER: &str = "twinspan";
const PASSWORD: &str = "secret";

/// Faults that last until they are reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The server cannot be reached; it runs on.
    pub away: bool,
    /// Watches stay open and report nothing.
    pub silent: bool,
    /// Batches are written, but their answers get lost.
    pub answers_lost: bool,
    /// Our user has another password.
    pub refused: bool,
    /// A list takes a second.
    pub slow: bool,
    /// The answer to a grant takes a second.
    pub slow_grants: bool,
    /// A batch takes a tenth of a second.
    pub slow_commits: bool,
    /// The list of leases is never answered.
    pub no_lease_list: bool,
    /// There are so many leases that their list is too large.
    pub many_leases: bool,
    /// The database is full and accepts only deletes.
    pub full: bool,
    /// Progress requests are not answered, and watches are numbered by the server, as by etcd's proxy.
    pub no_progress: bool,
    /// Progress requests get lost.
    pub progress_lost: bool,
    /// The next call of this name panics.
    pub breaks_off: Option<&'static str>,
}

/// The server; clones share it.
#[derive(Clone, Debug)]
pub struct FakeEtcd {
    etcd: Etcd,
    transport: Transport,
    connector: Arc<EtcdConnector>,
}

impl Default for FakeEtcd {
    fn default() -> Self {
        Self::with(Options::default())
    }
}

impl FakeEtcd {
    pub fn new() -> Self {
        Self::default()
    }

    /// A shorter TTL than this is raised to it, in seconds, as by a server with slow elections.
    pub fn with_least_ttl(seconds: i64) -> Self {
        Self::with(Options { min_lease_ttl: seconds, ..Options::default() })
    }

    fn with(options: Options) -> Self {
        let etcd = Etcd::new(Options { cluster_id: 1, ..options });
        let transport = Transport::to(etcd.member(0));
        let user = Some((USER.to_owned(), PASSWORD.to_owned()));
        let settings = Settings { endpoints: vec!["http://etcd:2379".to_owned()], tls: None, user };
        let connector = Arc::new(EtcdConnector::over(settings, Arc::new(transport.clone())));
        let server = Self { etcd, transport, connector };
        server.authorize();
        server
    }

    pub fn set_faults(&self, faults: Faults) {
        self.transport.state().faults = faults;
        self.etcd.set_quota_full(faults.full);
        self.etcd.stall_watches(faults.silent);
        self.authorize();
        if faults.away {
            self.cut();
        }
    }

    /// Lists of this key prefix fail from now on, or no longer.
    pub fn fail_lists(&self, key_prefix: &str, fail: bool) {
        let mut state = self.transport.state();
        state.unlisted.remove(key_prefix.as_bytes());
        if fail {
            state.unlisted.insert(key_prefix.into());
        }
    }

    /// No watch reports the next change of the key.
    pub fn swallow(&self, key: &str) {
        self.transport.state().swallowed.insert(key.into());
    }

    /// Keepalives of this lease are not answered from now on, or are again.
    pub fn stall_keepalives(&self, lease: LeaseId, stall: bool) {
        let mut state = self.transport.state();
        state.stalled.remove(&lease.0);
        if stall {
            state.stalled.insert(lease.0);
        }
    }

    /// Our user may read every key but those with these prefixes.
    pub fn forbid_reads(&self, key_prefixes: &[&str]) {
        self.transport.state().unreadable = key_prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        self.authorize();
    }

    /// Our user may write every key but those with these prefixes.
    pub fn forbid_writes(&self, key_prefixes: &[&str]) {
        self.transport.state().unwritable = key_prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        self.authorize();
    }

    fn authorize(&self) {
        let state = self.transport.state();
        let of = |forbidden: &BTreeSet<String>, read: bool| {
            let others = others(forbidden).into_iter();
            others.map(move |(key, range_end)| Permission { key, range_end, read, write: !read })
        };
        let permissions = of(&state.unreadable, true).chain(of(&state.unwritable, false)).collect();
        let password = if state.faults.refused { "another" } else { PASSWORD };
        let mut auth = Auth::default().with_user(USER, password, &[USER]);
        auth.roles.insert(USER.to_owned(), permissions);
        self.etcd.set_auth(Some(auth));
    }

    /// Sets etcd's `--max-txn-ops`.
    pub fn set_max_txn_ops(&self, operations: usize) {
        self.etcd.set_max_txn_ops(operations);
    }

    /// Ends every open watch stream.
    pub fn cut(&self) {
        self.etcd.cut_watches();
    }

    /// Compacts up to the newest revision.
    pub fn compact(&self) {
        self.etcd.compact(None);
    }

    /// An empty cluster with another ID answers from now on.
    pub fn replace_with_empty(&self) {
        self.etcd.empty(true);
        self.authorize();
    }

    /// The current data, for [`FakeEtcd::restore`].
    pub fn backup(&self) -> Snapshot {
        self.etcd.snapshot()
    }

    /// The same cluster answers from now on, with the data of the backup.
    pub fn restore(&self, backup: &Snapshot) {
        self.etcd.restore(backup.clone(), Restore::default());
        self.authorize();
    }

    /// Puts a record as any client could, with a lease or `NONE`.
    pub fn put(&self, key: &str, value: &str, lease: LeaseId) {
        self.etcd.put(STRANGER, key, value, lease.0).unwrap();
    }

    /// Deletes keys in one revision, as any client could.
    pub fn delete(&self, keys: &[&str]) {
        self.etcd.delete_all(STRANGER, keys);
    }

    /// Deletes the keys with a prefix in one revision, as any client could.
    pub fn delete_prefix(&self, key_prefix: &str) {
        self.etcd.delete_prefix(STRANGER, key_prefix.as_bytes());
    }

    /// Revokes a lease as any client could; its records are deleted in one revision.
    pub fn revoke(&self, lease: LeaseId) {
        self.etcd.revoke(STRANGER, lease.0).unwrap();
    }

    /// Grants a lease for whole seconds.
    pub fn grant_for(&self, lease: LeaseId, ttl: Duration) {
        self.etcd.grant(lease.0, i64::try_from(ttl.as_secs()).unwrap()).unwrap();
    }

    pub fn records(&self) -> BTreeMap<String, RawRecord> {
        let of = |(key, record): (Vec<u8>, sim_etcd::Record)| {
            let sim_etcd::Record { value, mod_revision, lease, .. } = record;
            let name = String::from_utf8_lossy(&key).into_owned();
            (name.clone(), RawRecord { key: name.as_str().into(), value, mod_revision, lease: LeaseId(lease) })
        };
        self.etcd.records().into_iter().map(of).collect()
    }

    pub fn leases(&self) -> Vec<LeaseId> {
        self.etcd.leases().into_keys().map(LeaseId).collect()
    }

    pub fn revision(&self) -> Revision {
        self.etcd.revision()
    }

    /// The number of calls that reached the server: `list`, `watch`, `commit`, `keep_alive`, `progress`, ….
    pub fn calls(&self, what: &str) -> usize {
        self.transport.state().calls.get(what).copied().unwrap_or_default()
    }

    /// The most batches that were under way at a time.
    pub fn most_commits(&self) -> usize {
        self.transport.state().most_commits
    }
}

#[async_trait]
impl Connector for FakeEtcd {
    async fn connect(&self) -> Result<Arc<dyn Registry>> {
        self.connector.connect().await
    }
}

/// The ranges of all keys without those with these prefixes, none of which is a prefix of another.
fn others(key_prefixes: &BTreeSet<String>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut ranges, mut from) = (Vec::new(), vec![0]);
    for prefix in key_prefixes {
        let mut end = prefix.clone().into_bytes();
        *end.last_mut().unwrap() += 1;
        ranges.push((std::mem::replace(&mut from, end), prefix.clone().into_bytes()));
    }
    // etcd takes this end for every key.
    ranges.push((from, vec![0]));
    ranges
}
