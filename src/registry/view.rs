//! The view of a registry: the in-memory picture of every record below its root.
//!
//! Owns the order of things: whatever arrives (a list, a watch event, the answer to our own write) is older or newer
//! than what is known, and only newer things count. Refuses to do I/O and to judge departures beyond noting them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use twinspan_core::Timestamp;
use twinspan_core::codec::Layout;
use twinspan_core::model::{
    Content, InstanceAddr, Kind, LeaseId, Owner, RawRecord, Record, RecordKey, RegistryName, Revision, ServiceKey,
};
use twinspan_core::plan::departures::{Departure, Departures, Evidence, FORGOTTEN_AFTER};

use super::{Change, Listing};

/// How often departures that are too old to matter are dropped.
const FORGET_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// How far the picture can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No complete list has arrived yet: nothing may follow from what is not here.
    Unknown,
    /// A complete list has arrived and is being followed.
    Fresh,
    /// Cut off: what is here was true once.
    Stale,
}

/// What a change touched: whoever looks after these must look again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Names as they stand in keys; not every one is a legal [`RegistryName`].
    pub names: BTreeSet<Box<[u8]>>,
    /// RegisteredServices of this cluster that own a record that changed.
    pub owners: BTreeSet<ServiceKey>,
    /// Leases to look up, to learn how a record went.
    pub look_ups: Vec<LookUp>,
}

/// A record went while it had this lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookUp {
    pub name: Box<[u8]>,
    pub addr: InstanceAddr,
    pub lease: LeaseId,
    pub at: Timestamp,
}

/// How many records there are, by whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub own: usize,
    /// Other clusters' and healed ones included.
    pub foreign: usize,
    pub undecodable: usize,
}

/// Everything about one name and one owner, for a planner.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub state: State,
    pub revision: Revision,
    pub records: BTreeMap<RecordKey, Arc<Record>>,
    /// The owner's records under other names.
    pub elsewhere: BTreeMap<RecordKey, Arc<Record>>,
    pub departures: Departures,
}

/// Circumstances of a departure.
#[derive(Clone, Copy)]
struct How {
    unexplained: bool,
    /// No other own record went in the same revision.
    alone: bool,
}

#[derive(Debug)]
pub struct RegistryView {
    layout: Layout,
    cluster_id: String,
    state: State,
    etcd_cluster_id: Option<u64>,
    revision: Revision,
    names: BTreeMap<Box<[u8]>, BTreeMap<RecordKey, Arc<Record>>>,
    own: BTreeMap<ServiceKey, BTreeSet<RecordKey>>,
    leases: BTreeMap<LeaseId, usize>,
    counts: Counts,
    departures: BTreeMap<Box<[u8]>, Departures>,
    /// Deletes of ours that are under way: their events are no departures.
    deleting: BTreeMap<RecordKey, Revision>,
    /// Deletes of ours that the watch has not shown yet, by their revision: older events must not bring the record back.
    tombstones: BTreeMap<RecordKey, Revision>,
    forgotten_at: Option<Timestamp>,
}

