//! Export: ready endpoints of the cluster become own records in the registry.
//!
//! Owns which endpoints have an own record, and the compare-and-swap operations that lead there. Refuses to touch any
//! record that this RegisteredService does not own, and to know slices, leases or batches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{
    Content, Instance, InstanceAddr, Kind, LeaseId, Owner, Reason, Record, RecordKey, RegistryName, Skipped,
    named_address,
};
use crate::plan::departures::Departures;
use crate::plan::{RecordOp, earlier};

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub layout: &'a Layout,
    pub owner: &'a Owner,
    /// `None` withdraws everything.
    pub name: Option<&'a RegistryName>,
    /// Endpoints of slices that Twinspan does not manage, ready and not terminating, at the chosen port, as they should
    /// appear in the registry.
    pub endpoints: &'a BTreeMap<InstanceAddr, Instance>,
    /// Every record under the name, whosever it is.
    pub records: &'a BTreeMap<RecordKey, &'a Record>,
    /// This owner's records under other names: the name was changed.
    pub elsewhere: &'a BTreeMap<RecordKey, &'a Record>,
    /// Keys that other RegisteredServices want in this registry.
    pub claims: &'a BTreeMap<RecordKey, Claim>,
    pub departures: &'a Departures,
    pub now: Timestamp,
}

/// Another RegisteredService wants to export the same address under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is older than we are, so it has the address.
    Older,
    /// It is younger, so it waits.
    Younger,
}

/// What to write, and what status says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Creates, then updates, then deletes; each in key order.
    pub ops: Vec<RecordOp>,
    /// Own records once the plan is applied.
    pub exported: usize,
    /// Ready endpoints that wait because their own server's record left.
    pub held: usize,
    pub skipped: Vec<Skipped>,
    pub look_again: Option<Timestamp>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let registered = registered_by_others(input);
    let desired = desired(input, &registered, &mut plan);
    plan.exported = desired.len();

    let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for (key, instance) in &desired {
        let value = || input.layout.encode(instance, input.owner);
        match input.records.get(key) {
            None => creates.push(RecordOp::Create { key: key.clone(), value: value() }),
            // Another owner's record that is ours to have changes hands in this one update. An own record without a lease
            // would outlive everything; writing it again gives it one.
            Some(record) if record.lease == LeaseId::NONE || !input.layout.says(record, instance, input.owner) => {
                let (seen, lease) = (record.mod_revision, record.lease);
                updates.push(RecordOp::Update { key: key.clone(), value: value(), seen, lease });
            }
            Some(_) => {}
        }
    }
    for (key, record) in input.records.iter().chain(input.elsewhere) {
        let ours = record.own(&input.owner.cluster_id) == Some(input.owner);
        if ours && !desired.contains_key(key) && !passes_on(input, &registered, key, record) {
            deletes.push(RecordOp::Delete { key: key.clone(), seen: record.mod_revision, lease: record.lease });
        }
    }
    // Put before withdraw: a client that reads in between never finds fewer instances than there are.
    plan.ops = creates;
    plan.ops.append(&mut updates);
    plan.ops.append(&mut deletes);
    plan
}

/// Another RegisteredService takes this record of ours over, in one update: deleting it first would leave a gap.
fn passes_on(input: &Input<'_>, registered: &Registered, key: &RecordKey, record: &Record) -> bool {
    let is_registered = record.addr().is_some_and(|addr| registered.contains(&(addr.ip(), addr.port())));
    input.claims.contains_key(key) && !is_registered
}

fn desired(input: &Input<'_>, registered: &Registered, plan: &mut Plan) -> BTreeMap<RecordKey, Instance> {
    let mut desired = BTreeMap::new();
    let Some(name) = input.name else { return desired };
    for (&addr, instance) in input.endpoints {
        if registered.contains(&(addr.ip(), addr.port())) {
            // The pod registered itself: a second record would double its traffic.
            continue;
        }
        let key = input.layout.key(name, addr);
        if input.claims.get(&key) == Some(&Claim::Older) {
            plan.skipped.push(Skipped { instance: addr.to_string(), reason: Reason::Conflict });
            continue;
        }
        match input.records.get(&key).map(|r| r.kind(&input.owner.cluster_id)) {
            None => {
                if let Some(until) = input.departures.get(&addr).and_then(|d| d.holds_export(input.now)) {
                    plan.held += 1;
                    plan.look_again = earlier(plan.look_again, Some(until));
                    continue;
                }
            }
            Some(Kind::Own(_)) => {}
            // Something that is not ours, or that we cannot read, under the key that we would use.
            Some(_) => {
                plan.skipped.push(Skipped { instance: addr.to_string(), reason: Reason::Conflict });
                continue;
            }
        }
        desired.insert(key, instance.clone());
    }
    desired
}

type Registered = BTreeSet<(IpAddr, u16)>;

/// The address *values* under the name that a client would dial without us, whatever their keys and forms.
fn registered_by_others(input: &Input<'_>) -> Registered {
    input
        .records
        .values()
        .filter(|record| !matches!(record.kind(&input.owner.cluster_id), Kind::Own(_) | Kind::Undecodable))
        .filter_map(|record| match &record.content {
            Content::Registered { registration, .. } if registration.is_tcp() => named_address(&registration.address),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
