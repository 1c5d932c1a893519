//! Keep: what becomes of imported endpoints whose record is gone.
//!
//! Owns which endpoints are in question, the step from evidence to judgement to the guard's ruling for all of them together, and the
//! healed records that stand for lost registrations. One endpoint's judgement is [`super::departures`], the limits are
//! [`super::guard`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Timestamp;
use crate::model::{Content, InstanceAddr, Kind, LeaseId, Mark, PortSet, Record, RecordKey};
use crate::plan::departures::{self, Evidence, Judgement, OnExpiry};
use crate::plan::guard::{self, Unexplained};
use crate::plan::import::{Imported, Input, Plan, zone};
use crate::plan::{RecordOp, earlier};

/// An endpoint that stays although its record is gone, as one plan tells the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departing {
    pub evidence: Evidence,
    pub at: Timestamp,
    /// What is no longer there; `None` where nobody saw it.
    pub record: Option<Arc<Record>>,
    pub lost_until: Option<Timestamp>,
}

/// The largest record that is put back, key and value, in bytes. A registration has hundreds; what is much larger is no server's, and
/// whoever may write to the registry must not have us write megabytes, which etcd would refuse along with everything in the same request.
const MAX_HEALED: usize = 64 * 1024;

/// Adds to the plan what stays, and the operations on healed records.
pub fn keep(input: &Input<'_>, plan: &mut Plan) {
    let healed = healed_by_us(input);
    let in_question = in_question(input, plan, &healed);
    let last = plan.endpoints.is_empty() && !input.others_ready;
    let mut unexplained = BTreeMap::new();
    let mut kept = BTreeMap::new();
    for (addr, departing) in in_question {
        let case = departures::Case {
            evidence: departing.evidence,
            at: departing.at,
            on_expiry: input.options.on_expiry,
            keepable: keepable(input, addr, &departing),
            last,
            probe: input.probes.get(&addr).copied(),
            lost_until: departing.lost_until,
            keep_lost: input.options.keep_lost,
            now: input.now,
        };
        match departures::judge(&case) {
            Judgement::Gone => continue,
            Judgement::Waiting { probe, look_again } => {
                plan.waiting += 1;
                plan.look_again = earlier(plan.look_again, look_again);
                if probe {
                    plan.probe.insert(addr);
                }
                kept.insert(addr, departing);
            }
            Judgement::Lost { until } => {
                plan.lost.insert(addr);
                plan.probe.insert(addr);
                plan.look_again = earlier(plan.look_again, Some(until));
                kept.insert(addr, Departing { lost_until: Some(until), ..departing });
            }
            Judgement::Unexplained { since, probe } => {
                if probe {
                    plan.probe.insert(addr);
                }
                let rollback = departing.evidence == Evidence::RolledBack;
                unexplained.insert(addr, Unexplained { since, rollback });
                kept.insert(addr, departing);
            }
        }
    }
    let mut guard = input.memory.guard.clone();
    plan.ruling = guard.rule(&guard::Case {
        known: plan.endpoints.len() + kept.len(),
        would_be_empty: plan.endpoints.is_empty() && unexplained.len() == kept.len() && !input.others_ready,
        unexplained: &unexplained,
        limits: input.limits,
        around: input.around,
        now: input.now,
    });
    plan.waiting += plan.ruling.stays.len();
    kept.retain(|addr, _| !plan.ruling.goes.contains(addr));
    heal(input, plan, &kept, &healed);
    for (addr, departing) in &kept {
        plan.endpoints.insert(*addr, imported(input, *addr, departing));
    }
    plan.memory.departing = kept;
    plan.memory.guard = guard;
}

/// Records that stand for registrations which we put back.
fn healed_by_us<'a>(input: &Input<'a>) -> BTreeMap<RecordKey, &'a Record> {
    let ours = |record: &&Record| match record.kind(&input.owner.cluster_id) {
        Kind::Healed(owner) => owner == input.owner || input.inherited.contains(&record.key),
        _ => false,
    };
    input.records.iter().filter(|(_, record)| ours(record)).map(|(key, record)| (key.clone(), *record)).collect()
}

