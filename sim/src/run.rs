//! One run: a plan from its beginning to the verdict.
//!
//! Owns the phases: calm, storm, healing, rest, a failover at rest. Refuses to judge by itself, which [`crate::check`]
//! does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::check::clients::Clients;
use crate::check::state::State;
use crate::check::{Violation, claims, doors, evidence, latency, news, removals, rest, state, stores};
use crate::on_virtual_time;
use crate::plan::{Op, Plan, Size};
use crate::scheduler::Scheduler;
use crate::trace::Trace;
use crate::wire::fate::Rates;
use crate::wire::{Call, Part, Scripted};
use crate::world::World;

/// Time in which a world that begins comes to rest.
const BEGINNING: Duration = Duration::from_secs(120);
/// Time in which both sides are equal after the last fault and the last announced hold: a silent connection, the
/// longest backoff of a pass and a server's tick.
const CONVERGENCE: Duration = Duration::from_secs(100);
/// The longest hold, and what may follow it.
const LONGEST: Duration = Duration::from_secs(1200);
/// Time after the last change, or the end of the storm, in which another replica may take over, and statuses and Events
/// may follow.
const QUIET: Duration = Duration::from_secs(75);
/// Length of the rest.
const REST: Duration = Duration::from_secs(60);

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    /// A number that differs where two runs differ.
    pub trace: u64,
    pub lines: Vec<String>,
    pub faults: BTreeMap<&'static str, u64>,
    /// Virtual time.
    pub length: Duration,
    pub polls: u64,
    /// Messages of each replica since the storm began.
    pub messages: Vec<u64>,
    /// Frames of streams that each replica got since then.
    pub frames: Vec<u64>,
    /// When the storm began.
    pub calm: Duration,
    /// Calls that failed, of clients that ask the side on which the instance is by itself.
    pub failed_calls: u64,
    /// When each instance came to a side and went from it, in order and without times.
    pub turns: BTreeMap<String, Vec<bool>>,
}

/// Runs a plan on a thread of its own. `prints` shows the trace.
pub fn run(plan: &Plan, prints: bool) -> Outcome {
    let plan = plan.clone();
    stage(plan.seed, plan.size, plan.spec.clone(), prints, move |world| async move {
        world.enter_faults();
        let mut violations = course(&world, &plan).await;
        if let Some(calm) = world.calm().filter(|_| plan.size.control.is_none()) {
            violations.extend(evidence::check(&world, calm));
            violations.extend(latency::check(&world, calm));
            violations.extend(news::check(&world, calm));
        }
        violations
    })
}

/// Runs a scene on a thread of its own: `scene` acts in a world in which nothing runs yet, and returns what it found.
/// Every message and both histories are judged afterwards.
pub fn stage<F>(
    seed: u64,
    size: Size,
    spec: Value,
    prints: bool,
    scene: impl FnOnce(World) -> F + Send + 'static,
) -> Outcome
where
    F: Future<Output = Vec<Violation>> + Send + 'static,
{
    on_virtual_time(move || async move {
        let trace = Trace::begin(prints);
        let scheduler = Scheduler::new(seed, size.shuffle);
        let world = World::new(seed, size, spec, &scheduler, &trace);
        let main = scheduler.process("main");
        let (violations, clients) = (Arc::new(Mutex::new(Vec::new())), Clients::default());
        let (found, acting, calls) = (violations.clone(), world.clone(), clients.clone());
        scheduler
            .run(main, async move {
                let (asking, there) = (clients.clone(), acting.clone());
                acting.act(async move {
                    there.until_calm().await;
                    asking.ask(there).await;
                });
                let mut all = scene(acting.clone()).await;
                all.extend(clients.found());
                all.extend(doors::check(&acting.wire.log()));
                all.extend(doors::check_deletes(&acting, &acting.wire.log()));
                all.extend(stores::check(&acting));
                all.extend(claims::check(&acting, &acting.wire.log()));
                if let Some(calm) = acting.calm() {
                    all.extend(removals::check(&acting, calm));
                }
                found.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
            })
            .await;
        let mut violations = violations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ends = world.replicas.iter().flat_map(|replica| {
            let ended = replica.ended_by_themselves();
            ended.into_iter().map(|how| Violation::new("end", world.now(), format!("{}: {how}", replica.name)))
        });
        violations.extend(ends);
        violations.extend(scheduler.panics().iter().map(|panic| Violation::new("panic", world.now(), panic.as_str())));
        violations.sort_by_key(|violation| violation.at);
        let outcome = Outcome {
            violations,
            trace: trace.hash(),
            lines: trace.all(),
            faults: world.wire.counts(),
            length: world.now(),
            polls: scheduler.turns(),
            messages: world.messages(Part::Request),
            frames: world.messages(Part::Frame),
            calm: world.calm().unwrap_or_default(),
            failed_calls: calls.failed_calls(),
            turns: state::turns(&world),
        };
        scheduler.crash_all();
        outcome
    })
}

/// Begins a world with everything running, and waits until both sides are equal.
pub async fn begin(world: &World) -> Vec<Violation> {
    set_up(world);
    world.replicas.iter().for_each(|replica| replica.start(world));
    let violations = equal_within(world, BEGINNING, "at the beginning").await;
    world.set_calm();
    violations
}

