//! Changes on both sides, as a busy cluster has them: about twenty a second on a quiet machine.
//!
//! Owns the choice, which stops with the run. Refuses to touch a host that a fault touches.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::PutOptions;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::bed::{Bed, CHURNED, PORT, PREFIX};
use crate::fault::{Fault, PODS, Target, VMS};
use crate::kubelet::Kubelet;
use crate::registry;
use crate::supervisor::Supervisor;
use crate::truth::Truth;

/// Pods and records of each service whose servers are no processes.
const PODS_EACH: usize = 8;
const RECORDS_EACH: usize = 4;
const DEADLINE: Duration = Duration::from_secs(3);
/// Between two changes of one kind.
const POD_PACE: Duration = Duration::from_millis(50);
const RECORD_PACE: Duration = Duration::from_millis(160);
const READINESS_PACE: Duration = Duration::from_secs(3);
const VM_PACE: Duration = Duration::from_secs(12);
/// Longer than any run.
const LASTING: i64 = 24 * 3600;

#[derive(Debug)]
pub struct Churn<'a> {
    pub bed: &'a Bed,
    pub faults: &'a [Fault],
    pub supervisor: &'a Supervisor,
    pub truth: &'a Truth,
    pub kubelet: &'a Kubelet,
    pub start: Instant,
    /// Changes that an API server or an etcd accepted, and servers that came or went.
    pub changes: AtomicUsize,
    pub stopped: AtomicBool,
}

fn below(dice: &mut StdRng, n: usize) -> usize {
    usize::try_from(dice.next_u64() % n.max(1) as u64).unwrap_or_default()
}

impl Churn<'_> {
    /// Creates what changes later, and then changes it until it is stopped.
    pub async fn run(&self, seed: u64) {
        let dice = |kind: u64| StdRng::seed_from_u64(seed.wrapping_mul(4).wrapping_add(kind));
        let services = CHURNED.iter().enumerate();
        let pods = join_all(services.clone().map(|(n, name)| self.pods(n, name, dice(n as u64))));
        let records = join_all(services.map(|(n, name)| self.records(n, name, dice(10 + n as u64))));
        tokio::join!(pods, records, self.readiness(dice(20)), self.vms(dice(21)));
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    fn count<T>(&self, outcome: Result<Result<T>, tokio::time::error::Elapsed>) -> Option<T> {
        let done = outcome.ok()?.ok()?;
        self.changes.fetch_add(1, Ordering::Relaxed);
        Some(done)
    }

    /// Pods without processes: they become ready and not ready, and are scaled.
    async fn pods(&self, service: usize, name: &str, mut dice: StdRng) {
        let objects = &self.bed.pod_objects;
        let labels = BTreeMap::from([("app".to_owned(), name.to_owned())]);
        // Whether each is ready; absent is no pod.
        let mut pods: BTreeMap<usize, bool> = BTreeMap::new();
        while self.goes_on() {
            let n = below(&mut dice, PODS_EACH);
            let pod = format!("{name}-{n}");
            let ip = IpAddr::V4(Ipv4Addr::new(
                10,
                77,
                100 + u8::try_from(service).unwrap_or(0),
                1 + u8::try_from(n).unwrap_or(0),
            ));
            match pods.get(&n).copied() {
                None => {
                    if self.count(timeout(DEADLINE, objects.run(&pod, &labels, &[ip])).await).is_some() {
                        pods.insert(n, false);
                    } else {
                        // The object may be there, from a request that got no answer; the next step creates it again.
                        let _ = timeout(DEADLINE, objects.remove(&pod)).await;
                    }
                }
                Some(_) if below(&mut dice, 12) == 0 => {
                    if self.count(timeout(DEADLINE, objects.remove(&pod)).await).is_some() {
                        pods.remove(&n);
                    }
                }
                Some(ready) => {
                    if self.count(timeout(DEADLINE, objects.set_ready(&pod, !ready)).await).is_some() {
                        pods.insert(n, !ready);
                    } else {
                        // Unknown: the next step removes and creates it.
                        let _ = timeout(DEADLINE, objects.remove(&pod)).await;
                        pods.remove(&n);
                    }
                }
            }
            sleep(POD_PACE * 3).await;
        }
    }

    /// Records as Kitex writes them: registered on a lease, and deregistered by their key.
    async fn records(&self, service: usize, name: &str, mut dice: StdRng) {
        // The lease of each; absent is no record.
        let mut leases: BTreeMap<usize, i64> = BTreeMap::new();
        let mut etcd = None;
        while self.goes_on() {
            let n = below(&mut dice, RECORDS_EACH);
            let address = format!("10.77.{}.{}:{PORT}", 120 + service, 1 + n);
            let key = format!("{PREFIX}{name}/{address}");
            let mut client = match etcd.take() {
                Some(client) => client,
                None => match registry::any(&self.bed.members).await {
                    Ok(client) => client,
                    Err(_) => continue,
                },
            };
            // At least two stay: the last server that leaves a name is waited for, which is another matter.
            let leaves = leases.contains_key(&n) && leases.len() > 2;
            let step = async {
                if leaves {
                    client.delete(key.as_str(), None).await.context("not deleted")?;
                    return Ok(None);
                }
                let lease = match leases.get(&n) {
                    Some(lease) => *lease,
                    None => client.lease_grant(LASTING, None).await?.id(),
                };
                let value = format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":null}}"#);
                client.put(key.as_str(), value, Some(PutOptions::new().with_lease(lease))).await?;
                anyhow::Ok(Some(lease))
            };
            match self.count(timeout(DEADLINE, step).await) {
                Some(Some(lease)) => drop(leases.insert(n, lease)),
                Some(None) => drop(leases.remove(&n)),
                None => drop(leases.remove(&n)),
            }
            etcd = Some(client).filter(|_| leases.contains_key(&n) || leaves);
            sleep(RECORD_PACE * 3).await;
        }
    }

    /// Pods with a real server say that they are not ready for a while.
    async fn readiness(&self, mut dice: StdRng) {
        while self.goes_on() {
            let pod = below(&mut dice, PODS);
            self.kubelet.willing(pod, false);
            sleep(READINESS_PACE).await;
            self.kubelet.willing(pod, true);
            self.changes.fetch_add(2, Ordering::Relaxed);
            sleep(READINESS_PACE / 2).await;
        }
    }

    /// A machine goes and comes back at the same address: both of its servers deregister and register.
    async fn vms(&self, mut dice: StdRng) {
        while self.goes_on() {
            sleep(VM_PACE).await;
            let vm = Target::Vm(below(&mut dice, VMS));
            let now = self.start.elapsed();
            let free = |fault: &Fault| {
                !fault.overlaps(now.saturating_sub(DEADLINE), now + DEADLINE * 10)
                    || !fault.action.touches().contains(&vm)
            };
            if !self.goes_on() || !self.faults.iter().all(free) {
                continue;
            }
            self.supervisor.leave(vm);
            self.truth.wanted(vm, self.start.elapsed(), false);
            self.truth.serving(vm, self.start.elapsed(), false);
            join_all(self.bed.parts(vm).into_iter().map(|part| async {
                // Without a registry a server needs long to deregister.
                let _ = part.stop().await;
            }))
            .await;
            sleep(READINESS_PACE).await;
            self.truth.wanted(vm, self.start.elapsed(), true);
            self.supervisor.keep(vm);
            self.changes.fetch_add(4, Ordering::Relaxed);
        }
    }
}
