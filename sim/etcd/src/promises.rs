//! The seven promises of etcd's watch, checked on a recorded stream.
//!
//! Owns Ordered, Unique, Atomic, Reliable, Resumable, Bookmarkable and PrevKV (`tests/robustness/validate/watch.go` of
//! etcd, and its documented API guarantees). Refuses to know how a stream was recorded, and by which server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use etcd_client::proto::{PbEvent, PbKeyValue, PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};

use crate::history::Change;
use crate::key_range::KeyRange;

/// A request for a watch, as far as the promises depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    /// 0 is from now on.
    pub start_revision: i64,
    /// 0 lets the server choose.
    pub watch_id: i64,
    pub prev_kv: bool,
    pub no_put: bool,
    pub no_delete: bool,
}

/// A message of a stream, in the order in which the client sent or got it.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Create(WatchRequest),
    Response(PbWatchResponse),
}

impl Message {
    /// The part of a sent request that the promises depend on: none of a cancel, or of a request for progress.
    pub fn sent(request: PbWatchRequest) -> Option<Self> {
        let Some(PbWatchRequestUnion::CreateRequest(create)) = request.request_union else { return None };
        Some(Self::Create(WatchRequest {
            no_put: create.filters.contains(&0),
            no_delete: create.filters.contains(&1),
            key: create.key,
            range_end: create.range_end,
            start_revision: create.start_revision,
            watch_id: create.watch_id,
            prev_kv: create.prev_kv,
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Events come in the order of their revisions.
    Ordered,
    /// No event comes twice.
    Unique,
    /// The events of a revision come in one response.
    Atomic,
    /// Between two events that came, none is missing; and what came is what was written.
    Reliable,
    /// The first event is the first one from the revision that was asked for.
    Resumable,
    /// After progress, everything up to its revision has come, and nothing up to it comes.
    Bookmarkable,
    /// A former record is the one before the event, and comes only if it was asked for.
    PrevKv,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub promise: Promise,
    pub watch_id: i64,
    /// The event or response that came, or should have come.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken on watch {}: {}", self.promise, self.watch_id, self.detail)
    }
}

/// The violations on one stream. The history is that of the incarnation in which the stream was open, in order; a
/// former record that a compaction has taken may lack.
pub fn violations(history: &[Change], stream: &[Message]) -> Vec<Violation> {
    let mut check = Check { history, pending: VecDeque::new(), watches: BTreeMap::new(), found: Vec::new() };
    for message in stream {
        match message {
            Message::Create(request) => check.pending.push_back(request),
            Message::Response(response) => check.response(response),
        }
    }
    check.found
}

struct Watch<'a> {
    request: &'a WatchRequest,
    range: KeyRange,
    /// The next change of the history that may come.
    position: usize,
    last_revision: i64,
    bookmark: i64,
    seen: BTreeSet<(i64, Vec<u8>, i32)>,
    any: bool,
    fragment: bool,
}

struct Check<'a> {
    history: &'a [Change],
    /// Requests without an answer: answers come in their order.
    pending: VecDeque<&'a WatchRequest>,
    watches: BTreeMap<i64, Watch<'a>>,
    found: Vec<Violation>,
}

impl Watch<'_> {
    fn wants(&self, change: &Change) -> bool {
        let filtered = if change.after.is_some() { self.request.no_put } else { self.request.no_delete };
        self.range.contains(&change.key) && !filtered
    }
}

