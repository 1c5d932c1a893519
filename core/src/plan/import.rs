//! Import: foreign records of the registry become endpoints of the cluster.
//!
//! Owns which records become endpoints, and why the others do not. What becomes of endpoints whose record is gone is
//! [`super::keep`]. Refuses to know slices: how endpoints are packed is [`super::slices`]. The Service and namespace never come from
//! a record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::SignedDuration;

use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{
    Content, InstanceAddr, Kind, Owner, PortSet, Reason, Record, RecordKey, Registration, Revision, Selector, Skipped,
};
use crate::plan::departures::{Departures, OnExpiry, Probe};
use crate::plan::guard::{Around, Guard, Limits, Ruling};
use crate::plan::keep::{self, Departing};
use crate::plan::trust::Trust;
use crate::plan::{RecordOp, earlier};

/// The longest `status.skipped[].instance`, in characters: records are written by strangers.
const MAX_SHOWN: usize = 200;

/// Records whose address is, or was, an endpoint that others manage: `mod_revision` by key. A dead pod's own record
/// outlives it by its TTL, and must not bring it back.
pub type Shadows = BTreeMap<RecordKey, Revision>;

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub layout: &'a Layout,
    pub owner: &'a Owner,
    /// Every record under the name, whosever it is.
    pub records: &'a BTreeMap<RecordKey, &'a Record>,
    pub options: &'a Options,
    /// Addresses in slices of the Service that Twinspan does not manage, ready or not, at any of their ports.
    pub managed_by_others: &'a BTreeSet<(IpAddr, u16)>,
    /// The Service has ready endpoints that Twinspan does not manage.
    pub others_ready: bool,
    pub trust: Trust<'a>,
    pub departures: &'a Departures,
    /// What the first list of this process showed: whether the registry had come back as another, or an older one.
    pub began_rolled_back: bool,
    /// Endpoints in our slices now.
    pub present: &'a BTreeMap<InstanceAddr, Present>,
    /// Addresses that other RegisteredServices import into the same Service.
    pub rivals: &'a BTreeMap<InstanceAddr, Rival>,
    /// Healed records of owners that went: ours to take over.
    pub inherited: &'a BTreeSet<RecordKey>,
    pub probes: &'a BTreeMap<InstanceAddr, Probe>,
    pub limits: Limits,
    pub around: Around<'a>,
    /// What the last plan returned.
    pub memory: &'a Memory,
    pub now: Timestamp,
}

/// What the RegisteredService asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The scheme of each port, empty where the format has none; at least one.
    pub schemes: Vec<String>,
    /// Import what other clusters' Twinspan exported too.
    pub other_clusters: bool,
    pub tag_selector: Selector,
    /// A tag whose value becomes the zone; empty for none.
    pub zone_tag: String,
    pub on_expiry: OnExpiry,
    /// How long an instance that lost its registration is kept while it accepts connections.
    pub keep_lost: SignedDuration,
}

/// An endpoint in our slices, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Under which ports; none where they are under the name of a port that is not asked for any more.
    pub ports: PortSet,
    pub zone: Option<String>,
    /// The slice was filled from the registry and the name that are in force now.
    pub from_here: bool,
    /// From the slice's annotation.
    pub lost_until: Option<Timestamp>,
}

/// Another RegisteredService imports an address into the same Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// It is older than we are, so it has the address.
    pub older: bool,
    /// Its slices hold the address already.
    pub holds: bool,
}

/// What one plan tells the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The endpoints that were wanted; `None` before the first plan of this process for this registry and name.
    pub known: Option<BTreeSet<InstanceAddr>>,
    pub shadows: Shadows,
    /// Endpoints that stay although their record is gone.
    pub departing: BTreeMap<InstanceAddr, Departing>,
    pub guard: Guard,
}

/// An endpoint that the Service should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub ports: PortSet,
    /// Where a tag says one.
    pub zone: Option<String>,
    /// It lost its registration, and stays until then while it accepts connections.
    pub lost_until: Option<Timestamp>,
}

/// What the Service's imported endpoints are, and what status says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub endpoints: BTreeMap<InstanceAddr, Imported>,
    /// Healed records: put back, brought up to date, or withdrawn.
    pub ops: Vec<RecordOp>,
    /// Endpoints that lost their registration and live.
    pub lost: BTreeSet<InstanceAddr>,
    /// Those of them whose registration we put back.
    pub healed: usize,
    /// Endpoints that stay until more is known, or because the guard has not let them go.
    pub waiting: usize,
    pub ruling: Ruling,
    /// Addresses to open connections to.
    pub probe: BTreeSet<InstanceAddr>,
    /// In key order, then what an older RegisteredService has.
    pub skipped: Vec<Skipped>,
    pub memory: Memory,
    pub look_again: Option<Timestamp>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = wanted(input);
    for (addr, rival) in input.rivals {
        let present = input.present.get(addr);
        if rival.older && plan.endpoints.contains_key(addr) {
            plan.skipped.push(Skipped { instance: addr.to_string(), reason: Reason::Conflict });
            if rival.holds || present.is_none() {
                plan.endpoints.remove(addr);
            }
        } else if let (false, Some(present)) = (rival.holds, present) {
            // Until the other's slice holds it, it stays in ours: an endpoint never vanishes when it changes hands.
            plan.endpoints.entry(*addr).or_insert_with(|| Imported {
                ports: present.ports,
                zone: present.zone.clone(),
                lost_until: None,
            });
        }
    }
    plan.endpoints.retain(|_, imported| !imported.ports.is_empty());
    plan
}

