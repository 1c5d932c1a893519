//! Slices: the EndpointSlices to write so that together they hold the imported endpoints, and the mirrored ones.
//!
//! Owns the shape of a slice that Twinspan manages and the order of writes. Packing within one group is [`pack`]; names
//! are [`name`]; the way back from slices to imports is [`present`]; slices that no import is added to are [`shrink`];
//! groups that the API server does not take are [`refused`]. Follows the built-in EndpointSlice controller
//! (`reconciler.go` of k8s.io/endpointslice): one group for each address family, port and number, at most 100 endpoints
//! in a slice, as few writes as possible, and no write that makes an endpoint vanish before its new place exists.
//! Refuses to touch a slice that it was not given as one of ours.

mod name;
mod pack;
mod present;
mod refused;
mod shrink;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Timestamp;
use crate::model::{
    AddressType, Conditions, Family, HEADLESS_LABEL, Hints, IMPORTED_FROM_ANNOTATION, InstanceAddr,
    LOST_UNTIL_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, MERGED_ANNOTATION, MIRRORED_ANNOTATION, PortSet,
    SERVICE_NAME_LABEL, ServiceKey, Slice, SliceEndpoint, SlicePort, TCP, TRIGGER_TIME_ANNOTATION, TargetPod,
    TrafficDistribution,
};
use crate::plan::earlier;

pub use name::owner_in_name;
pub use pack::MAX_ENDPOINTS;
use pack::Wanted;
pub use present::present;
pub use refused::{Refusal, Refusals, SliceGroup};
pub use shrink::{Kept, Stays, follow, rewritten, shrink};

/// Everything that the plan rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The RegisteredService; with its UID it names new slices.
    pub owner: &'a ServiceKey,
    pub owner_uid: &'a str,
    /// The Service that the slices belong to; `None` deletes every slice.
    pub service: Option<Service<'a>>,
    /// The endpoints with everything besides their address; conditions and hints are filled in here.
    pub endpoints: &'a BTreeMap<InstanceAddr, EndpointInfo>,
    /// Every slice that is owned by the RegisteredService and managed by us, whatever Service it names, in any order.
    pub existing: &'a [&'a Slice],
    /// The source of the imports: `<ServiceRegistry>/<registryName>`.
    pub source: &'a str,
    /// Whether endpoints on one port share one slice as long as it has room for all of them.
    pub merges: bool,
    /// The groups that the API server refuses.
    pub refused: &'a Refusals,
    /// The time of the change that triggered the pass.
    pub triggered: Timestamp,
    pub now: Timestamp,
}

/// Everything about an endpoint besides its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointInfo {
    /// The ports of the Service that it serves.
    pub ports: PortSet,
    /// The deadline of an endpoint that lost its registration.
    pub lost_until: Option<Timestamp>,
    pub zone: Option<String>,
    pub node: Option<String>,
    pub pod: Option<Box<TargetPod>>,
    /// The conditions of an endpoint of another manager that is mirrored; an import is always ready.
    pub mirrored: Option<Conditions>,
}

/// The fields that slices take over from their Service.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    pub name: &'a str,
    /// The ports at the indexes that [`PortSet`] holds; at least one.
    pub ports: &'a [Port],
    pub headless: bool,
    pub traffic: TrafficDistribution,
    pub labels: &'a BTreeMap<String, String>,
}

/// A port of the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Equal to the name of the Service port, else ClusterIP traffic never reaches the endpoints.
    pub name: String,
    pub app_protocol: Option<String>,
}

/// One write. In the order of a [`Plan`] no endpoint vanishes before its new place exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceOp {
    Create(SliceSpec),
    /// Applies only if the slice still has this `resourceVersion`.
    Update {
        spec: SliceSpec,
        if_version: String,
    },
    /// Applies only if the slice still has this `resourceVersion`.
    Delete {
        name: String,
        if_version: String,
        /// `None` if the slice has no port.
        group: Option<SliceGroup>,
    },
}

