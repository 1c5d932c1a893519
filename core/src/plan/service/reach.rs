//! Reach: the addresses at which clients outside the cluster call the endpoints of a Service.
//!
//! Owns the way from ready endpoints to the addresses that are exported: an endpoint's own, a port of Nodes, or a load
//! balancer's. Refuses to read an address of a Node or a balancer from anything that the owner of a namespace may
//! write: whoever has a name in the registry could publish any address under it otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::endpoints::ready_anywhere;
use super::facts::NamedPods;
use super::{Accepted, Facts, RegistryFacts};
use crate::model::{
    ExportAddress, Family, InstanceAddr, Kind, NodeChoice, Outcome, PortSet, Reason, Record, ServiceView,
};
use crate::plan::export::{Writer, Writers};

/// The exported addresses of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The addresses, with the chosen ports that they lead to.
    pub ports: BTreeMap<InstanceAddr, PortSet>,
    /// The endpoints behind each; `None` where each address is its own endpoint.
    pub behind: Option<BTreeMap<InstanceAddr, Behind>>,
    /// Ready endpoints that no address stands for, and the reason.
    pub without: BTreeMap<InstanceAddr, Outcome>,
    /// An annotation of a Node that cannot be used.
    pub note: Option<String>,
}

/// The endpoints that one address leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    pub endpoints: BTreeSet<InstanceAddr>,
    /// The number of addresses that share their traffic.
    pub shared_by: usize,
}

impl Reach {
    /// The addresses of the endpoints behind each address, where it is another.
    pub fn ips_behind(&self) -> BTreeMap<InstanceAddr, BTreeSet<IpAddr>> {
        let ips = |behind: &Behind| behind.endpoints.iter().map(|addr| addr.ip()).collect();
        self.behind.iter().flatten().map(|(addr, behind)| (*addr, ips(behind))).collect()
    }

    /// Whether there are ready endpoints, and clients could call none of them.
    pub fn is_without_any(&self) -> bool {
        let lacks = |outcome: &Outcome| *outcome == Outcome::Skipped(Reason::NoAddress);
        self.ports.is_empty() && self.without.values().any(lacks)
    }

    /// Addresses at which records from before may lead to an endpoint that no address stands for now: the endpoints
    /// that were behind each tell it, or else it may be any.
    pub fn earlier_addresses(
        &self,
        facts: &Facts,
        behind: &BTreeMap<InstanceAddr, BTreeSet<IpAddr>>,
    ) -> BTreeSet<IpAddr> {
        let unreached: BTreeSet<IpAddr> = self.without.keys().map(|addr| addr.ip()).collect();
        let mut others: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for (addr, ips) in behind {
            *others.entry(addr.ip()).or_insert(true) &= ips.is_disjoint(&unreached);
        }
        let mut earlier = outer_addresses(facts);
        earlier.retain(|ip| others.get(ip) != Some(&true));
        earlier.extend(unreached);
        earlier
    }

    fn enter(&mut self, address: InstanceAddr, ports: PortSet, endpoint: InstanceAddr, shared_by: usize) {
        self.ports.entry(address).or_default().insert(ports);
        let behind = self.behind.get_or_insert_default().entry(address).or_default();
        behind.endpoints.insert(endpoint);
        behind.shared_by = shared_by;
    }
}

impl Accepted {
    /// The exported addresses of the ready endpoints that did not register themselves in the registry.
    pub fn reach(&self, facts: &Facts, registry: Option<&RegistryFacts>) -> Reach {
        self.reach_of(facts, registry, self.exported(facts))
    }

