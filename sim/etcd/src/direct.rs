//! Access without a wire, for actors and judges of a simulation.
//!
//! Owns calls that look at the cluster, and change it, at once. Refuses to go past the cluster's faults: without a
//! leader and a quorum nothing is written, and a full database takes no puts. Permissions are not asked for.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::proto::PbPutRequest;

use crate::error::Error;
use crate::etcd::Etcd;
use crate::history::Change;
use crate::key_range::KeyRange;
use crate::leases::Lease;
use crate::state::State;
use crate::store::Record;
use crate::write::{check_put, check_put_request};

fn check_commits(state: &State) -> Result<(), Error> {
    if state.members.commits() { Ok(()) } else { Err(Error::NoLeader) }
}

impl Etcd {
    /// Puts a record, with a lease or 0, and returns its revision. Errors: no leader, a lease that does not exist, an
    /// empty key, no space.
    pub fn put(
        &self,
        author: &str,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        lease: i64,
    ) -> Result<i64, Error> {
        let request = PbPutRequest { key: key.into(), value: value.into(), lease, ..PbPutRequest::default() };
        self.with(|state| {
            check_commits(state)?;
            check_put_request(&request)?;
            if state.quota_full {
                return Err(Error::NoSpace);
            }
            check_put(&state.store, &state.leases, &request)?;
            state.write(author, None, |write| write.put(&request));
            Ok(state.store.head().revision)
        })
    }

    /// Deletes a key, and returns the revision; none if there was no such key, or no leader.
    pub fn delete(&self, author: &str, key: &[u8]) -> Option<i64> {
        (self.delete_all(author, &[key]) > 0).then(|| self.revision())
    }

    /// Deletes several keys at one revision, and returns how many there were; 0 without a leader.
    pub fn delete_all(&self, author: &str, keys: &[impl AsRef<[u8]>]) -> usize {
        let keys = keys.iter().map(|key| key.as_ref().to_vec()).collect();
        self.with(|state| delete_keys(state, author, &keys))
    }

    /// Deletes all keys with a prefix at one revision, and returns how many there were; 0 without a leader.
    pub fn delete_prefix(&self, author: &str, prefix: &[u8]) -> usize {
        self.with(|state| {
            let range = KeyRange::prefix(prefix);
            let revision = state.store.head().revision;
            let keys = state.store.at(&range, revision).map(|(key, _)| key.clone()).collect();
            delete_keys(state, author, &keys)
        })
    }

    /// Grants a lease for a TTL in seconds, and returns its ID: one that is chosen here for 0. Errors: no leader, a
    /// lease that exists, a TTL that is too large, no space.
    pub fn grant(&self, id: i64, ttl: i64) -> Result<i64, Error> {
        self.with(|state| {
            check_commits(state)?;
            Ok(state.grant(id, ttl)?.0)
        })
    }

    /// Renews a lease, and returns its TTL in seconds. Errors: no leader, a lease that does not exist or has expired.
    pub fn keep_alive(&self, id: i64) -> Result<i64, Error> {
        self.with(|state| {
            check_commits(state)?;
            if state.leases.is_expired(id, state.now) {
                return Err(Error::LeaseNotFound);
            }
            state.leases.renew(id, state.now)
        })
    }

    /// Revokes a lease; its keys are deleted at one revision. Errors: no leader, a lease that does not exist.
    pub fn revoke(&self, author: &str, id: i64) -> Result<(), Error> {
        self.with(|state| {
            check_commits(state)?;
            state.revoke(author, id, None)
        })
    }

    /// All leases by ID.
    pub fn leases(&self) -> BTreeMap<i64, Lease> {
        self.with(|state| state.leases.all(state.now))
    }

    /// All records by key, as they are committed.
    pub fn records(&self) -> BTreeMap<Vec<u8>, Record> {
        self.with(|state| {
            let all = KeyRange::prefix(b"");
            let revision = state.store.head().revision;
            state.store.at(&all, revision).map(|(key, record)| (key.clone(), record.clone())).collect()
        })
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.with(|state| state.store.head().revision)
    }

    /// Compacts up to a revision, or up to the newest one; a revision that is compacted already, or in the future, is
    /// left alone.
    pub fn compact(&self, revision: Option<i64>) {
        self.with(|state| {
            let revision = revision.unwrap_or(state.store.head().revision);
            _ = state.compact(revision);
        });
    }

    /// Every change since the cluster was made, in order.
    pub fn history(&self) -> Vec<Change> {
        self.changes(0)
    }

    /// The changes from an index of the history on.
    pub fn changes(&self, from: usize) -> Vec<Change> {
        self.with(|state| state.history.get(from..).map(<[Change]>::to_vec).unwrap_or_default())
    }

    /// The number of changes in the history.
    pub fn changes_len(&self) -> usize {
        self.with(|state| state.history.len())
    }

    /// How often the data was replaced.
    pub fn incarnation(&self) -> u32 {
        self.with(|state| state.incarnation)
    }

    /// The member that leads.
    pub fn leader(&self) -> Option<usize> {
        self.with(|state| state.members.leader)
    }

    /// The ID of the cluster, as it is in the header of every answer.
    pub fn cluster_id(&self) -> u64 {
        self.with(|state| state.cluster_id)
    }
}

fn delete_keys(state: &mut State, author: &str, keys: &BTreeSet<Vec<u8>>) -> usize {
    if !state.members.commits() {
        return 0;
    }
    let before = state.history.len();
    state.write(author, None, |write| write.delete_keys(keys));
    state.history.len() - before
}
