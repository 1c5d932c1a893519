//! The records of a registry that are followed, and the indexes over them.
//!
//! Owns the records by name, owner and lease, their counts, and the [`Affected`] of each change. Refuses to know which
//! of two versions is newer: [`super::view`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twinspan_core::codec::{Layout, Range};
use twinspan_core::model::{Kind, LeaseId, Owner, Record, RecordKey, Records, RegistryName, ServiceKey};
use twinspan_core::plan::departure::evidence::LeaseLookUp;

use super::foreign_names::ForeignNames;

/// The names, owners and leases that a change affects. Their RegisteredServices must be reconciled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Names as in keys; not all of them are legal [`RegistryName`]s.
    pub names: BTreeSet<Box<[u8]>>,
    /// RegisteredServices of this cluster that own a changed record.
    pub owners: BTreeSet<ServiceKey>,
    /// Leases to look up, which tell how a record departed.
    pub look_ups: Vec<LeaseLookUp>,
}

impl Affected {
    pub fn add(&mut self, more: Self) {
        self.names.extend(more.names);
        self.owners.extend(more.owners);
        self.look_ups.extend(more.look_ups);
    }

    /// A record under a name changed.
    pub fn add_name(&mut self, name: &[u8]) {
        if !self.names.contains(name) {
            self.names.insert(name.into());
        }
    }

    /// A record of a RegisteredService changed.
    fn add_owner(&mut self, owner: &ServiceKey) {
        if !self.owners.contains(owner) {
            self.owners.insert(owner.clone());
        }
    }

    /// True if no RegisteredService has to be reconciled.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.owners.is_empty()
    }
}

/// The number of records by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub own: usize,
    /// Other clusters' and healed ones included.
    pub foreign: usize,
    pub undecodable: usize,
}

impl Counts {
    pub fn all(self) -> usize {
        self.own + self.foreign + self.undecodable
    }
}

/// The own and healed records of one RegisteredService.
#[derive(Debug)]
struct Owned {
    /// Their owner, which all of them share.
    owner: Arc<Owner>,
    keys: BTreeSet<RecordKey>,
}

/// Every record that is followed.
#[derive(Debug)]
pub struct RecordStore {
    layout: Layout,
    cluster_id: String,
    /// By name; a snapshot shares the records of its name until one of them changes.
    names: BTreeMap<Box<[u8]>, Arc<Records>>,
    own: BTreeMap<ServiceKey, Owned>,
    /// The own and healed records of this cluster on each lease.
    leases: BTreeMap<LeaseId, BTreeSet<RecordKey>>,
    counts: Counts,
    foreign: ForeignNames,
}

impl RecordStore {
    pub fn new(layout: Layout, cluster_id: String) -> Self {
        Self {
            layout,
            cluster_id,
            names: BTreeMap::new(),
            own: BTreeMap::new(),
            leases: BTreeMap::new(),
            counts: Counts::default(),
            foreign: ForeignNames::default(),
        }
    }

    /// The names with foreign records.
    pub fn foreign_names(&self) -> &ForeignNames {
        &self.foreign
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Every RegisteredService of this cluster that owns a record.
    pub fn owners(&self) -> impl Iterator<Item = &ServiceKey> {
        self.own.keys()
    }

    /// The names that have own or healed records of this cluster.
    pub fn names_of_ours(&self) -> BTreeSet<RegistryName> {
        let keys = self.own.values().flat_map(|owned| &owned.keys);
        keys.filter_map(|key| registry_name(self.layout.split_key(key)?.0)).collect()
    }

    /// The names that have records; those that no RegisteredService can have are not among them.
    pub fn names(&self) -> impl Iterator<Item = RegistryName> {
        self.names.keys().filter_map(|name| registry_name(name))
    }

    /// The keys of records whose names no RegisteredService can have.
    pub fn of_odd_names(&self) -> impl Iterator<Item = RecordKey> {
        let odd = self.names.iter().filter(|(name, _)| registry_name(name).is_none());
        odd.flat_map(|(_, records)| records.keys().cloned())
    }

    /// Whether this cluster has own or healed records under a name.
    pub fn has_ours(&self, name: &RegistryName) -> bool {
        let records = self.names.get(name.as_str().as_bytes());
        records.is_some_and(|records| records.values().any(|record| record.ours(&self.cluster_id).is_some()))
    }

    /// The leases of own and healed records of this cluster, with the records on each.
    pub fn leases(&self) -> &BTreeMap<LeaseId, BTreeSet<RecordKey>> {
        &self.leases
    }

    /// Every own record of a RegisteredService, under any name.
    pub fn owned_by(&self, service: &ServiceKey) -> impl Iterator<Item = &Arc<Record>> {
        self.own.get(service).into_iter().flat_map(|owned| &owned.keys).filter_map(|key| self.get(key))
    }

    /// Whether a key is one of a RegisteredService's own records.
    pub fn is_owned_by(&self, service: &ServiceKey, key: &RecordKey) -> bool {
        self.own.get(service).is_some_and(|owned| owned.keys.contains(key))
    }

    /// Every own record of a RegisteredService under other names than this one, without a look at those under it.
    pub fn owned_under_other_names(
        &self,
        service: &ServiceKey,
        name: &RegistryName,
    ) -> impl Iterator<Item = &Arc<Record>> {
        let own = self.own.get(service).into_iter();
        // The slash with which the root ends comes right before the digit 0.
        let root = self.layout.service_root(name);
        let (from, to) = (RecordKey::from(root.as_str()), RecordKey::from(format!("{}0", root.trim_end_matches('/'))));
        let outside =
            own.flat_map(move |Owned { keys, .. }| keys.range(..from.clone()).chain(keys.range(to.clone()..)));
        outside.filter_map(|key| self.get(key))
    }

    pub fn of_name(&self, name: &[u8]) -> Arc<Records> {
        self.names.get(name).cloned().unwrap_or_default()
    }

    pub fn get(&self, key: &RecordKey) -> Option<&Arc<Record>> {
        self.names.get(self.layout.split_key(key)?.0)?.get(key)
    }

    /// The records of a range, in key order.
    pub fn in_range(&self, range: &Range) -> Box<dyn Iterator<Item = &Arc<Record>> + '_> {
        match range {
            Range::Everything => Box::new(self.names.values().flat_map(|records| records.values())),
            Range::Service(name) => {
                let records = self.names.get(name.as_str().as_bytes());
                Box::new(records.into_iter().flat_map(|records| records.values()))
            }
        }
    }

