//! A watch stream of etcd, with several key prefixes.
//!
//! Owns the order of create requests and the meaning of each response. For a watch at a compacted revision etcd answers
//! `created` and then `canceled` with an empty reason, while the stream stays open (etcd 3.5 to 3.7); an expired token
//! cancels in the same way. Both end the stream here. Refuses to open a stream again, which the session does, and to
//! put fragments together, which [`super::fragments`] does.
//!
//! etcd's grpc-proxy numbers watches itself and answers no progress request (server/proxy/grpcproxy/watch.go). So the
//! number of a watch comes from the answer that created it: answers come in the order of requests, and one request is
//! under way at a time.
//!
//! A watch begins at the revision of its list, though its events are known: etcd answers no progress request while a
//! watch begins in the future (`progressIfSync` of server/storage/mvcc, 3.5.8 and later). After an event that was too
//! large to be read it begins one revision later, or the same event would end each stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use etcd_client::{ResponseHeader, WatchClient, WatchOptions, WatchResponse, WatchStream};

use super::call::{CALL, MAX_MESSAGE, call};
use super::error;
use super::fragments::{Fragments, bytes_of};
use crate::registry::{RegistryError, Result, Revision, Watch, WatchItem, WatchRange, are_two_etcds};

/// The watch ID of a response for the whole stream, to a progress request (`InvalidWatchID` of server/storage/mvcc).
const WHOLE_STREAM: i64 = -1;

struct EtcdWatch {
    stream: WatchStream,
    /// The watches that exist, by the number that the server gave them.
    created: BTreeMap<i64, Created>,
    opening: Option<Opening>,
    /// Ranges whose create request is not sent yet.
    waiting: VecDeque<WatchRange>,
    /// Numbers of watches to cancel.
    unwanted: Vec<i64>,
    /// Items that arrived while a create request was under way, with the ID of their watch.
    ready: VecDeque<(i64, WatchItem)>,
    /// The server took over the number that was asked for, as etcd does and its proxy does not.
    answers_progress: bool,
    /// The revision that the server has reached.
    revision: Revision,
    /// A stream ended with an event that was too large.
    too_large: Arc<AtomicBool>,
}

struct Created {
    watch_id: i64,
    /// The revision at which it begins on the server.
    start: Revision,
    fragments: Fragments,
}

/// A create request without an answer.
struct Opening {
    range: WatchRange,
    start: Revision,
    unwanted: bool,
}

impl Opening {
    fn of(range: &WatchRange, too_large: &AtomicBool) -> Self {
        let start = if too_large.load(Ordering::Relaxed) { range.from } else { range.from - 1 };
        Self { range: range.clone(), start: start.max(1), unwanted: false }
    }

    fn options(&self) -> Option<WatchOptions> {
        let options = WatchOptions::new().with_prefix().with_start_revision(self.start).with_fragment();
        Some(options.with_progress_notify().with_watch_id(self.range.watch_id))
    }

    fn key_prefix(&self) -> &str {
        &self.range.key_prefix
    }
}

/// True if the watch is on another etcd than its list, or on an older state of the same one: the connection was made
/// anew in between. Such a watch would say nothing until that etcd reaches the revision of the list, and then tell the
/// wrong things. A proxy may tell neither cluster ID nor revision (`watchBroadcast.add` of server/proxy/grpcproxy).
fn leads_elsewhere(range: &WatchRange, header: &ResponseHeader) -> bool {
    let is_older = header.revision() > 0 && header.revision() < range.from - 1;
    is_older || are_two_etcds(header.cluster_id(), range.cluster_id)
}

