//! The writer of a registry: plans become compare-and-swap batches on leases.
//!
//! Owns the check before each batch, the split of operations into batches, and the effect of each answer on the view.
//! Refuses to repeat a write: an operation that lost its race, or whose answer was lost, is planned again from the
//! registry's state. Only what was refused as a whole is sent again: the deletes of a batch for which the database was
//! full, a batch with too many operations, and one whose lease etcd refuses or has no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision, ServiceKey};
use twinspan_core::plan::RecordOp;

use super::handle::RegistryHandle;
use super::leases::Room;
use super::records::Affected;
use super::{Batch, Fence, MAX_BATCH, Outcome, Registry, RegistryError, Result, TxnResponse};
use crate::leadership::Leadership;

/// The maximum of keys and values in one request, in bytes. etcd rejects requests above 1.5 MiB
/// (`--max-request-bytes`); half a MiB remains for everything else.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// The deadline of the wait for others' commits.
const TURN: Duration = Duration::from_secs(60);
/// Leases that one write may find refused, or gone.
const REFUSED_AT_ONCE: usize = 4;

/// The result of writing a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    pub created: usize,
    pub updated: usize,
    pub deleted: usize,
    /// Operations whose key had changed; the view has the key's current record.
    pub conflicts: usize,
    /// The revision of the last batch.
    pub revision: Revision,
    /// Services affected by conflicting writes of others.
    pub found: Affected,
    /// Services affected by our own writes; the watch will not report these again.
    pub wrote: Affected,
    /// The first error, if not everything was written.
    pub error: Option<RegistryError>,
}

impl RegistryHandle {
    /// Writes the operations in order, in as few batches as their leases and etcd's limits allow.
    ///
    /// Checks before each batch that this process leads, that no other ServiceRegistry has the same keyspace, and that
    /// the fence holds.
    pub async fn write(&self, leadership: &Leadership, by: &ServiceKey, ops: Vec<RecordOp>) -> WriteReport {
        let mut report = WriteReport::default();
        let (mut rest, mut refused) = (ops, 0);
        while !rest.is_empty() {
            let only_deletes = rest.iter().all(is_delete);
            let error = match write_next(self, leadership, by, &mut rest, &mut report).await {
                Ok(Next::Written) => continue,
                Ok(Next::WithAnotherLease(_)) if refused < REFUSED_AT_ONCE => {
                    refused += 1;
                    continue;
                }
                Ok(Next::WithAnotherLease(error)) | Err(error) => error,
            };
            let full = matches!(error, RegistryError::NoSpace(_));
            report.error = report.error.or(Some(error));
            if !full || only_deletes {
                break;
            }
            // A full database accepts only deletes. They must not wait behind a create that cannot be written.
            rest.retain(is_delete);
        }
        report
    }

    /// Moves a service's own records off leases that etcd refuses, with their values as they are.
    pub async fn leave_refused_leases(&self, leadership: &Leadership, service: &ServiceKey) -> WriteReport {
        let refused = self.leases.refused();
        let own: BTreeMap<RecordKey, Revision> = if refused.is_empty() {
            BTreeMap::new()
        } else {
            let view = self.view();
            let on_them = view.owned_by(service).filter(|record| refused.contains(&record.lease));
            on_them.map(|record| (record.key.clone(), record.mod_revision)).collect()
        };
        if own.is_empty() {
            return WriteReport::default();
        }
        let keys: Vec<RecordKey> = own.keys().cloned().collect();
        let read = async { self.connection()?.read(&keys).await };
        let records = match read.await {
            Ok(reading) => reading.records,
            Err(error) => return WriteReport { error: Some(error), ..WriteReport::default() },
        };
        let unchanged = records.into_iter().filter_map(|(_, record)| record);
        let unchanged = unchanged.filter(|record| own.get(&record.key) == Some(&record.mod_revision));
        let moved = unchanged.map(|RawRecord { key, value, mod_revision, .. }| RecordOp::Update {
            key,
            value,
            if_revision: mod_revision,
            lease: LeaseId::NONE,
        });
        self.write(leadership, service, moved.collect()).await
    }

    /// # Errors
    /// The reason why nothing may be written now. Otherwise returns the fence that the batch has to compare.
    fn may_write(&self, leadership: &Leadership) -> Result<Option<Fence>> {
        if !leadership.may_write() {
            return Err(RegistryError::NotLeader);
        }
        if !self.is_sole() {
            return Err(RegistryError::NotSole);
        }
        self.fence()
    }
}

/// The way on after a batch.
enum Next {
    /// It was written, or has to be split.
    Written,
    /// etcd refuses its lease for the sake of other records, or the lease is gone; it went back, and gets another one,
    /// or the same once it is granted again.
    WithAnotherLease(RegistryError),
}