    /// The same, if the ready endpoints are known already.
    pub fn reach_of(
        &self,
        facts: &Facts,
        registry: Option<&RegistryFacts>,
        ready: BTreeMap<InstanceAddr, PortSet>,
    ) -> Reach {
        let Some(service) = facts.cluster.service.as_deref().filter(|_| self.address != ExportAddress::Pod) else {
            return Reach { ports: ready, ..Reach::default() };
        };
        let mut reach = Reach { behind: Some(BTreeMap::new()), ..Reach::default() };
        let (registered, named) = (Registered::of(registry), facts.named_pods());
        let mut nodes = ChosenNodes::default();
        for (endpoint, ports) in ready {
            if let Some(outcome) = by_itself(facts, endpoint, &named, &registered) {
                reach.without.insert(endpoint, outcome);
                continue;
            }
            let leads = match self.address {
                ExportAddress::LoadBalancer => self.by_balancer(facts, service, endpoint, ports, &mut reach),
                ExportAddress::Node(choice) => {
                    let found = by_host_port(facts, choice, endpoint, &named, &mut reach.note);
                    match found {
                        Some(address) => {
                            reach.enter(address, ports, endpoint, 1);
                            true
                        }
                        None => {
                            let at = nodes.of(facts, service, choice, endpoint, &named, &mut reach.note);
                            self.by_node_port(&at, endpoint, ports, &mut reach)
                        }
                    }
                }
                ExportAddress::Pod => false,
            };
            if !leads {
                reach.without.insert(endpoint, Outcome::Skipped(Reason::NoAddress));
            }
        }
        reach
    }

    /// Enters the Service's port of the Nodes. Returns whether it has any.
    fn by_node_port(&self, nodes: &[IpAddr], endpoint: InstanceAddr, ports: PortSet, reach: &mut Reach) -> bool {
        let mut leads = false;
        for index in ports.indexes() {
            let Some(port) = self.ports.get(index).and_then(|accepted| accepted.port.node_port) else { continue };
            for address in nodes.iter().filter_map(|ip| InstanceAddr::new(*ip, port).ok()) {
                reach.enter(address, PortSet::of(index), endpoint, nodes.len());
                leads = true;
            }
        }
        leads
    }

    /// Enters the addresses of the load balancer. Returns whether it has any.
    fn by_balancer(
        &self,
        facts: &Facts,
        service: &ServiceView,
        endpoint: InstanceAddr,
        ports: PortSet,
        reach: &mut Reach,
    ) -> bool {
        let family = Family::of(endpoint.ip());
        let usable = |ip: &&IpAddr| Family::of(**ip) == family && !is_refused(facts, **ip);
        let balancers: Vec<IpAddr> = service.balancer_ips.iter().filter(usable).copied().collect();
        let mut leads = false;
        for index in ports.indexes() {
            let number = self.ports.get(index).and_then(|accepted| u16::try_from(accepted.port.number).ok());
            let Some(number) = number else { continue };
            for address in balancers.iter().filter_map(|ip| InstanceAddr::new(*ip, number).ok()) {
                reach.enter(address, PortSet::of(index), endpoint, balancers.len());
                leads = true;
            }
        }
        leads
    }
}

/// The Nodes that lead to every endpoint, by family: chosen once for a pass.
#[derive(Default)]
struct ChosenNodes {
    of_all: BTreeMap<Family, Vec<IpAddr>>,
}

impl ChosenNodes {
    /// The addresses of the Nodes whose nodePort leads to an endpoint.
    fn of(
        &mut self,
        facts: &Facts,
        service: &ServiceView,
        choice: NodeChoice,
        endpoint: InstanceAddr,
        named: &NamedPods<'_>,
        note: &mut Option<String>,
    ) -> Vec<IpAddr> {
        let family = Family::of(endpoint.ip());
        if service.local_traffic {
            let node = node_of(facts, endpoint, named);
            return node.and_then(|name| address(facts, name, choice, family, note)).into_iter().collect();
        }
        let all = self.of_all.entry(family).or_insert_with(|| {
            let nodes = || facts.cluster.nodes.iter().filter(|(_, node)| !node.left_out);
            // Where no Node is available, the control plane may be cut off from all of them.
            let none = !nodes().any(|(_, node)| node.available);
            let chosen = nodes().filter(|(_, node)| node.available || none);
            let mut ranked: Vec<_> = chosen.map(|(name, _)| (rank(facts, service, name), name)).collect();
            // The loss of one Node moves one record, and a new one takes the place of one (rendezvous hashing).
            ranked.sort_unstable();
            let called = ranked.iter().filter_map(|(_, name)| address(facts, name, choice, family, note));
            called.take(choice.most).collect()
        });
        all.clone()
    }
}

