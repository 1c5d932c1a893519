//! The operations of a plan, carried out.
//!
//! Owns the way from an [`Op`] to what people do and to the faults of links and processes, and the end of each fault;
//! those of servers are in [`super::outages`]. Refuses to draw.

use std::time::Duration;

use sim_etcd::Snapshot;
use tokio::time::sleep;

use super::World;
use super::replica::Replica;
use super::truth::Meddling;
use crate::plan::{Op, Side, Way};
use crate::wire::Link;
use crate::wire::fate::Rates;

impl World {
    pub(super) fn after(&self, seconds: u64, end: impl FnOnce(&Self) + Send + 'static) {
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            end(&world);
        });
    }

    /// Carries one operation out. `backup` is the registry as it was when the storm began.
    pub fn apply(&self, op: Op, backup: &Snapshot) {
        self.trace.add("plan", &format!("{op:?}"));
        if op.is_fault() {
            self.impair(op);
        }
        let cluster_of = |cluster: usize| cluster % self.clusters.len();
        let service_of = |service: usize| service % self.size.services;
        match op {
            Op::PodAdd { cluster, service } => self.add_pod(cluster_of(cluster), service_of(service)),
            Op::PodDelete { pod } => self.with_pod(pod, |world, pod| world.delete_pod(pod)),
            Op::PodUnready { pod, seconds } => self.with_pod(pod, |world, pod| {
                world.set_pod_ready(pod, false);
                let pod = pod.clone();
                world.after(seconds, move |world| world.set_pod_ready(&pod, true));
            }),
            Op::ScaleToZero { cluster, service, seconds } => {
                let (cluster, service) = (cluster_of(cluster), service_of(service));
                let pods = self.pods().into_iter().filter(|pod| pod.cluster == cluster && pod.service == service);
                let pods: Vec<_> = pods.collect();
                pods.iter().for_each(|pod| self.delete_pod(pod));
                let count = pods.len();
                self.after(seconds, move |world| (0..count).for_each(|_| world.add_pod(cluster, service)));
            }
            Op::VmStart { vm } => self.with_vm(vm, |world, n| world.vms[n].start(world)),
            Op::VmStop { vm } => self.with_vm(vm, |world, n| world.vms[n].stop(world)),
            Op::VmKill { vm } => self.with_vm(vm, |world, n| world.vms[n].kill(world)),
            Op::VmFreeze { vm, seconds } => self.with_vm(vm, |world, n| {
                world.vms[n].set_frozen(world, true);
                world.after(seconds, move |world| world.vms[n].set_frozen(world, false));
            }),
            Op::VmLoses { vm } => self.with_vm(vm, |world, n| {
                world.truth.meddle(world.vms[n].service, Meddling::Loss, world.now());
                world.vms[n].lose(world);
            }),
            Op::LostUnseen { vm, seconds } => {
                self.wire.count("lost unseen");
                self.replicas.iter().for_each(|replica| replica.crash(self));
                self.after(seconds, |world| world.replicas.iter().for_each(|replica| replica.start(world)));
                self.with_vm(vm, |world, n| {
                    world.truth.meddle(world.vms[n].service, Meddling::Loss, world.now());
                    world.vms[n].lose(world);
                });
            }
            Op::DeleteKey { vm } => self.with_vm(vm, |world, n| world.delete_key(n)),
            Op::DeletePrefix { service } => self.delete_prefix(service_of(service)),
            Op::Junk { service } => self.write_junk(service_of(service)),
            Op::Suspend { cluster, service, seconds } => {
                self.suspend(cluster_of(cluster), service_of(service), seconds);
            }
            Op::Recreate { cluster, service, seconds } => {
                self.recreate(cluster_of(cluster), service_of(service), seconds);
            }
            Op::Approve { cluster, service } => self.approve(cluster_of(cluster), service_of(service)),
            Op::JunkAtPod { pod, seconds } => self.with_pod(pod, |world, pod| world.junk_at_pod(pod, seconds)),
            Op::Duplicate { cluster, service, seconds } => {
                self.duplicate(cluster_of(cluster), service_of(service), seconds);
            }
            Op::Clone { cluster, seconds } => self.clone_raises(cluster_of(cluster), seconds),
            Op::Hostile { cluster } => self.be_hostile(cluster_of(cluster)),
            Op::LeaseRevoked { pod } => self.with_pod(pod, |world, pod| world.revoke_lease(pod)),
            Op::Alias { cluster, vm } => self.with_vm(vm, |world, n| world.alias(cluster_of(cluster), n)),
            Op::DeleteSlice { cluster, service } => self.delete_slice(cluster_of(cluster), service_of(service)),
            Op::Reconnect { cluster, seconds } => self.reconnect(cluster_of(cluster), seconds),
            Op::Move { cluster, seconds } => self.move_registry(cluster_of(cluster), seconds),
            Op::Created { cluster, service, seconds } => {
                self.create_with_service(cluster_of(cluster), service_of(service), seconds);
            }
            Op::Crash { .. }
            | Op::Stop { .. }
            | Op::Freeze { .. }
            | Op::Clock { .. }
            | Op::Trap { .. }
            | Op::Partition { .. } => {
                self.apply_to_replica(op);
            }
            Op::Messages { kind, seconds } => {
                self.wire.set_rates(rates(kind));
                self.after(seconds, |world| world.wire.set_rates(Rates::default()));
            }
            _ => self.apply_to_servers(op, backup),
        }
    }

    fn with_pod(&self, number: usize, act: impl FnOnce(&Self, &super::servers::Pod)) {
        let pods = self.pods();
        if let Some(pod) = number.checked_rem(pods.len()).and_then(|at| pods.get(at)) {
            act(self, pod);
        }
    }

    fn with_vm(&self, number: usize, act: impl FnOnce(&Self, usize)) {
        if let Some(at) = number.checked_rem(self.vms.len()) {
            act(self, at);
        }
    }

    fn apply_to_replica(&self, op: Op) {
        let (Op::Crash { replica, .. }
        | Op::Stop { replica, .. }
        | Op::Freeze { replica, .. }
        | Op::Clock { replica, .. }
        | Op::Trap { replica, .. }
        | Op::Partition { replica, .. }) = op
        else {
            return;
        };
        let replica = self.replica(replica);
        let name = replica.name.clone();
        let again = move |world: &Self, act: fn(&Replica, &Self)| {
            if let Some(replica) = world.replicas.iter().find(|replica| replica.name == name) {
                act(replica, world);
            }
        };
        match op {
            Op::Crash { polls, seconds, .. } => {
                self.wire.count("crash");
                if let Some(process) = replica.process() {
                    self.scheduler.crash_after(process, polls);
                }
                // One that is idle may not come to its crash.
                let start = again.clone();
                self.after(5, move |world| again(world, Replica::crash));
                self.after(5 + seconds, move |world| start(world, Replica::start));
            }
            Op::Stop { seconds, .. } => {
                self.wire.count("stop");
                replica.stop(self);
                let start = again.clone();
                self.after(35, move |world| again(world, Replica::crash));
                self.after(36 + seconds, move |world| start(world, Replica::start));
            }
            Op::Freeze { seconds, .. } => {
                self.wire.count("freeze");
                if let Some(process) = replica.process() {
                    self.scheduler.freeze(process);
                    self.after(seconds, move |world| world.scheduler.thaw(process));
                }
            }
            Op::Clock { seconds, .. } => {
                self.wire.count("clock");
                replica.set_skew(seconds);
            }
            Op::Trap { call, skip, moment, .. } => {
                self.wire.count("trap");
                self.wire.trap(&replica.name, call, skip, moment);
                // Nothing ends a process that was crashed.
                self.after(60, move |world| again(world, Replica::start));
            }
            Op::Partition { side, way, seconds, .. } => {
                self.wire.count("partition");
                let others: Vec<String> = match side {
                    Side::Cluster => self.clusters[replica.cluster].servers.clone(),
                    Side::Registry => (0..self.size.members).map(|n| format!("etcd-{n}")).collect(),
                };
                let there = others.iter().map(|other| Link::new(&replica.name, other));
                let back = others.iter().map(|other| Link::new(other, &replica.name));
                let links: Vec<Link> = match way {
                    Way::Both => there.chain(back).collect(),
                    Way::There => there.collect(),
                    Way::Back => back.collect(),
                };
                links.iter().for_each(|link| self.wire.close(link));
                self.after(seconds, move |world| links.iter().for_each(|link| world.wire.open(link)));
            }
            _ => {}
        }
    }
}

/// The fates of messages in a bad time.
fn rates(kind: u64) -> Rates {
    let (few, streams) = (300, 3000);
    match kind {
        0 => Rates { late: few, ..Rates::default() },
        1 => Rates { lost: 2 * few, answer_lost: few, ..Rates::default() },
        2 => Rates { silent: 2 * few, answer_silent: few, ..Rates::default() },
        3 => Rates { cut: streams, ..Rates::default() },
        4 => Rates { stalled: streams, ..Rates::default() },
        5 => Rates { frame_late: streams, ..Rates::default() },
        _ => Rates {
            late: 20,
            lost: 50,
            answer_lost: 50,
            silent: 50,
            answer_silent: 50,
            cut: 500,
            stalled: 500,
            frame_late: 50,
        },
    }
}
