//! A watch stream of etcd, with several key prefixes.
//!
//! Owns the meaning of each response. For a watch at a compacted revision etcd answers `created` and then `canceled`
//! with an empty reason, while the stream stays open (etcd 3.5 to 3.7); an expired token cancels in the same way. Both
//! end the stream here. Refuses to open a stream again, which the session does.

use std::collections::BTreeSet;

use async_trait::async_trait;
use etcd_client::{EventType, ResponseHeader, WatchClient, WatchOptions, WatchResponse, WatchStream};
use twinspan_core::model::RecordKey;

use super::call::{CALL, MAX_MESSAGE, call};
use super::{error, kv};
use crate::registry::{Change, RegistryError, Result, Watch, WatchItem, WatchRange};

/// The watch ID of a response for the whole stream, to a progress request (`InvalidWatchID` of server/storage/mvcc).
const WHOLE_STREAM: i64 = -1;

struct EtcdWatch {
    stream: WatchStream,
    followed: BTreeSet<i64>,
}

fn options(follow: &WatchRange) -> WatchOptions {
    // Not `with_fragment`: the client does not report which fragment is the last.
    WatchOptions::new()
        .with_prefix()
        .with_start_revision(follow.from)
        .with_progress_notify()
        .with_watch_id(follow.watch_id)
}

pub async fn open(client: WatchClient, first: &WatchRange) -> Result<Box<dyn Watch>> {
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let stream = call("watch", CALL, client.watch(first.key_prefix.as_str(), Some(options(first)))).await?;
    Ok(Box::new(EtcdWatch { stream, followed: BTreeSet::from([first.watch_id]) }))
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<WatchItem> {
        loop {
            let message = self.stream.message().await.map_err(|e| error::meaning(&e))?;
            let response = message.ok_or_else(|| RegistryError::WatchEnded("the stream ended".to_owned()))?;
            if let Some(item) = self.item(&response)? {
                return Ok(item);
            }
        }
    }

    async fn follow(&mut self, another: &WatchRange) -> Result<()> {
        // The request waits for buffer space if the server does not read.
        call("watch", CALL, self.stream.watch(another.key_prefix.as_str(), Some(options(another)))).await?;
        self.followed.insert(another.watch_id);
        Ok(())
    }

    async fn unwatch(&mut self, watch_id: i64) -> Result<()> {
        self.followed.remove(&watch_id);
        call("end of a watch", CALL, self.stream.cancel(watch_id)).await
    }

    async fn request_progress(&mut self) -> Result<()> {
        call("progress request", CALL, self.stream.request_progress()).await
    }
}

impl EtcdWatch {
    /// The item in a response, if it has one.
    fn item(&self, response: &WatchResponse) -> Result<Option<WatchItem>> {
        let watch_id = response.watch_id();
        if watch_id != WHOLE_STREAM && !self.followed.contains(&watch_id) {
            // The end of a canceled watch, or one of its last events.
            return Ok(None);
        }
        if response.compact_revision() > 0 {
            return Err(RegistryError::Compacted(response.compact_revision()));
        }
        if response.canceled() {
            return Err(match response.cancel_reason() {
                reason if reason.contains("permission denied") => RegistryError::PermissionDenied(reason.to_owned()),
                reason => RegistryError::WatchEnded(reason.to_owned()),
            });
        }
        let changes: Vec<Change> = response
            .events()
            .iter()
            .filter_map(|event| {
                let kv = event.kv()?;
                Some(match event.event_type() {
                    EventType::Put => Change::Put(kv::raw(kv)),
                    EventType::Delete => Change::Delete { key: RecordKey::new(kv.key()), revision: kv.mod_revision() },
                })
            })
            .collect();
        if !changes.is_empty() {
            return Ok(Some(WatchItem::Changes(changes)));
        }
        // The answer to the watch request carries the current revision, but it does not prove that all events up to it
        // have arrived. Nor does the progress of one watch prove that of the others.
        if response.created() {
            return Ok(None);
        }
        let revision = response.header().map(ResponseHeader::revision).unwrap_or_default();
        let all = watch_id == WHOLE_STREAM || self.followed.len() == 1;
        Ok(Some(if all { WatchItem::Progress(revision) } else { WatchItem::Alive }))
    }
}
