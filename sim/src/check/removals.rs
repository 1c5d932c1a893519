//! Nothing that serves is taken away.
//!
//! Owns I4 and I5 as users feel them: a pod that has been ready for longer than any news takes stays registered, and a
//! server that has been registered for as long stays an endpoint, unless a person or a loss of data meddled with the
//! service. With it goes T1: a service with a living instance never resolves to nothing. Refuses to know evidence,
//! guards and holds: whatever justified a removal, the instance serves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::stores::decode;
use super::{Violation, is_replica};
use crate::wire::Sent;
use crate::world::history::RESTORE;
pub use crate::world::keys::address_of;
use crate::world::servers::VMS;
use crate::world::truth::Meddling;
use crate::world::{World, service_name};

/// The oldest news on which a replica may act: the longest partition or freeze, and a lease that ends after it.
const NEWS: Duration = Duration::from_secs(200);
/// The wish of a person justifies removals for so long: a hold, and the news of it.
const MEDDLED: Duration = Duration::from_secs(500);

/// Judges the removals of a run. `calm` is the time at which both sides were equal for the first time.
pub fn check(world: &World, calm: Duration) -> Vec<Violation> {
    let mut violations = records(world, calm);
    violations.extend(endpoints(world, calm));
    violations
}

fn meddled(world: &World, name: &str, at: Duration) -> bool {
    let service = (0..world.size.services).find(|service| service_name(*service) == name);
    service.is_none_or(|service| world.truth.meddled_between(service, Meddling::Wish, at.saturating_sub(MEDDLED), at))
}

fn records(world: &World, calm: Duration) -> Vec<Violation> {
    let mut violations = Vec::new();
    for change in world.registry_history().iter().filter(|change| change.time > calm && change.after.is_none()) {
        let Some((addr, name)) = address_of(&change.key) else { continue };
        let Some(before) = &change.before else { continue };
        let before = decode(&change.key, before);
        let own = world.clusters.iter().find(|cluster| before.own(&cluster.name).is_some());
        let by_replica = is_replica(&change.author);
        let expired = change.expired_lease.is_some();
        let from = change.time.saturating_sub(NEWS);
        let served = world.truth.served(addr, from, change.time);
        if own.is_none() || !served || meddled(world, name, change.time) {
            continue;
        }
        // Another record of the same address may take its place in the same transaction.
        if by_replica {
            let text = format!("{} withdrew {name}/{addr}, which serves", change.author);
            violations.push(Violation::new("I5", change.time, text));
        } else if expired && !world.was_impaired(change.time.saturating_sub(NEWS), change.time) {
            let text = format!("the lease of {name}/{addr} expired while replicas were well");
            violations.push(Violation::new("I4", change.time, text));
        }
    }
    violations
}

/// When each key of a server outside was there.
struct Presence(BTreeMap<Vec<u8>, Vec<(Duration, bool)>>);

impl Presence {
    fn of(world: &World) -> Self {
        let mut all: BTreeMap<Vec<u8>, Vec<(Duration, bool)>> = BTreeMap::new();
        for change in world.registry_history() {
            // A replica may heal what a server registered.
            let there = change.after.is_some() && (change.author == VMS || change.author == RESTORE);
            let gone = change.after.is_none();
            if there || gone {
                all.entry(change.key.clone()).or_default().push((change.time, there));
            }
        }
        Self(all)
    }

    fn throughout(&self, key: &[u8], from: Duration, to: Duration) -> bool {
        let Some(changes) = self.0.get(key) else { return false };
        let before = changes.iter().rev().find(|(at, _)| *at <= from);
        before.is_some_and(|(_, there)| *there) && !changes.iter().any(|(at, there)| *at > from && *at <= to && !there)
    }
}

/// The endpoints of a slice.
pub fn endpoints_of(slice: &Value) -> BTreeSet<SocketAddr> {
    endpoints_where(slice, |_| true)
}

