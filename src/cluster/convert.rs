//! The conversion of API objects to the model's nouns; [`slices`] has EndpointSlices, both ways.
//!
//! Owns the mapping, and drops every field that no planner reads, so that views stay small. Refuses to decide.

mod slices;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Namespace, Node, Pod, PodSpec, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use twinspan_core::model::{
    EXPORT_ADDRESS_ANNOTATION, EXPORT_ANNOTATION, Family, HostPort, Labels, NodeView, PORT_ANNOTATION, PodView,
    REGISTRY_NAME_ANNOTATION, ServicePortView, ServiceView, TCP, TrafficDistribution, WEIGHT_ANNOTATION,
};

pub use slices::{OthersMetadata, endpoint_slice, others_metadata, owner_reference, slice};

use super::readiness_gate;

/// The zone of a Node (`well_known_labels.go` of k8s.io/api/core/v1).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Takes a Node out of load balancers, whatever its value (`well_known_labels.go` of k8s.io/api/core/v1).
const NOT_BALANCED_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A namespace, reduced to the fields that Twinspan reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceView {
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// The annotation [`EXPORT_ANNOTATION`].
    pub export: Option<String>,
    pub deleting: bool,
}

/// Data of a Secret in the operator's own namespace.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretView {
    pub data: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for SecretView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

pub fn service(object: &Service) -> ServiceView {
    let spec = object.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let ips = |texts: Vec<String>| texts.iter().filter_map(|text| text.parse().ok()).collect::<Vec<IpAddr>>();
    let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.clone());
    let balanced = ips(balancer.unwrap_or_default().into_iter().filter_map(|ingress| ingress.ip).collect());
    ServiceView {
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        external_name: spec.type_.as_deref() == Some("ExternalName"),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        selector: spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()),
        selects: spec.selector.as_ref().map(Labels::new).unwrap_or_default(),
        traffic: match spec.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => TrafficDistribution::SameZone,
            Some("PreferSameNode") => TrafficDistribution::SameNode,
            _ => TrafficDistribution::Anywhere,
        },
        ports: ports
            .into_iter()
            .map(|port| ServicePortView {
                name: port.name.unwrap_or_default(),
                number: port.port,
                node_port: port.node_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0),
                tcp: port.protocol.as_deref().unwrap_or(TCP) == TCP,
                app_protocol: port.app_protocol,
            })
            .collect(),
        cluster_ips: ips(spec.cluster_ips.unwrap_or_default()),
        external_ips: ips(spec.external_ips.unwrap_or_default()).into_iter().chain(balanced.iter().copied()).collect(),
        balancer_ips: balanced,
        local_traffic: spec.external_traffic_policy.as_deref() == Some("Local"),
        families: spec.ip_families.unwrap_or_default().iter().filter_map(|f| Family::parse(f)).collect(),
        labels: object.labels().clone(),
        owner_uid: slices::owner(object.meta()).map(|owner| owner.uid.clone()),
        deleting: object.meta().deletion_timestamp.is_some(),
        created: object.meta().creation_timestamp.as_ref().map(|time| time.0),
        annotations: DISCOVERY_ANNOTATIONS
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), annotation(object.meta(), key)?)))
            .collect(),
    }
}

/// The annotations of a Service that discovery reads.
const DISCOVERY_ANNOTATIONS: [&str; 4] =
    [EXPORT_ANNOTATION, REGISTRY_NAME_ANNOTATION, PORT_ANNOTATION, WEIGHT_ANNOTATION];
/// The part of an annotation that is kept: no longer value is one that discovery could use.
const KEPT: usize = 300;

fn annotation(meta: &ObjectMeta, key: &str) -> Option<String> {
    let value = meta.annotations.as_ref()?.get(key)?;
    Some(value.chars().take(KEPT).collect())
}

pub fn namespace(object: &Namespace) -> NamespaceView {
    NamespaceView {
        uid: object.uid().unwrap_or_default(),
        labels: object.labels().clone(),
        export: annotation(object.meta(), EXPORT_ANNOTATION),
        deleting: object.meta().deletion_timestamp.is_some(),
    }
}

pub fn pod(object: &Pod) -> PodView {
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    let ips = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
    let ips = ips.chain(status.and_then(|s| s.pod_ip.as_deref()));
    let mut ips: Vec<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
    ips.sort();
    ips.dedup();
    PodView {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        ips,
        node: spec.and_then(|s| s.node_name.clone()),
        host_network: spec.and_then(|s| s.host_network).unwrap_or_default(),
        ended: matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")),
        host_ports: spec.and_then(host_ports),
        weight: object.annotations().get(WEIGHT_ANNOTATION).cloned(),
        gate: readiness_gate::of(object).map(Box::new),
        labels: Labels::new(object.labels()),
    }
}

/// The TCP ports of the Node that lead to the pod's containers, sidecars among them.
fn host_ports(spec: &PodSpec) -> Option<Box<[HostPort]>> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let host_port = |port: &ContainerPort| {
        let number = |number: i32| u16::try_from(number).ok().filter(|number| *number != 0);
        let (container, host) = (number(port.container_port)?, number(port.host_port?)?);
        let ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).map(str::parse::<IpAddr>).transpose().ok()?;
        let is_tcp = port.protocol.as_deref().unwrap_or(TCP) == TCP;
        is_tcp.then_some(HostPort { container, host, ip })
    };
    let found: Box<[HostPort]> = containers.flat_map(|c| c.ports.iter().flatten()).filter_map(host_port).collect();
    (!found.is_empty()).then_some(found)
}

pub fn node(object: &Node) -> NodeView {
    let status = object.status.as_ref();
    let addresses: Vec<(&str, IpAddr)> = status
        .and_then(|status| status.addresses.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|address| Some((address.type_.as_str(), address.address.parse().ok()?)))
        .collect();
    let of = |type_: &str| addresses.iter().filter(|(of, _)| *of == type_).map(|(_, ip)| *ip).collect();
    let ready = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = ready.into_iter().find(|condition| condition.type_ == "Ready");
    let is_ready = ready.is_some_and(|condition| condition.status == "True");
    let spec = object.spec.clone().unwrap_or_default();
    NodeView {
        addresses: addresses.iter().map(|(_, ip)| *ip).collect(),
        internal: of("InternalIP"),
        external: of("ExternalIP"),
        pod_cidrs: spec.pod_cidrs.unwrap_or_default().into_iter().chain(spec.pod_cidr).collect(),
        zone: object.labels().get(ZONE_LABEL).cloned(),
        left_out: object.meta().deletion_timestamp.is_some() || object.labels().contains_key(NOT_BALANCED_LABEL),
        available: is_ready && spec.unschedulable != Some(true),
        lost: ready.is_some() && !is_ready,
        export_address: object.annotations().get(EXPORT_ADDRESS_ANNOTATION).cloned(),
    }
}

pub fn secret(object: Secret) -> SecretView {
    SecretView { data: object.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect() }
}
