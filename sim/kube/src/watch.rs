//! Watches: the events of one kind from a version on.
//!
//! Owns their order, their selection, bookmarks and the end of a watch
//! (`k8s.io/apiserver/pkg/storage/cacher/{cacher,cache_watcher}.go`, v0.37.2). An event is read when it is due; nothing
//! polls. Refuses lists.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tower::BoxError;

use crate::cluster::{Cluster, State};
use crate::list::number;
use crate::path::{Path, Query};
use crate::selector::Selector;
use crate::status::{Cause, Status};
use crate::store::Change;

/// The pace of bookmarks (`bookmarkFrequency`).
const BOOKMARKS: Duration = Duration::from_secs(60);
/// The last bookmark comes so long before the end.
const BEFORE_END: Duration = Duration::from_secs(2);
/// The life of a watch that names none (`--min-request-timeout`).
const LIFE: Duration = Duration::from_secs(1800);

struct Watch {
    cluster: Cluster,
    server: usize,
    kind: usize,
    namespace: String,
    selector: Selector,
    /// Events that are due at once: the state at the beginning.
    initial: VecDeque<Bytes>,
    /// The number of the next change among those of the kind.
    next: usize,
    /// Events up to this version are left out: it was ahead of the server's when the watch began.
    from: u64,
    /// The cuts and compactions before the watch.
    cuts: u64,
    compactions: u64,
    end: Instant,
    bookmark: Option<Instant>,
    is_over: bool,
}

/// The next step of a watch.
enum Step {
    Send(Bytes),
    /// The last event.
    SendLast(Bytes),
    Wait(Option<Instant>),
    End,
    Break,
}

impl Cluster {
    /// Opens a watch.
    ///
    /// # Errors
    /// A request that cannot be understood; what goes wrong later is an ERROR event.
    pub(crate) async fn watch_by_http(
        &self,
        server: usize,
        kind: usize,
        path: &Path,
        query: &Query,
    ) -> Result<impl Stream<Item = Result<Bytes, BoxError>> + Send + use<>, Status> {
        let rules = &self.shared().kinds[kind];
        let selector = Selector::parse(rules, query.text("labelSelector"), query.text("fieldSelector"))?;
        check(query)?;
        let version = query.text("resourceVersion");
        let from = if version.is_empty() { 0 } else { number(version)? };
        let all_first = query.flag("sendInitialEvents");
        let late = if all_first == Some(true) {
            let wanted = if version.is_empty() { self.state().store.revision() } else { from };
            self.wait_for(server, wanted).await.err()
        } else {
            None
        };
        let now = Instant::now();
        let life = query.number("timeoutSeconds").filter(|seconds| *seconds > 0).map_or(LIFE, Duration::from_secs);
        let end = now + life;
        let mut state = self.state();
        let elapsed = self.shared().clock.elapsed();
        let State { store, servers, compactions, .. } = &mut *state;
        let faults = &mut servers[server];
        let seen = faults.seen(store, elapsed);
        let mut watch = Watch {
            cluster: self.clone(),
            server,
            kind,
            namespace: path.namespace.clone(),
            selector,
            initial: VecDeque::new(),
            next: store.next_event(kind, seen),
            from,
            cuts: faults.cuts,
            compactions: *compactions,
            end,
            bookmark: (query.flag("allowWatchBookmarks") == Some(true)).then(|| next_bookmark(now, end)),
            is_over: false,
        };
        let oldest = faults.oldest(store, kind);
        if let Some(status) = late {
            watch.initial.push_back(line("ERROR", &status.to_json()));
            watch.is_over = true;
        } else if all_first == Some(true) || (all_first.is_none() && from == 0) {
            let objects = store.list_at(kind, seen).into_iter().map(|(_, object)| object);
            let chosen = objects.filter(|object| watch.concerns(&object["metadata"]) && watch.selector.matches(object));
            watch.initial = chosen.map(|object| line("ADDED", &object)).collect();
            if all_first == Some(true) && watch.bookmark.is_some() {
                let mut bookmark = watch.bookmark_object(store.revision_at(seen));
                bookmark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                watch.initial.push_back(line("BOOKMARK", &bookmark));
            }
        } else if from > 0 && from < oldest {
            let status = Status::expired(format!("too old resource version: {from} ({oldest})"));
            watch.initial.push_back(line("ERROR", &status.to_json()));
            watch.is_over = true;
        } else if from > 0 {
            watch.next = store.next_event(kind, store.changes_until(from));
        }
        drop(state);
        Ok(futures::stream::unfold(watch, Watch::step))
    }
}

