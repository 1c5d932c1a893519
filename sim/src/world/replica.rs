//! Replicas of the operator: a slot in which one process after the other runs.
//!
//! Owns the start, the stop and the crash of a process, its clock, and the probes that it sends. Refuses to know the
//! operator: it hands it a world and runs it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use twinspan::cluster;
use twinspan::cluster::networks::NamedNetworks;
use twinspan::env::Env;
use twinspan::operator::{self, Outside, Settings};
use twinspan::probe::Prober;
use twinspan::registry::Connect;
use twinspan::registry::etcd::EtcdConnector;
use twinspan_core::model::InstanceAddr;
use twinspan_core::plan::departure::Answer;

use super::truth::Truth;
use super::{OPERATOR, World, time_of_day};
use crate::dice::Dice;
use crate::scheduler::ProcessId;
use crate::wire::Sender;
use crate::wire::etcd::ToMembers;
use crate::wire::kube::ToApiServers;

/// The interval between two audits of a registry, in a world with audits.
const AUDITS: Duration = Duration::from_secs(60);
/// The interval in another world: longer than a run.
const NO_AUDITS: Duration = Duration::from_secs(86_400);
/// Time after which a connection that nobody answers is given up (`probe/connect.rs`).
const NO_ANSWER: Duration = Duration::from_secs(3);

/// A slot for processes.
pub struct Replica {
    pub name: String,
    pub cluster: usize,
    slot: Mutex<Slot>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[derive(Default)]
struct Slot {
    running: Option<Running>,
    starts: u64,
    skew: i64,
    /// Processes that ended although nobody told them to.
    ended: Vec<String>,
}

#[derive(Clone)]
struct Running {
    process: ProcessId,
    stop: CancellationToken,
}

impl Replica {
    pub fn new(number: usize, cluster: usize) -> Self {
        let name = format!("{}-{number}", if cluster == 0 { "a" } else { "b" });
        Self { name, cluster, slot: Mutex::default() }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn process(&self) -> Option<ProcessId> {
        self.slot().running.as_ref().map(|running| running.process)
    }

    pub fn is_running(&self) -> bool {
        self.slot().running.is_some()
    }

    /// The clock of the next process is wrong by so many seconds.
    pub fn set_skew(&self, seconds: i64) {
        self.slot().skew = seconds;
    }

    /// The messages with which processes ended by themselves.
    pub fn ended_by_themselves(&self) -> Vec<String> {
        self.slot().ended.clone()
    }

    /// Starts a process, unless one runs.
    pub fn start(&self, world: &World) {
        if world.size.control.is_some() {
            return;
        }
        let stop = CancellationToken::new();
        let (sender, skew) = {
            let mut slot = self.slot();
            if slot.running.is_some() {
                return;
            }
            slot.starts += 1;
            let author = format!("{}#{}", self.name, slot.starts);
            let process = world.scheduler.process(&author);
            slot.running = Some(Running { process, stop: stop.clone() });
            (Sender { name: self.name.clone(), author, process }, slot.skew)
        };
        world.trace.add(&self.name, &format!("starts as {}", sender.author));
        world.starts(&sender.author);
        let dead = world.clone();
        let index = world.replicas.iter().position(|replica| replica.name == self.name);
        world.scheduler.on_death(sender.process, move || {
            if let Some(replica) = index.and_then(|index| dead.replicas.get(index)) {
                replica.slot().running = None;
                dead.trace.add(&replica.name, "is dead");
            }
        });
        let task = run(world.clone(), self.cluster, sender.clone(), skew, stop);
        let ended = world.clone();
        world.scheduler.spawn(sender.process, async move {
            let how = task.await;
            let Some(replica) = index.and_then(|index| ended.replicas.get(index)) else { return };
            let told = replica.slot().running.take().is_some_and(|running| running.stop.is_cancelled());
            ended.trace.add(&replica.name, "has ended");
            if !told {
                replica.slot().ended.push(how);
            }
        });
    }

    /// Tells the process to stop (SIGTERM).
    pub fn stop(&self, world: &World) {
        if let Some(running) = self.slot().running.as_ref() {
            world.trace.add(&self.name, "is told to stop");
            running.stop.cancel();
        }
    }

    /// Ends the process at once.
    pub fn crash(&self, world: &World) {
        if let Some(process) = self.process() {
            world.scheduler.crash(process);
        }
    }
}

async fn run(world: World, cluster: usize, sender: Sender, skew: i64, stop: CancellationToken) -> String {
    let Some(kube) = world.clusters.get(cluster) else { return "no cluster".to_owned() };
    let (began, chance) = (world.now(), Mutex::new(Dice::new(world.seed, &sender.author)));
    let env = Env::started_at(
        || time_of_day(began, skew),
        move || chance.lock().unwrap_or_else(PoisonError::into_inner).fraction(),
    );
    let env = env.run_by(world.scheduler.executor(sender.process));
    let transport = ToApiServers::new(&world.wire, &kube.kube, kube.servers.clone(), &sender);
    let metrics = Arc::default();
    let (lease, rest) = cluster::client::over(&transport, &env, &metrics);
    let members: BTreeMap<_, _> =
        (0..world.size.members).map(|n| (format!("http://etcd-{n}:2379"), (world.etcd.clone(), n))).collect();
    let dialer = Arc::new(ToMembers::new(&world.wire, members, &sender));
    let connect = Connect::by(move |settings| Arc::new(EtcdConnector::over(settings.clone(), dialer.clone())));
    let prober = Arc::new(Probing(world.truth.clone()));
    let server = format!("https://api-{}", kube.name);
    let (admin, inside, page, drain) = (None, None, None, None);
    let outside = Outside { lease, rest, server, metrics, connect, prober, admin, inside, page, drain };
    let settings = Settings {
        reach: Default::default(),
        namespace: OPERATOR.to_owned(),
        leader_elect: true,
        dry_run: false,
        rollouts: false,
        audit_interval: if world.size.audited { AUDITS } else { NO_AUDITS },
        networks: NamedNetworks::default(),
        identity: sender.author,
    };
    match operator::run(outside, settings, env, stop).await {
        Ok(()) => "it ended".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Connections to instances, answered by the truth.
struct Probing(Truth);

#[async_trait]
impl Prober for Probing {
    async fn probe(&self, addr: InstanceAddr) -> Answer {
        match self.0.get(std::net::SocketAddr::new(addr.ip(), addr.port())) {
            Some(instance) if instance.frozen => {
                tokio::time::sleep(NO_ANSWER).await;
                Answer::NoAnswer
            }
            Some(instance) if instance.lives => Answer::Accepted,
            _ => Answer::Refused,
        }
    }
}