/// What the endpoints would be if nobody else imported into the Service.
pub fn wanted(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    for (key, record) in input.records {
        match judge(input, record) {
            Verdict::Endpoints(endpoints) => {
                for (addr, imported) in endpoints {
                    if input.trust.pods.contains_key(&addr.ip()) {
                        plan.memory.shadows.insert(key.clone(), record.mod_revision);
                    }
                    let entry = plan.endpoints.entry(addr).or_default();
                    entry.ports.insert(imported.ports);
                    entry.zone = entry.zone.take().or(imported.zone);
                }
            }
            Verdict::Shadowed => {
                plan.memory.shadows.insert(key.clone(), record.mod_revision);
            }
            Verdict::Skip(reason, instance) => {
                if reason == Reason::FormerEndpoint {
                    plan.memory.shadows.insert(key.clone(), record.mod_revision);
                }
                let shown = instance.unwrap_or_else(|| key.to_string());
                plan.skipped.push(Skipped { instance: shown.chars().take(MAX_SHOWN).collect(), reason });
            }
            Verdict::Ours => {}
        }
    }
    keep::keep(input, &mut plan);
    plan.memory.known = Some(plan.endpoints.keys().copied().collect());
    plan.look_again = earlier(plan.look_again, plan.ruling.look_again);
    plan
}

enum Verdict {
    Endpoints(Vec<(InstanceAddr, Imported)>),
    /// The cluster has this endpoint already, from somebody who knows its readiness.
    Shadowed,
    /// Exported by us: importing it again would keep it alive for ever. Or put back by us: that is a lost registration, whose
    /// endpoint [`keep`] judges.
    Ours,
    Skip(Reason, Option<String>),
}

fn judge(input: &Input<'_>, record: &Record) -> Verdict {
    match record.kind(&input.owner.cluster_id) {
        Kind::Own(_) => return Verdict::Ours,
        Kind::Healed(owner) if owner == input.owner || input.inherited.contains(&record.key) => return Verdict::Ours,
        Kind::Undecodable => return Verdict::Skip(Reason::Undecodable, None),
        Kind::OtherCluster if !input.options.other_clusters => {
            return Verdict::Skip(Reason::OtherCluster, shown(record));
        }
        Kind::OtherCluster | Kind::Healed(_) | Kind::Foreign => {}
    }
    let Content::Registered { registration, listeners, .. } = &record.content else {
        return Verdict::Skip(Reason::Undecodable, None);
    };
    if listeners.is_empty() {
        return Verdict::Skip(Reason::AddressMissing, None);
    }
    if !input.options.tag_selector.matches(&registration.tags) {
        return Verdict::Skip(Reason::NotSelected, shown(record));
    }
    let mut endpoints = Vec::new();
    let mut refused = None;
    let mut shadowed = false;
    for (place, scheme) in input.options.schemes.iter().enumerate() {
        // Kratos' clients take the first address with the scheme that they look for.
        let Some(listener) = listeners.iter().find(|listener| listener.scheme == *scheme) else { continue };
        let verdict = listener.addr.and_then(|addr| address(input, record, addr));
        match verdict {
            Ok(Some(addr)) => {
                let zone = zone(input.options, registration);
                endpoints.push((addr, Imported { ports: PortSet::of(place), zone, lost_until: None }));
            }
            Ok(None) => shadowed = true,
            Err(reason) => {
                refused.get_or_insert((reason, listener.text.clone()));
            }
        }
    }
    match refused {
        _ if !endpoints.is_empty() => Verdict::Endpoints(endpoints),
        Some((reason, text)) => Verdict::Skip(reason, Some(text).filter(|text| !text.is_empty())),
        None if shadowed => Verdict::Shadowed,
        None => Verdict::Skip(Reason::NoSuchScheme, shown(record)),
    }
}

/// `None` where the cluster has the endpoint already.
fn address(input: &Input<'_>, record: &Record, addr: InstanceAddr) -> Result<Option<InstanceAddr>, Reason> {
    if input.managed_by_others.contains(&(addr.ip(), addr.port())) {
        return Ok(None);
    }
    let is_pod = input.trust.pods.contains_key(&addr.ip());
    if !is_pod && input.memory.shadows.get(&record.key) == Some(&record.mod_revision) {
        return Err(Reason::FormerEndpoint);
    }
    match input.trust.refusal(addr.ip()) {
        Some(reason) => Err(reason),
        None => Ok(Some(addr)),
    }
}

fn shown(record: &Record) -> Option<String> {
    record.listeners().first().map(|listener| listener.text.clone()).filter(|text| !text.is_empty())
}

/// A zone is a label value in Kubernetes; a tag that is none is no zone.
pub(super) fn zone(options: &Options, registration: &Registration) -> Option<String> {
    let zone = registration.tags.get(&options.zone_tag).filter(|_| !options.zone_tag.is_empty())?;
    let is_outer = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_outer(c) || matches!(c, '-' | '_' | '.');
    let legal = zone.starts_with(is_outer) && zone.ends_with(is_outer) && zone.chars().all(is_inner);
    (legal && zone.len() <= 63).then(|| zone.clone())
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
