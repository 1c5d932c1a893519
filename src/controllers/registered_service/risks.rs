//! Risks of a Service that has pods and imports beside each other, for clients in the cluster that read its slices.
//!
//! Owns the rule about which risk there is; `docs/clients.md` names the clients. Refuses to tell it, which
//! [`super::events`] does.

use std::collections::BTreeSet;

use twinspan_core::model::{InstanceAddr, InstanceOutcome, Slice};
use twinspan_core::plan::service::{Facts, Outcomes};

use crate::cluster::events::Reason;

/// The risks once a plan is applied.
pub(super) fn after(facts: &Facts, outcomes: &Outcomes) -> BTreeSet<Reason> {
    let imported = outcomes.imported.iter().filter(|instance| instance.outcome.is_imported());
    of(facts, outcomes, &ports(imported.filter_map(|instance| instance.subject.address())))
}

/// The risks that the slices in the cluster show.
pub(super) fn before(facts: &Facts, outcomes: &Outcomes) -> BTreeSet<Reason> {
    let filled = facts.cluster.our_slices.iter().filter(|slice: &_| !slice.deleting && !slice.endpoints.is_empty());
    let numbers = |slice: &Slice| slice.ports.iter().filter_map(|port| port.number).collect::<Vec<_>>();
    of(facts, outcomes, &filled.flat_map(|slice| numbers(slice)).collect())
}

fn of(facts: &Facts, outcomes: &Outcomes, imports: &BTreeSet<u16>) -> BTreeSet<Reason> {
    let pods = ports(outcomes.ready.iter().filter_map(|instance: &InstanceOutcome| instance.subject.address()));
    let selects = facts.cluster.service.as_ref().is_some_and(|service| service.selector);
    if facts.imports_are_apart() || !selects || pods.is_empty() || imports.is_empty() {
        return BTreeSet::new();
    }
    let differs = !imports.is_subset(&pods);
    [Reason::SecondSlice].into_iter().chain(differs.then_some(Reason::PortDiffers)).collect()
}

fn ports(addresses: impl Iterator<Item = InstanceAddr>) -> BTreeSet<u16> {
    addresses.map(InstanceAddr::port).collect()
}
