//! The outcomes of a whole pass: every instance that either side has, and the counts that follow.
//!
//! Owns the choice of the outcome that counts if one address has several. Refuses to decide: each outcome comes from
//! the planner that decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::endpoints::{EndpointState, addresses, ready_anywhere};
use super::reach::{Behind, Reach};
use super::{Accepted, Facts};
use crate::model::{InstanceAddr, InstanceOutcome, Outcome, Reason, Record, Slice};
use crate::plan::export::{Writer, Writers};
use crate::plan::{export, import};

/// Every instance of a pass, by the side on which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Endpoints of the cluster that may be exported, one for each address.
    pub ready: Vec<InstanceOutcome>,
    /// Endpoints that may be exported although they are not ready: their readiness gate waits for their record.
    pub gated: Vec<InstanceOutcome>,
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

/// The side that has an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Cluster,
    Registry,
}

/// The reason why one side lacks an instance; those first that matter most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Its deletion, or its export, waits for more evidence or for the guard.
    Held,
    /// It lost its registration and lives.
    Lost,
    LeftOut(Reason),
}

/// The counts of a pass, as status and gauges show them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready endpoints of the cluster.
    pub cluster: usize,
    /// Foreign records under the name.
    pub registry: usize,
    pub lost: usize,
    pub healed: usize,
    pub skipped: usize,
    pub held: usize,
}

/// The instances that are written on each side at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The number of own records. One may have several addresses.
    pub records: usize,
    /// The addresses in own records.
    pub exported: BTreeSet<InstanceAddr>,
    /// The addresses in slices of ours.
    pub imported: BTreeSet<InstanceAddr>,
}

/// The part of a plan that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub exported: usize,
    pub imported: usize,
    /// Instances that are planned on the other side, and are not there.
    pub pending: usize,
}

impl Written {
    /// The instances in these own records and in these slices.
    pub fn new<'a>(records: impl IntoIterator<Item = &'a Record>, slices: &[Arc<Slice>]) -> Self {
        let mut written = Self::default();
        for record in records {
            // While a RegisteredService moves, its records are in two places.
            let mut anew = false;
            for addr in record.endpoint_addresses() {
                anew |= written.exported.insert(addr);
            }
            written.records += usize::from(anew);
        }
        let stay: Vec<Arc<Slice>> = slices.iter().filter(|slice| !slice.deleting).cloned().collect();
        written.imported.extend(addresses(&stay));
        written
    }
}

impl Outcomes {
    /// The part of the plan that is written, if the views show `written`.
    pub fn progress(&self, written: &Written) -> Progress {
        let among = |instance: &InstanceOutcome, there: &BTreeSet<InstanceAddr>| {
            instance.subject.address().is_some_and(|addr| there.contains(&addr))
        };
        let known: BTreeSet<InstanceAddr> =
            self.imported.iter().filter_map(|instance| instance.subject.address()).collect();
        let count = |all: &[InstanceOutcome], matches: &dyn Fn(&InstanceOutcome) -> bool| {
            all.iter().filter(|instance| instance.counts && matches(instance)).count()
        };
        let missing_exports = |i: &InstanceOutcome| i.outcome.is_exported() && !among(i, &written.exported);
        let missing_imports = |i: &InstanceOutcome| i.outcome.is_imported() && !among(i, &written.imported);
        Progress {
            exported: written.records,
            imported: count(&self.imported, &|instance| among(instance, &written.imported))
                + written.imported.difference(&known).count(),
            pending: count(&self.ready, &missing_exports)
                + count(&self.gated, &missing_exports)
                + count(&self.records, &missing_exports)
                + count(&self.imported, &missing_imports),
        }
    }

    /// The outcomes of a RegisteredService that cannot be acted upon: all have one reason.
    pub(super) fn not_accepted(facts: &Facts) -> Self {
        let cluster = &facts.cluster;
        let of = |addr| InstanceOutcome::of(addr, Outcome::NotAccepted);
        let mut withheld: Vec<InstanceOutcome> =
            addresses(&cluster.others_slices).chain(addresses(&cluster.our_slices)).map(of).collect();
        let mut skipped = Vec::new();
        for (key, record) in facts.registry.iter().flat_map(|registry| registry.snapshot.records.iter()) {
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
            ..Self::default()
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
        writers: &Writers<'_>,
        accepted: &Accepted,
        endpoints: BTreeMap<InstanceAddr, EndpointState>,
        reach: &Reach,
        export: &export::Plan,
        import: &import::Plan,
    ) -> Self {
        let mut outcomes = Self {
            records: export.records.clone(),
            imported: import.outcomes.clone(),
            skipped: import.skipped.clone(),
            foreign_records: writers.by(|writer| writer == Writer::Other).count(),
            ..Self::default()
        };
        if !accepted.imports {
            let left_out = writers.by(|writer| !writer.exported()).flat_map(Record::endpoint_addresses);
            outcomes.skipped = left_out.map(|addr| InstanceOutcome::of(addr, Outcome::ImportNotRequested)).collect();
        }
        outcomes.enter(endpoints, &Outcome::ExportNotRequested);
        if let Some(behind) = reach.behind.as_ref().filter(|_| accepted.exports) {
            let reached = reached(behind, export);
            let is_endpoint =
                |i: &&InstanceOutcome| i.subject.address().is_some_and(|addr| reached.contains_key(&addr));
            outcomes.records.extend(export.instances.iter().filter(|instance| !is_endpoint(instance)).cloned());
            for instance in &mut outcomes.ready {
                let Some(addr) = instance.subject.address() else { continue };
                let outcome = reach.without.get(&addr).cloned().or_else(|| reached.get(&addr).cloned());
                instance.outcome = outcome.unwrap_or(Outcome::Skipped(Reason::NoAddress));
            }
        } else if accepted.exports && outcomes.gated.is_empty() {
            outcomes.ready.clone_from(&export.instances);
        } else if accepted.exports {
            let gated: BTreeSet<InstanceAddr> = outcomes.gated.iter().filter_map(|i| i.subject.address()).collect();
            let is_gated = |i: &&InstanceOutcome| i.subject.address().is_some_and(|addr| gated.contains(&addr));
            let (waiting, ready) = export.instances.iter().partition::<Vec<_>, _>(is_gated);
            outcomes.gated = waiting.into_iter().cloned().map(InstanceOutcome::before_ready).collect();
            outcomes.ready = ready.into_iter().cloned().collect();
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
                EndpointState::Gated(_) => self.gated.push(InstanceOutcome::of(addr, ready.clone())),
                EndpointState::Withheld(outcome) => self.withheld.push(InstanceOutcome::of(addr, outcome)),
            }
        }
    }

