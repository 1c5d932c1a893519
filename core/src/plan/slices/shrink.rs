//! Slices that no import is added to: because a spec cannot be carried out, because the registry is not there, or
//! because the API server refuses a group.
//!
//! Owns the writes of such slices. Imports only go; one that stays is written as it was. Mirrored endpoints are as
//! their own slices are now: [`follow`] adds the new ones too. Refuses to know why an import goes.

use std::collections::{BTreeMap, BTreeSet};

use super::pack::MAX_ENDPOINTS;
use super::{EndpointInfo, Group, Input, Plan, Port, Service, SliceOp, SliceSpec, delete, endpoint, note_endpoints};
use super::{name, spec};
use crate::Timestamp;
use crate::model::{
    AddressType, Conditions, InstanceAddr, Slice, SliceEndpoint, TRIGGER_TIME_ANNOTATION, TrafficDistribution,
};

/// The way in which an endpoint stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// As an import, with the deadline of one that lost its registration.
    Imported(Option<Timestamp>),
    /// As an endpoint of another manager, with its conditions.
    Mirrored(Conditions),
}

impl From<&EndpointInfo> for Stays {
    fn from(known: &EndpointInfo) -> Self {
        known.mirrored.map_or(Self::Imported(known.lost_until), Self::Mirrored)
    }
}

/// The endpoints that stay.
pub type Kept = BTreeMap<InstanceAddr, Stays>;

/// Takes every other endpoint out of the slices; one that would be empty is deleted.
pub fn shrink(slices: &[&Slice], kept: &Kept, triggered: Timestamp) -> Plan {
    Shrunk::of(slices, kept).plan(triggered, Vec::new())
}

/// The same, and adds the mirrored endpoints among [`Input::endpoints`] that no slice has: to slices where some are
/// already, and to new ones of [`Input::service`] where it is given.
pub fn follow(input: &Input<'_>, ports: &[Port], kept: &Kept) -> Plan {
    let mut shrunk = Shrunk::of(input.existing, kept);
    let ports: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let mut creates = Vec::new();
    for (group, endpoints) in shrunk.missing(input, &ports) {
        let rest = shrunk.fill(input, group, &ports, endpoints);
        if let Some(service) = &input.service {
            creates.extend(created(input, service, group, &rest));
        }
    }
    shrunk.plan(input.triggered, creates)
}

/// The write of a slice with other endpoints, and otherwise as it is.
pub fn rewritten(slice: &Slice, endpoints: Vec<SliceEndpoint>) -> Option<SliceOp> {
    let triggered = slice.annotations.get(TRIGGER_TIME_ANNOTATION).and_then(|text| text.parse().ok());
    update(slice, endpoints, triggered)
}

/// Slices in the order of their names, with the endpoints that each will have.
struct Shrunk<'a> {
    slices: Vec<(&'a Slice, Vec<SliceEndpoint>)>,
}

impl<'a> Shrunk<'a> {
    fn of(slices: &[&'a Slice], kept: &Kept) -> Self {
        let mut slices: Vec<&'a Slice> = slices.iter().copied().filter(|slice| !slice.deleting).collect();
        slices.sort_by(|a, b| a.name.cmp(&b.name));
        let legible = slices.into_iter().filter(|slice| number(slice).is_some());
        let left = |slice: &'a Slice| {
            let stays = |endpoint: &SliceEndpoint| Some(left(endpoint.clone(), *kept.get(&at(slice, endpoint)?)?));
            (slice, slice.endpoints.iter().filter_map(stays).collect())
        };
        Self { slices: legible.map(left).collect() }
    }

    /// The mirrored endpoints that no slice of their group has.
    fn missing(&self, input: &Input<'_>, ports: &[&str]) -> BTreeMap<Group, Vec<SliceEndpoint>> {
        let mut missing: BTreeMap<Group, Vec<SliceEndpoint>> = BTreeMap::new();
        let grouped = self.slices.iter().filter_map(|(slice, endpoints)| Some((group(slice, ports)?, endpoints)));
        let there: BTreeSet<(Group, _)> = grouped
            .flat_map(|(group, endpoints)| endpoints.iter().map(move |endpoint| (group, endpoint)))
            .filter(|(_, endpoint)| endpoint.mirrored)
            .map(|(group, endpoint)| (group, endpoint.address.ip()))
            .collect();
        let traffic = input.service.map_or(TrafficDistribution::Anywhere, |service| service.traffic);
        for (addr, known) in input.endpoints.iter().filter(|(_, known)| known.mirrored.is_some()) {
            for index in known.ports.indexes().filter(|index| *index < ports.len()) {
                let group = (addr.family(), index, addr.port());
                if !there.contains(&(group, Some(addr.ip()))) {
                    missing.entry(group).or_default().push(endpoint(addr.ip(), known, traffic));
                }
            }
        }
        missing
    }

