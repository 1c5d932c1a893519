//! The writes of a plan: hands its operations to the writers.
//!
//! Owns the order of writes on each side. In a registry they stop at the first error, and in the cluster an error stops
//! only the slices of the same group; the next pass plans the rest again. Refuses to decide whether a request may be
//! sent: each writer asks the claim to lead itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Instrument, info_span};
use twinspan_core::model::{ServiceKey, Slice};
use twinspan_core::plan::service::{Plan, Written};
use twinspan_core::plan::slices::{SliceGroup, SliceOp};

use super::controller::Controller;
use super::observe::Observed;
use super::validate::Validation;
use crate::cluster::ClusterError;
use crate::cluster::writer::Owner;
use crate::registry::RegistryError;
use crate::registry::commits::WriteReport;
use crate::registry::handle::RegistryHandle;

/// Groups of slices that may get no answer in one pass: a webhook may be slow for one port, the API server for all.
const MOST_UNANSWERED: usize = 2;

/// The result of the writes.
#[derive(Debug, Default)]
pub struct Applied {
    /// Records created or updated, and deleted.
    pub records: (usize, usize),
    pub conflicts: usize,
    pub slices: usize,
    pub created_service: bool,
    /// Revision of the last write to the registry.
    pub revision: i64,
    /// A dry run held the planned writes back.
    pub dry_run: bool,
    pub registry_error: Option<RegistryError>,
    /// The first error that is no group's own.
    pub cluster_error: Option<ClusterError>,
    /// Groups of slices that the API server refused for good.
    pub refused: BTreeMap<SliceGroup, String>,
    /// Whether the Service itself was refused, or could not be written.
    pub service_failed: bool,
    /// Whether the writers were asked to write.
    pub attempted: bool,
    /// Whether groups of slices were not tried, because others got no answer.
    pub left_over: bool,
}

impl Applied {
    pub fn wrote(&self) -> bool {
        self.records != (0, 0) || self.slices > 0 || self.created_service
    }

    /// Whether a write to the cluster lost a race.
    pub fn lost_race(&self) -> bool {
        matches!(self.cluster_error, Some(ClusterError::Conflict { .. }))
    }

    pub fn failed(&self) -> bool {
        self.registry_error.is_some() || self.cluster_error.is_some()
    }
}

impl Controller {
    /// Writes if this process leads and the pass may write; a standby and a dry run only plan. Where the spec forbids
    /// to write, only what is not allowed any more is withdrawn.
    pub(super) async fn apply(&self, observed: &Observed, validation: &Validation, plan: &Plan) -> Applied {
        let leadership = &self.writers.leadership;
        let plan = &*plan.written(validation.writes);
        let writes = validation.writes || !plan.is_empty();
        if !writes || !leadership.may_write() {
            self.record_results(&observed.facts.key, &[]);
            let dry_run = writes && leadership.is_dry_run();
            return Applied { dry_run, ..Applied::default() };
        }
        // Both sides are written concurrently, because a slow registry must not delay DNS.
        let (cluster, registries) =
            tokio::join!(self.write_cluster(observed, plan), self.write_registries(observed, plan));
        Applied {
            records: registries.records,
            conflicts: registries.conflicts,
            revision: registries.revision,
            registry_error: registries.registry_error,
            attempted: true,
            ..cluster
        }
    }

    /// The writes of the RegisteredService that the views show: they learn from the answers to writes.
    pub(super) fn written(&self, observed: &Observed) -> Written {
        let key = &observed.facts.key;
        let ours = |slice: &Arc<Slice>| slice.is_ours();
        let slices: Vec<_> =
            self.views.cluster().slices.of_owner(&observed.facts.uid).into_iter().filter(ours).collect();
        let mut records = Vec::new();
        for handle in self.views.registries.all() {
            let view = handle.view();
            let own = view.owned_by(key).filter(|record| record.own(&handle.cluster_id).is_some());
            records.extend(own.cloned());
        }
        Written::new(records.iter().map(AsRef::as_ref), &slices)
    }

    /// Records the result of the last writes of each registry; a registry without writes has no error.
    fn record_results(&self, key: &ServiceKey, refused: &[(Arc<RegistryHandle>, RegistryError)]) {
        for handle in self.views.registries.all() {
            let error = refused.iter().find(|(by, _)| Arc::ptr_eq(by, &handle)).map(|(_, error)| error.clone());
            handle.record_write_result(key, error);
        }
    }