    /// Enters a record in place of the one with its key.
    pub fn insert(&mut self, mut record: Record, affected: &mut Affected) {
        if let Some(owned) = record.ours(&self.cluster_id).and_then(|owner| self.own.get(&owner.service)) {
            record.share_owner(&owned.owner);
        }
        let (key, record) = (record.key.clone(), Arc::new(record));
        let Some((name, _)) = self.layout.split_key(&key) else { return };
        let before = match self.names.get_mut(name) {
            Some(records) => Arc::make_mut(records).insert(key.clone(), record.clone()),
            None => {
                let records = Records::from([(key.clone(), record.clone())]);
                self.names.insert(name.into(), records.into());
                None
            }
        };
        affected.add_name(name);
        if let Some(before) = before {
            self.leave(&before, affected);
        }
        if let Some(owner) = record.ours(&self.cluster_id) {
            affected.add_owner(&owner.service);
            match self.own.get_mut(&owner.service) {
                Some(owned) => drop(owned.keys.insert(key.clone())),
                None => {
                    let owned = Owned { owner: owner.clone(), keys: BTreeSet::from([key.clone()]) };
                    self.own.insert(owner.service.clone(), owned);
                }
            }
            self.leases.entry(record.lease).or_default().insert(key.clone());
        }
        *self.counter(&record) += 1;
        if record.kind(&self.cluster_id) == Kind::Foreign {
            self.foreign.add(name);
        }
    }

    /// Takes a record out.
    pub fn remove(&mut self, key: &RecordKey, affected: &mut Affected) {
        let Some((name, _)) = self.layout.split_key(key) else { return };
        let Some(records) = self.names.get_mut(name).filter(|records| records.contains_key(key)) else { return };
        let records = Arc::make_mut(records);
        let Some(record) = records.remove(key) else { return };
        if records.is_empty() {
            self.names.remove(name);
        }
        self.leave(&record, affected);
        affected.add_name(name);
    }

    /// A record is no longer among those of its name.
    fn leave(&mut self, record: &Record, affected: &mut Affected) {
        if let Some(owner) = record.ours(&self.cluster_id) {
            affected.add_owner(&owner.service);
            if let Some(owned) = self.own.get_mut(&owner.service) {
                owned.keys.remove(&record.key);
                if owned.keys.is_empty() {
                    self.own.remove(&owner.service);
                }
            }
            if let Some(keys) = self.leases.get_mut(&record.lease) {
                keys.remove(&record.key);
                if keys.is_empty() {
                    self.leases.remove(&record.lease);
                }
            }
        }
        let counter = self.counter(record);
        *counter = counter.saturating_sub(1);
        if record.kind(&self.cluster_id) == Kind::Foreign
            && let Some((name, _)) = self.layout.split_key(&record.key)
        {
            self.foreign.remove(name);
        }
    }

    fn counter(&mut self, record: &Record) -> &mut usize {
        match record.kind(&self.cluster_id) {
            Kind::Own(_) => &mut self.counts.own,
            Kind::OtherCluster | Kind::Healed(_) | Kind::Foreign => &mut self.counts.foreign,
            Kind::Undecodable => &mut self.counts.undecodable,
        }
    }
}

/// The name from a key; `None` if it is not legal.
fn registry_name(name: &[u8]) -> Option<RegistryName> {
    RegistryName::new(std::str::from_utf8(name).ok()?).ok()
}
