//! Endpoints that others manage: the ones that may be exported, and the reason for each of the rest.
//!
//! Owns the rule about ready, terminating, ports, families and slices that the built-in controller left behind. Refuses
//! to know records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{AddressType, Family, InstanceAddr, Outcome, PortSet, Slice, SliceEndpoint, TCP, named_address};

/// The value of the managed-by label on slices of the built-in controller.
const BUILT_IN: &str = "endpointslice-controller.k8s.io";

/// The state of an endpoint that others manage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// The endpoint may be exported, at these chosen ports.
    Ready(PortSet),
    /// The same although it is not ready: nothing but its readiness gate, which waits for its record, keeps it from
    /// that.
    Gated(PortSet),
    /// The endpoint may not be exported; the outcome has the reason.
    Withheld(Outcome),
}

impl EndpointState {
    /// The chosen ports at which it may be exported.
    pub fn exported(&self) -> Option<PortSet> {
        match self {
            Self::Ready(ports) | Self::Gated(ports) => Some(*ports),
            Self::Withheld(_) => None,
        }
    }

    /// The order in which one counts where slices differ.
    fn rank(&self) -> u8 {
        match self {
            Self::Ready(_) => 2,
            Self::Gated(_) => 1,
            Self::Withheld(_) => 0,
        }
    }

    /// The state of an endpoint of which two slices tell.
    fn and(self, other: Self) -> Self {
        let (first, other) = if self.rank() >= other.rank() { (self, other) } else { (other, self) };
        let more = other.exported().unwrap_or_default();
        match first {
            Self::Ready(mut ports) => {
                ports.insert(more);
                Self::Ready(ports)
            }
            Self::Gated(mut ports) => {
                ports.insert(more);
                Self::Gated(ports)
            }
            Self::Withheld(_) => first,
        }
    }
}

/// The state of each endpoint at a TCP port of the slices. An endpoint is ready if any slice says so. `is_gated` says
/// of an endpoint that is not ready whether nothing but its readiness gate keeps it from that.
pub fn classify(
    slices: &[Arc<Slice>],
    ports: &[&str],
    families: &[Family],
    has_selector: bool,
    is_gated: impl Fn(&SliceEndpoint) -> bool,
) -> BTreeMap<InstanceAddr, EndpointState> {
    let mut states: Vec<(InstanceAddr, EndpointState)> = Vec::new();
    for slice in slices {
        let AddressType::Ip(family) = slice.address_type else { continue };
        let unmanaged = is_left_behind(slice, has_selector);
        for port in slice.ports.iter().filter(|port| port.protocol == TCP) {
            let Some(number) = port.number else { continue };
            let mut chosen = PortSet::default();
            for (index, _) in ports.iter().enumerate().filter(|(_, name)| **name == port.name) {
                chosen.insert(PortSet::of(index));
            }
            for endpoint in &slice.endpoints {
                let ip = endpoint.address.ip();
                let Some(addr) = ip.and_then(|ip| InstanceAddr::new(ip, number).ok()) else { continue };
                let gated = !endpoint.is_ready() && is_gated(endpoint);
                let withheld = if chosen.is_empty() {
                    Some(Outcome::OtherPort { port: port.name.clone() })
                } else {
                    withheld(endpoint, gated, families.contains(&family), unmanaged)
                };
                let exported = if gated { EndpointState::Gated(chosen) } else { EndpointState::Ready(chosen) };
                states.push((addr, withheld.map_or(exported, EndpointState::Withheld)));
            }
        }
    }
    // Sorted values become a map at once; one by one, each would be searched for.
    states.sort_by_key(|(addr, _)| *addr);
    states.dedup_by(|(addr, then), (first, known)| {
        let same = addr == first;
        if same {
            // The later of two reasons counts.
            let take = |state| std::mem::replace(state, EndpointState::Withheld(Outcome::NotReady));
            *known = take(then).and(take(known));
        }
        same
    });
    states.into_iter().collect()
}

/// When a Service loses its selector, the built-in controller leaves its slices behind, and no controller updates them.
pub fn is_left_behind(slice: &Slice, has_selector: bool) -> bool {
    !has_selector && slice.managed_by.as_deref() == Some(BUILT_IN)
}

