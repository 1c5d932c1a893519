//! The answers that clients get, every second.
//!
//! Owns T1 (a service with a living instance never resolves to nothing), T2 (no client is sent to an address that
//! nobody ever ran) and I10 (in a quiet time both clients see the same instances): a Kitex client reads the registry, a
//! DNS reader all ready endpoints of all slices. Refuses to know which side an instance comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use twinspan_core::Timestamp;

use super::removals::{address_of, ready_endpoints_of};
use super::stores::decode;
use super::{Violation, rest};
use crate::world::people::is_junk;
use crate::world::truth::Meddling;
use crate::world::{KubeCluster, REGISTRY, World, service_name, time_of_day};

/// The interval at which clients ask.
const INTERVAL: Duration = Duration::from_secs(1);
/// An answer that was there for so long is known.
const KNOWN: Duration = Duration::from_secs(5);
/// The news of a person's wish, and the hold that may put it off.
const WISH: Duration = Duration::from_secs(500);
/// A fault and the lease that ends because of it.
const FAULT: Duration = Duration::from_secs(200);

/// The longest way of news while nothing is wrong: a server that died is removed once a connection was refused.
const NEWS: Duration = Duration::from_secs(8);
/// The same where nobody opens a connection: the quiet time of the guard (`QUIET` of
/// `core/src/plan/departure/guard.rs`).
const NEWS_WITHOUT_PROBES: Duration = Duration::from_secs(12);
/// The time after a fault or a deed of a person in which the two sides may differ.
const UNSETTLED: Duration = Duration::from_secs(110);

/// Asks until the run ends.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    found: Arc<Mutex<Vec<Violation>>>,
    failed_calls: Arc<AtomicU64>,
}

/// One client: of the registry, or of the DNS of one cluster, and its service.
type View = (Option<usize>, usize);

impl Clients {
    /// The violations so far.
    pub fn found(&self) -> Vec<Violation> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The calls that failed until the storm was over. Each client calls each instance of its answer once a second;
    /// those count that its side has without the bridge: servers outside in the registry, pods in the DNS of their
    /// cluster.
    pub fn failed_calls(&self) -> u64 {
        self.failed_calls.load(Ordering::Relaxed)
    }

    fn call(&self, world: &World, answers: &BTreeMap<View, BTreeSet<SocketAddr>>) {
        let all = answers.iter().flat_map(|((side, _), answer)| answer.iter().map(|addr| (*side, *addr)));
        let of_side = all.filter_map(|(side, addr)| world.truth.get(addr).filter(|instance| instance.cluster == side));
        let failed = of_side.filter(|instance| !instance.lives || instance.frozen).count();
        self.failed_calls.fetch_add(failed as u64, Ordering::Relaxed);
    }

