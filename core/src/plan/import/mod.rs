//! Import: foreign records of the registry become endpoints of the cluster.
//!
//! - [`facts`]: the values that the decision rests on, and those that it returns.
//! - [`departed`]: endpoints whose record is gone; [`heal`]: the records that stand for lost registrations.
//! - [`others`]: the endpoints of other clusters' exports; [`preference`]: when they come and leave.
//! - [`bounds`]: the number of slices that may be filled.
//! - [`doubted`]: records of pods that may have died before this process looked.
//!
//! Owns the rule about which records become endpoints, and the reason for each of the others. Refuses to know slices:
//! how endpoints are packed is [`super::slices`]. The Service and namespace never come from a record.

mod bounds;
mod departed;
mod doubted;
mod facts;
mod heal;
mod others;
mod preference;
#[cfg(test)]
mod scene;

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use self::doubted::Doubt;
use self::facts::Departed;
use self::heal::Healed;
use self::others::{Found, Origin};
use crate::Timestamp;
use crate::model::{
    Content, InstanceAddr, InstanceOutcome, Kind, Outcome, PortSet, Reason, Record, RecordKey, Registration,
};
use crate::plan::earlier;

pub use facts::{
    ContestedImport, DepartedEndpoint, ImportState, Imported, Input, Options, OtherClusters, Plan, Pods, Present,
    Shadows,
};

/// The longest `status.differences[].instance`, in characters: any program may write records.
const MAX_SHOWN: usize = 200;

pub fn plan(input: &Input<'_>) -> Plan {
    let (mut plan, departed) = with_departed(input);
    for (addr, contest) in input.contested {
        let present = input.present.get(addr);
        if contest.precedes && plan.endpoints.contains_key(addr) {
            plan.skipped.push(InstanceOutcome::skipped(addr.to_string(), Reason::Conflict));
            if contest.holds || present.is_none() {
                plan.endpoints.remove(addr);
            }
        } else if let (false, Some(present)) = (contest.holds, present) {
            // The endpoint stays in our slice until the other's slice holds it, so that it never vanishes when it
            // changes hands.
            if let Entry::Vacant(gap) = plan.endpoints.entry(*addr) {
                gap.insert(imported_before(present));
                plan.yielded.insert(*addr);
            }
        }
    }
    let given_up = plan.yielded.iter().filter_map(|addr| Some((*addr, departed::seen(input, *addr)?)));
    plan.state.given_up = given_up.collect();
    plan.stood_back.retain(|addr| !plan.endpoints.contains_key(addr));
    plan.endpoints.retain(|_, imported| !imported.ports.is_empty());
    for addr in bounds::beyond(&plan.endpoints, |addr| input.present.contains_key(addr)) {
        plan.endpoints.remove(&addr);
        plan.skipped.push(InstanceOutcome::skipped(addr.to_string(), Reason::TooManySlices));
    }
    let by_address = LazyCell::new(|| registered(input));
    // All others are there because of a record.
    let in_question = |addr: &InstanceAddr| departed.kept.contains_key(addr) || input.contested.contains_key(addr);
    let is_registered = |addr: &InstanceAddr| !in_question(addr) || by_address.contains(addr);
    plan.outcomes = outcomes(input, &plan, &departed, is_registered);
    plan
}

/// The plan as if no other RegisteredService imported into the Service.
pub fn uncontested(input: &Input<'_>) -> Plan {
    with_departed(input).0
}

/// The plan for a spec that cannot be carried out: no record becomes an endpoint, and an endpoint stays unless the
/// evidence about its record, or trust, says that it goes.
pub fn reduce(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let healed = heal::healed_by_us(input);
    let asked = departed::in_question(input, &plan, &healed);
    for (addr, present) in input.present.iter().filter(|(addr, _)| !asked.contains_key(*addr)) {
        let managed = input.managed_by_others.contains(&(addr.ip(), addr.port()));
        let held_by_sibling = input.contested.get(addr).is_some_and(|contest| contest.holds);
        if !managed && !held_by_sibling && input.trust.refusal(addr.ip()).is_none() {
            plan.endpoints.insert(*addr, imported_before(present));
        }
    }
    let departed = departed::decide(input, &plan, &healed);
    plan.ops = heal::withdraw_ended(&healed, &departed);
    plan.state.shadows.clone_from(&input.state.shadows);
    plan.state.doubted = Some(doubted::still(input));
    finish(input, &mut plan, &departed);
    plan.endpoints.retain(|addr, _| input.present.contains_key(addr));
    let by_address = registered(input);
    plan.outcomes = outcomes(input, &plan, &departed, |addr| by_address.contains(addr));
    plan
}

