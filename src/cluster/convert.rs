//! The conversion of API objects to the model's nouns, and back.
//!
//! Owns the mapping, and drops every field that no planner reads, so that views stay small. Refuses to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Namespace, Node, ObjectReference, Pod, PodSpec, Secret, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use twinspan_core::model::{
    AddressType, EXPORT_ADDRESS_ANNOTATION, EXPORT_ANNOTATION, Family, Hints, HostPort, IMPORTED_FROM_ANNOTATION,
    Labels, MANAGED_BY_LABEL, NodeView, PORT_ANNOTATION, PodView, REGISTRY_NAME_ANNOTATION, SERVICE_NAME_LABEL,
    ServicePortView, ServiceView, Slice, SliceEndpoint, SlicePort, TCP, TargetPod, TrafficDistribution,
    WEIGHT_ANNOTATION,
};
use twinspan_core::plan::slices::{self, SliceSpec};

use super::readiness_gate;
use crate::api::{GROUP, RegisteredService, VERSION};

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
        owner_uid: owner(object.meta()).map(|owner| owner.uid.clone()),
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

/// The RegisteredService that owns an object.
fn owner(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| is_ours(owner))
}

fn is_ours(owner: &OwnerReference) -> bool {
    let of_group = owner.api_version.strip_prefix(GROUP).is_some_and(|version| version.starts_with('/'));
    owner.kind == "RegisteredService" && of_group
}

/// The metadata of a slice that other programs put there, and that a replacement has to keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OthersMetadata {
    pub finalizers: Vec<String>,
    pub owners: Vec<OwnerReference>,
}

pub fn others_metadata(meta: &ObjectMeta) -> OthersMetadata {
    let owners = meta.owner_references.iter().flatten().filter(|owner| !is_ours(owner));
    OthersMetadata { finalizers: meta.finalizers.clone().unwrap_or_default(), owners: owners.cloned().collect() }
}

/// The name of the RegisteredService that a slice which Twinspan filled belongs to.
fn keeper(meta: &ObjectMeta) -> Option<String> {
    if let Some(owner) = owner(meta) {
        return Some(owner.name.clone());
    }
    let filled = meta.annotations.as_ref().is_some_and(|all| all.contains_key(IMPORTED_FROM_ANNOTATION));
    let controlled = meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true));
    let name = meta.name.as_deref().filter(|_| filled && !controlled)?;
    Some(slices::owner_in_name(name).unwrap_or(name).to_owned())
}

/// Labels that only managers other than the one that writes the endpoints set: `metadata.managedFields` tells.
fn others_labels(meta: &ObjectMeta) -> BTreeSet<String> {
    let (mut ours, mut others) = (BTreeSet::new(), BTreeSet::new());
    for manager in meta.managed_fields.iter().flatten() {
        let Some(fields) = manager.fields_v1.as_ref().map(|fields| &fields.0) else { continue };
        let labels = fields.pointer("/f:metadata/f:labels").and_then(|labels| labels.as_object());
        let labels = labels.into_iter().flatten().filter_map(|(field, _)| field.strip_prefix("f:"));
        let of = if fields.get("f:endpoints").is_some() { &mut ours } else { &mut others };
        of.extend(labels.map(ToOwned::to_owned));
    }
    others.difference(&ours).cloned().collect()
}

pub fn owner_reference(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: RegisteredService::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        // `true` would need permission on finalizers, and a slice could block the deletion of its owner.
        block_owner_deletion: None,
    }
}

pub fn slice(object: EndpointSlice) -> Slice {
    let owner_uid = owner(&object.metadata).map(|owner| owner.uid.clone());
    let (keeper, others_labels) = (keeper(&object.metadata), others_labels(&object.metadata));
    let labels = object.metadata.labels.unwrap_or_default();
    let address_type = Family::parse(&object.address_type).map_or(AddressType::Other, AddressType::Ip);
    let mut endpoints: Vec<SliceEndpoint> = object.endpoints.into_iter().filter_map(endpoint).collect();
    // The list is made in the room of the API's endpoints, which take more.
    endpoints.shrink_to_fit();
    let mut slice = Slice {
        name: object.metadata.name.unwrap_or_default(),
        resource_version: object.metadata.resource_version.unwrap_or_default(),
        service: labels.get(SERVICE_NAME_LABEL).cloned(),
        managed_by: labels.get(MANAGED_BY_LABEL).cloned(),
        owner_uid,
        keeper,
        others_labels,
        deleting: object.metadata.deletion_timestamp.is_some(),
        address_type,
        ports: object.ports.unwrap_or_default().into_iter().map(port).collect(),
        endpoints,
        labels,
        annotations: object.metadata.annotations.unwrap_or_default(),
    };
    if slice.is_ours() {
        slice.read_lost_until();
        slice.read_mirrored();
    }
    slice
}

