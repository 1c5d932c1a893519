//! A Node, reduced to the fields that trust, topology and exports read.
//!
//! Owns the kinds of addresses that an export may have, the name of the annotation that overrides a Node's address, and
//! the choice among the addresses of one Node. Refuses to know the API machinery: the cluster's door maps from the API
//! type.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Family, InstanceAddr};

/// On a Node: the addresses at which clients outside the cluster reach it, at most one of each family, separated by
/// commas. Only who may change Nodes can set it: the owner of a namespace could publish any address otherwise.
pub const EXPORT_ADDRESS_ANNOTATION: &str = "twinspan.dev/export-address";

/// Nodes by their names.
pub type Nodes = BTreeMap<String, Arc<NodeView>>;

/// The kinds of addresses in `status.addresses` of a Node that an export may choose (core/v1 `NodeAddressType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeAddressType {
    InternalIp,
    ExternalIp,
}

/// The addresses that an export gives to clients (`spec.export.address`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportAddress {
    /// Those of the endpoints.
    Pod,
    /// Ports of Nodes: the pod's hostPort, or else the Service's nodePort.
    Node(NodeChoice),
    /// The Service's load balancer.
    LoadBalancer,
}

/// The Nodes whose addresses are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeChoice {
    pub address_type: NodeAddressType,
    /// The most Nodes of a Service whose Nodes lead to every endpoint (`externalTrafficPolicy: Cluster`).
    pub most: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Every address that is an IP, of whatever type, in the order of the status.
    pub addresses: Vec<IpAddr>,
    pub internal: Vec<IpAddr>,
    pub external: Vec<IpAddr>,
    pub pod_cidrs: Vec<String>,
    pub zone: Option<String>,
    /// Whether load balancers never send it traffic: it is being deleted, or has the label
    /// `node.kubernetes.io/exclude-from-external-load-balancers`.
    pub left_out: bool,
    /// Whether it is ready and takes pods.
    pub available: bool,
    /// Whether it is known not to be ready: nobody looks after its pods.
    pub lost: bool,
    /// [`EXPORT_ADDRESS_ANNOTATION`], as written.
    pub export_address: Option<String>,
}

impl NodeView {
    /// The address of a family that an export gives to clients: the annotation's, and without one the first of the
    /// type.
    ///
    /// # Errors
    /// The part of the annotation that no client could call.
    pub fn export_address(&self, wanted: NodeAddressType, family: Family) -> Result<Option<IpAddr>, String> {
        let Some(text) = &self.export_address else {
            let all = match wanted {
                NodeAddressType::InternalIp => &self.internal,
                NodeAddressType::ExternalIp => &self.external,
            };
            return Ok(all.iter().copied().find(|ip| Family::of(*ip) == family));
        };
        let mut found = None;
        for part in text.split(',').map(str::trim) {
            let ip = part.parse::<IpAddr>().ok().filter(|ip| ip.to_string() == part && is_called(*ip));
            let ip = ip.ok_or_else(|| part.to_owned())?;
            if Family::of(ip) == family && found.replace(ip).is_some() {
                return Err(text.clone());
            }
        }
        Ok(found)
    }

    /// Every address that an export may have given to clients, by whatever setting.
    pub fn every_address(&self) -> impl Iterator<Item = IpAddr> {
        let overrides = self.export_address.iter().flat_map(|text| text.split(','));
        self.addresses.iter().copied().chain(overrides.filter_map(|part| part.trim().parse().ok()))
    }
}

/// Whether any port of the address can be called from another machine.
fn is_called(ip: IpAddr) -> bool {
    InstanceAddr::new(ip, 1).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_annotation_wins_and_one_odd_part_spoils_it() {
        let node = NodeView {
            internal: vec![ip("fd77::1"), ip("10.77.9.1"), ip("10.77.9.2")],
            external: vec![ip("192.0.2.1")],
            ..NodeView::default()
        };
        let address = |node: &NodeView, wanted, family| node.export_address(wanted, family);
        assert_eq!(address(&node, NodeAddressType::InternalIp, Family::V4), Ok(Some(ip("10.77.9.1"))));
        assert_eq!(address(&node, NodeAddressType::InternalIp, Family::V6), Ok(Some(ip("fd77::1"))));
        assert_eq!(address(&node, NodeAddressType::ExternalIp, Family::V6), Ok(None));
        let with = |text: &str| NodeView { export_address: Some(text.to_owned()), ..node.clone() };
        let internal = NodeAddressType::InternalIp;
        let two = with("198.51.100.7, 2001:db8::7");
        assert_eq!(address(&two, internal, Family::V4), Ok(Some(ip("198.51.100.7"))));
        assert_eq!(address(&two, internal, Family::V6), Ok(Some(ip("2001:db8::7"))));
        assert_eq!(address(&with("2001:db8::7"), internal, Family::V4), Ok(None), "its own is not meant");
        for odd in
            ["", "node.example.com", "127.0.0.1", "169.254.169.254", "0.0.0.0", "198.51.100.007", "::ffff:1.2.3.4"]
        {
            assert_eq!(address(&with(odd), internal, Family::V4), Err(odd.to_owned()), "{odd}");
        }
        let twice = "198.51.100.7,198.51.100.8";
        assert_eq!(address(&with(twice), internal, Family::V4), Err(twice.to_owned()));
    }
}
