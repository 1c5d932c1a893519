//! One run from its first to its last second.
//!
//! Owns the order: a healthy bed, faults under churn, and [`settle`]. Refuses to judge.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep, timeout};
use twinspan_testbed::{Twinspan, eventually, namespace};

use crate::bed::{Bed, CONTROL, NAMESPACE, SYNCED};
use crate::calls::{Call, tally};
use crate::churn::Churn;
use crate::fault::{Fault, PODS, REPLICAS, Target, VMS};
use crate::foreign;
use crate::inject::Injector;
use crate::kubelet::Kubelet;
use crate::samples::{self, Lag, Side, Wrong};
use crate::settle::{Settled, settle};
use crate::sides::{Seen, Sides};
use crate::supervisor::Supervisor;
use crate::truth::{Timeline, Truth};
use crate::verdict::{self, Measured};

const DNS_PACE: Duration = Duration::from_millis(100);

/// The order for a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub window: Duration,
    pub rest: Duration,
    /// With a second cluster.
    pub second: bool,
    pub faults: Vec<Fault>,
}

/// One sample.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Duration,
    pub lag: Duration,
    pub wrong: BTreeMap<(Side, Wrong), usize>,
}

/// One question to the cluster's DNS.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub at: Duration,
    /// The number of addresses; none if there was no answer.
    pub answer: Option<usize>,
}

/// All measures of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub measured: Measured,
    pub foreign: foreign::Found,
    pub calls: [Vec<Call>; 2],
    pub samples: Vec<Sample>,
    pub asked: Vec<Asked>,
    pub changes: usize,
    pub writes: usize,
    pub settled: Settled,
    /// Faults that could not begin, and those that could not be undone.
    pub skipped: Vec<String>,
    pub failures: Vec<String>,
    pub ended: BTreeMap<String, usize>,
    /// The most memory of each replica, in KiB.
    pub memory: Vec<u64>,
}

pub async fn run(plan: &Plan, dir: &Path, binary: &str) -> Result<Outcome> {
    let bed = Bed::start(dir, binary, plan.second).await?;
    println!("waiting until both sides are equal and every server answers");
    eventually("both sides are equal", Duration::from_secs(60), || async {
        let seen = Seen::now(&bed).await?;
        let all = seen.all(SYNCED).len();
        anyhow::ensure!(seen.differences().is_empty() && all == VMS + PODS, "{seen:?}");
        Ok(())
    })
    .await?;
    bed.serves().await?;
    let marks = bed.clients.each_ref().map(|client| client.mark());

    let start = Instant::now();
    let (truth, supervisor, kubelet, sides) =
        (Truth::default(), Supervisor::default(), Kubelet::new(), Sides::default());
    for target in bed.hosts.keys().filter(|target| matches!(target, Target::Vm(_) | Target::Pod(_))) {
        truth.add(bed.host(*target)?.address(), *target);
        truth.serving(*target, Duration::ZERO, true);
        truth.wanted(*target, Duration::ZERO, true);
    }
    let churn = Churn {
        bed: &bed,
        faults: &plan.faults,
        supervisor: &supervisor,
        truth: &truth,
        kubelet: &kubelet,
        start,
        changes: Default::default(),
        stopped: Default::default(),
    };
    let injector = Injector {
        bed: &bed,
        supervisor: &supervisor,
        truth: &truth,
        start,
        skipped: Mutex::default(),
        failures: Mutex::default(),
    };
    let notes = Notes::default();
    let background = async {
        tokio::join!(
            supervisor.run(&bed, &truth, start),
            kubelet.run(&bed.pod_objects, &truth, start),
            sides.run(&bed),
            notes.sample(&bed, &truth, &sides, start),
            notes.ask(&bed, start),
        );
    };
    let story = async {
        let stop = async {
            tokio::time::sleep_until(start + plan.window).await;
            churn.stop();
        };
        tokio::join!(injector.run(&plan.faults), churn.run(plan.seed), stop);
        let last = start.elapsed();
        println!("{:>6.1} s  all faults have ended", last.as_secs_f64());
        settle(&bed, &injector, last, plan, &sides).await
    };
    let settled = tokio::select! {
        settled = story => settled,
        () = background => anyhow::bail!("the background ended"),
    };

    let instances = truth.instances();
    let calls = [0, 1].map(|n| -> Vec<Call> {
        let lines = bed.clients[n].part().stamped_since(marks[n]);
        lines.iter().filter_map(|(at, line)| Call::read(line, at.saturating_duration_since(start))).collect()
    });
    let history = sides.history();
    let replicas: Vec<_> = (0..REPLICAS).map(|n| bed.hosts[&Target::Replica(n)].address()).collect();
    let second = bed.second.as_ref();
    let replicas: Vec<_> = replicas.into_iter().chain(second.map(|second| second.address)).collect();
    let logs = [Some(&bed.cluster), second.map(|second| &second.cluster)];
    let logs: Vec<&Path> = logs.into_iter().flatten().map(|cluster| cluster.audit_log.as_path()).collect();
    let foreign = foreign::look(&bed.members, &replicas, &logs, &history)?;
    let skipped = injector.skipped.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failures = injector.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let inner = notes.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ended = supervisor.ended();
    let measured = Measured {
        foreign: foreign.violations.len(),
        synced: tally(&calls[0], &instances, &plan.faults),
        control: tally(&calls[1], &instances, &plan.faults),
        late: verdict::late_calls(&calls[0], &instances, &inner.control, &plan.faults),
        equal_after: settled.equal_after,
        bound: verdict::bound(&plan.faults),
        writes_at_rest: settled.at_rest.len(),
        crashes: ended.iter().filter(|(part, _)| part.starts_with("twinspan-")).map(|(_, times)| times).sum(),
        failures: failures.len(),
    };
    Ok(Outcome {
        measured,
        foreign,
        calls,
        samples: inner.samples,
        asked: inner.asked,
        changes: churn.changes.load(Ordering::Relaxed),
        writes: history.writes,
        settled,
        skipped,
        failures,
        ended,
        memory: inner.memory,
    })
}