    /// Every instance, in the order of the lists.
    pub fn all(&self) -> impl Iterator<Item = &InstanceOutcome> {
        [&self.ready, &self.gated, &self.withheld, &self.records, &self.imported, &self.skipped].into_iter().flatten()
    }

    /// Every instance that is left out, with its reason; exports first.
    pub fn skipped(&self) -> impl Iterator<Item = (&InstanceOutcome, Reason)> {
        self.all().filter_map(|instance| Some((instance, instance.skip_reason()?)))
    }

    /// Every instance that one side lacks, and is to have or to lose, with the side that has it. Nothing differs
    /// because a whole side is unavailable or not asked for.
    pub fn differences(&self) -> impl Iterator<Item = (&InstanceOutcome, Side, Difference)> {
        let cluster = [&self.ready, &self.gated, &self.withheld, &self.imported].map(|all| (all, Side::Cluster));
        let registry = [&self.records, &self.skipped].map(|all| (all, Side::Registry));
        let all = cluster.into_iter().chain(registry);
        all.flat_map(|(all, side)| all.iter().map(move |instance| (instance, side))).filter_map(|(instance, side)| {
            let difference = match &instance.outcome {
                _ if !instance.counts => return None,
                _ if instance.held => Difference::Held,
                Outcome::Lost { .. } => Difference::Lost,
                _ => Difference::LeftOut(instance.skip_reason()?),
            };
            Some((instance, side, difference))
        })
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
        let order = [&self.imported, &self.ready, &self.gated, &self.withheld, &self.records, &self.skipped];
        for instance in order.into_iter().flatten() {
            match instance.subject.address() {
                Some(addr) => drop(by_address.entry(addr).or_insert(instance)),
                None => rest.push(instance),
            }
        }
        (by_address, rest)
    }
}

/// The outcome of each endpoint behind exported addresses: the first address, or the first that both sides have.
fn reached(behind: &BTreeMap<InstanceAddr, Behind>, export: &export::Plan) -> BTreeMap<InstanceAddr, Outcome> {
    let mut reached: BTreeMap<InstanceAddr, (bool, Outcome)> = BTreeMap::new();
    for instance in &export.instances {
        let Some(address) = instance.subject.address() else { continue };
        let here = (instance.outcome.is_shared(), Outcome::ReachedAt { address });
        for endpoint in behind.get(&address).into_iter().flat_map(|behind| &behind.endpoints) {
            // A pod in its Node's network is called at its own address.
            if *endpoint == address {
                reached.insert(*endpoint, (true, instance.outcome.clone()));
                continue;
            }
            let known = reached.entry(*endpoint).or_insert_with(|| here.clone());
            if here.0 && !known.0 {
                known.clone_from(&here);
            }
        }
    }
    reached.into_iter().map(|(endpoint, (_, outcome))| (endpoint, outcome)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RecordKey;

    fn addr(text: &str) -> InstanceAddr {
        InstanceAddr::parse(text).unwrap()
    }

    #[test]
    fn counts_say_what_is_written_and_what_is_only_planned() {
        let key = RecordKey::from("p/echo/10.0.0.1:80");
        let of = |text: &str, outcome| InstanceOutcome::of(addr(text), outcome);
        let second_port = |text: &str| InstanceOutcome { counts: false, ..of(text, Outcome::Imported) };
        let outcomes = Outcomes {
            ready: vec![of("10.0.0.1:80", Outcome::Exported { key }), of("10.0.0.2:80", Outcome::ToBeExported)],
            imported: vec![
                of("192.0.2.1:80", Outcome::Imported),
                second_port("192.0.2.1:81"),
                of("192.0.2.2:80", Outcome::ToBeImported),
            ],
            ..Outcomes::default()
        };
        let set = |all: &[&str]| all.iter().map(|text| addr(text)).collect::<BTreeSet<_>>();
        let before = Written {
            records: 1,
            exported: set(&["10.0.0.1:80"]),
            imported: set(&["192.0.2.1:80", "192.0.2.1:81", "192.0.2.9:80"]),
        };
        let found = outcomes.progress(&before);
        assert_eq!((found.exported, found.imported, found.pending), (1, 2, 2), "one is to go and is still there");
        let after = Written {
            records: 2,
            exported: set(&["10.0.0.1:80", "10.0.0.2:80"]),
            imported: set(&["192.0.2.1:80", "192.0.2.1:81", "192.0.2.2:80"]),
        };
        let found = outcomes.progress(&after);
        assert_eq!((found.exported, found.imported, found.pending), (2, 2, 0));
        let nothing = outcomes.progress(&Written::default());
        assert_eq!((nothing.exported, nothing.imported, nothing.pending), (0, 0, 4));
    }
}
