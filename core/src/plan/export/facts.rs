//! The values that an export rests on, and those that it returns.
//!
//! Owns the nouns. Refuses to decide: [`super::desired`] decides about instances, [`super`] about records that no
//! instance needs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::share::ShareLimit;
use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{Instance, InstanceAddr, InstanceOutcome, Owner, RecordKey, Records, RegistryName};
use crate::plan::RecordOp;
use crate::plan::departure::Departures;
use crate::plan::departure::guard::{Guard, GuardContext, GuardDecision, Limits};
use crate::plan::trust::Trust;

/// Everything that the plan rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub layout: &'a Layout,
    pub owner: &'a Owner,
    /// `None` withdraws every record of the owner.
    pub name: Option<&'a RegistryName>,
    /// The instances that should be in the registry: ready endpoints at the chosen ports, in slices that Twinspan does
    /// not manage, in the order of their addresses. No two have one key.
    pub instances: &'a [Instance],
    /// Other addresses at which the server of an instance registered itself.
    pub aliases: &'a BTreeMap<InstanceAddr, (IpAddr, u16)>,
    /// Own records at these addresses stay as they are, although no instance asks for them. `None` where the instances
    /// are known.
    pub stays: Option<&'a BTreeSet<IpAddr>>,
    /// Every record under the name, by any writer.
    pub records: &'a Records,
    /// This owner's records under other names, from before the name was changed.
    pub under_other_names: &'a Records,
    /// Addresses that other RegisteredServices want to export under the name.
    pub contested: &'a BTreeMap<InstanceAddr, ContestedExport>,
    /// Records of this owner that another RegisteredService adopts: own ones under other names, and healed ones.
    pub to_release: &'a BTreeSet<RecordKey>,
    /// Whether the import decides about healed records of this owner under the name.
    pub imports: bool,
    /// The part of the traffic that the instances get beside records of others; `None` leaves their weights alone.
    pub share: Option<Share<'a>>,
    pub departures: &'a Departures,
    /// The proof that endpoints ended since the last plan.
    pub proof: Proof<'a>,
    pub limits: Limits,
    pub context: GuardContext<'a>,
    /// Until then only records go whose endpoint ended before our eyes: nothing explains the leader before us, which
    /// may be of another cluster with our ID and owners of the same names.
    pub grace_until: Option<Timestamp>,
    /// The service moved away from here: the addresses that are in its new place by now, whose records here go at once.
    /// `None` where the service is at home, or its new place is not known yet.
    pub moved: Option<&'a BTreeSet<InstanceAddr>>,
    pub state: &'a ExportState,
    /// Whether this process leads. Only a leader judges; the others keep evidence.
    pub leads: bool,
    pub now: Timestamp,
}

/// The part of the traffic that exported instances get.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// 1 to 99.
    pub percent: i64,
    /// Tells the records of others that count: a refused one does not.
    pub trust: Trust<'a>,
}

/// The proof that a missing endpoint ended.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// The RegisteredService was changed, so every deletion is intended.
    SpecChange,
    /// Watch events prove it, except for the addresses in `unseen`: no event showed the end of their pods, so a slice
    /// without them proves nothing.
    WatchEvent { unseen: &'a BTreeSet<IpAddr> },
    /// Only a list lacks the endpoints, which proves nothing.
    RelistOnly,
    /// The RegisteredService or its ServiceRegistry is gone, perhaps lost with others: only endpoints ended that are
    /// not `ready`.
    OwnerGone { ready: &'a BTreeSet<InstanceAddr> },
}

/// Another RegisteredService wants to export the same address under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContestedExport {
    /// The other RegisteredService precedes, so it has the address.
    Precedes,
    /// The other RegisteredService follows, so it waits.
    Follows,
}

/// The state that one plan hands to the next: evidence, and the judgements of the present leadership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportState {
    /// Own records whose endpoint is gone without proof that it ended, with the time at which a leader first missed it.
    pub departing: BTreeMap<InstanceAddr, Timestamp>,
    pub guard: Guard,
}

impl ExportState {
    /// The evidence without any judgement, for a leadership that begins now.
    pub fn evidence(self, now: Timestamp) -> Self {
        Self { departing: self.departing.into_keys().map(|addr| (addr, now)).collect(), guard: Guard::default() }
    }
}

/// The operations, and the outcome of each instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Creates, then updates, then deletes; each in key order.
    pub ops: Vec<RecordOp>,
    /// One for each address of each instance.
    pub instances: Vec<InstanceOutcome>,
    /// One for each address of each record that this cluster wrote and that no instance asks for.
    pub records: Vec<InstanceOutcome>,
    /// The guard's decision about own records whose endpoint is gone.
    pub guard: GuardDecision,
    /// A share that cannot be reached.
    pub share_limit: Option<ShareLimit>,
    pub state: ExportState,
    pub requeue_at: Option<Timestamp>,
}

impl Plan {
    /// Own records once the plan is applied.
    pub fn exported(&self) -> usize {
        self.instances.iter().filter(|instance| instance.counts && instance.outcome.is_exported()).count()
    }
}
