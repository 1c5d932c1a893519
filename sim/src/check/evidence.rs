//! Removals rest on evidence, and come not before their time.
//!
//! Owns I5 and I6 for servers that serve and lost their record, and for pods that ended while no replica watched
//! (`docs/departures.md`): a lost registration keeps the endpoint, several records that were deleted together and a
//! registry that came back another way wait for the guard, and so do records whose endpoint only a list lacks. Refuses
//! to plan: each rule is a least time between a cause in the history and the removal.

use std::net::SocketAddr;
use std::time::Duration;

use super::removals::{Removed, address_of, removed_endpoints};
use super::stores::{decode, is_foreign};
use super::{Violation, is_replica};
use crate::plan::{Op, Side};
use crate::world::history::RESTORE;
use crate::world::people::PERSON;
use crate::world::{World, service_name};

/// The least time that a deletion waits which nothing explains (`QUIET` of `core/src/plan/departure/guard.rs`).
const QUIET: Duration = Duration::from_millis(9_900);
/// The least time that a rollback holds: the shortest hold of a run, half of which covers what joins it.
const ROLLBACK: Duration = Duration::from_millis(29_900);
/// A server that lost its record and lives puts it back within this time.
const LOST: Duration = Duration::from_secs(100);
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
    let history = world.registry_history();
    let mut violations = Vec::new();
    for Removed { at, by, cluster: _, name, addr } in removed_endpoints(world, calm) {
        let key = world.key_of(&name, &addr.to_string()).into_bytes();
        let Some(service) = (0..world.size.services).find(|service| service_name(*service) == name) else { continue };
        let last = history.iter().rev().find(|change| change.key == key && change.time <= at);
        let Some(gone) = last.filter(|change| change.after.is_none() && !is_replica(&change.author)) else { continue };
        let from = gone.time.saturating_sub(Duration::from_secs(1));
        let of_server = gone.before.as_ref().is_some_and(|before| is_foreign(world, &key, before));
        if !of_server || !world.truth.served(addr, from, at) || meddled(world, service, gone.time, at) {
            continue;
        }
        let together = history.iter().filter(|change| {
            change.after.is_none()
                && (change.incarnation, change.revision) == (gone.incarnation, gone.revision)
                && address_of(&change.key).is_some_and(|(_, of)| of == name)
                && change.before.as_ref().is_some_and(|before| is_foreign(world, &change.key, before))
        });
        let (least, why) = if gone.author == RESTORE {
            (if world.is_restore_evident(gone.time, &by) { ROLLBACK } else { Duration::ZERO }, "a rollback")
        } else if gone.author == PERSON {
            (if together.count() > 1 { QUIET } else { Duration::ZERO }, "a deletion in bulk")
        } else if world.spec["import"]["onExpiry"] != "Remove"
            && !world.was_impaired_by(gone.time.saturating_sub(LOOK_UP), at, disturbs_registry)
        {
            (LOST, "the end of its lease")
        } else {
            (QUIET, "the end of its lease")
        };
        if at < gone.time + least {
            let after = (at - gone.time).as_secs_f64();
            let text = format!("{by} removed {name}/{addr}, which serves, {after:.3} s after {why}");
            violations.push(Violation::new("I5", at, text));
        }
    }
    violations
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
        let blind = world.blind(cluster).into_iter().find(|(from, to)| *from < ended && ended < *to);
        // One that had ended before, and served again unseen, goes for that end.
        if blind.is_some_and(|(from, _)| !world.truth.served(addr, from, from)) {
            continue;
        }
        // A list that nobody planned may tell before the watches do.
        let known = if ended + Duration::from_secs(1) < started { Some(started) } else { blind.map(|_| ended) };
        let Some(known) = known.filter(|known| change.time < *known + QUIET) else { continue };
        if meddled(world, service, ended, change.time) {
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

/// When the instance ceased to serve, if it did not serve at the time.
fn end_of(world: &World, addr: SocketAddr, at: Duration) -> Option<Duration> {
    world.truth.last_change(addr, at).and_then(|(at, serves)| (!serves).then_some(at))
}
