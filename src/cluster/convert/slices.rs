//! The conversion of EndpointSlices to the model's, and back.
//!
//! Owns whose a slice is, and what of it a replacement has to keep. Refuses to decide what a slice holds.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use twinspan_core::model::{
    AddressType, Family, Hints, IMPORTED_FROM_ANNOTATION, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, Slice, SliceEndpoint,
    SlicePort, TCP, TargetPod,
};
use twinspan_core::plan::slices::{self, SliceSpec};

use crate::api::{GROUP, RegisteredService, VERSION};

/// The RegisteredService that owns an object.
pub(super) fn owner(meta: &ObjectMeta) -> Option<&OwnerReference> {
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