/// The place of a Node in the order of a Service. RegisteredServices of one Service choose the same Nodes.
fn rank(facts: &Facts, service: &ServiceView, node: &str) -> [u8; 32] {
    Sha256::digest(format!("{}/{}\0{node}", facts.key.namespace, service.name)).into()
}

/// The Node's own address with the port that leads to the endpoint's pod alone.
fn by_host_port(
    facts: &Facts,
    choice: NodeChoice,
    endpoint: InstanceAddr,
    named: &NamedPods<'_>,
    note: &mut Option<String>,
) -> Option<InstanceAddr> {
    let pod = facts.pod_of(endpoint, named)?;
    if !pod.host_network && pod.host_ports.is_none() {
        return None;
    }
    let ip = address(facts, pod.node.as_deref()?, choice, Family::of(endpoint.ip()), note)?;
    InstanceAddr::new(ip, pod.port_of_node(endpoint.port(), ip)?).ok()
}

/// The Node of an endpoint: its pod's, or else the one that its slice names.
fn node_of<'a>(facts: &'a Facts, endpoint: InstanceAddr, named: &NamedPods<'_>) -> Option<&'a str> {
    if let Some(pod) = facts.pod_of(endpoint, named) {
        return pod.node.as_deref();
    }
    let slices = facts.cluster.others_slices.iter();
    let at = slices.filter(|slice| slice.ports.iter().any(|port| port.number == Some(endpoint.port())));
    at.flat_map(|slice| &slice.endpoints).find(|e| e.address.ip() == Some(endpoint.ip()))?.node.as_deref()
}

/// The address of a Node that clients outside are given.
fn address(facts: &Facts, name: &str, choice: NodeChoice, family: Family, note: &mut Option<String>) -> Option<IpAddr> {
    let node = facts.cluster.nodes.get(name)?;
    let found = node.export_address(choice.address_type, family);
    let refused = match found {
        Ok(Some(ip)) if node.export_address.is_some() && !node.addresses.contains(&ip) && is_refused(facts, ip) => {
            ip.to_string()
        }
        Ok(found) => return found,
        Err(part) => part,
    };
    note.get_or_insert_with(|| {
        format!(
            "Node {name}: annotation {} {refused:?} names no address that clients could call",
            crate::model::EXPORT_ADDRESS_ANNOTATION
        )
    });
    None
}

/// Addresses that lead into a circle, or to the API server.
fn is_refused(facts: &Facts, ip: IpAddr) -> bool {
    let trust = &facts.cluster.trust;
    trust.service_cidrs.contains(ip) || trust.api_servers.contains(&ip)
}

/// The records of other writers, by the addresses that a client would call.
#[derive(Default)]
struct Registered<'a> {
    by_address: BTreeMap<(IpAddr, u16), &'a Record>,
    cluster_id: &'a str,
}

impl<'a> Registered<'a> {
    fn of(registry: Option<&'a RegistryFacts>) -> Self {
        let Some(registry) = registry else { return Self::default() };
        let writers = Writers::of(&registry.snapshot.records, &registry.owner);
        let others = writers.by(|writer| writer == Writer::Other);
        let by_address = others.flat_map(|record| record.client_addresses().map(move |addr| (addr, record))).collect();
        Self { by_address, cluster_id: &registry.owner.cluster_id }
    }
}

