//! The state that replicas made, apart from the way to it.
//!
//! Owns T4 (the state after a storm is the state that comes from nothing) and the turns by which two runs are compared
//! (I7). Versions, leases, epochs and the packing of slices are no part of a state. Refuses to know the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::removals::{address_of, service_of};
use super::stores::{decode, is_own};
use super::{Violation, is_replica};
use crate::world::people::PERSON;
use crate::world::truth::Meddling;
use crate::world::{NAMESPACE, World, service_name};

/// Own records and endpoints, each with the content that clients see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(BTreeMap<String, String>);

impl State {
    pub fn of(world: &World) -> Self {
        let mut all = BTreeMap::new();
        for (key, record) in world.records().iter() {
            if is_own(world, key, record) {
                let text = decode(key, record);
                let addresses: Vec<String> = text.endpoint_addresses().map(|addr| addr.to_string()).collect();
                all.insert(String::from_utf8_lossy(key).into_owned(), addresses.join(" "));
            }
        }
        for cluster in &world.clusters {
            for slice in cluster.kube.all("endpointslices") {
                let Some(service) = service_of(&slice) else { continue };
                for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                    let port = slice["ports"][0]["port"].to_string();
                    let address = endpoint["addresses"][0].as_str().unwrap_or_default();
                    let name = format!("{} {service} {address}:{port}", cluster.name);
                    all.insert(name, endpoint["conditions"].to_string());
                }
            }
        }
        Self(all)
    }

    /// The first difference to the state that came from nothing.
    pub fn compare(&self, from_nothing: &Self, world: &World) -> Vec<Violation> {
        let names: BTreeSet<&String> = self.0.keys().chain(from_nothing.0.keys()).collect();
        let differs = names.into_iter().find(|name| self.0.get(*name) != from_nothing.0.get(*name));
        let text = differs.map(|name| {
            let (after, anew) = (self.0.get(name), from_nothing.0.get(name));
            format!("after the storm {name} is {after:?}, and from nothing {anew:?}")
        });
        text.map(|text| Violation::new("T4", world.now(), text)).into_iter().collect()
    }
}

/// People delete everything that replicas made.
pub fn delete_everything(world: &World) {
    for service in 0..world.size.services {
        world.truth.meddle(service, Meddling::Wish, world.now());
    }
    for (key, record) in world.records().iter() {
        if is_own(world, key, record) {
            world.etcd.delete(PERSON, key);
        }
    }
    for cluster in &world.clusters {
        let ours = cluster.kube.all("endpointslices");
        let names = ours.iter().filter(|slice| service_of(slice).is_some());
        for name in names.filter_map(|slice| slice["metadata"]["name"].as_str()) {
            world.kubectl(cluster.kube.delete(PERSON, "endpointslices", NAMESPACE, name));
        }
    }
}

/// When each instance came to a side by a replica and went from it, in order and without times.
pub fn turns(world: &World) -> BTreeMap<String, Vec<bool>> {
    let mut all: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    let services: BTreeSet<String> = (0..world.size.services).map(service_name).collect();
    let mut turn = |name: String, there: bool| {
        let turns = all.entry(name).or_default();
        if turns.last() != Some(&there) {
            turns.push(there);
        }
    };
    for change in world.registry_history().iter().filter(|change| is_replica(&change.author)) {
        if let Some((addr, name)) = address_of(&change.key).filter(|(_, name)| services.contains(*name)) {
            turn(format!("record {name}/{addr}"), change.after.is_some());
        }
    }
    for cluster in &world.clusters {
        let mut slices: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
        for change in cluster.kube.changes(0).iter().filter(|change| &*change.resource == "endpointslices") {
            let slice = change.after.as_deref().or(change.before.as_deref());
            let Some(service) = slice.and_then(service_of).filter(|name| services.contains(*name)) else { continue };
            let before: BTreeSet<SocketAddr> = slices.values().flatten().copied().collect();
            let endpoints = change.after.as_deref().map(super::removals::endpoints_of).unwrap_or_default();
            slices.insert(change.name.to_string(), endpoints);
            let after: BTreeSet<SocketAddr> = slices.values().flatten().copied().collect();
            let name = |addr: &SocketAddr| format!("endpoint {} {service} {addr}", cluster.name);
            before.difference(&after).for_each(|addr| turn(name(addr), false));
            after.difference(&before).for_each(|addr| turn(name(addr), true));
        }
    }
    all
}

/// Whether an endpoint stays although it has no record: it lost its registration, and would not come from nothing.
pub fn keeps_lost_ones(world: &World) -> bool {
    let lost = |object: &Arc<Value>| object["status"]["instances"]["lost"].as_u64().unwrap_or_default() > 0;
    world.clusters.iter().any(|cluster| cluster.kube.all("registeredservices").iter().any(lost))
}
