//! One connection to the fake etcd.
//!
//! Owns the calls, with the faults that a test has set. Refuses to know how a transaction or an expired lease changes
//! records ([`super::transaction`], [`super`]), and which changes a watch has seen ([`super::watch`]).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision};
use twinspan_core::plan::RecordOp;

use super::watch::FakeWatch;
use super::{FakeEtcd, State};
use crate::registry::{
    Batch, Grant, KeepAlive, LeaseState, ListResponse, MAX_BATCH, ReadResponse, RecordPages, Registry, RegistryError,
    Result, ServerStatus, TxnResponse, Watch, WatchRange,
};

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct FakeConnection {
    pub(super) server: FakeEtcd,
    pub(super) generation: u64,
    max_batch: Arc<AtomicUsize>,
}

impl FakeConnection {
    pub(super) fn new(server: FakeEtcd, generation: u64) -> Self {
        Self { server, generation, max_batch: Arc::new(AtomicUsize::new(MAX_BATCH)) }
    }

    pub(super) fn ask(&self, what: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.server.lock();
        let breaks_off = state.faults.breaks_off.take_if(|call| *call == what).is_some();
        assert!(!breaks_off, "{what} breaks off");
        *state.calls.entry(what).or_default() += 1;
        if state.faults.refused {
            return Err(RegistryError::AuthFailed("invalid user ID or password".to_owned()));
        }
        if state.faults.away || state.generation != self.generation {
            return Err(RegistryError::Unreachable("connection refused".to_owned()));
        }
        Ok(state)
    }
}

#[async_trait]
impl Registry for FakeConnection {
    async fn status(&self) -> Result<ServerStatus> {
        let state = self.ask("status")?;
        Ok(ServerStatus { cluster_id: state.cluster_id, version: "memory".to_owned() })
    }

    async fn list(&self, key_prefix: &str) -> Result<ListResponse> {
        let slow = self.server.lock().faults.slow;
        if slow {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let state = self.ask("list")?;
        if let Some(error) = state.unlisted.get(key_prefix) {
            return Err(error.clone());
        }
        let below = state.records.range(RecordKey::from(key_prefix)..).map(|(_, record)| record);
        let below = below.take_while(|record| record.key.as_bytes().starts_with(key_prefix.as_bytes()));
        Ok(ListResponse { cluster_id: state.cluster_id, revision: state.revision, records: below.cloned().collect() })
    }

    fn pages(&self, key_prefix: &str, at: Revision) -> Box<dyn RecordPages> {
        Box::new(FakePages { registry: self.clone(), key_prefix: key_prefix.to_owned(), at, done: false })
    }

    async fn watch(&self, first: &WatchRange) -> Result<Box<dyn Watch>> {
        drop(self.ask("watch")?);
        Ok(Box::new(FakeWatch::new(self.clone(), first)))
    }

    async fn read(&self, keys: &[RecordKey]) -> Result<ReadResponse> {
        let state = self.ask("read")?;
        let records = keys.iter().map(|key| (key.clone(), state.records.get(key).cloned())).collect();
        Ok(ReadResponse { revision: state.revision, records })
    }

    async fn commit(&self, batch: &Batch) -> Result<TxnResponse> {
        let slow = {
            let mut state = self.server.lock();
            state.commits.0 += 1;
            state.commits.1 = state.commits.1.max(state.commits.0);
            state.faults.slow_commits
        };
        if slow {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.server.lock().commits.0 -= 1;
        let answer = {
            let mut state = self.ask("commit")?;
            if state.faults.full && !batch.ops.iter().all(|op| matches!(op, RecordOp::Delete { .. })) {
                return Err(RegistryError::NoSpace("etcdserver: mvcc: database space exceeded".to_owned()));
            }
            let answer = state.commit(batch);
            if answer == Err(RegistryError::TooManyOps) {
                self.max_batch.fetch_min((batch.ops.len() / 2).max(1), Ordering::Relaxed);
            }
            if state.faults.answers_lost {
                Err(RegistryError::Timeout { what: "transaction", seconds: 5 })
            } else {
                answer
            }
        };
        self.server.changed.notify_waiters();
        answer
    }

    fn max_batch(&self) -> usize {
        self.max_batch.load(Ordering::Relaxed)
    }

    async fn grant(&self, lease: LeaseId, ttl_seconds: i64) -> Result<Grant> {
        let slow = self.server.lock().faults.slow_grants;
        if slow {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut state = self.ask("grant")?;
        if state.leases.contains_key(&lease) {
            return Ok(Grant::Exists);
        }
        let ttl_seconds = ttl_seconds.max(state.least_ttl_seconds);
        let ttl = Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or(1));
        state.leases.insert(lease, (Instant::now() + ttl, ttl));
        drop(state);
        // A watch waits for the earliest expiry.
        self.server.changed.notify_waiters();
        Ok(Grant::Granted(ttl_seconds))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<KeepAlive> {
        let delayed = self.server.lock().delayed.contains(&lease);
        if delayed {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let mut state = self.ask("keep_alive")?;
        if let Some(error) = state.unkept.get(&lease) {
            return Err(error.clone());
        }
        if state.carries_forbidden(lease) {
            return Err(RegistryError::PermissionDenied("etcdserver: permission denied".to_owned()));
        }
        let revision = state.revision;
        Ok(match state.leases.get_mut(&lease) {
            Some((expires, ttl)) => {
                *expires = Instant::now() + *ttl;
                KeepAlive::For(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX))
            }
            None => KeepAlive::Gone { revision },
        })
    }

    async fn look_up(&self, lease: LeaseId) -> Result<LeaseState> {
        let state = self.ask("look_up")?;
        Ok(if state.leases.contains_key(&lease) { LeaseState::Lives } else { LeaseState::Gone })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        let state = self.ask("leases")?;
        if state.faults.no_lease_list {
            return Err(RegistryError::Timeout { what: "lease list", seconds: 5 });
        }
        if !state.secret_leases.is_empty() {
            return Err(RegistryError::PermissionDenied("permission denied".to_owned()));
        }
        Ok(state.leases.keys().copied().collect())
    }

    async fn keys_of(&self, lease: LeaseId) -> Result<Vec<RecordKey>> {
        let state = self.ask("keys_of")?;
        if state.secret_leases.contains(&lease) {
            return Err(RegistryError::PermissionDenied("permission denied".to_owned()));
        }
        let on_it = state.records.values().filter(|record| record.lease == lease);
        Ok(on_it.map(|record| record.key.clone()).collect())
    }
}

/// One page. Tests change no records between the revision and the page.
struct FakePages {
    registry: FakeConnection,
    key_prefix: String,
    at: Revision,
    done: bool,
}

#[async_trait]
impl RecordPages for FakePages {
    async fn next_page(&mut self) -> Result<Option<Vec<RawRecord>>> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let state = self.registry.ask("page")?;
        let found = state.records.values().filter(|record| {
            record.key.as_bytes().starts_with(self.key_prefix.as_bytes()) && record.mod_revision <= self.at
        });
        Ok(Some(found.cloned().collect()))
    }
}