#[derive(Debug, Default)]
struct Notes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    samples: Vec<Sample>,
    asked: Vec<Asked>,
    memory: Vec<u64>,
    /// When each VM was listed under the name of the control.
    control: BTreeMap<Ipv4Addr, Timeline>,
}

impl Notes {
    fn note(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn sample(&self, bed: &Bed, truth: &Truth, sides: &Sides, start: Instant) {
        let mut lag = Lag::default();
        let replicas: Vec<&Twinspan> =
            bed.replicas.iter().chain(bed.second.iter().map(|second| &second.replica)).collect();
        self.note(|inner| inner.memory = vec![0; replicas.len()]);
        let mut pace = tokio::time::interval(samples::PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // The watches have to list first.
        sleep(Duration::from_secs(2)).await;
        for round in 0u64.. {
            pace.tick().await;
            let (at, seen, instances) = (start.elapsed(), sides.seen(), truth.instances());
            let lag = lag.sample(seen.differences(), &instances, at);
            let sample = Sample { at, lag, wrong: samples::wrong(&seen, &instances, at) };
            let listed = seen.registered.get(CONTROL).cloned().unwrap_or_default();
            self.note(|inner| {
                inner.samples.push(sample);
                for ip in instances.keys() {
                    inner.control.entry(*ip).or_default().set(at, listed.contains(ip));
                }
            });
            if round % 20 == 0 {
                for (n, replica) in replicas.iter().enumerate() {
                    let used = replica.part().pid().ok().and_then(|pid| memory(pid).ok()).unwrap_or(0);
                    self.note(|inner| inner.memory[n] = inner.memory[n].max(used));
                }
            }
        }
    }

    async fn ask(&self, bed: &Bed, start: Instant) {
        let name = format!("{SYNCED}.{NAMESPACE}.svc.cluster.local.");
        loop {
            let at = start.elapsed();
            let answer = timeout(Duration::from_secs(2), bed.dns.addresses(&name)).await;
            let answer = answer.ok().and_then(Result::ok).map(|addresses| addresses.len());
            self.note(|inner| inner.asked.push(Asked { at, answer }));
            sleep(DNS_PACE).await;
        }
    }
}

/// Resident memory of a process in KiB.
fn memory(pid: u32) -> Result<u64> {
    let status = namespace::process_status(pid)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
