//! Transactions of the fake etcd, as a real one checks and evaluates them.
//!
//! Owns the checks of a request (operations, duplicate keys, size, permissions) and the order of evaluation: every
//! compare first, on the state before, then the path taken only (`checkTxnRequest` of server/etcdserver/api/v3rpc,
//! `compareToPath` and `checkTxn` of server/etcdserver/txn, 3.7). Refuses to know connections and faults.

use std::collections::BTreeSet;

use twinspan_core::model::{LeaseId, RawRecord, RecordKey};
use twinspan_core::plan::RecordOp;

use super::State;
use crate::registry::{Batch, Outcome, RegistryError, Result, TxnResponse};

/// The default of `--max-request-bytes`.
const MAX_REQUEST_BYTES: usize = 1536 * 1024;
/// Bytes of an operation besides its keys and its value.
const OVERHEAD: usize = 40;

fn lease_of(op: &RecordOp, batch: &Batch) -> LeaseId {
    match op {
        RecordOp::Create { .. } => batch.lease,
        RecordOp::Update { lease, .. } if *lease != LeaseId::NONE => *lease,
        RecordOp::Update { .. } => batch.lease,
        RecordOp::Delete { .. } => LeaseId::NONE,
    }
}

fn value_of(op: &RecordOp) -> Option<&Vec<u8>> {
    match op {
        RecordOp::Create { value, .. } | RecordOp::Update { value, .. } => Some(value),
        RecordOp::Delete { .. } => None,
    }
}

fn expected(op: &RecordOp) -> i64 {
    match op {
        RecordOp::Create { .. } => 0,
        RecordOp::Update { if_revision, .. } | RecordOp::Delete { if_revision, .. } => *if_revision,
    }
}

impl State {
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<TxnResponse> {
        self.check_request(batch)?;
        self.check_permissions(batch)?;
        if let Some(fence) = &batch.fence {
            let holds = self.records.get(&fence.key.as_str().into()).is_some_and(|r| r.value == fence.value.as_bytes());
            if !holds {
                return Err(RegistryError::Fenced);
            }
        }
        let revision_of = |key: &RecordKey| self.records.get(key).map_or(0, |record| record.mod_revision);
        let taken: Vec<bool> = batch.ops.iter().map(|op| revision_of(op.key()) == expected(op)).collect();
        // A missing lease fails the whole request, but not on a path that is not taken.
        let dead = |op: &RecordOp| lease_of(op, batch) != LeaseId::NONE && !self.is_alive(lease_of(op, batch));
        if batch.ops.iter().zip(&taken).any(|(op, taken)| *taken && dead(op)) {
            return Err(RegistryError::LeaseGone);
        }
        let next = self.revision + 1;
        if taken.contains(&true) {
            self.revision = next;
        }
        let mut outcomes = Vec::new();
        for (op, taken) in batch.ops.iter().zip(taken) {
            if !taken {
                outcomes.push(Outcome::Conflict(self.records.get(op.key()).cloned()));
                continue;
            }
            match value_of(op) {
                Some(value) => self.put(RawRecord {
                    key: op.key().clone(),
                    value: value.clone(),
                    mod_revision: next,
                    lease: lease_of(op, batch),
                }),
                None => self.delete(op.key()),
            }
            outcomes.push(Outcome::Written);
        }
        Ok(TxnResponse { revision: self.revision, outcomes })
    }

    fn check_request(&self, batch: &Batch) -> Result<()> {
        // The outer transaction takes as many as it has, and each nested one another.
        if batch.ops.len() + 1 > self.max_txn_ops {
            return Err(RegistryError::TooManyOps);
        }
        let (mut puts, mut deletes) = (BTreeSet::new(), BTreeSet::new());
        for op in &batch.ops {
            let duplicate = match op {
                RecordOp::Delete { key, .. } => {
                    deletes.insert(key);
                    false
                }
                RecordOp::Create { key, .. } | RecordOp::Update { key, .. } => {
                    !puts.insert(key) || deletes.contains(key)
                }
            };
            if duplicate {
                return Err(RegistryError::Rejected("etcdserver: duplicate key given in txn request".to_owned()));
            }
        }
        let bytes = |op: &RecordOp| 3 * op.key().as_bytes().len() + value_of(op).map_or(0, Vec::len) + OVERHEAD;
        if batch.ops.iter().map(bytes).sum::<usize>() > MAX_REQUEST_BYTES {
            return Err(RegistryError::Rejected("etcdserver: request is too large".to_owned()));
        }
        Ok(())
    }

    /// A put with a lease needs permission for every key on the lease (`checkLeasePuts`).
    fn check_permissions(&self, batch: &Batch) -> Result<()> {
        let puts = batch.ops.iter().filter(|op| value_of(op).is_some());
        let leases: BTreeSet<LeaseId> = puts.map(|op| lease_of(op, batch)).collect();
        if batch.ops.iter().any(|op| self.is_forbidden(op.key())) || leases.iter().any(|l| self.carries_forbidden(*l)) {
            return Err(RegistryError::PermissionDenied("etcdserver: permission denied".to_owned()));
        }
        Ok(())
    }

    fn is_forbidden(&self, key: &RecordKey) -> bool {
        self.forbidden.iter().any(|prefix| key.as_bytes().starts_with(prefix.as_bytes()))
    }

    /// True if the lease carries a key that our user may not write.
    pub(super) fn carries_forbidden(&self, lease: LeaseId) -> bool {
        lease != LeaseId::NONE
            && !self.forbidden.is_empty()
            && self.records.values().any(|record| record.lease == lease && self.is_forbidden(&record.key))
    }

    fn is_alive(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }
}
