//! Everything that a pass rests on, read from the views at one moment.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::model::{
    AddressType, Family, InstanceAddr, Owner, RegistryName, ServiceKey, Slice, TCP, named_address,
};

use super::Memory;
use crate::api::{RegisteredService, ServiceRegistry};
use crate::cluster::convert::{NamespaceView, ServiceView};
use crate::cluster::index;
use crate::controllers::context::Context;
use crate::registry::handle::RegistryHandle;
use crate::registry::view::Snapshot;

/// The state of the world as far as one RegisteredService is concerned.
#[derive(Debug)]
pub struct Observed {
    pub key: ServiceKey,
    /// `None` where there is no such RegisteredService any more.
    pub object: Option<Arc<RegisteredService>>,
    pub namespace: Option<Arc<NamespaceView>>,
    pub registry: Option<Arc<ServiceRegistry>>,
    /// The session of that registry, where one runs, with what it holds under the name.
    pub session: Option<Session>,
    /// Other registries that hold records of this owner: it referred to them once.
    pub former: Vec<Session>,
    pub service: Option<Arc<ServiceView>>,
    /// Slices of the Service that others manage.
    pub others_slices: Vec<Arc<Slice>>,
    /// Slices that this RegisteredService owns, whatever Service they name.
    pub our_slices: Vec<Arc<Slice>>,
    pub memory: Memory,
}

/// One registry as it was at that moment.
#[derive(Debug)]
pub struct Session {
    pub handle: Arc<RegistryHandle>,
    pub owner: Owner,
    pub snapshot: Snapshot,
}

impl Observed {
    pub fn uid(&self) -> &str {
        self.object.as_ref().and_then(|object| object.metadata.uid.as_deref()).unwrap_or_default()
    }
}

/// `None` while the view of the cluster is not complete.
pub fn observe(context: &Context, key: &ServiceKey) -> Option<Observed> {
    let mut observed = {
        let view = context.cluster();
        if !view.waiting_for().is_empty() {
            return None;
        }
        let object = view.registered_services.get(key).cloned();
        let service = object.as_ref().map(|object| index::service_key(key, object));
        let uid = object.as_ref().and_then(|object| object.metadata.uid.clone()).unwrap_or_default();
        Observed {
            key: key.clone(),
            namespace: view.namespaces.get(&key.namespace).cloned(),
            registry: object.as_ref().and_then(|o| view.service_registries.get(&o.spec.registry_ref.name).cloned()),
            session: None,
            former: Vec::new(),
            service: service.as_ref().and_then(|service| view.services.get(service).cloned()),
            others_slices: service
                .map(|service| view.slices_of_service(&service).into_iter().filter(|slice| !slice.is_ours()).collect())
                .unwrap_or_default(),
            our_slices: view.slices_of_owner(&uid).into_iter().filter(|slice| slice.is_ours()).collect(),
            memory: Memory::default(),
            object,
        }
    };
    if let Some(memory) = context.memory().get(key).filter(|memory| memory.uid == observed.uid()) {
        observed.memory = memory.clone();
    }
    observe_registries(context, &mut observed);
    Some(observed)
}

fn observe_registries(context: &Context, observed: &mut Observed) {
    let current = observed.object.as_ref().map(|object| object.spec.registry_ref.name.clone());
    let current = current.filter(|_| observed.registry.is_some()).and_then(|name| context.registries.get(&name));
    let name = observed.object.as_ref().map(|object| index::registry_name(&observed.key, object));
    for handle in context.registries.all() {
        let owner = Owner { cluster_id: handle.cluster_id.clone(), service: observed.key.clone() };
        let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &handle));
        if is_current {
            let Some(name) = name.as_ref().and_then(|name| RegistryName::new(name).ok()) else { continue };
            let snapshot = handle.view().snapshot(&name, &owner);
            observed.session = Some(Session { handle, owner, snapshot });
        } else if let Some(snapshot) = former(&handle, &owner) {
            observed.former.push(Session { handle, owner, snapshot });
        }
    }
}

/// The records of an owner in a registry that it does not refer to, where there are any.
fn former(handle: &RegistryHandle, owner: &Owner) -> Option<Snapshot> {
    let view = handle.view();
    view.owned_by(&owner.service).next()?;
    Some(view.snapshot_of_owner(owner))
}

