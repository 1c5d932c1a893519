//! The outcomes of a whole pass: every instance that either side has, and the counts that follow.
//!
//! Owns the choice of the outcome that counts if one address has several. Refuses to decide: each outcome comes from
//! the planner that decided.

use std::collections::{BTreeMap, BTreeSet};

use super::endpoints::{EndpointState, addresses, ready_anywhere};
use super::{Accepted, Facts, RegistryFacts};
use crate::model::{InstanceAddr, InstanceOutcome, Outcome, Reason};
use crate::plan::{export, import};

/// Every instance of a pass, by the side on which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Endpoints of the cluster that may be exported, one for each address.
    pub ready: Vec<InstanceOutcome>,
    /// Endpoints of the cluster that may not.
    pub withheld: Vec<InstanceOutcome>,
    /// Records that this cluster wrote and that no ready endpoint explains.
    pub records: Vec<InstanceOutcome>,
    /// Endpoints that are, or stay, imported.
    pub imported: Vec<InstanceOutcome>,
    /// Foreign records that are not imported.
    pub skipped: Vec<InstanceOutcome>,
    /// Foreign records under the name.
    pub foreign_records: usize,
}

/// The counts of a pass, as status and gauges show them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready endpoints of the cluster.
    pub cluster: usize,
    /// Foreign records under the name.
    pub registry: usize,
    pub exported: usize,
    pub imported: usize,
    pub lost: usize,
    pub healed: usize,
    pub skipped: usize,
    pub held: usize,
}

impl Outcomes {
    /// The outcomes of a RegisteredService that cannot be acted upon: all have one reason.
    pub(super) fn not_accepted(facts: &Facts) -> Self {
        let cluster = &facts.cluster;
        let of = |addr| InstanceOutcome::of(addr, Outcome::NotAccepted);
        let mut withheld: Vec<InstanceOutcome> =
            addresses(&cluster.others_slices).chain(addresses(&cluster.our_slices)).map(of).collect();
        let mut skipped = Vec::new();
        for (key, record) in facts.registry.iter().flat_map(|registry| &registry.snapshot.records) {
            withheld.extend(record.endpoint_addresses().map(of));
            if record.endpoint_addresses().next().is_none() {
                let unnamed = InstanceOutcome::skipped(key.to_string(), Reason::AddressMissing);
                skipped.push(InstanceOutcome { outcome: Outcome::NotAccepted, ..unnamed });
            }
        }
        Self { withheld, skipped, ..Self::default() }
    }

    /// The outcomes of a RegisteredService whose spec cannot be carried out: what is there, and what goes.
    pub(super) fn reduced(facts: &Facts, export: &export::Plan, import: &import::Plan) -> Self {
        let Self { withheld, skipped, .. } = Self::not_accepted(facts);
        let exported: BTreeMap<InstanceAddr, &InstanceOutcome> =
            export.instances.iter().filter_map(|instance| Some((instance.subject.address()?, instance))).collect();
        let selector = facts.cluster.service.as_ref().is_some_and(|service| service.selector);
        let ready = ready_anywhere(&facts.cluster.others_slices, selector);
        let of = |addr: &InstanceAddr| {
            let exported = exported.get(addr).map(|exported| (*exported).clone());
            exported.unwrap_or_else(|| InstanceOutcome::of(*addr, Outcome::NotAccepted))
        };
        let elsewhere = exported.iter().filter(|(addr, _)| !ready.contains(*addr));
        let foreign = facts.registry.iter().flat_map(|registry| {
            let cluster_id = &registry.owner.cluster_id;
            registry.snapshot.records.values().filter(|record| record.ours(cluster_id).is_none())
        });
        let waiting = export.records.iter().filter_map(|instance| instance.subject.address());
        let known: BTreeSet<InstanceAddr> = ready.iter().chain(exported.keys()).copied().chain(waiting).collect();
        let unknown =
            |instance: &InstanceOutcome| !instance.subject.address().is_some_and(|addr| known.contains(&addr));
        Self {
            ready: ready.iter().map(of).collect(),
            withheld: withheld.into_iter().filter(unknown).collect(),
            records: export.records.iter().cloned().chain(elsewhere.map(|(_, exported)| (*exported).clone())).collect(),
            imported: import.outcomes.clone(),
            skipped,
            foreign_records: foreign.count(),
        }
    }

    /// The outcomes while the registry's view is not fresh.
    pub(super) fn unavailable(
        facts: &Facts,
        accepted: &Accepted,
        endpoints: BTreeMap<InstanceAddr, EndpointState>,
    ) -> Self {
        let kept = addresses(&facts.cluster.our_slices);
        let mut outcomes = Self {
            imported: kept.map(|addr| InstanceOutcome::of(addr, Outcome::ImportUnavailable)).collect(),
            ..Self::default()
        };
        let ready = if accepted.exports { Outcome::ExportUnavailable } else { Outcome::ExportNotRequested };
        outcomes.enter(endpoints, &ready);
        outcomes
    }

