//! The EndpointSlices of the cluster, by Service and by owner.
//!
//! Owns the version of each slice that counts: the answer to our own write is entered before the watch reports it
//! (`docs/decisions/0003`). Refuses to judge endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twinspan_core::model::{ObjectKey, ServiceKey, Slice};

use super::convert::OthersMetadata;
use super::groups::Groups;
use super::reach::WHOLE;

#[derive(Debug, Default)]
pub struct Slices {
    by_key: BTreeMap<Arc<ObjectKey>, Arc<Slice>>,
    by_service: Groups<ServiceKey, String>,
    by_owner: Groups<String, Arc<ObjectKey>>,
    /// Slices that Twinspan filled, by the RegisteredService that their reference or name tells of.
    by_keeper: Groups<ServiceKey, Arc<ObjectKey>>,
    /// The marks of other programs on slices of ours, where there are some.
    others: BTreeMap<ObjectKey, OthersMetadata>,
    /// Slices that are being written.
    writing: BTreeMap<ObjectKey, Writing>,
    /// Slices written since the current list began: the list may lack them.
    written_since_list: BTreeSet<ObjectKey>,
    /// The resourceVersion up to which a list and the watch after it have told everything, of each watched part that
    /// has versions which can be compared.
    told: BTreeMap<String, u64>,
}

/// A write of a slice that has not been answered.
#[derive(Debug)]
struct Writing {
    by: ServiceKey,
    /// The last version that the watch showed meanwhile.
    seen: Option<String>,
}

impl Slices {
    /// A RegisteredService is about to write a slice.
    pub fn begin_write(&mut self, key: &ObjectKey, by: &ServiceKey) {
        self.writing.insert(key.clone(), Writing { by: by.clone(), seen: None });
    }

    /// The write was answered with this version, or failed. Returns true if the watch showed another version meanwhile,
    /// of which the writer was not told.
    pub fn end_write(&mut self, key: &ObjectKey, version: Option<&str>) -> bool {
        let seen = self.writing.remove(key).and_then(|writing| writing.seen);
        seen.is_some_and(|seen| Some(seen.as_str()) != version)
    }

    /// The watch shows a version of a slice: its writer, who need not be told, if it is being written.
    pub fn echo(&mut self, key: &ObjectKey, version: &str) -> Option<ServiceKey> {
        let writing = self.writing.get_mut(key)?;
        writing.seen = Some(version.to_owned());
        Some(writing.by.clone())
    }

    pub fn of_service(&self, service: &ServiceKey) -> Vec<Arc<Slice>> {
        let names = self.by_service.of(service);
        names.filter_map(|name| self.by_key.get(&ObjectKey::new(&service.namespace, name)).cloned()).collect()
    }

    /// Slices with an owner reference to the RegisteredService.
    pub fn of_owner(&self, uid: &str) -> Vec<Arc<Slice>> {
        let keys = self.by_owner.of(uid);
        keys.filter_map(|key| self.by_key.get(key).cloned()).collect()
    }

    pub fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Slice>> {
        let here = self.by_key.range(ObjectKey::new(namespace, "")..);
        here.take_while(move |(key, _)| key.namespace == namespace).map(|(_, slice)| slice)
    }

    /// Slices of ours that tell of the RegisteredService, by an owner reference with whatever UID or by their name.
    pub fn of_keeper(&self, key: &ServiceKey) -> Vec<Arc<Slice>> {
        let keys = self.by_keeper.of(key);
        keys.filter_map(|key| self.by_key.get(key).cloned()).collect()
    }

    /// The RegisteredServices that slices of ours tell of.
    pub fn keepers(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_keeper.keys()
    }

    /// The version of a slice that is known.
    pub fn version(&self, key: &ObjectKey) -> Option<&str> {
        self.by_key.get(key).map(|slice| slice.resource_version.as_str())
    }

    /// The marks of other programs on a slice.
    pub fn others(&self, key: &ObjectKey) -> OthersMetadata {
        self.others.get(key).cloned().unwrap_or_default()
    }

    /// Enters what other programs put onto a slice of ours, as its last version shows it.
    pub fn set_others(&mut self, key: &ObjectKey, others: OthersMetadata) {
        let ours = self.by_key.get(key).is_some_and(|slice| slice.is_ours());
        if ours && others != OthersMetadata::default() {
            self.others.insert(key.clone(), others);
        } else {
            self.others.remove(key);
        }
    }

