//! The ready pods of the Service, as far as imports depend on them.
//!
//! Owns their number: a pod with several addresses or ports counts once, and an endpoint without a pod by its address.
//! Refuses to know records, and to decide what follows from the number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Accepted;
use super::inputs::Pass;
use crate::model::{InstanceAddr, PortSet};
use crate::plan::import::Pods;
use crate::plan::slices::SliceGroup;

/// An endpoint's pod by its UID, or else the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity<'a> {
    Pod(&'a str),
    Address(IpAddr),
}

/// `ready` are the endpoints that may be exported.
pub(super) fn of(pass: &Pass<'_>, accepted: &Accepted, ready: &BTreeMap<InstanceAddr, PortSet>) -> Pods {
    let (facts, beside) = (pass.facts, pass.facts.pods_are_with_imports() && !ready.is_empty());
    let min_local = accepted.import.other_clusters.as_ref().and_then(|clusters| clusters.min_local);
    if min_local.is_none() || !accepted.imports {
        return Pods { beside, ..Pods::default() };
    }
    // Where pods stand in the slices of the imports too, clients find those that the API server takes there.
    let refused = &pass.checkpoint.refused;
    let is_refused = |addr: InstanceAddr| refused.standing(SliceGroup::from(addr), pass.now).is_some();
    let there = facts.mirrors().then(|| mirrored(pass));
    let family = facts.cluster.import_service.as_ref().filter(|_| facts.mirrors()).and_then(|s| s.families.first());
    let named = facts.named_pods();
    let (mut known, mut join) = (BTreeSet::new(), false);
    for addr in ready.keys().copied().filter(|addr| family.is_none_or(|family| addr.family() == *family)) {
        if there.as_ref().is_some_and(|there| !there.contains(&addr)) {
            if is_refused(addr) {
                continue;
            }
            join = true;
        }
        let pod = named.get(&(addr.ip(), addr.port())).and_then(|uids| uids.first());
        known.insert(pod.map_or(Identity::Address(addr.ip()), |uid| Identity::Pod(uid)));
    }
    Pods { beside, ready: known.len(), join, silent: facts.cluster.silent.slices }
}

/// The mirrored endpoints that our slices hold and that are ready there.
fn mirrored(pass: &Pass<'_>) -> BTreeSet<InstanceAddr> {
    let ours = pass.facts.cluster.our_slices.iter().filter(|slice| !slice.deleting);
    let all = ours.flat_map(|slice| slice.ports.iter().flat_map(|port| slice.at(port)));
    let ready = all.filter(|(_, endpoint)| endpoint.mirrored && endpoint.is_ready() && !endpoint.is_terminating());
    ready.map(|(addr, _)| addr).collect()
}
