//! The numbers of a share, read from records, and the instances with the weights that follow.
//!
//! Owns which records count on which side: own ones of the RegisteredService that are there after the plan, and those
//! of others that clients may call. Records of siblings count on neither side: each has a share of its own, or none.
//! The weights that stand are read from the records themselves, so a restart knows them. Refuses to compute weights,
//! which [`super::share`] does.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Input, Plan, Share};
use super::share::{Others, Part, ShareLimit, weigh};
use super::writers::{Writer, Writers};
use crate::model::{Content, Instance, InstanceAddr, Outcome, Record, RecordKey};
use crate::plan::RecordOp;

/// The instances with the weights of the share, and what these do not reach. `None` where weights are as configured:
/// nobody else is registered, or nothing is exported.
pub(super) fn shared(
    input: &Input<'_>,
    share: &Share<'_>,
    writers: &Writers<'_>,
    plan: &Plan,
) -> Option<(Vec<Instance>, Option<ShareLimit>)> {
    let exported = exported(plan);
    let mut instances: Vec<Instance> = input.instances.to_vec();
    let mut weighed: Vec<(&mut Instance, Option<&RecordKey>)> = instances
        .iter_mut()
        .filter_map(|instance| {
            let key = exported.get(&instance.addr)?;
            Some((instance, *key))
        })
        .collect();
    let weight = |record: &Record| weight(input, record);
    let part = |(instance, key): &(&mut Instance, Option<&RecordKey>)| Part {
        configured: instance.weight,
        written: key.and_then(|key| weight(input.records.get(key)?)),
    };
    let parts: Vec<Part> = weighed.iter().map(part).collect();

    let changed = |wanted: fn(&RecordOp) -> bool| -> BTreeSet<&RecordKey> {
        plan.ops.iter().filter(|op| wanted(op)).map(RecordOp::key).collect()
    };
    let deleted = changed(|op| matches!(op, RecordOp::Delete { .. }));
    let written = changed(|op| !matches!(op, RecordOp::Delete { .. }));
    let keys: BTreeSet<&RecordKey> = exported.values().copied().flatten().collect();
    let stay = writers.by(|writer| writer == Writer::Us);
    let stay = stay.filter(|record| !keys.contains(&record.key) && !deleted.contains(&record.key));
    let held = stay.filter_map(weight).fold(0, i64::saturating_add);
    let mut others = Others::default();
    for record in writers.by(is_other).filter(|record| is_called(share, record)) {
        // One that was put back for a server may become an export.
        let goes = deleted.contains(&record.key) || written.contains(&record.key);
        if let Some(weight) = weight(record).filter(|_| !goes) {
            others.records = others.records.saturating_add(1);
            others.weight += i128::from(weight);
        }
    }
    let found = weigh(share.percent, &parts, held, others)?;
    for ((instance, _), weight) in weighed.iter_mut().zip(found.weights) {
        instance.weight = weight;
    }
    Some((instances, found.limit))
}

/// The addresses that name instances which have a record after the plan, each with the key of the one that is there.
fn exported(plan: &Plan) -> BTreeMap<InstanceAddr, Option<&RecordKey>> {
    let counted = plan.instances.iter().filter(|instance| instance.counts);
    let exported = counted.filter_map(|instance| {
        let key = match &instance.outcome {
            Outcome::Exported { key } => Some(key),
            Outcome::ToBeExported => None,
            _ => return None,
        };
        Some((instance.subject.address()?, key))
    });
    exported.collect()
}

/// Whether somebody else wrote the record, or it stands for a server that did.
fn is_other(writer: Writer) -> bool {
    match writer {
        Writer::HealedByUs | Writer::HealedBySibling | Writer::Other => true,
        Writer::Us | Writer::Sibling => false,
    }
}

/// Whether the record has an address that may be called: neither its form nor trust refuses it. Anybody could push the
/// exported instances aside with a heavy record that leads nowhere.
fn is_called(share: &Share<'_>, record: &Record) -> bool {
    let mut addresses = record.tcp_listeners().iter().filter_map(|listener| listener.addr.ok());
    addresses.any(|addr| share.trust.refusal(addr.ip()).is_none())
}

/// The weight that clients give the record.
fn weight(input: &Input<'_>, record: &Record) -> Option<i64> {
    match &record.content {
        Content::Registered { registration, .. } => input.layout.format().weight(registration),
        Content::Undecodable { .. } => None,
    }
}
