//! People with kubectl and etcdctl.
//!
//! Owns what each of their commands does, and enters in the truth that a service was meddled with. Refuses to decide
//! when.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::truth::Meddling;
use super::{NAMESPACE, PREFIX, World, service_name};

const PERSON: &str = "person";

/// An address that somebody wrote as junk.
pub fn is_junk(addr: SocketAddr) -> bool {
    ["10.1.1.1:1", "127.0.0.1:80"].contains(&addr.to_string().as_str())
}

impl World {
    fn meddle(&self, service: usize) {
        self.truth.meddle(service, Meddling::Wish, self.now());
    }

    /// Deletes one key of the registry.
    pub fn delete_key(&self, vm: usize) {
        if let Some(vm) = self.vms.get(vm) {
            self.meddle(vm.service);
            self.etcd.delete(PERSON, vm.key().as_bytes());
        }
    }

    /// Deletes all keys of a service.
    pub fn delete_prefix(&self, service: usize) {
        self.meddle(service);
        self.etcd.delete_prefix(PERSON, format!("{PREFIX}/{}/", service_name(service)).as_bytes());
    }

    /// Writes keys that nobody can read, or that claim to be ours.
    pub fn write_junk(&self, service: usize) {
        let name = service_name(service);
        let values: [(&str, &[u8]); 4] = [
            ("junk", b"{\"network\":"),
            ("10.1.1.1:1", &[0xff, 0xfe, 0x00]),
            ("127.0.0.1:80", br#"{"network":"tcp","address":"127.0.0.1:80","weight":10,"tags":null}"#),
            ("", b"x"),
        ];
        let chosen = self.draw(values.len() as u64) as usize;
        if let Some((suffix, value)) = values.get(chosen) {
            // A full registry refuses it.
            let _ = self.etcd.put(PERSON, format!("{PREFIX}/{name}/{suffix}"), value.to_vec(), 0);
        }
    }

    /// Suspends a RegisteredService for a while.
    pub fn suspend(&self, cluster: usize, service: usize, seconds: u64) {
        self.patch(cluster, service, json!({"spec": {"suspend": true}}));
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            world.patch(cluster, service, json!({"spec": {"suspend": false}}));
        });
    }

    fn patch(&self, cluster: usize, service: usize, patch: Value) {
        let Some(cluster) = self.clusters.get(cluster) else { return };
        self.meddle(service);
        let name = service_name(service);
        self.kubectl(cluster.kube.patch(PERSON, "registeredservices", NAMESPACE, &name, patch));
    }

    /// Deletes a RegisteredService, and creates it again later.
    pub fn recreate(&self, cluster: usize, service: usize, seconds: u64) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        self.meddle(service);
        self.kubectl(kube.kube.delete(PERSON, "registeredservices", NAMESPACE, &service_name(service)));
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            let Some(kube) = world.clusters.get(cluster) else { return };
            world.meddle(service);
            world.kubectl(kube.kube.create(PERSON, world.registered_service(service)));
        });
    }

    /// Approves the deletions that are held.
    pub fn approve(&self, cluster: usize, service: usize) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        let name = service_name(service);
        let Some(object) = kube.kube.get("registeredservices", NAMESPACE, &name) else { return };
        if let Some(hash) = object["status"]["hold"]["hash"].as_str() {
            self.patch(
                cluster,
                service,
                json!({"metadata": {"annotations": {"twinspan.dev/approve-deletions": hash}}}),
            );
        }
    }

    /// Deletes one slice that Twinspan made.
    pub fn delete_slice(&self, cluster: usize, service: usize) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        let name = service_name(service);
        let ours = |slice: &&Value| {
            let labels = &slice["metadata"]["labels"];
            labels["kubernetes.io/service-name"] == json!(name)
                && labels["endpointslice.kubernetes.io/managed-by"] == json!("twinspan.dev")
        };
        let slices = kube.kube.all("endpointslices");
        if let Some(slice) = slices.iter().find(ours).and_then(|slice| slice["metadata"]["name"].as_str()) {
            self.meddle(service);
            self.kubectl(kube.kube.delete(PERSON, "endpointslices", NAMESPACE, slice));
        }
    }
}