impl Watch {
    async fn step(mut self) -> Option<(Result<Bytes, BoxError>, Self)> {
        loop {
            let changed = self.cluster.changed(self.kind);
            let told = changed.notified();
            let wake = match self.next() {
                Step::Send(line) => return Some((Ok(line), self)),
                Step::SendLast(line) => {
                    self.is_over = true;
                    return Some((Ok(line), self));
                }
                Step::Break => {
                    self.is_over = true;
                    return Some((Err("connection reset by peer".into()), self));
                }
                Step::End => return None,
                Step::Wait(wake) => wake,
            };
            let alarm = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = told => {}
                () = alarm => {}
            }
        }
    }

    fn next(&mut self) -> Step {
        let cluster = self.cluster.clone();
        let clock = cluster.shared().clock;
        let (now, elapsed) = (Instant::now(), clock.elapsed());
        let mut state = cluster.state();
        let State { store, servers, compactions, .. } = &mut *state;
        let faults = &mut servers[self.server];
        if self.is_over && self.initial.is_empty() {
            return Step::End;
        }
        if faults.down || faults.cuts != self.cuts {
            return Step::Break;
        }
        if faults.frozen || faults.stalled {
            return Step::Wait(None);
        }
        if *compactions != self.compactions {
            let (from, oldest) = (store.revision_at(faults.seen(store, elapsed)), store.revision());
            let status = Status::expired(format!("too old resource version: {from} ({oldest})"));
            return Step::SendLast(line("ERROR", &status.to_json()));
        }
        if let Some(line) = self.initial.pop_front() {
            return Step::Send(line);
        }
        if now >= self.end {
            return Step::End;
        }
        let seen = faults.seen(store, elapsed);
        let mut due = None;
        while let Some((index, change)) = store.event(self.kind, self.next) {
            if index >= seen {
                due = Some(clock.instant(change.at + faults.lag));
                break;
            }
            self.next += 1;
            let Some(line) = self.event(change) else { continue };
            let skipped = faults.skipped_events.get_mut(&*change.resource).filter(|left| **left > 0);
            match skipped {
                Some(left) => *left -= 1,
                None => return Step::Send(line),
            }
        }
        if let Some(at) = self.bookmark.filter(|at| now >= *at) {
            self.bookmark = Some(next_bookmark(at.max(now), self.end));
            // A watch from the future is not told of a version that is older than its own.
            let revision = store.revision_at(seen).max(self.from);
            return Step::Send(line("BOOKMARK", &self.bookmark_object(revision)));
        }
        let alarms = [due, self.bookmark, Some(self.end)];
        Step::Wait(alarms.into_iter().flatten().min())
    }

    fn concerns(&self, metadata: &Value) -> bool {
        self.namespace.is_empty() || metadata["namespace"] == self.namespace
    }

    /// The event of a change for this watch, if there is one.
    fn event(&self, change: &Change) -> Option<Bytes> {
        if change.revision <= self.from || (!self.namespace.is_empty() && change.namespace != self.namespace) {
            return None;
        }
        let chosen = |object: &Option<Arc<Value>>| object.clone().filter(|object| self.selector.matches(object));
        match (chosen(&change.before), chosen(&change.after)) {
            (None, Some(object)) => Some(line("ADDED", &object)),
            (Some(_), Some(object)) => Some(line("MODIFIED", &object)),
            // The former content at the version of the event.
            (Some(before), None) => {
                let mut object = Value::clone(&before);
                object["metadata"]["resourceVersion"] = json!(change.revision.to_string());
                Some(line("DELETED", &object))
            }
            (None, None) => None,
        }
    }

    fn bookmark_object(&self, revision: u64) -> Value {
        let rules = &self.cluster.shared().kinds[self.kind];
        json!({"kind": rules.kind, "apiVersion": rules.api_version(),
            "metadata": {"resourceVersion": revision.to_string()}})
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}

/// Once a minute, and right before the end (`cacheWatcher.nextBookmarkTime`).
fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(BEFORE_END).filter(|last| *last > now);
    last.map_or(now + BOOKMARKS, |last| last.min(now + BOOKMARKS))
}

/// The parameters that exclude each other (`apis/meta/internalversion/validation`).
fn check(query: &Query) -> Result<(), Status> {
    let matching = query.text("resourceVersionMatch");
    let why = match (query.flag("sendInitialEvents").is_some(), matching) {
        (true, "NotOlderThan") | (false, "") => return Ok(()),
        (true, _) => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        (false, _) => "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
    };
    Err(Status::invalid_list_options(&[Cause::forbidden("resourceVersionMatch", why)]))
}
