//! Slices: which EndpointSlices to write so that together they hold the imported endpoints.
//!
//! Owns the shape of a slice that Twinspan manages and the order of writes. Packing within one group is [`pack`]; names are
//! [`name`]. Follows the built-in EndpointSlice controller (`reconciler.go` of k8s.io/endpointslice): one group for each
//! address family and port, at most 100 endpoints in a slice, as few writes as possible, and no write that makes an
//! endpoint vanish before its new place exists. Refuses to touch a slice that it was not given as one of ours.

mod name;
mod pack;

use std::collections::{BTreeMap, BTreeSet};

use crate::Timestamp;
use crate::model::{
    AddressType, Family, HEADLESS_LABEL, InstanceAddr, MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, ServiceKey,
    Slice, SliceEndpoint, SlicePort, TCP, TRIGGER_TIME_ANNOTATION, TargetPod,
};

/// The most endpoints in one slice; the built-in controller's default (`--max-endpoints-per-slice`).
pub const MAX_ENDPOINTS: usize = 100;

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The RegisteredService; with its UID it names new slices.
    pub owner: &'a ServiceKey,
    pub owner_uid: &'a str,
    /// The Service that the slices belong to; `None` deletes every slice.
    pub service: Option<Service<'a>>,
    /// Each with what is known of it besides its address; conditions and hints are filled in here.
    pub endpoints: &'a BTreeMap<InstanceAddr, Known>,
    /// Every slice that is owned by the RegisteredService and managed by us, whatever Service it names, in any order.
    pub existing: &'a [&'a Slice],
    /// When the change that led here began.
    pub triggered: Timestamp,
}

/// What is known of an endpoint besides its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub zone: Option<String>,
    pub node: Option<String>,
    pub pod: Option<TargetPod>,
}

/// `spec.trafficDistribution` of a Service: where its traffic should stay. Without one no hints are written: they
/// would switch topology on for a Service that did not ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficDistribution {
    #[default]
    Anywhere,
    /// `PreferClose` and `PreferSameZone`.
    SameZone,
    /// `PreferSameNode`.
    SameNode,
}

/// What slices take over from their Service.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    pub name: &'a str,
    /// Equal to the name of the Service port, else ClusterIP traffic never reaches the endpoints.
    pub port_name: &'a str,
    pub app_protocol: Option<&'a str>,
    pub headless: bool,
    pub traffic: TrafficDistribution,
    pub labels: &'a BTreeMap<String, String>,
}

/// One write. In the order of a [`Plan`] no endpoint vanishes before its new place exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceOp {
    Create(Body),
    /// Only where the slice still has this `resourceVersion`.
    Update {
        body: Body,
        seen: String,
    },
    /// Only where the slice still has this `resourceVersion`.
    Delete {
        name: String,
        seen: String,
    },
}

impl SliceOp {
    /// Bounded, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
        }
    }
}

/// A slice as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub name: String,
    pub family: Family,
    pub port: SlicePort,
    /// Sorted by the text of the address, at most [`MAX_ENDPOINTS`].
    pub endpoints: Vec<SliceEndpoint>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// Creates, then updates, then deletes; each in name order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub ops: Vec<SliceOp>,
    /// Endpoints that no slice had and one will have.
    pub added: usize,
    /// Endpoints that a slice had and none will have.
    pub removed: usize,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut existing: Vec<&Slice> = input.existing.iter().copied().filter(|slice| !slice.deleting).collect();
    existing.sort_by(|a, b| a.name.cmp(&b.name));

    let placed = match &input.service {
        Some(service) => place(input, service, &existing),
        None => Placed { deletes: existing.clone(), ..Placed::default() },
    };
    let mut plan = Plan::default();
    count(&mut plan, input, &existing);
    emit(&mut plan, input, placed);
    plan
}

/// Where everything goes, before it is known which slice a new one can take the place of.
#[derive(Default)]
struct Placed<'a> {
    updates: Vec<(&'a Slice, Group, Vec<SliceEndpoint>)>,
    creates: Vec<(Group, Vec<SliceEndpoint>)>,
    deletes: Vec<&'a Slice>,
}

type Group = (Family, u16);

fn place<'a>(input: &Input<'_>, service: &Service<'_>, existing: &[&'a Slice]) -> Placed<'a> {
    let mut wanted: BTreeMap<Group, BTreeMap<String, SliceEndpoint>> = BTreeMap::new();
    for (addr, known) in input.endpoints {
        let endpoint = endpoint(*addr, known, service.traffic);
        wanted.entry((addr.family(), addr.port())).or_default().insert(endpoint.address.clone(), endpoint);
    }
    let mut groups: BTreeMap<Group, Vec<&'a Slice>> = wanted.keys().map(|group| (*group, Vec::new())).collect();
    let mut placed = Placed::default();
    for slice in existing {
        match group_of(slice, service).and_then(|group| groups.get_mut(&group)) {
            Some(members) => members.push(slice),
            None => placed.deletes.push(slice),
        }
    }
    for (group, members) in groups {
        let packed = pack::pack(wanted.remove(&group).unwrap_or_default(), &members, |slice| {
            frame_differs(input, service, group, slice)
        });
        placed.updates.extend(packed.updates.into_iter().map(|(slice, endpoints)| (slice, group, endpoints)));
        placed.creates.extend(packed.creates.into_iter().map(|endpoints| (group, endpoints)));
        placed.deletes.extend(packed.deletes);
    }
    reuse(&mut placed, service);
    placed
}

