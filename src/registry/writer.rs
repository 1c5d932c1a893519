//! The writer of a registry: plans become compare-and-swap batches on leases.
//!
//! Owns the check before each batch, and the way on after it. Refuses to repeat a write: an operation that lost its
//! race, or whose answer was lost, is planned again from the registry's state. Only what was refused as a whole is sent
//! again: the deletes of a batch for which the database was full, a batch with too many operations, one whose lease
//! etcd refuses or has no more, and one of several services, each alone. [`super::commits`] has who shares a
//! transaction, [`super::batch`] what fits into it, [`super::outcomes`] what its answer means.

use std::collections::{BTreeMap, BTreeSet};

use tracing::debug;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, RegistryName, Revision, ServiceKey};
use twinspan_core::plan::RecordOp;

use super::batch::{fixed_lease, is_delete, needs_lease, next_batch};
use super::commits::{Submission, WriteReport};
use super::handle::RegistryHandle;
use super::leases::Room;
use super::outcomes::learn_answer;
use super::{Batch, Fence, MAX_BATCH, Registry, RegistryError, Result};
use crate::leadership::Leadership;

/// Leases that one write may find refused, or gone.
const REFUSED_AT_ONCE: usize = 4;

impl RegistryHandle {
    /// Writes the operations in order, in as few batches as their leases and etcd's limits allow. Writes of other
    /// services that wait go along.
    ///
    /// Checks before each batch that this process leads, that no other ServiceRegistry has the same keyspace, and that
    /// the fence holds.
    pub async fn write(&self, leadership: &Leadership, by: &ServiceKey, ops: Vec<RecordOp>) -> WriteReport {
        let mut submission = Submission::new(by, ops);
        while !submission.ops.is_empty() {
            submission = match self.submit(leadership, submission).await {
                Some(back) => back,
                // The task that wrote it broke off.
                None => {
                    let error = RegistryError::Panicked("while it wrote to the registry".to_owned());
                    return WriteReport { error: Some(error), ..WriteReport::default() };
                }
            };
        }
        submission.report
    }

    /// Waits until a transaction has had the submission, and writes those whose turn comes meanwhile.
    async fn submit(&self, leadership: &Leadership, submission: Submission) -> Option<Submission> {
        let mut ticket = self.commits.enter(submission);
        loop {
            let turn = tokio::select! {
                biased;
                back = &mut ticket.back => return back.ok(),
                turn = self.commits.turn() => turn,
            };
            match turn {
                Ok(turn) => {
                    let mut group = self.commits.take(MAX_BATCH);
                    if group.submissions.is_empty() {
                        drop(turn);
                        // Another task has it.
                        return ticket.back.await.ok();
                    }
                    write_group(self, leadership, &mut group.submissions).await;
                    group.give_back();
                }
                Err(error) => {
                    let Some(mut submission) = self.commits.leave(&ticket) else { return ticket.back.await.ok() };
                    submission.end(error);
                    return Some(submission);
                }
            }
        }
    }