impl RegistryView {
    pub fn new(layout: Layout, cluster_id: impl Into<String>) -> Self {
        Self {
            layout,
            cluster_id: cluster_id.into(),
            state: State::Unknown,
            etcd_cluster_id: None,
            revision: 0,
            names: BTreeMap::new(),
            own: BTreeMap::new(),
            leases: BTreeMap::new(),
            counts: Counts::default(),
            departures: BTreeMap::new(),
            deleting: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            forgotten_at: None,
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The connection is gone: everything stays as it is, and nothing may follow from it.
    pub fn set_stale(&mut self) {
        if self.state == State::Fresh {
            self.state = State::Stale;
        }
    }

    /// Every RegisteredService of this cluster that owns a record.
    pub fn owners(&self) -> impl Iterator<Item = &ServiceKey> {
        self.own.keys()
    }

    /// The leases that own records hang on, with the number of records on each.
    pub fn own_leases(&self) -> &BTreeMap<LeaseId, usize> {
        &self.leases
    }

    pub fn snapshot(&self, name: &RegistryName, owner: &Owner) -> Snapshot {
        let records = self.names.get(name.as_str().as_bytes()).cloned().unwrap_or_default();
        let elsewhere = self.owned_by(&owner.service).filter(|r| !records.contains_key(&r.key));
        Snapshot {
            state: self.state,
            revision: self.revision,
            elsewhere: elsewhere.map(|r| (r.key.clone(), r.clone())).collect(),
            departures: self.departures.get(name.as_str().as_bytes()).cloned().unwrap_or_default(),
            records,
        }
    }

    /// The owner's records alone, for one that refers to this registry no longer.
    pub fn snapshot_of_owner(&self, owner: &Owner) -> Snapshot {
        Snapshot {
            state: self.state,
            revision: self.revision,
            records: BTreeMap::new(),
            elsewhere: self.owned_by(&owner.service).map(|r| (r.key.clone(), r.clone())).collect(),
            departures: Departures::new(),
        }
    }

    /// Every own record of a RegisteredService, whatever its name.
    pub fn owned_by(&self, service: &ServiceKey) -> impl Iterator<Item = &Arc<Record>> {
        self.own.get(service).into_iter().flatten().filter_map(|key| self.record(key))
    }

    fn record(&self, key: &RecordKey) -> Option<&Arc<Record>> {
        self.names.get(self.layout.split_key(key)?.0)?.get(key)
    }

    /// A complete list. Returns everything that it changed.
    pub fn reset(&mut self, listing: &Listing, now: Timestamp) -> Touched {
        let mut touched = Touched::default();
        // Another cluster, or an older state of the same one: its revisions say nothing about what we know.
        let unexplained =
            self.etcd_cluster_id.is_some_and(|known| known != listing.cluster_id || listing.revision < self.revision);
        if unexplained {
            self.tombstones.clear();
        }
        let newer = |revision: Revision| !unexplained && revision > listing.revision;

        let listed: BTreeSet<&RecordKey> = listing.records.iter().map(|raw| &raw.key).collect();
        let vanished: Vec<RecordKey> = self
            .names
            .values()
            .flat_map(BTreeMap::values)
            // What we wrote while the list was on its way is not in it.
            .filter(|record| !listed.contains(&record.key) && !newer(record.mod_revision))
            .map(|record| record.key.clone())
            .collect();
        for key in vanished {
            self.depart(&key, How { unexplained, alone: true }, now, &mut touched);
        }
        for raw in &listing.records {
            if !self.tombstones.get(&raw.key).copied().is_some_and(newer) {
                self.put(raw, unexplained, &mut touched);
            }
        }
        self.tombstones.retain(|_, revision| newer(*revision));
        self.etcd_cluster_id = Some(listing.cluster_id);
        self.revision = if unexplained { listing.revision } else { self.revision.max(listing.revision) };
        self.state = State::Fresh;
        self.forget(now);
        touched
    }

    /// Events of the watch, in order.
    pub fn apply(&mut self, changes: &[Change], now: Timestamp) -> Touched {
        let mut touched = Touched::default();
        let own_deletes = self.own_deletes(changes);
        for change in changes {
            match change {
                Change::Put(raw) => self.put(raw, false, &mut touched),
                Change::Delete { key, revision } => {
                    if self.record(key).is_some_and(|record| record.mod_revision < *revision) {
                        let alone = own_deletes.get(revision).is_none_or(|count| *count < 2);
                        self.depart(key, How { unexplained: false, alone }, now, &mut touched);
                    }
                }
            }
            self.revision = self.revision.max(change.revision());
        }
        self.tombstones.retain(|_, revision| *revision > self.revision);
        self.forget(now);
        touched
    }

    /// Everything up to the revision has been seen.
    pub fn progressed(&mut self, revision: Revision, now: Timestamp) {
        self.revision = self.revision.max(revision);
        self.tombstones.retain(|_, deleted| *deleted > self.revision);
        self.forget(now);
    }

    /// A delete of ours is about to be sent.
    pub fn deleting(&mut self, key: &RecordKey, seen: Revision) {
        self.deleting.insert(key.clone(), seen);
    }

    /// The delete is no longer under way, whatever became of it.
    pub fn not_deleting(&mut self, key: &RecordKey) {
        self.deleting.remove(key);
    }

    /// What a key is at a revision, learnt from an answer rather than from the watch.
    pub fn learnt(&mut self, key: &RecordKey, record: Option<&RawRecord>, revision: Revision) -> Touched {
        let mut touched = Touched::default();
        match record {
            Some(raw) => self.put(raw, false, &mut touched),
            None => {
                if self.record(key).is_some_and(|known| known.mod_revision < revision) {
                    self.remove(key, &mut touched);
                }
                if revision > self.revision {
                    self.tombstones.insert(key.clone(), revision);
                }
            }
        }
        touched
    }

    /// What the look-up of a departed record's lease found.
    pub fn explain(&mut self, look_up: &LookUp, evidence: Evidence) -> bool {
        let departure = self.departures.get_mut(&look_up.name).and_then(|d| d.get_mut(&look_up.addr));
        match departure {
            Some(departure) if departure.evidence == Evidence::Pending && departure.at == look_up.at => {
                departure.evidence = evidence;
                true
            }
            _ => false,
        }
    }

    fn put(&mut self, raw: &RawRecord, whatever_its_revision: bool, touched: &mut Touched) {
        if !whatever_its_revision {
            let known = self.record(&raw.key).map(|record| record.mod_revision);
            let known = known.max(self.tombstones.get(&raw.key).copied());
            if known.is_some_and(|known| known >= raw.mod_revision) {
                return;
            }
        }
        let Some(name) = self.layout.split_key(&raw.key).map(|(name, _)| Box::<[u8]>::from(name)) else { return };
        let record = self.layout.decode(raw);
        if self.record(&raw.key).is_some_and(|known| **known == record) {
            return;
        }
        self.remove(&raw.key, touched);
        if let Some(addr) = record.addr()
            && let Some(departures) = self.departures.get_mut(&name)
        {
            departures.remove(&addr);
        }
        if let Some(owner) = record.own(&self.cluster_id) {
            touched.owners.insert(owner.service.clone());
            self.own.entry(owner.service.clone()).or_default().insert(record.key.clone());
            *self.leases.entry(record.lease).or_default() += 1;
        }
        *self.counter(&record) += 1;
        self.names.entry(name.clone()).or_default().insert(record.key.clone(), Arc::new(record));
        touched.names.insert(name);
    }

    fn remove(&mut self, key: &RecordKey, touched: &mut Touched) -> Option<Arc<Record>> {
        let name: Box<[u8]> = self.layout.split_key(key)?.0.into();
        let records = self.names.get_mut(&name)?;
        let record = records.remove(key)?;
        if records.is_empty() {
            self.names.remove(&name);
        }
        if let Some(owner) = record.own(&self.cluster_id) {
            touched.owners.insert(owner.service.clone());
            if let Some(keys) = self.own.get_mut(&owner.service) {
                keys.remove(key);
                if keys.is_empty() {
                    self.own.remove(&owner.service);
                }
            }
            if let Some(count) = self.leases.get_mut(&record.lease) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.leases.remove(&record.lease);
                }
            }
        }
        let counter = self.counter(&record);
        *counter = counter.saturating_sub(1);
        touched.names.insert(name);
        Some(record)
    }

