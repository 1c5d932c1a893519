//! The answers that clients get, every second.
//!
//! Owns T1 (a service with a living instance never resolves to nothing) and T2 (no client is sent to an address that
//! nobody ever ran): a Kitex client reads the registry, a DNS reader all ready endpoints of all slices. Refuses to know
//! which side an instance comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::Violation;
use super::removals::{address_of, endpoints_of};
use super::stores::decode;
use crate::world::people::is_junk;
use crate::world::truth::Meddling;
use crate::world::{World, service_name};

/// The interval at which clients ask.
const INTERVAL: Duration = Duration::from_secs(1);
/// An answer that was there for so long is known.
const KNOWN: Duration = Duration::from_secs(5);
/// The news of a person's wish, and the hold that may put it off.
const WISH: Duration = Duration::from_secs(500);
/// A fault and the lease that ends because of it.
const FAULT: Duration = Duration::from_secs(200);

/// Asks until the run ends.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    found: Arc<Mutex<Vec<Violation>>>,
}

/// One client: of the registry, or of the DNS of one cluster, and its service.
type View = (Option<usize>, usize);

impl Clients {
    /// The violations so far.
    pub fn found(&self) -> Vec<Violation> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs until it is dropped.
    pub async fn ask(self, world: World) {
        let mut known: BTreeMap<View, BTreeMap<SocketAddr, Duration>> = BTreeMap::new();
        let mut told = BTreeSet::new();
        loop {
            sleep(INTERVAL).await;
            for (view, answer) in answers(&world) {
                let before = known.entry(view).or_default();
                let verdict = judge(&world, view, before, &answer);
                before.retain(|addr, _| answer.contains(addr));
                for addr in answer {
                    before.entry(addr).or_insert_with(|| world.now());
                }
                if let Some(violation) = verdict
                    && told.insert((view, violation.invariant))
                {
                    self.found.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
                }
            }
        }
    }
}

fn answers(world: &World) -> BTreeMap<View, BTreeSet<SocketAddr>> {
    let mut answers = BTreeMap::new();
    let services: BTreeMap<String, usize> = (0..world.size.services).map(|n| (service_name(n), n)).collect();
    services.values().for_each(|service| drop(answers.insert((None, *service), BTreeSet::new())));
    for (key, record) in world.etcd.records() {
        let Some((addr, name)) = address_of(&key) else { continue };
        let Some(service) = services.get(name) else { continue };
        if decode(&key, &record).endpoint_addresses().next().is_some() {
            answers.entry((None, *service)).or_insert_with(BTreeSet::new).insert(addr);
        }
    }
    for (number, cluster) in world.clusters.iter().enumerate() {
        services.values().for_each(|service| drop(answers.insert((Some(number), *service), BTreeSet::new())));
        for slice in cluster.kube.all("endpointslices") {
            let name = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
            let Some(service) = services.get(name) else { continue };
            answers.entry((Some(number), *service)).or_insert_with(BTreeSet::new).extend(endpoints_of(&ready(slice)));
        }
    }
    answers
}

/// The slice with its ready endpoints alone.
fn ready(mut slice: Value) -> Value {
    if let Some(endpoints) = slice["endpoints"].as_array_mut() {
        endpoints.retain(|endpoint| endpoint["conditions"]["ready"] != false);
    }
    slice
}

fn judge(
    world: &World,
    view: View,
    before: &BTreeMap<SocketAddr, Duration>,
    answer: &BTreeSet<SocketAddr>,
) -> Option<Violation> {
    let ((side, service), now) = (view, world.now());
    let who = side.map_or("the registry".to_owned(), |n| format!("DNS of {}", world.clusters[n].name));
    let ghost = answer.iter().find(|addr| world.truth.get(**addr).is_none() && !is_junk(**addr));
    if let Some(ghost) = ghost {
        return Some(Violation::new("T2", now, format!("{who} has {ghost}, which nobody ever ran")));
    }
    let serves = |addr: &SocketAddr| world.truth.get(*addr).is_some_and(|instance| instance.serves);
    if answer.iter().any(serves) {
        return None;
    }
    // Somebody is gone from the answer though it serves, and nobody is left.
    let lost = before.iter().find(|(addr, since)| {
        !answer.contains(addr) && now >= **since + KNOWN && world.truth.served(**addr, **since, now)
    });
    let wished = world.truth.meddled_between(service, Meddling::Wish, now.saturating_sub(WISH), now);
    // Without the bridge the leases end; a registry that lost its data has nothing.
    let excused = side.is_none()
        && (world.was_impaired(now.saturating_sub(FAULT), now)
            || world.truth.meddled_between(service, Meddling::Loss, now.saturating_sub(FAULT), now));
    let (addr, _) = lost.filter(|_| !wished && !excused)?;
    Some(Violation::new("T1", now, format!("{who} has no living instance of echo-{service}, and had {addr}")))
}
