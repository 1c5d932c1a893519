//! The forms that a request at a door may have.
//!
//! Owns the forms of transactions and of requests to the API server. Refuses to know whether a request was wise. A form
//! that is not listed here is a violation: a new one is added with its reason.

use std::time::Duration;

use etcd_client::proto::{PbCompare, PbTargetUnion, PbTxnOpRequest, PbTxnRequest};
use prost::Message;
use serde_json::Value;
use sim_etcd::{Change, Record};

use super::{Violation, cluster_of, is_replica};
use crate::wire::Sent;
use crate::world::keys::is_record;
use crate::world::people::OTHER;
use crate::world::{REGISTRY, World};

/// The invariant that the forms serve.
const DOOR: &str = "door";
/// Bytes before the message in a gRPC frame.
pub const GRPC_HEAD: usize = 5;

/// A revision that no key ever has: with it a replica asks whether it may write a key, and writes nothing.
pub const NEVER: i64 = -1;

/// An operation of a transaction of ours.
#[derive(Clone, Debug)]
pub struct Operation {
    pub key: Vec<u8>,
    /// The `mod_revision` that it compares.
    pub version: i64,
    /// `None` for a delete.
    pub value: Option<Vec<u8>>,
}

/// The operations of the transaction in a request.
pub fn operations(request: &[u8]) -> Vec<Operation> {
    let Ok(txn) = PbTxnRequest::decode(request.get(GRPC_HEAD..).unwrap_or_default()) else { return Vec::new() };
    let inner = txn.success.into_iter().filter_map(|op| match op.request {
        Some(PbTxnOpRequest::RequestTxn(inner)) => Some(inner),
        _ => None,
    });
    let operation = |txn: PbTxnRequest| {
        let compare = txn.compare.into_iter().next()?;
        let Some(PbTargetUnion::ModRevision(version)) = compare.target_union else { return None };
        let value = txn.success.into_iter().find_map(|op| match op.request {
            Some(PbTxnOpRequest::RequestPut(put)) => Some(put.value),
            _ => None,
        });
        Some(Operation { key: compare.key, version, value })
    };
    inner.filter_map(operation).collect()
}

/// The key of the epoch that the transaction in a request compares.
pub fn fence(request: &[u8]) -> Option<Vec<u8>> {
    let txn = PbTxnRequest::decode(request.get(GRPC_HEAD..)?).ok()?;
    txn.compare.into_iter().next().map(|compare| compare.key)
}

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

/// A record is deleted through the ServiceRegistry that its RegisteredService names, as long as that exists: without a
/// prefix another one may see it too. One that a replica took over from another RegisteredService is updated, and stays
/// on the lease on which it was created: once its RegisteredService is gone, the ServiceRegistry of that lease has it.
pub fn check_deletes(world: &World, log: &[Sent]) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !world.size.bare {
        return violations;
    }
    let history = world.registry_history();
    for sent in log.iter().filter(|sent| is_replica(&sent.by) && sent.what.ends_with("/Txn")) {
        let by_other = fence(&sent.body).is_some_and(|key| key.ends_with(format!("/{OTHER}").as_bytes()));
        for op in operations(&sent.body).into_iter().filter(|op| op.value.is_none() && is_record(&op.key)) {
            let is_wrong = |(since, record): (Duration, &Record)| {
                let wrong = |of_other: bool| {
                    let names = if of_other { OTHER } else { REGISTRY };
                    of_other != by_other && existed(world, cluster_of(&sent.by), names, since, sent.at)
                };
                [is_of_other(&record.value), is_on_lease_of_other(&history, record)].into_iter().all(wrong)
            };
            if meant(&history, &op, sent.at).into_iter().all(|written| written.is_some_and(is_wrong)) {
                let text = String::from_utf8_lossy(&op.key);
                let text = format!("{} deleted {text} through a ServiceRegistry that is not its own", sent.by);
                violations.push(Violation::new(DOOR, sent.at, text));
            }
        }
    }
    violations
}

