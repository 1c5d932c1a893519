//! Evidence: the reason for which a record is gone, as far as the circumstances of its deletion prove it.
//!
//! Owns the classification (several records of a service in one revision, one alone with its lease alive, missing in a
//! list, missing because another registry answered) and the departures that are still fresh. Refuses to look up leases,
//! which the registry's door does, and to decide about endpoints, which [`super::decide`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Departure, Departures, Evidence, FORGOTTEN_AFTER};
use crate::Timestamp;
use crate::codec::{Format, Layout};
use crate::model::{InstanceAddr, Kind, LeaseId, Record, RecordKey, Revision};
use jiff::SignedDuration;

/// Interval at which departures that are too old to matter are dropped.
const FORGET_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// A lease to look up, because a record on it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseLookUp {
    pub name: Box<[u8]>,
    pub addrs: Vec<InstanceAddr>,
    pub lease: LeaseId,
    /// The revision at which the record was written.
    pub written: Revision,
    /// The number of the departure: a later one of the same address has another.
    number: u64,
    /// The evidence that a live lease gives.
    pub if_it_lives: Evidence,
}

/// The writer of a record. A healed record counts as its server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Ourselves,
    OtherTwinspan,
    Server,
}

#[derive(Debug)]
pub struct DepartureTracker {
    format: Format,
    cluster_id: String,
    /// Every ID that a lease of ours can have.
    our_leases: BTreeSet<LeaseId>,
    by_name: BTreeMap<Box<[u8]>, BTreeMap<InstanceAddr, Numbered>>,
    /// The number of the last departure.
    last: u64,
    forgotten_at: Option<Timestamp>,
}

/// A departure, told apart from others of the same address and time.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    departure: Departure,
}

impl DepartureTracker {
    pub fn new(format: Format, cluster_id: String) -> Self {
        Self { format, cluster_id, our_leases: BTreeSet::new(), by_name: BTreeMap::new(), last: 0, forgotten_at: None }
    }

    /// Healed records on these leases go when we lose a lease, which no program deleted in bulk.
    pub fn set_our_leases(&mut self, leases: BTreeSet<LeaseId>) {
        self.our_leases = leases;
    }

    pub fn of(&self, name: &[u8]) -> Departures {
        let departures = self.by_name.get(name).into_iter().flatten();
        departures.map(|(addr, numbered)| (*addr, numbered.departure.clone())).collect()
    }

    /// Ends the departures of these addresses, because a record has them now.
    pub fn registered(&mut self, name: &[u8], addrs: impl IntoIterator<Item = InstanceAddr>) {
        if let Some(departures) = self.by_name.get_mut(name) {
            addrs.into_iter().for_each(|addr| drop(departures.remove(&addr)));
        }
    }

    /// Takes the records that were deleted in one revision. `unknown` are its other keys: no event told of their
    /// records, and what is deleted with them is deleted in bulk all the same. Returns the leases to look up.
    pub fn deleted_together(
        &mut self,
        layout: &Layout,
        gone: &[Arc<Record>],
        unknown: &[&RecordKey],
        now: Timestamp,
    ) -> Vec<LeaseLookUp> {
        let mut servers = self.servers_by_name(layout, gone);
        for (name, _) in unknown.iter().filter_map(|key| layout.split_key(key)) {
            *servers.entry(name.into()).or_default() += 1;
        }
        let ours = gone.iter().filter(|record| record.own(&self.cluster_id).is_some()).count();
        let mut look_ups = Vec::new();
        for record in gone {
            let Some(name) = name_of(layout, record) else { continue };
            let several = servers.get(&name).copied().unwrap_or_default() > 1;
            let if_it_lives = if several { Evidence::BulkDeleted } else { Evidence::Deregistered };
            let (evidence, if_it_lives) = match self.writer(record) {
                // A server's own Deregister removes one key. Several own records that vanish together were deleted in
                // bulk, and are put again without waiting.
                Writer::Ourselves if ours > 1 => continue,
                Writer::Ourselves => (Evidence::LookingUp, Evidence::Deregistered),
                // Another Twinspan deletes in batches, and its leases carry many records.
                Writer::OtherTwinspan if self.others_by_name(layout, gone, &name) > 1 => {
                    (Evidence::Deregistered, Evidence::Deregistered)
                }
                Writer::OtherTwinspan => (Evidence::LookingUp, Evidence::Deregistered),
                // A lease of ours carries many healed records, and takes them along when it ends.
                Writer::Server if several && !self.is_on_our_lease(record) => {
                    (Evidence::BulkDeleted, Evidence::BulkDeleted)
                }
                Writer::Server => (Evidence::LookingUp, if_it_lives),
            };
            look_ups.extend(self.depart(&name, record, evidence, if_it_lives, now));
        }
        look_ups
    }