/// `too_large` is shared by all streams to the same server.
pub async fn open(client: WatchClient, first: &WatchRange, too_large: Arc<AtomicBool>) -> Result<Box<dyn Watch>> {
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let opening = Opening::of(first, &too_large);
    let stream = call("watch", CALL, client.watch(opening.key_prefix(), opening.options())).await?;
    Ok(Box::new(EtcdWatch {
        stream,
        created: BTreeMap::new(),
        opening: Some(opening),
        waiting: VecDeque::new(),
        unwanted: Vec::new(),
        ready: VecDeque::new(),
        answers_progress: true,
        revision: 0,
        too_large,
    }))
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<WatchItem> {
        loop {
            if let Some((_, item)) = self.ready.pop_front() {
                return Ok(item);
            }
            self.send_requests().await?;
            self.receive().await?;
        }
    }

    async fn follow(&mut self, another: &WatchRange) -> Result<()> {
        self.waiting.push_back(another.clone());
        // The answer to the request before has mostly arrived while the session listed this range.
        while self.opening.is_some() && self.bytes_ready() < MAX_MESSAGE {
            self.receive().await?;
        }
        self.send_requests().await
    }

    async fn unwatch(&mut self, watch_id: i64) -> Result<()> {
        self.waiting.retain(|range| range.watch_id != watch_id);
        self.ready.retain(|(of, _)| *of != watch_id);
        if let Some(opening) = self.opening.as_mut().filter(|opening| opening.range.watch_id == watch_id) {
            opening.unwanted = true;
        }
        let number = self.created.iter().find(|(_, watch)| watch.watch_id == watch_id).map(|(number, _)| *number);
        if let Some(number) = number {
            self.created.remove(&number);
            self.unwanted.push(number);
        }
        self.send_requests().await
    }

    async fn request_progress(&mut self) -> Result<bool> {
        // Whether the server answers shows with the answer to a create request.
        while (self.opening.is_some() || !self.waiting.is_empty()) && self.bytes_ready() < MAX_MESSAGE {
            self.send_requests().await?;
            self.receive().await?;
        }
        // A stream without a watch has no progress (`progressIfSync` of server/storage/mvcc).
        let waits = self.created.values().any(|watch| watch.start > self.revision);
        if !self.answers_progress || self.created.is_empty() || waits {
            return Ok(false);
        }
        call("progress request", CALL, self.stream.request_progress()).await?;
        Ok(true)
    }
}

impl EtcdWatch {
    /// Cancels unwanted watches, and sends the next create request if none is under way. Requests wait for buffer space
    /// if the server does not read.
    async fn send_requests(&mut self) -> Result<()> {
        while let Some(number) = self.unwanted.last() {
            call("end of a watch", CALL, self.stream.cancel(*number)).await?;
            self.unwanted.pop();
        }
        if self.opening.is_none()
            && let Some(range) = self.waiting.front()
        {
            let opening = Opening::of(range, &self.too_large);
            call("watch", CALL, self.stream.watch(opening.key_prefix(), opening.options())).await?;
            self.waiting.pop_front();
            self.opening = Some(opening);
        }
        Ok(())
    }

    /// Waits for one response; while a create request is under way, not for ever.
    async fn receive(&mut self) -> Result<()> {
        let response = if self.opening.is_some() {
            call("watch", CALL, self.stream.message()).await
        } else {
            self.stream.message().await.map_err(|e| error::meaning(&e))
        };
        if let Err(RegistryError::TooLarge(_)) = &response {
            self.too_large.store(true, Ordering::Relaxed);
        }
        self.take(response?.ok_or_else(|| RegistryError::WatchEnded("the stream ended".to_owned()))?)
    }

    fn take(&mut self, response: WatchResponse) -> Result<()> {
        self.revision = self.revision.max(response.header().map(ResponseHeader::revision).unwrap_or_default());
        if response.created() {
            return self.take_created(&response);
        }
        let number = response.watch_id();
        if number != WHOLE_STREAM && !self.created.contains_key(&number) {
            // The end of a canceled watch, or one of its last events.
            return Ok(());
        }
        if response.compact_revision() > 0 {
            return Err(RegistryError::Compacted(response.compact_revision()));
        }
        if response.canceled() {
            return Err(reason(&response));
        }
        if response.events().is_empty() {
            let item = self.progress(&response);
            self.ready.push_back((WHOLE_STREAM, item));
        } else {
            self.take_events(number, response);
        }
        Ok(())
    }

