//! The watchers of one stream.
//!
//! Owns which events each watcher gets, when it is in sync, and what progress, cancel and compaction answer
//! (`server/storage/mvcc/watchable_store.go`, `watcher.go` and `server/etcdserver/api/v3rpc/watch.go` of etcd 3.7).
//! Refuses to know connections, time and permissions. Events are put into the queue of the stream as they are applied,
//! as etcd does, so a client that reads late loses nothing to a compaction.

use std::collections::{BTreeMap, VecDeque};

use etcd_client::proto::{PbEvent, PbResponseHeader, PbWatchResponse};

use crate::key_range::KeyRange;
use crate::store::{Store, View};

/// The watch ID of answers that belong to no watcher (`InvalidWatchID` of `client/v3/watch.go`).
const INVALID_ID: i64 = -1;
/// Revisions that one catch-up brings to a watcher at most (`watchBatchMaxRevs` of watcher_group.go).
const CATCH_UP_REVISIONS: usize = 1000;
/// A fragmented response is at most about as large as a request.
const FRAGMENT_BYTES: usize = 1536 * 1024;

/// A request for a watcher.
#[derive(Clone, Debug, Default)]
pub(crate) struct Creation {
    pub(crate) key: Vec<u8>,
    pub(crate) range_end: Vec<u8>,
    pub(crate) start_revision: i64,
    pub(crate) watch_id: i64,
    pub(crate) progress_notify: bool,
    pub(crate) prev_kv: bool,
    pub(crate) fragment: bool,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    Synced,
    /// The watcher waits for the next catch-up.
    Unsynced,
    /// The watcher was cut off by a compaction. Its ID stays taken, and progress is never told again, until the client
    /// cancels it.
    Compacted,
}

#[derive(Clone, Debug)]
struct Watcher {
    range: KeyRange,
    start: i64,
    /// The first revision that the watcher has not seen.
    next: i64,
    sync: Sync,
    options: Creation,
    /// Progress is due at the next tick: no event was sent since the last one.
    progress_due: bool,
}

/// Faults of former versions of etcd, each off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchFaults {
    /// Progress is told before events that it covers (etcd issue 15220, mended in 3.5.8).
    pub progress_before_events: bool,
    /// A catch-up from the compacted revision lacks the deletes at that revision (etcd issue 19179).
    pub no_delete_at_compaction: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Watchers {
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    out: VecDeque<PbWatchResponse>,
}

fn response(revision: i64, watch_id: i64) -> PbWatchResponse {
    let header = Some(PbResponseHeader { revision, ..PbResponseHeader::default() });
    PbWatchResponse { header, watch_id, ..PbWatchResponse::default() }
}

impl Watchers {
    pub(crate) fn pop(&mut self) -> Option<PbWatchResponse> {
        self.out.pop_front()
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    pub(crate) fn is_unsynced(&self) -> bool {
        self.watchers.values().any(|watcher| watcher.sync == Sync::Unsynced)
    }

    pub(crate) fn wants_progress(&self) -> bool {
        self.watchers.values().any(|watcher| watcher.options.progress_notify)
    }

    /// Answers a request that is refused before it has a watcher.
    pub(crate) fn refuse(&mut self, view: View, reason: String) {
        self.out.push_back(PbWatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..response(view.revision, INVALID_ID)
        });
    }

    pub(crate) fn create(&mut self, view: View, mut options: Creation) {
        if options.key.is_empty() {
            options.key = vec![0];
        }
        if options.start_revision < 0 {
            return self.refuse(view, "etcdserver: mvcc: required revision has been compacted".to_owned());
        }
        let range = KeyRange::new(&options.key, &options.range_end);
        if range.is_empty() {
            return self.refuse(view, "mvcc: watcher range is empty".to_owned());
        }
        let id = match options.watch_id {
            0 => self.choose_id(),
            id if self.watchers.contains_key(&id) => {
                return self.refuse(view, "mvcc: duplicate watch ID provided on the WatchStream".to_owned());
            }
            id => id,
        };
        let start = options.start_revision;
        let synced = start == 0 || start > view.revision;
        let watcher = Watcher {
            range,
            start,
            next: if synced { start.max(view.revision + 1) } else { start },
            sync: if synced { Sync::Synced } else { Sync::Unsynced },
            progress_due: options.progress_notify,
            options,
        };
        self.watchers.insert(id, watcher);
        self.out.push_back(PbWatchResponse { created: true, ..response(view.revision, id) });
    }

    fn choose_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// An unknown ID gets no answer.
    pub(crate) fn cancel(&mut self, view: View, id: i64) {
        if self.watchers.remove(&id).is_some() {
            self.out.push_back(PbWatchResponse { canceled: true, ..response(view.revision, id) });
        }
    }