/// Hints as `trafficdist.go` of k8s.io/endpointslice gives them.
fn endpoint(addr: InstanceAddr, known: &Known, traffic: TrafficDistribution) -> SliceEndpoint {
    let mut endpoint = SliceEndpoint::ready(addr.ip());
    endpoint.zone.clone_from(&known.zone);
    endpoint.node.clone_from(&known.node);
    endpoint.pod.clone_from(&known.pod);
    if traffic != TrafficDistribution::Anywhere {
        endpoint.hints.zones.extend(known.zone.clone());
    }
    if traffic == TrafficDistribution::SameNode {
        endpoint.hints.nodes.extend(known.node.clone());
    }
    endpoint
}

/// The group that a slice can serve, where it can serve any.
fn group_of(slice: &Slice, service: &Service<'_>) -> Option<Group> {
    let AddressType::Ip(family) = slice.address_type else { return None };
    match slice.ports.as_slice() {
        [SlicePort { number: Some(number), .. }] if slice.service.as_deref() == Some(service.name) => {
            Some((family, *number))
        }
        _ => None,
    }
}

/// Whether anything but the endpoints is not as it should be.
fn frame_differs(input: &Input<'_>, service: &Service<'_>, (_, number): Group, slice: &Slice) -> bool {
    slice.ports != [port(service, number)]
        || slice.labels != labels(service)
        || slice.owner_uid.as_deref() != Some(input.owner_uid)
}

/// A slice that would be deleted takes the endpoints of one that would be created: one write instead of two, and
/// every node sees one slice change instead of two. The address type can never change, and the Service must not: kube-proxy
/// would keep the endpoints of the Service that a slice was taken from.
fn reuse(placed: &mut Placed<'_>, service: &Service<'_>) {
    let creates = std::mem::take(&mut placed.creates);
    for (group, endpoints) in creates {
        let reusable = |slice: &&Slice| {
            slice.address_type == AddressType::Ip(group.0) && slice.service.as_deref() == Some(service.name)
        };
        match placed.deletes.iter().position(reusable) {
            Some(at) => {
                let slice = placed.deletes.remove(at);
                placed.updates.push((slice, group, endpoints));
            }
            None => placed.creates.push((group, endpoints)),
        }
    }
}

fn emit(plan: &mut Plan, input: &Input<'_>, placed: Placed<'_>) {
    // Slices under deletion keep their names for as long as someone's finalizer holds them.
    let mut taken: BTreeSet<String> = input.existing.iter().map(|slice| slice.name.clone()).collect();
    let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(service) = &input.service {
        for (group, endpoints) in placed.creates {
            let name = name::unused(input.owner, input.owner_uid, group, &taken);
            taken.insert(name.clone());
            creates.push(body(input, service, group, name, endpoints, BTreeMap::new()));
        }
        for (slice, group, endpoints) in placed.updates {
            let body = body(input, service, group, slice.name.clone(), endpoints, slice.annotations.clone());
            updates.push(SliceOp::Update { body, seen: slice.resource_version.clone() });
        }
    }
    for slice in placed.deletes {
        deletes.push(SliceOp::Delete { name: slice.name.clone(), seen: slice.resource_version.clone() });
    }
    creates.sort_by(|a, b| a.name.cmp(&b.name));
    updates.sort_by(|a, b| op_name(a).cmp(op_name(b)));
    deletes.sort_by(|a, b| op_name(a).cmp(op_name(b)));
    plan.ops = creates.into_iter().map(SliceOp::Create).chain(updates).chain(deletes).collect();
}

fn op_name(op: &SliceOp) -> &str {
    match op {
        SliceOp::Create(body) | SliceOp::Update { body, .. } => &body.name,
        SliceOp::Delete { name, .. } => name,
    }
}

fn body(
    input: &Input<'_>,
    service: &Service<'_>,
    (family, number): Group,
    name: String,
    endpoints: Vec<SliceEndpoint>,
    mut annotations: BTreeMap<String, String>,
) -> Body {
    annotations.insert(TRIGGER_TIME_ANNOTATION.to_owned(), input.triggered.to_string());
    Body { name, family, port: port(service, number), endpoints, labels: labels(service), annotations }
}

fn port(service: &Service<'_>, number: u16) -> SlicePort {
    SlicePort {
        name: service.port_name.to_owned(),
        protocol: TCP.to_owned(),
        number: Some(number),
        app_protocol: service.app_protocol.map(ToOwned::to_owned),
    }
}

/// The Service's labels and our own, as `setEndpointSliceLabels` of k8s.io/endpointslice has it.
fn labels(service: &Service<'_>) -> BTreeMap<String, String> {
    let mut labels = service.labels.clone();
    labels.remove(HEADLESS_LABEL);
    if service.headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME_LABEL.to_owned(), service.name.to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

/// What the plan changes for someone who looks at the endpoints of all slices together.
fn count(plan: &mut Plan, input: &Input<'_>, existing: &[&Slice]) {
    let before = present(existing);
    let after: BTreeSet<InstanceAddr> =
        if input.service.is_some() { input.endpoints.keys().copied().collect() } else { BTreeSet::new() };
    plan.added = after.difference(&before).count();
    plan.removed = before.difference(&after).count();
}

/// The endpoints that slices of ours hold now.
pub fn present(slices: &[&Slice]) -> BTreeSet<InstanceAddr> {
    let mut present = BTreeSet::new();
    for slice in slices.iter().filter(|slice| !slice.deleting) {
        for number in slice.ports.iter().filter_map(|port| port.number) {
            let ips = slice.endpoints.iter().filter_map(|endpoint| endpoint.address.parse().ok());
            present.extend(ips.filter_map(|ip| InstanceAddr::new(ip, number).ok()));
        }
    }
    present
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
