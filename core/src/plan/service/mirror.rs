//! Mirrored endpoints: those of the Service that stand in the Service of the imports too, for clients that keep one
//! slice of a Service.
//!
//! Owns which endpoints these are. They are no imports: they follow the slices of the Service at once, with the
//! conditions there, and guard, holds and probes never apply to them. Refuses to know records.

use std::collections::BTreeMap;

use super::Facts;
use super::endpoints::is_left_behind;
use crate::model::{AddressType, Conditions, InstanceAddr, PortSet, TCP};
use crate::plan::slices::{EndpointInfo, Port};

/// The endpoints of other managers in the slices of the Service, at the TCP ports that are named, and of the first
/// family that the Service of the imports has: a second one would need another slice.
pub fn mirrored(facts: &Facts, ports: &[Port]) -> BTreeMap<InstanceAddr, EndpointInfo> {
    let mut mirrored: BTreeMap<InstanceAddr, EndpointInfo> = BTreeMap::new();
    let cluster = &facts.cluster;
    let Some(service) = cluster.service.as_ref().filter(|_| facts.mirrors()) else { return mirrored };
    let only = cluster.import_service.as_ref().and_then(|service| service.families.first());
    for slice in cluster.others_slices.iter().filter(|slice| !is_left_behind(slice, service.selector)) {
        let AddressType::Ip(family) = slice.address_type else { continue };
        if only.is_some_and(|only| *only != family) {
            continue;
        }
        for port in slice.ports.iter().filter(|port| port.protocol == TCP) {
            let (Some(number), Some(index)) = (port.number, ports.iter().position(|known| known.name == port.name))
            else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let ip = endpoint.address.ip();
                let Some(addr) = ip.and_then(|ip| InstanceAddr::new(ip, number).ok()) else { continue };
                let mut found = EndpointInfo {
                    ports: PortSet::of(index),
                    lost_until: None,
                    zone: endpoint.zone.clone(),
                    node: endpoint.node.clone(),
                    pod: endpoint.pod.clone(),
                    mirrored: Some(endpoint.conditions()),
                };
                // While an endpoint moves between slices, both have it.
                let known = mirrored.entry(addr).or_insert_with(|| found.clone());
                found.ports.insert(known.ports);
                if rank(&found) < rank(known) {
                    known.ports = found.ports;
                } else {
                    *known = found;
                }
            }
        }
    }
    mirrored
}

/// The order in which clients would rather have an endpoint.
fn rank(info: &EndpointInfo) -> Option<(bool, bool, bool)> {
    let Conditions { ready, serving, terminating } = info.mirrored?;
    Some((ready != Some(false), serving != Some(false), terminating != Some(true)))
}
