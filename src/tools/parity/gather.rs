//! Asks each side what it sees of one service.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use twinspan_core::codec::Layout;
use twinspan_core::model::{
    AddressType, InstanceAddr, InvalidName, Kind, RegistryName, SERVICE_NAME_LABEL, ServiceKey, Slice, TCP,
};

use super::dns::Resolver;
use super::table::{Cell, Sides};
use crate::api::RegisteredService;
use crate::cluster::convert::{self, ServiceView};
use crate::cluster::index;
use crate::registry::etcd::EtcdConnector;
use crate::registry::{Connector, RegistryError};
use crate::tools::reach::{self, ReachError, one, reading};

/// Which service, and whom to ask.
pub struct Request<'a> {
    pub client: Client,
    pub key: ServiceKey,
    /// Where the Secrets of ServiceRegistries are.
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

/// What was seen, and the names that it was asked for by.
#[derive(Debug)]
pub struct Gathered {
    pub sides: Sides,
    pub registry_name: RegistryName,
    pub service: ServiceKey,
    /// Whose clients read the registry.
    pub framework: &'static str,
}

/// Why a side could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("RegisteredService {0} has no registry name that is legal: {1}")]
    Name(ServiceKey, InvalidName),
    #[error("ServiceRegistry {0}: {1}")]
    Registry(String, RegistryError),
    #[error("Service {0} has no TCP port that is meant; name one in spec.service.ports")]
    Port(ServiceKey),
    #[error("DNS does not answer: {0}; say which server to ask with --dns")]
    Dns(#[from] hickory_resolver::net::NetError),
}

/// # Errors
/// [`GatherError`] where a side cannot be asked: half a picture would be mistaken for a difference.
pub async fn gather(request: &Request<'_>) -> Result<Gathered, GatherError> {
    let Request { client: kube, key, .. } = request;
    let objects: Api<RegisteredService> = Api::namespaced(kube.clone(), &key.namespace);
    let object = one(&objects, "RegisteredService", key, &key.name).await?;
    let name = RegistryName::new(index::registry_name(key, &object)).map_err(|e| GatherError::Name(key.clone(), e))?;
    let service = index::service_key(key, &object);
    let services: Api<Service> = Api::namespaced(kube.clone(), &service.namespace);
    let view = convert::service(&one(&services, "Service", &service, &service.name).await?);
    let port = port_name(&object, &view).ok_or_else(|| GatherError::Port(service.clone()))?;

    let cluster = endpoints(&request.client, &service, &port).await?;
    let (registry, client, framework) = records(request, &object.spec.registry_ref.name, &name).await?;
    let dns = if view.headless {
        let fqdn = format!("{}.{}.svc.{}.", service.name, service.namespace, request.cluster_domain);
        Some(request.resolver.instances(&port, &fqdn).await?)
    } else {
        None
    };
    Ok(Gathered { sides: Sides { cluster, registry, dns, client }, registry_name: name, service, framework })
}

fn port_name(object: &RegisteredService, service: &ServiceView) -> Option<String> {
    match object.spec.service.ports.first() {
        Some(port) => Some(port.name.clone()),
        None => {
            let mut tcp = service.ports.iter().filter(|port| port.tcp);
            tcp.next().map(|port| port.name.clone()).filter(|_| tcp.next().is_none())
        }
    }
}

async fn endpoints(
    client: &Client,
    service: &ServiceKey,
    port: &str,
) -> Result<BTreeMap<InstanceAddr, Cell>, GatherError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &service.namespace);
    let selector = ListParams::default().labels(&format!("{SERVICE_NAME_LABEL}={}", service.name));
    let slices = reading("EndpointSlices", api.list(&selector).await)?;
    let mut found = BTreeMap::new();
    for slice in slices.items.into_iter().map(convert::slice) {
        let cell = if slice.is_ours() { Cell::Imported } else { Cell::Pod };
        for instance in ready(&slice, port) {
            found.entry(instance).or_insert(cell);
        }
    }
    Ok(found)
}

fn ready(slice: &Slice, port: &str) -> BTreeSet<InstanceAddr> {
    if slice.address_type == AddressType::Other {
        return BTreeSet::new();
    }
    let numbers = slice.ports.iter().filter(|p| p.name == port && p.protocol == TCP).filter_map(|p| p.number);
    let ready = slice.endpoints.iter().filter(|e| e.ready != Some(false) && e.terminating != Some(true));
    let ips: Vec<_> = ready.filter_map(|e| e.address.parse().ok()).collect();
    numbers.flat_map(|number| ips.iter().filter_map(move |ip| InstanceAddr::new(*ip, number).ok())).collect()
}

type Records = (BTreeMap<InstanceAddr, Cell>, BTreeSet<InstanceAddr>, &'static str);

/// Records with an address, and the addresses that a client would dial: it believes the value and ignores the key.
async fn records(request: &Request<'_>, registry: &str, name: &RegistryName) -> Result<Records, GatherError> {
    let object = one(&Api::all(request.client.clone()), "ServiceRegistry", &registry, registry).await?;
    let wanted = reach::settings(&request.client, request.operator_namespace, &object).await?;
    let layout: Layout = wanted.identity.layout;
    let failed = |error| GatherError::Registry(registry.to_owned(), error);
    let connection = EtcdConnector::new(wanted.connection).connect().await.map_err(failed)?;
    let listing = connection.list(&layout.service_root(name)).await.map_err(failed)?;
    let (mut records, mut dialled) = (BTreeMap::new(), BTreeSet::new());
    for record in listing.records.iter().map(|raw| layout.decode(raw)) {
        let cell =
            if matches!(record.kind(&wanted.identity.cluster_id), Kind::Own(_)) { Cell::Own } else { Cell::Foreign };
        for (ip, port) in record.dialled() {
            if let Ok(instance) = InstanceAddr::new(ip, port) {
                records.entry(instance).or_insert(cell);
                dialled.insert(instance);
            }
        }
    }
    Ok((records, dialled, layout.format().as_str()))
}
