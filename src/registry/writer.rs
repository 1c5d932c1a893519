//! Writes plans to a registry: compare-and-swap batches on leases.
//!
//! Owns how operations become batches behind the fence and what each answer means for the view. Refuses to repeat anything: what lost its race
//! or was left open is planned again from what the registry says now.

use tracing::debug;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision};
use twinspan_core::plan::RecordOp;

use super::handle::RegistryHandle;
use super::view::Touched;
use super::{Batch, Committed, MAX_BATCH, Outcome, Registry, RegistryError, Result};

/// The most keys and values in one request, in bytes. etcd refuses requests of more than 1.5 MiB (`--max-request-bytes`), in which
/// half a MiB is left for everything else.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub created: usize,
    pub updated: usize,
    pub deleted: usize,
    /// Operations that found their key changed; the view has what they found.
    pub lost: usize,
    /// Of the last batch that was written.
    pub revision: Revision,
    /// Whom it concerns what others wrote and the watch has not shown yet.
    pub found: Touched,
    /// Whom it concerns what was written: the watch will show it when it is no news any more.
    pub wrote: Touched,
    /// Why not everything was written.
    pub error: Option<RegistryError>,
}

/// Writes the operations in order, in as few batches as their leases and etcd's limits allow.
///
/// `may_write` is asked before each batch.
pub async fn write(handle: &RegistryHandle, ops: Vec<RecordOp>, may_write: impl Fn() -> Result<()>) -> Report {
    let mut report = Report::default();
    let mut rest = ops;
    while !rest.is_empty() {
        let only_deletes = rest.iter().all(is_delete);
        let Err(error) = write_next(handle, &mut rest, &may_write, &mut report).await else { continue };
        let full = matches!(error, RegistryError::NoSpace(_));
        report.error = report.error.or(Some(error));
        if !full || only_deletes {
            break;
        }
        // A database that is full still takes deletes, and only them: what ended must not wait behind what cannot begin.
        rest.retain(is_delete);
    }
    report
}

/// Takes from the operations what is written next. What a full database refused stays among them.
async fn write_next(
    handle: &RegistryHandle,
    ops: &mut Vec<RecordOp>,
    may_write: &impl Fn() -> Result<()>,
    report: &mut Report,
) -> Result<()> {
    may_write()?;
    handle.fence()?;
    let registry = handle.connection()?;
    let (lease, room) = next_lease(handle, registry.as_ref(), ops).await?;
    let now = next_batch(ops, lease, room);
    let reserved = now.iter().filter(|op| needs_lease(op)).count();
    handle.leases.reserve(lease, reserved);
    // Asked again: the lease may have taken a while.
    let allowed = may_write().and_then(|()| handle.fence());
    let fence = match allowed {
        Ok(fence) => fence,
        Err(error) => {
            handle.leases.release(lease, reserved);
            return Err(error);
        }
    };
    let batch = Batch { fence, lease, ops: now };
    mark_deletes(handle, &batch.ops, true);
    let answer = registry.commit(&batch).await;
    let outcome = settle(handle, registry.as_ref(), &batch, answer, report).await;
    mark_deletes(handle, &batch.ops, false);
    handle.leases.release(lease, reserved);
    if let Err(RegistryError::NoSpace(_)) = &outcome {
        ops.extend(batch.ops);
    }
    outcome
}

fn is_delete(op: &RecordOp) -> bool {
    matches!(op, RecordOp::Delete { .. })
}

fn needs_lease(op: &RecordOp) -> bool {
    match op {
        RecordOp::Create { .. } => true,
        RecordOp::Update { lease, .. } => *lease == LeaseId::NONE,
        RecordOp::Delete { .. } => false,
    }
}

/// The lease of the next batch, and how many more records it takes.
async fn next_lease(handle: &RegistryHandle, registry: &dyn Registry, ops: &[RecordOp]) -> Result<(LeaseId, usize)> {
    // The first operation with a lease of its own decides; deletes go with any.
    let fixed = ops.iter().find_map(|op| match op {
        RecordOp::Update { lease, .. } if *lease != LeaseId::NONE => Some(*lease),
        _ => None,
    });
    if ops.iter().any(needs_lease) {
        let carried = handle.view().own_leases().clone();
        handle.leases.with_room(registry, &carried).await
    } else {
        Ok((fixed.unwrap_or(LeaseId::NONE), 0))
    }
}

