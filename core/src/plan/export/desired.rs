//! The records that the instances of an export should have, beside those that are there.
//!
//! Owns the key of each instance, the reason why one gets none, and the record that need not be written again. Refuses
//! to delete anything, which [`super`] decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::{ContestedExport, Input, Plan};
use super::registered::Registered;
use super::writers::{Writer, Writers};
use crate::codec::{Keys, Layout};
use crate::model::{
    Content, Instance, InstanceAddr, InstanceOutcome, Kind, LeaseId, MAX_VALUE, Outcome, Reason, Record, RecordKey,
    Registration, RegistryName, named_address,
};
use crate::plan::earlier;

/// The instances that should have a record, with its key.
#[derive(Default)]
pub(super) struct Desired<'a> {
    pub instances: Vec<(RecordKey, &'a Instance)>,
    /// The part that is to be written: what says everything already is most of a large service.
    pub writes: BTreeMap<RecordKey, Write<'a>>,
    /// For each record under the name, in key order, whether it stays as it is.
    kept: Vec<bool>,
}

pub(super) struct Write<'a> {
    pub says: Registration,
    /// One update moves a record that we adopt from its former owner to us, and makes a healed one an export.
    pub record: Option<&'a Record>,
}

impl Desired<'_> {
    /// Whether the record at this position among those under the name stays as it is.
    pub fn keeps(&self, position: usize) -> bool {
        self.kept.get(position).copied().unwrap_or_default()
    }

    /// Whether a record that is not kept gets another value.
    pub fn names(&self, key: &RecordKey) -> bool {
        self.writes.contains_key(key)
    }
}

pub(super) fn desired<'a>(
    input: &Input<'a>,
    writers: &Writers<'a>,
    registered: &Registered<'_, '_>,
    plan: &mut Plan,
) -> Desired<'a> {
    let mut desired = Desired::default();
    let Some(name) = input.name else { return desired };
    let (own, keys) = (OwnByAddress::of(writers), input.layout.keys(name, input.owner));
    desired.kept = vec![false; input.records.len()];
    desired.instances.reserve(input.instances.len());
    plan.instances.reserve(input.instances.len());
    for instance in input.instances {
        let outcome = match placement(input, registered, &own, &keys, instance) {
            Ok(Placement { key, position }) => {
                let exported = instance.addresses().find_map(|addr| own.key(addr));
                let outcome = exported.map_or(Outcome::ToBeExported, |key| Outcome::Exported { key: key.clone() });
                let record = position.and_then(|position| writers.at(position));
                if let (Some((record, Writer::Us)), Some(position)) = (record, position)
                    && is_said(input, name, record, instance)
                {
                    desired.kept[position] = true;
                    desired.instances.push((key, instance));
                    outcome
                } else {
                    let says = input.layout.registration(name, input.owner, instance);
                    if is_too_long(input.layout, &says) {
                        Outcome::Skipped(Reason::Undecodable)
                    } else {
                        desired.writes.insert(key.clone(), Write { says, record: record.map(|(record, _)| record) });
                        desired.instances.push((key, instance));
                        outcome
                    }
                }
            }
            Err(outcome) => outcome,
        };
        let delayed = match outcome {
            Outcome::ExportDelayed { until } => Some(until),
            _ => None,
        };
        plan.requeue_at = earlier(plan.requeue_at, delayed);
        // The address that names the instance counts; others follow it.
        let told = |addr| {
            let (counts, held) = (addr == instance.addr, delayed.is_some());
            InstanceOutcome { held, counts, ..InstanceOutcome::of(addr, outcome.clone()) }
        };
        match instance.endpoints.as_slice() {
            [(_, addr)] => plan.instances.push(told(*addr)),
            _ => plan.instances.extend(instance.addresses().collect::<BTreeSet<_>>().into_iter().map(told)),
        }
    }
    desired
}

/// Whether our record already has the content to be written. Decoded values are compared, because Go and Rust escape
/// bytes differently. An own record without a lease would outlive every process; writing it again gives it one.
fn is_said(input: &Input<'_>, name: &RegistryName, record: &Record, instance: &Instance) -> bool {
    match &record.content {
        Content::Registered { registration, .. } => {
            record.lease != LeaseId::NONE && input.layout.says(name, input.owner, instance, registration)
        }
        Content::Undecodable { .. } => false,
    }
}

