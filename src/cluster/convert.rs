//! API objects ↔ the model's nouns. Everything that nothing here looks at is dropped at once: views stay small.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use twinspan_core::model::{
    AddressType, Family, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, Slice, SliceEndpoint, SlicePort, TCP,
};
use twinspan_core::plan::slices::Body;

use crate::api::{GROUP, RegisteredService, VERSION};

/// A Service, reduced to what matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub name: String,
    pub uid: String,
    pub external_name: bool,
    pub headless: bool,
    pub ports: Vec<ServicePortView>,
    /// The first is the primary one.
    pub families: Vec<Family>,
    pub labels: BTreeMap<String, String>,
    /// UID of the RegisteredService that it was created for, where it was.
    pub owner_uid: Option<String>,
    pub deleting: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortView {
    /// Empty for the only port of a Service that does not name it.
    pub name: String,
    pub tcp: bool,
    pub app_protocol: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceView {
    pub uid: String,
    pub labels: BTreeMap<String, String>,
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
    ServiceView {
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        external_name: spec.type_.as_deref() == Some("ExternalName"),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        ports: ports
            .into_iter()
            .map(|port| ServicePortView {
                name: port.name.unwrap_or_default(),
                tcp: port.protocol.as_deref().unwrap_or(TCP) == TCP,
                app_protocol: port.app_protocol,
            })
            .collect(),
        families: spec.ip_families.unwrap_or_default().iter().filter_map(|f| Family::parse(f)).collect(),
        labels: object.labels().clone(),
        owner_uid: owner(object.meta()),
        deleting: object.meta().deletion_timestamp.is_some(),
    }
}

pub fn namespace(object: &Namespace) -> NamespaceView {
    NamespaceView {
        uid: object.uid().unwrap_or_default(),
        labels: object.labels().clone(),
        deleting: object.meta().deletion_timestamp.is_some(),
    }
}

pub fn secret(object: Secret) -> SecretView {
    SecretView { data: object.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect() }
}

/// The RegisteredService that owns an object.
fn owner(meta: &ObjectMeta) -> Option<String> {
    let group = format!("{GROUP}/");
    meta.owner_references
        .iter()
        .flatten()
        .find(|o| o.kind == "RegisteredService" && o.api_version.starts_with(&group))
        .map(|o| o.uid.clone())
}

pub fn owner_reference(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: RegisteredService::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        // Set, it would need permission on finalizers, and would let a slice hold up its owner.
        block_owner_deletion: None,
    }
}

pub fn slice(object: EndpointSlice) -> Slice {
    let owner_uid = owner(&object.metadata);
    let labels = object.metadata.labels.unwrap_or_default();
    let address_type = Family::parse(&object.address_type).map_or(AddressType::Other, AddressType::Ip);
    Slice {
        name: object.metadata.name.unwrap_or_default(),
        resource_version: object.metadata.resource_version.unwrap_or_default(),
        service: labels.get(SERVICE_NAME_LABEL).cloned(),
        managed_by: labels.get(MANAGED_BY_LABEL).cloned(),
        owner_uid,
        deleting: object.metadata.deletion_timestamp.is_some(),
        address_type,
        ports: object.ports.unwrap_or_default().into_iter().map(port).collect(),
        endpoints: object.endpoints.into_iter().filter_map(endpoint).collect(),
        labels,
        annotations: object.metadata.annotations.unwrap_or_default(),
    }
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
        address: endpoint.addresses.into_iter().next()?,
        ready: conditions.ready,
        serving: conditions.serving,
        terminating: conditions.terminating,
        zone: endpoint.zone,
    })
}

/// The slice as it is sent; `seen` makes it a replacement of that very version.
pub fn endpoint_slice(namespace: &str, owner: OwnerReference, body: &Body, seen: Option<&str>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(body.name.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(body.labels.clone()),
            annotations: Some(body.annotations.clone()),
            owner_references: Some(vec![owner]),
            resource_version: seen.map(ToOwned::to_owned),
            ..ObjectMeta::default()
        },
        address_type: body.family.as_str().to_owned(),
        ports: Some(vec![EndpointPort {
            name: Some(body.port.name.clone()),
            protocol: Some(body.port.protocol.clone()),
            port: body.port.number.map(i32::from),
            app_protocol: body.port.app_protocol.clone(),
        }]),
        endpoints: body
            .endpoints
            .iter()
            .map(|endpoint| Endpoint {
                addresses: vec![endpoint.address.clone()],
                conditions: Some(EndpointConditions {
                    ready: endpoint.ready,
                    serving: endpoint.serving,
                    terminating: endpoint.terminating,
                }),
                zone: endpoint.zone.clone(),
                ..Endpoint::default()
            })
            .collect(),
    }
}
