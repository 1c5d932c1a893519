//! Nothing is written without the claim to lead.
//!
//! Owns I9 as the doors see it: whoever writes or raises an epoch has renewed the Lease within the renew deadline, and
//! whoever raises an epoch holds the Lease as it read it last. Refuses to know whether a write took effect: the epoch
//! and the version of an object may have saved it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sim_kube::Change;

use super::doors::{Operation, operations};
use super::{Violation, cluster_of, is_replica};
use crate::wire::{Moment, Sent};
use crate::world::keys::is_record;
use crate::world::people::CLONE;
use crate::world::{KubeCluster, REGISTRY, World};

/// The time for which a renewal counts (`RENEW_DEADLINE` of `src/leadership/mod.rs`).
const DEADLINE: Duration = Duration::from_secs(10);

/// The holders of the Leases of all clusters.
#[derive(Debug)]
pub struct Leases<'a>(BTreeMap<&'a str, Lease>);

impl<'a> Leases<'a> {
    pub fn of(world: &'a World) -> Self {
        Self(world.clusters.iter().map(|cluster| (cluster.name.as_str(), Lease::of(cluster))).collect())
    }

    /// Whether a process led its cluster at a time.
    pub fn leads(&self, author: &str, at: Duration) -> bool {
        let lease = self.0.get(cluster_of(author));
        lease.is_some_and(|lease| lease.renewed(author, at.saturating_sub(DEADLINE), at))
    }
}

/// The holders of the Lease of a cluster, and since when.
#[derive(Debug)]
struct Lease(Vec<(Duration, String)>);

