//! Both sides equal the truth, and at rest nothing is written.
//!
//! Owns I2. Refuses to know how the two sides became equal.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::removals::{address_of, endpoints_of, service_of};
use super::stores::{is_foreign, is_own};
use super::{Violation, doors, is_replica};
use crate::world::keys::MOVED;
use crate::world::people::alias_name;
use crate::world::{KubeCluster, NAMESPACE, World, service_name};

/// The longest time for which a registry is kept that only a list lacks: its hold (`REGISTRY_HOLD` of
/// `core/src/plan/departure/registry_guard.rs`), and the lists after a blind time.
const KEPT: Duration = Duration::from_secs(315);

/// The first difference between the two sides and the truth; `None` if they are equal.
pub fn difference(world: &World) -> Option<String> {
    let left = world.records().keys().find(|key| key.starts_with(MOVED.as_bytes())).cloned();
    let left = left.map(|key| format!("{} is left at the former place", String::from_utf8_lossy(&key)));
    left.or_else(|| (0..world.size.services).find_map(|service| difference_of(world, service)))
}

fn difference_of(world: &World, service: usize) -> Option<String> {
    let name = service_name(service);
    let (mut registered, mut exported) = (BTreeSet::new(), BTreeSet::new());
    for (key, record) in world.records().iter() {
        let Some((addr, of)) = address_of(key) else { continue };
        if of != name {
            continue;
        }
        if is_own(world, key, record) {
            exported.insert(addr);
        } else if is_foreign(world, key, record) {
            registered.insert(addr);
        }
    }
    let instances = world.truth.of_service(service);
    let pods: BTreeSet<SocketAddr> = instances
        .iter()
        .filter(|(_, instance)| instance.cluster.is_some() && instance.serves)
        .map(|(addr, _)| *addr)
        .collect();
    if exported != pods {
        return Some(format!("{name}: exported {exported:?}, ready {pods:?}"));
    }
    let vms: BTreeSet<SocketAddr> =
        instances.iter().filter(|(_, instance)| instance.cluster.is_none()).map(|(addr, _)| *addr).collect();
    let wanted: BTreeSet<SocketAddr> = registered.intersection(&vms).copied().collect();
    let dead = wanted.iter().find(|addr| !instances.get(*addr).is_some_and(|instance| instance.lives));
    if let Some(dead) = dead {
        return Some(format!("{name}: {dead} is dead, and its lease has not ended yet"));
    }
    for cluster in &world.clusters {
        let mut wanted = wanted.clone();
        wanted.extend(under_alias(world, cluster, service).intersection(&vms));
        let slices = cluster.kube.all("endpointslices");
        let ours = slices.iter().filter(|slice| service_of(slice) == Some(name.as_str()));
        let imported: BTreeSet<SocketAddr> = ours.flat_map(|slice| endpoints_of(slice)).collect();
        // A server that lives and lost its registration may stay.
        let may_stay = |addr: &SocketAddr| instances.get(addr).is_some_and(|instance| instance.lives);
        let missing = wanted.difference(&imported).next();
        let superfluous = imported.difference(&wanted).find(|addr| !may_stay(addr));
        if missing.is_some() || superfluous.is_some() {
            return Some(format!("{name} in {}: imported {imported:?}, registered {wanted:?}", cluster.name));
        }
    }
    None
}

/// True while a RegisteredService announces that it holds deletions, or a registry without an object is kept.
pub fn holds(world: &World) -> bool {
    let of = |cluster: &KubeCluster| cluster.kube.all("registeredservices").iter().any(|object| announces_hold(object));
    world.clusters.iter().any(of) || (0..world.clusters.len()).any(|cluster| keeps(world, cluster))
}

