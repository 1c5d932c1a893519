//! People with kubectl and etcdctl.
//!
//! Owns what each of their commands does, and enters in the truth that a service was meddled with. Refuses to decide
//! when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::truth::Meddling;
use super::{NAMESPACE, REGISTRY, World, service_name};

/// The author of what people do.
pub const PERSON: &str = "person";
/// A process of another cluster with the same ID, and the holder that its epochs name.
pub const CLONE: &str = "clone";

/// The name of a second ServiceRegistry for the same place.
pub const OTHER: &str = "other";

/// The second name of a service.
pub fn alias_name(service: usize) -> String {
    format!("alias-{service}")
}

/// An address that somebody wrote as junk.
pub fn is_junk(addr: SocketAddr) -> bool {
    ["10.1.1.1:1", "127.0.0.1:80"].contains(&addr.to_string().as_str())
}

impl World {
    pub(super) fn meddle(&self, service: usize) {
        self.truth.meddle(service, Meddling::Wish, self.now());
    }

    /// Deletes one key of the registry.
    pub fn delete_key(&self, vm: usize) {
        if let Some(vm) = self.vms.get(vm) {
            self.meddle(vm.service);
            self.etcd.delete(PERSON, vm.key(self).as_bytes());
        }
    }

    /// Deletes all keys of a service.
    pub fn delete_prefix(&self, service: usize) {
        self.meddle(service);
        self.etcd.delete_prefix(PERSON, self.key_of(&service_name(service), "").as_bytes());
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
            let _ = self.etcd.put(PERSON, self.key_of(&name, suffix), value.to_vec(), 0);
        }
    }

    /// Writes what nobody can read under the key of a pod, and deletes it later.
    pub fn junk_at_pod(&self, pod: &super::servers::Pod, seconds: u64) {
        let key = self.key(pod.service, pod.addr);
        self.meddle(pod.service);
        // A full registry refuses it.
        let _ = self.etcd.put(PERSON, key.clone(), b"{\"network\":".to_vec(), 0);
        let (world, service) = (self.clone(), pod.service);
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            world.delete_at_last(service, &key).await;
        });
    }

    /// Deletes a key; a registry without a leader refuses that at first.
    async fn delete_at_last(&self, service: usize, key: &str) {
        self.meddle(service);
        self.etcd.delete(PERSON, key.as_bytes());
        while self.records().get(key.as_bytes()).is_some_and(|record| record.lease == 0) {
            sleep(Duration::from_secs(1)).await;
            self.meddle(service);
            self.etcd.delete(PERSON, key.as_bytes());
        }
    }

    /// Creates a ServiceRegistry for the same place, and a RegisteredService that refers to it; deletes both later.
    pub fn duplicate(&self, cluster: usize, service: usize, seconds: u64) {
        let Some(kube) = self.clusters.get(cluster).filter(|_| !self.is_moved(cluster)) else { return };
        self.meddle(service);
        let mut registry = self.service_registry(cluster);
        registry["metadata"]["name"] = json!(OTHER);
        let mut registered = self.registered_service(service);
        let (name, of) = (format!("other-{service}"), service_name(service));
        registered["metadata"]["name"] = json!(name);
        registered["spec"]["registryRef"]["name"] = json!(OTHER);
        registered["spec"]["registryName"] = json!(of);
        registered["spec"]["service"] = json!({"name": of});
        self.kubectl(kube.kube.create(PERSON, registry));
        self.kubectl(kube.kube.create(PERSON, registered));
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            world.meddle(service);
            let Some(kube) = world.clusters.get(cluster) else { return };
            world.kubectl(kube.kube.delete(PERSON, "registeredservices", NAMESPACE, &name));
            world.kubectl(kube.kube.delete(PERSON, "serviceregistries", "", OTHER));
        });
    }

    /// The value of a key; an absent one is empty.
    fn text_of(&self, key: &str) -> String {
        let found = self.records().get(key.as_bytes()).map(|record| record.value.clone()).unwrap_or_default();
        String::from_utf8_lossy(&found).into_owned()
    }

    /// A clone of a cluster raises the epoch of it; later a person approves that.
    pub fn clone_raises(&self, cluster: usize, seconds: u64) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        self.wire.count("clone");
        let key = format!("twinspan/{}/{REGISTRY}", kube.name);
        let counter =
            self.text_of(&key).split('/').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let _ = self.etcd.put(CLONE, key.clone(), format!("{}/{CLONE}", counter + 1), 0);
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            let Some(kube) = world.clusters.get(cluster) else { return };
            // The epoch that stands, which may be another clone's by now.
            let patch = json!({"metadata": {"annotations": {"twinspan.dev/approve-epoch": world.text_of(&key)}}});
            world.kubectl(kube.kube.patch(PERSON, "serviceregistries", "", REGISTRY, patch));
        });
    }

    /// A server is registered under a second name too, which a second RegisteredService imports into the same Service;
    /// then its first record is deleted.
    pub fn alias(&self, cluster: usize, vm: usize) {
        let (Some(kube), Some(vm)) = (self.clusters.get(cluster), self.vms.get(vm)) else { return };
        let (service, addr, key) = (vm.service, vm.addr, vm.key(self));
        let Some(record) = self.records().get(key.as_bytes()).cloned() else { return };
        let (name, of) = (alias_name(service), service_name(service));
        self.meddle(service);
        let mut registered = self.registered_service(service);
        registered["metadata"]["name"] = json!(name);
        registered["spec"]["service"] = json!({"name": of});
        self.kubectl(kube.kube.create(PERSON, registered));
        let _ = self.etcd.put(PERSON, self.key_of(&name, &addr.to_string()), record.value, record.lease);
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(20)).await;
            world.delete_at_last(service, &key).await;
        });
    }

    /// Makes objects and keys that nobody can carry out, and that are nobody else's concern.
    pub fn be_hostile(&self, cluster: usize) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        let mut newer = self.registered_service(0);
        newer["metadata"]["name"] = json!("newer");
        newer["spec"]["direction"] = json!("Sideways");
        let mut dead = self.service_registry(cluster);
        dead["metadata"]["name"] = json!("dead");
        dead["spec"]["etcd"]["endpoints"] = json!(["http://nowhere:2379"]);
        let mut on_dead = self.registered_service(0);
        on_dead["metadata"]["name"] = json!("on-dead");
        on_dead["spec"]["registryRef"]["name"] = json!("dead");
        for object in [newer, dead, on_dead] {
            self.kubectl(kube.kube.create(PERSON, object));
        }
        // A full registry refuses it.
        let _ = self.etcd.put(PERSON, self.key_of("other", "10.1.1.1:1"), b"{\"network\":".to_vec(), 0);
    }

    /// Revokes the lease of the record of a pod.
    pub fn revoke_lease(&self, pod: &super::servers::Pod) {
        let key = self.key(pod.service, pod.addr);
        let lease = self.records().get(key.as_bytes()).map_or(0, |record| record.lease);
        if lease != 0 {
            // The lease may have expired by itself.
            let _ = self.etcd.revoke(PERSON, lease);
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
        let ours = |slice: &&Arc<Value>| {
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
