//! The reads and transactions of etcd.
//!
//! Owns the form of a transaction, and its division if an answer is too large. Refuses to know what values mean.

use etcd_client::proto::PbTxnOpResponse;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, KvClient, PutOptions, ResponseHeader, Txn, TxnOp,
};
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision};
use twinspan_core::plan::RecordOp;

use super::call::{CALL, MAX_MESSAGE, PAGE, call, call_in_time};
use super::limit::TxnLimit;
use super::pages::{self, Pages};
use crate::registry::{Batch, ListResponse, MAX_BATCH, Outcome, ReadResponse, RegistryError, Result, TxnResponse};

/// `cluster_id` is that of the connection, for answers that do not tell it.
pub async fn list(client: KvClient, key_prefix: &str, cluster_id: u64) -> Result<ListResponse> {
    let mut pages = Pages::new(client, key_prefix);
    let mut records = Vec::new();
    while let Some(mut page) = pages.page().await? {
        records.append(&mut page);
    }
    let cluster_id = if pages.cluster_id() == 0 { cluster_id } else { pages.cluster_id() };
    Ok(ListResponse { cluster_id, revision: pages.revision(), records })
}

pub async fn count(mut client: KvClient, key_prefix: &str) -> Result<usize> {
    let options = GetOptions::new().with_prefix().with_count_only();
    let answer = call("count", PAGE, client.get(key_prefix, Some(options))).await?;
    Ok(usize::try_from(answer.count()).unwrap_or_default())
}

pub async fn keys(mut client: KvClient, key_prefix: &str, limit: usize) -> Result<Vec<RecordKey>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let options = GetOptions::new().with_prefix().with_keys_only().with_limit(limit).with_serializable();
    let mut answer = call("keys", CALL, client.get(key_prefix, Some(options))).await?;
    Ok(answer.take_kvs().into_iter().map(|kv| RecordKey::new(kv.into_key_value().0)).collect())
}

/// Reads the keys at one revision: the first answer fixes it for the others. An answer that is too large is asked for
/// again in halves, and one value that is too large is left out.
pub async fn read(client: KvClient, keys: &[RecordKey], limit: &TxnLimit) -> Result<ReadResponse> {
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let (mut rest, mut size, mut revision) = (keys, limit.get(), None);
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(size.min(rest.len()));
        let found = match get_all(&mut client, now, &mut revision, false).await {
            Err(error) if limit.learn(&error, now.len()) => {
                size = limit.get();
                continue;
            }
            Err(RegistryError::TooLarge(_)) if now.len() > 1 => {
                size = now.len() / 2;
                continue;
            }
            Err(RegistryError::TooLarge(_)) if revision.is_none() => {
                get_all(&mut client, now, &mut revision, true).await?;
                continue;
            }
            Err(RegistryError::TooLarge(_)) => get_all(&mut client, now, &mut revision, true).await?,
            found => found?,
        };
        records.extend(now.iter().cloned().zip(found));
        rest = later;
    }
    Ok(ReadResponse { revision: revision.unwrap_or_default(), records })
}

async fn get_all(
    client: &mut KvClient,
    keys: &[RecordKey],
    revision: &mut Option<Revision>,
    keys_only: bool,
) -> Result<Vec<Option<RawRecord>>> {
    let mut options = GetOptions::new().with_revision(revision.unwrap_or_default());
    if keys_only {
        options = options.with_keys_only();
    }
    let gets: Vec<TxnOp> = keys.iter().map(|key| TxnOp::get(key.as_bytes(), Some(options.clone()))).collect();
    let answer = call("read", CALL, client.txn(Txn::new().and_then(gets))).await?;
    revision.get_or_insert(answer.header().map(ResponseHeader::revision).unwrap_or_default());
    let raw = if keys_only { pages::without_value } else { pages::raw };
    Ok(answer.0.responses.into_iter().map(|op| found(op.response?, raw)).collect())
}

/// Takes the record out of the answer to a read of one key, without a copy.
fn found(response: PbTxnOpResponse, raw: fn(KeyValue) -> RawRecord) -> Option<RawRecord> {
    match response {
        PbTxnOpResponse::ResponseRange(mut get) => get.kvs.pop().map(KeyValue).map(raw),
        _ => None,
    }
}

pub async fn commit(client: KvClient, batch: &Batch) -> Result<TxnResponse> {
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
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
    let answer = call_in_time("transaction", CALL, client.txn(Txn::new().when(fence).and_then(inner))).await;
    let answer = answer.map_err(|error| match error {
        // etcd's proxy did not send the request on.
        RegistryError::TooLarge(why) if why.contains("trying to send") => RegistryError::Rejected(why),
        error => error,
    })?;
    if !answer.succeeded() {
        return Err(RegistryError::Fenced);
    }
    let revision = answer.header().map(ResponseHeader::revision).unwrap_or_default();
    let outcomes = answer.0.responses.into_iter().map(|op| outcome(op.response)).collect();
    Ok(TxnResponse { revision, outcomes })
}

fn outcome(response: Option<PbTxnOpResponse>) -> Outcome {
    match response {
        Some(PbTxnOpResponse::ResponseTxn(inner)) if inner.succeeded => Outcome::Written,
        Some(PbTxnOpResponse::ResponseTxn(inner)) => {
            let lost_to = inner.responses.into_iter().next().and_then(|op| op.response);
            Outcome::Conflict(lost_to.and_then(|response| found(response, pages::raw)))
        }
        _ => Outcome::Conflict(None),
    }
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