/// The endpoints of a slice to which clients are sent.
pub fn ready_endpoints_of(slice: &Value) -> BTreeSet<SocketAddr> {
    endpoints_where(slice, |endpoint| endpoint["conditions"]["ready"] != false)
}

fn endpoints_where(slice: &Value, is: impl Fn(&Value) -> bool) -> BTreeSet<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_u64());
    let ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port).ok()).collect();
    let endpoints = slice["endpoints"].as_array().into_iter().flatten().filter(|endpoint| is(endpoint));
    let addresses = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    let ips: Vec<std::net::IpAddr> =
        addresses.filter_map(|address| address.as_str().and_then(|text| text.parse().ok())).collect();
    ips.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect()
}

/// The Service of a slice of ours.
pub fn service_of(slice: &Value) -> Option<&str> {
    let labels = &slice["metadata"]["labels"];
    (labels["endpointslice.kubernetes.io/managed-by"] == "twinspan.dev")
        .then(|| labels["kubernetes.io/service-name"].as_str())
        .flatten()
}

/// An endpoint that a replica took out of the slices of a service.
#[derive(Clone, Debug)]
pub struct Removed {
    pub at: Duration,
    pub by: String,
    pub cluster: usize,
    pub name: String,
    pub addr: SocketAddr,
    pub slice: String,
}

impl Removed {
    /// The request that took it out. A request may be under way for as long as a partition lasts.
    pub fn request<'a>(&self, log: &'a [Sent]) -> Option<&'a Sent> {
        let path = format!("/endpointslices/{}?", self.slice);
        let of_slice = |sent: &&Sent| sent.what.contains(&path) && !sent.what.starts_with("GET");
        log.iter().rev().find(|sent| sent.by == self.by && sent.at <= self.at && of_slice(sent))
    }
}

fn endpoints(world: &World, calm: Duration) -> Vec<Violation> {
    let (mut violations, presence) = (Vec::new(), Presence::of(world));
    for Removed { at, by, name, addr, .. } in removed_endpoints(world, calm) {
        let from = at.saturating_sub(NEWS);
        let key = world.key_of(&name, &addr.to_string());
        let registered = presence.throughout(key.as_bytes(), from, at);
        if registered && world.truth.served(addr, from, at) && !meddled(world, &name, at) {
            let text = format!("{by} removed {name}/{addr}, which serves and is registered");
            violations.push(Violation::new("I5", at, text));
        }
    }
    violations
}

/// Every endpoint that a replica took out since then.
pub fn removed_endpoints(world: &World, calm: Duration) -> Vec<Removed> {
    let mut removed = Vec::new();
    for (number, cluster) in world.clusters.iter().enumerate() {
        let mut slices: BTreeMap<String, (String, BTreeSet<SocketAddr>)> = BTreeMap::new();
        for change in cluster.kube.changes(0).iter().filter(|change| &*change.resource == "endpointslices") {
            let after = change.after.as_deref();
            let name = after.or(change.before.as_deref()).and_then(service_of).map(ToOwned::to_owned);
            let Some(name) = name else { continue };
            let union = |slices: &BTreeMap<String, (String, BTreeSet<SocketAddr>)>| -> BTreeSet<SocketAddr> {
                slices.values().filter(|(of, _)| *of == name).flat_map(|(_, all)| all.iter().copied()).collect()
            };
            let before = union(&slices);
            match after {
                Some(slice) => drop(slices.insert(change.name.clone(), (name.clone(), endpoints_of(slice)))),
                None => drop(slices.remove(&change.name)),
            }
            if change.at <= calm || !is_replica(&change.author) {
                continue;
            }
            removed.extend(before.difference(&union(&slices)).map(|addr| Removed {
                at: change.at,
                by: change.author.to_string(),
                cluster: number,
                name: name.clone(),
                addr: *addr,
                slice: change.name.clone(),
            }));
        }
    }
    removed
}
