//! The plan of a run: timed operations, made from the seed before the run begins.
//!
//! Owns the list and the draws that make it. Refuses to carry anything out. Plain data, so that an operation can be
//! printed and taken out.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::wire::Moment;

/// How large a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub clusters: usize,
    pub replicas: usize,
    pub services: usize,
    /// API servers of a cluster.
    pub servers: usize,
    /// Members of the registry's etcd.
    pub members: usize,
    /// Servers outside of each service.
    pub vms: usize,
    /// Pods of each service in each cluster.
    pub pods: usize,
    /// In so many of a thousand turns any ready task runs.
    pub shuffle: u64,
}

/// An operation at a time since the storm began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    pub at: Duration,
    pub op: Op,
}

/// The side of a replica that a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    Cluster,
    Registry,
}

/// The directions of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Way {
    Both,
    There,
    Back,
}

/// An operation. Numbers beyond what there is are taken modulo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// A pod is created, and becomes ready.
    PodAdd {
        cluster: usize,
        service: usize,
    },
    /// A pod is deleted gracefully.
    PodDelete {
        pod: usize,
    },
    /// The readiness probe of a pod fails for a while.
    PodUnready {
        pod: usize,
        seconds: u64,
    },
    /// All pods of a service are deleted, and as many are created later.
    ScaleToZero {
        cluster: usize,
        service: usize,
        seconds: u64,
    },
    /// A server outside registers.
    VmStart {
        vm: usize,
    },
    /// It deregisters and ends.
    VmStop {
        vm: usize,
    },
    /// It ends without a word.
    VmKill {
        vm: usize,
    },
    /// It answers nobody and prolongs nothing for a while.
    VmFreeze {
        vm: usize,
        seconds: u64,
    },
    /// Its lease is revoked; it registers again at its next tick.
    VmLoses {
        vm: usize,
    },
    /// A person deletes the key of a server outside.
    DeleteKey {
        vm: usize,
    },
    /// A person deletes all keys of a service.
    DeletePrefix {
        service: usize,
    },
    /// Somebody writes what nobody can read.
    Junk {
        service: usize,
    },
    /// A person suspends a RegisteredService for a while.
    Suspend {
        cluster: usize,
        service: usize,
        seconds: u64,
    },
    /// A person deletes a RegisteredService and creates it again.
    Recreate {
        cluster: usize,
        service: usize,
        seconds: u64,
    },
    /// A person approves what is held.
    Approve {
        cluster: usize,
        service: usize,
    },
    /// A person deletes one of our slices.
    DeleteSlice {
        cluster: usize,
        service: usize,
    },
    /// A replica crashes after so many polls, and another process takes its place.
    Crash {
        replica: usize,
        polls: u64,
        seconds: u64,
    },
    /// A replica is told to stop (SIGTERM), and another process takes its place.
    Stop {
        replica: usize,
        seconds: u64,
    },
    Freeze {
        replica: usize,
        seconds: u64,
    },
    /// The clock of the process that starts next is wrong by so many seconds.
    Clock {
        replica: usize,
        seconds: i64,
    },
    Partition {
        replica: usize,
        side: Side,
        way: Way,
        seconds: u64,
    },
    EtcdDown {
        member: usize,
        seconds: u64,
    },
    EtcdFrozen {
        member: usize,
        seconds: u64,
    },
    EtcdNoLeader {
        seconds: u64,
    },
    EtcdLeaderMoved,
    EtcdWatchesCut,
    EtcdWatchesStalled {
        seconds: u64,
    },
    EtcdCompacted,
    EtcdFull {
        seconds: u64,
    },
    /// The registry is restored to its state at the start of the storm.
    EtcdRestored {
        new_cluster_id: bool,
        bumped: bool,
    },
    EtcdEmptied {
        new_cluster_id: bool,
    },
    ApiDown {
        cluster: usize,
        server: usize,
        seconds: u64,
    },
    ApiFrozen {
        cluster: usize,
        server: usize,
        seconds: u64,
    },
    ApiWatchesCut {
        cluster: usize,
    },
    ApiWatchesStalled {
        cluster: usize,
        seconds: u64,
    },
    ApiCompacted {
        cluster: usize,
    },
    ApiLags {
        cluster: usize,
        server: usize,
        seconds: u64,
    },
    /// The next requests fail with a status, some of them after they took effect.
    ApiErrors {
        cluster: usize,
        code: u16,
        count: u64,
        applied: bool,
    },
    /// Messages meet bad fates for a while; `kind` chooses which.
    Messages {
        kind: u64,
        seconds: u64,
    },
}

