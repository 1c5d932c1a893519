//! The faults of servers, carried out: etcd and the API servers.
//!
//! Owns the way from an [`Op`] to a fault of a server, and its end. Refuses to draw.

use std::time::Duration;

use sim_etcd::{Restore, Snapshot};
use sim_kube::{Failure, Status};

use super::World;
use super::truth::Meddling;
use crate::plan::Op;

/// Seconds after which somebody sets the users of a registry up that came anew.
const SETS_UP: u64 = 10;

/// The records of others in a large registry, of which nobody asks for any.
const CROWD: i64 = 1_000_000;

pub(super) fn crowd(is_there: bool) -> i64 {
    if is_there { CROWD } else { 0 }
}

impl World {
    /// Everybody may have lost what it knew of every service.
    fn meddle_all(&self) {
        (0..self.size.services).for_each(|service| self.truth.meddle(service, Meddling::Loss, self.now()));
    }

    pub(super) fn apply_to_servers(&self, op: Op, backup: &Snapshot) {
        let member_of = |member: usize| member % self.size.members;
        let cluster_of = |cluster: usize| cluster % self.clusters.len();
        let server_of = |server: usize| server % self.size.servers;
        match op {
            Op::EtcdDown { member, seconds } => {
                self.wire.count("etcd down");
                let member = member_of(member);
                self.etcd.set_down(member, true);
                self.after(seconds, move |world| world.etcd.set_down(member, false));
            }
            Op::EtcdFrozen { member, seconds } => {
                self.wire.count("etcd frozen");
                let member = member_of(member);
                self.etcd.set_frozen(member, true);
                self.after(seconds, move |world| world.etcd.set_frozen(member, false));
            }
            Op::EtcdNoLeader { seconds } => {
                self.wire.count("etcd no leader");
                self.etcd.set_no_leader(true);
                self.after(seconds, |world| world.etcd.set_no_leader(false));
            }
            Op::EtcdLeaderMoved => {
                self.wire.count("etcd leader moved");
                self.etcd.move_leader();
            }
            Op::EtcdWatchesCut => {
                self.wire.count("etcd watches cut");
                self.etcd.cut_watches();
            }
            Op::EtcdWatchesStalled { seconds } => {
                self.wire.count("etcd watches stalled");
                self.etcd.stall_watches(true);
                self.after(seconds, |world| world.etcd.stall_watches(false));
            }
            Op::EtcdCompacted => {
                self.wire.count("etcd compacted");
                self.etcd.compact(None);
            }
            Op::EtcdFull { seconds } => {
                self.wire.count("etcd full");
                self.etcd.set_quota_full(true);
                self.after(seconds, |world| world.etcd.set_quota_full(false));
            }
            Op::Crowd { seconds } => {
                self.wire.count("crowd");
                self.etcd.set_crowd(crowd(!self.size.crowd));
                self.after(seconds, |world| world.etcd.set_crowd(crowd(world.size.crowd)));
            }
            Op::EtcdRestored { new_cluster_id, bumped } => {
                self.wire.count("etcd restored");
                self.meddle_all();
                let bump_revision = bumped.then_some(1_000_000);
                self.replace_registry(|etcd| etcd.restore(backup.clone(), Restore { new_cluster_id, bump_revision }));
                self.after(SETS_UP, Self::permit);
            }
            Op::EtcdEmptied { new_cluster_id } => {
                self.wire.count("etcd emptied");
                self.meddle_all();
                self.replace_registry(|etcd| etcd.empty(new_cluster_id));
                self.after(SETS_UP, Self::permit);
            }
            Op::EtcdForbids { service, reads, seconds } => {
                self.wire.count("etcd forbids");
                let service = service % self.size.services;
                self.forbid(service, reads, true);
                self.after(seconds, move |world| world.forbid(service, reads, false));
            }
            Op::EtcdPassword { seconds } => {
                self.wire.count("etcd password");
                self.rotate_password();
                self.after(seconds, Self::update_secrets);
            }
            Op::EventsLost { seconds } => {
                self.wire.lose_events(self.replicas.iter().map(|replica| replica.name.clone()));
                self.after(seconds, |world| world.wire.lose_no_events());
            }
            Op::ApiDown { cluster, server, seconds } => {
                self.wire.count("api down");
                let (cluster, server) = (cluster_of(cluster), server_of(server));
                self.clusters[cluster].kube.set_down(server, true);
                self.after(seconds, move |world| world.clusters[cluster].kube.set_down(server, false));
            }
            Op::ApiFrozen { cluster, server, seconds } => {
                self.wire.count("api frozen");
                let (cluster, server) = (cluster_of(cluster), server_of(server));
                self.clusters[cluster].kube.set_frozen(server, true);
                self.after(seconds, move |world| world.clusters[cluster].kube.set_frozen(server, false));
            }
            Op::ApiWatchesCut { cluster } => {
                self.wire.count("api watches cut");
                let kube = &self.clusters[cluster_of(cluster)].kube;
                (0..self.size.servers).for_each(|server| kube.cut_watches(server));
            }
            Op::ApiWatchesStalled { cluster, seconds } => {
                self.wire.count("api watches stalled");
                let cluster = cluster_of(cluster);
                let set = move |world: &Self, stalled| {
                    let kube = &world.clusters[cluster].kube;
                    (0..world.size.servers).for_each(|server| kube.stall_watches(server, stalled));
                };
                set(self, true);
                self.after(seconds, move |world| set(world, false));
            }
            Op::ApiBlind { cluster, seconds } => {
                self.wire.count("api blind");
                let cluster = cluster_of(cluster);
                let servers = 0..self.size.servers;
                servers.for_each(|server| self.clusters[cluster].kube.stall_watches(server, true));
                self.after(seconds, move |world| {
                    let kube = &world.clusters[cluster].kube;
                    kube.compact();
                    for server in 0..world.size.servers {
                        kube.cut_watches(server);
                        kube.stall_watches(server, false);
                    }
                });
            }
            Op::KindRefused { cluster, kind, seconds } => {
                self.wire.count("kind refused");
                let (cluster, kind) = (cluster_of(cluster), KINDS[kind % KINDS.len()]);
                self.clusters[cluster].kube.refuse_list(kind, true);
                self.replicas.iter().for_each(|replica| replica.crash(self));
                self.after(1, |world| world.replicas.iter().for_each(|replica| replica.start(world)));
                self.after(seconds, move |world| world.clusters[cluster].kube.refuse_list(kind, false));
            }
            Op::ApiCompacted { cluster } => {
                self.wire.count("api compacted");
                self.clusters[cluster_of(cluster)].kube.compact();
            }
            Op::ApiLags { cluster, server, seconds } => {
                self.wire.count("api lags");
                let (cluster, server) = (cluster_of(cluster), server_of(server));
                self.clusters[cluster].kube.set_lag(server, Duration::from_secs(seconds));
                self.after(60, move |world| world.clusters[cluster].kube.set_lag(server, Duration::ZERO));
            }
            Op::ApiErrors { cluster, code, count, applied } => {
                self.wire.count("api errors");
                let kube = &self.clusters[cluster_of(cluster)].kube;
                let status = status(code);
                for server in 0..self.size.servers {
                    let failure =
                        Failure { verb: None, resource: None, status: status.clone(), after_applying: applied };
                    kube.fail_next(server, count as usize, failure);
                }
            }
            _ => {}
        }
    }
}

/// Kinds that a replica lists.
const KINDS: [&str; 8] = [
    "endpointslices",
    "services",
    "pods",
    "namespaces",
    "registeredservices",
    "nodes",
    "servicecidrs",
    "serviceregistries",
];

fn status(code: u16) -> Status {
    match code {
        429 => Status::too_many_requests(1),
        503 => Status::unavailable(),
        504 => Status::timeout(),
        _ => Status::internal("the simulation"),
    }
}
