//! RegisteredServices as discovery makes them, and as it finds them.
//!
//! Owns both ways between a RegisteredService and what discovery wants. Of the Service no label and no annotation is
//! copied: anybody who may edit a Service would otherwise write another kind of object. Refuses to decide.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use twinspan_core::model::{RegistryName, ServiceKey};
use twinspan_core::plan::discovery::facts::{Carries, Lags, Object, Origin, Wanted, Wants};

use super::hand_over::lags;
use crate::api::discovered::{DISCOVERED_BY, discovered_by};
use crate::api::{
    CreateService, DeletionGuard, Direction, Export, Import, Policy, PortRef, RegisteredService, RegisteredServiceSpec,
    RegistryRef, ServiceRef,
};

/// The port of a Service that is made for a name. The Service is headless, so that endpoints have the ports of their
/// records; only its name counts, in SRV records.
const PORT_NAME: &str = "rpc";
const PORT_NUMBER: i32 = 8888;

/// The ServiceRegistry whose discovery looks, and all that there are.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub registry: &'a str,
    pub uid: &'a str,
    pub registries: &'a Registries,
}

/// All ServiceRegistries, those of other releases too.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    pub names: BTreeSet<String>,
    pub uids: BTreeSet<String>,
}

/// The origin of an object: the reference and the label are two marks, and an edit changes one of them as a rule.
fn origin(known: Known<'_>, object: &RegisteredService) -> Origin {
    let refers_to = object.spec.registry_ref.name.as_str();
    let refers = refers_to == known.registry;
    match discovered_by(object) {
        None => Origin::Written,
        Some(by) if by == known.uid && !refers && known.registries.names.contains(refers_to) => Origin::Moved,
        Some(by) if by == known.uid => Origin::Ours,
        Some(by) if refers && known.registries.uids.contains(by) => Origin::Relabelled,
        Some(_) if refers => Origin::Orphan,
        Some(_) => Origin::Others,
    }
}

/// The spec of a wanted object.
pub fn spec(wanted: &Wanted, registry: &str) -> RegisteredServiceSpec {
    let port = |name: &String| PortRef { name: name.clone(), number: None, scheme: None };
    let made = || PortRef { name: PORT_NAME.to_owned(), number: Some(PORT_NUMBER), scheme: None };
    let mut export = Export::default();
    let (direction, ports, create) = match &wanted.kind {
        Wants::Export { port: named, weight, .. } => {
            let weight = weight.and_then(|weight| i32::try_from(weight).ok());
            export.weight = weight.unwrap_or(export.weight);
            (Direction::Export, named.iter().map(port).collect(), CreateService::Never)
        }
        Wants::Import => (Direction::Import, vec![made()], CreateService::Headless),
    };
    RegisteredServiceSpec {
        registry_ref: RegistryRef { name: registry.to_owned() },
        registry_name: Some(wanted.registry_name.as_str().to_owned()),
        service: ServiceRef { name: None, ports, create },
        direction,
        policy: Policy::Sync,
        export,
        import: Import::default(),
        deletion_guard: DeletionGuard::default(),
        suspend: false,
    }
}

/// A wanted object as it is created.
pub fn made(wanted: &Wanted, registry: &str, uid: &str) -> RegisteredService {
    RegisteredService {
        metadata: ObjectMeta {
            name: Some(wanted.key.name.clone()),
            namespace: Some(wanted.key.namespace.clone()),
            labels: Some(BTreeMap::from([(DISCOVERED_BY.to_owned(), uid.to_owned())])),
            owner_references: owner_reference(wanted).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: spec(wanted, registry),
        status: None,
    }
}

/// An object as it is put right: what others put into its metadata stays.
pub fn put_right(object: &RegisteredService, wanted: &Wanted, registry: &str, uid: &str) -> RegisteredService {
    let mut metadata = object.metadata.clone();
    metadata.labels.get_or_insert_default().insert(DISCOVERED_BY.to_owned(), uid.to_owned());
    let others = metadata.owner_references.take().unwrap_or_default().into_iter().filter(|owner| !is_service(owner));
    let owners: Vec<OwnerReference> = others.chain(owner_reference(wanted)).collect();
    metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
    RegisteredService { metadata, spec: spec(wanted, registry), status: None }
}

fn owner_reference(wanted: &Wanted) -> Option<OwnerReference> {
    let Wants::Export { service_uid, .. } = &wanted.kind else { return None };
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: wanted.key.name.clone(),
        uid: service_uid.clone(),
        controller: Some(false),
        block_owner_deletion: Some(false),
    })
}

fn is_service(owner: &OwnerReference) -> bool {
    owner.kind == "Service" && owner.api_version == "v1"
}

/// A RegisteredService as discovery reads it; `None` without a UID, which no stored object lacks.
pub fn reduce(known: Known<'_>, key: &ServiceKey, object: &RegisteredService, unreadable: bool) -> Option<Object> {
    let (meta, spec) = (&object.metadata, &object.spec);
    let origin = origin(known, object);
    let owner = meta.owner_references.iter().flatten().find(|owner| is_service(owner));
    Some(Object {
        uid: meta.uid.clone()?,
        version: meta.resource_version.clone().unwrap_or_default(),
        origin,
        refers: spec.registry_ref.name == known.registry,
        service: object.service_key(),
        registry_name: object.registry_name(),
        exports: spec.direction.exports(),
        imports: spec.direction.imports(),
        owner: owner.map(|owner| owner.uid.clone()),
        made_as: if origin.is_discovered() { made_as(known.registry, key, object, owner) } else { None },
        carries: carries(object),
        lags: if origin == Origin::Written { lags(object) } else { Lags::default() },
        denied: object.is_denied(),
        deleting: meta.deletion_timestamp.is_some(),
        unreadable,
    })
}

/// The wanted object from which this one was made, if nothing of it was edited.
fn made_as(
    registry: &str,
    key: &ServiceKey,
    object: &RegisteredService,
    owner: Option<&OwnerReference>,
) -> Option<Wanted> {
    let of = &object.spec;
    let kind = match owner {
        Some(owner) => Wants::Export {
            service_uid: owner.uid.clone(),
            port: of.service.ports.first().map(|port| port.name.clone()),
            weight: u32::try_from(of.export.weight).ok().filter(|_| of.export.weight != Export::default().weight),
        },
        None => Wants::Import,
    };
    let wanted = Wanted { key: key.clone(), registry_name: RegistryName::new(of.registry_name.clone()?).ok()?, kind };
    let is_owned = owner.cloned() == owner_reference(&wanted);
    (is_owned && *of == spec(&wanted, registry)).then_some(wanted)
}

fn carries(object: &RegisteredService) -> Carries {
    let Some(status) = &object.status else { return Carries::default() };
    Carries {
        is_current: object.current_status().is_some(),
        exported: status.instances.exported,
        imported: status.instances.imported,
    }
}
