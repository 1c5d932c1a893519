//! The values that the import rests on, and those that it returns.
//!
//! Owns the choices of the RegisteredService about imports, and the zone of a registration. Refuses to decide:
//! [`super`] decides about records, [`super::departed`] about endpoints whose record is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;

use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{
    Family, InstanceAddr, InstanceOutcome, Owner, PortSet, Record, RecordKey, Records, Registration, Selector, Written,
};
use crate::plan::RecordOp;
use crate::plan::departure::guard::{Guard, GuardContext, GuardDecision, Limits};
use crate::plan::departure::{Departures, Evidence, OnExpiry, Probe};
use crate::plan::slices::Refusals;
use crate::plan::trust::Trust;

/// Records whose address is, or was, that of a pod, and the write of each. A dead pod's own record outlives it by its
/// TTL, and must not bring it back. A server whose address somebody wrote into a slice or into Endpoints lives on
/// without them, so its record casts no shadow.
pub type Shadows = BTreeMap<RecordKey, Written>;

/// Everything that the plan rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub layout: &'a Layout,
    pub owner: &'a Owner,
    /// Every record under the name, by any writer.
    pub records: &'a Records,
    pub options: &'a Options,
    /// The IP families that the Service serves.
    pub families: &'a [Family],
    /// Addresses in slices of the Service that Twinspan does not manage, ready or not, at any of their ports.
    pub managed_by_others: &'a BTreeSet<(IpAddr, u16)>,
    /// The ones among them that name a pod.
    pub pods_of_others: &'a BTreeSet<(IpAddr, u16)>,
    pub pods: Pods,
    pub trust: Trust<'a>,
    pub departures: &'a Departures,
    /// Whether this process leads. Only a leader judges; the others keep evidence.
    pub leads: bool,
    /// Whether the first list of this process came from another registry, or from an older state of it.
    pub started_after_rollback: bool,
    /// Whether the records of the first plan may be of pods that died before this process looked: it synced before, and
    /// no Node says which addresses are pods'.
    pub may_be_dead: bool,
    /// Endpoints in our slices now.
    pub present: &'a BTreeMap<InstanceAddr, Present>,
    /// The groups of slices that the API server refuses.
    pub refused: &'a Refusals,
    /// Addresses that other RegisteredServices import into the same Service.
    pub contested: &'a BTreeMap<InstanceAddr, ContestedImport>,
    /// Healed records that we adopt, because their owners are gone.
    pub to_adopt: &'a BTreeSet<RecordKey>,
    pub probes: &'a BTreeMap<InstanceAddr, Probe>,
    pub limits: Limits,
    pub context: GuardContext<'a>,
    /// The state that the last plan returned.
    pub state: &'a ImportState,
    pub now: Timestamp,
}

/// The choices of the RegisteredService.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The scheme of each port, empty where the format has none; at least one.
    pub schemes: Vec<String>,
    /// The exports of other clusters' Twinspan that are imported too; `None` for none of them.
    pub other_clusters: Option<OtherClusters>,
    pub tag_selector: Selector,
    /// A tag whose value becomes the zone; empty for none.
    pub zone_tag: String,
    pub on_expiry: OnExpiry,
    /// An instance that lost its registration is kept this long while it accepts connections.
    pub keep_lost: SignedDuration,
}

impl Options {
    /// The zone that a registration's tag names. A zone is a label value in Kubernetes; a tag that is not a legal one
    /// names no zone.
    pub fn zone(&self, registration: &Registration) -> Option<String> {
        if self.zone_tag.is_empty() {
            return None;
        }
        let zone = registration.tags.get(&self.zone_tag)?;
        let is_outer = |c: char| c.is_ascii_alphanumeric();
        let is_inner = |c: char| is_outer(c) || matches!(c, '-' | '_' | '.');
        let legal = zone.starts_with(is_outer) && zone.ends_with(is_outer) && zone.chars().all(is_inner);
        (legal && zone.len() <= 63).then(|| zone.clone())
    }
}

/// The exports of other clusters that are imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherClusters {
    /// The IDs of these clusters; empty for all.
    pub names: BTreeSet<String>,
    /// The instances of this cluster that are enough: below that number those of others are imported too. `None`
    /// imports them always.
    pub min_local: Option<usize>,
}

impl OtherClusters {
    /// Whether the exporter of a record is one of them. A mark that nobody can read names none.
    pub fn include(&self, record: &Record) -> bool {
        self.names.is_empty() || record.exporter().is_some_and(|name| self.names.contains(name))
    }
}

/// The ready endpoints of the Service that Twinspan does not manage, most of them pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Whether one of them is an endpoint of the Service into which records are imported.
    pub beside: bool,
    /// The number of them: a pod with several addresses counts once. 0 where nobody asks for it.
    pub ready: usize,
    /// Whether one of them joins the imports in their slice in this pass.
    pub join: bool,
    /// Whether EndpointSlices were not heard of for long, so that they may have ended.
    pub silent: bool,
}

