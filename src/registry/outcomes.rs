//! The answer to a transaction: its effect on the view, and on the reports of those who wrote.
//!
//! Owns the outcome of each operation, and of a transaction whose answer was lost: its keys are read. Refuses to write,
//! and to write again.

use std::collections::BTreeMap;

use tracing::debug;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision};
use twinspan_core::plan::RecordOp;

use super::batch::is_delete;
use super::commits::WriteReport;
use super::handle::RegistryHandle;
use super::records::Affected;
use super::{Batch, Outcome, Registry, RegistryError, Result, TxnResponse};

/// Enters the answer into the view and into the reports of those whose operations the batch has; `of` has the report of
/// each operation. `known` is the revision that was known before the batch was sent.
///
/// # Errors
/// The answer's.
pub(super) async fn learn_answer(
    handle: &RegistryHandle,
    registry: &dyn Registry,
    known: Revision,
    (batch, of): (&Batch, &[usize]),
    answer: Result<TxnResponse>,
    reports: &mut [WriteReport],
) -> Result<()> {
    match answer {
        Ok(committed) => {
            let written = committed.outcomes.contains(&Outcome::Written);
            // A write has a revision of its own, and a lost race one that is no older than what was known before.
            if committed.revision < known || written && committed.revision == known {
                // Another etcd answered, or an older state of it. Nothing is known any more.
                start_over(handle, registry);
            }
            let lacking = learn_outcomes(handle, registry, (batch, of), &committed, reports);
            if !lacking.is_empty() {
                learn_by_reading(handle, registry, &lacking, reports).await;
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
            let keys = batch.ops.iter().map(|op| op.key().clone()).zip(of.iter().copied()).collect();
            learn_by_reading(handle, registry, &keys, reports).await;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// An answer came from another etcd, or from an older state: no plan may rest on the view before the session has listed
/// everything again.
pub(super) fn start_over(handle: &RegistryHandle, registry: &dyn Registry) {
    if let Some(mut view) = handle.view_of(registry) {
        view.set_contradicted();
        drop(view);
        handle.write_unknown(registry);
    }
}

/// Reads the keys, for the outcome of a write is not known from its answer; if that fails too, the session lists
/// everything again. Each key has its report.
pub(super) async fn learn_by_reading(
    handle: &RegistryHandle,
    registry: &dyn Registry,
    keys: &BTreeMap<RecordKey, usize>,
    reports: &mut [WriteReport],
) {
    let asked: Vec<RecordKey> = keys.keys().cloned().collect();
    let known = handle.view().newest_revision();
    match registry.read(&asked).await {
        // As with the answer to a write, whatever this etcd lacks.
        Ok(reading) if reading.revision < known => start_over(handle, registry),
        Ok(reading) => {
            if let Some(mut view) = handle.view_of(registry) {
                let mut of_nobody = Affected::default();
                for (key, record) in &reading.records {
                    let report = keys.get(key).and_then(|of| reports.get_mut(*of));
                    let found = report.map_or(&mut of_nobody, |report| &mut report.found);
                    handle.learn(&mut view, key, record.as_ref(), reading.revision, found);
                }
            }
        }
        Err(_) => handle.write_unknown(registry),
    }
}

/// Returns the keys of written records that the view has no more, or never had, each with its report.
fn learn_outcomes(
    handle: &RegistryHandle,
    registry: &dyn Registry,
    (batch, of): (&Batch, &[usize]),
    committed: &TxnResponse,
    reports: &mut [WriteReport],
) -> BTreeMap<RecordKey, usize> {
    let mut view = handle.view_of(registry);
    let mut learn = |key: &RecordKey, record: Option<&RawRecord>, affected: &mut Affected| {
        if let Some(view) = &mut view {
            handle.learn(view, key, record, committed.revision, affected);
        }
    };
    for ((op, outcome), of) in batch.ops.iter().zip(&committed.outcomes).zip(of) {
        let Some(report) = reports.get_mut(*of) else { continue };
        report.revision = committed.revision;
        match outcome {
            Outcome::Conflict(found) => {
                debug!(registry = handle.name, key = %op.key(), "lost a race");
                report.conflicts += 1;
                learn(op.key(), found.as_ref(), &mut report.found);
            }
            Outcome::Written => {
                let written = written(op, batch.lease, committed.revision);
                learn(op.key(), written.as_ref(), &mut report.wrote);
                match op {
                    RecordOp::Create { .. } => report.created += 1,
                    RecordOp::Update { .. } => report.updated += 1,
                    RecordOp::Delete { .. } => report.deleted += 1,
                }
            }
        }
    }
    let Some(view) = view else { return BTreeMap::new() };
    let mut lacking = BTreeMap::new();
    for ((op, outcome), of) in batch.ops.iter().zip(&committed.outcomes).zip(of) {
        if *outcome != Outcome::Written || !view.is_overtaken(op, committed.revision) {
            continue;
        }
        if !is_delete(op) && view.lacks(op.key(), committed.revision) {
            lacking.insert(op.key().clone(), *of);
        }
        if let (Some(report), Some((name, _))) = (reports.get_mut(*of), handle.layout.split_key(op.key())) {
            report.found.add_name(name);
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
