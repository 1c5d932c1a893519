//! The address of each part. All are in 10.78.0.0/16, except those of Services, whose range belongs to the control
//! plane.
//!
//! The API server, the registry and the servers on virtual machines are outside of the node's network, beyond its
//! bridge and its kube-proxy.

use std::net::Ipv4Addr;

/// The network between the node and what is outside.
pub(crate) const WIRE: u8 = 24;
/// The API server; to the node, the way out.
pub(crate) const API_SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
pub(crate) const CLUSTER_ETCD: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// The registry.
pub(crate) const REGISTRY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 3);
/// The registry of images.
pub(crate) const IMAGES: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 4);
/// The node, to whoever calls it from outside.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 100);

pub(crate) const MACHINES: &str = "10.78.1.0/24";
pub(crate) const PODS: &str = "10.78.128.0/24";
/// A machine that has no route to pods, and its way out.
pub(crate) const UNROUTED: Ipv4Addr = Ipv4Addr::new(10, 78, 2, 2);
pub(crate) const UNROUTED_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 78, 2, 1);
/// `clusterIP` of the Service in `manifests/coredns.yaml`.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// `rollouts.drain.clusterIP` of the chart.
pub const DRAIN: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 83);

/// A virtual machine outside of the cluster.
pub(crate) fn machine(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 1, number)
}
