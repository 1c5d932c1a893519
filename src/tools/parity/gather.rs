//! The questions of parity: asks each side for the instances of one service.
//!
//! Owns the choice of the ports, schemes and names to ask for. Refuses to compare the answers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use twinspan_core::codec::Layout;
use twinspan_core::model::{
    AddressType, InstanceAddr, InvalidName, Kind, RegistryName, SERVICE_NAME_LABEL, ServiceKey, ServiceView, Slice,
    SliceEndpoint, TCP, named_address,
};
use twinspan_core::plan::service::ImportPlace;

use super::dns::{DnsError, Resolver};
use super::table::{Cell, Dns, SeenBy};
use crate::api::{RegisteredService, ServiceRegistry};
use crate::cluster::convert;
use crate::registry::etcd::EtcdConnector;
use crate::registry::{Connector, RegistryError};
use crate::tools::lookup::{self, LookupError, one, reading};

/// The service, and the sides to ask.
pub struct Request<'a> {
    pub client: Client,
    pub key: ServiceKey,
    /// The namespace of the Secrets of ServiceRegistries.
    pub operator_namespace: &'a str,
    pub resolver: &'a Resolver,
    /// Usually `cluster.local`.
    pub cluster_domain: &'a str,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The instances that each side sees, and the names that were asked for.
#[derive(Debug)]
pub struct Gathered {
    pub seen_by: SeenBy,
    pub registry_name: RegistryName,
    pub service: ServiceKey,
    pub place: ImportPlace,
    /// The framework whose clients read the registry.
    pub framework: &'static str,
}

/// The reason why a side could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    #[error(transparent)]
    Reach(#[from] LookupError),
    #[error("RegisteredService {0} has no registry name that is legal: {1}")]
    Name(ServiceKey, InvalidName),
    #[error("ServiceRegistry {0}: {1}")]
    Registry(String, RegistryError),
    #[error("Service {0} has no TCP port that is meant; name one in spec.service.ports")]
    Port(ServiceKey),
    #[error(transparent)]
    Dns(#[from] DnsError),
}

/// # Errors
/// [`GatherError`] if a side cannot be asked, because its missing answer would look like a difference.
pub async fn gather(request: &Request<'_>) -> Result<Gathered, GatherError> {
    let Request { client: kube, key, .. } = request;
    let objects: Api<RegisteredService> = Api::namespaced(kube.clone(), &key.namespace);
    let object = one(&objects, "RegisteredService", key, &key.name).await?;
    let name = RegistryName::new(object.registry_name()).map_err(|e| GatherError::Name(key.clone(), e))?;
    let registry = &object.spec.registry_ref.name;
    let registry: ServiceRegistry = one(&Api::all(kube.clone()), "ServiceRegistry", registry, registry).await?;
    let service = object.service_key();
    let services: Api<Service> = Api::namespaced(kube.clone(), &service.namespace);
    let view = convert::service(&one(&services, "Service", &service, &service.name).await?);
    let ports = port_names(&object, &view).ok_or_else(|| GatherError::Port(service.clone()))?;
    let schemes = object.schemes(registry.spec.format.into());

    let services = services_of(&object);
    let mut cluster = BTreeMap::new();
    for service in &services {
        cluster.extend(endpoints(&request.client, service, &ports).await?);
    }
    let (registry, framework) = records(request, &registry, &name, &schemes).await?;
    let client = registry.keys().copied().collect();
    let dns = if view.headless { names(request, &services, &ports).await? } else { Dns::NotNamed };
    let seen_by = SeenBy { cluster, registry, dns, client };
    Ok(Gathered { seen_by, registry_name: name, service, place: object.import_place(), framework })
}

/// The answer of DNS about the Services of an object, for people who may read no registry.
///
/// # Errors
/// [`GatherError`] if the Service could not be read, or a named DNS server does not answer.
pub async fn dns_of(request: &Request<'_>, object: &RegisteredService) -> Result<Dns, GatherError> {
    let service = object.service_key();
    let services: Api<Service> = Api::namespaced(request.client.clone(), &service.namespace);
    let view = convert::service(&one(&services, "Service", &service, &service.name).await?);
    if !view.headless {
        return Ok(Dns::NotNamed);
    }
    let ports = port_names(object, &view).ok_or(GatherError::Port(service))?;
    names(request, &services_of(object), &ports).await
}

/// The Services whose endpoints are the instances.
fn services_of(object: &RegisteredService) -> BTreeSet<ServiceKey> {
    BTreeSet::from([object.service_key(), object.import_service_key()])
}

/// The chosen ports of the Service.
fn port_names(object: &RegisteredService, service: &ServiceView) -> Option<Vec<String>> {
    let wanted = &object.spec.service.ports;
    if !wanted.is_empty() {
        return Some(wanted.iter().map(|port| port.name.clone()).collect());
    }
    let mut tcp = service.ports.iter().filter(|port| port.tcp);
    let only = tcp.next().filter(|_| tcp.next().is_none())?;
    Some(vec![only.name.clone()])
}

async fn endpoints(
    client: &Client,
    service: &ServiceKey,
    ports: &[String],
) -> Result<BTreeMap<InstanceAddr, Cell>, GatherError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &service.namespace);
    let selector = ListParams::default().labels(&format!("{SERVICE_NAME_LABEL}={}", service.name));
    let slices = reading("EndpointSlices", api.list(&selector).await)?;
    let mut found = BTreeMap::new();
    for slice in slices.items.into_iter().map(convert::slice) {
        for (instance, cell) in ports.iter().flat_map(|port| ready(&slice, port)) {
            found.entry(instance).or_insert(cell);
        }
    }
    Ok(found)
}