impl Op {
    /// Whether it is a fault, and not something that servers or people do.
    pub fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::PodAdd { .. }
                | Self::PodDelete { .. }
                | Self::PodUnready { .. }
                | Self::ScaleToZero { .. }
                | Self::VmStart { .. }
                | Self::VmStop { .. }
                | Self::VmKill { .. }
                | Self::VmFreeze { .. }
                | Self::VmLoses { .. }
                | Self::DeleteKey { .. }
                | Self::DeletePrefix { .. }
                | Self::Junk { .. }
                | Self::Suspend { .. }
                | Self::Recreate { .. }
                | Self::Approve { .. }
                | Self::DeleteSlice { .. }
        )
    }

    /// The time until its last effect has ended.
    pub fn length(self) -> Duration {
        let seconds = match self {
            Self::PodUnready { seconds, .. }
            | Self::ScaleToZero { seconds, .. }
            | Self::VmFreeze { seconds, .. }
            | Self::Suspend { seconds, .. }
            | Self::Recreate { seconds, .. }
            | Self::Freeze { seconds, .. }
            | Self::Partition { seconds, .. }
            | Self::EtcdDown { seconds, .. }
            | Self::EtcdFrozen { seconds, .. }
            | Self::EtcdNoLeader { seconds }
            | Self::EtcdWatchesStalled { seconds }
            | Self::EtcdFull { seconds }
            | Self::ApiDown { seconds, .. }
            | Self::ApiFrozen { seconds, .. }
            | Self::ApiWatchesStalled { seconds, .. }
            | Self::Messages { seconds, .. } => seconds,
            Self::Crash { seconds, .. } => 5 + seconds,
            Self::Stop { seconds, .. } => 36 + seconds,
            Self::ApiLags { .. } => 60,
            _ => 0,
        };
        Duration::from_secs(seconds)
    }
}

/// A run: everything that happens follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    pub size: Size,
    /// The fields of each RegisteredService besides its registry.
    pub spec: Value,
    /// Length of the storm.
    pub storm: Duration,
    pub ops: Vec<Timed>,
    /// After the storm one replica of each cluster and a quorum of the registry are healed, the rest never.
    pub core: bool,
    /// A fault of one replica at one of its messages in the storm: the number of the replica, and of the message.
    pub moment: Option<(usize, u64, Moment)>,
    /// Whether the run goes on until it is seen to rest.
    pub rests: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "plan");
        let size = Size {
            clusters: if dice.permille(400) { 2 } else { 1 },
            replicas: if dice.permille(700) { 2 } else { 1 },
            services: dice.between(1, 2) as usize,
            servers: if dice.permille(300) { 2 } else { 1 },
            members: if dice.permille(300) { 3 } else { 1 },
            vms: dice.between(1, 4) as usize,
            pods: dice.between(1, 4) as usize,
            shuffle: *dice.pick(&[0, 0, 100, 500]).unwrap_or(&0),
        };
        let storm = Duration::from_secs(dice.between(40, 150));
        // A third of the kinds never comes in a run, so that the others come more often.
        let kinds: Vec<u64> = (0..KINDS).filter(|_| dice.permille(667)).collect();
        let mut ops = Vec::new();
        let count = dice.between(4, 24);
        for _ in 0..count {
            let at = Duration::from_millis(dice.below(storm.as_millis() as u64));
            let load = dice.permille(600);
            let op = if load { load_op(&mut dice) } else { fault(&mut dice, &kinds) };
            ops.extend(op.map(|op| Timed { at, op }));
        }
        ops.sort_by_key(|timed| timed.at);
        let on_expiry = *dice.pick(&["Probe", "Probe", "Heal", "Remove"]).unwrap_or(&"Probe");
        let hold = *dice.pick(&[60, 300]).unwrap_or(&60);
        let spec = json!({"import": {"onExpiry": on_expiry}, "deletionGuard": {"holdSeconds": hold}});
        let core = dice.permille(200);
        Self { seed, size, spec, storm, ops, core, moment: None, rests: true }
    }
}