/// Addresses of ready endpoints in the slices of other managers, at whatever port.
pub fn ready_addresses(slices: &[Arc<Slice>], has_selector: bool) -> BTreeSet<IpAddr> {
    ready_anywhere(slices, has_selector).into_iter().map(|addr| addr.ip()).collect()
}

/// The addresses of endpoints that are ready at any TCP port.
pub fn ready_anywhere(slices: &[Arc<Slice>], has_selector: bool) -> BTreeSet<InstanceAddr> {
    let names: BTreeSet<&str> = slices.iter().flat_map(|slice| &slice.ports).map(|port| port.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let states = classify(slices, &names, &[Family::V4, Family::V6], has_selector, |_| false);
    let ready = |(addr, state)| matches!(state, EndpointState::Ready(_)).then_some(addr);
    states.into_iter().filter_map(ready).collect()
}

/// The reason why an endpoint at a chosen port is not exported.
fn withheld(endpoint: &SliceEndpoint, gated: bool, exported_family: bool, unmanaged: bool) -> Option<Outcome> {
    if endpoint.is_terminating() {
        Some(Outcome::Terminating)
    } else if !endpoint.is_ready() && !gated {
        Some(Outcome::NotReady)
    } else if !exported_family {
        Some(Outcome::OtherFamily)
    } else {
        unmanaged.then_some(Outcome::Unmanaged)
    }
}

/// The addresses that are ready endpoints of any slice which others manage, whatever its Service. `is_gated` says of
/// an endpoint that is not ready whether its record stands all the same.
pub fn ready_in<'a>(
    slices: impl IntoIterator<Item = &'a Arc<Slice>>,
    wanted: &BTreeSet<InstanceAddr>,
    is_gated: impl Fn(&SliceEndpoint) -> bool,
) -> BTreeSet<InstanceAddr> {
    let mut ready = BTreeSet::new();
    for slice in slices.into_iter().filter(|slice| !slice.is_ours()) {
        let is_ready =
            |endpoint: &&SliceEndpoint| !endpoint.is_terminating() && (endpoint.is_ready() || is_gated(endpoint));
        for endpoint in slice.endpoints.iter().filter(is_ready) {
            let Some(ip) = endpoint.address.ip() else { continue };
            let ports = slice.ports.iter().filter(|port| port.protocol == TCP).filter_map(|port| port.number);
            let addresses = ports.filter_map(|number| InstanceAddr::new(ip, number).ok());
            ready.extend(addresses.filter(|addr| wanted.contains(addr)));
        }
    }
    ready
}

/// Every address in slices, ready or not, at any port, of the endpoints that are meant.
pub fn managed_addresses(slices: &[Arc<Slice>], meant: impl Fn(&SliceEndpoint) -> bool) -> BTreeSet<(IpAddr, u16)> {
    let mut managed = BTreeSet::new();
    for slice in slices {
        for number in slice.ports.iter().filter_map(|port| port.number) {
            // Slices of other managers may hold forms that we would not write, so they are read as leniently as a key.
            let endpoints = slice.endpoints.iter().filter(|endpoint| meant(endpoint));
            let named = endpoints.filter_map(|e| match e.address.ip() {
                Some(ip) => Some((ip.to_canonical(), number)),
                None => named_address(&format!("{}:{number}", e.address)),
            });
            managed.extend(named);
        }
    }
    managed
}

/// The addresses at TCP ports of slices, ready or not, without mirrored ones.
pub fn addresses(slices: &[Arc<Slice>]) -> impl Iterator<Item = InstanceAddr> {
    slices.iter().flat_map(|slice| {
        let ports = slice.ports.iter().filter(|port| port.protocol == TCP).filter_map(|port| port.number);
        let endpoints = || slice.endpoints.iter().filter(|endpoint| !endpoint.mirrored);
        let ips = move || endpoints().filter_map(|endpoint| endpoint.address.ip());
        ports.flat_map(move |port| ips().filter_map(move |ip| InstanceAddr::new(ip, port).ok()))
    })
}

#[cfg(test)]
mod tests {
    use crate::model::SlicePort;

