//! A replica acts upon the news that it has, and upon no other.
//!
//! Owns three rules about what was delivered to a replica: it removes nothing from a cluster while its registry says
//! nothing (I5), the end of a lease that a keepalive tells is made good at once (I4), and a write never rests on an
//! older version than the one that the replica wrote itself (I10). Refuses to know a view.

use std::collections::BTreeMap;
use std::time::Duration;

use super::doors::{NEVER, Operation, fence, operations};
use super::removals::{address_of, removed_endpoints};
use super::stores::{decode, is_own};
use super::{Violation, claims, cluster_of, is_replica};
use crate::plan::Op;
use crate::wire::{Moment, Sent};
use crate::world::keys::is_record;
use crate::world::people::{OTHER, PERSON};
use crate::world::{KubeCluster, World, service_name};

/// A session asks a silent registry after 10 s, and ends after 20 s (`SILENCE` of `src/registry/session.rs`).
const SILENCE: Duration = Duration::from_secs(25);
/// The time in which records are written again under another lease.
const REACTION: Duration = Duration::from_secs(4);

/// When a process asked for a write, and when it knew of it.
type Known = Vec<(Duration, Duration)>;

/// Judges a run. `calm` is the time at which both sides were equal for the first time.
pub fn check(world: &World, calm: Duration) -> Vec<Violation> {
    let mut violations = deaf(world, calm);
    violations.extend(told_of_gone_leases(world, calm));
    violations.extend(older_versions(world, &world.wire.log()));
    violations
}

/// Endpoints that went although the registry had not said a word. What people do in the cluster needs no registry.
fn deaf(world: &World, calm: Duration) -> Vec<Violation> {
    let (mut violations, log) = (Vec::new(), world.wire.log());
    for removed in removed_endpoints(world, calm) {
        // After a freeze the process sends what it had decided before, and decides anew by what it hears.
        let decisions = match removed.request(&log) {
            Some(sent) => [decided_at(world, sent), sent.at],
            None => [removed.at; 2],
        };
        let is_explained = |decision: Duration| {
            let from = decision.saturating_sub(SILENCE);
            // A person's decision counts when the API server tells it, which may be long after.
            let told = world.untold_since(removed.cluster, from);
            let changes = world.clusters[removed.cluster].kube.changes(0);
            let people = changes.iter().filter(|change| &*change.author == PERSON);
            people.map(|change| change.at).any(|at| at >= told && at <= decision)
                || world.wire.heard_from_etcd(&removed.by, from, decision)
        };
        if !decisions.into_iter().any(is_explained) {
            let text = format!("{} removed {}/{}, and its registry was silent", removed.by, removed.name, removed.addr);
            violations.push(Violation::new("I5", removed.at, text));
        }
    }
    violations
}

/// When a request was decided on: not after the freeze that kept it in the buffer of the client.
fn decided_at(world: &World, sent: &Sent) -> Duration {
    let met = world.wire.met_last(&sent.by, sent.at).filter(|_| sent.thawed);
    met.filter(|met| met.moment == Moment::Freeze).map_or(sent.at, |met| met.at)
}

/// Faults that keep no answer of the registry away and no replica from writing: a session outlives a short silence.
fn is_harmless(op: Op) -> bool {
    const SHORT: u64 = 9;
    match op {
        Op::EtcdWatchesStalled { seconds } => seconds <= SHORT,
        other => matches!(other, Op::EtcdWatchesCut | Op::EtcdCompacted),
    }
}

/// Whether an administrator changed a ServiceRegistry of the process's cluster within this time. A session that begins
/// anew writes once its watch is there.
fn is_reconnected(world: &World, author: &str, from: Duration, to: Duration) -> bool {
    let cluster = world.clusters.iter().find(|cluster| cluster.name == cluster_of(author));
    cluster.is_some_and(|cluster| {
        cluster.kube.changes(0).iter().any(|change| {
            &*change.resource == "serviceregistries"
                && &*change.author == PERSON
                && change.at >= from
                && change.at <= to
        })
    })
}