impl<'a> Check<'a> {
    fn response(&mut self, response: &PbWatchResponse) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created {
            self.created(response, revision);
        } else if response.canceled {
            self.watches.remove(&response.watch_id);
        } else if response.events.is_empty() {
            self.progress(response.watch_id, revision);
        } else {
            self.events(response);
        }
    }

    fn created(&mut self, response: &PbWatchResponse, revision: i64) {
        let Some(request) = self.pending.pop_front() else { return };
        if response.canceled {
            return;
        }
        let start = if request.start_revision > 0 { request.start_revision } else { revision + 1 };
        let key: &[u8] = if request.key.is_empty() { &[0] } else { &request.key };
        let watch = Watch {
            request,
            range: KeyRange::new(key, &request.range_end),
            position: self.history.partition_point(|change| change.revision < start),
            last_revision: 0,
            bookmark: 0,
            seen: BTreeSet::new(),
            any: false,
            fragment: false,
        };
        self.watches.insert(response.watch_id, watch);
    }

    /// Progress of one watch, or of all on the stream.
    fn progress(&mut self, watch_id: i64, revision: i64) {
        let all = watch_id < 0;
        for (id, watch) in self.watches.iter_mut().filter(|(id, _)| all || **id == watch_id) {
            let missing = self.history[watch.position..].iter().take_while(|change| change.revision <= revision);
            if let Some(change) = missing.into_iter().find(|change| watch.wants(change)) {
                let detail = format!("progress {revision} came before {change:?}");
                self.found.push(Violation { promise: Promise::Bookmarkable, watch_id: *id, detail });
            }
            watch.bookmark = watch.bookmark.max(revision);
        }
    }

    fn events(&mut self, response: &PbWatchResponse) {
        let watch_id = response.watch_id;
        let Some(watch) = self.watches.get_mut(&watch_id) else {
            let detail = format!("events without a watch: {:?}", response.events);
            self.found.push(Violation { promise: Promise::Reliable, watch_id, detail });
            return;
        };
        let mut broken = |promise, detail| self.found.push(Violation { promise, watch_id, detail });
        let first = response.events.first().map_or(0, revision_of);
        if watch.any && first == watch.last_revision && !watch.fragment {
            broken(Promise::Atomic, format!("revision {first} is split"));
        }
        watch.fragment = response.fragment;
        for event in &response.events {
            let (revision, key) = (revision_of(event), key_of(event));
            if revision < watch.last_revision {
                broken(Promise::Ordered, format!("{revision} came after {}", watch.last_revision));
            }
            if revision <= watch.bookmark {
                broken(Promise::Bookmarkable, format!("{revision} came after progress {}", watch.bookmark));
            }
            watch.last_revision = watch.last_revision.max(revision);
            if !watch.seen.insert((revision, key.to_vec(), event.r#type)) {
                broken(Promise::Unique, format!("{event:?} came twice"));
                continue;
            }
            let next = self.history[watch.position..].iter().position(|change| watch.wants(change));
            let expected = next.map(|next| &self.history[watch.position + next]);
            match expected.filter(|change| is_of(event, change)) {
                Some(change) => {
                    watch.position += next.unwrap_or(0) + 1;
                    let before = before_revision(&self.history[..watch.position], change);
                    if let Some(detail) = wrong_previous(event, before.as_ref(), watch.request.prev_kv) {
                        broken(Promise::PrevKv, detail);
                    }
                }
                None => {
                    let promise = if watch.any { Promise::Reliable } else { Promise::Resumable };
                    broken(promise, format!("{event:?} came instead of {expected:?}"));
                    watch.position = self.history.partition_point(|change| change.revision <= revision);
                }
            }
            watch.any = true;
        }
    }
}

fn revision_of(event: &PbEvent) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn key_of(event: &PbEvent) -> &[u8] {
    event.kv.as_ref().map_or(&[], |kv| &kv.key)
}

fn is_of(event: &PbEvent, change: &Change) -> bool {
    let Some(kv) = &event.kv else { return false };
    match &change.after {
        Some(record) => event.r#type == 0 && *kv == record.to_pb(&change.key),
        None => event.r#type == 1 && kv.key == change.key && kv.mod_revision == change.revision,
    }
}

/// The record before the revision of a change: a transaction may change a key twice. The change is the last of
/// `history`.
fn before_revision(history: &[Change], change: &Change) -> Option<PbKeyValue> {
    let of_revision = &history[history.partition_point(|other| other.revision < change.revision)..];
    let first = of_revision.iter().find(|other| other.key == change.key)?;
    first.before.as_ref().map(|record| record.to_pb(&change.key))
}

