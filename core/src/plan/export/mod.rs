//! Export: ready endpoints of the cluster become own records in the registry.
//!
//! - [`facts`]: the values that the decision rests on, and those that it returns.
//! - [`desired`]: the record of each instance, or the reason why it gets none.
//! - [`registered`]: the records of other writers by address; [`writers`]: the writer of each record.
//! - [`share`]: weights that give the instances a part of the traffic; [`weights`]: the numbers that it rests on.
//!
//! Owns the compare-and-swap operations, and the end of records that no instance needs. Refuses to touch a record that
//! this cluster does not own, and to know slices, leases or batches.

mod desired;
mod facts;
mod registered;
mod share;
mod weights;
mod writers;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use self::desired::{Desired, Write};
use self::registered::Registered;
use crate::Timestamp;
use crate::model::{Instance, InstanceAddr, InstanceOutcome, Kind, Outcome, Record, RecordKey};
use crate::plan::departure::guard::{GuardInput, Unexplained};
use crate::plan::{RecordOp, earlier};

pub use self::facts::{ContestedExport, ExportState, Input, Plan, Proof, Share};
pub use self::share::ShareLimit;
pub use self::writers::{Writer, Writers};

pub fn plan(input: &Input<'_>) -> Plan {
    plan_of(input, &Writers::of(input.records, input.owner))
}

/// The plan, if the writers of the records are known already.
pub fn plan_of(input: &Input<'_>, writers: &Writers<'_>) -> Plan {
    let plan = planned(input, writers);
    // Weights depend on the instances that have a record, and those do not depend on weights.
    let shared = input.share.as_ref().and_then(|share| weights::shared(input, share, writers, &plan));
    match shared {
        Some((instances, share_limit)) => {
            Plan { share_limit, ..planned(&Input { instances: &instances, ..*input }, writers) }
        }
        None => plan,
    }
}

fn planned<'a>(input: &Input<'a>, writers: &Writers<'a>) -> Plan {
    let mut plan = Plan::default();
    let registered = Registered::by_others(writers, input.aliases);
    let desired = desired::desired(input, writers, &registered, &mut plan);

    let of_siblings = of_siblings(writers);
    let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for (key, Write { says, record }) in &desired.writes {
        let value = input.layout.encode(says);
        match record {
            None => creates.push(RecordOp::Create { key: key.clone(), value }),
            Some(record) => {
                let (if_revision, lease) = (record.mod_revision, record.lease);
                updates.push(RecordOp::Update { key: key.clone(), value, if_revision, lease });
            }
        }
    }
    if !of_siblings.is_empty() {
        let keys = desired.instances.iter().map(|(key, instance)| (key, *instance));
        deletes.extend(keys.flat_map(|(key, instance)| replaced_by(&of_siblings, key, instance)));
    }
    let staying = stay(input, &mut plan);
    let (mut at_once, unproven): (Vec<&Record>, Unproven<'_>) =
        superfluous(input, writers, &registered, &desired, &awaited(&plan));
    if let Some(until) = input.grace_until {
        deletes.clear();
        spare(input, &mut plan, &mut at_once, &unproven, until);
    } else {
        ask_guard(input, &mut plan, &unproven, desired.instances.len() + staying);
    }
    let allowed = &plan.guard.allowed;
    at_once.extend(unproven.into_iter().filter(|(addr, _)| allowed.contains(addr)).flat_map(|(_, records)| records));
    deletes.extend(at_once.into_iter().map(delete));
    deletes.sort_by(|a, b| a.key().cmp(b.key()));
    deletes.dedup();
    plan.records = record_outcomes(input, writers, &plan, &desired, &deletes);
    // Creates precede deletes, so that a client that reads in between never finds too few instances.
    plan.ops = creates;
    plan.ops.append(&mut updates);
    plan.ops.append(&mut deletes);
    plan
}

/// Enters the own records that stay as they are. Returns their number.
fn stay(input: &Input<'_>, plan: &mut Plan) -> usize {
    if input.stays.is_none() {
        return 0;
    }
    let own = |record: &&Record| record.own(&input.owner.cluster_id) == Some(input.owner) && stays(input, record);
    let staying: Vec<&Record> = input.records.values().map(AsRef::as_ref).filter(own).collect();
    for record in &staying {
        let exported = |addr| InstanceOutcome::of(addr, Outcome::Exported { key: record.key.clone() });
        let each = record.endpoint_addresses().map(exported).enumerate();
        plan.instances.extend(each.map(|(n, instance)| InstanceOutcome { counts: n == 0, ..instance }));
    }
    staying.len()
}

fn stays(input: &Input<'_>, record: &Record) -> bool {
    let moved = |addr: &InstanceAddr| input.moved.is_some_and(|moved| moved.contains(addr));
    let mut addresses = record.endpoint_addresses();
    input.stays.is_some_and(|stays| addresses.any(|addr| stays.contains(&addr.ip()) && !moved(&addr)))
}