/// True while a registry is kept whose ServiceRegistry went while no watch could tell: only a list lacks it, and no
/// object is left that could announce the hold.
fn keeps(world: &World, number: usize) -> bool {
    let lasts = |to: &Duration| world.now() < world.untold_until(number, *to) + KEPT;
    let recent: Vec<_> = world.blind(number).into_iter().filter(|(_, to)| lasts(to)).collect();
    let is_untold = |at: Duration| recent.iter().any(|(from, to)| *from < at && at < *to);
    let Some(cluster) = world.clusters.get(number).filter(|_| !recent.is_empty()) else { return false };
    let changes = cluster.kube.changes(0);
    changes
        .iter()
        .any(|change| &*change.resource == "serviceregistries" && change.after.is_none() && is_untold(change.at))
}

/// Whether a RegisteredService announces that it holds deletions.
pub fn announces_hold(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "DeletionsHeld" && condition["status"] == "True")
}

/// The addresses under the second name of a service, if the cluster imports them.
pub fn under_alias(world: &World, cluster: &KubeCluster, service: usize) -> BTreeSet<SocketAddr> {
    let alias = alias_name(service);
    if cluster.kube.get("registeredservices", NAMESPACE, &alias).is_none() {
        return BTreeSet::new();
    }
    let records = world.records();
    let all = records.keys().filter_map(|key| address_of(key));
    all.filter(|(_, of)| *of == alias).map(|(addr, _)| addr).collect()
}

/// When a record, a slice or a pod changed for the last time.
pub fn last_change(world: &World) -> Duration {
    let history = world.registry_history();
    let records = history.iter().rev().find(|change| address_of(&change.key).is_some()).map(|change| change.time);
    let objects = world.clusters.iter().filter_map(|cluster| {
        let changes = cluster.kube.changes(0);
        let counts = |resource: &str| ["endpointslices", "pods", "registeredservices"].contains(&resource);
        changes.iter().rev().find(|change| counts(&change.resource) && change.subresource.is_empty()).map(|c| c.at)
    });
    objects.chain(records).max().unwrap_or_default()
}

/// Judges the messages of a time in which nothing changed.
pub fn quiet(world: &World, from: Duration) -> Vec<Violation> {
    let (log, to, audited) = (world.wire.log(), world.now(), world.size.audited);
    let within = log.iter().filter(|sent| sent.at > from && sent.at <= to && is_replica(&sent.by));
    within
        .filter(|sent| {
            let what = sent.what.as_str();
            let lease = what.contains("/leases/") || what.contains("LeaseTimeToLive") || what.contains("Status");
            let watch = what.starts_with("GET") && what.contains("watch=true");
            // A token expires; an audit reads everything.
            let signs_in = world.size.password && what.ends_with("/Authenticate");
            let reads = what.ends_with("/Range")
                || what.ends_with("/Txn")
                    && doors::fence(&sent.body).is_none()
                    && doors::operations(&sent.body).is_empty();
            !(lease || watch || signs_in || audited && reads)
        })
        .map(|sent| Violation::new("I2", sent.at, format!("at rest {} sent {} to {}", sent.by, sent.what, sent.to)))
        .collect()
}

/// Judges a time in which nothing changed but the replicas: no record and no slice is written (I6).
pub fn untouched(world: &World, from: Duration) -> Vec<Violation> {
    let history = world.registry_history();
    let records = history.iter().filter(|change| change.time > from && is_replica(&change.author));
    let records = records.filter(|change| address_of(&change.key).is_some());
    let mut violations: Vec<Violation> = records
        .map(|change| {
            let key = String::from_utf8_lossy(&change.key);
            Violation::new("I6", change.time, format!("a restart made {} write {key}", change.author))
        })
        .collect();
    for cluster in &world.clusters {
        let changes = cluster.kube.changes(0);
        let slices =
            changes.iter().filter(|c| c.at > from && is_replica(&c.author) && &*c.resource == "endpointslices");
        violations.extend(slices.map(|change| {
            let endpoints =
                |slice: Option<&Value>| slice.map(|slice| slice["endpoints"].to_string()).unwrap_or_default();
            let (before, after) = (endpoints(change.before.as_deref()), endpoints(change.after.as_deref()));
            let text = format!("a restart made {} write {}: {before} → {after}", change.author, change.name);
            Violation::new("I6", change.at, text)
        }));
    }
    violations.truncate(3);
    violations
}
