//! The networks of the cluster: Nodes, Service ranges, those that settings name, and the API server's own addresses.
//!
//! Owns the addresses that the cluster itself uses, which trust judges by. Each network is parsed once and counted, and
//! changes in place, so that a Node costs its own networks and not those of every Node. Refuses to judge an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::model::{Cidr, NodeView, Nodes};
use twinspan_core::plan::trust;

use super::reach::Limits;

/// First and last address of a network.
pub type Range = (IpAddr, IpAddr);

/// Networks of the cluster that its API server does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedNetworks {
    /// The ranges of ClusterIPs.
    pub services: Vec<Cidr>,
}

#[derive(Debug, Default)]
pub struct Networks {
    nodes: Arc<Nodes>,
    /// The number of Nodes that a list did not name any more.
    vanished_nodes: u64,
    service_cidrs: BTreeMap<String, Vec<String>>,
    node_addresses: Counts<IpAddr>,
    pod_networks: Counts<Cidr>,
    service_networks: Counts<Cidr>,
    trust: Arc<trust::Cluster>,
    /// The number of networks and addresses that were parsed and counted.
    #[cfg(test)]
    work: usize,
}

/// How many objects name each value.
#[derive(Debug)]
struct Counts<T>(BTreeMap<T, usize>);

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Clone> Counts<T> {
    /// Returns whether nothing named it before.
    fn add(&mut self, value: &T) -> bool {
        let count = self.0.entry(value.clone()).or_default();
        *count += 1;
        *count == 1
    }

    /// Returns whether nothing names it any more.
    fn remove(&mut self, value: &T) -> bool {
        let Some(count) = self.0.get_mut(value) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.0.remove(value);
        }
        last
    }
}

impl Networks {
    /// The addresses that the cluster itself uses.
    pub fn trust(&self) -> Arc<trust::Cluster> {
        self.trust.clone()
    }

    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&Arc<NodeView>> {
        self.nodes.get(name)
    }

    /// A list does not name a Node any more: nobody saw how it went.
    pub fn node_vanished(&mut self) {
        self.vanished_nodes += 1;
    }

    pub fn vanished_nodes(&self) -> u64 {
        self.vanished_nodes
    }