impl SliceOp {
    /// The name of the operation in metrics; a bounded set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
        }
    }

    /// The name of the slice.
    pub fn name(&self) -> &str {
        match self {
            Self::Create(spec) | Self::Update { spec, .. } => &spec.name,
            Self::Delete { name, .. } => name,
        }
    }

    /// The group that the slice belongs to once it is written. Operations on different groups do not depend on each
    /// other.
    pub fn group(&self) -> Option<SliceGroup> {
        match self {
            Self::Create(spec) | Self::Update { spec, .. } => {
                Some(SliceGroup { family: spec.family, number: spec.port.number? })
            }
            Self::Delete { group, .. } => *group,
        }
    }
}

/// A slice as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceSpec {
    pub name: String,
    pub family: Family,
    pub port: SlicePort,
    /// Sorted by address, at most [`MAX_ENDPOINTS`].
    pub endpoints: Vec<SliceEndpoint>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl SliceSpec {
    /// Adds endpoints that it does not have.
    pub fn add(&mut self, endpoints: Vec<SliceEndpoint>) {
        self.endpoints.extend(endpoints);
        self.endpoints.sort_by_key(|endpoint| endpoint.address.ip());
        note_endpoints(&mut self.annotations, &self.endpoints);
    }
}

/// Creates, then updates, then deletes; each in name order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub ops: Vec<SliceOp>,
    /// Imports that no slice had and one will have.
    pub added: usize,
    /// Imports that a slice had and none will have.
    pub removed: usize,
    /// Endpoints that no slice has because the API server refuses their group, and its words for each group.
    pub left_out: BTreeSet<InstanceAddr>,
    pub refused: BTreeMap<SliceGroup, String>,
    /// The time of the next attempt.
    pub requeue_at: Option<Timestamp>,
}

impl Plan {
    /// Adds the operations of another plan on slices that this one leaves alone.
    pub fn add_missing(&mut self, other: &Self) {
        let planned: BTreeSet<&str> = self.ops.iter().map(op_name).collect();
        let missing: Vec<SliceOp> = other.ops.iter().filter(|op| !planned.contains(op_name(op))).cloned().collect();
        if !missing.is_empty() {
            self.added += other.added;
            self.removed += other.removed;
            self.ops.extend(missing);
        }
    }
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut existing: Vec<&Slice> = input.existing.iter().copied().filter(|slice| !slice.deleting).collect();
    existing.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(service) = &input.service else {
        let mut plan = Plan::default();
        emit(&mut plan, input, Placed { deletes: existing.clone(), ..Placed::default() });
        count(&mut plan, |_| false, 0, &existing);
        return plan;
    };
    let is_refused = |group: SliceGroup| input.refused.standing(group, input.now).is_some();
    let (refused, open): (Vec<&Slice>, Vec<&Slice>) =
        existing.iter().partition(|slice| SliceGroup::of(slice).is_some_and(is_refused));
    let is_closed = |addr: &InstanceAddr| is_refused(SliceGroup::from(*addr));
    let closed: Endpoints<'_> = input.endpoints.iter().filter(|(addr, _)| is_closed(addr)).collect();
    let wanted = input.endpoints.iter().filter(|(addr, _)| !is_closed(addr));
    let mut plan = Plan::default();
    emit(&mut plan, input, place(input, service, &open, wanted));
    leave_out(&mut plan, input, &refused, &closed);
    let left_out = plan.left_out.clone();
    let is_import = |(_, known): &(&InstanceAddr, &EndpointInfo)| known.mirrored.is_none();
    let wanted = input.endpoints.iter().filter(is_import).map(|(addr, _)| addr);
    let wanted: BTreeSet<&InstanceAddr> = wanted.filter(|addr| !left_out.contains(*addr)).collect();
    count(&mut plan, |addr| wanted.contains(addr), wanted.len(), &existing);
    plan
}

type Endpoints<'a> = BTreeMap<&'a InstanceAddr, &'a EndpointInfo>;