fn imported_before(present: &Present) -> Imported {
    Imported { ports: present.ports, zone: present.zone.clone(), lost_until: None }
}

fn with_departed(input: &Input<'_>) -> (Plan, Departed) {
    let mut plan = Plan::default();
    let mut doubted = Shadows::new();
    let (mut found, mut healed) = (Found::default(), Healed::new());
    for (key, record) in input.records {
        match decide(input, record) {
            RecordDecision::Doubted(endpoints, until) => {
                doubted.insert(key.clone(), record.written());
                if until.is_some() {
                    plan.probe.extend(endpoints.iter().map(|(addr, _)| *addr));
                    plan.requeue_at = earlier(plan.requeue_at, until);
                }
                let waits =
                    |addr| InstanceOutcome { counts: false, ..InstanceOutcome::held(addr, Outcome::ToBeImported) };
                plan.skipped.extend(endpoints.into_iter().map(|(addr, _)| waits(addr)));
            }
            RecordDecision::Endpoints(origin, endpoints) => {
                if endpoints.iter().any(|(addr, _)| input.trust.pods.contains_key(&addr.ip())) {
                    plan.state.shadows.insert(key.clone(), record.written());
                }
                found.add(input, origin, endpoints);
            }
            RecordDecision::Shadowed => {
                let of_pod = |addr: InstanceAddr| {
                    let named = input.pods_of_others.contains(&(addr.ip(), addr.port()));
                    named || input.trust.pods.contains_key(&addr.ip())
                };
                if record.endpoint_addresses().any(of_pod) || is_shadow(input, key, record) {
                    plan.state.shadows.insert(key.clone(), record.written());
                }
            }
            RecordDecision::Skip(reason, instance) => {
                if reason == Reason::FormerEndpoint {
                    plan.state.shadows.insert(key.clone(), record.written());
                }
                let shown = instance.unwrap_or_else(|| key.to_string());
                plan.skipped.push(InstanceOutcome::skipped(shown.chars().take(MAX_SHOWN).collect(), reason));
            }
            RecordDecision::Ours => {
                if heal::is_healed_by_us(input, record) {
                    healed.insert(key.clone(), record);
                }
            }
        }
    }
    found.enter(input, &mut plan);
    let mut departed = departed::decide(input, &plan, &healed);
    let healing = heal::heal(input, &departed, &healed);
    plan.ops = healing.ops;
    departed.healed = healing.addresses;
    plan.state.doubted = Some(doubted);
    finish(input, &mut plan, &departed);
    (plan, departed)
}

/// Enters the endpoints that stay without a record, and the state for the next plan.
fn finish(input: &Input<'_>, plan: &mut Plan, departed: &Departed) {
    plan.probe.extend(&departed.probe);
    plan.guard = departed.guard.clone();
    plan.endpoints.extend(departed.endpoints(input));
    plan.state.judging_since = input.judging_since();
    plan.state.departing.clone_from(&departed.kept);
    plan.state.guard = departed.guard_state.clone();
    plan.requeue_at = earlier(plan.requeue_at, earlier(departed.requeue_at, plan.guard.requeue_at));
}

/// The addresses of all records.
fn registered(input: &Input<'_>) -> BTreeSet<InstanceAddr> {
    input.records.values().flat_map(|record| record.endpoint_addresses()).collect()
}

/// The outcome of each endpoint.
fn outcomes(
    input: &Input<'_>,
    plan: &Plan,
    departed: &Departed,
    is_registered: impl Fn(&InstanceAddr) -> bool,
) -> Vec<InstanceOutcome> {
    let outcome = |(addr, imported): (&InstanceAddr, &Imported)| {
        let lost = imported.lost_until.filter(|until| *until > input.now);
        let outcome = match (is_registered(addr), lost) {
            (true, Some(until)) if departed.healed.contains(addr) => Outcome::Healed { until },
            (false, Some(until)) if departed.healed.contains(addr) => Outcome::ToBeHealed { until },
            (_, Some(until)) => Outcome::Lost { until },
            (false, None) => Outcome::EndpointWithoutRecord,
            (true, None) if input.present.contains_key(addr) => Outcome::Imported,
            (true, None) => Outcome::ToBeImported,
        };
        InstanceOutcome { held: departed.waits(addr), ..InstanceOutcome::of(*addr, outcome) }
    };
    plan.endpoints.iter().map(outcome).collect()
}

