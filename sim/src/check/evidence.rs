//! Removals rest on evidence, and come not before their time.
//!
//! Owns I5 and I6 for servers that serve and lost their record, and for pods that ended while no replica watched
//! (`docs/departures.md`): a lost registration keeps the endpoint, several records that were deleted together and a
//! registry that came back another way wait for the guard, and so do records whose endpoint only a list lacks. Refuses
//! to plan: each rule is a least time between a cause in the history and the removal.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::removals::{Removed, address_of, endpoints_of, ready_endpoints_of, removed_endpoints, service_of};
use super::stores::{decode, is_foreign};
use super::{Violation, is_replica};
use crate::plan::{Op, Side};
use crate::wire::Sent;
use crate::world::history::RESTORE;
use crate::world::people::PERSON;
use crate::world::{World, service_name};

/// The least time that a deletion waits which nothing explains (`QUIET` of `core/src/plan/departure/guard.rs`).
const QUIET: Duration = Duration::from_millis(9_900);
/// The least time that a rollback holds: the shortest hold of a run, half of which covers what joins it.
const ROLLBACK: Duration = Duration::from_millis(29_900);
/// A server that lost its record and lives puts it back within this time.
const LOST: Duration = Duration::from_secs(100);
/// The longest time between the start of a process and its lists while nothing is wrong.
const START: Duration = Duration::from_secs(5);
/// The time that the lists after a blind time may take: each watch begins again with a pause of its own.
const LISTS: Duration = Duration::from_secs(10);
/// The time before a cause in which nothing else may have happened to the service.
const BEFORE: Duration = Duration::from_secs(120);
/// The time for which a lookup of a lease may fail after a fault of the registry.
const LOOK_UP: Duration = Duration::from_secs(60);

/// Judges the removals of a run. `calm` is the time at which both sides were equal for the first time.
pub fn check(world: &World, calm: Duration) -> Vec<Violation> {
    let mut violations = endpoints(world, calm);
    violations.extend(records(world, calm));
    violations
}

/// A person meddled with the service, apart from the cause itself.
fn meddled(world: &World, service: usize, cause: Duration, at: Duration) -> bool {
    let moment = Duration::from_nanos(1);
    world.truth.anyhow_between(service, cause.saturating_sub(BEFORE), cause.saturating_sub(moment))
        || world.truth.anyhow_between(service, cause + moment, at)
}

fn endpoints(world: &World, calm: Duration) -> Vec<Violation> {
    let (history, log) = (world.registry_history(), world.wire.log());
    let mut violations = Vec::new();
    for removed in removed_endpoints(world, calm) {
        let Removed { at, by, name, addr, .. } = &removed;
        let (at, addr) = (*at, *addr);
        let key = world.key_of(name, &addr.to_string()).into_bytes();
        let Some(service) = (0..world.size.services).find(|service| service_name(*service) == *name) else { continue };
        let last = history.iter().rev().find(|change| change.key == key && change.time <= at);
        let Some(gone) = last.filter(|change| change.after.is_none() && !is_replica(&change.author)) else { continue };
        let from = gone.time.saturating_sub(Duration::from_secs(1));
        let of_server = gone.before.as_ref().is_some_and(|before| is_foreign(world, &key, before));
        if !of_server || !world.truth.served(addr, from, at) || meddled(world, service, gone.time, at) {
            continue;
        }
        if came_late(world, &log, &removed, gone.time) {
            continue;
        }
        let together = history.iter().filter(|change| {
            change.after.is_none()
                && (change.incarnation, change.revision) == (gone.incarnation, gone.revision)
                && address_of(&change.key).is_some_and(|(_, of)| of == name.as_str())
                && change.before.as_ref().is_some_and(|before| is_foreign(world, &change.key, before))
        });
        let (least, why) = if gone.author == RESTORE {
            (if world.is_restore_evident(gone.time, by) { ROLLBACK } else { Duration::ZERO }, "a rollback")
        } else if gone.author == PERSON {
            (if together.count() > 1 { QUIET } else { Duration::ZERO }, "a deletion in bulk")
        } else if world.spec["import"]["onExpiry"] != "Remove"
            && !world.was_impaired_by(gone.time.saturating_sub(LOOK_UP), at, disturbs_registry)
        {
            (LOST, "the end of its lease")
        } else {
            (QUIET, "the end of its lease")
        };
        // A request that was on its way already rests on an earlier departure.
        let decided_before = || removed.request(&log).is_some_and(|sent| sent.at < gone.time);
        if at < gone.time + least && !decided_before() {
            let after = (at - gone.time).as_secs_f64();
            let text = format!("{by} removed {name}/{addr}, which serves, {after:.3} s after {why}");
            violations.push(Violation::new("I5", at, text));
        }
    }
    violations
}