/// Plans for the groups that the API server refuses: their slices only lose endpoints.
fn leave_out(plan: &mut Plan, input: &Input<'_>, slices: &[&Slice], endpoints: &Endpoints<'_>) {
    let there = slices.iter().flat_map(|slice| slice.ports.iter().flat_map(|port| slice.at(port)));
    let there: BTreeSet<InstanceAddr> = there.map(|(addr, _)| addr).collect();
    plan.left_out = endpoints.keys().map(|addr| **addr).filter(|addr| !there.contains(addr)).collect();
    let refusal = |group| Some((group, input.refused.standing(group, input.now)?));
    // A group that is not wanted any more is refused as long as its removal is.
    let stuck = slices.iter().filter_map(|slice| SliceGroup::of(slice));
    let stuck = stuck.filter(|group| !input.refused.may_shrink(*group, input.now));
    let groups: BTreeSet<SliceGroup> = endpoints.keys().map(|addr| SliceGroup::from(**addr)).chain(stuck).collect();
    for (group, refusal) in groups.into_iter().filter_map(refusal) {
        plan.refused.insert(group, refusal.message.clone());
        plan.requeue_at = earlier(plan.requeue_at, Some(refusal.until));
    }
    let may = |slice: &&&Slice| SliceGroup::of(slice).is_none_or(|group| input.refused.may_shrink(group, input.now));
    let may_shrink: Vec<&Slice> = slices.iter().filter(may).copied().collect();
    let kept = endpoints.iter().map(|(addr, known)| (**addr, Stays::from(*known))).collect();
    plan.ops.extend(shrink(&may_shrink, &kept, input.triggered).ops);
}

/// The slices before new ones take the place of deleted ones.
#[derive(Default)]
struct Placed<'a> {
    updates: Vec<(&'a Slice, Group, Vec<SliceEndpoint>)>,
    creates: Vec<(Group, Vec<SliceEndpoint>)>,
    deletes: Vec<&'a Slice>,
    /// Slices whose endpoints another one of their group takes over, and these groups.
    emptied: Vec<&'a Slice>,
    merging: BTreeSet<Group>,
}

/// The values that all endpoints of a slice share: family, index of the port, number.
type Group = (Family, usize, u16);

fn place<'a>(
    input: &Input<'_>,
    service: &Service<'_>,
    existing: &[&'a Slice],
    endpoints: impl Iterator<Item = (&'a InstanceAddr, &'a EndpointInfo)>,
) -> Placed<'a> {
    let mut wanted: BTreeMap<Group, Vec<(IpAddr, &EndpointInfo)>> = BTreeMap::new();
    for (addr, known) in endpoints {
        for index in known.ports.indexes().filter(|index| *index < service.ports.len()) {
            let group = (addr.family(), index, addr.port());
            wanted.entry(group).or_default().push((addr.ip(), known));
        }
    }
    let made = |endpoints: Wanted<&EndpointInfo>| -> Vec<SliceEndpoint> {
        endpoints.into_iter().map(|(ip, known)| endpoint(ip, known, service.traffic)).collect()
    };
    let is_written = |written: &SliceEndpoint, ip: IpAddr, known: &&EndpointInfo| {
        // Making one allocates nothing where it has no zone, node, pod or hints.
        *written == endpoint(ip, known, service.traffic)
    };
    let mut groups: BTreeMap<Group, Vec<&'a Slice>> = wanted.keys().map(|group| (*group, Vec::new())).collect();
    let mut placed = Placed::default();
    for slice in existing {
        match group_of(slice, service).and_then(|group| groups.get_mut(&group)) {
            Some(members) => members.push(slice),
            None => placed.deletes.push(slice),
        }
    }
    for (group, mut members) in groups {
        let wanted = wanted.remove(&group).unwrap_or_default();
        if input.merges && wanted.len() <= MAX_ENDPOINTS {
            placed.emptied.extend(all_but_the_fullest(&mut members));
        }
        let merged = members.len() == 1 && placed.emptied.iter().any(|slice| group_of(slice, service) == Some(group));
        placed.merging.extend(merged.then_some(group));
        let differs = |slice: &Slice| {
            metadata_differs(input, service, group, slice)
                || slice.annotations.contains_key(MERGED_ANNOTATION) != merged
        };
        let packed = pack::pack(wanted, &members, differs, is_written);
        placed.updates.extend(packed.updates.into_iter().map(|(slice, endpoints)| (slice, group, made(endpoints))));
        placed.creates.extend(packed.creates.into_iter().map(|endpoints| (group, made(endpoints))));
        placed.deletes.extend(packed.deletes);
    }
    reuse(&mut placed, service);
    placed
}