    pub fn node_names(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    pub fn service_cidr_names(&self) -> impl Iterator<Item = &String> {
        self.service_cidrs.keys()
    }

    /// Sets the networks that an administrator names where Nodes and ServiceCIDRs cannot be listed. Where none is named
    /// of a family, any of its addresses may be that of a pod.
    pub fn set_limits(&mut self, limits: &Limits) {
        let trust = Arc::make_mut(&mut self.trust);
        let has = |v4: bool| limits.pod_cidrs.iter().any(|net| net.range().0.is_ipv4() == v4);
        let families = [(true, "0.0.0.0/0"), (false, "::/0")].into_iter().filter(|(v4, _)| !has(*v4));
        families.filter_map(|(_, all)| Cidr::parse(all)).for_each(|net| trust.pod_cidrs.add(net));
        limits.pod_cidrs.iter().for_each(|net| trust.pod_cidrs.add(*net));
        limits.node_cidrs.iter().for_each(|net| trust.node_cidrs.add(*net));
    }

    /// `None` removes the Node. Returns the affected ranges: none where only its readiness changed.
    pub fn set_node(&mut self, name: &str, node: Option<NodeView>) -> Vec<Range> {
        if self.nodes.get(name).map(AsRef::as_ref) == node.as_ref() {
            return Vec::new();
        }
        let after = node.map(Arc::new);
        let before = match &after {
            Some(node) => Arc::make_mut(&mut self.nodes).insert(name.to_owned(), node.clone()),
            None => Arc::make_mut(&mut self.nodes).remove(name),
        };
        if before.as_deref().zip(after.as_deref()).is_some_and(|(before, after)| has_same_networks(before, after)) {
            return Vec::new();
        }
        let mut affected = Vec::new();
        // A network that both have is added before it is removed, and so never missing.
        for node in after.iter() {
            for ip in &node.addresses {
                if self.node_addresses.add(ip) {
                    Arc::make_mut(&mut self.trust).node_addresses.insert(*ip);
                }
                affected.push((*ip, *ip));
            }
            for net in networks(&node.pod_cidrs) {
                if self.pod_networks.add(&net) {
                    Arc::make_mut(&mut self.trust).pod_cidrs.add(net);
                }
                affected.push(net.range());
            }
        }
        for node in before.iter() {
            for ip in &node.addresses {
                if self.node_addresses.remove(ip) {
                    Arc::make_mut(&mut self.trust).node_addresses.remove(ip);
                }
                affected.push((*ip, *ip));
            }
            for net in networks(&node.pod_cidrs) {
                if self.pod_networks.remove(&net) {
                    Arc::make_mut(&mut self.trust).pod_cidrs.remove(net);
                }
                affected.push(net.range());
            }
        }
        #[cfg(test)]
        {
            self.work += affected.len();
        }
        affected
    }

    /// `None` removes the ServiceCIDR. Returns the affected ranges.
    pub fn set_service_cidr(&mut self, name: &str, cidrs: Option<Vec<String>>) -> Vec<Range> {
        if self.service_cidrs.get(name) == cidrs.as_ref() {
            return Vec::new();
        }
        let after = cidrs.clone().unwrap_or_default();
        let before = match cidrs {
            Some(cidrs) => self.service_cidrs.insert(name.to_owned(), cidrs),
            None => self.service_cidrs.remove(name),
        };
        let mut affected = Vec::new();
        for net in networks(&after) {
            if self.service_networks.add(&net) {
                Arc::make_mut(&mut self.trust).service_cidrs.add(net);
            }
            affected.push(net.range());
        }
        for net in networks(&before.unwrap_or_default()) {
            if self.service_networks.remove(&net) {
                Arc::make_mut(&mut self.trust).service_cidrs.remove(net);
            }
            affected.push(net.range());
        }
        #[cfg(test)]
        {
            self.work += affected.len();
        }
        affected
    }

    /// Adds networks that the settings name, before anything is listed. They stay beside those of objects.
    pub fn name(&mut self, named: &NamedNetworks) {
        for net in &named.services {
            if self.service_networks.add(net) {
                Arc::make_mut(&mut self.trust).service_cidrs.add(*net);
            }
        }
    }

    /// The addresses of the API server. Returns the affected ranges.
    pub fn set_api_servers(&mut self, addresses: BTreeSet<IpAddr>) -> Vec<Range> {
        let affected = self.trust.api_servers.symmetric_difference(&addresses).map(|ip| (*ip, *ip)).collect();
        if self.trust.api_servers != addresses {
            Arc::make_mut(&mut self.trust).api_servers = addresses;
        }
        affected
    }
}

fn has_same_networks(a: &NodeView, b: &NodeView) -> bool {
    (&a.addresses, &a.pod_cidrs, &a.zone) == (&b.addresses, &b.pod_cidrs, &b.zone)
}

fn networks(texts: &[String]) -> impl Iterator<Item = Cidr> {
    texts.iter().filter_map(|text| Cidr::parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32, pods: &str) -> NodeView {
        let addresses = vec![IpAddr::from(number.to_be_bytes())];
        NodeView { addresses, pod_cidrs: vec![pods.to_owned()], ..NodeView::default() }
    }

    #[test]
    fn a_node_costs_its_own_networks() {
        let mut networks = Networks::default();
        for number in 0..5_000_u32 {
            let pods = format!("10.{}.{}.0/24", number / 256, number % 256);
            networks.set_node(&number.to_string(), Some(node(number, &pods)));
        }
        assert_eq!(networks.work, 10_000, "two for each Node");
        let trust = networks.trust();
        assert_eq!((trust.node_addresses.len(), trust.pod_cidrs.ranges().count()), (5_000, 5_000));
    }

    #[test]
    fn networks_that_an_administrator_names_count_and_a_family_without_any_is_all_pods() {
        let mut networks = Networks::default();
        networks.set_limits(&Limits {
            pod_cidrs: vec![Cidr::parse("10.244.0.0/16").unwrap()],
            node_cidrs: vec![Cidr::parse("192.0.2.0/24").unwrap()],
            ..Limits::default()
        });
        let (trust, ip) = (networks.trust(), |text: &str| text.parse::<IpAddr>().unwrap());
        assert!(trust.pod_cidrs.contains(ip("10.244.7.7")) && !trust.pod_cidrs.contains(ip("198.51.100.1")));
        assert!(trust.node_cidrs.contains(ip("192.0.2.9")));
        assert!(trust.pod_cidrs.contains(ip("2001:db8::1")), "nobody said which IPv6 addresses pods have");
    }

    #[test]
    fn a_network_that_two_nodes_name_stays_until_neither_does() {
        let (mut networks, ip) = (Networks::default(), IpAddr::from([10, 0, 0, 7]));
        networks.set_node("a", Some(node(1, "10.0.0.0/24")));
        networks.set_node("b", Some(node(1, "10.0.0.9/24")));
        networks.set_node("a", None);
        let trust = networks.trust();
        assert!(trust.pod_cidrs.contains(ip) && trust.node_addresses.len() == 1);
        networks.set_node("b", Some(node(2, "10.0.1.0/24")));
        assert!(!networks.trust().pod_cidrs.contains(ip));
        assert!(trust.pod_cidrs.contains(ip), "a pass under way keeps what it read");
        networks.set_node("b", None);
        assert!(networks.trust().pod_cidrs.is_empty() && networks.trust().node_addresses.is_empty());
    }

    #[test]
    fn a_service_range_of_the_settings_outlives_its_object() {
        let (mut networks, inside) = (Networks::default(), IpAddr::from([10, 96, 7, 7]));
        networks.name(&NamedNetworks { services: super::networks(&["10.96.0.0/16".to_owned()]).collect() });
        assert!(networks.trust().service_cidrs.contains(inside));
        networks.set_service_cidr("kubernetes", Some(vec!["10.96.0.0/16".to_owned()]));
        networks.set_service_cidr("kubernetes", None);
        assert!(networks.trust().service_cidrs.contains(inside));
    }
}