/// An endpoint in our slices, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The ports that it serves; none if the slice has the name of a port that is no longer chosen.
    pub ports: PortSet,
    pub zone: Option<String>,
    /// Whether the slice was filled from the registry and the name that are in force now.
    pub from_here: bool,
    /// From the slice's annotation.
    pub lost_until: Option<Timestamp>,
}

/// Another RegisteredService imports an address into the same Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContestedImport {
    /// Whether the other one precedes, so that it has the address.
    pub precedes: bool,
    /// Whether its slices hold the address already.
    pub holds: bool,
}

/// The state that one plan hands to the next: evidence, and the judgements of the present leadership. Slices and
/// records say which endpoints exist; this state only explains them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportState {
    /// The time of the first plan of this leadership for this registry and name; `None` while nothing was judged.
    pub judging_since: Option<Timestamp>,
    pub shadows: Shadows,
    /// Records that the first plan found, and whose servers have not been asked; `None` before that plan.
    pub doubted: Option<Shadows>,
    /// Endpoints in our slices whose record is gone, with the evidence.
    pub departing: BTreeMap<InstanceAddr, DepartedEndpoint>,
    pub guard: Guard,
    /// The time since which enough instances of this cluster are there again, while those of others are there too.
    pub local_since: Option<Timestamp>,
    /// Endpoints that the last plan gave up, and that stay only until the slices of another RegisteredService hold them
    /// ([`Plan::yielded`]), with the time of their departure and its evidence. The other one weighs the claim after
    /// that plan, and must come to the same end; other evidence is judged anew.
    pub given_up: BTreeMap<InstanceAddr, (Timestamp, Evidence)>,
}

impl ImportState {
    /// The evidence without any judgement.
    pub fn evidence(mut self) -> Self {
        self.departing.retain(|_, departed| departed.evidence != Evidence::NoRecordAtStart);
        self.departing.values_mut().for_each(|departed| departed.lost_until = None);
        Self { judging_since: None, guard: Guard::default(), given_up: BTreeMap::new(), local_since: None, ..self }
    }
}

/// An endpoint whose record is gone, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepartedEndpoint {
    pub evidence: Evidence,
    pub at: Timestamp,
    /// Whether this process saw the record go then; if not, the record had gone before, and was missing then.
    pub saw: bool,
    /// The last state of the record; `None` if this process never saw it.
    pub record: Option<Arc<Record>>,
    pub lost_until: Option<Timestamp>,
}

/// An endpoint that the Service should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub ports: PortSet,
    /// The zone, if a tag names one.
    pub zone: Option<String>,
    /// The deadline of an endpoint that lost its registration, and stays while it accepts connections.
    pub lost_until: Option<Timestamp>,
}

/// The endpoints that the Service should have from the registry, and the outcome of each instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub endpoints: BTreeMap<InstanceAddr, Imported>,
    /// Operations on healed records: put back, brought up to date, or withdrawn.
    pub ops: Vec<RecordOp>,
    /// Endpoints that stay only until the slices of another RegisteredService hold them. Its pass may find no change
    /// that would show this: time, or the answer to a connection, ends a claim.
    pub yielded: BTreeSet<InstanceAddr>,
    /// One for each endpoint.
    pub outcomes: Vec<InstanceOutcome>,
    /// Records that are left out, in key order, then instances of other clusters that stand by, and addresses that a
    /// RegisteredService which precedes has.
    pub skipped: Vec<InstanceOutcome>,
    /// Endpoints in our slices that leave because enough instances of this cluster are there: no departures.
    pub stood_back: BTreeSet<InstanceAddr>,
    /// The guard's decision about endpoints without a record.
    pub guard: GuardDecision,
    /// Addresses to open connections to.
    pub probe: BTreeSet<InstanceAddr>,
    pub state: ImportState,
    pub requeue_at: Option<Timestamp>,
}

/// The endpoints that stay although their record is gone.
#[derive(Clone, Debug, Default)]
pub struct Departed {
    pub kept: BTreeMap<InstanceAddr, DepartedEndpoint>,
    /// Endpoints that lost their registration and live.
    pub lost: BTreeSet<InstanceAddr>,
    /// Endpoints that stay until more is known.
    pub(super) waiting: BTreeSet<InstanceAddr>,
    pub guard: GuardDecision,
    pub guard_state: Guard,
    pub probe: BTreeSet<InstanceAddr>,
    /// Endpoints whose registration is, or is about to be, put back.
    pub healed: BTreeSet<InstanceAddr>,
    pub requeue_at: Option<Timestamp>,
}

impl Departed {
    /// Whether the endpoint waits for more evidence or for the guard.
    pub fn waits(&self, addr: &InstanceAddr) -> bool {
        self.waiting.contains(addr) || self.guard.held.contains(addr)
    }
}
