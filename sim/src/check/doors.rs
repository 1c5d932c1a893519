//! The forms that a request at a door may have.
//!
//! Owns the forms of transactions and of requests to the API server. Refuses to know whether a request was wise. A form
//! that is not listed here is a violation: a new one is added with its reason.

use etcd_client::proto::{PbCompare, PbTargetUnion, PbTxnOpRequest, PbTxnRequest};
use prost::Message;
use serde_json::Value;

use super::{Violation, cluster_of};
use crate::wire::Sent;
use crate::world::{PREFIX, REGISTRY};

/// The invariant that the forms serve.
const DOOR: &str = "door";
/// Bytes before the message in a gRPC frame.
const GRPC_HEAD: usize = 5;

/// Judges all messages of a run.
pub fn check(log: &[Sent]) -> Vec<Violation> {
    let wrong = |sent: &Sent| {
        let found = if sent.to.starts_with("etcd") { at_registry(sent) } else { at_cluster(sent) };
        found
            .err()
            .map(|why| Violation::new(DOOR, sent.at, format!("{} sent {} to {}: {why}", sent.by, sent.what, sent.to)))
    };
    log.iter().filter_map(wrong).collect()
}

fn at_registry(sent: &Sent) -> Result<(), String> {
    match sent.what.rsplit('/').next().unwrap_or_default() {
        "Txn" => {
            let message = sent.body.get(GRPC_HEAD..).unwrap_or_default();
            let txn = PbTxnRequest::decode(message).map_err(|error| error.to_string())?;
            transaction(&txn, cluster_of(&sent.by))
        }
        "Range" | "LeaseGrant" | "LeaseTimeToLive" | "LeaseLeases" | "LeaseRevoke" | "Status" => Ok(()),
        other => Err(format!("nobody expects a {other}")),
    }
}

fn transaction(txn: &PbTxnRequest, cluster: &str) -> Result<(), String> {
    let reads = txn.success.iter().all(|op| matches!(op.request, Some(PbTxnOpRequest::RequestRange(_))));
    if txn.compare.is_empty() && reads {
        return Ok(());
    }
    let fence = format!("twinspan/{cluster}/{REGISTRY}");
    let fenced = match txn.compare.as_slice() {
        [] => false,
        [compare] => compare.key == fence.as_bytes() && compares_value(compare),
        _ => return Err("it compares more than the epoch".to_owned()),
    };
    for op in &txn.success {
        let Some(PbTxnOpRequest::RequestTxn(inner)) = &op.request else {
            return Err("an operation is not a transaction of its own".to_owned());
        };
        let key = operation(inner)?;
        let text = String::from_utf8_lossy(&key).into_owned();
        let ours = text.starts_with(&format!("{PREFIX}/"));
        let epoch = text.starts_with(&format!("twinspan/{cluster}/"));
        match (ours, epoch, fenced) {
            (true, _, true) | (_, true, false) => {}
            (true, _, false) => return Err(format!("{text} is written without the epoch")),
            (_, true, true) => return Err(format!("{text} is written under the epoch")),
            _ => return Err(format!("{text} is no key of ours")),
        }
    }
    Ok(())
}

fn compares_value(compare: &PbCompare) -> bool {
    matches!(compare.target_union, Some(PbTargetUnion::Value(_)))
}

/// The key of one operation.
fn operation(txn: &PbTxnRequest) -> Result<Vec<u8>, String> {
    let [compare] = txn.compare.as_slice() else {
        return Err("an operation compares more than one revision".to_owned());
    };
    if !matches!(compare.target_union, Some(PbTargetUnion::ModRevision(_))) {
        return Err("an operation compares no mod_revision".to_owned());
    }
    let [op] = txn.success.as_slice() else { return Err("an operation has several steps".to_owned()) };
    let key = match &op.request {
        Some(PbTxnOpRequest::RequestPut(put)) => {
            let record = put.key.starts_with(PREFIX.as_bytes());
            if record && put.lease == 0 {
                return Err("a record is written without a lease".to_owned());
            }
            if record && !put.value.windows(8).any(|part| part == b"twinspan") {
                return Err("a record is written without our mark".to_owned());
            }
            &put.key
        }
        Some(PbTxnOpRequest::RequestDeleteRange(delete)) if delete.range_end.is_empty() => &delete.key,
        _ => return Err("an operation neither puts nor deletes one key".to_owned()),
    };
    if key == &compare.key { Ok(key.clone()) } else { Err("an operation compares another key".to_owned()) }
}

fn at_cluster(sent: &Sent) -> Result<(), String> {
    let (method, path) = sent.what.split_once(' ').unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let body: Value = if sent.body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&sent.body).map_err(|error| error.to_string())?
    };
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let demand = |holds: bool, why: &str| if holds { Ok(()) } else { Err(why.to_owned()) };
    let resource = |name: &str| path.contains(&format!("/{name}/")) || path.ends_with(&format!("/{name}"));
    match method {
        "GET" => Ok(()),
        "PUT" if resource("leases") || resource("endpointslices") => {
            demand(text("/metadata/resourceVersion"), "a PUT without resourceVersion")
        }
        "POST" if resource("leases") || resource("events") => Ok(()),
        "POST" if resource("endpointslices") => {
            let labelled = body["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "twinspan.dev";
            demand(labelled, "a slice without our label")?;
            demand(body["metadata"]["ownerReferences"].is_array(), "a slice without an owner")
        }
        "DELETE" if resource("endpointslices") => {
            let precondition = text("/preconditions/resourceVersion") || text("/preconditions/uid");
            demand(precondition, "a DELETE without preconditions")
        }
        "PATCH" if path.ends_with("/status") => demand(text("/metadata/uid"), "a patch of a status without a uid"),
        "PATCH" if resource("events") => Ok(()),
        _ => Err("nobody expects it".to_owned()),
    }
}
