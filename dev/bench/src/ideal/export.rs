//! Records of an ideal bridge: which of them the slices ask for, and which are to be written.
//!
//! Owns the batches. Refuses to send one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::records::{self, Place, SERVICE_LABEL};
use crate::registry::{BATCH, Write};

#[derive(Debug)]
pub struct Exports {
    place: Place,
    /// The instances that each slice wants to export.
    sources: BTreeMap<String, BTreeSet<(String, Ipv4Addr)>>,
    /// The revisions of the own records.
    revisions: BTreeMap<String, i64>,
    /// The value that each changed key is to have.
    changed: BTreeMap<String, Option<String>>,
    /// The keys of the batches that are under way, and whether the key will be there.
    under_way: BTreeMap<String, bool>,
    batches: usize,
    /// True once the bridge has written: from then on its own answers tell the revisions.
    writes: bool,
}

impl Exports {
    pub fn new(place: &Place) -> Self {
        Self {
            place: place.clone(),
            sources: BTreeMap::new(),
            revisions: BTreeMap::new(),
            changed: BTreeMap::new(),
            under_way: BTreeMap::new(),
            batches: 0,
            writes: false,
        }
    }

    /// A slice of somebody else, or its end.
    pub fn source(&mut self, name: &str, slice: Option<&EndpointSlice>) {
        let wanted: BTreeSet<(String, Ipv4Addr)> = slice.map_or_else(BTreeSet::new, |slice| {
            let service = records::label(slice, SERVICE_LABEL);
            records::addresses(slice).map(|address| (service.to_owned(), address)).collect()
        });
        let before = self.sources.insert(name.to_owned(), wanted.clone()).unwrap_or_default();
        for (service, address) in before.difference(&wanted) {
            self.changed.insert(self.place.key(service, *address), None);
        }
        for (service, address) in wanted.difference(&before) {
            let key = self.place.key(service, *address);
            let leaves = self.changed.contains_key(&key) || self.under_way.get(&key) == Some(&false);
            if leaves || !self.revisions.contains_key(&key) {
                let owner = format!("bench/{}/{service}", self.place.namespace);
                self.changed.insert(key, Some(records::value(*address, Some(&owner))));
            }
        }
    }

    /// An own record that the first list shows.
    pub fn own(&mut self, service: &str, address: Ipv4Addr, revision: i64) {
        if !self.writes {
            self.revisions.insert(self.place.key(service, address), revision);
        }
    }

    /// The next batch; none while so many are under way.
    pub fn due(&mut self, at_once: usize) -> Option<Vec<Write>> {
        if self.batches >= at_once {
            return None;
        }
        let free = |key: &&String| !self.under_way.contains_key(*key);
        let keys: Vec<String> = self.changed.keys().filter(free).take(BATCH).cloned().collect();
        let mut writes = Vec::new();
        for key in keys {
            let value = self.changed.remove(&key).flatten();
            let if_revision = self.revisions.get(&key).copied().unwrap_or(0);
            if value.is_some() || if_revision > 0 {
                self.under_way.insert(key.clone(), value.is_some());
                writes.push(Write { key, if_revision, value });
            }
        }
        if writes.is_empty() {
            return None;
        }
        self.writes = true;
        self.batches += 1;
        Some(writes)
    }

    /// The answer to a batch.
    pub fn committed(&mut self, keys: &[String], revision: i64) {
        self.batches -= 1;
        for key in keys {
            if self.under_way.remove(key).unwrap_or_default() {
                self.revisions.insert(key.clone(), revision);
            } else {
                self.revisions.remove(key);
            }
        }
    }

    pub fn is_settled(&self) -> bool {
        self.changed.is_empty() && self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{SOURCE, Slice, address};

    fn slice(n: usize) -> EndpointSlice {
        let slice = Slice { namespace: "shop", name: "a", service: "echo", manager: SOURCE, version: None };
        slice.with((0..n).map(address))
    }

    #[test]
    fn a_batch_has_a_bound_and_a_deletion_names_the_revision() {
        let mut exports = Exports::new(&Place::new("shop", "bench/shop"));
        exports.source("a", Some(&slice(200)));
        let batches: Vec<Vec<Write>> = std::iter::from_fn(|| exports.due(4)).collect();
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH, 73]);
        assert!(batches.iter().flatten().all(|write| write.if_revision == 0));
        exports.source("a", Some(&slice(199)));
        for batch in &batches {
            let keys: Vec<String> = batch.iter().map(|write| write.key.clone()).collect();
            exports.committed(&keys, 9);
        }
        let writes = exports.due(4).unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!((writes[0].if_revision, &writes[0].value), (9, &None));
        exports.committed(&[writes[0].key.clone()], 10);
        assert!(exports.due(4).is_none() && exports.is_settled());
    }
}