    /// The answer to the create request. It carries the current revision, but it does not prove that all events up to
    /// it have arrived.
    fn take_created(&mut self, response: &WatchResponse) -> Result<()> {
        let Some(Opening { range, start, unwanted }) = self.opening.take() else {
            return Err(RegistryError::WatchEnded("an answer without a request".to_owned()));
        };
        if response.canceled() {
            return match reason(response) {
                _ if unwanted => Ok(()),
                // A matter of this range alone.
                error @ RegistryError::PermissionDenied(_) => {
                    self.ready.push_back((range.watch_id, WatchItem::Lost { watch_id: range.watch_id, error }));
                    Ok(())
                }
                error => Err(error),
            };
        }
        if let Some(header) = response.header().filter(|header| leads_elsewhere(&range, header)) {
            let (cluster, revision) = (header.cluster_id(), header.revision());
            let text = format!(
                "etcd {cluster:x} at revision {revision} answers the watch, and etcd {:x} answered its list at revision {}",
                range.cluster_id,
                range.from - 1
            );
            return Err(RegistryError::WatchEnded(text));
        }
        let number = response.watch_id();
        self.answers_progress &= number == range.watch_id;
        if unwanted {
            self.unwanted.push(number);
        } else {
            let fragments = Fragments::from(range.from);
            self.created.insert(number, Created { watch_id: range.watch_id, start, fragments });
        }
        Ok(())
    }

    /// The progress of one watch does not prove that of the others, nor that of one that is not created yet.
    fn progress(&self, response: &WatchResponse) -> WatchItem {
        let everything = response.watch_id() == WHOLE_STREAM || self.created.len() == 1;
        if everything && self.opening.is_none() && self.waiting.is_empty() {
            WatchItem::Progress(response.header().map(ResponseHeader::revision).unwrap_or_default())
        } else {
            WatchItem::Alive
        }
    }

    fn take_events(&mut self, number: i64, response: WatchResponse) {
        let Some(watch) = self.created.get_mut(&number) else { return };
        let watch_id = watch.watch_id;
        let item = match watch.fragments.add(response) {
            Ok(changes) if changes.is_empty() => WatchItem::Alive,
            Ok(changes) => WatchItem::Changes(changes),
            Err(error) => {
                self.created.remove(&number);
                self.unwanted.push(number);
                WatchItem::Lost { watch_id, error }
            }
        };
        self.ready.push_back((watch_id, item));
    }

    fn bytes_ready(&self) -> usize {
        let of = |item: &WatchItem| match item {
            WatchItem::Changes(changes) => changes.iter().map(bytes_of).sum(),
            _ => size_of::<WatchItem>(),
        };
        self.ready.iter().map(|(_, item)| of(item)).sum()
    }
}

/// The reason why the server canceled a watch.
fn reason(response: &WatchResponse) -> RegistryError {
    match response.cancel_reason() {
        reason if reason.contains("permission denied") => RegistryError::PermissionDenied(reason.to_owned()),
        reason => RegistryError::WatchEnded(reason.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbResponseHeader, PbWatchResponse};

    use super::*;

    #[test]
    fn a_watch_is_followed_only_on_the_etcd_that_answered_its_list() {
        let range = WatchRange { watch_id: 1, key_prefix: "p/".to_owned(), from: 11, cluster_id: 7 };
        let leads_elsewhere = |range: &WatchRange, cluster_id, revision| {
            let header = PbResponseHeader { cluster_id, revision, ..PbResponseHeader::default() };
            let response = WatchResponse(PbWatchResponse { header: Some(header), ..PbWatchResponse::default() });
            super::leads_elsewhere(range, response.header().unwrap())
        };
        assert!(!leads_elsewhere(&range, 7, 10) && !leads_elsewhere(&range, 7, 12));
        assert!(leads_elsewhere(&range, 8, 12), "another cluster");
        assert!(leads_elsewhere(&range, 7, 9), "an older state");
        assert!(!leads_elsewhere(&range, 0, 0), "a proxy that tells neither");
        assert!(!leads_elsewhere(&WatchRange { cluster_id: 0, ..range }, 8, 12), "a list through such a proxy");
    }
}
