//! Calls of a raw client to etcd.
//!
//! Owns the form of lists, writes in bulk and fenced transactions; a transaction has the form that the operator's has.
//! Refuses to know what keys mean.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
};

/// Operations in one transaction, as in the operator: etcd admits 128, and the fence is one.
pub const BATCH: usize = 127;
/// Records on one lease, as in the operator.
pub const ON_A_LEASE: usize = 500;
/// Seconds that the leases of raw clients live: longer than a run.
const LASTING: i64 = 6 * 3600;
const LARGE: usize = 1 << 30;
const DEADLINE: Duration = Duration::from_secs(60);

/// A client without deadlines of its own, for watches last.
pub async fn connect(endpoint: &str) -> Result<Client> {
    let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(10));
    Client::connect([endpoint], Some(options)).await.context("cannot connect to etcd")
}

/// Every record below a prefix, in one answer.
pub async fn list(client: &Client, prefix: &str) -> Result<(Vec<KeyValue>, i64)> {
    let mut kv = client.kv_client().max_decoding_message_size(LARGE);
    let listed = tokio::time::timeout(DEADLINE, kv.get(prefix, Some(GetOptions::new().with_prefix())));
    let mut listed = listed.await.context("no list of records before the deadline")??;
    let revision = listed.header().context("a list without a revision")?.revision();
    Ok((listed.take_kvs(), revision))
}

pub async fn grant(client: &Client) -> Result<i64> {
    Ok(client.clone().lease_grant(LASTING, None).await?.id())
}

/// Puts records without any condition, as many to a lease as the operator would.
pub async fn put_all(client: &Client, records: &[(String, String)]) -> Result<()> {
    for group in records.chunks(ON_A_LEASE) {
        let lease = grant(client).await?;
        for batch in group.chunks(BATCH) {
            let put = |(key, value): &(String, String)| {
                TxnOp::put(key.as_str(), value.as_str(), Some(PutOptions::new().with_lease(lease)))
            };
            let puts: Vec<TxnOp> = batch.iter().map(put).collect();
            client.clone().txn(Txn::new().and_then(puts)).await?;
        }
    }
    Ok(())
}

/// A write of one key on the condition that it has a revision; 0 is that of a key that does not exist.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: String,
    pub if_revision: i64,
    /// None deletes.
    pub value: Option<String>,
}

/// The key whose revision every transaction compares.
#[derive(Clone, Debug)]
pub struct Fence {
    key: String,
    revision: i64,
}

impl Fence {
    pub async fn raise(client: &Client, key: &str) -> Result<Self> {
        let put = client.clone().put(key, "1", None).await?;
        Ok(Self { key: key.to_owned(), revision: put.header().context("a put without a revision")?.revision() })
    }
}

/// Commits writes: the fence once, then for each key a transaction of one compare and one operation. Returns the
/// revision, and fails where a compare did.
pub async fn commit(client: &Client, fence: &Fence, lease: i64, writes: &[Write]) -> Result<i64> {
    let write = |write: &Write| {
        let key = write.key.as_str();
        let op = match &write.value {
            Some(value) => TxnOp::put(key, value.as_str(), Some(PutOptions::new().with_lease(lease))),
            None => TxnOp::delete(key, None),
        };
        let compare = Compare::mod_revision(key, CompareOp::Equal, write.if_revision);
        TxnOp::txn(Txn::new().when([compare]).and_then([op]).or_else([TxnOp::get(key, None)]))
    };
    let fence = Compare::mod_revision(fence.key.as_str(), CompareOp::Equal, fence.revision);
    let batch: Vec<TxnOp> = writes.iter().map(write).collect();
    let mut client = client.clone();
    let answer = client.txn(Txn::new().when([fence]).and_then(batch));
    let answer = tokio::time::timeout(DEADLINE, answer).await.context("no answer of etcd before the deadline")??;
    ensure!(answer.succeeded(), "somebody raised the fence");
    let succeeded = |response: &TxnOpResponse| matches!(response, TxnOpResponse::Txn(inner) if inner.succeeded());
    ensure!(answer.op_responses().iter().all(succeeded), "somebody else wrote a key of the batch");
    Ok(answer.header().context("a transaction without a revision")?.revision())
}