fn port(port: EndpointPort) -> SlicePort {
    SlicePort {
        name: port.name.unwrap_or_default(),
        protocol: port.protocol.unwrap_or_else(|| TCP.to_owned()),
        number: port.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0),
        app_protocol: port.app_protocol,
    }
}

fn endpoint(endpoint: Endpoint) -> Option<SliceEndpoint> {
    let conditions = endpoint.conditions.unwrap_or_default();
    Some(SliceEndpoint {
        address: endpoint.addresses.first()?.as_str().into(),
        ready: conditions.ready,
        serving: conditions.serving,
        terminating: conditions.terminating,
        zone: endpoint.zone,
        node: endpoint.node_name,
        pod: endpoint.target_ref.filter(|r| r.kind.as_deref() == Some("Pod")).map(pod_of).map(Box::new),
        hints: endpoint.hints.map(hints).and_then(Hints::boxed),
        lost_until: None,
        mirrored: false,
    })
}

fn pod_of(target: ObjectReference) -> TargetPod {
    TargetPod {
        namespace: target.namespace.unwrap_or_default(),
        name: target.name.unwrap_or_default(),
        uid: target.uid.unwrap_or_default(),
    }
}

fn hints(hints: EndpointHints) -> Hints {
    Hints {
        zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name).collect(),
        nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name).collect(),
    }
}

fn endpoint_hints(hints: &Hints) -> Option<EndpointHints> {
    let zones: Vec<ForZone> = hints.zones.iter().map(|name| ForZone { name: name.clone() }).collect();
    let nodes: Vec<ForNode> = hints.nodes.iter().map(|name| ForNode { name: name.clone() }).collect();
    let some = !zones.is_empty() || !nodes.is_empty();
    some.then(|| EndpointHints {
        for_zones: (!zones.is_empty()).then_some(zones),
        for_nodes: (!nodes.is_empty()).then_some(nodes),
    })
}

fn target_ref(pod: &TargetPod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

/// The slice as sent to the API server; with `if_version` it replaces only this resourceVersion, and keeps what others
/// put there.
pub fn endpoint_slice(
    namespace: &str,
    owner: OwnerReference,
    spec: &SliceSpec,
    if_version: Option<&str>,
    others: OthersMetadata,
) -> EndpointSlice {
    // Only one owner may be the controller.
    let owners = others.owners.into_iter().filter(|other| other.controller != Some(true));
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(spec.name.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(spec.labels.clone()),
            annotations: Some(spec.annotations.clone()),
            owner_references: Some(std::iter::once(owner).chain(owners).collect()),
            finalizers: Some(others.finalizers).filter(|finalizers| !finalizers.is_empty()),
            resource_version: if_version.map(ToOwned::to_owned),
            ..ObjectMeta::default()
        },
        address_type: spec.family.as_str().to_owned(),
        ports: Some(vec![EndpointPort {
            name: Some(spec.port.name.clone()),
            protocol: Some(spec.port.protocol.clone()),
            port: spec.port.number.map(i32::from),
            app_protocol: spec.port.app_protocol.clone(),
        }]),
        endpoints: spec
            .endpoints
            .iter()
            .map(|endpoint| Endpoint {
                addresses: vec![endpoint.address.to_string()],
                conditions: Some(EndpointConditions {
                    ready: endpoint.ready,
                    serving: endpoint.serving,
                    terminating: endpoint.terminating,
                }),
                zone: endpoint.zone.clone(),
                node_name: endpoint.node.clone(),
                target_ref: endpoint.pod.as_deref().map(target_ref),
                hints: endpoint.hints.as_deref().and_then(endpoint_hints),
                ..Endpoint::default()
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_survives_conversion_both_ways() {
        let object: EndpointSlice = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "s", "namespace": "shop", "resourceVersion": "7", "labels": {
                "kubernetes.io/service-name": "echo", "endpointslice.kubernetes.io/managed-by": "twinspan.dev"},
                "ownerReferences": [{"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "echo", "uid": "u"}]},
            "addressType": "IPv4",
            "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "zone": "z", "nodeName": "n",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "p", "uid": "pu"},
                "hints": {"forZones": [{"name": "z"}]}}],
        }))
        .unwrap();
        let slice = slice(object);
        assert_eq!(
            (slice.service.as_deref(), slice.owner_uid.as_deref(), slice.is_ours()),
            (Some("echo"), Some("u"), true)
        );
        let spec = SliceSpec {
            name: slice.name.clone(),
            family: Family::V4,
            port: slice.ports[0].clone(),
            endpoints: slice.endpoints.clone(),
            labels: slice.labels.clone(),
            annotations: slice.annotations.clone(),
        };
        let again = super::slice(endpoint_slice(
            "shop",
            owner_reference("echo", "u"),
            &spec,
            Some("7"),
            OthersMetadata::default(),
        ));
        assert_eq!(again, slice);
    }
}
