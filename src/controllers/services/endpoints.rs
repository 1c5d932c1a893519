//! What the slices of others say: which endpoints are ready, and which addresses they manage.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::model::{AddressType, Family, InstanceAddr, Slice, TCP, named_address};

/// The value of the managed-by label on slices of the built-in controller.
const BUILT_IN: &str = "endpointslice-controller.k8s.io";

/// Ready endpoints of slices that others manage, at a port of the Service.
pub fn ready_endpoints(
    slices: &[Arc<Slice>],
    port_name: &str,
    families: &[Family],
    has_selector: bool,
) -> BTreeSet<InstanceAddr> {
    let mut ready = BTreeSet::new();
    // Once a Service has no selector any more the built-in controller leaves its slices behind as they were: nobody looks
    // after what they say.
    let leftover = |slice: &Slice| !has_selector && slice.managed_by.as_deref() == Some(BUILT_IN);
    for slice in slices.iter().filter(|slice| !leftover(slice)) {
        let AddressType::Ip(family) = slice.address_type else { continue };
        if !families.contains(&family) {
            continue;
        }
        let numbers = slice.ports.iter().filter(|p| p.name == port_name && p.protocol == TCP).filter_map(|p| p.number);
        for number in numbers {
            let endpoints = slice.endpoints.iter().filter(|e| e.is_ready() && !e.is_terminating());
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
        SliceEndpoint {
            address: address.into(),
            ready,
            serving: None,
            terminating,
            ..SliceEndpoint::ready([10, 0, 0, 1].into())
        }
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
            ready_endpoints(&slices, "rpc", families, true).iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(&[Family::V4]), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.5:8080"]);
        assert_eq!(shown(&[Family::V6]), ["[fd77::1]:80"]);
        let left = ready_endpoints(&slices, "rpc", &[Family::V4], false);
        assert!(left.is_empty(), "what the built-in controller left behind is nobody's word: {left:?}");
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