/// Whether the RegisteredService of an own record was suspended or did not exist at any moment of this time: then
/// what is gone is not written (`spec.suspend` of `docs/api.md`), however long ago a person did that.
fn is_idle(world: &World, key: &[u8], record: &sim_etcd::Record, from: Duration, to: Duration) -> bool {
    let record = decode(key, record);
    let is_idle_in = |cluster: &KubeCluster| {
        let Some(owner) = record.own(&cluster.name) else { return false };
        let mut idle = true;
        for change in cluster.kube.changes(0).iter().filter(|change| {
            &*change.resource == "registeredservices"
                && change.namespace == owner.service.namespace
                && change.name == owner.service.name
                && change.at <= to
        }) {
            let now = change.after.as_deref().is_none_or(|object| object["spec"]["suspend"] == true);
            idle = now || idle && change.at > from;
        }
        idle
    };
    world.clusters.iter().any(is_idle_in)
}

/// The records of a lease that is gone come back at once.
fn told_of_gone_leases(world: &World, calm: Duration) -> Vec<Violation> {
    let (history, leases, mut violations) = (world.registry_history(), claims::Leases::of(world), Vec::new());
    for gone in world.wire.leases_gone().into_iter().filter(|gone| gone.at > calm) {
        let by = gone.at + REACTION;
        if world.was_impaired_by(gone.at.saturating_sub(SILENCE), by, |op| !is_harmless(op))
            || by > world.now()
            || !leases.leads(&gone.told, gone.at)
            || is_reconnected(world, &gone.told, gone.at.saturating_sub(SILENCE), by)
        {
            continue;
        }
        let mut at_end = BTreeMap::new();
        for change in history.iter().take_while(|change| change.time <= by) {
            at_end.insert(&change.key, change);
        }
        let lost = at_end.into_values().filter(|change| {
            let of_lease = change.before.as_ref().is_some_and(|before| before.lease == gone.lease);
            change.after.is_none() && change.time <= gone.at && of_lease
        });
        for change in lost {
            let (Some((addr, name)), Some(before)) = (address_of(&change.key), &change.before) else { continue };
            let service = (0..world.size.services).find(|service| service_name(*service) == name);
            let own = is_own(world, &change.key, before);
            let meddled = service.is_none_or(|n| world.truth.anyhow_between(n, gone.at.saturating_sub(SILENCE), by))
                || is_idle(world, &change.key, before, gone.at, by);
            if own && !meddled && world.truth.served(addr, gone.at.saturating_sub(SILENCE), by) {
                let text = format!(
                    "a keepalive told {} that the lease of {name}/{addr} is gone, and no record came",
                    gone.told
                );
                violations.push(Violation::new("I4", by, text));
            }
        }
    }
    violations
}

/// Writes over another version of a key than the one that the replica wrote, and of which it had the answer.
fn older_versions(world: &World, log: &[Sent]) -> Vec<Violation> {
    let (history, mut violations) = (world.registry_history(), Vec::new());
    let mut by_key: BTreeMap<&[u8], Vec<&sim_etcd::Change>> = BTreeMap::new();
    for change in &history {
        by_key.entry(&change.key).or_default().push(change);
    }
    // The keys that each process writes, when it asked and when it knew.
    let mut written: BTreeMap<(&str, Vec<u8>), Known> = BTreeMap::new();
    for sent in log.iter().filter(|sent| is_replica(&sent.by)) {
        // A second ServiceRegistry for the same place has a view of its own.
        let other = || fence(&sent.body).is_some_and(|key| key.ends_with(OTHER.as_bytes()));
        if !sent.what.ends_with("/Txn") || other() {
            continue;
        }
        for Operation { key, version, .. } in
            operations(&sent.body).into_iter().filter(|op| is_record(&op.key) && op.version != NEVER)
        {
            let changes = by_key.get(key.as_slice()).map(Vec::as_slice).unwrap_or_default();
            let last = changes.iter().rev().find(|change| change.time <= sent.at);
            let answers = written.entry((&sent.by, key.clone())).or_default();
            if let Some(last) = last.filter(|last| last.author == sent.by) {
                let known =
                    answers.iter().any(|(asked, knew)| *asked <= last.time && last.time <= *knew && *knew < sent.at);
                let now = last.after.as_ref().map_or(0, |record| record.mod_revision);
                if known && now != version {
                    let text = format!(
                        "{} wrote {} over version {version}, though it had written version {now} itself",
                        sent.by,
                        key.escape_ascii()
                    );
                    violations.push(Violation::new("I10", sent.at, text));
                }
            }
            answers.extend(sent.answered.map(|knew| (sent.at, knew)));
        }
    }
    violations
}