fn delete(record: &Record) -> RecordOp {
    RecordOp::Delete { key: record.key.clone(), if_revision: record.mod_revision, lease: record.lease }
}

/// Records that other RegisteredServices of this cluster own, by their addresses.
type OfSiblings<'a> = BTreeMap<InstanceAddr, Vec<&'a Record>>;

fn of_siblings<'a>(writers: &Writers<'a>) -> OfSiblings<'a> {
    let mut by_address = OfSiblings::new();
    for record in writers.by(|writer| writer == Writer::Sibling) {
        for addr in record.endpoint_addresses() {
            by_address.entry(addr).or_default().push(record);
        }
    }
    by_address
}

/// If keys name their owner, a change of owner is a new key beside the old one: both are in one batch.
fn replaced_by<'a>(
    of_siblings: &'a OfSiblings<'_>,
    key: &'a RecordKey,
    instance: &'a Instance,
) -> impl Iterator<Item = RecordOp> + 'a {
    let same = instance.addresses().filter_map(|addr| of_siblings.get(&addr)).flatten();
    same.filter(move |record| record.key != *key).map(|record| delete(record))
}

/// Records without proof that their endpoint ended, by its address: one owner may have several, under former names.
type Unproven<'a> = BTreeMap<InstanceAddr, Vec<&'a Record>>;

/// Own records that no instance needs: those to delete now, and by address those without proof that their endpoint
/// ended.
fn superfluous<'a>(
    input: &Input<'a>,
    writers: &Writers<'a>,
    registered: &Registered<'_, '_>,
    desired: &Desired<'_>,
    awaited: &BTreeSet<InstanceAddr>,
) -> (Vec<&'a Record>, Unproven<'a>) {
    let (mut at_once, mut unproven) = (Vec::new(), Unproven::new());
    let owner_gone = matches!(input.proof, Proof::OwnerGone { .. });
    let exported = LazyCell::new(|| -> BTreeSet<InstanceAddr> {
        desired.instances.iter().flat_map(|(_, instance)| instance.addresses()).collect()
    });
    for (position, (key, record)) in input.records.iter().chain(input.under_other_names).enumerate() {
        if desired.keeps(position) || writers.is_of_others(position) {
            continue;
        }
        let here = input.name.is_some() && input.records.contains_key(key);
        let ours = match record.kind(&input.owner.cluster_id) {
            Kind::Own(owner) => owner == input.owner,
            Kind::Healed(owner) => owner == input.owner && !(here && input.imports),
            _ => false,
        };
        if !ours || desired.names(key) || stays(input, record) || is_released(input, registered, record) {
            continue;
        }
        let registered = record.endpoint_addresses().any(|addr| registered.at(addr).is_some());
        // The instance of an outdated key has another key now.
        let renamed = record.endpoint_addresses().any(|addr| exported.contains(&addr));
        // A record under another name stays until the one under the name in force is there.
        if !here && record.endpoint_addresses().any(|addr| awaited.contains(&addr)) {
            continue;
        }
        let moved = record.endpoint_addresses().any(|addr| input.moved.is_some_and(|moved| moved.contains(&addr)));
        // A healed record stands for no endpoint of the cluster, so no end of one has to be proven.
        let healed = record.own(&input.owner.cluster_id).is_none();
        let first = record.endpoint_addresses().next();
        match first {
            Some(addr)
                if (here || owner_gone) && !healed && !registered && !renamed && !moved && !is_proven(input, addr) =>
            {
                unproven.entry(addr).or_default().push(record.as_ref());
            }
            _ => at_once.push(record.as_ref()),
        }
    }
    (at_once, unproven)
}

/// Addresses that are exported soon, but are not under the name in force yet.
fn awaited(plan: &Plan) -> BTreeSet<InstanceAddr> {
    let awaited =
        |instance: &&InstanceOutcome| matches!(instance.outcome, Outcome::ToBeExported | Outcome::ExportDelayed { .. });
    plan.instances.iter().filter(awaited).filter_map(|instance| instance.subject.address()).collect()
}

/// An address that already waits for the guard keeps waiting, even if this plan has proof for others.
fn is_proven(input: &Input<'_>, addr: InstanceAddr) -> bool {
    let proven = match input.proof {
        Proof::SpecChange => true,
        Proof::WatchEvent { unseen } => !unseen.contains(&addr.ip()),
        Proof::RelistOnly => false,
        // An endpoint that ended while its record was held does not wait any longer.
        Proof::OwnerGone { ready } => return !ready.contains(&addr),
    };
    proven && !input.state.departing.contains_key(&addr)
}

