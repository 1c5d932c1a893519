//! The endpoints of records, those of other clusters apart where this cluster comes first.
//!
//! Owns the count of this cluster's instances: ready pods, and servers' own records whose endpoint the cluster takes.
//! An endpoint without a record, lost or held, is not one of them, and neither is a lost registration that somebody put
//! back. Refuses to judge marks, and to know when others come and leave: [`super::preference`] has the rule.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Imported, Input, Plan};
use super::preference::{self, Others};
use crate::model::{InstanceAddr, InstanceOutcome, Outcome};
use crate::plan::earlier;
use crate::plan::slices::SliceGroup;

/// The writer of a record that becomes an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The server itself, or a person.
    Server,
    /// The Twinspan of another cluster exported it.
    OtherCluster,
    /// A Twinspan put it back for its server.
    Healed,
}

type Endpoints = Vec<(InstanceAddr, Imported)>;

/// The endpoints of all records that become some.
#[derive(Debug, Default)]
pub(super) struct Found {
    endpoints: Endpoints,
    /// One address of each server's own record.
    local: BTreeSet<InstanceAddr>,
    /// The endpoints of each record that another cluster exported.
    others: Vec<Endpoints>,
}

impl Input<'_> {
    /// The instances of this cluster that are enough; `None` where those of others are imported alike, or not at all.
    pub(super) fn min_local(&self) -> Option<usize> {
        self.options.other_clusters.as_ref()?.min_local
    }

    /// Whether the cluster takes the endpoint, as far as it is known.
    fn takes(&self, addr: InstanceAddr) -> bool {
        self.present.contains_key(&addr) || self.refused.standing(SliceGroup::from(addr), self.now).is_none()
    }

    /// Whether the plan adds this endpoint of a record to our slices.
    fn adds(&self, addr: InstanceAddr) -> bool {
        let elsewhere = self.contested.get(&addr).is_some_and(|contest| contest.precedes);
        !self.present.contains_key(&addr) && !elsewhere && self.takes(addr)
    }
}

impl Found {
    pub(super) fn add(&mut self, input: &Input<'_>, origin: Origin, endpoints: Endpoints) {
        if input.min_local().is_none() {
            self.endpoints.extend(endpoints);
            return;
        }
        match origin {
            Origin::OtherCluster => self.others.push(endpoints),
            Origin::Healed => self.endpoints.extend(endpoints),
            Origin::Server => {
                self.local.extend(endpoints.iter().map(|(addr, _)| *addr).find(|addr| input.takes(*addr)));
                self.endpoints.extend(endpoints);
            }
        }
    }

    /// Enters the endpoints, and those of other clusters that stand by.
    pub(super) fn enter(self, input: &Input<'_>, plan: &mut Plan) {
        plan.endpoints = by_address(self.endpoints);
        let Some(min_local) = input.min_local() else { return };
        // An address that a server registered itself is this cluster's, whoever else names it.
        let mut others: Vec<Endpoints> = self.others;
        others.iter_mut().for_each(|record| record.retain(|(addr, _)| !plan.endpoints.contains_key(addr)));
        let there = |(addr, _): &(InstanceAddr, Imported)| input.present.contains_key(addr);
        let others_are_there = others.iter().flatten().any(there);
        let local = input.pods.ready + self.local.len();
        let decision = preference::decide(&preference::Input {
            min_local,
            local,
            others_are_there,
            adds_local: others_are_there && (input.pods.join || plan.endpoints.keys().any(|addr| input.adds(*addr))),
            judges: input.leads && !input.pods.silent,
            since: input.state.local_since,
            now: input.now,
        });
        plan.state.local_since = decision.since;
        plan.requeue_at = earlier(plan.requeue_at, decision.requeue_at);
        let joins = |endpoint: &(InstanceAddr, Imported)| match decision.others {
            Others::All => true,
            Others::Present => there(endpoint),
            Others::None => false,
        };
        let mut known = BTreeSet::new();
        let mut joined = Endpoints::new();
        for record in others {
            let mut counts = true;
            for endpoint in record {
                if joins(&endpoint) {
                    joined.push(endpoint);
                } else if known.insert(endpoint.0) {
                    plan.stood_back.extend(there(&endpoint).then_some(endpoint.0));
                    let outcome = Outcome::Standby { local, min_local };
                    plan.skipped.push(InstanceOutcome { counts, ..InstanceOutcome::of(endpoint.0, outcome) });
                }
                counts = false;
            }
        }
        plan.endpoints.extend(by_address(joined));
    }
}

/// The endpoints of records; several records of one address, in key order, add up. Sorted values become a map at once;
/// one by one, each would be searched for.
fn by_address(mut found: Vec<(InstanceAddr, Imported)>) -> BTreeMap<InstanceAddr, Imported> {
    found.sort_by_key(|(addr, _)| *addr);
    found.dedup_by(|(addr, then), (first, imported)| {
        let same = addr == first;
        if same {
            imported.ports.insert(then.ports);
            imported.zone = imported.zone.take().or_else(|| then.zone.take());
        }
        same
    });
    found.into_iter().collect()
}

#[cfg(test)]
#[path = "others_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "others_tests.rs"]
mod tests;