    async fn write_registries(&self, observed: &Observed, plan: &Plan) -> Applied {
        let key = &observed.facts.key;
        let mut applied = Applied::default();
        let mut refused = Vec::new();
        let handles = self.views.registries.all();
        let mut reports = Vec::new();
        for (name, ops) in plan.records.iter().filter(|(_, ops)| !ops.is_empty()) {
            // The session may have ended since the observation.
            let Some(handle) = handles.iter().find(|handle| handle.name == *name) else { continue };
            let span = info_span!("write records", registry = handle.name, operations = ops.len());
            // A pass that writes nothing has no room for what a write needs.
            let write = Box::pin(handle.write(&self.writers.leadership, key, ops.clone()));
            let report = write.instrument(span).await;
            reports.push((handle, report));
        }
        let facts = &observed.facts;
        for handle in &handles {
            let current = facts.registry.as_ref().filter(|place| place.name == handle.name);
            if current.is_none() && facts.former.iter().all(|place| place.name != handle.name) {
                continue;
            }
            // A lease that etcd refuses expires with everything on it.
            let name = current.and_then(|place| place.registry_name.as_ref());
            let left = Box::pin(handle.leave_refused_leases(&self.writers.leadership, key, name)).await;
            reports.push((handle, left));
        }
        for (handle, report) in reports {
            self.count(&report);
            handle.notify(report.found);
            if observed.facts.is_moving() {
                // Its own next pass withdraws from the former place what is in the new one now, whether the answer or
                // the watch was the first to show it.
                let mut wrote = report.wrote;
                if report.created + report.updated + report.deleted > 0 {
                    wrote.owners.insert(key.clone());
                }
                handle.notify(wrote);
            } else {
                handle.notify_others(report.wrote, key);
            }
            applied.records.0 += report.created + report.updated;
            applied.records.1 += report.deleted;
            applied.conflicts += report.conflicts;
            applied.revision = applied.revision.max(report.revision);
            if let Some(error) = report.error {
                refused.push((handle.clone(), error.clone()));
                applied.registry_error = Some(error);
            }
        }
        self.record_results(key, &refused);
        applied
    }

    fn count(&self, report: &WriteReport) {
        let metrics = &self.writers.metrics;
        for (op, count) in [("create", report.created), ("update", report.updated), ("delete", report.deleted)] {
            metrics.wrote("registry", op, "ok", count);
        }
        metrics.wrote("registry", "any", "lost_race", report.conflicts);
        if let Some(error) = &report.error {
            metrics.wrote("registry", "any", error.label(), 1);
        }
    }

    async fn write_cluster(&self, observed: &Observed, plan: &Plan) -> Applied {
        let mut applied = Applied::default();
        let span = info_span!("write slices", slices = Empty);
        let writes = self.write_services_and_slices(observed, plan, &mut applied);
        if let Err(error) = writes.instrument(span.clone()).await {
            applied.cluster_error = Some(error);
        }
        span.record("slices", applied.slices);
        applied
    }

    /// Returns the first error that is no group's own; those are in `applied`.
    async fn write_services_and_slices(
        &self,
        observed: &Observed,
        plan: &Plan,
        applied: &mut Applied,
    ) -> Result<(), ClusterError> {
        // A Service that is refused must not keep endpoints that ended.
        let written = self.write_services(observed, plan, applied).await;
        applied.service_failed = written.is_err();
        let owner = Owner { key: &observed.facts.key, uid: &observed.facts.uid };
        let mut groups: BTreeMap<Option<SliceGroup>, Vec<&SliceOp>> = BTreeMap::new();
        for op in &plan.slices.ops {
            groups.entry(op.group()).or_default().push(op);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        let first = observed.checkpoint.unanswered_passes.checked_rem(groups.len()).unwrap_or_default();
        groups.rotate_left(first);
        let mut failed = written.err();
        let mut unanswered = usize::from(failed.as_ref().is_some_and(ClusterError::is_unanswered));
        for (group, ops) in groups {
            if unanswered >= MOST_UNANSWERED || matches!(failed, Some(ClusterError::NotLeader)) {
                applied.left_over = true;
                break;
            }
            for op in ops {
                match (Box::pin(self.writers.cluster.slice(&owner, op)).await, group) {
                    (Ok(()), _) => {
                        applied.slices += 1;
                        continue;
                    }
                    (Err(error), Some(group)) if error.is_refusal() => {
                        applied.refused.insert(group, error.to_string());
                    }
                    (Err(error @ ClusterError::NotLeader), _) => failed = Some(error),
                    (Err(error), _) => {
                        unanswered += usize::from(error.is_unanswered());
                        failed.get_or_insert(error);
                    }
                }
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn write_services(
        &self,
        observed: &Observed,
        plan: &Plan,
        applied: &mut Applied,
    ) -> Result<(), ClusterError> {
        let (facts, writer) = (&observed.facts, &self.writers.cluster);
        let owner = Owner { key: &facts.key, uid: &facts.uid };
        if let Some(new) = &plan.create {
            match writer.create_service(&owner, new).await {
                Ok(()) => applied.created_service = true,
                // Another program created the Service meanwhile, or the old one is still going: the watch will show it.
                Err(ClusterError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some((wanted, uid)) = &plan.amend {
            writer.amend_service(wanted, uid).await?;
        }
        if let Some(service) = &plan.adopt {
            let key = ServiceKey::new(&facts.key.namespace, &service.name);
            writer.adopt_service(&key, &service.uid, &owner).await?;
        }
        for service in &plan.remove {
            let key = ServiceKey::new(&facts.key.namespace, &service.name);
            writer.delete_service(&key, &service.uid).await?;
        }
        Ok(())
    }
}