/// Ready endpoints of slices that others manage, at a port of the Service.
pub fn ready_endpoints(slices: &[Arc<Slice>], port_name: &str, families: &[Family]) -> BTreeSet<InstanceAddr> {
    let mut ready = BTreeSet::new();
    for slice in slices {
        let AddressType::Ip(family) = slice.address_type else { continue };
        if !families.contains(&family) {
            continue;
        }
        let numbers = slice.ports.iter().filter(|p| p.name == port_name && p.protocol == TCP).filter_map(|p| p.number);
        for number in numbers {
            let endpoints = slice.endpoints.iter().filter(|e| e.ready != Some(false) && e.terminating != Some(true));
            let ips = endpoints.filter_map(|e| e.address.parse::<IpAddr>().ok());
            ready.extend(ips.filter_map(|ip| InstanceAddr::new(ip, number).ok()));
        }
    }
    ready
}

/// Every address in slices that others manage, ready or not, at any port.
pub fn managed_addresses(slices: &[Arc<Slice>]) -> BTreeSet<(IpAddr, u16)> {
    let mut managed = BTreeSet::new();
    for slice in slices {
        for number in slice.ports.iter().filter_map(|port| port.number) {
            // Read as leniently as a key: slices of others may hold forms that we would not write.
            let named = slice.endpoints.iter().filter_map(|e| match e.address.parse::<IpAddr>() {
                Ok(ip) => Some((ip.to_canonical(), number)),
                Err(_) => named_address(&format!("{}:{number}", e.address)),
            });
            managed.extend(named);
        }
    }
    managed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use twinspan_core::model::{SliceEndpoint, SlicePort};

    use super::*;

    fn endpoint(address: &str, ready: Option<bool>, terminating: Option<bool>) -> SliceEndpoint {
        SliceEndpoint { address: address.into(), ready, serving: None, terminating, zone: None }
    }

    fn slice(
        address_type: AddressType,
        ports: &[(&str, &str, Option<u16>)],
        endpoints: Vec<SliceEndpoint>,
    ) -> Arc<Slice> {
        let ports = ports.iter().map(|(name, protocol, number)| SlicePort {
            name: (*name).into(),
            protocol: (*protocol).into(),
            number: *number,
            app_protocol: None,
        });
        Arc::new(Slice {
            name: "s".into(),
            resource_version: "1".into(),
            service: Some("echo".into()),
            managed_by: Some("endpointslice-controller.k8s.io".into()),
            owner_uid: None,
            deleting: false,
            address_type,
            ports: ports.collect(),
            endpoints,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        })
    }

    #[test]
    fn exported_are_ready_endpoints_that_do_not_terminate_at_the_named_tcp_port_of_a_chosen_family() {
        let (v4, v6) = (AddressType::Ip(Family::V4), AddressType::Ip(Family::V6));
        let ports = [("rpc", "TCP", Some(80)), ("metrics", "TCP", Some(90)), ("rpc", "UDP", Some(81))];
        let slices = [
            slice(
                v4,
                &ports,
                vec![
                    endpoint("10.0.0.1", Some(true), Some(false)),
                    endpoint("10.0.0.2", None, None),
                    endpoint("10.0.0.3", Some(false), None),
                    endpoint("10.0.0.4", Some(true), Some(true)),
                    endpoint("not an address", None, None),
                ],
            ),
            slice(v4, &[("rpc", "TCP", Some(8080))], vec![endpoint("10.0.0.5", None, None)]),
            slice(v4, &[("rpc", "TCP", None)], vec![endpoint("10.0.0.6", None, None)]),
            slice(v6, &ports, vec![endpoint("fd77::1", None, None)]),
            slice(AddressType::Other, &ports, vec![endpoint("10.0.0.7", None, None)]),
        ];
        let shown = |families: &[Family]| -> Vec<String> {
            ready_endpoints(&slices, "rpc", families).iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(&[Family::V4]), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.5:8080"]);
        assert_eq!(shown(&[Family::V6]), ["[fd77::1]:80"]);
    }

    #[test]
    fn managed_are_all_addresses_at_all_ports_ready_or_not() {
        let slices = [slice(
            AddressType::Ip(Family::V4),
            &[("rpc", "TCP", Some(80)), ("x", "UDP", Some(90))],
            vec![endpoint("10.0.0.3", Some(false), Some(true))],
        )];
        let ip: IpAddr = [10, 0, 0, 3].into();
        assert_eq!(managed_addresses(&slices), BTreeSet::from([(ip, 80), (ip, 90)]));
    }
}