enum RecordDecision {
    Endpoints(Origin, Vec<(InstanceAddr, Imported)>),
    /// The pod may have died before this process looked; with the time at which the doubt ends.
    Doubted(Vec<(InstanceAddr, Imported)>, Option<Timestamp>),
    /// The cluster has this endpoint already, from a controller that knows its readiness.
    Shadowed,
    /// We exported the record: importing it would keep it alive for ever. Or we put it back: [`departed`] decides about
    /// a lost registration.
    Ours,
    Skip(Reason, Option<String>),
}

fn decide(input: &Input<'_>, record: &Record) -> RecordDecision {
    let origin = match record.kind(&input.owner.cluster_id) {
        Kind::Own(_) => return RecordDecision::Ours,
        Kind::Healed(owner) if owner == input.owner || input.to_adopt.contains(&record.key) => {
            return RecordDecision::Ours;
        }
        Kind::Undecodable => return RecordDecision::Skip(Reason::Undecodable, None),
        Kind::OtherCluster => match &input.options.other_clusters {
            None => return RecordDecision::Skip(Reason::OtherCluster, shown(record)),
            Some(clusters) if !clusters.include(record) => {
                return RecordDecision::Skip(Reason::ClusterNotNamed, shown(record));
            }
            Some(_) => Origin::OtherCluster,
        },
        Kind::Healed(_) => Origin::Healed,
        Kind::Foreign => Origin::Server,
    };
    let Content::Registered { registration, listeners, .. } = &record.content else {
        return RecordDecision::Skip(Reason::Undecodable, None);
    };
    if listeners.is_empty() {
        return RecordDecision::Skip(Reason::AddressMissing, None);
    }
    if !input.options.tag_selector.matches(|tag| registration.tags.get(tag)) {
        return RecordDecision::Skip(Reason::NotSelected, shown(record));
    }
    let mut endpoints = Vec::new();
    let mut refused = None;
    let mut shadowed = false;
    for (index, scheme) in input.options.schemes.iter().enumerate() {
        for listener in input.layout.format().dialled(listeners, scheme) {
            match listener.addr.and_then(|addr| address(input, record, addr)) {
                Ok(Some(addr)) => endpoints.push((addr, imported(input, registration, index))),
                Ok(None) => shadowed = true,
                Err(reason) => {
                    refused.get_or_insert((reason, listener.text.clone()));
                }
            }
        }
    }
    match refused {
        // An export of another cluster that stands by is let in without a probe.
        _ if !endpoints.is_empty() && origin == Origin::OtherCluster && input.min_local().is_some() => {
            RecordDecision::Endpoints(origin, endpoints)
        }
        _ if !endpoints.is_empty() => match doubted::of(input, record, &endpoints) {
            Doubt::None => RecordDecision::Endpoints(origin, endpoints),
            Doubt::Open { until } => RecordDecision::Doubted(endpoints, until),
            Doubt::Dead => RecordDecision::Skip(Reason::FormerEndpoint, shown(record)),
        },
        Some((reason, text)) => RecordDecision::Skip(reason, Some(text).filter(|text| !text.is_empty())),
        None if shadowed => RecordDecision::Shadowed,
        None => RecordDecision::Skip(Reason::NoSuchScheme, shown(record)),
    }
}

fn imported(input: &Input<'_>, registration: &Registration, index: usize) -> Imported {
    Imported { ports: PortSet::of(index), zone: input.options.zone(registration), lost_until: None }
}

/// The address of an endpoint; `None` if the cluster has the endpoint already.
fn address(input: &Input<'_>, record: &Record, addr: InstanceAddr) -> Result<Option<InstanceAddr>, Reason> {
    if input.managed_by_others.contains(&(addr.ip(), addr.port())) {
        return Ok(None);
    }
    if !input.families.contains(&addr.family()) {
        return Err(Reason::FamilyNotServed);
    }
    let is_pod = input.trust.pods.contains_key(&addr.ip());
    if !is_pod && is_shadow(input, &record.key, record) {
        return Err(Reason::FormerEndpoint);
    }
    match input.trust.refusal(addr.ip()) {
        Some(reason) => Err(reason),
        None => Ok(Some(addr)),
    }
}

/// Whether the record stood for a pod, and is unchanged since.
fn is_shadow(input: &Input<'_>, key: &RecordKey, record: &Record) -> bool {
    input.state.shadows.get(key) == Some(&record.written())
}

fn shown(record: &Record) -> Option<String> {
    record.listeners().first().map(|listener| listener.text.clone()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod takeover_tests;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
