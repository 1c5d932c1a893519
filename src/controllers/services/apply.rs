//! The only part of a pass that writes. It stops at the first error of a side; what is left is planned again.

use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Instrument, info_span};
use twinspan_core::model::ServiceKey;

use crate::cluster::{ClusterError, convert, write};
use crate::controllers::context::Context;
use crate::registry::RegistryError;
use crate::registry::handle::RegistryHandle;
use crate::registry::writer;

use super::observe::Observed;
use super::plan::Plan;

/// What was written.
#[derive(Debug, Default)]
pub struct Applied {
    /// Records created or updated, and deleted.
    pub records: (usize, usize),
    pub lost_races: usize,
    pub slices: usize,
    pub created_service: bool,
    /// Revision of the last write to the registry.
    pub revision: i64,
    pub registry_error: Option<RegistryError>,
    pub cluster_error: Option<ClusterError>,
}

impl Applied {
    pub fn wrote(&self) -> bool {
        self.records != (0, 0) || self.slices > 0 || self.created_service
    }

    pub fn failed(&self) -> bool {
        self.registry_error.is_some() || self.cluster_error.is_some()
    }
}

pub async fn apply(context: &Context, observed: &Observed, plan: &Plan) -> Applied {
    // The sides do not wait for each other: a slow registry must not delay DNS.
    let ((mut applied, cluster_error), registry) =
        tokio::join!(to_cluster(context, observed, plan), to_registries(context, observed, plan));
    applied.cluster_error = cluster_error;
    applied.records = registry.records;
    applied.lost_races = registry.lost_races;
    applied.revision = registry.revision;
    applied.registry_error = registry.registry_error;
    applied
}

/// Nothing is to be written: nothing is refused either.
pub fn nothing(context: &Context, observed: &Observed) -> Applied {
    note(context, observed, &[]);
    Applied::default()
}

/// Each registry knows whose writes it refuses; one that it was not asked to write any more refuses nothing.
fn note(context: &Context, observed: &Observed, refused: &[(Arc<RegistryHandle>, RegistryError)]) {
    for handle in context.registries.all() {
        let error = refused.iter().find(|(by, _)| Arc::ptr_eq(by, &handle)).map(|(_, error)| error.clone());
        handle.ended(&observed.key, error);
    }
}

async fn to_registries(context: &Context, observed: &Observed, plan: &Plan) -> Applied {
    let mut applied = Applied::default();
    let mut refused = Vec::new();
    for (handle, ops) in &plan.records {
        if ops.is_empty() {
            continue;
        }
        let may_write = || match (context.claim.holds(), handle.is_admitted()) {
            (false, _) => Err(RegistryError::NotLeader),
            (_, false) => Err(RegistryError::NotAdmitted),
            _ => Ok(()),
        };
        let span = info_span!("write records", registry = handle.name, operations = ops.len());
        let report = writer::write(handle, ops.clone(), may_write).instrument(span).await;
        handle.touch(report.found);
        handle.wrote(report.wrote, &observed.key);
        for (op, count) in [("create", report.created), ("update", report.updated), ("delete", report.deleted)] {
            context.metrics.wrote("registry", op, "ok", count);
        }
        context.metrics.wrote("registry", "any", "lost_race", report.lost);
        applied.records.0 += report.created + report.updated;
        applied.records.1 += report.deleted;
        applied.lost_races += report.lost;
        applied.revision = applied.revision.max(report.revision);
        if let Some(error) = report.error {
            context.metrics.wrote("registry", "any", error.label(), 1);
            refused.push((handle.clone(), error.clone()));
            applied.registry_error = Some(error);
        }
    }
    note(context, observed, &refused);
    applied
}

async fn to_cluster(context: &Context, observed: &Observed, plan: &Plan) -> (Applied, Option<ClusterError>) {
    let mut applied = Applied::default();
    let span = info_span!("write slices", slices = Empty);
    let error = write_cluster(context, observed, plan, &mut applied).instrument(span.clone()).await.err();
    span.record("slices", applied.slices);
    (applied, error)
}

async fn write_cluster(
    context: &Context,
    observed: &Observed,
    plan: &Plan,
    applied: &mut Applied,
) -> Result<(), ClusterError> {
    // The API server has no fence: the claim is asked before each request.
    let may_write = || if context.claim.holds() { Ok(()) } else { Err(ClusterError::NotLeader) };
    let owner = convert::owner_reference(&observed.key.name, observed.uid());
    if let Some(new) = &plan.create {
        may_write()?;
        match write::create_service(&context.client, owner.clone(), new).await {
            // Somebody else created it meanwhile: the watch will show it.
            Ok(()) | Err(ClusterError::Conflict { .. }) => applied.created_service = true,
            Err(error) => return Err(error),
        }
    }
    if let Some((wanted, uid)) = &plan.amend {
        may_write()?;
        write::amend_service(&context.client, wanted, uid).await?;
    }
    for service in &plan.remove {
        may_write()?;
        let key = ServiceKey::new(&observed.key.namespace, &service.name);
        write::delete_service(&context.client, &key, &service.uid).await?;
    }
    for op in &plan.slices.ops {
        may_write()?;
        let outcome = write::slice(&context.client, &context.cluster, &observed.key.namespace, owner.clone(), op).await;
        let result = outcome.as_ref().map_or_else(ClusterError::label, |()| "ok");
        context.metrics.wrote("cluster", op.label(), result, 1);
        outcome?;
        applied.slices += 1;
    }
    Ok(())
}
