//! Export: ready endpoints of the cluster become own records in the registry.
//!
//! Owns which endpoints have an own record, and the compare-and-swap operations that lead there. Refuses to touch any
//! record that this cluster does not own, and to know slices, leases or batches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{
    Content, Instance, InstanceAddr, Kind, LeaseId, Mark, Owner, Reason, Record, RecordKey, Registration, RegistryName,
    Skipped,
};
use crate::plan::departures::Departures;
use crate::plan::guard::{self, Around, Guard, Limits, Ruling, Unexplained};
use crate::plan::{RecordOp, earlier};

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub layout: &'a Layout,
    pub owner: &'a Owner,
    /// `None` withdraws everything.
    pub name: Option<&'a RegistryName>,
    /// Endpoints of slices that Twinspan does not manage, ready and not terminating, at the chosen ports, as they should
    /// appear in the registry.
    pub instances: &'a [Instance],
    /// Every record under the name, whosever it is.
    pub records: &'a BTreeMap<RecordKey, &'a Record>,
    /// This owner's records under other names: the name was changed.
    pub elsewhere: &'a BTreeMap<RecordKey, &'a Record>,
    /// Addresses that other RegisteredServices want to export under the name.
    pub claims: &'a BTreeMap<InstanceAddr, Claim>,
    /// Records of this owner that another RegisteredService takes over: own ones under other names, and healed ones.
    pub inherited: &'a BTreeSet<RecordKey>,
    pub departures: &'a Departures,
    /// What showed that endpoints ended since the last plan.
    pub seen: Seen<'a>,
    pub limits: Limits,
    pub around: Around<'a>,
    pub memory: &'a Memory,
    pub now: Timestamp,
}

/// What shows that an endpoint ended, where one is no longer there.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// The RegisteredService was changed: whatever goes is meant to go.
    Asked,
    /// Watch events, but for these addresses: nobody saw their pods end, so whoever took them out of a slice did not either.
    Watched { unseen: &'a BTreeSet<IpAddr> },
    /// A list that does not name them, which shows nothing.
    Listed,
}

/// Another RegisteredService wants to export the same address under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is older than we are, so it has the address.
    Older,
    /// It is younger, so it waits.
    Younger,
}

/// What one plan tells the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Own records whose endpoint is not there, and nothing shows that it ended: since when.
    pub departing: BTreeMap<InstanceAddr, Timestamp>,
    pub guard: Guard,
}

/// What to write, and what status says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Creates, then updates, then deletes; each in key order.
    pub ops: Vec<RecordOp>,
    /// Own records once the plan is applied.
    pub exported: usize,
    /// Ready endpoints that wait because their own server's record left.
    pub waiting: usize,
    /// Own records whose endpoint is not there.
    pub ruling: Ruling,
    pub skipped: Vec<Skipped>,
    pub memory: Memory,
    pub look_again: Option<Timestamp>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let registered = registered_by_others(input);
    let desired = desired(input, &registered, &mut plan);
    plan.exported = desired.len();

    let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for (key, (instance, says)) in &desired {
        let value = || input.layout.encode(says);
        match input.records.get(key) {
            None => creates.push(RecordOp::Create { key: key.clone(), value: value() }),
            // Another owner's record that is ours to have changes hands in this one update. An own record without a lease
            // would outlive everything; writing it again gives it one.
            Some(record) if record.lease == LeaseId::NONE || !is_said(input, record, says) => {
                let (seen, lease) = (record.mod_revision, record.lease);
                updates.push(RecordOp::Update { key: key.clone(), value: value(), seen, lease });
            }
            Some(_) => {}
        }
        deletes.extend(taken_over(input, key, instance));
    }
    let (mut at_once, unproven) = superfluous(input, &registered, &desired);
    rule(input, &mut plan, &unproven, desired.is_empty());
    at_once.extend(unproven.into_iter().filter(|(addr, _)| plan.ruling.goes.contains(addr)).map(|(_, record)| record));
    deletes.extend(at_once.into_iter().map(delete));
    deletes.sort_by(|a, b| a.key().cmp(b.key()));
    deletes.dedup();
    // Put before withdraw: a client that reads in between never finds fewer instances than there are.
    plan.ops = creates;
    plan.ops.append(&mut updates);
    plan.ops.append(&mut deletes);
    plan
}

fn delete(record: &Record) -> RecordOp {
    RecordOp::Delete { key: record.key.clone(), seen: record.mod_revision, lease: record.lease }
}

/// Whether the record already says what would be written. Decoded values are compared, never bytes: Go and Rust escape
/// differently.
fn is_said(input: &Input<'_>, record: &Record, says: &Registration) -> bool {
    match &record.content {
        Content::Registered { registration, mark: Mark::Owned(owner), .. } => {
            owner == input.owner && registration == says
        }
        _ => false,
    }
}

/// Where keys name their owner, a change of hands is a new key beside the old one: both are in one batch.
fn taken_over<'a>(
    input: &'a Input<'_>,
    key: &'a RecordKey,
    instance: &'a Instance,
) -> impl Iterator<Item = RecordOp> + 'a {
    input.records.iter().filter_map(move |(other, record)| {
        let owner = record.own(&input.owner.cluster_id)?;
        let same = record.addrs().any(|addr| instance.addrs().any(|ours| ours == addr));
        (owner != input.owner && other != key && same).then(|| delete(record))
    })
}

