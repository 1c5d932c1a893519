//! Export: ready endpoints of the cluster become own records in the registry.
//!
//! Owns which endpoints have an own record, and the compare-and-swap operations that lead there. Refuses to touch any
//! record that this RegisteredService does not own, and to know slices, leases or batches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{
    Content, Instance, InstanceAddr, Kind, LeaseId, Owner, Reason, Record, RecordKey, RegistryName, Skipped, Tags,
    named_address,
};
use crate::plan::departures::Departures;
use crate::plan::{RecordOp, earlier};

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub layout: &'a Layout,
    pub owner: &'a Owner,
    pub name: &'a RegistryName,
    /// Endpoints of slices that Twinspan does not manage, ready and not terminating, at the chosen port.
    pub endpoints: &'a BTreeSet<InstanceAddr>,
    /// Every record under the name, whosever it is.
    pub records: &'a BTreeMap<RecordKey, &'a Record>,
    /// This owner's records under other names: the name was changed.
    pub elsewhere: &'a BTreeMap<RecordKey, &'a Record>,
    pub departures: &'a Departures,
    /// 1 to 10,000.
    pub weight: i64,
    pub tags: &'a Tags,
    pub now: Timestamp,
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
    let desired = desired(input, &mut plan);
    plan.exported = desired.len();

    let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for (key, instance) in &desired {
        let value = || input.layout.encode(instance, input.owner);
        match input.records.get(key) {
            None => creates.push(RecordOp::Create { key: key.clone(), value: value() }),
            // An own record without a lease would outlive everything; writing it again gives it one.
            Some(record) if record.lease == LeaseId::NONE || !input.layout.says(record, instance, input.owner) => {
                updates.push(RecordOp::Update {
                    key: key.clone(),
                    value: value(),
                    seen: record.mod_revision,
                    lease: record.lease,
                });
            }
            Some(_) => {}
        }
    }
    let ours = |record: &Record| record.own(&input.owner.cluster_id) == Some(input.owner);
    for (key, record) in input.records.iter().chain(input.elsewhere) {
        if ours(record) && !desired.contains_key(key) {
            deletes.push(RecordOp::Delete { key: key.clone(), seen: record.mod_revision, lease: record.lease });
        }
    }
    // Put before withdraw: a client that reads in between never finds fewer instances than there are.
    plan.ops = creates;
    plan.ops.append(&mut updates);
    plan.ops.append(&mut deletes);
    plan
}

fn desired(input: &Input<'_>, plan: &mut Plan) -> BTreeMap<RecordKey, Instance> {
    let registered = registered_by_others(input);
    let mut desired = BTreeMap::new();
    for &addr in input.endpoints {
        if registered.contains(&(addr.ip(), addr.port())) {
            // The pod registered itself: a second record would double its traffic.
            continue;
        }
        let key = input.layout.key(input.name, addr);
        match input.records.get(&key).map(|r| (r.kind(&input.owner.cluster_id), r)) {
            None => {
                if let Some(until) = input.departures.get(&addr).and_then(|d| d.holds_export(input.now)) {
                    plan.held += 1;
                    plan.look_again = earlier(plan.look_again, Some(until));
                    continue;
                }
            }
            Some((Kind::Own(owner), _)) if owner == input.owner => {}
            // Another RegisteredService's, or something that we cannot read, under the key that we would use.
            Some(_) => {
                plan.skipped.push(Skipped { instance: addr.to_string(), reason: Reason::Conflict });
                continue;
            }
        }
        desired.insert(key, Instance { addr, weight: input.weight, tags: input.tags.clone() });
    }
    desired
}

/// The address *values* under the name that a client would dial without us, whatever their keys and forms.
fn registered_by_others(input: &Input<'_>) -> BTreeSet<(IpAddr, u16)> {
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