fn set_up(world: &World) {
    world.set_up();
    world.start_vms();
    for cluster in 0..world.size.clusters {
        for service in 0..world.size.services {
            (0..world.size.pods).for_each(|_| world.add_pod(cluster, service));
        }
    }
    // The others start later, if at all.
    let first = world.size.vms.div_ceil(2) * world.size.services;
    world.vms.iter().take(first).for_each(|vm| vm.start(world));
}

async fn course(world: &World, plan: &Plan) -> Vec<Violation> {
    if let Some(calm) = plan.size.control {
        set_up(world);
        sleep(calm).await;
        world.set_calm();
        storm(world, plan).await;
        return Vec::new();
    }
    let mut violations = begin(world).await;
    if !violations.is_empty() {
        return violations;
    }
    world.trace.add("run", "the storm begins");
    storm(world, plan).await;
    heal(world, plan.core);
    world.trace.add("run", "the storm is over");
    violations.extend(equal_within(world, CONVERGENCE, "after the storm").await);
    if violations.is_empty() && plan.rests {
        violations.extend(at_rest(world, !plan.core && plan.seed.is_multiple_of(3)).await);
        if violations.is_empty() && !plan.core && plan.seed.is_multiple_of(5) {
            violations.extend(from_nothing(world).await);
        }
    }
    violations
}

async fn storm(world: &World, plan: &Plan) {
    let (backup, began) = (world.etcd.snapshot(), world.now());
    world.count_replicas_from_the_leader();
    if let Some(Scripted { replica, part, number, moment }) = plan.moment {
        world.impair(Op::Trap { replica, call: Call::Txn, skip: 0, moment });
        let name = &world.replica(replica).name;
        world.wire.script(name, part, world.wire.sent_by(name, part) + number, moment);
    }
    world.count_messages();
    for timed in &plan.ops {
        sleep((began + timed.at).saturating_sub(world.now())).await;
        world.apply(timed.op, &backup);
    }
    let end = plan.ops.iter().map(|timed| timed.at + timed.op.length()).max().unwrap_or_default().max(plan.storm);
    sleep((began + end).saturating_sub(world.now()) + Duration::from_millis(1)).await;
    world.end_storm();
}

/// Ends every fault that is left; or heals a core alone: one replica of each cluster. The others are frozen for ever,
/// whatever they hold.
pub fn heal(world: &World, core: bool) {
    if core {
        // The leader may be among those that stop.
        world.impair(Op::Freeze { replica: 0, seconds: 20 });
    }
    world.wire.heal();
    world.wire.set_rates(Rates::default());
    for cluster in &world.clusters {
        (0..world.size.servers).for_each(|server| cluster.kube.clear_failures(server));
    }
    for (number, replica) in world.replicas.iter().enumerate() {
        let is_core = number % world.size.replicas == 0;
        if core && !is_core {
            if let Some(process) = replica.process() {
                world.scheduler.freeze(process);
            }
            continue;
        }
        if let Some(process) = replica.process() {
            world.scheduler.thaw(process);
        }
        replica.start(world);
    }
    if core && world.size.members == 3 {
        world.etcd.set_down(2, true);
    }
}

/// Waits until both sides equal the truth for a moment, not counting announced holds.
pub async fn equal_within(world: &World, within: Duration, when: &str) -> Vec<Violation> {
    let began = world.now();
    let mut counted_from = began;
    let mut equal_since = None;
    loop {
        let difference = rest::difference(world);
        let now = world.now();
        if rest::holds(world) {
            counted_from = now;
        }
        match difference {
            None if equal_since.is_some_and(|since| now >= since + Duration::from_secs(5)) => return Vec::new(),
            None => drop(equal_since.get_or_insert(now)),
            Some(difference) if now > counted_from + within || now > began + LONGEST => {
                return vec![Violation::new("I2", now, format!("{when} the sides differ: {difference}"))];
            }
            Some(_) => equal_since = None,
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Rest, in which nothing is written; then a restart of every replica, which writes neither a record nor a slice.
async fn at_rest(world: &World, restarts: bool) -> Vec<Violation> {
    // Statuses and Events follow what they tell of.
    let began = world.now();
    let quiet = |world: &World| !rest::holds(world) && world.now() >= rest::last_change(world).max(began) + QUIET;
    while world.now() < began + LONGEST && !quiet(world) {
        sleep(Duration::from_secs(5)).await;
    }
    let from = world.now();
    sleep(REST).await;
    let mut violations = rest::quiet(world, from);
    violations.truncate(3);
    // A hold that goes on is judged anew.
    if restarts && !rest::holds(world) {
        let from = world.now();
        for replica in &world.replicas {
            replica.crash(world);
        }
        sleep(Duration::from_secs(2)).await;
        for replica in &world.replicas {
            replica.start(world);
        }
        sleep(REST).await;
        violations.extend(rest::untouched(world, from));
    }
    violations
}

/// Everything that replicas made is deleted while none runs: the state that they make anew is the same.
async fn from_nothing(world: &World) -> Vec<Violation> {
    if rest::holds(world) || state::keeps_lost_ones(world) {
        return Vec::new();
    }
    let before = State::of(world);
    world.replicas.iter().for_each(|replica| replica.crash(world));
    state::delete_everything(world);
    sleep(Duration::from_secs(2)).await;
    world.replicas.iter().for_each(|replica| replica.start(world));
    let violations = equal_within(world, CONVERGENCE, "from nothing").await;
    if violations.is_empty() { before.compare(&State::of(world), world) } else { violations }
}