    /// Takes the records that a list lacks: no event showed whether they were deleted together. Returns the leases to
    /// look up.
    pub fn missing_in_a_list(&mut self, layout: &Layout, gone: &[Arc<Record>], now: Timestamp) -> Vec<LeaseLookUp> {
        let servers = self.servers_by_name(layout, gone);
        let ours = gone.iter().filter(|record| record.own(&self.cluster_id).is_some()).count();
        let mut look_ups = Vec::new();
        for record in gone {
            let Some(name) = name_of(layout, record) else { continue };
            let if_it_lives = match self.writer(record) {
                Writer::Ourselves if ours > 1 => continue,
                Writer::Ourselves | Writer::OtherTwinspan => Evidence::Deregistered,
                // An ended lease explains each record by itself; several deleted records may have been deleted in bulk.
                Writer::Server if servers.get(&name).copied().unwrap_or_default() > 1 => Evidence::BulkDeleted,
                Writer::Server => Evidence::DeregisteredUnseen,
            };
            look_ups.extend(self.depart(&name, record, Evidence::LookingUp, if_it_lives, now));
        }
        look_ups
    }

    /// Takes the records whose deletion no event told: their leases prove nothing about a moment that nobody saw. Own
    /// ones are missing as in a list. Returns the leases to look up.
    pub fn unnoticed(&mut self, layout: &Layout, gone: &[Arc<Record>], now: Timestamp) -> Vec<LeaseLookUp> {
        let (own, others): (Vec<_>, Vec<_>) =
            gone.iter().cloned().partition(|record| record.own(&self.cluster_id).is_some());
        for record in &others {
            if let Some(name) = name_of(layout, record) {
                self.depart(&name, record, Evidence::LeaseUnreadable, Evidence::LeaseUnreadable, now);
            }
        }
        self.missing_in_a_list(layout, &own, now)
    }

    /// Takes the records that another registry, or an older state of it, lacks. Own records are simply put back.
    pub fn rolled_back(&mut self, layout: &Layout, gone: &[Arc<Record>], now: Timestamp) {
        for record in gone {
            if record.own(&self.cluster_id).is_none()
                && let Some(name) = name_of(layout, record)
            {
                self.depart(&name, record, Evidence::RolledBack, Evidence::RolledBack, now);
            }
        }
    }

    /// The lists since then were of an older state of the registry: what departed since proves nothing.
    pub fn rolled_back_since(&mut self, since: Timestamp) {
        for Numbered { departure, .. } in self.by_name.values_mut().flat_map(BTreeMap::values_mut) {
            let own = departure.record.as_ref().is_some_and(|record| record.own(&self.cluster_id).is_some());
            if departure.at >= since && !own {
                departure.evidence = Evidence::RolledBack;
            }
        }
    }

    /// Takes a record that another registry, or an older state of it, has in an earlier form: the addresses that it
    /// gained since are missing.
    pub fn set_back(&mut self, layout: &Layout, before: &Arc<Record>, after: Option<&Record>, now: Timestamp) {
        let Some(name) = name_of(layout, before) else { return };
        if before.own(&self.cluster_id).is_some() {
            return;
        }
        let still: Vec<InstanceAddr> = after.into_iter().flat_map(Record::endpoint_addresses).collect();
        for addr in before.endpoint_addresses().filter(|addr| !still.contains(addr)) {
            self.enter(
                &name,
                addr,
                Departure { evidence: Evidence::RolledBack, at: now, record: Some(before.clone()) },
            );
        }
    }