fn wrong_previous(event: &PbEvent, before: Option<&PbKeyValue>, asked: bool) -> Option<String> {
    let previous = event.prev_kv.as_ref()?;
    (!asked || before != Some(previous)).then(|| format!("{previous:?} came instead of {before:?}"))
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::PbResponseHeader;

    use super::*;
    use crate::store::Record;

    fn change(revision: i64, key: &str, before: Option<i64>, put: bool) -> Change {
        let record = |at| Record { value: vec![], create_revision: at, mod_revision: at, version: 1, lease: 0 };
        Change {
            incarnation: 0,
            revision,
            time: std::time::Duration::ZERO,
            author: String::new(),
            key: key.into(),
            before: before.map(record),
            after: put.then(|| record(revision)),
            expired_lease: None,
        }
    }

    /// Creates at 2 and 3, a revision of two keys at 4, and a delete at 5.
    fn history() -> Vec<Change> {
        vec![
            change(2, "a/1", None, true),
            change(3, "b", None, true),
            change(4, "a/2", None, true),
            change(4, "a/3", None, true),
            change(5, "a/1", Some(2), false),
        ]
    }

    fn response(revision: i64, events: Vec<PbEvent>) -> Message {
        let header = Some(PbResponseHeader { revision, ..PbResponseHeader::default() });
        Message::Response(PbWatchResponse { header, watch_id: 1, events, ..PbWatchResponse::default() })
    }

    fn event(index: usize) -> PbEvent {
        let change = &history()[index];
        let mut kv = change.after.clone().unwrap_or_else(|| Record {
            value: vec![],
            create_revision: 0,
            mod_revision: change.revision,
            version: 0,
            lease: 0,
        });
        kv.mod_revision = change.revision;
        PbEvent { r#type: i32::from(change.after.is_none()), kv: Some(kv.to_pb(&change.key)), prev_kv: None }
    }

    /// The first broken promise on a watch of `a/` from a revision on.
    fn broken(start_revision: i64, answers: Vec<Message>) -> Option<Promise> {
        let request = WatchRequest {
            key: b"a/".to_vec(),
            range_end: b"a0".to_vec(),
            start_revision,
            prev_kv: true,
            ..WatchRequest::default()
        };
        let mut stream = vec![Message::Create(request)];
        let Message::Response(created) = response(1, vec![]) else { return None };
        stream.push(Message::Response(PbWatchResponse { created: true, ..created }));
        stream.extend(answers);
        violations(&history(), &stream).first().map(|violation| violation.promise)
    }

    #[test]
    fn a_faithful_stream_breaks_nothing() {
        let mut delete = event(4);
        delete.prev_kv = history()[4].before.as_ref().map(|record| record.to_pb(b"a/1"));
        let whole = vec![response(2, vec![event(0)]), response(4, vec![event(2), event(3)]), response(5, vec![delete])];
        assert_eq!(broken(0, whole.clone()), None);
        assert_eq!(broken(2, whole), None);
        assert_eq!(broken(3, vec![response(3, vec![]), response(4, vec![event(2), event(3)])]), None);
    }

    #[test]
    fn each_promise_can_be_broken() {
        let first = || response(2, vec![event(0)]);
        assert_eq!(broken(2, vec![response(4, vec![event(2), event(3)])]), Some(Promise::Resumable));
        assert_eq!(broken(2, vec![first(), response(5, vec![event(4)])]), Some(Promise::Reliable));
        assert_eq!(
            broken(2, vec![first(), response(4, vec![event(2)]), response(4, vec![event(3)])]),
            Some(Promise::Atomic)
        );
        assert_eq!(broken(2, vec![response(4, vec![event(0), event(0)])]), Some(Promise::Unique));
        let late = vec![first(), response(4, vec![event(2), event(3)]), response(5, vec![event(0)])];
        assert_eq!(broken(2, late), Some(Promise::Ordered));
        assert_eq!(broken(2, vec![response(2, vec![]), first()]), Some(Promise::Bookmarkable));
        let mut delete = event(4);
        delete.prev_kv = Some(Record { version: 9, ..history()[0].after.clone().expect("a put") }.to_pb(b"a/1"));
        let wrong = vec![first(), response(4, vec![event(2), event(3)]), response(5, vec![delete])];
        assert_eq!(broken(2, wrong), Some(Promise::PrevKv));
    }
}