fn load_op(dice: &mut Dice) -> Option<Op> {
    let (cluster, service, any) = (dice.below(2) as usize, dice.below(2) as usize, dice.below(16) as usize);
    let seconds = dice.between(1, 60);
    Some(match dice.below(30) {
        0..4 => Op::PodAdd { cluster, service },
        4..8 => Op::PodDelete { pod: any },
        8..11 => Op::PodUnready { pod: any, seconds },
        11 => Op::ScaleToZero { cluster, service, seconds },
        12..16 => Op::VmStart { vm: any },
        16..19 => Op::VmStop { vm: any },
        19..21 => Op::VmKill { vm: any },
        21 => Op::VmFreeze { vm: any, seconds: seconds * 2 },
        22 => Op::VmLoses { vm: any },
        23 => Op::DeleteKey { vm: any },
        24 => Op::DeletePrefix { service },
        25 => Op::Junk { service },
        26 => Op::Suspend { cluster, service, seconds },
        27 => Op::Recreate { cluster, service, seconds },
        28 => Op::Approve { cluster, service },
        _ => Op::DeleteSlice { cluster, service },
    })
}

/// Kinds of faults.
const KINDS: u64 = 24;

fn fault(dice: &mut Dice, kinds: &[u64]) -> Option<Op> {
    let kind = *dice.pick(kinds)?;
    let (cluster, server) = (dice.below(2) as usize, dice.below(2) as usize);
    let (replica, member) = (dice.below(4) as usize, dice.below(3) as usize);
    let long = dice.permille(300);
    let seconds = if long { dice.between(20, 120) } else { dice.between(1, 20) };
    let way = *dice.pick(&[Way::Both, Way::There, Way::Back])?;
    Some(match kind {
        0 | 1 => Op::Crash { replica, polls: dice.between(1, 2000), seconds: dice.between(1, 20) },
        2 => Op::Stop { replica, seconds: dice.between(1, 20) },
        3 | 4 => Op::Freeze { replica, seconds },
        5 => Op::Clock { replica, seconds: *dice.pick(&[-3600, -60, 60, 3600])? },
        6 => Op::Partition { replica, side: Side::Cluster, way, seconds },
        7 => Op::Partition { replica, side: Side::Registry, way, seconds },
        8 => Op::EtcdDown { member, seconds },
        9 => Op::EtcdFrozen { member, seconds },
        10 => Op::EtcdNoLeader { seconds: seconds.min(30) },
        11 => Op::EtcdLeaderMoved,
        12 => Op::EtcdWatchesCut,
        13 => Op::EtcdWatchesStalled { seconds },
        14 => Op::EtcdCompacted,
        15 => Op::EtcdFull { seconds },
        16 => Op::EtcdRestored { new_cluster_id: dice.permille(500), bumped: dice.permille(300) },
        17 => Op::EtcdEmptied { new_cluster_id: dice.permille(500) },
        18 => Op::ApiDown { cluster, server, seconds },
        19 => Op::ApiFrozen { cluster, server, seconds },
        20 => match dice.below(3) {
            0 => Op::ApiWatchesCut { cluster },
            1 => Op::ApiCompacted { cluster },
            _ => Op::ApiWatchesStalled { cluster, seconds },
        },
        21 => Op::ApiLags { cluster, server, seconds: seconds.min(30) },
        22 => Op::ApiErrors {
            cluster,
            code: *dice.pick(&[429, 500, 503, 504])?,
            count: dice.between(1, 10),
            applied: dice.permille(500),
        },
        _ => Op::Messages { kind: dice.below(6), seconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_in_the_order_of_its_times() {
        assert_eq!(Plan::of(3), Plan::of(3));
        for seed in 0..50 {
            let plan = Plan::of(seed);
            assert!(plan.ops.is_sorted_by_key(|timed| timed.at), "{seed}");
            assert!(plan.ops.iter().all(|timed| timed.at < plan.storm), "{seed}");
        }
    }
}
