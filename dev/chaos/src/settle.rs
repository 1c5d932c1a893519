//! The way back after the last fault: until both sides are equal, and the rest after that.
//!
//! Owns what counts as equal and as rest. Refuses to judge how long it took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::bed::{Bed, CHURNED, CONTROL, NAMESPACE, SYNCED};
use crate::fault::{PODS, Target, VMS};
use crate::inject::Injector;
use crate::run::Plan;
use crate::sides::{self, Seen, Sides};
use crate::verdict;

/// How long a run waits for equality before it gives up: the longest hold, and the longest bound.
const PATIENCE: Duration = Duration::from_secs(300 + 90 + 30);
/// Statuses follow what they report by up to 5 s, and Events too.
const STATUSES: Duration = Duration::from_secs(10);
/// Beyond the bound, to learn whether they become equal at all.
const GRACE: Duration = Duration::from_secs(60);
/// A Kitex server looks for its record every 30 s, and after five failures in a row it looks no more (registry-etcd
/// v0.2.6); then a person starts it again.
const GIVEN_UP: Duration = Duration::from_secs(40);
/// Between two words of what is waited for.
const TOLD: Duration = Duration::from_secs(15);

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// From the last fault, hold or change of others until both sides were equal.
    pub equal_after: Option<Duration>,
    /// From the beginning of the run.
    pub equal_at: Option<Duration>,
    /// The last moment at which a guard held removals.
    pub held_until: Option<Duration>,
    /// Machines that were started again, for their servers registered no more.
    pub restarted: usize,
    /// The last differences, where the sides never became equal.
    pub differences: Vec<String>,
    /// Twinspan's writes at rest.
    pub at_rest: Vec<String>,
}

/// Waits until both sides are equal and hold what the cluster's pods and the servers on VMs say, and then until nothing
/// should be written any more.
pub async fn settle(bed: &Bed, injector: &Injector<'_>, last: Duration, plan: &Plan, sides: &Sides) -> Settled {
    let start = injector.start;
    let mut settled = Settled::default();
    // Twinspan's time begins when the others are at rest: Kubernetes' own controllers, after what they missed.
    let mut others = last;
    let mut told = Instant::now();
    let mut restarted = last;
    loop {
        let now = start.elapsed();
        match look(bed).await {
            Ok(state) => {
                if state.held {
                    settled.held_until = Some(now);
                }
                if !state.others.is_empty() {
                    others = now;
                }
                if now > restarted + GIVEN_UP {
                    restarted = now;
                    settled.restarted += state.unregistered.len();
                    injector.restart(&state.unregistered).await;
                }
                settled.differences = state.others.into_iter().chain(state.differences).collect();
                if settled.differences.is_empty() && !state.held {
                    let since = others.max(settled.held_until.unwrap_or_default());
                    settled.equal_after = Some(now.saturating_sub(since));
                    settled.equal_at = Some(now);
                    break;
                }
            }
            Err(error) => settled.differences = vec![format!("{error:#}")],
        }
        let since = last.max(others).max(settled.held_until.unwrap_or_default());
        if now > last + PATIENCE || now > since + verdict::bound(&plan.faults) + GRACE {
            println!("{:>6.1} s  the sides do not become equal", now.as_secs_f64());
            return settled;
        }
        if told.elapsed() > TOLD {
            told = Instant::now();
            let what = if settled.differences.is_empty() {
                "held by the guard".to_owned()
            } else {
                settled.differences.join("; ")
            };
            println!("{:>6.1} s  {what}", now.as_secs_f64());
        }
        sleep(Duration::from_millis(500)).await;
    }
    println!("{:>6.1} s  both sides are equal", start.elapsed().as_secs_f64());
    sleep(STATUSES).await;
    match rest(bed, plan.rest, sides).await {
        Ok(written) => settled.at_rest = written,
        Err(error) => settled.at_rest = vec![format!("cannot look: {error:#}")],
    }
    settled
}

/// The writes of Twinspan in this time.
async fn rest(bed: &Bed, rest: Duration, sides: &Sides) -> Result<Vec<String>> {
    let (before, writes) = (sides::versions(bed).await?, sides.history().writes);
    sleep(rest).await;
    let after = sides::versions(bed).await?;
    let mut written: Vec<String> = before
        .iter()
        .filter(|(name, version)| after.get(*name) != Some(*version))
        .map(|(name, version)| format!("{name}: {version} became {:?}", after.get(name)))
        .chain(after.keys().filter(|name| !before.contains_key(*name)).map(|name| format!("{name} is new")))
        .collect();
    let more = sides.history().writes - writes;
    if written.is_empty() && more > 0 {
        written.push(format!("{more} changes that came and went"));
    }
    Ok(written)
}

struct State {
    held: bool,
    /// Work that others than Twinspan have not done yet.
    others: Vec<String>,
    /// The machines on which a server has no record of its own.
    unregistered: BTreeSet<Target>,
    differences: Vec<String>,
}

async fn look(bed: &Bed) -> Result<State> {
    let (held, seen, pods) = (sides::holds(bed).await?, Seen::now(bed).await?, sides::ready_pods(bed).await?);
    let controlled = |name: &String| *name == SYNCED || CHURNED.contains(&name.as_str());
    let ready: BTreeMap<_, _> = seen
        .ready
        .iter()
        .filter(|(name, ips)| controlled(name) && !ips.is_empty())
        .map(|(n, ips)| (n.clone(), ips.clone()))
        .collect();
    let mut others = Vec::new();
    if ready != pods {
        others.push(format!("ready pods in {NAMESPACE} are {pods:?}, Kubernetes' own slices have {ready:?}"));
    }
    let mut unregistered = BTreeSet::new();
    for vm in (0..VMS).map(Target::Vm) {
        let ip = bed.host(vm)?.address();
        let lacks = |name: &&str| !seen.registered.get(*name).is_some_and(|all| all.contains(&ip));
        for name in [SYNCED, CONTROL].into_iter().filter(lacks) {
            others.push(format!("the server of {name} on {vm} has not registered itself"));
            unregistered.insert(vm);
        }
    }
    let mut differences: Vec<String> =
        seen.differences().iter().map(|(name, ip, side)| format!("{name} {ip} is not in the {side}")).collect();
    differences.extend(sides::second_lacks(bed, &seen).await?);
    let all = seen.all(SYNCED).len();
    if all != VMS + PODS {
        differences.push(format!("{all} instances of {SYNCED}, {} live", VMS + PODS));
    }
    Ok(State { held, others, unregistered, differences })
}
