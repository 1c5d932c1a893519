//! The imports that slices of ours hold now.
//!
//! Owns the way back from slices to endpoints. Refuses to count mirrored endpoints, which nobody imported.

use std::collections::BTreeMap;

use super::Port;
use crate::model::{IMPORTED_FROM_ANNOTATION, InstanceAddr, PortSet, Slice};
use crate::plan::import::Present;

/// The imports that slices of ours hold now, under the ports and the source in force.
pub fn present(slices: &[&Slice], ports: &[Port], source: &str) -> BTreeMap<InstanceAddr, Present> {
    let mut present: Vec<(InstanceAddr, Present)> = Vec::new();
    for slice in slices.iter().filter(|slice| !slice.deleting) {
        let from_here = slice.annotations.get(IMPORTED_FROM_ANNOTATION).is_some_and(|from| from == source);
        for port in &slice.ports {
            let index = ports.iter().position(|known| known.name == port.name).or((ports.len() == 1).then_some(0));
            let ports = index.map(PortSet::of).unwrap_or_default();
            let imported = slice.at(port).filter(|(_, endpoint)| !endpoint.mirrored);
            present.extend(imported.map(|(addr, endpoint)| {
                let (zone, lost_until) = (endpoint.zone.clone(), endpoint.lost_until);
                (addr, Present { ports, zone, from_here, lost_until })
            }));
        }
    }
    // Sorted values become a map at once; one by one, each would be searched for.
    present.sort_by_key(|(addr, _)| *addr);
    present.dedup_by(|(addr, then), (first, entry)| {
        let same = addr == first;
        if same {
            entry.ports.insert(then.ports);
            entry.zone = entry.zone.take().or_else(|| then.zone.take());
            entry.from_here |= then.from_here;
            entry.lost_until = entry.lost_until.or(then.lost_until);
        }
        same
    });
    present.into_iter().collect()
}