/// Every endpoint that no record is behind, with what is known of how its record went.
fn in_question(
    input: &Input<'_>,
    plan: &Plan,
    healed: &BTreeMap<RecordKey, &Record>,
) -> BTreeMap<InstanceAddr, Departing> {
    let mut found = BTreeMap::new();
    // Somebody speaks for these: a record that is not imported, for whatever reason, is a reason and no departure.
    let spoken_for: BTreeSet<InstanceAddr> = input
        .records
        .iter()
        .filter(|(key, record)| {
            !healed.contains_key(*key) && !matches!(record.kind(&input.owner.cluster_id), Kind::Own(_))
        })
        .flat_map(|(_, record)| record.addrs())
        .collect();
    let wanted = |addr: &InstanceAddr| plan.endpoints.contains_key(addr) || spoken_for.contains(addr);
    for record in healed.values() {
        for addr in record.addrs().filter(|addr| !wanted(addr)) {
            let before = input.memory.departing.get(&addr);
            let departing = Departing {
                evidence: Evidence::Expired,
                at: before.map_or(input.now, |before| before.at),
                record: before.and_then(|before| before.record.clone()).or_else(|| Some(Arc::new((*record).clone()))),
                lost_until: lost_until(input, addr),
            };
            found.insert(addr, departing);
        }
    }
    let empty = BTreeSet::new();
    let known = input.memory.known.as_ref().unwrap_or(&empty);
    let all: BTreeSet<InstanceAddr> =
        input.present.keys().chain(known).chain(input.memory.departing.keys()).copied().collect();
    for addr in all {
        if !wanted(&addr)
            && !found.contains_key(&addr)
            && let Some(departing) = departing(input, addr)
        {
            found.insert(addr, departing);
        }
    }
    let managed = |addr: &InstanceAddr| input.managed_by_others.contains(&(addr.ip(), addr.port()));
    // What is kept is still subject to trust: a pod that moved in at the address ends every hold.
    found.retain(|addr, _| !managed(addr) && input.trust.refusal(addr.ip()).is_none());
    found
}

/// How the record of one endpoint went, where anything is known of it. Where nothing is, the endpoint is not wanted any more (the
/// record changed, the RegisteredService did, or somebody else wrote into our slice), and that is reason enough.
fn departing(input: &Input<'_>, addr: InstanceAddr) -> Option<Departing> {
    let before = input.memory.departing.get(&addr);
    let seen = input.departures.get(&addr).filter(|seen| {
        // What was judged already is not news, unless its evidence has come meanwhile.
        before.is_none_or(|before| before.at != seen.at || before.evidence != seen.evidence)
    });
    let was_ours =
        input.present.contains_key(&addr) || input.memory.known.as_ref().is_some_and(|known| known.contains(&addr));
    match (seen, before) {
        (Some(seen), _) if was_ours => Some(Departing {
            evidence: seen.evidence,
            at: seen.at,
            record: seen.record.clone(),
            lost_until: lost_until(input, addr),
        }),
        (_, Some(before)) => Some(Departing { lost_until: lost_until(input, addr), ..before.clone() }),
        (_, None) => {
            let orphan = input.memory.known.is_none() && input.present.get(&addr).is_some_and(|p| p.from_here);
            let evidence = if input.began_rolled_back { Evidence::RolledBack } else { Evidence::Orphaned };
            orphan.then(|| Departing { evidence, at: input.now, record: None, lost_until: lost_until(input, addr) })
        }
    }
}

fn lost_until(input: &Input<'_>, addr: InstanceAddr) -> Option<Timestamp> {
    let remembered = input.memory.departing.get(&addr).and_then(|before| before.lost_until);
    remembered.or_else(|| input.present.get(&addr).and_then(|present| present.lost_until))
}

