//! The ports of a pass, by which the core names the risks of clients that read slices; `docs/clients.md` names the
//! clients.
//!
//! Owns where the ports are read: in the plan, or in the slices before it. Refuses to tell a risk, which
//! [`super::events`] does.

use std::collections::BTreeSet;
use std::sync::Arc;

use twinspan_core::model::{InstanceAddr, InstanceOutcome, Slice};
use twinspan_core::plan::service::{Facts, Outcomes, Risk, risks};

/// The risks once a plan is applied.
pub(super) fn after(facts: &Facts, outcomes: &Outcomes) -> BTreeSet<Risk> {
    let imported = outcomes.imported.iter().filter(|instance| instance.outcome.is_imported());
    of(facts, outcomes, &ports(imported.filter_map(|instance| instance.subject.address())))
}

/// The risks that the slices in the cluster show.
pub(super) fn before(facts: &Facts, outcomes: &Outcomes) -> BTreeSet<Risk> {
    let has_imports =
        |slice: &&Arc<Slice>| !slice.deleting && slice.endpoints.iter().any(|endpoint| !endpoint.mirrored);
    let filled = facts.cluster.our_slices.iter().filter(has_imports);
    let numbers = |slice: &Slice| slice.ports.iter().filter_map(|port| port.number).collect::<Vec<_>>();
    of(facts, outcomes, &filled.flat_map(|slice| numbers(slice)).collect())
}

fn of(facts: &Facts, outcomes: &Outcomes, imports: &BTreeSet<u16>) -> BTreeSet<Risk> {
    let pods = ports(outcomes.ready.iter().filter_map(|instance: &InstanceOutcome| instance.subject.address()));
    risks(facts.cluster.import_place, &pods, imports)
}

fn ports(addresses: impl Iterator<Item = InstanceAddr>) -> BTreeSet<u16> {
    addresses.map(InstanceAddr::port).collect()
}
