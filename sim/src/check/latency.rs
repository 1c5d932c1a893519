//! Within its bound each side follows what happens.
//!
//! Owns I3 for a quiet time, in which no fault lasts and nobody meddles: a pod that is ready has its record within
//! seconds, a pod that is not has none, and a server that died is no endpoint once its lease has ended and a connection
//! was refused (`docs/departures.md`). Refuses to know storms.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::removals::{endpoints_of, service_of};
use super::stores::decode;
use super::{Violation, rest};
use crate::world::people::PERSON;
use crate::world::{LEASE_TTL, World, service_name};

/// The time for which an own delete that counts as a departure would hold the export back (`LAST` of
/// `core/src/plan/departure/mod.rs`) is twice as long.
const REACTION: Duration = Duration::from_secs(5);
/// The time in which a leader answers one change.
const MOMENT: Duration = Duration::from_secs(1);
/// The lease of a server outside, the quiet time of the guard (`QUIET` of `core/src/plan/departure/guard.rs`) and a
/// connection that is refused.
const DEATH: Duration = Duration::from_secs(LEASE_TTL + 25);
/// The time after a fault, or after a person meddled, in which nobody has to be quick.
const BEFORE: Duration = Duration::from_secs(90);

/// Judges every instance. `calm` is the time at which both sides were equal for the first time.
pub fn check(world: &World, calm: Duration) -> Vec<Violation> {
    let mut violations = pods(world, calm);
    violations.extend(dead_servers(world, calm));
    violations
}

fn disturbed(world: &World, service: usize, from: Duration, to: Duration) -> bool {
    to > world.now() || world.was_impaired(from, to) || world.truth.anyhow_between(service, from, to)
}

/// Pods that became ready, and pods that ceased to be.
fn pods(world: &World, calm: Duration) -> Vec<Violation> {
    let history = world.registry_history();
    let mut violations = Vec::new();
    for (addr, instance, changes) in world.truth.changes() {
        let Some(cluster) = instance.cluster.and_then(|cluster| world.clusters.get(cluster)) else { continue };
        let key = world.key(instance.service, addr).into_bytes();
        for (number, (at, serves)) in changes.iter().enumerate().filter(|(_, (at, _))| *at > calm) {
            let by = *at + REACTION;
            let next = changes.get(number + 1).is_some_and(|(next, _)| *next <= by);
            if next || disturbed(world, instance.service, at.saturating_sub(BEFORE), by) {
                continue;
            }
            // A record that a person took away a moment before is on its way back.
            let counts = |change: &&sim_etcd::Change| *change.author != *PERSON || change.time + MOMENT <= by;
            let last = history.iter().rev().filter(counts).find(|change| change.key == key && change.time <= by);
            let record = last.and_then(|change| change.after.as_ref());
            let registered = record.is_some_and(|record| decode(&key, record).own(&cluster.name).is_some());
            if registered != *serves {
                let state = if *serves { "is ready, and has no record" } else { "is not ready, and has a record" };
                let text = format!("{addr} {state} {} s later", REACTION.as_secs());
                violations.push(Violation::new("I3", by, text));
            }
        }
    }
    violations
}

/// Servers outside that died.
fn dead_servers(world: &World, calm: Duration) -> Vec<Violation> {
    let mut violations = Vec::new();
    let deaths = world.truth.deaths(DEATH, world.now()).into_iter();
    for (addr, instance, at) in deaths.filter(|(_, instance, at)| instance.cluster.is_none() && *at > calm) {
        let by = at + DEATH;
        if disturbed(world, instance.service, at.saturating_sub(BEFORE), by) {
            continue;
        }
        for cluster in &world.clusters {
            let changes = cluster.kube.changes(0);
            let held = changes.iter().any(|change| {
                change.at >= at.saturating_sub(BEFORE)
                    && change.at <= by
                    && change.after.as_deref().is_some_and(rest::announces_hold)
            });
            let name = service_name(instance.service);
            if !held && is_endpoint(&changes, &name, addr, by) {
                let text = format!("{addr} died {} s ago, and is an endpoint in {}", DEATH.as_secs(), cluster.name);
                violations.push(Violation::new("I3", by, text));
            }
        }
    }
    violations
}

/// Whether a slice of the service had the address at a time.
fn is_endpoint(changes: &[sim_kube::Change], service: &str, addr: SocketAddr, at: Duration) -> bool {
    let slices = changes.iter().filter(|change| &*change.resource == "endpointslices" && change.at <= at);
    let last: BTreeMap<&str, &sim_kube::Change> = slices.map(|change| (&*change.name, change)).collect();
    let mut now = last.values().filter_map(|change| change.after.as_deref());
    now.any(|slice| service_of(slice) == Some(service) && endpoints_of(slice).contains(&addr))
}
