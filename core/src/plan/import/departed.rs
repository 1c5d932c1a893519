//! Imported endpoints whose record is gone, and the ones among them that stay.
//!
//! Owns the list of those endpoints, and the step from their evidence and the decision about each to the guard's
//! decision about all. Refuses to repeat rules: [`crate::plan::departure`] decides about one endpoint,
//! [`crate::plan::departure::guard`] has the limits, and [`super::heal`] has the healed records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Departed, DepartedEndpoint, Imported, Input, Plan};
use super::heal::healed_by_us;
use crate::Timestamp;
use crate::model::{Content, InstanceAddr, Kind, Mark, PortSet, Record, RecordKey};
use crate::plan::departure::guard::{GuardInput, Unexplained};
use crate::plan::departure::{self, Decision, DepartureInput, Evidence};
use crate::plan::earlier;

impl Departed {
    /// The endpoints as the slices should have them.
    pub fn endpoints(&self, input: &Input<'_>) -> Vec<(InstanceAddr, Imported)> {
        self.kept.iter().map(|(addr, departed)| (*addr, imported(input, *addr, departed))).collect()
    }
}

/// Decides about every endpoint without a record. `plan` has the endpoints with a record.
pub fn decide(input: &Input<'_>, plan: &Plan) -> Departed {
    let mut all = Departed { guard_state: input.state.guard.clone(), ..Departed::default() };
    let last = plan.endpoints.is_empty() && !input.others_ready;
    let mut unexplained = BTreeMap::new();
    for (addr, departed) in in_question(input, plan) {
        match departure::decide(&departure_input(input, addr, &departed, last)) {
            Decision::Gone => continue,
            Decision::Waiting { probe, requeue_at } => {
                all.waiting.insert(addr);
                all.requeue_at = earlier(all.requeue_at, requeue_at);
                all.ask(addr, probe);
                all.kept.insert(addr, departed);
            }
            Decision::Lost { until } => {
                all.lost.insert(addr);
                all.ask(addr, true);
                all.requeue_at = earlier(all.requeue_at, Some(until));
                all.kept.insert(addr, DepartedEndpoint { lost_until: Some(until), ..departed });
            }
            Decision::Unexplained { since, probe } => {
                all.ask(addr, probe);
                let rollback = departed.evidence == Evidence::RolledBack;
                unexplained.insert(addr, Unexplained { since, rollback });
                all.kept.insert(addr, departed);
            }
        }
    }
    all.guard = all.guard_state.decide(&GuardInput {
        known: plan.endpoints.len() + all.kept.len(),
        would_be_empty: plan.endpoints.is_empty() && unexplained.len() == all.kept.len() && !input.others_ready,
        unexplained: &unexplained,
        limits: input.limits,
        context: input.context,
        now: input.now,
    });
    all.kept.retain(|addr, _| !all.guard.allowed.contains(addr));
    all
}

impl Departed {
    fn ask(&mut self, addr: InstanceAddr, probe: bool) {
        if probe {
            self.probe.insert(addr);
        }
    }
}

fn departure_input(input: &Input<'_>, addr: InstanceAddr, departed: &DepartedEndpoint, last: bool) -> DepartureInput {
    DepartureInput {
        evidence: departed.evidence,
        at: departed.at,
        on_expiry: input.options.on_expiry,
        keepable: keepable(input, addr, departed),
        last,
        probe: input.probes.get(&addr).copied(),
        lost_until: departed.lost_until,
        keep_lost: input.options.keep_lost,
        now: input.now,
    }
}

/// Every endpoint without a record, with the evidence about its record.
fn in_question(input: &Input<'_>, plan: &Plan) -> BTreeMap<InstanceAddr, DepartedEndpoint> {
    let healed = healed_by_us(input);
    let mut found = BTreeMap::new();
    let recorded = recorded(input, &healed);
    let wanted = |addr: &InstanceAddr| plan.endpoints.contains_key(addr) || recorded.contains(addr);
    for record in healed.values() {
        for addr in record.endpoint_addresses().filter(|addr| !wanted(addr)) {
            let before = input.state.departing.get(&addr);
            let departed = DepartedEndpoint {
                evidence: Evidence::LeaseExpired,
                at: before.map_or(input.now, |before| before.at),
                record: before.and_then(|before| before.record.clone()).or_else(|| Some(Arc::new((*record).clone()))),
                lost_until: lost_until(input, addr),
            };
            found.insert(addr, departed);
        }
    }
    let known = input.state.known.iter().flatten();
    let all: BTreeSet<InstanceAddr> =
        input.present.keys().chain(known).chain(input.state.departing.keys()).copied().collect();
    for addr in all {
        if !wanted(&addr)
            && !found.contains_key(&addr)
            && let Some(departed) = departed(input, addr)
        {
            found.insert(addr, departed);
        }
    }
    let managed = |addr: &InstanceAddr| input.managed_by_others.contains(&(addr.ip(), addr.port()));
    // A kept endpoint is still subject to trust: a pod that moved in at the address ends every hold.
    found.retain(|addr, _| !managed(addr) && input.trust.refusal(addr.ip()).is_none());
    found
}

