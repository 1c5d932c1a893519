//! The operations of one transaction.
//!
//! Owns the choice of those that fit one lease and etcd's limits, and whose they are. Refuses to know the request, and
//! which submissions are together, which [`super::commits`] decides.

use std::collections::BTreeSet;

use twinspan_core::model::{LeaseId, RecordKey};
use twinspan_core::plan::RecordOp;

use super::commits::Submission;

/// The maximum of keys and values in one request, in bytes. etcd rejects requests above 1.5 MiB
/// (`--max-request-bytes`); half a MiB remains for everything else.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

pub fn is_delete(op: &RecordOp) -> bool {
    matches!(op, RecordOp::Delete { .. })
}

pub fn needs_lease(op: &RecordOp) -> bool {
    match op {
        RecordOp::Create { .. } => true,
        RecordOp::Update { lease, .. } => *lease == LeaseId::NONE,
        RecordOp::Delete { .. } => false,
    }
}

/// The first operation with a lease of its own decides; a delete fits any lease.
pub fn fixed_lease<'a>(ops: impl IntoIterator<Item = &'a RecordOp>) -> LeaseId {
    let own = ops.into_iter().find_map(|op| match op {
        RecordOp::Update { lease, .. } if *lease != LeaseId::NONE => Some(*lease),
        _ => None,
    });
    own.unwrap_or(LeaseId::NONE)
}

/// Takes out the first operations of each submission that fit the lease and one request. Returns them, and the index of
/// the submission of each.
pub fn next_batch(
    group: &mut [Submission],
    lease: LeaseId,
    mut room: usize,
    max_batch: usize,
) -> (Vec<RecordOp>, Vec<usize>) {
    let (mut now, mut of, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut keys: BTreeSet<RecordKey> = BTreeSet::new();
    for (index, submission) in group.iter_mut().enumerate() {
        let mut later = Vec::new();
        for op in std::mem::take(&mut submission.ops) {
            let size = bytes_of(&op);
            let fits = now.len() < max_batch
                && (now.is_empty() || bytes + size <= MAX_BATCH_BYTES)
                // etcd refuses a transaction that writes a key twice.
                && !keys.contains(op.key())
                && match &op {
                    RecordOp::Update { lease: other, .. } if *other != LeaseId::NONE => *other == lease,
                    RecordOp::Delete { .. } => later.is_empty(),
                    _ => room > 0,
                };
            if !fits {
                later.push(op);
                continue;
            }
            room -= usize::from(needs_lease(&op));
            bytes += size;
            keys.insert(op.key().clone());
            now.push(op);
            of.push(index);
        }
        submission.ops = later;
    }
    (now, of)
}

/// The size of an operation in a request: its key is compared, written, and read if the operation loses its race.
pub fn bytes_of(op: &RecordOp) -> usize {
    let value = match op {
        RecordOp::Create { value, .. } | RecordOp::Update { value, .. } => value.len(),
        RecordOp::Delete { .. } => 0,
    };
    3 * op.key().as_bytes().len() + value
}
