//! One connection to the fake etcd, and its watch.
//!
//! Owns the calls and the watch, with the faults that a test has set. Refuses to know how a transaction or an expired
//! lease changes records, which [`super`] does.

use std::sync::MutexGuard;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use twinspan_core::model::{LeaseId, RecordKey};
use twinspan_core::plan::RecordOp;

use super::{FakeEtcd, State};
use crate::registry::{
    Batch, Change, Grant, KeepAlive, LeaseState, ListResponse, ReadResponse, Registry, RegistryError, Result,
    ServerStatus, TxnResponse, Watch, WatchItem, WatchRange,
};

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct FakeConnection {
    pub(super) server: FakeEtcd,
    pub(super) generation: u64,
}

impl FakeConnection {
    fn ask(&self, what: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.server.lock();
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
        let below = state.records.values().filter(|record| record.key.as_bytes().starts_with(key_prefix.as_bytes()));
        Ok(ListResponse { cluster_id: state.cluster_id, revision: state.revision, records: below.cloned().collect() })
    }

    async fn watch(&self, first: &WatchRange) -> Result<Box<dyn Watch>> {
        drop(self.ask("watch")?);
        Ok(Box::new(FakeWatch { registry: self.clone(), followed: vec![first.clone()], progress: false }))
    }

    async fn read(&self, keys: &[RecordKey]) -> Result<ReadResponse> {
        let state = self.ask("read")?;
        let records = keys.iter().map(|key| (key.clone(), state.records.get(key).cloned())).collect();
        Ok(ReadResponse { revision: state.revision, records })
    }

    async fn commit(&self, batch: &Batch) -> Result<TxnResponse> {
        let answer = {
            let mut state = self.ask("commit")?;
            if state.faults.full && !batch.ops.iter().all(|op| matches!(op, RecordOp::Delete { .. })) {
                return Err(RegistryError::NoSpace("etcdserver: mvcc: database space exceeded".to_owned()));
            }
            let answer = state.commit(batch);
            if state.faults.answers_lost {
                Err(RegistryError::Timeout { what: "transaction", seconds: 5 })
            } else {
                answer
            }
        };
        self.server.changed.notify_waiters();
        answer
    }

    async fn grant(&self, lease: LeaseId, ttl_seconds: i64) -> Result<Grant> {
        let mut state = self.ask("grant")?;
        if state.leases.contains_key(&lease) {
            return Ok(Grant::Exists);
        }
        let ttl_seconds = ttl_seconds.max(state.least_ttl_seconds);
        let ttl = Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or(1));
        state.leases.insert(lease, (Instant::now() + ttl, ttl));
        Ok(Grant::Granted(ttl_seconds))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<KeepAlive> {
        let mut state = self.ask("keep_alive")?;
        Ok(match state.leases.get_mut(&lease) {
            Some((expires, ttl)) => {
                *expires = Instant::now() + *ttl;
                KeepAlive::For(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX))
            }
            None => KeepAlive::Gone,
        })
    }

    async fn look_up(&self, lease: LeaseId) -> Result<LeaseState> {
        let state = self.ask("look_up")?;
        Ok(if state.leases.contains_key(&lease) { LeaseState::Lives } else { LeaseState::Gone })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        let state = self.ask("leases")?;
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

struct FakeWatch {
    registry: FakeConnection,
    /// Each range, from its next revision on.
    followed: Vec<WatchRange>,
    progress: bool,
}

impl FakeWatch {
    /// The next item, if one is ready.
    fn poll(&mut self) -> Result<Option<WatchItem>> {
        let mut state = self.registry.server.lock();
        if state.faults.silent {
            return Ok(None);
        }
        if state.faults.away || state.generation != self.registry.generation {
            return Err(RegistryError::Unreachable("connection reset".to_owned()));
        }
        let ended = self.followed.iter().position(|followed| state.unwatched.contains_key(&followed.key_prefix));
        if let Some(ended) = ended.map(|ended| self.followed.remove(ended)) {
            let error = state.unwatched.remove(&ended.key_prefix);
            return Ok(error.map(|error| WatchItem::Lost { watch_id: ended.watch_id, error }));
        }
        for followed in &mut self.followed {
            if followed.from < state.compacted {
                return Err(RegistryError::Compacted(state.compacted));
            }
            let matches = |key: &RecordKey| key.as_bytes().starts_with(followed.key_prefix.as_bytes());
            let changes_of_range = state.history.iter().filter(|change| {
                change.revision() >= followed.from
                    && match change {
                        Change::Put(record) => matches(&record.key),
                        Change::Delete { key, .. } => matches(key),
                    }
            });
            let changes: Vec<Change> = changes_of_range.cloned().collect();
            if !changes.is_empty() {
                followed.from = state.revision + 1;
                return Ok(Some(WatchItem::Changes(changes)));
            }
        }
        let reached = self.followed.iter().all(|followed| state.revision + 1 >= followed.from);
        if reached && std::mem::take(&mut self.progress) {
            return Ok(Some(WatchItem::Progress(state.revision)));
        }
        Ok(None)
    }
}

#[async_trait]
impl Watch for FakeWatch {
    async fn next(&mut self) -> Result<WatchItem> {
        // Leases expire on the clock, not on a notification.
        const TICK: Duration = Duration::from_millis(100);
        let changed = self.registry.server.changed.clone();
        loop {
            let notified = changed.notified();
            if let Some(item) = self.poll()? {
                return Ok(item);
            }
            let _ = tokio::time::timeout(TICK, notified).await;
        }
    }

    async fn follow(&mut self, another: &WatchRange) -> Result<()> {
        drop(self.registry.ask("watch")?);
        self.followed.push(another.clone());
        Ok(())
    }

    async fn unwatch(&mut self, watch_id: i64) -> Result<()> {
        self.followed.retain(|followed| followed.watch_id != watch_id);
        Ok(())
    }

    async fn request_progress(&mut self) -> Result<bool> {
        if self.registry.ask("progress")?.faults.no_progress || self.followed.is_empty() {
            return Ok(false);
        }
        self.progress = true;
        Ok(true)
    }
}
