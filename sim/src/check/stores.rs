//! The authors of all changes, by the complete histories of both stores.
//!
//! Owns I1 (foreign things stay untouched), I4 (no own record without a lease) and I9 (one leader writes). Refuses to
//! know why anything was changed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{Kind, LeaseId, RawRecord, Record, RecordKey};

use super::{Violation, cluster_of, is_replica};
use crate::wire::Sent;
use crate::world::World;
use crate::world::keys::prefix_of;

/// Resources that the operator may change in a cluster.
const MAY_CHANGE: [&str; 3] = ["endpointslices", "leases", "events"];

/// Judges both histories.
pub fn check(world: &World) -> Vec<Violation> {
    let mut violations = registry(world);
    violations.extend(clusters(world));
    violations.extend(leases(world));
    violations
}

/// Decodes a record as Kitex wrote it.
pub fn decode(key: &[u8], record: &sim_etcd::Record) -> Record {
    Layout::new(Format::Kitex, prefix_of(key)).decode(&RawRecord {
        key: RecordKey::new(key.to_vec()),
        value: record.value.clone(),
        mod_revision: record.mod_revision,
        lease: LeaseId(record.lease),
    })
}

/// Whether the record is one that a cluster exports.
pub fn is_own(world: &World, key: &[u8], record: &sim_etcd::Record) -> bool {
    let record = decode(key, record);
    world.clusters.iter().any(|cluster| record.own(&cluster.name).is_some())
}

/// Whether the record is one that a server wrote itself, and that nobody exports or heals.
pub fn is_foreign(world: &World, key: &[u8], record: &sim_etcd::Record) -> bool {
    let record = decode(key, record);
    world.clusters.iter().all(|cluster| record.ours(&cluster.name).is_none())
}

fn registry(world: &World) -> Vec<Violation> {
    let mut violations = Vec::new();
    // By cluster and ServiceRegistry: two of them may have one etcd, and each writes under its own.
    let mut epochs: BTreeMap<(String, String), String> = BTreeMap::new();
    for change in world.registry_history() {
        let key = String::from_utf8_lossy(&change.key).into_owned();
        if let Some(rest) = key.strip_prefix("twinspan/") {
            let value = change.after.as_ref().map(|record| String::from_utf8_lossy(&record.value).into_owned());
            if let Some((cluster, registry)) = rest.split_once('/') {
                epochs.insert((cluster.to_owned(), registry.to_owned()), value.unwrap_or_default());
            }
            continue;
        }
        let by = &change.author;
        let mut breach = |invariant, text: String| violations.push(Violation::new(invariant, change.time, text));
        let own = change.after.as_ref().map(|after| decode(&change.key, after));
        let is_ours = own.as_ref().is_some_and(|own| world.clusters.iter().any(|c| own.ours(&c.name).is_some()));
        if is_ours && change.after.as_ref().is_some_and(|after| after.lease == 0) && is_replica(by) {
            breach("I4", format!("{by} wrote {key} without a lease"));
        }
        if !is_replica(by) {
            continue;
        }
        let cluster = cluster_of(by);
        let of_cluster = || epochs.iter().filter(|((of, _), _)| of == cluster).map(|(_, epoch)| epoch);
        if of_cluster().all(|epoch| epoch.split_once('/').map(|(_, holder)| holder) != Some(by.as_str())) {
            breach("I9", format!("{by} wrote {key} under the epochs {:?}", of_cluster().collect::<Vec<_>>()));
        }
        if let Some(before) = &change.before {
            let before = decode(&change.key, before);
            if !matches!(before.kind(cluster), Kind::Own(_)) && before.ours(cluster).is_none() {
                breach("I1", format!("{by} changed {key}, which is not its own"));
            }
        }
    }
    violations
}

fn clusters(world: &World) -> Vec<Violation> {
    let mut violations = Vec::new();
    for cluster in &world.clusters {
        for change in cluster.kube.changes(0).iter().filter(|change| is_replica(&change.author)) {
            let what = format!("{} {}/{}", change.resource, change.namespace, change.name);
            let mut breach = |text: String| violations.push(Violation::new("I1", change.at, text));
            if cluster_of(&change.author) != cluster.name {
                breach(format!("{} changed {what} of cluster {}", change.author, cluster.name));
            }
            // A Service is made where a RegisteredService asks for one.
            let creates = &*change.resource == "services" && change.before.is_none();
            let permitted = creates || MAY_CHANGE.contains(&&*change.resource) || change.subresource == "status";
            if !permitted {
                breach(format!("{} changed {what}", change.author));
            }
            if &*change.resource == "endpointslices" {
                let ours = |slice: &Value| {
                    slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "twinspan.dev"
                };
                if change.before.as_deref().is_some_and(|before| !ours(before)) {
                    breach(format!("{} changed {what}, which is not its own", change.author));
                }
            }
        }
    }
    violations
}

/// A process that writes slices and statuses holds the Lease when it sends.
fn leases(world: &World) -> Vec<Violation> {
    let mut violations = Vec::new();
    let log = world.wire.log();
    for cluster in &world.clusters {
        let holders: Vec<(Duration, String)> = cluster
            .kube
            .changes(0)
            .iter()
            .filter(|change| &*change.resource == "leases")
            .map(|change| {
                let lease = change.after.as_deref().cloned().unwrap_or_default();
                (change.at, lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
            })
            .collect();
        let writes = |sent: &&Sent| {
            let here = cluster.servers.contains(&sent.to);
            let concerned = sent.what.contains("/endpointslices") || sent.what.contains("/status");
            here && concerned && !sent.what.starts_with("GET") && !sent.thawed
        };
        for sent in log.iter().filter(writes) {
            let holder = holders.iter().rev().find(|(at, _)| *at <= sent.at).map_or("", |(_, holder)| holder.as_str());
            if holder != sent.by {
                let text = format!("{} sent {} while {holder:?} held the Lease", sent.by, sent.what);
                violations.push(Violation::new("I9", sent.at, text));
            }
        }
    }
    violations
}
