//! The lists, reads and transactions of etcd.
//!
//! Owns the pages of a list and the form of a transaction. Refuses to know what values mean.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, KvClient, PutOptions, ResponseHeader, Txn, TxnOp,
    TxnOpResponse,
};
use twinspan_core::model::{LeaseId, RawRecord, RecordKey};
use twinspan_core::plan::RecordOp;

use super::call::{CALL, MAX_MESSAGE, PAGE, call};
use super::limit::TxnLimit;
use crate::registry::{Batch, ListResponse, MAX_BATCH, Outcome, ReadResponse, RegistryError, Result, TxnResponse};

/// Records in one page of a list.
const PAGE_SIZE: i64 = 2000;

pub fn raw(kv: &KeyValue) -> RawRecord {
    RawRecord {
        key: RecordKey::new(kv.key()),
        value: kv.value().to_vec(),
        mod_revision: kv.mod_revision(),
        lease: LeaseId(kv.lease()),
    }
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

pub async fn list(client: KvClient, key_prefix: &str) -> Result<ListResponse> {
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let end = end_of(key_prefix.as_bytes());
    let mut from = key_prefix.as_bytes().to_vec();
    let mut listing: Option<ListResponse> = None;
    loop {
        let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE_SIZE);
        if let Some(listing) = &listing {
            // All pages have the revision of the first: together they are one snapshot.
            options = options.with_revision(listing.revision);
        }
        let mut answer = call("list", PAGE, client.get(from.clone(), Some(options))).await?;
        let listing = listing.get_or_insert_with(|| ListResponse {
            cluster_id: answer.header().map(ResponseHeader::cluster_id).unwrap_or_default(),
            revision: answer.header().map(ResponseHeader::revision).unwrap_or_default(),
            records: Vec::new(),
        });
        let more = answer.more();
        let kvs = answer.take_kvs();
        listing.records.extend(kvs.iter().map(raw));
        match kvs.last() {
            Some(last) if more => {
                from = last.key().to_vec();
                from.push(0);
            }
            _ => break,
        }
    }
    listing.ok_or_else(|| RegistryError::Server("a list without an answer".to_owned()))
}

pub async fn read(client: KvClient, keys: &[RecordKey], limit: &TxnLimit) -> Result<ReadResponse> {
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let mut reading = ReadResponse { revision: 0, records: Vec::new() };
    let mut rest = keys;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(limit.get().min(rest.len()));
        let gets: Vec<TxnOp> = now.iter().map(|key| TxnOp::get(key.as_bytes(), None)).collect();
        let answer = match call("read", CALL, client.txn(Txn::new().and_then(gets))).await {
            Ok(answer) => answer,
            Err(error) if limit.learn(&error, now.len()) => continue,
            Err(error) => return Err(error),
        };
        if reading.records.is_empty() {
            // That of the first part: an absence in a later part is true of it as well, or the watch tells.
            reading.revision = answer.header().map(ResponseHeader::revision).unwrap_or_default();
        }
        for (key, response) in now.iter().zip(answer.op_responses()) {
            reading.records.push((key.clone(), found(&response)));
        }
        rest = later;
    }
    Ok(reading)
}

fn found(response: &TxnOpResponse) -> Option<RawRecord> {
    match response {
        TxnOpResponse::Get(get) => get.kvs().first().map(raw),
        _ => None,
    }
}

pub async fn commit(mut client: KvClient, batch: &Batch) -> Result<TxnResponse> {
    if batch.ops.len() > MAX_BATCH {
        return Err(RegistryError::Server(format!(
            "a batch of {} operations; at most {MAX_BATCH} are possible",
            batch.ops.len()
        )));
    }
    let fence: Vec<Compare> =
        batch.fence.iter().map(|f| Compare::value(f.key.as_str(), CompareOp::Equal, f.value.as_str())).collect();
    // Each operation is a nested transaction: one that loses its race does not affect the others.
    let inner: Vec<TxnOp> = batch.ops.iter().map(|op| TxnOp::txn(transaction(op, batch.lease))).collect();
    let answer = call("transaction", CALL, client.txn(Txn::new().when(fence).and_then(inner))).await?;
    if !answer.succeeded() {
        return Err(RegistryError::Fenced);
    }
    let outcomes = answer
        .op_responses()
        .iter()
        .map(|response| match response {
            TxnOpResponse::Txn(inner) if inner.succeeded() => Outcome::Written,
            TxnOpResponse::Txn(inner) => Outcome::Conflict(inner.op_responses().first().and_then(found)),
            _ => Outcome::Conflict(None),
        })
        .collect();
    Ok(TxnResponse { revision: answer.header().map(ResponseHeader::revision).unwrap_or_default(), outcomes })
}

fn transaction(op: &RecordOp, batch_lease: LeaseId) -> Txn {
    let key = op.key().as_bytes();
    let put = |value: &[u8], lease: LeaseId| TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease.0)));
    let (if_revision, write) = match op {
        // A key that does not exist has revision 0.
        RecordOp::Create { value, .. } => (0, put(value, batch_lease)),
        RecordOp::Update { value, if_revision, lease, .. } => {
            (*if_revision, put(value, if *lease == LeaseId::NONE { batch_lease } else { *lease }))
        }
        RecordOp::Delete { if_revision, .. } => (*if_revision, TxnOp::delete(key, Some(DeleteOptions::new()))),
    };
    Txn::new()
        .when([Compare::mod_revision(key, CompareOp::Equal, if_revision)])
        .and_then([write])
        .or_else([TxnOp::get(key, None)])
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
