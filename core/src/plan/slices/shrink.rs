//! Shrinking: slices that only lose endpoints.
//!
//! Owns the writes for a Service into which nothing may be written anew: because its spec cannot be carried out, or
//! because the API server refuses a group. What stays in a slice stays as it was written. Refuses to pack, and to know
//! why an endpoint goes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, SliceOp, SliceSpec, delete, lost_annotation};
use crate::Timestamp;
use crate::model::{AddressType, InstanceAddr, Slice, SliceEndpoint, TRIGGER_TIME_ANNOTATION};

/// The endpoints that stay, with the deadline of each that lost its registration.
pub type Kept = BTreeMap<InstanceAddr, Option<Timestamp>>;

/// Takes every other endpoint out of the slices; one that would be empty is deleted.
pub fn shrink(slices: &[&Slice], kept: &Kept, triggered: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
    let (mut updates, mut deletes) = (Vec::new(), Vec::new());
    let mut slices: Vec<&Slice> = slices.iter().copied().filter(|slice| !slice.deleting).collect();
    slices.sort_by(|a, b| a.name.cmp(&b.name));
    for slice in slices {
        let (AddressType::Ip(family), [port]) = (slice.address_type, slice.ports.as_slice()) else { continue };
        let Some(number) = port.number else { continue };
        let addr = |endpoint: &SliceEndpoint| InstanceAddr::new(endpoint.address.ip()?, number).ok();
        before.extend(slice.endpoints.iter().filter_map(addr));
        let stays = |endpoint: &SliceEndpoint| {
            let until = *kept.get(&addr(endpoint)?)?;
            let lost_until = until.map(|until| Timestamp::from_second(until.as_second()).unwrap_or(until));
            Some(SliceEndpoint { lost_until, ..endpoint.clone() })
        };
        let endpoints: Vec<SliceEndpoint> = slice.endpoints.iter().filter_map(stays).collect();
        after.extend(endpoints.iter().filter_map(addr));
        if endpoints.is_empty() {
            deletes.push(delete(slice));
        } else if endpoints != slice.endpoints {
            let mut annotations = slice.annotations.clone();
            annotations.insert(TRIGGER_TIME_ANNOTATION.to_owned(), triggered.to_string());
            lost_annotation(&mut annotations, &endpoints);
            let (labels, port) = (slice.labels.clone(), port.clone());
            let (name, if_version) = (slice.name.clone(), slice.resource_version.clone());
            let spec = SliceSpec { name, family, port, endpoints, labels, annotations };
            updates.push(SliceOp::Update { spec, if_version });
        }
    }
    plan.removed = before.difference(&after).count();
    plan.ops = updates.into_iter().chain(deletes).collect();
    plan
}