    /// A list of slices begins, of one namespace or of [`WHOLE`].
    pub fn list_begins(&mut self, part: &str) {
        self.written_since_list.retain(|key| part != WHOLE && key.namespace != part);
    }

    /// A list of this version is complete, or the watch has told everything up to it.
    pub fn set_told(&mut self, part: &str, version: &str) {
        match version.parse() {
            Ok(version) => drop(self.told.insert(part.to_owned(), version)),
            Err(_) => drop(self.told.remove(part)),
        }
    }

    /// Slices that the last complete list names if they still exist.
    pub fn listable(&self) -> BTreeSet<ObjectKey> {
        let lacks = |(key, slice): &(&Arc<ObjectKey>, &Arc<Slice>)| {
            self.written_since_list.contains(*key) && !self.was_told(&key.namespace, &slice.resource_version)
        };
        self.by_key.iter().filter(|entry| !lacks(entry)).map(|(key, _)| ObjectKey::clone(key)).collect()
    }

    fn was_told(&self, namespace: &str, version: &str) -> bool {
        let told = self.told.get(namespace).or_else(|| self.told.get(WHOLE));
        told.zip(version.parse::<u64>().ok()).is_some_and(|(told, version)| version <= *told)
    }

    /// Whether the answer to our own write is newer than a version that the watch shows, or at which it shows the end
    /// of a slice of this name.
    pub fn is_outdated(&self, key: &ObjectKey, version: &str) -> bool {
        let written = self.by_key.get(key).filter(|_| self.written_since_list.contains(key));
        written.is_some_and(|written| is_newer(&written.resource_version, version))
    }

    /// Enters the slice in the answer to our own write. Returns the affected Services: the watch will show a version
    /// that is known already. An answer that comes later than the watch adds nothing: a later event, or a list, may
    /// have shown that the slice is gone.
    pub fn wrote(&mut self, namespace: &str, slice: Slice) -> Vec<ServiceKey> {
        let key = ObjectKey::new(namespace, &slice.name);
        if self.was_told(namespace, &slice.resource_version) {
            return Vec::new();
        }
        let services = self.put(namespace, slice);
        self.written_since_list.insert(key);
        services
    }

    /// Enters a slice if it is newer than the known version: the watch may lag behind the answers to our own writes
    /// (resourceVersions of one kind are ordered, KEP-5504). Returns the affected Services.
    pub fn put(&mut self, namespace: &str, slice: Slice) -> Vec<ServiceKey> {
        let key = ObjectKey::new(namespace, &slice.name);
        if self.by_key.get(&key).is_some_and(|known| !is_newer(&slice.resource_version, &known.resource_version)) {
            return Vec::new();
        }
        let mut affected = self.remove(&key);
        let key = Arc::new(key);
        if let Some(service) = &slice.service {
            let service = ServiceKey::new(namespace, service);
            self.by_service.insert(service.clone(), slice.name.clone());
            if !affected.contains(&service) {
                affected.push(service);
            }
        }
        if let Some(uid) = &slice.owner_uid {
            self.by_owner.insert(uid.clone(), key.clone());
        }
        if let Some(keeper) = keeper(namespace, &slice) {
            self.by_keeper.insert(keeper, key.clone());
        }
        self.by_key.insert(key, Arc::new(slice));
        affected
    }

