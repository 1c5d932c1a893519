//! Reads of the view by a pass, a status and the upkeep of leases.
//!
//! Owns the snapshots of names and of owners, and the lists of both. Refuses to change anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::codec::Range;
use twinspan_core::model::{LeaseId, Owner, Record, RecordKey, RegistryName, ServiceKey};
use twinspan_core::plan::departure::Departures;
use twinspan_core::plan::service::{Snapshot, ViewState};

use super::RegistryView;
use crate::registry::RegistryError;
use crate::registry::foreign_names::ForeignNames;
use crate::registry::records::{Affected, Counts};
use crate::registry::scope::Scope;

impl RegistryView {
    pub fn counts(&self) -> Counts {
        self.records.counts()
    }

    /// Every RegisteredService of this cluster that owns a record.
    pub fn owners(&self) -> impl Iterator<Item = &ServiceKey> {
        self.records.owners()
    }

    /// The names that have own or healed records of this cluster.
    pub fn names_of_ours(&self) -> BTreeSet<RegistryName> {
        self.records.names_of_ours()
    }

    /// The names with foreign records, if every record of the registry is known.
    pub fn foreign_names(&self) -> Option<&ForeignNames> {
        let complete = self.state == ViewState::Fresh && self.listed.contains(&Range::Everything);
        complete.then(|| self.records.foreign_names())
    }

    /// Whether this cluster has own or healed records under a name, or writes one.
    pub fn has_ours(&self, name: &RegistryName) -> bool {
        let layout = self.layout();
        let is_under = |key: &RecordKey| layout.split_key(key).is_some_and(|(of, _)| of == name.as_str().as_bytes());
        self.records.has_ours(name) || self.writing.keys().any(is_under)
    }

    /// The leases of own and healed records of this cluster, with the records on each.
    pub fn own_leases(&self) -> &BTreeMap<LeaseId, BTreeSet<RecordKey>> {
        self.records.leases()
    }

    /// Every record, in key order.
    pub fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.in_range(&Range::Everything).map(Arc::as_ref)
    }

    pub fn snapshot(&self, name: &RegistryName, owner: &Owner) -> Snapshot {
        let records = self.records.of_name(name.as_str().as_bytes());
        let under_other_names = self.records.owned_under_other_names(&owner.service, name);
        Snapshot {
            state: self.state_of(name),
            incarnation: self.incarnation(),
            revision: self.revision,
            under_other_names: under_other_names.map(|r| (r.key.clone(), r.clone())).collect(),
            departures: self.departures.of(name.as_str().as_bytes()),
            records,
        }
    }

    /// Only the owner's records, for a RegisteredService that no longer refers to this registry.
    pub fn snapshot_of_owner(&self, owner: &Owner) -> Snapshot {
        Snapshot {
            state: self.state,
            incarnation: self.incarnation(),
            revision: self.revision,
            records: Arc::default(),
            under_other_names: self.owned_by(&owner.service).map(|r| (r.key.clone(), r.clone())).collect(),
            departures: Departures::new(),
        }
    }

    /// The names that a change affected, that this session does not follow and that have own or healed records now.
    pub fn unfollowed(&self, affected: &Affected) -> Vec<RegistryName> {
        if self.scope == Scope::Everything {
            return Vec::new();
        }
        let legal = affected.names.iter().filter_map(|name| RegistryName::new(std::str::from_utf8(name).ok()?).ok());
        legal.filter(|name| !self.listed.contains(&Range::Service(name.clone())) && self.has_ours(name)).collect()
    }

    /// The error of a name whose range cannot be listed while others can.
    pub fn refusal(&self, name: &RegistryName) -> Option<&RegistryError> {
        self.refused.get(&Range::Service(name.clone()))
    }

    /// Whether the records under a name are known completely, and followed.
    pub fn is_fresh(&self, name: &RegistryName) -> bool {
        self.state_of(name) == ViewState::Fresh
    }

    /// Whether a list has arrived and is followed.
    pub fn is_followed(&self) -> bool {
        self.state == ViewState::Fresh
    }

    /// The keys of own records of a RegisteredService at these addresses, whatever their ports and names.
    pub fn own_at(&self, service: &ServiceKey, ips: &BTreeSet<IpAddr>) -> Vec<RecordKey> {
        let at = |record: &&Arc<Record>| record.endpoint_addresses().any(|addr| ips.contains(&addr.ip()));
        self.owned_by(service).filter(at).map(|record| record.key.clone()).collect()
    }

    /// The addresses of own records of a RegisteredService.
    pub fn own_addresses(&self, service: &ServiceKey) -> BTreeSet<IpAddr> {
        self.owned_by(service).flat_map(|record| record.endpoint_addresses()).map(|addr| addr.ip()).collect()
    }

    /// Whether a key is one of a RegisteredService's own records.
    pub fn is_owned_by(&self, service: &ServiceKey, key: &RecordKey) -> bool {
        self.records.is_owned_by(service, key)
    }

    fn state_of(&self, name: &RegistryName) -> ViewState {
        let listed = self.listed.contains(&Range::Everything) || self.listed.contains(&Range::Service(name.clone()));
        if listed { self.state } else { ViewState::Unknown }
    }

    /// Every own record of a RegisteredService, whatever its name.
    pub fn owned_by(&self, service: &ServiceKey) -> impl Iterator<Item = &Arc<Record>> {
        self.records.owned_by(service)
    }
}