/// The outcome of an endpoint whose own server registered it: traffic to it is not ours to give.
fn by_itself(
    facts: &Facts,
    endpoint: InstanceAddr,
    named: &NamedPods<'_>,
    registered: &Registered<'_>,
) -> Option<Outcome> {
    if registered.by_address.is_empty() {
        return None;
    }
    let own = [(endpoint.ip(), endpoint.port())];
    let record =
        own.into_iter().chain(aliases(facts, endpoint, named)).find_map(|addr| registered.by_address.get(&addr))?;
    let key = record.key.clone();
    Some(match record.kind(registered.cluster_id) {
        Kind::OtherCluster => Outcome::TakenByOtherCluster { key },
        _ => Outcome::SelfRegistered { key, refused: None },
    })
}

/// The addresses of its Node under which the server of an endpoint may have registered itself, as Kitex does with
/// `KITEX_IP_TO_REGISTRY` (registry-etcd v0.2.6): at a port of the Node that leads to the pod. A server that runs on
/// the Node itself may have any other port.
fn aliases<'a>(
    facts: &'a Facts,
    endpoint: InstanceAddr,
    named: &NamedPods<'_>,
) -> impl Iterator<Item = (IpAddr, u16)> + use<'a> {
    let pod = facts.pod_of(endpoint, named);
    let node = pod.and_then(|pod| facts.cluster.nodes.get(pod.node.as_deref()?));
    node.into_iter()
        .flat_map(|node| node.every_address())
        .filter_map(move |ip| Some((ip, pod?.port_of_node(endpoint.port(), ip)?)))
}

/// The addresses of Nodes under which the server of an exported instance registered itself, by the instance's address.
pub(super) fn registered_at_nodes(
    facts: &Facts,
    reach: &Reach,
    writers: &Writers<'_>,
) -> BTreeMap<InstanceAddr, (IpAddr, u16)> {
    let nodes = &facts.cluster.trust.node_addresses;
    if reach.behind.is_some() || nodes.is_empty() {
        return BTreeMap::new();
    }
    let others = writers.by(|writer| writer == Writer::Other).flat_map(Record::client_addresses);
    let at_nodes: BTreeSet<(IpAddr, u16)> = others.filter(|(ip, _)| nodes.contains(ip)).collect();
    if at_nodes.is_empty() {
        return BTreeMap::new();
    }
    let named = facts.named_pods();
    let alias = |addr: &InstanceAddr| {
        let own = (addr.ip(), addr.port());
        aliases(facts, *addr, &named).find(|alias| *alias != own && at_nodes.contains(alias))
    };
    reach.ports.keys().filter_map(|addr| Some((*addr, alias(addr)?))).collect()
}

/// Every address other than its own at which a client may call a ready endpoint, whatever the spec says.
pub fn outer_addresses(facts: &Facts) -> BTreeSet<IpAddr> {
    let mut outer = BTreeSet::new();
    let Some(service) = &facts.cluster.service else { return outer };
    let ready = ready_anywhere(&facts.cluster.others_slices, service.selector);
    if ready.is_empty() {
        return outer;
    }
    outer.extend(service.balancer_ips.iter().copied());
    let has_node_ports = service.ports.iter().any(|port| port.node_port.is_some());
    let nodes = &facts.cluster.nodes;
    if has_node_ports && !service.local_traffic {
        outer.extend(nodes.values().flat_map(|node| node.every_address()));
        return outer;
    }
    let named = facts.named_pods();
    for endpoint in ready {
        let pod = facts.pod_of(endpoint, &named);
        let has_host_port = pod.is_some_and(|pod| pod.host_network || pod.host_ports.is_some());
        if has_node_ports || has_host_port {
            let node = node_of(facts, endpoint, &named).and_then(|name| nodes.get(name));
            outer.extend(node.into_iter().flat_map(|node| node.every_address()));
        }
    }
    outer
}
