//! Healed records: the records that stand for lost registrations.
//!
//! Owns the rules by which a lost registration is put back, updated, and withdrawn. Refuses to decide which endpoints
//! stay, which [`super::departed`] does.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Departed, Input};
use crate::model::{Content, InstanceAddr, Kind, LeaseId, Mark, Record, RecordKey};
use crate::plan::RecordOp;
use crate::plan::departure::OnExpiry;

/// The largest record that is put back, key and value, in bytes. A registration has hundreds of bytes; a much larger
/// one is not a server's, and another program must not make us write megabytes, because etcd would refuse the whole
/// request.
pub(super) const MAX_HEALED: usize = 64 * 1024;

/// The operations on healed records.
#[derive(Clone, Debug, Default)]
pub struct Healing {
    pub ops: Vec<RecordOp>,
    /// Endpoints whose registration is, or is about to be, put back.
    pub addresses: BTreeSet<InstanceAddr>,
}

/// Records that we put back for their servers, by key.
pub type Healed<'a> = BTreeMap<RecordKey, &'a Record>;

pub fn healed_by_us<'a>(input: &Input<'a>) -> Healed<'a> {
    let ours = input.records.iter().filter(|(_, record)| is_healed_by_us(input, record));
    ours.map(|(key, record)| (key.clone(), record.as_ref())).collect()
}

pub fn is_healed_by_us(input: &Input<'_>, record: &Record) -> bool {
    match record.kind(&input.owner.cluster_id) {
        Kind::Healed(owner) => owner == input.owner || input.to_adopt.contains(&record.key),
        _ => false,
    }
}

/// Puts lost registrations back, and withdraws those whose endpoint ended or registered itself again.
pub fn heal(input: &Input<'_>, departed: &Departed, healed: &Healed<'_>) -> Healing {
    let mut healing = Healing::default();
    let mut kept: BTreeSet<&RecordKey> = BTreeSet::new();
    if input.options.on_expiry == OnExpiry::Heal && input.layout.format().heals() {
        for (addr, endpoint) in &departed.kept {
            let existing = healed.iter().find(|(_, record)| record.endpoint_addresses().any(|other| other == *addr));
            if let Some((key, record)) = existing {
                // An endpoint that waits for the guard keeps its healed record, and gets no new one.
                kept.insert(key);
                healing.addresses.insert(*addr);
                healing.bring_up_to_date(input, record);
            } else if departed.lost.contains(addr)
                && let Some(lost) = &endpoint.record
                && !input.records.contains_key(&lost.key)
                && let Some(op) = put_back(input, lost)
            {
                if !healing.ops.iter().any(|other| other.key() == op.key()) {
                    healing.ops.push(op);
                }
                healing.addresses.insert(*addr);
            }
        }
    }
    healing.ops.extend(healed.iter().filter(|(key, _)| !kept.contains(key)).map(|(_, record)| delete(record)));
    healing
}

/// Withdraws healed records whose endpoint ended, and leaves the others as they are.
pub fn withdraw_ended(healed: &Healed<'_>, departed: &Departed) -> Vec<RecordOp> {
    let ended = |record: &&Record| !record.endpoint_addresses().any(|addr| departed.kept.contains_key(&addr));
    healed.values().copied().filter(ended).map(delete).collect()
}

fn delete(record: &Record) -> RecordOp {
    RecordOp::Delete { key: record.key.clone(), if_revision: record.mod_revision, lease: record.lease }
}

/// The operation that puts a lost record back. `None` if the record would be read back as another writer's, or is too
/// large.
fn put_back(input: &Input<'_>, lost: &Record) -> Option<RecordOp> {
    let Content::Registered { registration, .. } = &lost.content else { return None };
    let value = input.layout.encode(&input.layout.healed(registration, input.owner));
    let fits = lost.key.as_bytes().len() + value.len() <= MAX_HEALED && input.layout.may_hold_ours(&lost.key);
    fits.then(|| RecordOp::Create { key: lost.key.clone(), value })
}

impl Healing {
    /// Marks an adopted healed record as ours, in one update. A record without a lease would outlive every process, so
    /// it gets one.
    fn bring_up_to_date(&mut self, input: &Input<'_>, record: &Record) {
        let Content::Registered { registration, mark: Mark::Healed(owner), .. } = &record.content else { return };
        let again = self.ops.iter().any(|op| *op.key() == record.key);
        if !again && (**owner != *input.owner || record.lease == LeaseId::NONE) {
            let value = input.layout.encode(&input.layout.healed(registration, input.owner));
            let (if_revision, lease) = (record.mod_revision, record.lease);
            self.ops.push(RecordOp::Update { key: record.key.clone(), value, if_revision, lease });
        }
    }
}

#[cfg(test)]
#[path = "heal_tests.rs"]
mod tests;
