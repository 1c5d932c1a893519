//! The operations of a plan.
//!
//! Owns their names, their numbers and how long each of them has an effect. Refuses to carry them out and to draw them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Side, Way};
use crate::wire::{Call, Moment};

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
    /// A server deregisters and ends.
    VmStop {
        vm: usize,
    },
    /// A server ends without a word.
    VmKill {
        vm: usize,
    },
    /// A server answers nobody and prolongs nothing for a while.
    VmFreeze {
        vm: usize,
        seconds: u64,
    },
    /// The lease of a server is revoked; the server registers again at its next tick.
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
    /// Somebody writes what nobody can read under the key of a pod, for a while.
    JunkAtPod {
        pod: usize,
        seconds: u64,
    },
    /// A person creates a second ServiceRegistry for the same place, for a while.
    Duplicate {
        cluster: usize,
        service: usize,
        seconds: u64,
    },
    /// A clone of the cluster raises the epoch; a person approves it later.
    Clone {
        cluster: usize,
        seconds: u64,
    },
    /// A second RegisteredService imports a server under another name into the same Service; later only that name has
    /// it.
    Alias {
        cluster: usize,
        vm: usize,
    },
    /// Somebody makes what nobody can carry out: a RegisteredService of a newer version, a ServiceRegistry whose
    /// servers are away, and junk under another name.
    Hostile {
        cluster: usize,
    },
    /// A person revokes the lease of the record of a pod.
    LeaseRevoked {
        pod: usize,
    },
    /// An administrator names other endpoints of the registry for a while, the first of which nobody answers.
    Reconnect {
        cluster: usize,
        seconds: u64,
    },
    /// An administrator creates the ServiceRegistry again with another prefix, and later with its own.
    Move {
        cluster: usize,
        seconds: u64,
    },
    /// A RegisteredService that creates its Service imports a service too, for a while.
    Created {
        cluster: usize,
        service: usize,
        seconds: u64,
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
    /// Every replica crashes, and a server loses its lease while none runs.
    LostUnseen {
        vm: usize,
        seconds: u64,
    },
    /// A replica meets this fault at a message of this kind, after so many others of it.
    Trap {
        replica: usize,
        call: Call,
        skip: u64,
        moment: Moment,
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
    /// The records of others come or go for a while, so that the registry is a large one, or none any more.
    Crowd {
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
    /// The user of the replicas may not write the records of a service for a while, nor `reads` them.
    EtcdForbids {
        service: usize,
        reads: bool,
        seconds: u64,
    },
    /// The user gets another password; the Secret follows later.
    EtcdPassword {
        seconds: u64,
    },
    /// The next events of records are lost on their way to each replica, though the watch goes on (etcd issues 18089
    /// and 19179).
    EventsLost {
        seconds: u64,
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
    /// Watches say nothing for a while, and what they would have said is compacted: only lists tell of it.
    ApiBlind {
        cluster: usize,
        seconds: u64,
    },
    /// Every replica crashes, and for a while its successors may not list a kind.
    KindRefused {
        cluster: usize,
        kind: usize,
        seconds: u64,
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
                | Self::JunkAtPod { .. }
                | Self::Duplicate { .. }
                | Self::Alias { .. }
                | Self::Hostile { .. }
                | Self::LeaseRevoked { .. }
                | Self::DeleteSlice { .. }
                | Self::Reconnect { .. }
                | Self::Move { .. }
                | Self::Created { .. }
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
            | Self::ApiBlind { seconds, .. }
            | Self::JunkAtPod { seconds, .. }
            | Self::Duplicate { seconds, .. }
            | Self::LostUnseen { seconds, .. }
            | Self::Reconnect { seconds, .. }
            | Self::Move { seconds, .. }
            | Self::Created { seconds, .. }
            | Self::Messages { seconds, .. } => seconds,
            Self::Crash { seconds, .. } => 5 + seconds,
            Self::Stop { seconds, .. } => 36 + seconds,
            Self::KindRefused { seconds, .. } => 40 + seconds,
            // A leader that raises an unexplained epoch is careful for one lease TTL.
            Self::Clone { seconds, .. } => 90 + seconds,
            Self::Alias { .. } => 20,
            // A session tries a range again that it may not read, and a lease that it may not write.
            Self::EtcdForbids { seconds, .. } | Self::EtcdPassword { seconds } => 40 + seconds,
            // The next audit finds them, and counts.
            Self::EventsLost { seconds } | Self::Crowd { seconds } => 80 + seconds,
            // A freeze, or a crash after which another process has to be started.
            Self::Trap { .. } | Self::ApiLags { .. } => 60,
            _ => 0,
        };
        Duration::from_secs(seconds)
    }
}