/// Leaves records alone whose endpoint did not end before our eyes.
fn spare(input: &Input<'_>, plan: &mut Plan, at_once: &mut Vec<&Record>, unproven: &Unproven<'_>, until: Timestamp) {
    let ready: BTreeSet<InstanceAddr> = input.instances.iter().flat_map(Instance::addresses).collect();
    let spared_at_once = |record: &&Record| {
        let addr = record.endpoint_addresses().next();
        let watched = matches!(input.proof, Proof::WatchEvent { .. });
        let here = input.name.is_some() && input.records.contains_key(&record.key);
        !(watched && here && addr.is_some_and(|addr| !ready.contains(&addr) && is_proven(input, addr)))
    };
    let spared: Vec<&Record> = at_once.extract_if(.., |record| spared_at_once(record)).collect();
    let since = |addr: &InstanceAddr| input.state.departing.get(addr).copied().unwrap_or(input.now);
    let waiting = spared.iter().filter_map(|record| record.endpoint_addresses().next()).chain(unproven.keys().copied());
    plan.state.departing = waiting.map(|addr| (addr, since(&addr))).collect();
    plan.state.guard = input.state.guard.clone();
    if !plan.state.departing.is_empty() || !spared.is_empty() {
        plan.requeue_at = earlier(plan.requeue_at, Some(until));
    }
}

fn ask_guard(input: &Input<'_>, plan: &mut Plan, unproven: &Unproven<'_>, desired: usize) {
    let since = |addr: &InstanceAddr| input.state.departing.get(addr).copied().unwrap_or(input.now);
    // Only a list lacks the endpoint, so nobody saw when it went.
    let of =
        |addr: &InstanceAddr| Unexplained { since: since(addr), departed: since(addr), saw: false, rollback: false };
    let unexplained: BTreeMap<InstanceAddr, Unexplained> = unproven.keys().map(|addr| (*addr, of(addr))).collect();
    plan.state.departing = unexplained.iter().map(|(addr, unexplained)| (*addr, unexplained.since)).collect();
    if !input.leads {
        return;
    }
    let mut guard = input.state.guard.clone();
    // A record without an address that a client can dial leaves the service as empty as none.
    let is_foreign = |record: &Record| matches!(record.kind(&input.owner.cluster_id), Kind::Foreign);
    let foreign =
        || input.records.values().any(|record| is_foreign(record) && record.client_addresses().next().is_some());
    plan.guard = guard.decide(&GuardInput {
        unexplained: &unexplained,
        known: desired + unexplained.len(),
        would_be_empty: desired == 0 && !matches!(input.proof, Proof::OwnerGone { .. }) && !foreign(),
        limits: input.limits,
        context: input.context,
        now: input.now,
    });
    plan.requeue_at = earlier(plan.requeue_at, plan.guard.requeue_at);
    plan.state.guard = guard;
}

/// Another RegisteredService adopts this record of ours in one update; deleting it first would leave a gap.
fn is_released(input: &Input<'_>, registered: &Registered<'_, '_>, record: &Record) -> bool {
    let is_registered = record.endpoint_addresses().any(|addr| registered.at(addr).is_some());
    let contested = input.records.contains_key(&record.key)
        && record.endpoint_addresses().any(|addr| input.contested.contains_key(&addr));
    input.to_release.contains(&record.key) || (contested && !is_registered)
}

/// The outcome of each record under the name that this cluster exported and that no instance of ours explains.
fn record_outcomes(
    input: &Input<'_>,
    writers: &Writers<'_>,
    plan: &Plan,
    desired: &Desired<'_>,
    deletes: &[RecordOp],
) -> Vec<InstanceOutcome> {
    let deleted: BTreeSet<&RecordKey> = deletes.iter().map(RecordOp::key).collect();
    let explained = LazyCell::new(|| -> BTreeSet<InstanceAddr> {
        plan.instances.iter().filter_map(|instance| instance.subject.address()).collect()
    });
    let mut outcomes = Vec::new();
    // A record that is kept has the addresses of its instance.
    let others = writers.iter().enumerate().filter(|(position, _)| !desired.keeps(*position));
    for (record, _) in others.map(|(_, seen)| seen).filter(|(_, writer)| writer.exported()) {
        let Some(owner) = record.own(&input.owner.cluster_id) else { continue };
        let key = &record.key;
        for (n, addr) in record.endpoint_addresses().enumerate().filter(|(_, addr)| !explained.contains(addr)) {
            let (outcome, held) = if owner != input.owner {
                (Outcome::ExportedByAnother { owner: Box::new(owner.clone()) }, false)
            } else if deleted.contains(key) {
                (Outcome::ToBeWithdrawn { key: key.clone() }, false)
            } else {
                (Outcome::RecordWithoutEndpoint, plan.guard.held.contains(&addr))
            };
            outcomes.push(InstanceOutcome { held, counts: n == 0, ..InstanceOutcome::of(addr, outcome) });
        }
    }
    outcomes
}

#[cfg(test)]
mod tests;