    /// The API server accepted our delete of this version: the slice no longer counts, and the watch will report when
    /// it is gone. A later one of its name counts. Returns the affected Service.
    pub fn set_deleting(&mut self, key: &ObjectKey, version: &str) -> Vec<ServiceKey> {
        let known = self.by_key.get_mut(key).filter(|slice| slice.resource_version == version);
        let Some(slice) = known else { return Vec::new() };
        Arc::make_mut(slice).deleting = true;
        slice.service.iter().map(|service| ServiceKey::new(&key.namespace, service)).collect()
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Vec<ServiceKey> {
        // An event that reports it, or its end, was read after our write.
        self.written_since_list.remove(key);
        let Some((key, slice)) = self.by_key.remove_entry(key) else { return Vec::new() };
        self.others.remove(&*key);
        if let Some(keeper) = keeper(&key.namespace, &slice) {
            self.by_keeper.remove(&keeper, &key);
        }
        if let Some(uid) = &slice.owner_uid {
            self.by_owner.remove(uid, &key);
        }
        let Some(service) = slice.service.as_ref().map(|name| ServiceKey::new(&key.namespace, name)) else {
            return Vec::new();
        };
        self.by_service.remove(&service, &slice.name);
        vec![service]
    }
}

fn keeper(namespace: &str, slice: &Slice) -> Option<ServiceKey> {
    slice.keeper.as_ref().filter(|_| slice.is_ours()).map(|name| ServiceKey::new(namespace, name))
}

fn is_newer(incoming: &str, known: &str) -> bool {
    match (incoming.parse::<u64>(), known.parse::<u64>()) {
        (Ok(incoming), Ok(known)) => incoming > known,
        // Not comparable: the API server's version counts.
        _ => incoming != known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::model::{AddressType, Family};

    fn slice(name: &str, version: &str, service: Option<&str>, owner: Option<&str>) -> Slice {
        Slice {
            name: name.into(),
            resource_version: version.into(),
            service: service.map(Into::into),
            managed_by: None,
            owner_uid: owner.map(Into::into),
            keeper: None,
            others_labels: BTreeSet::new(),
            deleting: false,
            address_type: AddressType::Ip(Family::V4),
            ports: Vec::new(),
            endpoints: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn service(name: &str) -> ServiceKey {
        ServiceKey::new("shop", name)
    }

    #[test]
    fn an_older_version_never_replaces_the_answer_to_our_own_write() {
        let mut slices = Slices::default();
        slices.put("shop", slice("s", "10", Some("echo"), Some("uid")));
        assert_eq!(slices.put("shop", slice("s", "9", Some("other"), None)), []);
        assert_eq!(slices.of_service(&service("echo")).len(), 1);
        assert_eq!(slices.of_owner("uid")[0].resource_version, "10");
    }

    #[test]
    fn a_slice_that_changes_its_service_affects_both() {
        let mut slices = Slices::default();
        slices.put("shop", slice("s", "1", Some("a"), None));
        assert_eq!(slices.put("shop", slice("s", "2", Some("b"), None)), [service("a"), service("b")]);
        assert_eq!(slices.of_service(&service("a")), []);
        assert_eq!(slices.remove(&ObjectKey::new("shop", "s")), [service("b")]);
        assert_eq!(slices.of_service(&service("b")), []);
    }

    #[test]
    fn an_answer_that_comes_later_than_the_watch_adds_nothing() {
        let mut slices = Slices::default();
        slices.list_begins(WHOLE);
        slices.set_told(WHOLE, "10");
        // The watch showed the slice at 11, and its end at 12.
        slices.set_told(WHOLE, "12");
        assert_eq!(slices.wrote("shop", slice("s", "11", Some("echo"), None)), []);
        assert_eq!(slices.of_service(&service("echo")), []);
        assert_eq!(slices.wrote("shop", slice("s", "13", Some("echo"), None)), [service("echo")]);
    }

    #[test]
    fn a_list_that_was_read_after_the_end_of_a_written_slice_removes_it() {
        let mut slices = Slices::default();
        slices.list_begins(WHOLE);
        slices.wrote("shop", slice("s", "11", Some("echo"), None));
        slices.set_told(WHOLE, "12");
        assert_eq!(slices.listable(), BTreeSet::from([ObjectKey::new("shop", "s")]));
    }

    #[test]
    fn the_end_of_an_earlier_slice_of_the_name_does_not_end_a_written_one() {
        let mut slices = Slices::default();
        let key = ObjectKey::new("shop", "s");
        slices.put("shop", slice("s", "1", Some("echo"), None));
        slices.wrote("shop", slice("s", "3", Some("echo"), None));
        assert!(slices.is_outdated(&key, "2") && !slices.is_outdated(&key, "4"));
        // The answer to a delete comes after the name was used again.
        assert_eq!(slices.set_deleting(&key, "1"), []);
        assert!(!slices.of_service(&service("echo"))[0].deleting);
        assert_eq!(slices.set_deleting(&key, "3"), [service("echo")]);
    }

    #[test]
    fn a_slice_written_while_a_list_was_in_flight_is_not_removed() {
        let mut slices = Slices::default();
        slices.put("shop", slice("old", "1", Some("echo"), None));
        slices.list_begins(WHOLE);
        slices.wrote("shop", slice("new", "2", Some("echo"), None));
        assert_eq!(slices.listable(), BTreeSet::from([ObjectKey::new("shop", "old")]));
        slices.list_begins(WHOLE);
        assert_eq!(slices.listable().len(), 2, "the next list has both");
    }
}
