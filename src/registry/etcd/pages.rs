//! The pages of a list.
//!
//! Owns the number of keys in each page, which follows their size. Refuses to know what the list is for.
//!
//! Strangers choose the size of values, and a page has to fit into one message. A page that does not fit is asked for
//! again with half as many keys; one key that does not fit is read without its value.

use async_trait::async_trait;
use etcd_client::{GetOptions, KeyValue, KvClient, ResponseHeader};
use twinspan_core::model::{LeaseId, MAX_VALUE, RawRecord, RecordKey, Revision};

use super::call::{MAX_MESSAGE, PAGE, call};
use crate::registry::{RecordPages, RegistryError, Result, are_two_etcds};

/// Keys in the first page.
const FIRST: i64 = 100;
/// Keys in the largest page.
const MOST: i64 = 2000;
/// Pages grow while they have fewer bytes than this.
const GROW_BELOW: usize = 2 * 1024 * 1024;

/// A list of keys with one prefix, at one revision.
pub struct Pages {
    client: KvClient,
    /// The next key, and the first one after all keys with the prefix; `None` after the last page.
    next: Option<Vec<u8>>,
    end: Vec<u8>,
    size: i64,
    revision: Option<Revision>,
    cluster_id: u64,
    serializable: bool,
}

impl Pages {
    /// At the current revision of the cluster, which the first page fixes.
    pub fn new(client: KvClient, key_prefix: &str) -> Self {
        let (next, end) = (Some(key_prefix.as_bytes().to_vec()), end_of(key_prefix.as_bytes()));
        let client = client.max_decoding_message_size(MAX_MESSAGE);
        Self { client, next, end, size: FIRST, revision: None, cluster_id: 0, serializable: false }
    }

    /// At an explicit revision, as any member has it. Without a revision, a proxy might answer from its cache.
    pub fn at(client: KvClient, key_prefix: &str, revision: Revision) -> Self {
        Self { revision: Some(revision), serializable: true, ..Self::new(client, key_prefix) }
    }

    /// The revision of the list; 0 before its first page.
    pub fn revision(&self) -> Revision {
        self.revision.unwrap_or_default()
    }

    /// The cluster that answered; 0 if its answers do not tell.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// The records of the next page, which may be none; `None` after the last page.
    pub async fn page(&mut self) -> Result<Option<Vec<RawRecord>>> {
        while let Some(from) = self.next.clone() {
            match self.get(from.clone(), false).await {
                Err(RegistryError::TooLarge(_)) if self.size > 1 => self.size = (self.size / 2).max(1),
                // The value could change before it is asked for again, so the revision is fixed first.
                Err(RegistryError::TooLarge(_)) if self.revision.is_none() => {
                    self.get(from.clone(), true).await?;
                    self.next = Some(from);
                }
                Err(RegistryError::TooLarge(_)) => return self.get(from, true).await.map(Some),
                page => return page.map(Some),
            }
        }
        Ok(None)
    }

    async fn get(&mut self, from: Vec<u8>, keys_only: bool) -> Result<Vec<RawRecord>> {
        let mut options = GetOptions::new().with_range(self.end.clone()).with_limit(self.size);
        if keys_only {
            options = options.with_keys_only();
        }
        if let Some(revision) = self.revision {
            options = options.with_revision(revision);
        }
        if self.serializable {
            options = options.with_serializable();
        }
        let mut answer = call("list", PAGE, self.client.get(from, Some(options))).await?;
        if let Some(header) = answer.header() {
            let cluster_id = ResponseHeader::cluster_id(header);
            if are_two_etcds(cluster_id, self.cluster_id) {
                return Err(RegistryError::WatchEnded("another etcd answers than when the list began".to_owned()));
            }
            self.cluster_id = cluster_id;
            self.revision.get_or_insert(header.revision());
        }
        let (more, kvs) = (answer.more(), answer.take_kvs());
        self.next = kvs.last().filter(|_| more).map(|last| [last.key(), &[0]].concat());
        if !keys_only && kvs.iter().map(|kv| kv.key().len() + kv.value().len()).sum::<usize>() < GROW_BELOW {
            self.size = (self.size * 2).min(MOST);
        }
        Ok(kvs.into_iter().map(if keys_only { without_value } else { raw }).collect())
    }
}

#[async_trait]
impl RecordPages for Pages {
    async fn next_page(&mut self) -> Result<Option<Vec<RawRecord>>> {
        self.page().await
    }
}

/// Takes the bytes of key and value over; a value that is too long is dropped.
pub fn raw(kv: KeyValue) -> RawRecord {
    if kv.value().len() > MAX_VALUE {
        return without_value(kv);
    }
    let (mod_revision, lease) = (kv.mod_revision(), LeaseId(kv.lease()));
    let (key, value) = kv.into_key_value();
    RawRecord { key: RecordKey::new(key), value, mod_revision, lease }
}

pub fn without_value(kv: KeyValue) -> RawRecord {
    let (mod_revision, lease) = (kv.mod_revision(), LeaseId(kv.lease()));
    RawRecord::without_value(RecordKey::new(kv.into_key_value().0), mod_revision, lease)
}

/// The first key after all keys with this prefix.
fn end_of(key_prefix: &[u8]) -> Vec<u8> {
    let mut end = key_prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_root_is_right_after_everything_that_begins_so() {
        assert_eq!(end_of(b"a/"), b"a0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff"), b"\0", "which etcd takes for every key");
    }
}