/// Takes all slices but one out of the members of a group.
fn all_but_the_fullest<'a>(members: &mut Vec<&'a Slice>) -> Vec<&'a Slice> {
    let fullest = members.iter().enumerate().max_by_key(|(at, slice)| (slice.endpoints.len(), std::cmp::Reverse(*at)));
    let Some(fullest) = fullest.map(|(at, _)| at) else { return Vec::new() };
    let fullest = vec![members.remove(fullest)];
    std::mem::replace(members, fullest)
}

/// Hints as `trafficdist.go` of k8s.io/endpointslice gives them.
fn endpoint(ip: IpAddr, known: &EndpointInfo, traffic: TrafficDistribution) -> SliceEndpoint {
    let mut endpoint = SliceEndpoint::ready(ip);
    endpoint.zone.clone_from(&known.zone);
    endpoint.node.clone_from(&known.node);
    endpoint.pod.clone_from(&known.pod);
    // The annotation has whole seconds.
    endpoint.lost_until = known.lost_until.map(|until| Timestamp::from_second(until.as_second()).unwrap_or(until));
    let zone = known.zone.clone().filter(|_| traffic != TrafficDistribution::Anywhere);
    let node = known.node.clone().filter(|_| traffic == TrafficDistribution::SameNode);
    if let Some(conditions) = known.mirrored {
        endpoint = SliceEndpoint { mirrored: true, ..endpoint.with(conditions) };
    }
    endpoint.hints = Hints { zones: zone.into_iter().collect(), nodes: node.into_iter().collect() }.boxed();
    endpoint
}

/// The group that a slice can serve, if any.
fn group_of(slice: &Slice, service: &Service<'_>) -> Option<Group> {
    let AddressType::Ip(family) = slice.address_type else { return None };
    match slice.ports.as_slice() {
        [SlicePort { number: Some(number), name, .. }] if slice.service.as_deref() == Some(service.name) => {
            let index = service.ports.iter().position(|port| port.name == *name);
            // A single port that was renamed is written in place.
            index.or((service.ports.len() == 1).then_some(0)).map(|index| (family, index, *number))
        }
        _ => None,
    }
}

/// Whether a slice has wrong labels, annotations or ports.
fn metadata_differs(input: &Input<'_>, service: &Service<'_>, group: Group, slice: &Slice) -> bool {
    slice.ports != [port(service, group)]
        || slice.labels != labels(service, Some(slice))
        || slice.owner_uid.as_deref() != Some(input.owner_uid)
        || slice.annotations.get(IMPORTED_FROM_ANNOTATION).map(String::as_str) != Some(input.source)
}

/// Gives the endpoints of a slice that would be created to one that would be deleted: one write instead of two, and
/// every node sees one change instead of two. The address type can never change, and the Service must not: kube-proxy
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
    // A slice under deletion keeps its name until its finalizers are gone.
    let mut taken: BTreeSet<String> = input.existing.iter().map(|slice| slice.name.clone()).collect();
    let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    let merging = placed.merging;
    if let Some(service) = &input.service {
        for (group, endpoints) in placed.creates {
            let port = &service.ports[group.1].name;
            let name = name::unused(input.owner, input.owner_uid, (group.0, port, group.2), &taken);
            taken.insert(name.clone());
            creates.push(spec(input, service, group, name, endpoints, None, false));
        }
        for (slice, group, endpoints) in placed.updates {
            let merged = merging.contains(&group);
            let spec = spec(input, service, group, slice.name.clone(), endpoints, Some(slice), merged);
            updates.push(SliceOp::Update { spec, if_version: slice.resource_version.clone() });
        }
    }
    for slice in placed.deletes.into_iter().chain(placed.emptied) {
        deletes.push(delete(slice));
    }
    creates.sort_by(|a, b| a.name.cmp(&b.name));
    updates.sort_by(|a, b| op_name(a).cmp(op_name(b)));
    deletes.sort_by(|a, b| op_name(a).cmp(op_name(b)));
    plan.ops = creates.into_iter().map(SliceOp::Create).chain(updates).chain(deletes).collect();
}

