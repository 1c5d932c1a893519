//! Imported endpoints whose record is gone, and the ones among them that stay.
//!
//! Owns the list of those endpoints, and the step from their evidence and the decision about each to the guard's
//! decision about all. An endpoint can only be kept where it is: in our slices, or in a healed record of ours. Refuses
//! to repeat rules: [`crate::plan::departure`] decides about one endpoint,
//! [`crate::plan::departure::guard`] has the limits, and [`super::heal`] has the healed records.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Departed, DepartedEndpoint, Imported, Input, Plan};
use super::heal::Healed;
use crate::Timestamp;
use crate::model::{Content, InstanceAddr, Kind, Mark, PortSet, Record};
use crate::plan::departure::guard::{GuardInput, Unexplained};
use crate::plan::departure::{self, Decision, Departure, DepartureInput, Evidence};
use crate::plan::earlier;

impl Departed {
    /// The endpoints as the slices should have them. One that only a healed record names has to accept a connection
    /// first.
    pub fn endpoints(&self, input: &Input<'_>) -> Vec<(InstanceAddr, Imported)> {
        let stays = |addr: &InstanceAddr| input.present.contains_key(addr) || self.lost.contains(addr);
        let kept = self.kept.iter().filter(|(addr, _)| stays(addr));
        kept.map(|(addr, departed)| (*addr, imported(input, *addr, departed))).collect()
    }
}

impl Input<'_> {
    /// The time of the first plan of this leadership; `None` while another process leads.
    pub(super) fn judging_since(&self) -> Option<Timestamp> {
        self.leads.then(|| self.state.judging_since.unwrap_or(self.now))
    }
}

/// Decides about every endpoint without a record. `plan` has the endpoints with a record.
pub fn decide(input: &Input<'_>, plan: &Plan, healed: &Healed<'_>) -> Departed {
    let Some(judging_since) = input.judging_since() else {
        return Departed { kept: in_question(input, plan, healed), ..Departed::default() };
    };
    let mut all = Departed { guard_state: input.state.guard.clone(), ..Departed::default() };
    let last = plan.endpoints.is_empty() && !input.pods.beside;
    let mut unexplained = BTreeMap::new();
    for (addr, departed) in in_question(input, plan, healed) {
        if input.state.given_up.get(&addr) == Some(&(departed.at, departed.evidence)) {
            // The server is not asked any more, and its answers are forgotten.
            continue;
        }
        match departure::decide(&departure_input(input, addr, &departed, last)) {
            Decision::Gone => continue,
            Decision::Waiting { probe, requeue_at } => {
                all.waiting.insert(addr);
                all.requeue_at = earlier(all.requeue_at, requeue_at);
                all.ask(addr, probe);
                all.kept.insert(addr, departed);
            }
            Decision::Lost { until, requeue_at } => {
                all.lost.insert(addr);
                all.ask(addr, true);
                all.requeue_at = earlier(all.requeue_at, Some(requeue_at));
                all.kept.insert(addr, DepartedEndpoint { lost_until: Some(until), ..departed });
            }
            Decision::Unexplained { since, probe } => {
                all.ask(addr, probe);
                let rollback = departed.evidence == Evidence::RolledBack;
                // Time in which nobody judged does not count.
                let since = since.max(judging_since);
                unexplained.insert(addr, Unexplained { since, departed: departed.at, saw: departed.saw, rollback });
                all.kept.insert(addr, departed);
            }
        }
    }
    all.guard = all.guard_state.decide(&GuardInput {
        known: plan.endpoints.len() + all.kept.len(),
        would_be_empty: plan.endpoints.is_empty() && unexplained.len() == all.kept.len() && !input.pods.beside,
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
pub fn in_question(input: &Input<'_>, plan: &Plan, healed: &Healed<'_>) -> BTreeMap<InstanceAddr, DepartedEndpoint> {
    let mut found = BTreeMap::new();
    let recorded = LazyCell::new(|| recorded(input, healed));
    let wanted = |addr: &InstanceAddr| plan.endpoints.contains_key(addr) || recorded.contains(addr);
    for record in healed.values() {
        for addr in record.endpoint_addresses().filter(|addr| !wanted(addr)) {
            let before = input.state.departing.get(&addr);
            let departed = DepartedEndpoint {
                evidence: Evidence::LeaseExpired,
                at: before.map_or(input.now, |before| before.at),
                saw: before.is_some_and(|before| before.saw),
                record: before.and_then(|before| before.record.clone()).or_else(|| Some(Arc::new((*record).clone()))),
                lost_until: lost_until(input, addr),
            };
            found.insert(addr, departed);
        }
    }
    for addr in input.present.keys().copied() {
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
fn recorded(input: &Input<'_>, healed: &Healed<'_>) -> BTreeSet<InstanceAddr> {
    let own = |record: &Record| matches!(record.kind(&input.owner.cluster_id), Kind::Own(_));
    let others = input.records.iter().filter(|(key, record)| !healed.contains_key(*key) && !own(record));
    others.flat_map(|(_, record)| record.endpoint_addresses()).collect()
}

/// The evidence about the record of one endpoint in our slices. `None` if there is none: the record or the
/// RegisteredService changed, or another program wrote into our slice. The endpoint is then no longer wanted, and is
/// removed.
fn departed(input: &Input<'_>, addr: InstanceAddr) -> Option<DepartedEndpoint> {
    let lost_until = lost_until(input, addr);
    let before = input.state.departing.get(&addr);
    if let Some(seen) = input.departures.get(&addr) {
        let (evidence, record) = (evidence(input, seen), seen.record.clone());
        return Some(DepartedEndpoint { evidence, at: seen.at, saw: true, record, lost_until });
    }
    if let Some(before) = before {
        return Some(DepartedEndpoint { lost_until, ..before.clone() });
    }
    // An endpoint that another leader left without a record may live, or may be about to go.
    let begins = input.leads && input.state.judging_since.is_none();
    let orphan = begins && input.present.get(&addr).is_some_and(|present| present.from_here);
    let evidence = if input.started_after_rollback { Evidence::RolledBack } else { Evidence::NoRecordAtStart };
    orphan.then_some(DepartedEndpoint { evidence, at: input.now, saw: false, record: None, lost_until })
}

/// The time of a departure that the view has, and its evidence.
pub fn seen(input: &Input<'_>, addr: InstanceAddr) -> Option<(Timestamp, Evidence)> {
    input.departures.get(&addr).map(|seen| (seen.at, evidence(input, seen)))
}

/// The evidence as the importer sees it. A healed record stands for a server that lost its registration: however
/// somebody else's goes, its server may live.
fn evidence(input: &Input<'_>, seen: &Departure) -> Evidence {
    let healed_by_others = seen.record.as_ref().is_some_and(
        |record| matches!(record.kind(&input.owner.cluster_id), Kind::Healed(owner) if owner != input.owner),
    );
    match seen.evidence {
        Evidence::RolledBack => Evidence::RolledBack,
        _ if healed_by_others => Evidence::LeaseExpired,
        evidence => evidence,
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
    // The slice has the name of a port that was chosen before.
    let renamed = ports.is_empty();
    let mut zone_of_record = None;
    if let Some(record) = &departed.record
        && let Content::Registered { registration, listeners, .. } = &record.content
    {
        zone_of_record = input.options.zone(registration);
        for (index, scheme) in input.options.schemes.iter().enumerate() {
            let mut dialled = input.layout.format().dialled(listeners, scheme);
            if renamed && dialled.any(|listener| listener.addr == Ok(addr)) {
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