    /// Puts endpoints into slices of their group that have room, fullest first, in Services that have mirrored ones.
    /// Returns the rest.
    fn fill(
        &mut self,
        input: &Input<'_>,
        of: Group,
        ports: &[&str],
        mut endpoints: Vec<SliceEndpoint>,
    ) -> Vec<SliceEndpoint> {
        let had = self.slices.iter().filter(|(slice, _)| slice.has_mirrored()).map(|(slice, _)| slice.service.clone());
        let filled: BTreeSet<Option<String>> =
            had.chain(input.service.iter().map(|service| Some(service.name.to_owned()))).collect();
        let members = self.slices.iter_mut().filter(|(slice, _)| group(slice, ports) == Some(of));
        let members = members.filter(|(slice, _)| filled.contains(&slice.service));
        let mut members: Vec<_> = members.map(|(_, endpoints)| endpoints).collect();
        members.sort_by_key(|endpoints| std::cmp::Reverse(endpoints.len()));
        for member in members {
            let room = MAX_ENDPOINTS.saturating_sub(member.len()).min(endpoints.len());
            member.extend(endpoints.drain(..room));
        }
        endpoints
    }

    fn plan(self, triggered: Timestamp, mut creates: Vec<SliceSpec>) -> Plan {
        let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
        let is_import = |endpoint: &&SliceEndpoint| !endpoint.mirrored;
        let (mut updates, mut deletes) = (Vec::new(), Vec::new());
        for (slice, endpoints) in self.slices {
            let addr = |endpoint: &SliceEndpoint| at(slice, endpoint);
            before.extend(slice.endpoints.iter().filter(is_import).filter_map(addr));
            after.extend(endpoints.iter().filter(is_import).filter_map(addr));
            if endpoints.is_empty() {
                deletes.push(delete(slice));
            } else if endpoints != slice.endpoints {
                updates.extend(update(slice, endpoints, Some(triggered)));
            }
        }
        creates.sort_by(|a, b| a.name.cmp(&b.name));
        let creates = creates.into_iter().map(SliceOp::Create);
        Plan {
            ops: creates.chain(updates).chain(deletes).collect(),
            added: after.difference(&before).count(),
            removed: before.difference(&after).count(),
            ..Plan::default()
        }
    }
}

fn left(endpoint: SliceEndpoint, stays: Stays) -> SliceEndpoint {
    match stays {
        // The annotation has whole seconds.
        Stays::Imported(until) => SliceEndpoint {
            lost_until: until.map(|until| Timestamp::from_second(until.as_second()).unwrap_or(until)),
            mirrored: false,
            ..endpoint
        },
        Stays::Mirrored(conditions) => SliceEndpoint { mirrored: true, lost_until: None, ..endpoint.with(conditions) },
    }
}

/// New slices for mirrored endpoints of one group.
fn created(input: &Input<'_>, service: &Service<'_>, group: Group, endpoints: &[SliceEndpoint]) -> Vec<SliceSpec> {
    let mut taken: BTreeSet<String> = input.existing.iter().map(|slice| slice.name.clone()).collect();
    let mut creates = Vec::new();
    for endpoints in endpoints.chunks(MAX_ENDPOINTS) {
        let name = name::unused(input.owner, input.owner_uid, (group.0, &service.ports[group.1].name, group.2), &taken);
        taken.insert(name.clone());
        creates.push(spec(input, service, group, name, endpoints.to_vec(), None, false));
    }
    creates
}

/// The group of a slice, whatever its Service.
fn group(slice: &Slice, ports: &[&str]) -> Option<Group> {
    let AddressType::Ip(family) = slice.address_type else { return None };
    let name = &slice.ports.first()?.name;
    Some((family, ports.iter().position(|port| port == name)?, number(slice)?))
}

fn update(slice: &Slice, mut endpoints: Vec<SliceEndpoint>, triggered: Option<Timestamp>) -> Option<SliceOp> {
    let (AddressType::Ip(family), [port]) = (slice.address_type, slice.ports.as_slice()) else { return None };
    endpoints.sort_by_key(|endpoint| endpoint.address.ip());
    let mut annotations = slice.annotations.clone();
    annotations.extend(triggered.map(|triggered| (TRIGGER_TIME_ANNOTATION.to_owned(), triggered.to_string())));
    note_endpoints(&mut annotations, &endpoints);
    let (labels, port) = (slice.labels.clone(), port.clone());
    let (name, if_version) = (slice.name.clone(), slice.resource_version.clone());
    Some(SliceOp::Update { spec: SliceSpec { name, family, port, endpoints, labels, annotations }, if_version })
}

/// The number of the port of a slice, where it has one port and IPs.
fn number(slice: &Slice) -> Option<u16> {
    match (slice.address_type, slice.ports.as_slice()) {
        (AddressType::Ip(_), [port]) => port.number,
        _ => None,
    }
}

fn at(slice: &Slice, endpoint: &SliceEndpoint) -> Option<InstanceAddr> {
    InstanceAddr::new(endpoint.address.ip()?, number(slice)?).ok()
}
