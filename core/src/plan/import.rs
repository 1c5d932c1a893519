//! Import: foreign records of the registry become endpoints of the cluster.
//!
//! Owns which records become endpoints, and why the others do not. Refuses to know slices: how endpoints are
//! packed is [`crate::plan::slices`]. The Service and namespace never come from a record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Timestamp;
use crate::model::{Content, InstanceAddr, Kind, Reason, Record, RecordKey, Registration, Revision, Selector, Skipped};
use crate::plan::departures::Departures;
use crate::plan::earlier;
use crate::plan::trust::Trust;

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
    pub options: &'a Options,
    /// Addresses in slices of the Service that Twinspan does not manage, ready or not, at any of their ports.
    pub managed_by_others: &'a BTreeSet<(IpAddr, u16)>,
    pub trust: Trust<'a>,
    /// What the last plan returned.
    pub shadows: &'a Shadows,
    pub departures: &'a Departures,
    /// Endpoints in our slices now: only these are worth keeping.
    pub present: &'a BTreeSet<InstanceAddr>,
    /// Addresses that other RegisteredServices import into the same Service.
    pub rivals: &'a BTreeMap<InstanceAddr, Rival>,
    pub now: Timestamp,
}

/// What the RegisteredService asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Import what other clusters' Twinspan exported too.
    pub other_clusters: bool,
    pub tag_selector: Selector,
    /// A tag whose value becomes the zone; empty for none.
    pub zone_tag: String,
}

/// Another RegisteredService imports an address into the same Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// It is older than we are, so it has the address.
    pub older: bool,
    /// Its slices hold the address already.
    pub holds: bool,
}

/// What the Service's imported endpoints are, and what status says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// With the zone, where a tag says one.
    pub endpoints: BTreeMap<InstanceAddr, Option<String>>,
    /// How many of the endpoints stay only because nothing explains why their record is gone.
    pub held: usize,
    /// In key order, then what an older RegisteredService has.
    pub skipped: Vec<Skipped>,
    /// For the next plan's input.
    pub shadows: Shadows,
    pub look_again: Option<Timestamp>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = wanted(input);
    for (addr, rival) in input.rivals {
        let present = input.present.contains(addr);
        if rival.older && plan.endpoints.contains_key(addr) {
            plan.skipped.push(Skipped { instance: addr.to_string(), reason: Reason::Conflict });
            if rival.holds || !present {
                plan.endpoints.remove(addr);
            }
        } else if !rival.holds && present {
            // Until the other's slice holds it, it stays in ours: an endpoint never vanishes when it changes hands.
            plan.endpoints.entry(*addr).or_default();
        }
    }
    plan
}

/// What the endpoints would be if nobody else imported into the Service.
pub fn wanted(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    for (key, record) in input.records {
        match judge(input, record) {
            Verdict::Endpoint(addr, zone) => {
                if input.trust.pods.contains_key(&addr.ip()) {
                    plan.shadows.insert(key.clone(), record.mod_revision);
                }
                plan.endpoints.entry(addr).or_insert(zone);
            }
            Verdict::Shadowed => {
                plan.shadows.insert(key.clone(), record.mod_revision);
            }
            Verdict::Skip(reason) => {
                if reason == Reason::FormerEndpoint {
                    plan.shadows.insert(key.clone(), record.mod_revision);
                }
                plan.skipped.push(skipped(record, reason));
            }
            Verdict::Ours => {}
        }
    }
    for (addr, departure) in input.departures {
        let managed = input.managed_by_others.contains(&(addr.ip(), addr.port()));
        if managed || !input.present.contains(addr) || plan.endpoints.contains_key(addr) {
            continue;
        }
        // What is kept is still subject to trust: a pod that moved in at the address ends every hold.
        if input.trust.refusal(addr.ip()).is_some() {
            continue;
        }
        if let Some(until) = departure.holds_import(input.now) {
            plan.endpoints.insert(*addr, zone(input.options, &departure.registration));
            plan.held += 1;
            plan.look_again = earlier(plan.look_again, Some(until));
        }
    }
    plan
}

enum Verdict {
    Endpoint(InstanceAddr, Option<String>),
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
        Kind::OtherCluster if !input.options.other_clusters => return Verdict::Skip(Reason::OtherCluster),
        Kind::OtherCluster | Kind::Healed(_) | Kind::Foreign => {}
    }
    let (registration, addr) = match &record.content {
        Content::Registered { registration, addr: Ok(addr), .. } => (registration, *addr),
        Content::Registered { addr: Err(reason), .. } => return Verdict::Skip(*reason),
        Content::Undecodable(_) => return Verdict::Skip(Reason::Undecodable),
    };
    if input.managed_by_others.contains(&(addr.ip(), addr.port())) {
        return Verdict::Shadowed;
    }
    if !input.options.tag_selector.matches(&registration.tags) {
        return Verdict::Skip(Reason::NotSelected);
    }
    let is_pod = input.trust.pods.contains_key(&addr.ip());
    if !is_pod && input.shadows.get(&record.key) == Some(&record.mod_revision) {
        return Verdict::Skip(Reason::FormerEndpoint);
    }
    match input.trust.refusal(addr.ip()) {
        Some(reason) => Verdict::Skip(reason),
        None => Verdict::Endpoint(addr, zone(input.options, registration)),
    }
}

/// A zone is a label value in Kubernetes; a tag that is none is no zone.
fn zone(options: &Options, registration: &Registration) -> Option<String> {
    let zone = registration.tags.get(&options.zone_tag).filter(|_| !options.zone_tag.is_empty())?;
    let is_outer = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_outer(c) || matches!(c, '-' | '_' | '.');
    let legal = zone.starts_with(is_outer) && zone.ends_with(is_outer) && zone.chars().all(is_inner);
    (legal && zone.len() <= 63).then(|| zone.clone())
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