    /// Progress on request: one answer for the stream if every watcher is in sync, else none, ever.
    pub(crate) fn request_progress(&mut self, view: View, faults: WatchFaults) {
        let in_sync = self.watchers.values().all(|watcher| watcher.is_in_sync(view));
        if !self.watchers.is_empty() && (in_sync || faults.progress_before_events) {
            self.out.push_back(response(view.revision, INVALID_ID));
        }
    }

    /// The periodic progress of watchers that asked for it and had no event since the last tick.
    pub(crate) fn progress_tick(&mut self, view: View) {
        for (id, watcher) in &mut self.watchers {
            if !watcher.options.progress_notify {
                continue;
            }
            if std::mem::replace(&mut watcher.progress_due, true) && watcher.is_in_sync(view) {
                self.out.push_back(response(view.revision, *id));
            }
        }
    }

    /// A revision was applied: watchers in sync get its events at once (`notify`).
    pub(crate) fn notify(&mut self, store: &Store, view: View) {
        for (id, watcher) in &mut self.watchers {
            if watcher.sync != Sync::Synced || watcher.next > view.revision {
                continue;
            }
            let events = store.events(view.revision, view, &watcher.range);
            watcher.next = view.revision + 1;
            watcher.send(&mut self.out, *id, store, view, events);
        }
    }

    /// Brings watchers up to date that are not, or cuts them off if a compaction was faster (`syncWatchers`).
    pub(crate) fn catch_up(&mut self, store: &Store, view: View, faults: WatchFaults) {
        for (id, watcher) in &mut self.watchers {
            if watcher.sync != Sync::Unsynced {
                continue;
            }
            if watcher.next < view.compacted {
                watcher.sync = Sync::Compacted;
                let compact_revision = view.compacted;
                // The header has no revision, and there is no reason.
                self.out.push_back(PbWatchResponse { canceled: true, compact_revision, ..response(0, *id) });
                continue;
            }
            let mut batch = Vec::new();
            let mut revisions = 0;
            watcher.sync = Sync::Synced;
            for revision in store.revisions(watcher.next, view.revision) {
                let mut events = store.events(revision, view, &watcher.range);
                if faults.no_delete_at_compaction && revision == view.compacted {
                    events.retain(|event| event.r#type == 0);
                }
                if events.is_empty() {
                    continue;
                }
                if revisions == CATCH_UP_REVISIONS {
                    watcher.sync = Sync::Unsynced;
                    watcher.next = revision;
                    break;
                }
                revisions += 1;
                batch.extend(events);
            }
            if watcher.sync == Sync::Synced {
                watcher.next = view.revision + 1;
            }
            watcher.send(&mut self.out, *id, store, view, batch);
        }
    }
}

impl Watcher {
    fn is_in_sync(&self, view: View) -> bool {
        self.sync == Sync::Synced && self.start <= view.revision
    }

    fn send(
        &mut self,
        out: &mut VecDeque<PbWatchResponse>,
        id: i64,
        store: &Store,
        view: View,
        mut events: Vec<PbEvent>,
    ) {
        events.retain(|event| if event.r#type == 0 { !self.options.no_put } else { !self.options.no_delete });
        if events.is_empty() {
            return;
        }
        self.progress_due = false;
        if self.options.prev_kv {
            events.iter_mut().for_each(|event| add_previous(store, view, event));
        }
        let whole = PbWatchResponse { events, ..response(view.revision, id) };
        if self.options.fragment { fragment(out, whole) } else { out.push_back(whole) }
    }
}

/// The record before the event, unless a compaction has taken it.
fn add_previous(store: &Store, view: View, event: &mut PbEvent) {
    let Some(kv) = &event.kv else { return };
    let created = event.r#type == 0 && kv.create_revision == kv.mod_revision;
    let before = kv.mod_revision - 1;
    if !created && before >= view.compacted {
        let point = KeyRange::point(&kv.key);
        event.prev_kv = store.at(&point, before).next().map(|(key, record)| record.to_pb(key));
    }
}

/// `sendFragments`: pieces no larger than a request, but of one event at least.
fn fragment(out: &mut VecDeque<PbWatchResponse>, mut whole: PbWatchResponse) {
    use prost::Message;
    if whole.encoded_len() < FRAGMENT_BYTES || whole.events.len() < 2 {
        return out.push_back(whole);
    }
    let mut piece = PbWatchResponse { fragment: true, events: Vec::new(), ..whole.clone() };
    for event in std::mem::take(&mut whole.events) {
        piece.events.push(event);
        if piece.events.len() > 1 && piece.encoded_len() >= FRAGMENT_BYTES {
            let last = piece.events.pop();
            out.push_back(piece.clone());
            piece.events = last.into_iter().collect();
        }
    }
    piece.fragment = false;
    out.push_back(piece);
}
