//! Short forms of Kubernetes objects, and the view of the cluster that they fill.
//!
//! Owns the default of each object. Refuses to know records.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::{Value, json};
use twinspan_core::model::{ObjectKey, ServiceKey};

use super::given::Given;
use super::registries::MAIN;
use super::{UID, at, key, merge, object};
use crate::api::{RegisteredService, RegisteredServiceStatus, ServiceRegistry};
use crate::cluster::convert;
use crate::cluster::view::{ClusterView, Kind};

/// One EndpointSlice with one port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceGiven {
    name: String,
    #[serde(default = "shop")]
    namespace: String,
    /// Ours carry the owner reference of the RegisteredService.
    #[serde(default)]
    ours: bool,
    #[serde(default = "built_in")]
    managed_by: String,
    #[serde(default = "rpc")]
    port: String,
    #[serde(default = "eighty")]
    number: u16,
    #[serde(default = "ipv4")]
    family: String,
    #[serde(default = "echo")]
    service: String,
    /// Address → `Ready`, `NotReady` or `Terminating`.
    endpoints: BTreeMap<String, String>,
    /// Address → zone.
    #[serde(default)]
    zones: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn built_in() -> String {
    "endpointslice-controller.k8s.io".into()
}

fn rpc() -> String {
    "rpc".into()
}

fn eighty() -> u16 {
    80
}

fn ipv4() -> String {
    "IPv4".into()
}

fn echo() -> String {
    "echo".into()
}

fn shop() -> String {
    "shop".into()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodGiven {
    ip: String,
    #[serde(default = "shop")]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    host_network: bool,
    /// Ports of its container that the Node has too: container → Node.
    #[serde(default)]
    host_ports: BTreeMap<u16, u16>,
    /// Its containers are ready, and it has Twinspan's readiness gate.
    #[serde(default)]
    gated: bool,
}

impl Given {
    /// `status` is that of the last pass, where the file gives none.
    pub fn fill_cluster(&self, view: &mut ClusterView, status: Option<&RegisteredServiceStatus>) {
        for kind in Kind::ALL {
            view.set_synced(kind);
            let silent = self.silent.iter().any(|name| name == kind.as_str());
            view.heard(kind, at(self.time - if silent { 100 } else { 0 }));
        }
        let system = json!({"metadata": {"name": "kube-system", "uid": "cluster-uid"}});
        view.namespaces
            .insert("kube-system".into(), Arc::new(convert::namespace(&object::<Namespace>(system, &json!({})))));
        if let Some(given) = &self.namespace {
            let default = json!({"metadata": {"name": "shop", "uid": "shop-uid", "labels": {"team": "shop"}}});
            view.namespaces.insert("shop".into(), Arc::new(convert::namespace(&object::<Namespace>(default, given))));
        }
        for mut object in self.registered_services() {
            if object.key() == key() && object.status.is_none() {
                object.status = status.cloned();
            }
            view.index.put(&object.key(), &object);
            view.registered_services.insert(object.key(), Arc::new(object));
        }
        for object in self.registry_objects() {
            view.service_registries.insert(object.metadata.name.clone().unwrap(), Arc::new(object));
        }
        for given in self.service.iter().chain(&self.services) {
            let default = json!({
                "metadata": {"name": "echo", "namespace": "shop", "uid": "service-uid"},
                "spec": {"clusterIP": "None", "selector": {"app": "echo"}, "ipFamilies": ["IPv4"],
                    "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}]},
            });
            let service = convert::service(&object::<Service>(default, given));
            view.services.put(ServiceKey::new("shop", &service.name), service);
        }
        for (version, given) in self.slices.iter().enumerate() {
            view.slices.put(&given.namespace, convert::slice(given.object(version + 1, &self.pods)));
        }
        view.api_servers_changed();
        for (name, given) in &self.pods {
            view.pods.put(ObjectKey::new(&given.namespace, name), convert::pod(&given.object(name)));
        }
        for ip in &self.unseen {
            let (name, pod) = (ObjectKey::new("shop", ip.as_str()), PodGiven::of(ip));
            view.pods.put(name.clone(), convert::pod(&pod.object(ip)));
            view.pods.vanish(&name);
        }
        if self.api_server_away {
            Kind::ALL.into_iter().for_each(|kind| view.watch_broken(kind));
        }
        for (name, given) in &self.nodes {
            let node: Node = object(json!({"metadata": {"name": name}}), given);
            view.networks.set_node(name, Some(convert::node(&node)));
        }
        view.networks.set_service_cidr("kubernetes", Some(self.service_cidrs.clone()));
        for _ in 0..self.vanished_nodes {
            view.networks.node_vanished();
        }
        for _ in 0..self.relists {
            view.learnt_by_list(&key());
        }
    }

    pub fn registered_services(&self) -> impl Iterator<Item = RegisteredService> {
        let default = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "echo", "namespace": "shop", "uid": UID, "generation": 1,
                "creationTimestamp": "2025-12-31T12:00:00Z"},
            "spec": {"registryRef": {"name": MAIN}},
        });
        self.registered_service.iter().chain(&self.siblings).map(move |given| object(default.clone(), given))
    }

    pub fn registry_objects(&self) -> Vec<ServiceRegistry> {
        let default = |name: &str| {
            json!({
                "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry",
                "metadata": {"name": name, "uid": format!("{name}-uid"), "generation": 1},
                "spec": {"etcd": {"endpoints": ["http://192.0.2.9:2379"]}, "format": "Kitex", "prefix": "p",
                    "clusterID": "c1", "fence": {"mode": "None"},
                    "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
            })
        };
        let main = self.service_registry.iter().map(|given| object(default(MAIN), given));
        main.chain(self.registries.iter().map(|(name, given)| object(default(name), given))).collect()
    }
}

