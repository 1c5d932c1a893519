//! Trust: the addresses that the registry may put into a Service.
//!
//! A program that can write the registry could otherwise put addresses into EndpointSlices that RBAC does not let it
//! write (CVE-2021-25740: endpoints of other namespaces behind one's own Service).
//!
//! Owns the rules beyond those for every endpoint (`model::address`). Refuses to know where networks and pods come
//! from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{CidrSet, Reason};

/// The addresses that the cluster itself uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The ServiceCIDR objects: a Service must not stand behind a Service.
    pub service_cidrs: CidrSet,
    /// Endpoints of the Service `kubernetes` in `default`.
    pub api_servers: BTreeSet<IpAddr>,
    /// `spec.podCIDRs` of every Node.
    pub pod_cidrs: CidrSet,
    /// Addresses of every Node.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Networks of Nodes that this process may not list: no policy allows an address in them.
    pub node_cidrs: CidrSet,
}

/// `spec.importPolicy` of a ServiceRegistry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub allow: CidrSet,
    pub deny: CidrSet,
    /// Pod networks that `spec.podCIDRs` of the Nodes do not name.
    pub pod_cidrs: CidrSet,
}

/// The pod that has an address. Pods on the host's network do not count: their address is the node's. Pods that have
/// ended do not count: their address may belong to another pod by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodOf {
    SameNamespace,
    OtherNamespace,
}

/// Everything that the decision about an address rests on.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    pub cluster: &'a Cluster,
    pub policy: &'a Policy,
    /// The pods among the addresses in question.
    pub pods: &'a BTreeMap<IpAddr, PodOf>,
    /// The ClusterIPs of any Service among them, and the external addresses of the Service itself.
    pub services: &'a BTreeSet<IpAddr>,
}

impl Trust<'_> {
    /// The reason why an address must not become an endpoint; `None` if it may.
    pub fn refusal(&self, ip: IpAddr) -> Option<Reason> {
        let pod = self.pods.get(&ip).copied();
        if self.cluster.api_servers.contains(&ip) {
            Some(Reason::APIServerAddress)
        } else if self.cluster.service_cidrs.contains(ip) || self.services.contains(&ip) {
            Some(Reason::ServiceAddress)
        } else if self.cluster.node_cidrs.contains(ip) {
            Some(Reason::NodeAddress)
        } else if self.policy.deny.contains(ip) {
            Some(Reason::DeniedCIDR)
        } else if pod == Some(PodOf::OtherNamespace) {
            Some(Reason::OtherNamespacesPod)
        } else if pod == Some(PodOf::SameNamespace) {
            None
        } else if self.cluster.pod_cidrs.contains(ip) || self.policy.pod_cidrs.contains(ip) {
            Some(Reason::NoSuchPod)
        } else if self.policy.allow.contains(ip) {
            None
        } else if self.cluster.node_addresses.contains(&ip) {
            Some(Reason::NodeAddress)
        } else if !self.policy.allow.is_empty() {
            Some(Reason::NotInAllowCIDRs)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_reason_and_its_place_in_the_order() {
        let set = |nets: &[&str]| nets.iter().copied().collect::<CidrSet>();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let cluster = Cluster {
            service_cidrs: set(&["10.96.0.0/16", "fd96::/108"]),
            api_servers: [ip("192.0.2.1")].into(),
            pod_cidrs: set(&["10.244.0.0/16"]),
            node_addresses: [ip("192.0.2.10"), ip("192.0.2.11")].into(),
            node_cidrs: set(&["192.0.2.128/25"]),
        };
        let pods = BTreeMap::from([
            (ip("10.244.0.5"), PodOf::SameNamespace),
            (ip("10.244.0.6"), PodOf::OtherNamespace),
            // A pod of another namespace with an address outside every range, as cloud networks assign them.
            (ip("198.51.100.7"), PodOf::OtherNamespace),
            (ip("198.51.100.8"), PodOf::SameNamespace),
            (ip("203.0.113.9"), PodOf::SameNamespace),
            (ip("192.0.2.140"), PodOf::SameNamespace),
        ]);
        let services = BTreeSet::from([ip("198.51.100.99")]);
        let open = Policy::default();
        let strict = Policy {
            allow: set(&[
                "198.51.100.0/24",
                "192.0.2.11/32",
                "192.0.2.130/32",
                "10.96.0.0/16",
                "192.0.2.1/32",
                "10.244.0.0/16",
            ]),
            deny: set(&["203.0.113.0/24", "198.51.100.200/32"]),
            pod_cidrs: set(&["10.99.0.0/16"]),
        };
        for (address, without_policy, with_policy) in [
            ("198.51.100.50", None, None),
            ("172.20.0.1", None, Some(Reason::NotInAllowCIDRs)),
            // These are never allowed.
            ("192.0.2.1", Some(Reason::APIServerAddress), Some(Reason::APIServerAddress)),
            ("10.96.0.1", Some(Reason::ServiceAddress), Some(Reason::ServiceAddress)),
            ("fd96::1", Some(Reason::ServiceAddress), Some(Reason::ServiceAddress)),
            ("198.51.100.99", Some(Reason::ServiceAddress), Some(Reason::ServiceAddress)),
            // A pod of the same namespace is allowed, one of another never; an address in a pod range without a pod is
            // suspect.
            ("10.244.0.5", None, None),
            ("10.244.0.6", Some(Reason::OtherNamespacesPod), Some(Reason::OtherNamespacesPod)),
            ("198.51.100.7", Some(Reason::OtherNamespacesPod), Some(Reason::OtherNamespacesPod)),
            ("198.51.100.8", None, None),
            ("10.244.9.9", Some(Reason::NoSuchPod), Some(Reason::NoSuchPod)),
            ("10.99.0.1", None, Some(Reason::NoSuchPod)),
            // Addresses of Nodes need an explicit permission.
            ("192.0.2.10", Some(Reason::NodeAddress), Some(Reason::NodeAddress)),
            ("192.0.2.11", Some(Reason::NodeAddress), None),
            // Where Nodes cannot be listed, nothing allows an address of their networks.
            ("192.0.2.130", Some(Reason::NodeAddress), Some(Reason::NodeAddress)),
            ("192.0.2.140", Some(Reason::NodeAddress), Some(Reason::NodeAddress)),
            // A denied network wins over an allowed one and over the pod rule.
            ("198.51.100.200", None, Some(Reason::DeniedCIDR)),
            ("203.0.113.9", None, Some(Reason::DeniedCIDR)),
        ] {
            let judge =
                |policy| Trust { cluster: &cluster, policy, pods: &pods, services: &services }.refusal(ip(address));
            assert_eq!(judge(&open), without_policy, "{address} without a policy");
            assert_eq!(judge(&strict), with_policy, "{address} with a policy");
        }
    }
}
