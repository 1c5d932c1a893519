//! The checks of a transaction before it is proposed.
//!
//! Owns the limit of operations and the refusal of duplicate keys (`checkTxnRequest` and `checkIntervals` of
//! `server/etcdserver/api/v3rpc/key.go`, etcd 3.7). Refuses to know what is stored.

use std::collections::BTreeSet;

use etcd_client::proto::{PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp};

use crate::error::Error;
use crate::key_range::KeyRange;
use crate::range;
use crate::write::{check_delete_request, check_put_request};

/// All checks of a transaction with at most so many operations on its longest path.
pub(crate) fn check(request: &PbTxnRequest, max_ops: usize) -> Result<(), Error> {
    check_request(request, max_ops)?;
    intervals(&request.success)?;
    intervals(&request.failure)?;
    Ok(())
}

/// Each level takes as many operations as its longest list has, and leaves the rest to the nested ones.
fn check_request(request: &PbTxnRequest, max_ops: usize) -> Result<(), Error> {
    let operations = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(operations).ok_or(Error::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(PbTxnOpRequest::RequestRange(request)) => range::check_request(request)?,
            Some(PbTxnOpRequest::RequestPut(request)) => check_put_request(request)?,
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => check_delete_request(request)?,
            Some(PbTxnOpRequest::RequestTxn(request)) => check_request(request, left)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Intervals<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<KeyRange>,
}

impl<'a> Intervals<'a> {
    fn add_put(&mut self, key: &'a [u8], allowed: bool) -> Result<(), Error> {
        let deleted = self.deletes.iter().any(|range| range.contains(key));
        if deleted || (!self.puts.insert(key) && !allowed) { Err(Error::DuplicateKey) } else { Ok(()) }
    }
}

/// Puts of one key collide, but not those of the two branches of one nested transaction. A put collides with a delete
/// of the same level, and with a delete of a nested transaction before it.
fn intervals(operations: &[PbTxnRequestOp]) -> Result<Intervals<'_>, Error> {
    let mut all = Intervals::default();
    for operation in operations {
        if let Some(PbTxnOpRequest::RequestDeleteRange(delete)) = &operation.request {
            all.deletes.push(match delete.range_end.as_slice() {
                // The interval tree knows no such end, and finds nothing in the interval.
                [0] => KeyRange::new(&[0], &[0, 0]),
                end => KeyRange::new(&delete.key, end),
            });
        }
    }
    for operation in operations {
        let Some(PbTxnOpRequest::RequestTxn(nested)) = &operation.request else { continue };
        let (success, failure) = (intervals(&nested.success)?, intervals(&nested.failure)?);
        for key in &success.puts {
            all.add_put(key, false)?;
        }
        for key in &failure.puts {
            all.add_put(key, success.puts.contains(key))?;
        }
        all.deletes.extend(success.deletes);
        all.deletes.extend(failure.deletes);
    }
    for operation in operations {
        if let Some(PbTxnOpRequest::RequestPut(put)) = &operation.request {
            all.add_put(&put.key, false)?;
        }
    }
    Ok(all)
}
