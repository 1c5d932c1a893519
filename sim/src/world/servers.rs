//! Servers: pods with their kubelet, and servers outside that register as Kitex does.
//!
//! Owns their lives, and writes them into the truth first. Refuses to know Twinspan. A server outside grants a lease of
//! 60 s, prolongs it every 20 s, and registers anew at a tick of 30 s once its lease is gone (`etcd_registry.go` of
//! kitex-contrib/registry-etcd v0.3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{LEASE_TTL, NAMESPACE, World, service_name};

/// The author of what servers outside write.
pub const VMS: &str = "vms";
/// The author of what kubelets write.
const KUBELET: &str = "kubelet";
const PROLONG: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_secs(30);
/// The port of pods.
pub const POD_PORT: u16 = 80;

/// A server outside.
pub struct Vm {
    pub service: usize,
    pub addr: SocketAddr,
    state: Mutex<VmState>,
    changed: Notify,
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)
    }
}

#[derive(Debug, Default)]
struct VmState {
    runs: bool,
    frozen: bool,
    lease: Option<i64>,
}

impl Vm {
    pub fn new(number: usize, service: usize) -> Self {
        let addr = SocketAddr::from(([198, 51, 100, (number % 250 + 1) as u8], 9000 + (number / 2 % 2) as u16));
        Self { service, addr, state: Mutex::default(), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, VmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn key(&self, world: &World) -> String {
        world.key(self.service, self.addr)
    }

    fn tell(&self, world: &World) {
        let (runs, frozen) = {
            let state = self.state();
            (state.runs, state.frozen)
        };
        world.truth.set(self.addr, self.service, None, runs, runs && !frozen, world.now());
        // The system refuses connections in the place of a process that ended, whatever state that one was in.
        world.truth.set_frozen(self.addr, runs && frozen);
    }

    pub fn start(&self, world: &World) {
        self.state().runs = true;
        self.tell(world);
        self.changed.notify_one();
    }

    /// Deregisters and ends. Its key goes before it stops listening.
    pub fn stop(&self, world: &World) {
        let lease = {
            let mut state = self.state();
            state.runs = false;
            state.lease.take()
        };
        self.tell(world);
        if lease.is_some() {
            // Without a leader the key stays until its lease expires.
            world.etcd.delete(VMS, self.key(world).as_bytes());
        }
    }

    /// Ends without a word.
    pub fn kill(&self, world: &World) {
        {
            let mut state = self.state();
            (state.runs, state.lease) = (false, None);
        }
        self.tell(world);
    }

    pub fn set_frozen(&self, world: &World, frozen: bool) {
        self.state().frozen = frozen;
        self.tell(world);
        self.changed.notify_one();
    }

    /// Somebody revokes its lease.
    pub fn lose(&self, world: &World) {
        let lease = self.state().lease;
        if let Some(lease) = lease {
            // The lease may have expired by itself.
            let _ = world.etcd.revoke("somebody", lease);
        }
    }

    fn register(&self, world: &World) -> Option<i64> {
        let lease = world.etcd.grant(0, LEASE_TTL as i64).ok()?;
        let value = json!({"network": "tcp", "address": self.addr.to_string(), "weight": 10, "tags": null});
        world.etcd.put(VMS, self.key(world), value.to_string(), lease).ok()?;
        Some(lease)
    }

    /// Its life, which does not end.
    pub async fn live(world: World, number: usize) {
        let Some(vm) = world.vms.get(number) else { return };
        loop {
            let (runs, frozen, lease) = {
                let state = vm.state();
                (state.runs, state.frozen, state.lease)
            };
            if !runs || frozen {
                vm.changed.notified().await;
                continue;
            }
            let wait = match lease {
                None => {
                    vm.state().lease = vm.register(&world);
                    PROLONG
                }
                Some(lease) => match world.etcd.keep_alive(lease) {
                    Err(sim_etcd::Error::LeaseNotFound) => {
                        vm.state().lease = None;
                        TICK
                    }
                    Ok(_) | Err(_) => PROLONG,
                },
            };
            tokio::select! {
                biased;
                () = vm.changed.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub cluster: usize,
    pub service: usize,
    pub addr: SocketAddr,
    terminating: bool,
}

impl World {
    /// Starts the lives of all servers outside.
    pub fn start_vms(&self) {
        for number in 0..self.vms.len() {
            self.act(Vm::live(self.clone(), number));
        }
    }

    fn next_pod_address(&self, cluster: usize) -> SocketAddr {
        let mut count = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        let network = if cluster == 0 { [203, 0, 113] } else { [192, 0, 2] };
        let ip = Ipv4Addr::new(network[0], network[1], network[2], (*count % 250 + 1) as u8);
        SocketAddr::new(IpAddr::V4(ip), POD_PORT)
    }

    /// The pods that no one has deleted, in order of their names.
    pub fn pods(&self) -> Vec<Pod> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.values().filter(|pod| !pod.terminating).cloned().collect()
    }

    /// Creates a pod, which becomes ready after a moment.
    pub fn add_pod(&self, cluster: usize, service: usize) {
        let addr = self.next_pod_address(cluster);
        let name = format!("pod-{cluster}-{:03}", addr.ip().to_string().rsplit('.').next().unwrap_or_default());
        let pod = Pod { name: name.clone(), cluster, service, addr, terminating: false };
        let Some(kube) = self.clusters.get(cluster) else { return };
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": service_name(service)}},
            "spec": {"nodeName": "node", "containers": [{"name": "main", "image": "main"}]},
        });
        if self.kubectl(kube.kube.create(KUBELET, object)).is_none() {
            return;
        }
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(name, pod.clone());
        let (world, wait) = (self.clone(), Duration::from_millis(500 + self.draw(2500)));
        self.act(async move {
            sleep(wait).await;
            world.set_pod_ready(&pod, true);
        });
    }

    /// The kubelet tells whether the pod is ready.
    pub fn set_pod_ready(&self, pod: &Pod, ready: bool) {
        let there = self.pods().iter().any(|other| other.name == pod.name);
        let Some(kube) = self.clusters.get(pod.cluster).filter(|_| there) else { return };
        self.truth.set(pod.addr, pod.service, Some(pod.cluster), true, ready, self.now());
        let ip = pod.addr.ip().to_string();
        let status = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        }});
        self.kubectl(kube.kube.patch_status(KUBELET, "pods", NAMESPACE, &pod.name, status));
    }

    /// Deletes a pod gracefully: it terminates for some seconds before it is gone.
    pub fn delete_pod(&self, pod: &Pod) {
        let known = {
            let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
            pods.get_mut(&pod.name).filter(|pod| !pod.terminating).map(|pod| pod.terminating = true).is_some()
        };
        let Some(kube) = self.clusters.get(pod.cluster).filter(|_| known) else { return };
        self.truth.set(pod.addr, pod.service, Some(pod.cluster), true, false, self.now());
        self.kubectl(kube.kube.delete(KUBELET, "pods", NAMESPACE, &pod.name));
        let (world, pod, wait) = (self.clone(), pod.clone(), Duration::from_millis(500 + self.draw(5000)));
        self.act(async move {
            sleep(wait).await;
            world.truth.set(pod.addr, pod.service, Some(pod.cluster), false, false, world.now());
            let Some(kube) = world.clusters.get(pod.cluster) else { return };
            let now = json!({"gracePeriodSeconds": 0});
            world.kubectl(kube.kube.delete_with(KUBELET, "pods", NAMESPACE, &pod.name, &now));
            world.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(&pod.name);
        });
    }
}