fn ready(slice: &Slice, port: &str) -> BTreeMap<InstanceAddr, Cell> {
    if slice.address_type == AddressType::Other {
        return BTreeMap::new();
    }
    let cell = |endpoint: &SliceEndpoint| {
        if slice.is_ours() && !endpoint.mirrored { Cell::Imported } else { Cell::Pod }
    };
    let numbers = slice.ports.iter().filter(|p| p.name == port && p.protocol == TCP).filter_map(|p| p.number);
    let ready = slice.endpoints.iter().filter(|e| e.ready != Some(false) && e.terminating != Some(true));
    let ips: Vec<_> = ready.filter_map(|e| Some((e.address.ip()?, cell(e)))).collect();
    let at = |number| ips.iter().filter_map(move |(ip, cell)| Some((InstanceAddr::new(*ip, number).ok()?, *cell)));
    numbers.flat_map(at).collect()
}

/// Records with an address that a client of one of the schemes would dial. Such a client reads the value and ignores
/// the key.
async fn records(
    request: &Request<'_>,
    object: &ServiceRegistry,
    name: &RegistryName,
    schemes: &[String],
) -> Result<(BTreeMap<InstanceAddr, Cell>, &'static str), GatherError> {
    let wanted = lookup::session_settings(&request.client, request.operator_namespace, object).await?;
    let layout: Layout = wanted.identity.layout;
    let failed = |error| GatherError::Registry(object.metadata.name.clone().unwrap_or_default(), error);
    let connection = EtcdConnector::new(wanted.connection).connect().await.map_err(failed)?;
    let listing = connection.list(&layout.service_root(name)).await.map_err(failed)?;
    let mut records = BTreeMap::new();
    for record in listing.records.iter().map(|raw| layout.decode(raw)) {
        let cell =
            if matches!(record.kind(&wanted.identity.cluster_id), Kind::Own(_)) { Cell::Own } else { Cell::Foreign };
        let dialled = schemes.iter().flat_map(|scheme| layout.format().dialled(record.tcp_listeners(), scheme));
        for (ip, port) in dialled.filter_map(|listener| named_address(&listener.text)) {
            if let Ok(instance) = InstanceAddr::new(ip, port) {
                records.entry(instance).or_insert(cell);
            }
        }
    }
    Ok((records, layout.format().as_str()))
}

/// The answers of DNS, if the server is that of the cluster.
async fn names(request: &Request<'_>, services: &BTreeSet<ServiceKey>, ports: &[String]) -> Result<Dns, GatherError> {
    let Request { resolver, cluster_domain, .. } = request;
    if let Some(reason) = resolver.unfit(cluster_domain).await? {
        return Ok(Dns::NotAsked(reason));
    }
    let mut found = BTreeSet::new();
    for service in services {
        let fqdn = format!("{}.{}.svc.{cluster_domain}.", service.name, service.namespace);
        for port in ports {
            found.append(&mut resolver.instances(port, &fqdn).await?);
        }
    }
    Ok(Dns::Answers(found))
}