fn keepable(input: &Input<'_>, addr: InstanceAddr, departing: &Departing) -> bool {
    let others = departing.record.as_ref().is_some_and(|record| {
        matches!(&record.content, Content::Registered { mark: Mark::Owned(_) | Mark::Unreadable, .. })
    });
    !others && !input.trust.pods.contains_key(&addr.ip())
}

fn imported(input: &Input<'_>, addr: InstanceAddr, departing: &Departing) -> Imported {
    let present = input.present.get(&addr);
    let mut ports = present.map(|present| present.ports).unwrap_or_default();
    let mut zone_of_record = None;
    if let Some(record) = &departing.record
        && let Content::Registered { registration, listeners, .. } = &record.content
    {
        zone_of_record = zone(input.options, registration);
        for (place, scheme) in input.options.schemes.iter().enumerate() {
            let first = listeners.iter().find(|listener| listener.scheme == *scheme);
            if first.is_some_and(|listener| listener.addr == Ok(addr)) {
                ports.insert(PortSet::of(place));
            }
        }
    }
    let zone = zone_of_record.or_else(|| present.and_then(|present| present.zone.clone()));
    Imported { ports, zone, lost_until: departing.lost_until }
}

/// Puts lost registrations back, and withdraws those whose endpoint ended or registered itself again.
fn heal(
    input: &Input<'_>,
    plan: &mut Plan,
    kept: &BTreeMap<InstanceAddr, Departing>,
    healed: &BTreeMap<RecordKey, &Record>,
) {
    let mut stays: BTreeSet<&RecordKey> = BTreeSet::new();
    if input.options.on_expiry == OnExpiry::Heal && input.layout.format().heals() {
        for (addr, departing) in kept {
            let existing = healed.iter().find(|(_, record)| record.addrs().any(|other| other == *addr));
            if let Some((key, record)) = existing {
                // What waits for the guard keeps what it has, and is put back no more.
                stays.insert(key);
                plan.healed += 1;
                bring_up_to_date(input, plan, record);
            } else if plan.lost.contains(addr)
                && let Some(lost) = &departing.record
                && !input.records.contains_key(&lost.key)
                && let Some(op) = put_back(input, lost)
            {
                if !plan.ops.iter().any(|other| other.key() == op.key()) {
                    plan.ops.push(op);
                }
                plan.healed += 1;
            }
        }
    }
    for (key, record) in healed.iter().filter(|(key, _)| !stays.contains(key)) {
        plan.ops.push(RecordOp::Delete { key: key.clone(), seen: record.mod_revision, lease: record.lease });
    }
}

/// `None` where the record cannot be ours, for it would be read back as somebody else's, or is too large.
fn put_back(input: &Input<'_>, lost: &Record) -> Option<RecordOp> {
    let Content::Registered { registration, .. } = &lost.content else { return None };
    let value = input.layout.encode(&input.layout.healed(registration, input.owner));
    let fits = lost.key.as_bytes().len() + value.len() <= MAX_HEALED && input.layout.may_hold_ours(&lost.key);
    fits.then(|| RecordOp::Create { key: lost.key.clone(), value })
}

/// A healed record that we inherited is marked as ours, in one update; one without a lease would outlive everything.
fn bring_up_to_date(input: &Input<'_>, plan: &mut Plan, record: &Record) {
    let Content::Registered { registration, mark: Mark::Healed(owner), .. } = &record.content else { return };
    let again = plan.ops.iter().any(|op| *op.key() == record.key);
    if !again && (owner != input.owner || record.lease == LeaseId::NONE) {
        let value = input.layout.encode(&input.layout.healed(registration, input.owner));
        let (seen, lease) = (record.mod_revision, record.lease);
        plan.ops.push(RecordOp::Update { key: record.key.clone(), value, seen, lease });
    }
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