/// Takes the next batch out of the operations and writes it. Operations that nothing was written of may go back.
async fn write_next(
    handle: &RegistryHandle,
    leadership: &Leadership,
    by: &ServiceKey,
    ops: &mut Vec<RecordOp>,
    report: &mut WriteReport,
) -> Result<Next> {
    let seconds = TURN.as_secs();
    let _turn = timeout(TURN, handle.commits.acquire())
        .await
        .map_err(|_| RegistryError::Timeout { what: "turn to write", seconds })?;
    handle.may_write(leadership)?;
    let registry = handle.connection()?;
    off_refused_leases(handle, ops);
    let mut room = room_for(handle, registry.as_ref(), ops).await?;
    let lease = room.as_ref().map_or_else(|| fixed_lease(ops), |room| room.lease);
    let max_batch = registry.max_batch();
    let now = next_batch(ops, lease, room.as_ref().map_or(0, Room::records), max_batch);
    if let Some(room) = &mut room {
        room.shrink(now.iter().filter(|op| needs_lease(op)).count());
    }
    // Checks again: granting the lease may have taken a while.
    let fence = handle.may_write(leadership)?;
    let batch = Batch { fence, lease, ops: now };
    let in_flight = InFlight::begin(handle, by, &batch.ops);
    let answer = registry.commit(&batch).await;
    let outcome = learn_answer(handle, registry.as_ref(), in_flight.known, &batch, answer, report).await;
    drop(in_flight);
    match outcome {
        Ok(()) => Ok(Next::Written),
        Err(RegistryError::TooManyOps) if registry.max_batch() < batch.ops.len() => {
            ops.splice(0..0, batch.ops);
            Ok(Next::Written)
        }
        Err(error @ RegistryError::NoSpace(_)) => {
            ops.extend(batch.ops);
            Err(error)
        }
        Err(error @ RegistryError::PermissionDenied(_)) => {
            if !is_the_lease_refused(handle, leadership, registry.as_ref(), &batch).await? {
                return Err(error);
            }
            handle.lease_refused(lease);
            ops.splice(0..0, batch.ops);
            Ok(Next::WithAnotherLease(error))
        }
        // etcd checks every lease before it applies anything (`checkTxn` of server/etcdserver/txn, etcd 3.7).
        // A record that lost its lease waits for no backoff.
        Err(error @ RegistryError::LeaseGone) if room.is_some() => {
            ops.splice(0..0, batch.ops);
            Ok(Next::WithAnotherLease(error))
        }
        Err(error) => Err(error),
    }
}

/// True if our user may write every key of a batch that etcd refused: then other keys on its lease are the cause
/// (`checkLeasePuts` of server/etcdserver/txn). Asks with a transaction that writes nothing, because no key ever has
/// that revision.
async fn is_the_lease_refused(
    handle: &RegistryHandle,
    leadership: &Leadership,
    registry: &dyn Registry,
    batch: &Batch,
) -> Result<bool> {
    const NEVER: Revision = -1;
    if batch.lease == LeaseId::NONE || batch.ops.iter().all(is_delete) {
        return Ok(false);
    }
    let never = |op: &RecordOp| RecordOp::Update {
        key: op.key().clone(),
        value: Vec::new(),
        if_revision: NEVER,
        lease: LeaseId::NONE,
    };
    let ops = batch.ops.iter().map(never).collect();
    let fence = handle.may_write(leadership)?;
    Ok(registry.commit(&Batch { fence, lease: LeaseId::NONE, ops }).await.is_ok())
}

/// Updates of records on a lease that etcd refuses move to another one.
fn off_refused_leases(handle: &RegistryHandle, ops: &mut [RecordOp]) {
    let refused = handle.leases.refused();
    for op in ops {
        if let RecordOp::Update { lease, .. } = op
            && refused.contains(lease)
        {
            *lease = LeaseId::NONE;
        }
    }
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

/// Room on a lease for the operations that need one.
async fn room_for<'a>(
    handle: &'a RegistryHandle,
    registry: &dyn Registry,
    ops: &[RecordOp],
) -> Result<Option<Room<'a>>> {
    let wanted = ops.iter().filter(|op| needs_lease(op)).count().min(MAX_BATCH);
    if wanted == 0 {
        return Ok(None);
    }
    let carried = |lease| handle.view().own_leases().get(&lease).map_or(0, BTreeSet::len);
    handle.leases.room(registry, carried, wanted).await.map(Some)
}

/// The first operation with a lease of its own decides; a delete fits any lease.
fn fixed_lease(ops: &[RecordOp]) -> LeaseId {
    let own = ops.iter().find_map(|op| match op {
        RecordOp::Update { lease, .. } if *lease != LeaseId::NONE => Some(*lease),
        _ => None,
    });
    own.unwrap_or(LeaseId::NONE)
}