    pub(super) fn synced(
        registry: &RegistryFacts,
        accepted: &Accepted,
        endpoints: BTreeMap<InstanceAddr, EndpointState>,
        export: &export::Plan,
        import: &import::Plan,
    ) -> Self {
        let cluster_id = &registry.owner.cluster_id;
        let foreign = || registry.snapshot.records.values().filter(|record| record.ours(cluster_id).is_none());
        let mut outcomes = Self {
            records: export.records.clone(),
            imported: import.outcomes.clone(),
            skipped: import.skipped.clone(),
            foreign_records: foreign().count(),
            ..Self::default()
        };
        if !accepted.imports {
            let records = registry.snapshot.records.values();
            let left_out = records
                .filter(|record| record.own(cluster_id).is_none())
                .flat_map(|record| record.endpoint_addresses());
            outcomes.skipped = left_out.map(|addr| InstanceOutcome::of(addr, Outcome::ImportNotRequested)).collect();
        }
        outcomes.enter(endpoints, &Outcome::ExportNotRequested);
        if accepted.exports {
            outcomes.ready.clone_from(&export.instances);
        }
        outcomes
    }

    /// Endpoints that the API server does not take.
    pub(super) fn leave_out(&mut self, addresses: &BTreeSet<InstanceAddr>) {
        let left_out = |instance: &InstanceOutcome| instance.subject.address().is_some_and(|a| addresses.contains(&a));
        let refused = self.imported.extract_if(.., |instance| left_out(instance));
        let skipped = |instance| InstanceOutcome { outcome: Outcome::Skipped(Reason::RefusedByCluster), ..instance };
        self.skipped.extend(refused.map(skipped));
    }

    fn enter(&mut self, endpoints: BTreeMap<InstanceAddr, EndpointState>, ready: &Outcome) {
        for (addr, state) in endpoints {
            match state {
                EndpointState::Ready(_) => self.ready.push(InstanceOutcome::of(addr, ready.clone())),
                EndpointState::Withheld(outcome) => self.withheld.push(InstanceOutcome::of(addr, outcome)),
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &InstanceOutcome> {
        [&self.ready, &self.withheld, &self.records, &self.imported, &self.skipped].into_iter().flatten()
    }

    /// Every instance that is left out, with its reason; exports first.
    pub fn skipped(&self) -> impl Iterator<Item = (&InstanceOutcome, Reason)> {
        self.all().filter_map(|instance| Some((instance, instance.skip_reason()?)))
    }

    /// Instances that lost their registration and live, whether or not their record was put back.
    pub fn lost(&self) -> impl Iterator<Item = InstanceAddr> {
        let lost = |instance: &&InstanceOutcome| {
            !instance.held
                && matches!(
                    instance.outcome,
                    Outcome::Lost { .. } | Outcome::ToBeHealed { .. } | Outcome::Healed { .. }
                )
        };
        self.imported.iter().filter(lost).filter_map(|instance| instance.subject.address())
    }

    pub fn counts(&self) -> Counts {
        let count = |matches: &dyn Fn(&InstanceOutcome) -> bool| {
            self.all().filter(|instance| instance.counts && matches(instance)).count()
        };
        Counts {
            cluster: self.ready.len(),
            registry: self.foreign_records,
            exported: count(&|instance| instance.outcome.is_exported()),
            imported: count(&|instance| instance.outcome.is_imported()),
            lost: count(&|instance| !instance.held && matches!(instance.outcome, Outcome::Lost { .. })),
            healed: count(&|instance| matches!(instance.outcome, Outcome::ToBeHealed { .. } | Outcome::Healed { .. })),
            skipped: self.skipped().count(),
            held: count(&|instance| instance.held),
        }
    }

    /// One outcome for each address, and the outcomes of records without an address, as people see them.
    pub fn by_address(&self) -> (BTreeMap<InstanceAddr, &InstanceOutcome>, Vec<&InstanceOutcome>) {
        let mut by_address = BTreeMap::new();
        let mut rest = Vec::new();
        // An endpoint of the Service takes precedence over a record, and a record over an instance that is left out.
        let order = [&self.imported, &self.ready, &self.withheld, &self.records, &self.skipped];
        for instance in order.into_iter().flatten() {
            match instance.subject.address() {
                Some(addr) => drop(by_address.entry(addr).or_insert(instance)),
                None => rest.push(instance),
            }
        }
        (by_address, rest)
    }
}
