//! Transactions.
//!
//! Owns the order of evaluation: every compare first, on the state before, then the checks and the operations of the
//! path that is taken, and of no other (`compareToPath`, `checkTxn` and `executeTxn` of `server/etcdserver/txn/txn.go`,
//! etcd 3.7). Refuses to know who asks.

use std::cmp::Ordering;

use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse,
    PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};

use crate::error::Error;
use crate::key_range::KeyRange;
use crate::leases::Leases;
use crate::range;
use crate::store::{Record, Store, View};
use crate::write::{Write, check_put};

// Values of Compare.CompareResult, which etcd-client does not export.
const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

/// The branches that a transaction takes: its own, and those of the transactions nested in the branch.
pub(crate) struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    /// `compareToPath`: every compare is evaluated before anything is written.
    pub(crate) fn new(store: &Store, view: View, request: &PbTxnRequest) -> Self {
        let succeeded = request.compare.iter().all(|compare| holds(store, view, compare));
        let nested = operations(request, succeeded)
            .iter()
            .filter_map(|operation| match &operation.request {
                Some(PbTxnOpRequest::RequestTxn(nested)) => Some(Self::new(store, view, nested)),
                _ => None,
            })
            .collect();
        Self { succeeded, nested }
    }

    /// `checkTxn`: only what is on the path is checked, so a dead lease on the other branch fails nothing.
    pub(crate) fn check(
        &self,
        store: &Store,
        view: View,
        leases: &Leases,
        request: &PbTxnRequest,
    ) -> Result<(), Error> {
        let mut nested = self.nested.iter();
        for operation in operations(request, self.succeeded) {
            match &operation.request {
                Some(PbTxnOpRequest::RequestRange(request)) => range::check_in_txn(view, request)?,
                Some(PbTxnOpRequest::RequestPut(request)) => check_put(store, leases, request)?,
                Some(PbTxnOpRequest::RequestTxn(request)) => {
                    if let Some(path) = nested.next() {
                        path.check(store, view, leases, request)?;
                    }
                }
                Some(PbTxnOpRequest::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    /// `executeTxn`. Only the outermost header has a revision, and so has each of the other operations.
    pub(crate) fn execute(&self, write: &mut Write, request: &PbTxnRequest) -> Result<PbTxnResponse, Error> {
        let mut responses = Vec::new();
        let mut nested = self.nested.iter();
        for operation in operations(request, self.succeeded) {
            let response = match &operation.request {
                Some(PbTxnOpRequest::RequestRange(request)) => {
                    Some(PbTxnOpResponse::ResponseRange(write.range(request)?))
                }
                Some(PbTxnOpRequest::RequestPut(request)) => Some(PbTxnOpResponse::ResponsePut(write.put(request))),
                Some(PbTxnOpRequest::RequestDeleteRange(request)) => {
                    Some(PbTxnOpResponse::ResponseDeleteRange(write.delete(request)))
                }
                Some(PbTxnOpRequest::RequestTxn(request)) => match nested.next() {
                    Some(path) => Some(PbTxnOpResponse::ResponseTxn(path.execute(write, request)?)),
                    None => None,
                },
                None => None,
            };
            responses.push(PbResponseOp { response });
        }
        let header = Some(PbResponseHeader::default());
        Ok(PbTxnResponse { header, succeeded: self.succeeded, responses })
    }
}

fn operations(request: &PbTxnRequest, succeeded: bool) -> &[PbTxnRequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

/// `applyCompare`: a compare of a range holds if it holds for each record; without any, it sees zeroes, and a compare
/// of the value fails.
fn holds(store: &Store, view: View, compare: &PbCompare) -> bool {
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let mut records = store.at(&range, view.revision).map(|(_, record)| record).peekable();
    if records.peek().is_some() {
        return records.all(|record| holds_for(compare, record));
    }
    let nothing = Record { value: Vec::new(), create_revision: 0, mod_revision: 0, version: 0, lease: 0 };
    compare.target != PbCompareTarget::Value as i32 && holds_for(compare, &nothing)
}

fn holds_for(compare: &PbCompare, record: &Record) -> bool {
    // A compare whose value is of another kind than its target compares with zero (`compareKV`).
    let union = compare.target_union.as_ref();
    let order = match PbCompareTarget::try_from(compare.target) {
        Ok(PbCompareTarget::Value) => record.value.as_slice().cmp(match union {
            Some(PbTargetUnion::Value(value)) => value,
            _ => &[],
        }),
        Ok(PbCompareTarget::Create) => record.create_revision.cmp(&match union {
            Some(PbTargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(PbCompareTarget::Mod) => record.mod_revision.cmp(&match union {
            Some(PbTargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(PbCompareTarget::Version) => record.version.cmp(&match union {
            Some(PbTargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(PbCompareTarget::Lease) => record.lease.cmp(&match union {
            Some(PbTargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Err(_) => Ordering::Equal,
    };
    match compare.result {
        EQUAL => order == Ordering::Equal,
        GREATER => order == Ordering::Greater,
        LESS => order == Ordering::Less,
        NOT_EQUAL => order != Ordering::Equal,
        _ => true,
    }
}

/// `IsTxnReadonly`: a nested transaction counts as a write.
pub(crate) fn is_read_only(request: &PbTxnRequest) -> bool {
    let reads = |operation: &PbTxnRequestOp| matches!(operation.request, Some(PbTxnOpRequest::RequestRange(_)));
    request.success.iter().chain(&request.failure).all(reads)
}

/// `IsTxnSerializable`: every range may be answered by the member alone.
pub(crate) fn is_serializable(request: &PbTxnRequest) -> bool {
    let serializable = |operation: &PbTxnRequestOp| matches!(&operation.request, Some(PbTxnOpRequest::RequestRange(range)) if range.serializable);
    request.success.iter().chain(&request.failure).all(serializable)
}

/// True if a put is on any path: what the quota asks (`costTxn` of `server/storage/quota.go`).
pub(crate) fn has_put(request: &PbTxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|operation| match &operation.request {
        Some(PbTxnOpRequest::RequestPut(_)) => true,
        Some(PbTxnOpRequest::RequestTxn(nested)) => has_put(nested),
        _ => false,
    })
}