/// Takes out the first operations that fit the lease and one request.
fn next_batch(ops: &mut Vec<RecordOp>, lease: LeaseId, mut room: usize, max_batch: usize) -> Vec<RecordOp> {
    let (mut now, mut later, mut bytes) = (Vec::new(), Vec::new(), 0);
    for op in std::mem::take(ops) {
        let size = bytes_of(&op);
        let fits = now.len() < max_batch
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

/// The size of an operation in a request: its key is compared, written, and read if the operation loses its race.
fn bytes_of(op: &RecordOp) -> usize {
    let value = match op {
        RecordOp::Create { value, .. } | RecordOp::Update { value, .. } => value.len(),
        RecordOp::Delete { .. } => 0,
    };
    3 * op.key().as_bytes().len() + value
}

/// The operations of a batch in flight, of which the view knows: no event of a delete counts as a departure, and the
/// writer need not be told of its own writes.
struct InFlight<'a> {
    handle: &'a RegistryHandle,
    ops: &'a [RecordOp],
    /// The revision that was known before it was sent.
    known: Revision,
}

impl<'a> InFlight<'a> {
    fn begin(handle: &'a RegistryHandle, by: &ServiceKey, ops: &'a [RecordOp]) -> Self {
        let mut view = handle.view();
        ops.iter().for_each(|op| view.begin_write(by, op));
        Self { handle, ops, known: view.revision() }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut view = self.handle.view();
        self.ops.iter().for_each(|op| view.end_write(op));
    }
}

async fn learn_answer(
    handle: &RegistryHandle,
    registry: &dyn Registry,
    known: Revision,
    batch: &Batch,
    answer: Result<TxnResponse>,
    report: &mut WriteReport,
) -> Result<()> {
    match answer {
        Ok(committed) => {
            let written = committed.outcomes.contains(&Outcome::Written);
            if written && committed.revision <= known {
                // Another etcd answered, or an older one: a write has a revision of its own. Nothing is known any more.
                start_over(handle, registry);
            }
            let lacking = learn_outcomes(handle, registry, batch, &committed, report);
            if !lacking.is_empty() {
                learn_by_reading(handle, registry, &lacking, report).await;
            }
            Ok(())
        }
        Err(RegistryError::LeaseGone) => {
            handle.leases.lost(batch.lease);
            Err(RegistryError::LeaseGone)
        }
        Err(RegistryError::Fenced) => {
            if let Some(fence) = &handle.fence {
                fence.suspect();
            }
            Err(RegistryError::Fenced)
        }
        Err(error) if error.is_ambiguous() => {
            // The batch may have been written, and the next plan needs the result.
            let keys: Vec<RecordKey> = batch.ops.iter().map(|op| op.key().clone()).collect();
            learn_by_reading(handle, registry, &keys, report).await;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// No plan may rest on the view before the session has listed everything again.
fn start_over(handle: &RegistryHandle, registry: &dyn Registry) {
    if let Some(mut view) = handle.view_of(registry) {
        view.set_contradicted();
        drop(view);
        handle.write_unknown(registry);
    }
}

/// Reads the keys, for the outcome of a write is not known from its answer; if that fails too, the session lists
/// everything again.
async fn learn_by_reading(
    handle: &RegistryHandle,
    registry: &dyn Registry,
    keys: &[RecordKey],
    report: &mut WriteReport,
) {
    match registry.read(keys).await {
        Ok(reading) => {
            if let Some(mut view) = handle.view_of(registry) {
                for (key, record) in &reading.records {
                    report.found.add(view.learnt(key, record.as_ref(), reading.revision));
                }
            }
        }
        Err(_) => handle.write_unknown(registry),
    }
}

/// Returns the keys of written records that the view has no more, or never had.
fn learn_outcomes(
    handle: &RegistryHandle,
    registry: &dyn Registry,
    batch: &Batch,
    committed: &TxnResponse,
    report: &mut WriteReport,
) -> Vec<RecordKey> {
    let mut view = handle.view_of(registry);
    let mut learn = |key: &RecordKey, record: Option<&RawRecord>| match &mut view {
        Some(view) => view.learnt(key, record, committed.revision),
        None => Affected::default(),
    };
    report.revision = committed.revision;
    for (op, outcome) in batch.ops.iter().zip(&committed.outcomes) {
        match outcome {
            Outcome::Conflict(found) => {
                debug!(registry = handle.name, key = %op.key(), "lost a race");
                report.conflicts += 1;
                report.found.add(learn(op.key(), found.as_ref()));
            }
            Outcome::Written => {
                let written = written(op, batch.lease, committed.revision);
                report.wrote.add(learn(op.key(), written.as_ref()));
                match op {
                    RecordOp::Create { .. } => report.created += 1,
                    RecordOp::Update { .. } => report.updated += 1,
                    RecordOp::Delete { .. } => report.deleted += 1,
                }
            }
        }
    }
    let Some(view) = view else { return Vec::new() };
    let lacking = batch.ops.iter().zip(&committed.outcomes).filter(|(op, outcome)| {
        !is_delete(op) && **outcome == Outcome::Written && view.lacks(op.key(), committed.revision)
    });
    let lacking = lacking.map(|(op, _)| op.key().clone()).collect();
    for (op, _) in batch.ops.iter().zip(&committed.outcomes).filter(|(_, outcome)| **outcome == Outcome::Written) {
        if view.is_overtaken(op, committed.revision) {
            report.found.names.extend(handle.layout.split_key(op.key()).map(|(name, _)| Box::from(name)));
        }
    }
    let is_contradicted = view.is_contradicted();
    drop(view);
    if is_contradicted {
        handle.write_unknown(registry);
    }
    lacking
}

/// The record of the key after the operation.
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