    /// Moves a service's own records off leases that etcd refuses, with their values as they are. `current` is the name
    /// for which the service refers to this registry, if it does. Another ServiceRegistry may have the same keys: only
    /// records of that name, and those on our own leases, come to a lease of ours, which ends with us.
    pub async fn leave_refused_leases(
        &self,
        leadership: &Leadership,
        service: &ServiceKey,
        current: Option<&RegistryName>,
    ) -> WriteReport {
        let refused = self.leases.refused();
        let own: BTreeMap<RecordKey, Revision> = if refused.is_empty() {
            BTreeMap::new()
        } else {
            let view = self.view();
            let in_place = |key: &RecordKey| {
                let name = self.layout.split_key(key).map(|(name, _)| name);
                current.is_some_and(|current| name == Some(current.as_str().as_bytes()))
            };
            let is_alone = self.layout.root().is_some();
            let on_them = view.owned_by(service).filter(|record| refused.contains(&record.lease));
            let on_them = on_them.filter(|r| is_alone || self.leases.is_ours(r.lease) || in_place(&r.key));
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
    /// etcd refuses its lease for the sake of other records, or the lease is gone; its operations went back, and get
    /// another one, or the same once it is granted again.
    WithAnotherLease(RegistryError),
}

/// Writes one batch of the operations of several services, and leaves the rest of each.
async fn write_group(handle: &RegistryHandle, leadership: &Leadership, group: &mut [Submission]) {
    let mut concerned = BTreeSet::new();
    let result = write_next(handle, leadership, group, &mut concerned).await;
    let mut concerned: Vec<&mut Submission> =
        group.iter_mut().enumerate().filter(|(n, _)| concerned.contains(n)).map(|(_, submission)| submission).collect();
    match result {
        Ok(Next::Written) => concerned.iter().for_each(|submission| handle.commits.succeeded(&submission.by)),
        Ok(Next::WithAnotherLease(error)) => {
            for submission in concerned {
                submission.refused_leases += 1;
                if submission.refused_leases > REFUSED_AT_ONCE {
                    submission.end(error.clone());
                }
            }
        }
        Err(error @ RegistryError::NoSpace(_)) => {
            let only_deletes = |submission: &Submission| submission.ops.iter().all(is_delete);
            let all_deletes = concerned.iter().all(|submission| only_deletes(submission));
            for submission in concerned.iter_mut().filter(|submission| all_deletes || !only_deletes(submission)) {
                handle.commits.set_alone([&*submission.by]);
                // A full database accepts only deletes. They must not wait behind a create that cannot be written.
                submission.ops.retain(|op| is_delete(op) && !all_deletes);
                submission.fail(error.clone());
            }
        }
        Err(error) => {
            let together = concerned.len() > 1;
            debug!(registry = handle.name, services = concerned.len(), %error, "a batch was not written");
            if together && depends_on_operations(&error) {
                handle.commits.set_alone(concerned.iter().map(|submission| &*submission.by));
            }
            // Nothing of it was written, and the operations went back.
            let again = together && depends_on_operations(&error) && !error.is_ambiguous();
            if !again {
                concerned.into_iter().for_each(|submission| submission.end(error.clone()));
            }
        }
    }
}

/// True if the operations of one service may be the reason why a transaction of several failed.
fn depends_on_operations(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::PermissionDenied(_)
            | RegistryError::Rejected(_)
            | RegistryError::LeaseGone
            | RegistryError::TooLarge(_)
            | RegistryError::Server(_)
    )
}

/// Takes the next batch out of the operations and writes it. Operations of which nothing was written go back, unless
/// the answer was lost. `concerned` has the submissions that the result is about.
async fn write_next(
    handle: &RegistryHandle,
    leadership: &Leadership,
    group: &mut [Submission],
    concerned: &mut BTreeSet<usize>,
) -> Result<Next> {
    concerned.extend(0..group.len());
    handle.may_write(leadership)?;
    let registry = handle.connection()?;
    off_refused_leases(handle, group);
    let wants_lease = |submission: &Submission| submission.ops.iter().any(needs_lease);
    if group.iter().any(wants_lease) {
        concerned.retain(|n| group.get(*n).is_some_and(wants_lease));
    }
    let mut room = room_for(handle, registry.as_ref(), group).await?;
    // The session may have ended while the lease was granted. The next one lists without a write that is sent now, and
    // an answer over a former connection tells the view nothing.
    if !handle.is_current(registry.as_ref()) {
        return Err(RegistryError::NotConnected);
    }
    let ops = group.iter().flat_map(|submission| &submission.ops);
    let lease = room.as_ref().map_or_else(|| fixed_lease(ops), |room| room.lease);
    let records = room.as_ref().map_or(0, Room::records);
    let (now, of) = next_batch(group, lease, records, registry.max_batch());
    if let Some(room) = &mut room {
        room.shrink(now.iter().filter(|op| needs_lease(op)).count());
    }
    *concerned = of.iter().copied().collect();
    // Checks again: granting the lease may have taken a while.
    let fence = handle.may_write(leadership)?;
    let batch = Batch { fence, lease, ops: now };
    let in_flight = InFlight::begin(handle, &batch.ops, &of, group);
    let answer = registry.commit(&batch).await;
    debug!(registry = handle.name, services = concerned.len(), operations = batch.ops.len(), "sent a batch");
    let mut reports: Vec<WriteReport> = group.iter_mut().map(|s| std::mem::take(&mut s.report)).collect();
    let outcome = learn_answer(handle, registry.as_ref(), in_flight.known, (&batch, &of), answer, &mut reports).await;
    drop(in_flight);
    group.iter_mut().zip(reports).for_each(|(submission, report)| submission.report = report);
    match outcome {
        Ok(()) => Ok(Next::Written),
        Err(RegistryError::TooManyOps) if registry.max_batch() < batch.ops.len() => {
            go_back(group, batch.ops, &of);
            Ok(Next::Written)
        }
        Err(error @ (RegistryError::NoSpace(_) | RegistryError::Rejected(_))) => {
            go_back(group, batch.ops, &of);
            Err(error)
        }
        Err(error @ RegistryError::PermissionDenied(_)) => {
            let refused = is_the_lease_refused(handle, leadership, registry.as_ref(), &batch).await?;
            go_back(group, batch.ops, &of);
            if !refused {
                return Err(error);
            }
            handle.lease_refused(lease);
            Ok(Next::WithAnotherLease(error))
        }
        // etcd checks every lease before it applies anything (`checkTxn` of server/etcdserver/txn, etcd 3.7).
        // A record that lost its lease waits for no backoff.
        Err(error @ RegistryError::LeaseGone) => {
            go_back(group, batch.ops, &of);
            if room.is_some() { Ok(Next::WithAnotherLease(error)) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// The operations go back to where they came from, in front of the rest.
fn go_back(group: &mut [Submission], ops: Vec<RecordOp>, of: &[usize]) {
    for (op, of) in ops.into_iter().zip(of).rev() {
        if let Some(submission) = group.get_mut(*of) {
            submission.ops.insert(0, op);
        }
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
fn off_refused_leases(handle: &RegistryHandle, group: &mut [Submission]) {
    let refused = handle.leases.refused();
    for op in group.iter_mut().flat_map(|submission| &mut submission.ops) {
        if let RecordOp::Update { lease, .. } = op
            && refused.contains(lease)
        {
            *lease = LeaseId::NONE;
        }
    }
}

/// Room on a lease for the operations that need one.
async fn room_for<'a>(
    handle: &'a RegistryHandle,
    registry: &dyn Registry,
    group: &[Submission],
) -> Result<Option<Room<'a>>> {
    let ops = group.iter().flat_map(|submission| &submission.ops);
    let wanted = ops.filter(|op| needs_lease(op)).take(MAX_BATCH).count();
    if wanted == 0 {
        return Ok(None);
    }
    let carried = |lease| handle.view().own_leases().get(&lease).map_or(0, BTreeSet::len);
    handle.leases.room(registry, carried, wanted).await.map(Some)
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
    fn begin(handle: &'a RegistryHandle, ops: &'a [RecordOp], of: &[usize], group: &[Submission]) -> Self {
        let mut view = handle.view();
        for (op, of) in ops.iter().zip(of) {
            if let Some(submission) = group.get(*of) {
                view.begin_write(&submission.by, op);
            }
        }
        Self { handle, ops, known: view.newest_revision() }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut view = self.handle.view();
        self.ops.iter().for_each(|op| view.end_write(op));
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