fn delete(slice: &Slice) -> SliceOp {
    let (name, if_version) = (slice.name.clone(), slice.resource_version.clone());
    SliceOp::Delete { name, if_version, group: SliceGroup::of(slice) }
}

fn op_name(op: &SliceOp) -> &str {
    match op {
        SliceOp::Create(spec) | SliceOp::Update { spec, .. } => &spec.name,
        SliceOp::Delete { name, .. } => name,
    }
}

fn spec(
    input: &Input<'_>,
    service: &Service<'_>,
    group: Group,
    name: String,
    endpoints: Vec<SliceEndpoint>,
    before: Option<&Slice>,
    merged: bool,
) -> SliceSpec {
    let mut annotations = before.map(|slice| slice.annotations.clone()).unwrap_or_default();
    annotations.insert(TRIGGER_TIME_ANNOTATION.to_owned(), input.triggered.to_string());
    annotations.insert(IMPORTED_FROM_ANNOTATION.to_owned(), input.source.to_owned());
    if merged {
        annotations.insert(MERGED_ANNOTATION.to_owned(), String::new());
    } else {
        annotations.remove(MERGED_ANNOTATION);
    }
    note_endpoints(&mut annotations, &endpoints);
    SliceSpec {
        name,
        family: group.0,
        port: port(service, group),
        endpoints,
        labels: labels(service, before),
        annotations,
    }
}

/// Writes what endpoints have no fields for into annotations: the deadlines of those that lost their registration, and
/// which ones are mirrored.
fn note_endpoints(annotations: &mut BTreeMap<String, String>, endpoints: &[SliceEndpoint]) {
    let lost = endpoints.iter().filter_map(|e| Some(format!("{}={}", e.address, e.lost_until?)));
    let mirrored = endpoints.iter().filter(|endpoint| endpoint.mirrored).map(|endpoint| endpoint.address.to_string());
    for (annotation, values) in
        [(LOST_UNTIL_ANNOTATION, lost.collect::<Vec<_>>()), (MIRRORED_ANNOTATION, mirrored.collect())]
    {
        if values.is_empty() {
            annotations.remove(annotation);
        } else {
            annotations.insert(annotation.to_owned(), values.join(","));
        }
    }
}

fn port(service: &Service<'_>, (_, index, number): Group) -> SlicePort {
    let port = &service.ports[index];
    SlicePort {
        name: port.name.clone(),
        protocol: TCP.to_owned(),
        number: Some(number),
        app_protocol: port.app_protocol.clone(),
    }
}

/// The Service's labels and our own, as `setEndpointSliceLabels` of k8s.io/endpointslice has it, and those that another
/// program put onto the slice.
fn labels(service: &Service<'_>, before: Option<&Slice>) -> BTreeMap<String, String> {
    let others =
        before.into_iter().flat_map(|slice| slice.others_labels.iter().filter_map(|l| slice.labels.get_key_value(l)));
    let mut labels: BTreeMap<String, String> = others.map(|(label, value)| (label.clone(), value.clone())).collect();
    labels.extend(service.labels.clone());
    labels.remove(HEADLESS_LABEL);
    if service.headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME_LABEL.to_owned(), service.name.to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

/// Counts the changes of the plan over the imports of all slices together.
fn count(plan: &mut Plan, is_wanted: impl Fn(&InstanceAddr) -> bool, wanted: usize, existing: &[&Slice]) {
    if plan.ops.is_empty() {
        return;
    }
    let mut before: Vec<InstanceAddr> = existing
        .iter()
        .filter(|slice| !slice.deleting)
        .flat_map(|slice| slice.ports.iter().flat_map(|port| slice.at(port)))
        .filter(|(_, endpoint)| !endpoint.mirrored)
        .map(|(addr, _)| addr)
        .collect();
    before.sort_unstable();
    before.dedup();
    let stay = before.iter().filter(|addr| is_wanted(addr)).count();
    plan.added = wanted - stay;
    plan.removed = before.len() - stay;
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