impl Lease {
    fn of(cluster: &KubeCluster) -> Self {
        let changes = cluster.kube.changes(0);
        let leases = changes.iter().filter(|change| &*change.resource == "leases");
        let holder = |value: &Value| value["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        Self(leases.map(|change| (change.at, change.after.as_deref().map(holder).unwrap_or_default())).collect())
    }

    /// Whether a request of the holder won or renewed it within this time.
    fn renewed(&self, by: &str, from: Duration, to: Duration) -> bool {
        self.0.iter().any(|(at, holder)| *at >= from && *at <= to && holder == by)
    }

    /// Whether it was renewed often enough throughout this time that the claim never ended.
    fn kept(&self, by: &str, from: Duration, to: Duration) -> bool {
        const PAUSE: Duration = Duration::from_secs(6);
        let first = from.saturating_sub(PAUSE);
        let mut last = first;
        for (at, holder) in self.0.iter().filter(|(at, _)| *at >= first && *at <= to) {
            if holder != by || *at > last + PAUSE {
                return false;
            }
            last = *at;
        }
        to <= last + PAUSE
    }

    /// Whether this was the holder at any moment of this time.
    fn held(&self, by: &str, from: Duration, to: Duration) -> bool {
        let before = self.0.iter().rev().find(|(at, _)| *at <= from);
        before.is_some_and(|(_, holder)| holder == by) || self.renewed(by, from, to)
    }
}

/// Whether a stopped process had asked before it was stopped: the client's buffer has a task of its own. Not so if it
/// was stopped as it learned the outcome of the write before: the writes of one RegisteredService follow one another.
/// Those of another one run beside them, and one of them may have been in the buffer at that moment.
fn was_under_way(world: &World, sent: &Sent) -> bool {
    let before = world.wire.met_last(&sent.by, sent.at).filter(|met| met.moment == Moment::FreezeAnswered);
    let before = before.and_then(|met| met.request);
    let follows = before.is_some_and(|before| {
        let cluster = world.clusters.iter().find(|known| known.name == cluster_of(&sent.by));
        let changes = cluster.map(|cluster| cluster.kube.changes(0)).unwrap_or_default();
        writes_slice(&before) && !have_other_owners(&before, sent, &changes)
    });
    sent.thawed && !sent.to.starts_with("etcd") && !follows
}

fn writes_slice(sent: &Sent) -> bool {
    sent.what.contains("/endpointslices") && !sent.what.starts_with("GET")
}

/// Whether two requests write what belongs to different RegisteredServices, for all that is known.
fn have_other_owners(one: &Sent, other: &Sent, changes: &[Change]) -> bool {
    owner(one, changes).zip(owner(other, changes)).is_some_and(|(one, other)| one != other)
}

/// The RegisteredService to which belongs what a request writes; a request to delete only names the object.
fn owner(sent: &Sent, changes: &[Change]) -> Option<String> {
    let owner = |object: &Value| object["metadata"]["ownerReferences"][0]["name"].as_str().map(ToOwned::to_owned);
    let by_body = serde_json::from_slice(&sent.body).ok().and_then(|object| owner(&object));
    by_body.or_else(|| {
        let path = sent.what.split(['?', ' ']).nth(1).unwrap_or_default();
        let mut path = path.rsplit('/');
        let (name, resource) = (path.next()?, path.next()?);
        let mut before = changes.iter().rev().filter(|change| change.at <= sent.at);
        let last = before.find(|change| &*change.resource == resource && change.name == name)?;
        last.after.as_deref().or(last.before.as_deref()).and_then(owner)
    })
}

/// Judges all messages of a run.
pub fn check(world: &World, log: &[Sent]) -> Vec<Violation> {
    let leases = Leases::of(world);
    let mut last_reads: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut violations = Vec::new();
    for sent in log.iter().filter(|sent| is_replica(&sent.by)) {
        let Some(lease) = leases.0.get(cluster_of(&sent.by)) else { continue };
        if sent.what.contains("/leases/") {
            if sent.what.starts_with("GET") {
                last_reads.insert(&sent.by, sent.at);
            }
            continue;
        }
        let (writes, raises) = if sent.to.starts_with("etcd") {
            of_registry(sent)
        } else {
            // Statuses and Events are sent through a buffer of the client, in which a frozen process may leave them.
            (sent.what.contains("/endpointslices") || sent.what.contains("/services/"), false)
        };
        let claims = || lease.renewed(&sent.by, sent.at.saturating_sub(DEADLINE), sent.at);
        if (writes || raises) && !was_under_way(world, sent) && !claims() {
            let text = format!("{} sent {} to {} without a claim to lead", sent.by, sent.what, sent.to);
            violations.push(Violation::new("I9", sent.at, text));
        }
        let read = last_reads.get(sent.by.as_str()).copied().unwrap_or_default();
        if raises && !lease.held(&sent.by, read, sent.at) {
            let text = format!("{} raised the epoch, although the Lease named another holder", sent.by);
            violations.push(Violation::new("I9", sent.at, text));
        }
    }
    violations.extend(over_clones(world, &leases));
    violations
}

/// The counter of an epoch.
fn counter(epoch: &[u8]) -> Option<u64> {
    String::from_utf8_lossy(epoch).split_once('/').and_then(|(counter, _)| counter.parse().ok())
}

/// Whether the epoch that a clone raised stops a leader who raised this counter before. A lower one does not: a backup
/// had brought an older epoch back, above which the clone raised its own, and nobody can tell that from the epoch of an
/// earlier leader of this cluster. The leader raises its own again, and the clone meets a higher epoch and stands back
/// (§5.4 of the design, and `every_case` of `core/src/plan/fence.rs`).
fn stops(clones: &[u8], own: u64) -> bool {
    counter(clones).is_none_or(|clones| clones >= own)
}

/// A leader that a clone displaced does not raise the epoch over it by itself.
fn over_clones(world: &World, leases: &Leases<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for cluster in &world.clusters {
        let key = format!("twinspan/{}/{REGISTRY}", cluster.name).into_bytes();
        let holder = |record: &sim_etcd::Record| {
            String::from_utf8_lossy(&record.value).split_once('/').map(|(_, holder)| holder.to_owned())
        };
        let mut displaced: Option<(String, Duration, Vec<u8>)> = None;
        // When an epoch was raised last, and the counter of the last one that each process raised.
        let mut raised = Duration::ZERO;
        let mut counters: BTreeMap<&str, u64> = BTreeMap::new();
        for change in world.registry_history().iter().filter(|change| change.key == key) {
            let before = change.before.as_ref().and_then(holder).unwrap_or_default();
            if change.author == CLONE {
                let epoch = change.after.as_ref().map(|after| after.value.clone()).unwrap_or_default();
                displaced = is_replica(&before).then_some((before, change.time, epoch));
                continue;
            }
            let term = std::mem::replace(&mut raised, change.time);
            let own = change.after.as_ref().and_then(|after| counter(&after.value)).unwrap_or_default();
            let own = counters.insert(&change.author, own).unwrap_or_default();
            let Some((by, since, epoch)) = displaced.take() else { continue };
            if !stops(&epoch, own) {
                continue;
            }
            // One that lost its claim in between begins a term, as a successor does.
            let leads = leases.0.get(cluster.name.as_str()).is_some_and(|lease| lease.kept(&by, term, change.time));
            let approved = cluster.kube.changes(0).iter().any(|object| {
                let annotation = |value: &Value| {
                    value["metadata"]["annotations"]["twinspan.dev/approve-epoch"].as_str().map(ToOwned::to_owned)
                };
                object.at <= change.time
                    && object.after.as_deref().and_then(annotation).is_some_and(|text| text.as_bytes() == epoch)
            });
            // One that was created again has no memory, like a process that starts.
            let anew = cluster.kube.changes(0).iter().any(|object| {
                &*object.resource == "serviceregistries"
                    && &*object.name == REGISTRY
                    && object.before.is_none()
                    && object.at > since
                    && object.at <= change.time
            });
            if change.author == by && leads && !approved && !anew {
                let text = format!("{by} raised the epoch over a clone's, which nobody approved");
                violations.push(Violation::new("I9", change.time, text));
            }
        }
    }
    violations
}

/// Whether a message to the registry writes records, and whether it raises an epoch.
fn of_registry(sent: &Sent) -> (bool, bool) {
    if !sent.what.ends_with("/Txn") {
        return (false, false);
    }
    let operations = operations(&sent.body);
    let ours = format!("/{}", sent.by).into_bytes();
    let raises = |op: &Operation| op.value.as_ref().is_some_and(|value| value.ends_with(&ours));
    let writes = operations.iter().any(|op| is_record(&op.key));
    (writes, operations.iter().any(|op| !is_record(&op.key) && raises(op)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_epoch_that_is_no_lower_than_the_own_one_stops_a_leader() {
        assert!(stops(b"5/clone", 4) && stops(b"4/clone", 4) && stops(b"1/clone", 0));
        assert!(!stops(b"2/clone", 4));
    }

    #[test]
    fn requests_of_two_registered_services_have_other_owners() {
        let slice = |owner: &str| json!({"metadata": {"ownerReferences": [{"name": owner}]}});
        let sent = |what: &str, body: Bytes| Sent {
            at: Duration::from_secs(2),
            by: "a-0#1".to_owned(),
            to: "api-a0".to_owned(),
            what: format!("{what}?"),
            body,
            thawed: true,
            answered: None,
        };
        let slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
        let creates = |owner: &str| sent(&format!("POST {slices}"), slice(owner).to_string().into());
        let deletes = sent(&format!("DELETE {slices}/echo-x"), Bytes::new());
        let change = Change {
            revision: 1,
            at: Duration::from_secs(1),
            author: "a-0#1".into(),
            resource: "endpointslices".into(),
            namespace: "shop".to_owned(),
            name: "echo-x".to_owned(),
            subresource: "",
            before: None,
            after: Some(slice("echo").into()),
        };
        let changes = [change];
        assert!(have_other_owners(&creates("echo"), &creates("alias"), &changes));
        assert!(have_other_owners(&creates("alias"), &deletes, &changes));
        assert!(!have_other_owners(&creates("echo"), &creates("echo"), &changes));
        assert!(!have_other_owners(&creates("echo"), &deletes, &changes));
        assert!(!have_other_owners(&creates("alias"), &deletes, &[]), "nobody knows whose slice it deletes");
    }
}