/// Whether the endpoint was in no slice when its record went, and came into one by requests of other processes only,
/// all sent before that. A leader that found no such endpoint as it began takes a late write of the one before it for a
/// stranger's: the endpoint had been removed, or never been there, and a new leader puts nothing back
/// (`docs/departures.md`).
fn came_late(world: &World, log: &[Sent], removed: &Removed, gone: Duration) -> bool {
    let mut slices = BTreeMap::new();
    for change in world.clusters[removed.cluster].kube.changes(0).iter() {
        if &*change.resource != "endpointslices" || change.at >= removed.at {
            continue;
        }
        let of_service = change.after.as_deref().filter(|slice| service_of(slice) == Some(removed.name.as_str()));
        let has = of_service.is_some_and(|slice| endpoints_of(slice).contains(&removed.addr));
        if change.at <= gone {
            slices.insert(change.name.clone(), has);
            continue;
        }
        let write = |sent: &&Sent| {
            *sent.by == *change.author
                && sent.at <= change.at
                && sent.what.contains("/endpointslices")
                && !sent.what.starts_with("GET")
        };
        let sent_before = || log.iter().rev().find(write).is_some_and(|sent| sent.at <= gone);
        if has && (*change.author == *removed.by || !sent_before()) {
            return false;
        }
    }
    !slices.values().any(|has| *has)
}

fn disturbs_registry(op: Op) -> bool {
    matches!(
        op,
        Op::EtcdDown { .. }
            | Op::EtcdFrozen { .. }
            | Op::EtcdNoLeader { .. }
            | Op::EtcdLeaderMoved
            | Op::EtcdWatchesCut
            | Op::EtcdWatchesStalled { .. }
            | Op::EtcdCompacted
            | Op::EtcdFull { .. }
            | Op::EtcdRestored { .. }
            | Op::EtcdEmptied { .. }
            | Op::EtcdForbids { .. }
            | Op::EtcdPassword { .. }
            | Op::EventsLost { .. }
            | Op::Crowd { .. }
            | Op::Messages { .. }
            | Op::Freeze { .. }
            | Op::Trap { .. }
            | Op::Partition { side: Side::Registry, .. }
    )
}

/// Own records of pods that ended while the replica did not run, or while no watch told it.
fn records(world: &World, calm: Duration) -> Vec<Violation> {
    let mut violations = Vec::new();
    for change in world.registry_history().iter().filter(|change| change.time > calm && change.after.is_none()) {
        let (Some((addr, name)), Some(before)) = (address_of(&change.key), &change.before) else { continue };
        let before = decode(&change.key, before);
        let Some(cluster) = world.clusters.iter().position(|cluster| before.own(&cluster.name).is_some()) else {
            continue;
        };
        let Some(service) = (0..world.size.services).find(|service| service_name(*service) == name) else { continue };
        let (Some(started), Some(ended)) = (world.started(&change.author), end_of(world, addr, change.time)) else {
            continue;
        };
        let blind = blind_since(&world.blind(cluster), ended);
        // One that had ended before, and served again unseen, goes for that end.
        let first = blind.and_then(|from| world.truth.first_end(addr, from, ended));
        if blind.is_some_and(|from| first == Some(from)) {
            continue;
        }
        // A list that nobody planned may tell before the watches do.
        let known = if ended + Duration::from_secs(1) < started { Some(started) } else { first };
        let Some(known) = known.filter(|known| change.time < *known + QUIET) else { continue };
        if meddled(world, service, ended, change.time) || was_watched(world, cluster, addr, started, change.time) {
            continue;
        }
        let text = format!(
            "{} withdrew {name}/{addr} {:.3} s after only a list could tell that it ended",
            change.author,
            change.time.saturating_sub(known).as_secs_f64()
        );
        violations.push(Violation::new("I5", change.time, text));
    }
    violations
}

/// The beginning of the blind times that reach this time, one after the other, with no lists in between for sure.
fn blind_since(blind: &[(Duration, Duration)], at: Duration) -> Option<Duration> {
    let last = blind.iter().find(|(from, to)| *from < at && at < *to)?;
    let mut since = last.0;
    while let Some((from, _)) = blind.iter().find(|(from, to)| *from < since && since <= *to + LISTS) {
        since = *from;
    }
    Some(since)
}

/// Whether the slices of the cluster told of the end only after the process had started: they may be late, too, and a
/// watch that was not blind then tells of it.
fn was_watched(world: &World, cluster: usize, addr: SocketAddr, started: Duration, at: Duration) -> bool {
    let changes = world.clusters[cluster].kube.changes(0);
    let has = |slice: Option<&Value>| slice.is_some_and(|slice| ready_endpoints_of(slice).contains(&addr));
    let told = changes.iter().rev().find(|change| {
        let ends = has(change.before.as_deref()) && !has(change.after.as_deref());
        &*change.resource == "endpointslices" && change.at <= at && ends
    });
    let blind = |told: Duration| world.blind(cluster).iter().any(|(from, to)| *from < told && told < *to);
    told.is_some_and(|told| told.at > started + START && !blind(told.at))
}

/// When the instance ceased to serve, if it did not serve at the time.
fn end_of(world: &World, addr: SocketAddr, at: Duration) -> Option<Duration> {
    world.truth.last_change(addr, at).and_then(|(at, serves)| (!serves).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blind_times_that_follow_one_another_are_one() {
        let since = |blind: &[(u64, u64)], at| {
            let of = |(from, to): &(u64, u64)| (Duration::from_secs(*from), Duration::from_secs(*to));
            let blind: Vec<_> = blind.iter().map(of).collect();
            blind_since(&blind, Duration::from_secs(at)).map(|since| since.as_secs())
        };
        assert_eq!(since(&[(10, 20)], 15), Some(10));
        assert_eq!(since(&[(10, 20)], 25), None, "watches told it");
        assert_eq!(since(&[(10, 20), (24, 30)], 26), Some(10), "nothing may have been listed in between");
        assert_eq!(since(&[(10, 20), (40, 50)], 45), Some(40));
    }
}