/// Addresses that still have a record. If the record is not imported, that has its own reason; the endpoint did not
/// depart.
fn recorded(input: &Input<'_>, healed: &BTreeMap<RecordKey, &Record>) -> BTreeSet<InstanceAddr> {
    let own = |record: &Record| matches!(record.kind(&input.owner.cluster_id), Kind::Own(_));
    let others = input.records.iter().filter(|(key, record)| !healed.contains_key(*key) && !own(record));
    others.flat_map(|(_, record)| record.endpoint_addresses()).collect()
}

/// The evidence about the record of one endpoint. `None` if nothing is known: the record or the RegisteredService
/// changed, or another program wrote into our slice. The endpoint is then no longer wanted, and is removed.
fn departed(input: &Input<'_>, addr: InstanceAddr) -> Option<DepartedEndpoint> {
    let before = input.state.departing.get(&addr);
    let seen = input.departures.get(&addr).filter(|seen| {
        // A departure that already has a decision is not new, unless its evidence has changed.
        before.is_none_or(|before| before.at != seen.at || before.evidence != seen.evidence)
    });
    let was_ours =
        input.present.contains_key(&addr) || input.state.known.as_ref().is_some_and(|known| known.contains(&addr));
    match (seen, before) {
        (Some(seen), _) if was_ours => Some(DepartedEndpoint {
            evidence: seen.evidence,
            at: seen.at,
            record: seen.record.clone(),
            lost_until: lost_until(input, addr),
        }),
        (_, Some(before)) => Some(DepartedEndpoint { lost_until: lost_until(input, addr), ..before.clone() }),
        (_, None) => {
            let orphan = input.state.known.is_none() && input.present.get(&addr).is_some_and(|p| p.from_here);
            let evidence = if input.started_after_rollback { Evidence::RolledBack } else { Evidence::NoRecordAtStart };
            let lost_until = lost_until(input, addr);
            orphan.then_some(DepartedEndpoint { evidence, at: input.now, record: None, lost_until })
        }
    }
}

fn lost_until(input: &Input<'_>, addr: InstanceAddr) -> Option<Timestamp> {
    let remembered = input.state.departing.get(&addr).and_then(|before| before.lost_until);
    remembered.or_else(|| input.present.get(&addr).and_then(|present| present.lost_until))
}

fn keepable(input: &Input<'_>, addr: InstanceAddr, departed: &DepartedEndpoint) -> bool {
    let others = departed.record.as_ref().is_some_and(|record| {
        matches!(&record.content, Content::Registered { mark: Mark::Owned(_) | Mark::Unreadable, .. })
    });
    !others && !input.trust.pods.contains_key(&addr.ip())
}

fn imported(input: &Input<'_>, addr: InstanceAddr, departed: &DepartedEndpoint) -> Imported {
    let present = input.present.get(&addr);
    let mut ports = present.map(|present| present.ports).unwrap_or_default();
    let mut zone_of_record = None;
    if let Some(record) = &departed.record
        && let Content::Registered { registration, listeners, .. } = &record.content
    {
        zone_of_record = input.options.zone(registration);
        for (index, scheme) in input.options.schemes.iter().enumerate() {
            let first = listeners.iter().find(|listener| listener.scheme == *scheme);
            if first.is_some_and(|listener| listener.addr == Ok(addr)) {
                ports.insert(PortSet::of(index));
            }
        }
    }
    let zone = zone_of_record.or_else(|| present.and_then(|present| present.zone.clone()));
    Imported { ports, zone, lost_until: departed.lost_until }
}

#[cfg(test)]
#[path = "departed_tests.rs"]
mod tests;