impl SliceGiven {
    fn object(&self, version: usize, pods: &BTreeMap<String, PodGiven>) -> EndpointSlice {
        let endpoint = |(address, state): (&String, &String)| {
            let (ready, terminating) = match state.as_str() {
                "Ready" => (true, false),
                "NotReady" => (false, false),
                "Terminating" => (false, true),
                other => panic!("no state {other}"),
            };
            let mut endpoint = json!({"addresses": [address],
                "conditions": {"ready": ready, "serving": ready, "terminating": terminating}});
            if let Some(zone) = self.zones.get(address) {
                endpoint["zone"] = json!(zone);
            }
            if !self.ours && self.managed_by == built_in() {
                // The built-in controller names the pod of each endpoint; one that the file does not give has ended.
                let has = |(_, pod): &(&String, &PodGiven)| pod.ip == *address && pod.namespace == self.namespace;
                let pod = pods.iter().find(has).map_or(address, |(name, _)| name);
                endpoint["targetRef"] = json!({"kind": "Pod", "namespace": self.namespace, "name": pod,
                    "uid": format!("{pod}-uid")});
            }
            endpoint
        };
        let endpoints: Vec<Value> = self.endpoints.iter().map(endpoint).collect();
        let managed_by = if self.ours { "twinspan.dev" } else { &self.managed_by };
        let owner =
            json!([{"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "echo", "uid": UID}]);
        let mut annotations = json!({});
        if self.ours {
            annotations["twinspan.dev/imported-from"] = json!("main/echo");
        }
        merge(&mut annotations, json!(self.annotations));
        // Headless, as the default Service is.
        let labels = json!({"kubernetes.io/service-name": self.service, "service.kubernetes.io/headless": "",
            "endpointslice.kubernetes.io/managed-by": managed_by});
        object(
            json!({
                "metadata": {"name": self.name, "namespace": self.namespace, "resourceVersion": version.to_string(),
                    "labels": labels, "annotations": annotations,
                    "ownerReferences": if self.ours { owner } else { json!([]) }},
                "addressType": self.family,
                "ports": [{"name": self.port, "port": self.number, "protocol": "TCP"}],
                "endpoints": endpoints,
            }),
            &json!({}),
        )
    }
}

impl PodGiven {
    fn of(ip: &str) -> Self {
        object(json!({"ip": ip}), &json!({}))
    }

    fn object(&self, name: &str) -> Pod {
        let port = |(container, host): (&u16, &u16)| json!({"containerPort": container, "hostPort": host});
        let ports: Vec<Value> = self.host_ports.iter().map(port).collect();
        let (gates, conditions) = if self.gated {
            (
                json!([{"conditionType": "twinspan.dev/registered"}]),
                json!([{"type": "ContainersReady", "status": "True"}]),
            )
        } else {
            (json!([]), json!([]))
        };
        object(
            json!({
                "metadata": {"name": name, "namespace": self.namespace, "uid": format!("{name}-uid"),
                    "labels": self.labels, "annotations": self.annotations},
                "spec": {"containers": [{"name": "main", "ports": ports}], "nodeName": self.node, "hostNetwork": self.host_network,
                    "readinessGates": gates},
                "status": {"phase": "Running", "podIP": self.ip, "podIPs": [{"ip": self.ip}], "conditions": conditions},
            }),
            &json!({}),
        )
    }
}
