//! Administrators, who change what a ServiceRegistry says.
//!
//! Owns the change of its connection, its place and its password, and a RegisteredService that creates its Service.
//! Refuses to decide when.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::keys::MOVED;
use super::people::{OTHER, PERSON};
use super::permissions::SECRET;
use super::{NAMESPACE, OPERATOR, REGISTRY, World, service_name};

impl World {
    /// Names other endpoints of the registry, the first of which nobody answers, and later the right ones.
    pub fn reconnect(&self, cluster: usize, seconds: u64) {
        let rightly = self.endpoints();
        let others: Vec<String> =
            ["http://nowhere:2379".to_owned()].into_iter().chain(rightly.iter().rev().cloned()).collect();
        self.set_endpoints(cluster, &others);
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            world.set_endpoints(cluster, &rightly);
        });
    }

    fn set_endpoints(&self, cluster: usize, endpoints: &[String]) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        let patch = json!({"spec": {"etcd": {"endpoints": endpoints}}});
        self.kubectl(kube.kube.patch(PERSON, "serviceregistries", "", REGISTRY, patch));
    }

    /// Creates the ServiceRegistry again with another prefix, for that of one cannot be changed; and later with its
    /// own. Not while another one is for the same place, which would take it over.
    pub fn move_registry(&self, cluster: usize, seconds: u64) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        if self.size.bare || kube.kube.get("serviceregistries", "", OTHER).is_some() {
            return;
        }
        self.replace_service_registry(cluster, MOVED);
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            world.replace_service_registry(cluster, world.prefix());
        });
    }

    /// Whether the ServiceRegistry is at another place for now.
    pub fn is_moved(&self, cluster: usize) -> bool {
        let object = self.clusters.get(cluster).and_then(|kube| kube.kube.get("serviceregistries", "", REGISTRY));
        object.is_some_and(|object| object["spec"]["prefix"] == MOVED)
    }

    fn replace_service_registry(&self, cluster: usize, prefix: &str) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        (0..self.size.services).for_each(|service| self.meddle(service));
        let mut object = self.service_registry(cluster);
        object["spec"]["prefix"] = json!(prefix);
        // An approval of an epoch is not lost on the way.
        let before = kube.kube.get("serviceregistries", "", REGISTRY);
        if let Some(annotations) = before.map(|object| object["metadata"]["annotations"].clone()) {
            object["metadata"]["annotations"] = annotations;
        }
        self.kubectl(kube.kube.delete(PERSON, "serviceregistries", "", REGISTRY));
        self.kubectl(kube.kube.create(PERSON, object));
    }

    /// Makes a RegisteredService that imports a service into a Service of its own, and deletes it later.
    pub fn create_with_service(&self, cluster: usize, service: usize, seconds: u64) {
        let Some(kube) = self.clusters.get(cluster) else { return };
        let name = format!("created-{service}");
        let object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "registryRef": {"name": REGISTRY}, "registryName": service_name(service), "direction": "Import",
                "service": {"create": "Headless", "ports": [{"name": "rpc", "number": 80}]},
            },
        });
        self.kubectl(kube.kube.create(PERSON, object));
        let world = self.clone();
        self.act(async move {
            sleep(Duration::from_secs(seconds)).await;
            let Some(kube) = world.clusters.get(cluster) else { return };
            world.kubectl(kube.kube.delete(PERSON, "registeredservices", NAMESPACE, &name));
        });
    }

    /// The Secrets of all clusters get the password of this time.
    pub fn update_secrets(&self) {
        let data: Value = self.secret()["data"].clone();
        for cluster in &self.clusters {
            let patch = json!({"data": data});
            self.kubectl(cluster.kube.patch(PERSON, "secrets", OPERATOR, SECRET, patch));
        }
    }
}
