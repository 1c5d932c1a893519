//! Addresses other than the pods' own that lead to the Services of a namespace: ports of Nodes, and load balancers.
//!
//! Owns the question for a RegisteredService whose spec is gone or cannot be read, so that nobody knows which addresses
//! it meant. Refuses to choose addresses for an export, which the core does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use twinspan_core::model::{InstanceAddr, ServiceKey, TCP};

use super::view::ClusterView;

impl ClusterView {
    /// Every address that may lead to a Service of the namespace, at whatever port.
    pub fn outer_addresses(&self, namespace: &str) -> BTreeSet<IpAddr> {
        let balancers = self.services.of_namespace(namespace).flat_map(|(_, service)| service.balancer_ips.iter());
        let nodes = self.networks.nodes().values().flat_map(|node| node.every_address());
        balancers.copied().chain(nodes).collect()
    }

    /// The wanted addresses that lead to a ready endpoint of the namespace.
    pub fn led_to_ready(&self, namespace: &str, wanted: &BTreeSet<InstanceAddr>) -> BTreeSet<InstanceAddr> {
        let outer = if wanted.is_empty() { BTreeSet::new() } else { self.outer_addresses(namespace) };
        let wanted: BTreeSet<InstanceAddr> = wanted.iter().filter(|addr| outer.contains(&addr.ip())).copied().collect();
        let mut led = BTreeSet::new();
        if wanted.is_empty() {
            return led;
        }
        for (key, service) in self.services.of_namespace(namespace) {
            if !self.has_ready(key) {
                continue;
            }
            let leads = |addr: &&InstanceAddr| {
                let balanced = service.balancer_ips.contains(&addr.ip());
                let number = |number: i32| u16::try_from(number).ok();
                service.ports.iter().any(|port| {
                    port.node_port == Some(addr.port()) || (balanced && number(port.number) == Some(addr.port()))
                })
            };
            led.extend(wanted.iter().filter(leads));
        }
        led.extend(wanted.iter().filter(|addr| self.is_host_port_of_ready(namespace, **addr)));
        led
    }

    fn has_ready(&self, service: &ServiceKey) -> bool {
        let slices = self.slices.of_service(service);
        let mut others = slices.iter().filter(|slice| !slice.is_ours());
        others.any(|slice| slice.endpoints.iter().any(|endpoint| endpoint.is_ready() && !endpoint.is_terminating()))
    }

    /// Whether a ready pod of the namespace has this port of its Node.
    fn is_host_port_of_ready(&self, namespace: &str, addr: InstanceAddr) -> bool {
        let leads =
            |node: &str| self.networks.node(node).is_some_and(|node| node.every_address().any(|ip| ip == addr.ip()));
        let others = self.slices.of_namespace(namespace).filter(|slice| !slice.is_ours());
        others.into_iter().any(|slice| {
            let ports: Vec<u16> =
                slice.ports.iter().filter(|port| port.protocol == TCP).filter_map(|port| port.number).collect();
            let ready = slice.endpoints.iter().filter(|endpoint| endpoint.is_ready() && !endpoint.is_terminating());
            let mut pods = ready.filter_map(|endpoint| endpoint.address.ip()).flat_map(|ip| self.pods.at(ip));
            pods.any(|pod| {
                pod.node.as_deref().is_some_and(leads)
                    && ports.iter().any(|port| pod.port_of_node(*port, addr.ip()) == Some(addr.port()))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::{Value, json};
    use twinspan_core::model::ObjectKey;

    use super::*;
    use crate::cluster::convert;

    fn view(ready: bool) -> ClusterView {
        let mut view = ClusterView::default();
        let node: Node = read(json!({"metadata": {"annotations": {"twinspan.dev/export-address": "203.0.113.1"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}));
        view.networks.set_node("node", Some(convert::node(&node)));
        let service: Service =
            read(json!({"metadata": {"name": "echo"}, "spec": {"ports": [{"port": 80, "nodePort": 30080}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}}));
        view.services.put(ServiceKey::new("shop", "echo"), convert::service(&service));
        let pod: Pod = read(json!({"metadata": {"name": "pod", "namespace": "shop"}, "spec": {"nodeName": "node",
            "containers": [{"name": "c", "ports": [{"containerPort": 8000, "hostPort": 9000}]}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}]}}));
        view.pods.put(ObjectKey::new("shop", "pod"), convert::pod(&pod));
        let slice: EndpointSlice =
            read(json!({"metadata": {"name": "echo-1", "labels": {"kubernetes.io/service-name": "echo"}},
            "addressType": "IPv4", "ports": [{"port": 8000, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]}));
        view.slices.put("shop", convert::slice(slice));
        view
    }

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn addresses_outside_lead_to_ready_endpoints_of_their_namespace() {
        let set = |all: &[&str]| all.iter().map(|text| InstanceAddr::parse(text).unwrap()).collect::<BTreeSet<_>>();
        let lead = ["192.0.2.1:30080", "203.0.113.1:30080", "198.51.100.1:80", "192.0.2.1:9000"];
        let not = ["192.0.2.1:80", "198.51.100.1:30081", "192.0.2.9:30080", "192.0.2.1:8000", "10.0.0.1:8000"];
        let wanted = set(&[&lead[..], &not].concat());
        assert_eq!(view(true).led_to_ready("shop", &wanted), set(&lead));
        assert!(view(false).led_to_ready("shop", &wanted).is_empty());
        assert!(view(true).led_to_ready("other", &wanted).is_empty());
    }
}