/// The record that an operation means by its revision, and when a replica wrote it: the one that was there last with
/// that revision, and the one that was written last with it. A restore brings back records whose revisions etcd has
/// counted again since, so these are two then. A request that was decided on before the restore means the second one.
fn meant<'a>(history: &'a [Change], op: &Operation, at: Duration) -> [Option<(Duration, &'a Record)>; 2] {
    let of_revision = history.iter().rev().filter_map(|change| {
        let record = change.after.as_ref().filter(|record| record.mod_revision == op.version)?;
        (change.time <= at && change.key == op.key).then_some((change, record))
    });
    let there = of_revision.clone().next().map(|(_, record)| record);
    let mut written = of_revision.filter(|(change, _)| is_replica(&change.author)).map(|(by, what)| (by.time, what));
    let last = written.clone().next();
    [written.find(|(_, record)| Some(*record) == there), last]
}

/// Whether the first record on the lease of this one was created through the other ServiceRegistry.
fn is_on_lease_of_other(history: &[Change], record: &Record) -> bool {
    let on_it = history.iter().filter(|change| change.before.is_none() && is_replica(&change.author));
    let mut created = on_it.filter_map(|change| change.after.as_ref()).filter(|after| after.lease == record.lease);
    created.next().is_some_and(|first| is_of_other(&first.value))
}

/// Whether a ServiceRegistry was there all of this time.
fn existed(world: &World, cluster: &str, name: &str, from: Duration, to: Duration) -> bool {
    let cluster = world.clusters.iter().find(|known| known.name == cluster);
    let changes = cluster.map(|cluster| cluster.kube.changes(0)).unwrap_or_default();
    let ours = changes.iter().filter(|change| &*change.resource == "serviceregistries" && change.name == name);
    let until = ours.filter(|change| change.at <= to);
    let (before, since): (Vec<_>, Vec<_>) = until.partition(|change| change.at <= from);
    before.last().is_some_and(|change| change.after.is_some()) && since.iter().all(|change| change.after.is_some())
}

fn at_registry(sent: &Sent) -> Result<(), String> {
    match sent.what.rsplit('/').next().unwrap_or_default() {
        "Txn" => {
            let message = sent.body.get(GRPC_HEAD..).unwrap_or_default();
            let txn = PbTxnRequest::decode(message).map_err(|error| error.to_string())?;
            transaction(&txn, cluster_of(&sent.by))
        }
        "Range" | "LeaseGrant" | "LeaseTimeToLive" | "LeaseLeases" | "LeaseRevoke" | "Status" | "Authenticate" => {
            Ok(())
        }
        other => Err(format!("nobody expects a {other}")),
    }
}

fn transaction(txn: &PbTxnRequest, cluster: &str) -> Result<(), String> {
    let reads = txn.success.iter().all(|op| matches!(op.request, Some(PbTxnOpRequest::RequestRange(_))));
    if txn.compare.is_empty() && reads {
        return Ok(());
    }
    let fences = [REGISTRY, OTHER].map(|registry| format!("twinspan/{cluster}/{registry}").into_bytes());
    let by_other = txn.compare.first().is_some_and(|compare| compare.key == fences[1]);
    let fenced = match txn.compare.as_slice() {
        [] => false,
        [compare] => fences.contains(&compare.key) && compares_value(compare),
        _ => return Err("it compares more than the epoch".to_owned()),
    };
    for op in &txn.success {
        let Some(PbTxnOpRequest::RequestTxn(inner)) = &op.request else {
            return Err("an operation is not a transaction of its own".to_owned());
        };
        let key = operation(inner)?;
        let text = String::from_utf8_lossy(&key).into_owned();
        let ours = is_record(&key);
        let epoch = text.starts_with(&format!("twinspan/{cluster}/"));
        // Without a prefix a second ServiceRegistry may serve a name that the first one does not.
        match (ours, epoch, fenced && (!by_other || key.starts_with(b"/"))) {
            (true, _, true) | (_, true, false) => {}
            (true, _, false) => return Err(format!("{text} is written without the epoch")),
            (_, true, true) => return Err(format!("{text} is written under the epoch")),
            _ => return Err(format!("{text} is no key of ours")),
        }
        if ours && value_of(inner).is_some_and(|value| !value.is_empty() && is_of_other(value) != by_other) {
            return Err(format!(
                "{text} is written through a ServiceRegistry that its RegisteredService does not name"
            ));
        }
    }
    Ok(())
}

fn value_of(txn: &PbTxnRequest) -> Option<&[u8]> {
    txn.success.iter().find_map(|op| match &op.request {
        Some(PbTxnOpRequest::RequestPut(put)) => Some(put.value.as_slice()),
        _ => None,
    })
}

/// Whether the mark of a record names a RegisteredService of the second ServiceRegistry.
fn is_of_other(value: &[u8]) -> bool {
    let name = format!("/{OTHER}-");
    value.windows(name.len()).any(|part| part == name.as_bytes())
}

fn compares_value(compare: &PbCompare) -> bool {
    matches!(compare.target_union, Some(PbTargetUnion::Value(_)))
}

/// The key of one operation.
fn operation(txn: &PbTxnRequest) -> Result<Vec<u8>, String> {
    let [compare] = txn.compare.as_slice() else {
        return Err("an operation compares more than one revision".to_owned());
    };
    let Some(PbTargetUnion::ModRevision(version)) = compare.target_union else {
        return Err("an operation compares no mod_revision".to_owned());
    };
    let [op] = txn.success.as_slice() else { return Err("an operation has several steps".to_owned()) };
    let key = match &op.request {
        Some(PbTxnOpRequest::RequestPut(put)) => {
            let record = is_record(&put.key);
            if record && put.lease == 0 && version != NEVER {
                return Err("a record is written without a lease".to_owned());
            }
            if record && version != NEVER && !put.value.windows(8).any(|part| part == b"twinspan") {
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
        "POST" if resource("services") => {
            demand(body["metadata"]["ownerReferences"].is_array(), "a Service without an owner")
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"/echo-0/203.0.113.4:80";

    fn change(seconds: u64, author: &str, value: &str) -> Change {
        let value = value.as_bytes().to_vec();
        let after = Some(Record { value, create_revision: 5, mod_revision: 5, version: 1, lease: 1 });
        let (time, key) = (Duration::from_secs(seconds), KEY.to_vec());
        let author = author.to_owned();
        Change { incarnation: 0, revision: 5, time, author, key, before: None, after, expired_lease: None }
    }

    #[test]
    fn a_revision_that_a_restore_brought_back_means_the_record_that_is_there() {
        let history = [
            change(1, "a-0#1", "shop/echo-0"),
            change(2, "a-0#1", "shop/other-0"),
            change(3, "restore", "shop/echo-0"),
            change(5, "person", "changed"),
        ];
        let meant = |version, at| {
            let op = Operation { key: KEY.to_vec(), version, value: None };
            let values = |(since, record): (Duration, &Record)| (since.as_secs(), is_of_other(&record.value));
            meant(&history, &op, Duration::from_secs(at)).map(|written| written.map(values))
        };
        assert_eq!(meant(5, 2), [Some((2, true)); 2], "one record has the revision");
        assert_eq!(meant(5, 4), [Some((1, false)), Some((2, true))], "it may be of before the restore");
        assert_eq!(meant(5, 5), [None, Some((2, true))], "no replica wrote what is there");
        assert_eq!(meant(6, 4), [None; 2]);
    }

    #[test]
    fn a_record_that_was_taken_over_stays_on_the_lease_on_which_it_was_created() {
        let on = |lease: i64, mut change: Change| {
            change.after.iter_mut().for_each(|after| after.lease = lease);
            change
        };
        let updated = |change: Change| Change { before: change.after.clone(), ..change };
        let history = [
            on(2, change(1, "a-0#1", "shop/other-0")),
            on(2, updated(change(2, "a-0#1", "shop/echo-0"))),
            on(3, change(3, "a-0#1", "shop/echo-0")),
            on(4, change(4, "person", "shop/other-0")),
        ];
        let on_lease_of_other =
            history.each_ref().map(|change| change.after.as_ref().map(|after| is_on_lease_of_other(&history, after)));
        assert_eq!(on_lease_of_other, [Some(true), Some(true), Some(false), Some(false)]);
    }
}