    /// Runs until it is dropped.
    pub async fn ask(self, world: World) {
        let mut known: BTreeMap<View, BTreeMap<SocketAddr, Duration>> = BTreeMap::new();
        let mut told = BTreeSet::new();
        let mut differs: Option<((View, SocketAddr), Duration)> = None;
        let mut last = (Version::default(), BTreeMap::new());
        loop {
            sleep(INTERVAL).await;
            let version = version(&world);
            if last.0 != version {
                last = (version, answers(&world));
            }
            let all = last.1.clone();
            if !world.has_stormed() {
                self.call(&world, &all);
            }
            if world.size.control.is_some() {
                continue;
            }
            let difference = unequal(&world, &all);
            differs = difference.map(|found| match &differs {
                Some((before, since)) if *before == found => (found, *since),
                _ => (found, world.now()),
            });
            if let Some(((view, addr), since)) = &differs
                && world.now() >= *since + if removes(&world) { NEWS_WITHOUT_PROBES } else { NEWS }
                && told.insert((*view, "I10"))
            {
                let name = view.0.and_then(|side| world.clusters.get(side)).map_or("", |cluster| &cluster.name);
                let text = format!("the registry and DNS of {name} differ about {addr} of echo-{}", view.1);
                let violation = Violation::new("I10", world.now(), text);
                self.found.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
            }
            for (view, answer) in all {
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

/// How often each store was replaced and changed.
type Version = (u32, usize, Vec<u64>);

fn version(world: &World) -> Version {
    let clusters = world.clusters.iter().map(|cluster| cluster.kube.revision());
    (world.etcd.incarnation(), world.etcd.changes_len(), clusters.collect())
}

fn answers(world: &World) -> BTreeMap<View, BTreeSet<SocketAddr>> {
    let mut answers = BTreeMap::new();
    let services: BTreeMap<String, usize> = (0..world.size.services).map(|n| (service_name(n), n)).collect();
    services.values().for_each(|service| drop(answers.insert((None, *service), BTreeSet::new())));
    for (key, record) in world.records().iter() {
        let Some((addr, name)) = address_of(key) else { continue };
        let Some(service) = services.get(name) else { continue };
        if decode(key, record).endpoint_addresses().next().is_some() {
            answers.entry((None, *service)).or_insert_with(BTreeSet::new).insert(addr);
        }
    }
    for (number, cluster) in world.clusters.iter().enumerate() {
        services.values().for_each(|service| drop(answers.insert((Some(number), *service), BTreeSet::new())));
        for slice in cluster.kube.all("endpointslices") {
            let name = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
            let Some(service) = services.get(name) else { continue };
            answers.entry((Some(number), *service)).or_insert_with(BTreeSet::new).extend(ready_endpoints_of(&slice));
        }
    }
    answers
}

/// The first instance that one client sees and the other does not, though no fault has come for a while. A server that
/// lives and lost its record stays an endpoint.
fn unequal(world: &World, answers: &BTreeMap<View, BTreeSet<SocketAddr>>) -> Option<(View, SocketAddr)> {
    let now = world.now();
    let quiet_since = now.saturating_sub(UNSETTLED);
    if !world.was_quiet(quiet_since, now) || rest::holds(world) {
        return None;
    }
    for ((side, service), answer) in answers.iter().filter(|((side, _), _)| side.is_some()) {
        if world.truth.anyhow_between(*service, quiet_since, now) {
            continue;
        }
        let cluster = side.and_then(|side| world.clusters.get(side));
        let mut registered = answers.get(&(None, *service)).cloned().unwrap_or_default();
        // A second name gives the Service what is registered under it too.
        registered.extend(cluster.iter().flat_map(|cluster| rest::under_alias(world, cluster, *service)));
        // Pods of another cluster are imported only where a RegisteredService asks for them.
        let elsewhere = |addr: &SocketAddr| {
            world.truth.get(*addr).is_some_and(|instance| instance.cluster.is_some_and(|of| Some(of) != *side))
        };
        let missing = registered.difference(answer).find(|addr| !is_junk(**addr) && !elsewhere(addr));
        let lives = |addr: &SocketAddr| {
            world.truth.get(*addr).is_some_and(|instance| instance.lives && instance.cluster.is_none())
        };
        let superfluous = answer.difference(&registered).find(|addr| !lives(addr));
        if let Some(addr) = missing.or(superfluous) {
            return Some(((*side, *service), *addr));
        }
    }
    None
}

/// Whether the end of a lease removes an endpoint.
fn removes(world: &World) -> bool {
    world.spec["import"]["onExpiry"] == "Remove"
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
    let mut lost = before.iter().filter(|(addr, since)| {
        !answer.contains(addr) && now >= **since + KNOWN && world.truth.served(**addr, **since, now)
    });
    let wished = world.truth.meddled_between(service, Meddling::Wish, now.saturating_sub(WISH), now);
    // Without the bridge the leases end; a registry that lost its data has nothing. The end of a lease is what `Remove`
    // removes an endpoint for.
    let loss = world.truth.meddled_between(service, Meddling::Loss, now.saturating_sub(FAULT), now);
    let excused = side.is_none() && world.was_impaired(now.saturating_sub(FAULT), now)
        || loss && (side.is_none() || removes(world));
    if wished || excused {
        return None;
    }
    let was_held = |addr: &SocketAddr| side.is_some_and(|n| was_held(world, &world.clusters[n], service, *addr));
    let (addr, _) = lost.find(|(addr, _)| !was_held(addr))?;
    Some(Violation::new("T1", now, format!("{who} has no living instance of echo-{service}, and had {addr}")))
}

/// Whether an endpoint went because a hold has ended that a status showed: its record was gone when the hold began, or
/// became so while the hold took others up, and it has not come back. A guard that never let go would serve dead
/// addresses (`docs/departures.md`), so the design excepts this from T1: a registry may refuse a server for longer.
fn was_held(world: &World, cluster: &KubeCluster, service: usize, addr: SocketAddr) -> bool {
    /// Others join a hold for so long, or for half of it (`WINDOW` of `core/src/plan/departure/held.rs`).
    const JOINED: Duration = Duration::from_secs(60);
    /// Holds have whole seconds, and so has the clock of the API server.
    const ROUNDED: Duration = Duration::from_secs(2);
    let (now, name) = (world.now(), service_name(service));
    let key = world.key_of(&name, &addr.to_string()).into_bytes();
    let history = world.registry_history();
    let Some(gone) = history.iter().rev().find(|change| change.key == key).filter(|change| change.after.is_none())
    else {
        return false;
    };
    let time = |hold: &serde_json::Value, field: &str| hold[field].as_str()?.parse::<Timestamp>().ok();
    let explains = |hold: &serde_json::Value| {
        let (Some(since), Some(until)) = (time(hold, "since"), time(hold, "until")) else { return false };
        let length = until.duration_since(since).unsigned_abs();
        let joined = since + JOINED.min(length / 2);
        until <= time_of_day(now + ROUNDED, 0) && time_of_day(gone.time, 0) <= joined + ROUNDED
    };
    let changes = cluster.kube.changes(0);
    [("registeredservices", name.as_str()), ("serviceregistries", REGISTRY)].into_iter().any(|(resource, name)| {
        let of = changes.iter().rev().filter(|change| &*change.resource == resource && &*change.name == name);
        // A status may be that of a moment ago: it shows the hold until the next one is written.
        let earlier = of.clone().filter(|change| change.at < now.saturating_sub(NEWS)).take(1);
        let shown = of.take_while(|change| change.at >= now.saturating_sub(NEWS)).chain(earlier);
        shown.filter_map(|change| change.after.as_deref()).any(|object| explains(&object["status"]["hold"]))
    })
}