/// Takes out the first operations that can share the lease, and a request.
fn next_batch(ops: &mut Vec<RecordOp>, lease: LeaseId, mut room: usize) -> Vec<RecordOp> {
    let (mut now, mut later, mut bytes) = (Vec::new(), Vec::new(), 0);
    for op in std::mem::take(ops) {
        let size = bytes_of(&op);
        let fits = now.len() < MAX_BATCH
            && (now.is_empty() || bytes + size <= MAX_BATCH_BYTES)
            && match &op {
                RecordOp::Update { lease: other, .. } if *other != LeaseId::NONE => *other == lease,
                RecordOp::Delete { .. } => later.is_empty(),
                _ => room > 0,
            };
        if !fits {
            later.push(op);
            continue;
        }
        if needs_lease(&op) {
            room -= 1;
        }
        bytes += size;
        now.push(op);
    }
    *ops = later;
    now
}

/// What an operation adds to a request: its key is compared, written, and read where it lost its race.
fn bytes_of(op: &RecordOp) -> usize {
    let value = match op {
        RecordOp::Create { value, .. } | RecordOp::Update { value, .. } => value.len(),
        RecordOp::Delete { .. } => 0,
    };
    3 * op.key().as_bytes().len() + value
}

/// While a delete of ours is under way, its event is no departure.
fn mark_deletes(handle: &RegistryHandle, ops: &[RecordOp], under_way: bool) {
    let mut view = handle.view();
    for op in ops {
        if let RecordOp::Delete { key, seen, .. } = op {
            if under_way { view.deleting(key, *seen) } else { view.not_deleting(key) }
        }
    }
}

async fn settle(
    handle: &RegistryHandle,
    registry: &dyn Registry,
    batch: &Batch,
    answer: Result<Committed>,
    report: &mut Report,
) -> Result<()> {
    match answer {
        Ok(committed) => {
            learn_outcomes(handle, batch, &committed, report);
            Ok(())
        }
        Err(RegistryError::LeaseGone) => {
            handle.leases.lost(batch.lease);
            Err(RegistryError::LeaseGone)
        }
        Err(RegistryError::Fenced) => {
            if let Some(epoch) = &handle.epoch {
                epoch.doubt();
            }
            Err(RegistryError::Fenced)
        }
        Err(error) if error.is_ambiguous() => {
            // It may have been written. Read before anything is planned again; where even that fails, start over with a list.
            let keys: Vec<RecordKey> = batch.ops.iter().map(|op| op.key().clone()).collect();
            match registry.read(&keys).await {
                Ok(reading) => {
                    let mut view = handle.view();
                    for (key, record) in &reading.records {
                        report.found.add(view.learnt(key, record.as_ref(), reading.revision));
                    }
                }
                Err(_) => handle.answer_lost(registry),
            }
            Err(error)
        }
        Err(error) => Err(error),
    }
}

fn learn_outcomes(handle: &RegistryHandle, batch: &Batch, committed: &Committed, report: &mut Report) {
    let mut view = handle.view();
    report.revision = committed.revision;
    for (op, outcome) in batch.ops.iter().zip(&committed.outcomes) {
        match outcome {
            Outcome::Lost(found) => {
                debug!(registry = handle.name, key = %op.key(), "lost a race");
                report.lost += 1;
                report.found.add(view.learnt(op.key(), found.as_ref(), committed.revision));
            }
            Outcome::Written => {
                let written = written(op, batch.lease, committed.revision);
                report.wrote.add(view.learnt(op.key(), written.as_ref(), committed.revision));
                match op {
                    RecordOp::Create { .. } => report.created += 1,
                    RecordOp::Update { .. } => report.updated += 1,
                    RecordOp::Delete { .. } => report.deleted += 1,
                }
            }
        }
    }
}

/// What the key holds after the operation was written.
fn written(op: &RecordOp, batch_lease: LeaseId, revision: Revision) -> Option<RawRecord> {
    let (key, value, lease) = match op {
        RecordOp::Create { key, value } => (key, value, batch_lease),
        RecordOp::Update { key, value, lease, .. } => {
            (key, value, if *lease == LeaseId::NONE { batch_lease } else { *lease })
        }
        RecordOp::Delete { .. } => return None,
    };
    Some(RawRecord { key: key.clone(), value: value.clone(), mod_revision: revision, lease })
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