    use std::slice;

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
            keeper: None,
            others_labels: BTreeSet::new(),
            deleting: false,
            address_type,
            ports: ports.collect(),
            endpoints,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        })
    }

    fn ready(states: &BTreeMap<InstanceAddr, EndpointState>) -> Vec<String> {
        let ready = states.iter().filter(|(_, state)| matches!(state, EndpointState::Ready(_)));
        ready.map(|(addr, _)| addr.to_string()).collect()
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
        let shown =
            |families: &[Family]| -> Vec<String> { ready(&classify(&slices, &["rpc"], families, true, |_| false)) };
        assert_eq!(shown(&[Family::V4]), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.5:8080"]);
        assert_eq!(shown(&[Family::V6]), ["[fd77::1]:80"]);
        let all = classify(&slices, &["rpc"], &[Family::V4], true, |_| false);
        for (address, outcome) in [
            ("10.0.0.3:80", Outcome::NotReady),
            ("10.0.0.4:80", Outcome::Terminating),
            ("10.0.0.1:90", Outcome::OtherPort { port: "metrics".into() }),
            ("[fd77::1]:80", Outcome::OtherFamily),
        ] {
            let state = all.get(&InstanceAddr::parse(address).unwrap());
            assert_eq!(state, Some(&EndpointState::Withheld(outcome)), "{address}");
        }
        let left = classify(&slices, &["rpc"], &[Family::V4], false, |_| false);
        assert_eq!(ready(&left), Vec::<String>::new(), "no controller updates a slice that was left behind");
        let first = InstanceAddr::parse("10.0.0.1:80").unwrap();
        assert_eq!(left.get(&first), Some(&EndpointState::Withheld(Outcome::Unmanaged)));
    }

    #[test]
    fn a_gated_endpoint_is_exported_and_ready_wins_over_it() {
        let named = |ready| endpoint("10.0.0.1", Some(ready), Some(false));
        let of = |name: &str, endpoints| slice(AddressType::Ip(Family::V4), &[(name, "TCP", Some(80))], endpoints);
        let state = |slices: &[Arc<Slice>], ports: &[&str], gated: bool| {
            let states = classify(slices, ports, &[Family::V4], true, |_| gated);
            states.get(&InstanceAddr::parse("10.0.0.1:80").unwrap()).cloned().unwrap()
        };
        let mut both = PortSet::of(0);
        both.insert(PortSet::of(1));
        let waits = of("rpc", vec![named(false)]);
        assert_eq!(state(slice::from_ref(&waits), &["rpc"], false), EndpointState::Withheld(Outcome::NotReady));
        assert_eq!(state(slice::from_ref(&waits), &["rpc"], true), EndpointState::Gated(PortSet::of(0)));
        let second = of("http", vec![named(false)]);
        assert_eq!(state(&[waits.clone(), second], &["rpc", "http"], true), EndpointState::Gated(both));
        for slices in [[waits.clone(), of("rpc", vec![named(true)])], [of("rpc", vec![named(true)]), waits.clone()]] {
            assert_eq!(state(&slices, &["rpc"], true), EndpointState::Ready(PortSet::of(0)));
        }
        let ends = of("rpc", vec![endpoint("10.0.0.1", Some(false), Some(true))]);
        assert_eq!(state(slice::from_ref(&ends), &["rpc"], true), EndpointState::Withheld(Outcome::Terminating));
        let wanted = BTreeSet::from([InstanceAddr::parse("10.0.0.1:80").unwrap()]);
        assert_eq!(ready_in([&waits], &wanted, |_| false), BTreeSet::new());
        assert_eq!(ready_in([&waits], &wanted, |_| true), wanted);
        assert_eq!(ready_in([&ends], &wanted, |_| true), BTreeSet::new());
    }

    #[test]
    fn managed_are_all_addresses_at_all_ports_ready_or_not() {
        let slices = [slice(
            AddressType::Ip(Family::V4),
            &[("rpc", "TCP", Some(80)), ("x", "UDP", Some(90))],
            vec![endpoint("10.0.0.3", Some(false), Some(true))],
        )];
        let ip: IpAddr = [10, 0, 0, 3].into();
        assert_eq!(managed_addresses(&slices, |_| true), BTreeSet::from([(ip, 80), (ip, 90)]));
    }
}
