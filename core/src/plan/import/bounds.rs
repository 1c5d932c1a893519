//! The number of slices that the records of one name may fill.
//!
//! Every port number that a record names needs a slice of its own, which each node of the cluster watches, so whoever
//! may write the registry could fill the cluster's API with them. Owns the bound: endpoints that our slices have stay,
//! and then the first by address come. Refuses to know how endpoints are packed: it counts full slices.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Imported;
use crate::model::{Family, InstanceAddr, PortSet};
use crate::plan::slices::MAX_ENDPOINTS;

/// The most slices of one RegisteredService.
pub const MAX_SLICES: usize = 500;

/// The endpoints beyond the bound.
pub(super) fn beyond(
    endpoints: &BTreeMap<InstanceAddr, Imported>,
    is_present: impl Fn(&InstanceAddr) -> bool,
) -> BTreeSet<InstanceAddr> {
    let mut beyond = BTreeSet::new();
    if endpoints.len() <= MAX_SLICES {
        return beyond;
    }
    let group = |(addr, imported): (&InstanceAddr, &Imported)| (addr.family(), imported.ports, addr.port());
    let mut groups: BTreeMap<(Family, PortSet, u16), usize> = BTreeMap::new();
    endpoints.iter().for_each(|endpoint| *groups.entry(group(endpoint)).or_default() += 1);
    if groups.values().map(|n| n.div_ceil(MAX_ENDPOINTS)).sum::<usize>() <= MAX_SLICES {
        return beyond;
    }
    groups.clear();
    let mut slices = 0;
    let (first, then): (Vec<_>, Vec<_>) = endpoints.iter().partition(|(addr, _)| is_present(addr));
    for (addr, imported) in first.into_iter().chain(then) {
        let group = group((addr, imported));
        let full = groups.get(&group).is_none_or(|n| n % MAX_ENDPOINTS == 0);
        if full && slices == MAX_SLICES {
            beyond.insert(*addr);
            continue;
        }
        slices += usize::from(full);
        *groups.entry(group).or_default() += 1;
    }
    beyond
}