/// Own records that are not desired: those that go at once, and by address those of which nothing shows that their endpoint ended.
fn superfluous<'a>(
    input: &Input<'a>,
    registered: &Registered,
    desired: &Desired<'_>,
) -> (Vec<&'a Record>, BTreeMap<InstanceAddr, &'a Record>) {
    let (mut at_once, mut unproven) = (Vec::new(), BTreeMap::new());
    for (key, record) in input.records.iter().chain(input.elsewhere) {
        let here = input.name.is_some() && input.records.contains_key(key);
        let ours = match record.kind(&input.owner.cluster_id) {
            Kind::Own(owner) => owner == input.owner,
            // Under the name in force they are the import's.
            Kind::Healed(owner) => owner == input.owner && !here,
            _ => false,
        };
        if !ours || desired.contains_key(key) || passes_on(input, registered, record) {
            continue;
        }
        let registered = record.addrs().any(|addr| registered.contains(&(addr.ip(), addr.port())));
        // A key that we would not use any more stands for an instance that has another one.
        let renamed = desired.values().any(|(instance, _)| instance.addrs().any(|a| record.addrs().any(|b| a == b)));
        let first = record.addrs().next();
        match first {
            Some(addr) if here && !registered && !renamed && !is_evident(input, addr) => {
                unproven.insert(addr, *record);
            }
            _ => at_once.push(*record),
        }
    }
    (at_once, unproven)
}

/// What was not evident once does not become it because something else is.
fn is_evident(input: &Input<'_>, addr: InstanceAddr) -> bool {
    let seen = match input.seen {
        Seen::Asked => true,
        Seen::Watched { unseen } => !unseen.contains(&addr.ip()),
        Seen::Listed => false,
    };
    seen && !input.memory.departing.contains_key(&addr)
}

fn rule(input: &Input<'_>, plan: &mut Plan, unproven: &BTreeMap<InstanceAddr, &Record>, nothing_desired: bool) {
    let since = |addr: &InstanceAddr| input.memory.departing.get(addr).copied().unwrap_or(input.now);
    let unexplained: BTreeMap<InstanceAddr, Unexplained> =
        unproven.keys().map(|addr| (*addr, Unexplained { since: since(addr), rollback: false })).collect();
    let mut guard = input.memory.guard.clone();
    let foreign = input.records.values().any(|record| matches!(record.kind(&input.owner.cluster_id), Kind::Foreign));
    plan.ruling = guard.rule(&guard::Case {
        unexplained: &unexplained,
        known: plan.exported + unexplained.len(),
        would_be_empty: nothing_desired && !foreign,
        limits: input.limits,
        around: input.around,
        now: input.now,
    });
    plan.look_again = earlier(plan.look_again, plan.ruling.look_again);
    plan.memory.departing = unexplained.into_iter().map(|(addr, unexplained)| (addr, unexplained.since)).collect();
    plan.memory.guard = guard;
}

/// Another RegisteredService takes this record of ours over, in one update: deleting it first would leave a gap.
fn passes_on(input: &Input<'_>, registered: &Registered, record: &Record) -> bool {
    let is_registered = record.addrs().any(|addr| registered.contains(&(addr.ip(), addr.port())));
    let claimed =
        input.records.contains_key(&record.key) && record.addrs().any(|addr| input.claims.contains_key(&addr));
    input.inherited.contains(&record.key) || (claimed && !is_registered)
}

type Desired<'a> = BTreeMap<RecordKey, (&'a Instance, Registration)>;

fn desired<'a>(input: &Input<'a>, registered: &Registered, plan: &mut Plan) -> Desired<'a> {
    let mut desired = BTreeMap::new();
    let Some(name) = input.name else { return desired };
    for instance in input.instances {
        if instance.addrs().any(|addr| registered.contains(&(addr.ip(), addr.port()))) {
            // The pod registered itself: a second record would double its traffic.
            continue;
        }
        let skipped = || Skipped { instance: instance.addr.to_string(), reason: Reason::Conflict };
        if instance.addrs().any(|addr| input.claims.get(&addr) == Some(&Claim::Older)) {
            plan.skipped.push(skipped());
            continue;
        }
        let key = input.layout.key(name, input.owner, instance);
        match input.records.get(&key).map(|r| r.kind(&input.owner.cluster_id)) {
            None => {
                let mut waits = instance.addrs().filter_map(|a| input.departures.get(&a)?.holds_export(input.now));
                if let Some(until) = waits.next() {
                    plan.waiting += 1;
                    plan.look_again = earlier(plan.look_again, Some(until));
                    continue;
                }
            }
            Some(Kind::Own(_)) => {}
            // Something that is not ours, or that we cannot read, under the key that we would use.
            Some(_) => {
                plan.skipped.push(skipped());
                continue;
            }
        }
        desired.insert(key, (instance, input.layout.registration(name, input.owner, instance)));
    }
    desired
}

type Registered = BTreeSet<(IpAddr, u16)>;

/// The address *values* under the name that a client would dial without us, whatever their keys and forms.
fn registered_by_others(input: &Input<'_>) -> Registered {
    let others = input.records.values().filter(|record| match record.kind(&input.owner.cluster_id) {
        Kind::Own(_) | Kind::Undecodable => false,
        Kind::OtherCluster | Kind::Healed(_) | Kind::Foreign => true,
    });
    others.flat_map(|record| record.dialled()).collect()
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