    /// Enters the result of a lease lookup. Returns whether a departure still waited for it.
    pub fn explain(&mut self, look_up: &LeaseLookUp, evidence: Evidence) -> bool {
        let Some(departures) = self.by_name.get_mut(&look_up.name) else { return false };
        let mut mattered = false;
        for addr in &look_up.addrs {
            if let Some(Numbered { number, departure }) = departures.get_mut(addr)
                && departure.evidence == Evidence::LookingUp
                && *number == look_up.number
            {
                departure.evidence = evidence;
                mattered = true;
            }
        }
        mattered
    }

    /// Drops old departures, at most once a minute, because most events affect none.
    pub fn forget(&mut self, now: Timestamp) {
        if self.forgotten_at.is_some_and(|last| now.duration_since(last).abs() < FORGET_EVERY) {
            return;
        }
        self.forgotten_at = Some(now);
        self.by_name.retain(|_, departures| {
            departures.retain(|_, numbered| now.duration_since(numbered.departure.at) < FORGOTTEN_AFTER);
            !departures.is_empty()
        });
    }

    fn depart(
        &mut self,
        name: &[u8],
        record: &Arc<Record>,
        evidence: Evidence,
        if_it_lives: Evidence,
        now: Timestamp,
    ) -> Option<LeaseLookUp> {
        let addrs: Vec<InstanceAddr> = record.endpoint_addresses().collect();
        if addrs.is_empty() {
            return None;
        }
        // A missing lease, or one that its server revokes, proves nothing.
        let own = record.own(&self.cluster_id).is_some();
        let takes_it_along = self.format.leaves_by_revoking() && !own;
        let evidence = match evidence {
            Evidence::LookingUp if record.lease == LeaseId::NONE || takes_it_along => if_it_lives,
            evidence => evidence,
        };
        self.last += 1;
        for addr in &addrs {
            self.enter(name, *addr, Departure { evidence, at: now, record: Some(record.clone()) });
        }
        (evidence == Evidence::LookingUp).then(|| LeaseLookUp {
            name: name.into(),
            addrs,
            lease: record.lease,
            written: record.mod_revision,
            number: self.last,
            if_it_lives,
        })
    }

    fn enter(&mut self, name: &[u8], addr: InstanceAddr, departure: Departure) {
        self.by_name.entry(name.into()).or_default().insert(addr, Numbered { number: self.last, departure });
    }

    /// Whether the record is a healed one of this cluster, on a lease of ours by its ID.
    fn is_on_our_lease(&self, record: &Record) -> bool {
        matches!(record.kind(&self.cluster_id), Kind::Healed(_)) && self.our_leases.contains(&record.lease)
    }

    fn writer(&self, record: &Record) -> Writer {
        match record.kind(&self.cluster_id) {
            Kind::Own(_) => Writer::Ourselves,
            Kind::OtherCluster => Writer::OtherTwinspan,
            Kind::Healed(owner) if owner.cluster_id != self.cluster_id => Writer::OtherTwinspan,
            Kind::Healed(_) | Kind::Foreign | Kind::Undecodable => Writer::Server,
        }
    }

    /// The number of servers' records that are gone, by name; records that a Twinspan wrote do not count.
    fn servers_by_name(&self, layout: &Layout, gone: &[Arc<Record>]) -> BTreeMap<Box<[u8]>, usize> {
        let mut by_name = BTreeMap::new();
        for record in gone {
            if let (Writer::Server, Some(name)) = (self.writer(record), name_of(layout, record)) {
                *by_name.entry(name).or_default() += 1;
            }
        }
        by_name
    }

    fn others_by_name(&self, layout: &Layout, gone: &[Arc<Record>], name: &[u8]) -> usize {
        let of_name = gone.iter().filter(|record| name_of(layout, record).as_deref() == Some(name));
        of_name.filter(|record| self.writer(record) == Writer::OtherTwinspan).count()
    }
}

fn name_of(layout: &Layout, record: &Record) -> Option<Box<[u8]>> {
    layout.split_key(&record.key).map(|(name, _)| name.into())
}