/// Whether nobody would read the record, ourselves included: with nearly all tags that the CRD allows, all of them
/// long.
fn is_too_long(layout: &Layout, registration: &Registration) -> bool {
    /// JSON escapes a byte with six at most.
    const ESCAPED: usize = 6;
    let tags: usize = registration.tags.iter().map(|(tag, value)| tag.len() + value.len()).sum();
    tags > MAX_VALUE / ESCAPED / 2 && layout.encode(registration).len() > MAX_VALUE
}

/// The key of an instance's record, and the position of the record that has the key among those under the name.
struct Placement {
    key: RecordKey,
    position: Option<usize>,
}

/// The place of the instance's record, or the outcome if it gets none.
fn placement(
    input: &Input<'_>,
    registered: &Registered<'_, '_>,
    own: &OwnByAddress<'_, '_>,
    keys: &Keys<'_>,
    instance: &Instance,
) -> Result<Placement, Outcome> {
    let by_others = instance.addresses().find_map(|addr| registered.at(addr));
    if let Some(record) = by_others {
        // A second record would double the traffic of the instance.
        return Err(taken(input, instance, record));
    }
    if instance.addresses().any(|addr| input.contested.get(&addr) == Some(&ContestedExport::Precedes)) {
        return Err(Outcome::Skipped(Reason::Conflict));
    }
    // Most records are where they should be: no key has to be looked up among all.
    if let Some(position) = own.position(instance.addr)
        && let Some((record, _)) = own.writers.at(position)
        && keys.is_of(instance, &record.key)
    {
        return Ok(Placement { key: record.key.clone(), position: Some(position) });
    }
    let key = keys.of(instance);
    match input.records.get(&key).map(|record| record.kind(&input.owner.cluster_id)) {
        None => {
            let mut waits = instance.addresses().filter_map(|a| input.departures.get(&a)?.holds_export(input.now));
            let waits = waits.next().map(|until| Outcome::ExportDelayed { until });
            waits.map_or(Ok(Placement { key, position: None }), Err)
        }
        Some(Kind::Own(_)) => Ok(own.place(key)),
        Some(Kind::Healed(owner)) if owner == input.owner => Ok(own.place(key)),
        // A record of another writer, or an unreadable one, has the key that we would use.
        Some(_) => Err(Outcome::Skipped(Reason::Conflict)),
    }
}

/// The outcome of an instance whose address a record names that is not an export of this cluster.
fn taken(input: &Input<'_>, instance: &Instance, record: &Record) -> Outcome {
    let key = record.key.clone();
    if record.kind(&input.owner.cluster_id) == Kind::OtherCluster {
        return Outcome::TakenByOtherCluster { key };
    }
    let ours = |addr: (IpAddr, u16)| instance.addresses().any(|own| (own.ip(), own.port()) == addr);
    let naming = record.listeners().iter().filter(|listener| named_address(&listener.text).is_some_and(ours));
    let mut forms: Vec<_> = naming.map(|listener| listener.addr).collect();
    // One form that can be imported is enough.
    forms.sort_by_key(Result::is_err);
    let refused = forms.first().and_then(|addr| addr.err());
    Outcome::SelfRegistered { key, refused }
}

/// This owner's records by their addresses.
struct OwnByAddress<'b, 'a> {
    writers: &'b Writers<'a>,
    /// The addresses of this owner's, each with the position of its record, in order.
    positions: Vec<(InstanceAddr, usize)>,
}

impl<'b, 'a> OwnByAddress<'b, 'a> {
    fn of(writers: &'b Writers<'a>) -> Self {
        let own = writers.iter().enumerate().filter(|(_, (_, writer))| *writer == Writer::Us);
        let mut positions: Vec<(InstanceAddr, usize)> =
            own.flat_map(|(n, (record, _))| record.endpoint_addresses().map(move |addr| (addr, n))).collect();
        positions.sort_unstable();
        Self { writers, positions }
    }

    /// The position of the first record with an address.
    fn position(&self, addr: InstanceAddr) -> Option<usize> {
        let at = self.positions.partition_point(|(other, _)| *other < addr);
        self.positions.get(at).filter(|(other, _)| *other == addr).map(|(_, position)| *position)
    }

    /// The key of that record.
    fn key(&self, addr: InstanceAddr) -> Option<&'a RecordKey> {
        self.writers.at(self.position(addr)?).map(|(record, _)| &record.key)
    }

    /// The place of a record that is there.
    fn place(&self, key: RecordKey) -> Placement {
        let position = self.writers.position(&key);
        Placement { key, position }
    }
}
