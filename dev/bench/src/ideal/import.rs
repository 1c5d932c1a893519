//! Slices of an ideal bridge: which addresses each holds, and which of them is to be written.
//!
//! Owns the packing, 100 endpoints to a slice and one slice for a change. Refuses to send a write.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::records::{self, BRIDGE, Place, SERVICE_LABEL, Slice};

const ENDPOINTS: usize = 100;

#[derive(Debug, Default)]
struct Held {
    service: String,
    addresses: BTreeSet<Ipv4Addr>,
    /// None before it exists.
    version: Option<String>,
}

#[derive(Debug)]
pub struct Imports {
    namespace: String,
    slices: BTreeMap<String, Held>,
    of_service: BTreeMap<String, BTreeSet<String>>,
    of_address: BTreeMap<(String, Ipv4Addr), String>,
    changed: BTreeSet<String>,
    under_way: BTreeSet<String>,
}

impl Imports {
    pub fn new(place: &Place) -> Self {
        Self {
            namespace: place.namespace.clone(),
            slices: BTreeMap::new(),
            of_service: BTreeMap::new(),
            of_address: BTreeMap::new(),
            changed: BTreeSet::new(),
            under_way: BTreeSet::new(),
        }
    }

    /// A record that a server wrote.
    pub fn put(&mut self, service: &str, address: Ipv4Addr) {
        let key = (service.to_owned(), address);
        if self.of_address.contains_key(&key) {
            return;
        }
        let names = self.of_service.entry(service.to_owned()).or_default();
        let room = names.iter().find(|name| self.slices[*name].addresses.len() < ENDPOINTS).cloned();
        let name = room.unwrap_or_else(|| format!("{service}.{}", names.len()));
        names.insert(name.clone());
        let held = self.slices.entry(name.clone()).or_default();
        held.service = service.to_owned();
        held.addresses.insert(address);
        self.of_address.insert(key, name.clone());
        self.changed.insert(name);
    }

    /// A record that was deleted, whoever wrote it.
    pub fn deleted(&mut self, service: &str, address: Ipv4Addr) {
        let Some(name) = self.of_address.remove(&(service.to_owned(), address)) else { return };
        if let Some(held) = self.slices.get_mut(&name) {
            held.addresses.remove(&address);
        }
        self.changed.insert(name);
    }

    /// A slice of the bridge that a watch shows. Its own answers are newer.
    pub fn listed(&mut self, slice: &EndpointSlice) {
        let name = records::name(slice).to_owned();
        let service = records::label(slice, SERVICE_LABEL);
        let known = self.slices.get(&name).is_some_and(|held| held.version.is_some());
        if !known && !self.under_way.contains(&name) {
            self.of_service.entry(service.to_owned()).or_default().insert(name.clone());
            let held = self.slices.entry(name).or_default();
            held.service = service.to_owned();
            held.version = slice.metadata.resource_version.clone();
        }
    }

    /// The answer to a write.
    pub fn replaced(&mut self, slice: &EndpointSlice) {
        let name = records::name(slice);
        self.under_way.remove(name);
        if let Some(held) = self.slices.get_mut(name) {
            held.version = slice.metadata.resource_version.clone();
        }
    }

    /// The slices to write now. One of which a write is under way waits for the answer.
    pub fn due(&mut self) -> Vec<EndpointSlice> {
        let due: Vec<String> = self.changed.difference(&self.under_way).cloned().collect();
        due.into_iter()
            .map(|name| {
                self.changed.remove(&name);
                let held = &self.slices[&name];
                let (namespace, service, version) = (&*self.namespace, &*held.service, held.version.clone());
                let slice = Slice { namespace, name: &name, service, manager: BRIDGE, version };
                let slice = slice.with(held.addresses.iter().copied());
                self.under_way.insert(name);
                slice
            })
            .collect()
    }

    pub fn is_settled(&self) -> bool {
        self.changed.is_empty() && self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::address;

    #[test]
    fn a_change_is_one_slice_and_waits_for_the_answer_before() {
        let mut imports = Imports::new(&Place::new("shop", "bench/shop"));
        (0..150).for_each(|n| imports.put("echo", address(n)));
        let mut first = imports.due();
        assert_eq!(first.iter().map(|slice| slice.endpoints.len()).collect::<Vec<_>>(), [100, 50]);
        imports.deleted("echo", address(0));
        assert!(imports.due().is_empty());
        first[0].metadata.resource_version = Some("7".to_owned());
        first.iter().for_each(|slice| imports.replaced(slice));
        let second = imports.due();
        assert_eq!(second.len(), 1);
        assert_eq!((second[0].endpoints.len(), second[0].metadata.resource_version.as_deref()), (99, Some("7")));
        imports.replaced(&second[0]);
        assert!(imports.is_settled());
    }
}
