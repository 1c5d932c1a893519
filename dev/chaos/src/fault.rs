//! Faults as plain data: what is broken, when, and for how long.
//!
//! Owns their names and which parts each touches. Refuses to choose among them, which [`crate::schedule`] does, and to
//! break anything, which [`crate::inject`] does.

use std::fmt;
use std::time::Duration;

/// How many there are of each.
pub const REPLICAS: usize = 2;
pub const MEMBERS: usize = 3;
pub const VMS: usize = 6;
pub const PODS: usize = 6;

/// A host of the bed, with the part or the parts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A replica of Twinspan.
    Replica(usize),
    /// A member of the registry's etcd.
    Member(usize),
    ApiServer,
    /// The etcd of the API server.
    Store,
    ControllerManager,
    Dns,
    /// The host of both calling Kitex clients.
    Client,
    /// A virtual machine: a Kitex server of the service that is synced, and one of the control.
    Vm(usize),
    /// A pod: a Kitex server that does not know the registry.
    Pod(usize),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(n) => write!(f, "twinspan-{n}"),
            Self::Member(n) => write!(f, "registry-{n}"),
            Self::ApiServer => write!(f, "kube-apiserver"),
            Self::Store => write!(f, "cluster-etcd"),
            Self::ControllerManager => write!(f, "controller-manager"),
            Self::Dns => write!(f, "coredns"),
            Self::Client => write!(f, "client"),
            Self::Vm(n) => write!(f, "vm-{n}"),
            Self::Pod(n) => write!(f, "pod-{n}"),
        }
    }
}

/// The directions in which a cut drops packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    Both,
    /// Only what the first sends to the second.
    Out,
    /// Only what the first receives from the second.
    In,
}

/// The packets that a cut drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    All,
    /// The first packet of a connection: what is open stays open.
    Syn,
    /// The port of etcd's clients.
    Etcd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impairment {
    /// 200 ms ± 100 more for each packet that is sent.
    Delay,
    /// One packet in five is dropped, sent and received alike.
    Loss,
    /// 64 kbit/s for what is sent.
    Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL, and a start at the end.
    Kill(Target),
    /// SIGSTOP, and SIGCONT at the end.
    Freeze(Target),
    /// Packets between two hosts are dropped without an answer.
    Cut {
        from: Target,
        to: Target,
        ways: Ways,
        traffic: Traffic,
    },
    /// Every packet of a host is dropped without an answer.
    Isolate(Target),
    Impair(Target, Impairment),
    /// The clock of a replica is moved by so many seconds, and back at the end.
    Clock(usize, i64),
    MoveLeader,
    /// A member is removed with its data, and added again at the end.
    RemoveMember(usize),
    Defragment(usize),
    Compact,
    /// The alarm of a used-up quota is raised, under which etcd refuses every put.
    NoSpace(usize),
    /// The file system of the last member is filled to the last byte.
    FillDisk,
    /// A snapshot is taken, and restored at the end.
    Restore,
    /// All members lose their data at once.
    Empty,
}

/// The member whose data is on a small file system of its own.
pub const SMALL_DISK: usize = MEMBERS - 1;

impl Action {
    /// The parts that no other fault may touch at the same time.
    pub fn touches(self) -> Vec<Target> {
        match self {
            Self::Kill(target) | Self::Freeze(target) | Self::Isolate(target) | Self::Impair(target, _) => vec![target],
            Self::Cut { from, to, .. } => vec![from, to],
            Self::Clock(replica, _) => vec![Target::Replica(replica)],
            Self::NoSpace(member) | Self::Defragment(member) => vec![Target::Member(member)],
            Self::FillDisk => vec![Target::Member(SMALL_DISK)],
            Self::RemoveMember(_) | Self::Restore | Self::Empty => (0..MEMBERS).map(Target::Member).collect(),
            Self::MoveLeader | Self::Compact => Vec::new(),
        }
    }

    /// True if it is done in a moment, and has no end.
    pub fn is_momentary(self) -> bool {
        matches!(self, Self::MoveLeader | Self::Defragment(_) | Self::Compact)
    }

    /// True if a connection may be cut so that neither end hears of it.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Isolate(_) | Self::Cut { traffic: Traffic::All | Traffic::Etcd, .. })
    }

    /// True if a call of the client to this host may fail although its server lives.
    pub fn parts_client_from(self, server: Target) -> bool {
        match self {
            Self::Isolate(target) | Self::Impair(target, _) => target == server || target == Target::Client,
            Self::Cut { from, to, .. } => [from, to] == [Target::Client, server],
            _ => false,
        }
    }

    /// True if Twinspan, or what carries a change to it or from it, is broken: then changes may come late.
    pub fn delays_changes(self) -> bool {
        let servers = |target: &Target| matches!(target, Target::Vm(_) | Target::Pod(_) | Target::Dns);
        let touched = self.touches();
        touched.is_empty() || touched.iter().any(|target| !servers(target))
    }

    /// True if a client of the registry may hear of a change late.
    pub fn delays_clients(self) -> bool {
        let touched = self.touches();
        touched.is_empty() || touched.iter().any(|target| matches!(target, Target::Member(_) | Target::Client))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(target) => write!(f, "kill {target}"),
            Self::Freeze(target) => write!(f, "freeze {target}"),
            Self::Cut { from, to, ways, traffic } => {
                let arrow = match ways {
                    Ways::Both => "<->",
                    Ways::Out => "->",
                    Ways::In => "<-",
                };
                let what = match traffic {
                    Traffic::All => "",
                    Traffic::Syn => " (SYN only)",
                    Traffic::Etcd => " (port 2379)",
                };
                write!(f, "cut {from} {arrow} {to}{what}")
            }
            Self::Isolate(target) => write!(f, "cut {target} <-> all"),
            Self::Impair(target, Impairment::Delay) => write!(f, "delay 200 ms ± 100 at {target}"),
            Self::Impair(target, Impairment::Loss) => write!(f, "loss 20 % at {target}"),
            Self::Impair(target, Impairment::Rate) => write!(f, "rate 64 kbit/s at {target}"),
            Self::Clock(replica, seconds) => write!(f, "clock {seconds:+} s at {}", Target::Replica(*replica)),
            Self::MoveLeader => write!(f, "leader of the registry moved"),
            Self::RemoveMember(member) => write!(f, "{} removed", Target::Member(*member)),
            Self::Defragment(member) => write!(f, "{} defragmented", Target::Member(*member)),
            Self::Compact => write!(f, "registry compacted"),
            Self::NoSpace(member) => write!(f, "alarm NOSPACE of {}", Target::Member(*member)),
            Self::FillDisk => write!(f, "disk of {} full", Target::Member(SMALL_DISK)),
            Self::Restore => write!(f, "registry restored from a snapshot"),
            Self::Empty => write!(f, "registry emptied"),
        }
    }
}

/// One fault, with times from the beginning of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Duration,
    pub lasts: Duration,
    pub action: Action,
}

impl Fault {
    pub fn ends(&self) -> Duration {
        self.at + self.lasts
    }

    pub fn overlaps(&self, from: Duration, to: Duration) -> bool {
        self.at <= to && from <= self.ends()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6.1} s  {:>4.1} s  {}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.action)
    }
}
