//! Import: foreign records of the registry become endpoints of the cluster.
//!
//! Owns which records become endpoints, and why the others do not. Refuses to know slices: how endpoints are
//! packed is [`crate::plan::slices`]. The Service and namespace never come from a record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Timestamp;
use crate::model::{Content, InstanceAddr, Kind, Reason, Record, RecordKey, Revision, Skipped};
use crate::plan::departures::Departures;
use crate::plan::earlier;

/// The longest `status.skipped[].instance`, in characters: records are written by strangers.
const MAX_SHOWN: usize = 200;

/// Records whose address is, or was, an endpoint that others manage: `mod_revision` by key. A dead pod's own record
/// outlives it by its TTL, and must not bring it back.
pub type Shadows = BTreeMap<RecordKey, Revision>;

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub cluster_id: &'a str,
    /// Every record under the name, whosever it is.
    pub records: &'a BTreeMap<RecordKey, &'a Record>,
    /// Import what other clusters' Twinspan exported too.
    pub other_clusters: bool,
    /// Addresses in slices of the Service that Twinspan does not manage, ready or not, at any of their ports.
    pub managed_by_others: &'a BTreeSet<(IpAddr, u16)>,
    /// What the last plan returned.
    pub shadows: &'a Shadows,
    pub departures: &'a Departures,
    /// Endpoints in our slices now: only these are worth keeping.
    pub present: &'a BTreeSet<InstanceAddr>,
    pub now: Timestamp,
}

/// What the Service's imported endpoints are, and what status says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub endpoints: BTreeSet<InstanceAddr>,
    /// How many of the endpoints stay only because nothing explains why their record is gone.
    pub held: usize,
    /// In key order.
    pub skipped: Vec<Skipped>,
    /// For the next plan's input.
    pub shadows: Shadows,
    pub look_again: Option<Timestamp>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    for (key, record) in input.records {
        match judge(input, record) {
            Verdict::Endpoint(addr) => {
                plan.endpoints.insert(addr);
            }
            Verdict::Shadowed => {
                plan.shadows.insert(key.clone(), record.mod_revision);
            }
            Verdict::Skip(Reason::FormerEndpoint) => {
                plan.shadows.insert(key.clone(), record.mod_revision);
                plan.skipped.push(skipped(record, Reason::FormerEndpoint));
            }
            Verdict::Skip(reason) => plan.skipped.push(skipped(record, reason)),
            Verdict::Ours => {}
        }
    }
    for (addr, departure) in input.departures {
        let managed = input.managed_by_others.contains(&(addr.ip(), addr.port()));
        if managed || !input.present.contains(addr) || plan.endpoints.contains(addr) {
            continue;
        }
        if let Some(until) = departure.holds_import(input.now) {
            plan.endpoints.insert(*addr);
            plan.held += 1;
            plan.look_again = earlier(plan.look_again, Some(until));
        }
    }
    plan
}

enum Verdict {
    Endpoint(InstanceAddr),
    /// The cluster has this endpoint already, from somebody who knows its readiness.
    Shadowed,
    /// Exported by us: importing it again would keep it alive for ever.
    Ours,
    Skip(Reason),
}

fn judge(input: &Input<'_>, record: &Record) -> Verdict {
    match record.kind(input.cluster_id) {
        Kind::Own(_) => return Verdict::Ours,
        Kind::Undecodable => return Verdict::Skip(Reason::Undecodable),
        Kind::OtherCluster if !input.other_clusters => return Verdict::Skip(Reason::OtherCluster),
        Kind::OtherCluster | Kind::Healed(_) | Kind::Foreign => {}
    }
    let addr = match &record.content {
        Content::Registered { addr: Ok(addr), .. } => *addr,
        Content::Registered { addr: Err(reason), .. } => return Verdict::Skip(*reason),
        Content::Undecodable(_) => return Verdict::Skip(Reason::Undecodable),
    };
    if input.managed_by_others.contains(&(addr.ip(), addr.port())) {
        Verdict::Shadowed
    } else if input.shadows.get(&record.key) == Some(&record.mod_revision) {
        Verdict::Skip(Reason::FormerEndpoint)
    } else {
        Verdict::Endpoint(addr)
    }
}

fn skipped(record: &Record, reason: Reason) -> Skipped {
    let shown = match &record.content {
        Content::Registered { registration, .. } if !registration.address.is_empty() => registration.address.clone(),
        _ => record.key.to_string(),
    };
    Skipped { instance: shown.chars().take(MAX_SHOWN).collect(), reason }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