    fn counter(&mut self, record: &Record) -> &mut usize {
        match record.kind(&self.cluster_id) {
            Kind::Own(_) => &mut self.counts.own,
            Kind::OtherCluster | Kind::Healed(_) | Kind::Foreign => &mut self.counts.foreign,
            Kind::Undecodable => &mut self.counts.undecodable,
        }
    }

    fn own_deletes(&self, changes: &[Change]) -> BTreeMap<Revision, usize> {
        let mut own_deletes = BTreeMap::new();
        for change in changes {
            if let Change::Delete { key, revision } = change
                && self.record(key).is_some_and(|record| record.own(&self.cluster_id).is_some())
            {
                *own_deletes.entry(*revision).or_default() += 1;
            }
        }
        own_deletes
    }

    /// Removes a record and notes how it went, where it was not us who deleted it.
    fn depart(&mut self, key: &RecordKey, how: How, now: Timestamp, touched: &mut Touched) {
        let Some(record) = self.remove(key, touched) else { return };
        if self.deleting.get(key) == Some(&record.mod_revision) {
            return;
        }
        // A server's own Deregister removes one key. Several of ours at once were swept away by somebody, and are put
        // again without waiting.
        if !how.alone && record.own(&self.cluster_id).is_some() {
            return;
        }
        let Some((name, _)) = self.layout.split_key(key) else { return };
        let (Some(addr), Content::Registered { registration, .. }) = (record.addr(), &record.content) else { return };
        let evidence = match record.lease {
            _ if how.unexplained => Evidence::Unexplained,
            LeaseId::NONE => Evidence::Left,
            lease => {
                touched.look_ups.push(LookUp { name: name.into(), addr, lease, at: now });
                Evidence::Pending
            }
        };
        let departure = Departure { evidence, at: now, registration: registration.clone() };
        self.departures.entry(name.into()).or_default().insert(addr, departure);
    }

    /// From time to time: most events concern no departure.
    fn forget(&mut self, now: Timestamp) {
        if self.forgotten_at.is_some_and(|last| now.duration_since(last).abs() < FORGET_EVERY) {
            return;
        }
        self.forgotten_at = Some(now);
        self.departures.retain(|_, departures| {
            departures.retain(|_, departure| now.duration_since(departure.at) < FORGOTTEN_AFTER);
            !departures.is_empty()
        });
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
