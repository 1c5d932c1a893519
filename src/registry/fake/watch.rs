//! The watch of the fake etcd.
//!
//! Owns the position of each range on the stream: until a watch has caught up once, a compaction ends it; afterwards it
//! gets every change (`syncWatchers` and `chooseAll` of server/storage/mvcc, 3.7). Refuses to change records.

use async_trait::async_trait;
use twinspan_core::model::RecordKey;

use super::connection::FakeConnection;
use crate::registry::{Change, RegistryError, Result, Watch, WatchItem, WatchRange};

struct Followed {
    range: WatchRange,
    /// The watch has caught up with the history once.
    synced: bool,
}

pub(super) struct FakeWatch {
    registry: FakeConnection,
    /// Each range, from its next revision on.
    followed: Vec<Followed>,
    progress: bool,
}

impl FakeWatch {
    pub(super) fn new(registry: FakeConnection, first: &WatchRange) -> Self {
        let mut watch = Self { registry, followed: Vec::new(), progress: false };
        watch.add(first);
        watch
    }

    fn add(&mut self, range: &WatchRange) {
        let synced = range.from > self.registry.server.lock().revision;
        self.followed.push(Followed { range: range.clone(), synced });
    }

    /// The next item, if one is ready.
    fn poll(&mut self) -> Result<Option<WatchItem>> {
        let mut state = self.registry.server.lock();
        if state.faults.silent {
            return Ok(None);
        }
        if state.faults.away || state.generation != self.registry.generation {
            return Err(RegistryError::Unreachable("connection reset".to_owned()));
        }
        let ended = self.followed.iter().position(|followed| state.unwatched.contains_key(&followed.range.key_prefix));
        if let Some(ended) = ended.map(|ended| self.followed.remove(ended).range) {
            let error = state.unwatched.remove(&ended.key_prefix);
            return Ok(error.map(|error| WatchItem::Lost { watch_id: ended.watch_id, error }));
        }
        for Followed { range, synced } in &mut self.followed {
            if !*synced && range.from < state.compacted {
                return Err(RegistryError::Compacted(state.compacted));
            }
            *synced = true;
            let matches = |key: &RecordKey| key.as_bytes().starts_with(range.key_prefix.as_bytes());
            let of_range = |change: &&Change| match change {
                Change::Put(record) => matches(&record.key),
                Change::Delete { key, .. } => matches(key),
            };
            let first = state.history.partition_point(|change| change.revision() < range.from);
            let changes: Vec<Change> = state.history[first..].iter().filter(of_range).cloned().collect();
            range.from = range.from.max(state.revision + 1);
            if !changes.is_empty() {
                return Ok(Some(WatchItem::Changes(changes)));
            }
        }
        let reached = self.followed.iter().all(|followed| state.revision + 1 >= followed.range.from);
        if reached && std::mem::take(&mut self.progress) {
            return Ok(Some(WatchItem::Progress(state.revision)));
        }
        Ok(None)
    }
}

#[async_trait]
impl Watch for FakeWatch {
    async fn next(&mut self) -> Result<WatchItem> {
        let changed = self.registry.server.changed.clone();
        loop {
            let notified = changed.notified();
            if let Some(item) = self.poll()? {
                return Ok(item);
            }
            // Leases expire on the clock, not on a notification.
            let expiry = self.registry.server.lock().next_expiry();
            match expiry {
                Some(at) => drop(tokio::time::timeout_at(at, notified).await),
                None => notified.await,
            }
        }
    }

    async fn follow(&mut self, another: &WatchRange) -> Result<()> {
        drop(self.registry.ask("watch")?);
        self.add(another);
        Ok(())
    }

    async fn unwatch(&mut self, watch_id: i64) -> Result<()> {
        self.followed.retain(|followed| followed.range.watch_id != watch_id);
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
