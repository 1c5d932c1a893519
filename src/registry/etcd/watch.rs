//! Watches.
//!
//! A watch at a compacted revision is answered with `created` and then `canceled` with an empty reason, while the stream stays open
//! (etcd 3.5 to 3.7); an expired token cancels likewise. Both are ends here.

use async_trait::async_trait;
use etcd_client::{EventType, ResponseHeader, WatchClient, WatchOptions, WatchResponse, WatchStream};
use twinspan_core::model::{RecordKey, Revision};

use super::{CALL, MAX_MESSAGE, call, error, kv};
use crate::registry::{Change, RegistryError, Result, Watch, WatchItem};

struct EtcdWatch {
    stream: WatchStream,
}

pub async fn open(client: WatchClient, root: &str, from: Revision) -> Result<Box<dyn Watch>> {
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    // Not `with_fragment`: the client does not say which piece is the last.
    let options = WatchOptions::new().with_prefix().with_start_revision(from).with_progress_notify();
    let stream = call("watch", CALL, client.watch(root, Some(options))).await?;
    Ok(Box::new(EtcdWatch { stream }))
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<WatchItem> {
        loop {
            let message = self.stream.message().await.map_err(|e| error::meaning(&e))?;
            let response = message.ok_or_else(|| RegistryError::WatchEnded("the stream ended".to_owned()))?;
            if let Some(item) = item(&response)? {
                return Ok(item);
            }
        }
    }

    async fn request_progress(&mut self) -> Result<()> {
        self.stream.request_progress().await.map_err(|e| error::meaning(&e))
    }
}

/// What a response says; `None` where it says nothing that counts.
fn item(response: &WatchResponse) -> Result<Option<WatchItem>> {
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
    // The answer to the watch request itself carries the current revision, but is no proof that everything up to it came.
    let revision = response.header().map(ResponseHeader::revision).unwrap_or_default();
    Ok((!response.created()).then_some(WatchItem::Progress(revision)))
}
