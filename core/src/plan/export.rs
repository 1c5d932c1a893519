//! Export: ready endpoints of the cluster become own records in the registry.
//!
//! Owns the rule about which endpoints have an own record, and the compare-and-swap operations that lead there. Refuses
//! to touch a record that this cluster does not own, and to know slices, leases or batches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Timestamp;
use crate::codec::Layout;
use crate::model::{
    Content, Instance, InstanceAddr, InstanceOutcome, Kind, LeaseId, MAX_VALUE, Mark, Outcome, Owner, Reason, Record,
    RecordKey, Records, Registration, RegistryName, named_address,
};
use crate::plan::departure::Departures;
use crate::plan::departure::guard::{Guard, GuardContext, GuardDecision, GuardInput, Limits, Unexplained};
use crate::plan::{RecordOp, earlier};

/// Everything that the plan rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub layout: &'a Layout,
    pub owner: &'a Owner,
    /// `None` withdraws every record of the owner.
    pub name: Option<&'a RegistryName>,
    /// The instances that should be in the registry: ready endpoints at the chosen ports, in slices that Twinspan does
    /// not manage.
    pub instances: &'a [Instance],
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
    /// The other RegisteredService is older, so it has the address.
    Older,
    /// The other RegisteredService is younger, so it waits.
    Younger,
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
    pub state: ExportState,
    pub requeue_at: Option<Timestamp>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let registered = registered_by_others(input);
    let desired = desired(input, &registered, &mut plan);

    let of_siblings = of_siblings(input);
    let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for (key, (instance, says)) in &desired {
        let value = || input.layout.encode(says);
        match input.records.get(key) {
            None => creates.push(RecordOp::Create { key: key.clone(), value: value() }),
            // One update moves a record that we adopt from its former owner to us, and makes a healed one an export. An
            // own record without a lease would outlive every process; writing it again gives it one.
            Some(record) if record.lease == LeaseId::NONE || !is_said(input, record, says) => {
                let (if_revision, lease) = (record.mod_revision, record.lease);
                updates.push(RecordOp::Update { key: key.clone(), value: value(), if_revision, lease });
            }
            Some(_) => {}
        }
        deletes.extend(replaced_by(&of_siblings, key, instance));
    }
    let staying = stay(input, &mut plan);
    let (mut at_once, unproven): (Vec<&Record>, Unproven<'_>) =
        superfluous(input, &registered, &desired, &awaited(&plan));
    if let Some(until) = input.grace_until {
        deletes.clear();
        spare(input, &mut plan, &mut at_once, &unproven, until);
    } else {
        ask_guard(input, &mut plan, &unproven, desired.len() + staying);
    }
    let allowed = &plan.guard.allowed;
    at_once.extend(unproven.into_iter().filter(|(addr, _)| allowed.contains(addr)).flat_map(|(_, records)| records));
    deletes.extend(at_once.into_iter().map(delete));
    deletes.sort_by(|a, b| a.key().cmp(b.key()));
    deletes.dedup();
    plan.records = record_outcomes(input, &plan, &deletes);
    // Creates precede deletes, so that a client that reads in between never finds too few instances.
    plan.ops = creates;
    plan.ops.append(&mut updates);
    plan.ops.append(&mut deletes);
    plan
}

/// Enters the own records that stay as they are. Returns their number.
fn stay(input: &Input<'_>, plan: &mut Plan) -> usize {
    let own = |record: &&Record| record.own(&input.owner.cluster_id) == Some(input.owner) && stays(input, record);
    let staying: Vec<&Record> = input.records.values().map(AsRef::as_ref).filter(own).collect();
    for record in &staying {
        let exported = |addr| InstanceOutcome::of(addr, Outcome::Exported { key: record.key.clone() });
        let each = record.endpoint_addresses().map(exported).enumerate();
        plan.instances.extend(each.map(|(n, instance)| InstanceOutcome { counts: n == 0, ..instance }));
    }
    staying.len()
}

fn stays(input: &Input<'_>, record: &Record) -> bool {
    let moved = |addr: &InstanceAddr| input.moved.is_some_and(|moved| moved.contains(addr));
    let mut addresses = record.endpoint_addresses();
    input.stays.is_some_and(|stays| addresses.any(|addr| stays.contains(&addr.ip()) && !moved(&addr)))
}

fn delete(record: &Record) -> RecordOp {
    RecordOp::Delete { key: record.key.clone(), if_revision: record.mod_revision, lease: record.lease }
}

/// Whether the record already has the content to be written. Decoded values are compared, because Go and Rust escape
/// bytes differently.
fn is_said(input: &Input<'_>, record: &Record, says: &Registration) -> bool {
    match &record.content {
        Content::Registered { registration, mark: Mark::Owned(owner), .. } => {
            owner == input.owner && registration == says
        }
        _ => false,
    }
}

/// Records that other RegisteredServices of this cluster own, by their addresses.
type OfSiblings<'a> = BTreeMap<InstanceAddr, Vec<&'a Record>>;

fn of_siblings<'a>(input: &Input<'a>) -> OfSiblings<'a> {
    let mut by_address = OfSiblings::new();
    for record in input.records.values() {
        if record.own(&input.owner.cluster_id).is_some_and(|owner| owner != input.owner) {
            for addr in record.endpoint_addresses() {
                by_address.entry(addr).or_default().push(record.as_ref());
            }
        }
    }
    by_address
}

/// If keys name their owner, a change of owner is a new key beside the old one: both are in one batch.
fn replaced_by<'a>(
    of_siblings: &'a OfSiblings<'_>,
    key: &'a RecordKey,
    instance: &'a Instance,
) -> impl Iterator<Item = RecordOp> + 'a {
    let same = instance.addresses().filter_map(|addr| of_siblings.get(&addr)).flatten();
    same.filter(move |record| record.key != *key).map(|record| delete(record))
}

/// Records without proof that their endpoint ended, by its address: one owner may have several, under former names.
type Unproven<'a> = BTreeMap<InstanceAddr, Vec<&'a Record>>;

/// Own records that no instance needs: those to delete now, and by address those without proof that their endpoint
/// ended.
fn superfluous<'a>(
    input: &Input<'a>,
    registered: &Registered,
    desired: &Desired<'_>,
    awaited: &BTreeSet<InstanceAddr>,
) -> (Vec<&'a Record>, Unproven<'a>) {
    let (mut at_once, mut unproven) = (Vec::new(), Unproven::new());
    let owner_gone = matches!(input.proof, Proof::OwnerGone { .. });
    let exported: BTreeSet<InstanceAddr> = desired.values().flat_map(|(instance, _)| instance.addresses()).collect();
    for (key, record) in input.records.iter().chain(input.under_other_names) {
        let here = input.name.is_some() && input.records.contains_key(key);
        let ours = match record.kind(&input.owner.cluster_id) {
            Kind::Own(owner) => owner == input.owner,
            Kind::Healed(owner) => owner == input.owner && !(here && input.imports),
            _ => false,
        };
        if !ours || desired.contains_key(key) || stays(input, record) || is_released(input, registered, record) {
            continue;
        }
        let registered = record.endpoint_addresses().any(|addr| registered.contains_key(&(addr.ip(), addr.port())));
        // The instance of an outdated key has another key now.
        let renamed = record.endpoint_addresses().any(|addr| exported.contains(&addr));
        // A record under another name stays until the one under the name in force is there.
        if !here && record.endpoint_addresses().any(|addr| awaited.contains(&addr)) {
            continue;
        }
        let moved = record.endpoint_addresses().any(|addr| input.moved.is_some_and(|moved| moved.contains(&addr)));
        // A healed record stands for no endpoint of the cluster, so no end of one has to be proven.
        let healed = record.own(&input.owner.cluster_id).is_none();
        let first = record.endpoint_addresses().next();
        match first {
            Some(addr)
                if (here || owner_gone) && !healed && !registered && !renamed && !moved && !is_proven(input, addr) =>
            {
                unproven.entry(addr).or_default().push(record.as_ref());
            }
            _ => at_once.push(record.as_ref()),
        }
    }
    (at_once, unproven)
}

/// Addresses that are exported soon, but are not under the name in force yet.
fn awaited(plan: &Plan) -> BTreeSet<InstanceAddr> {
    let awaited =
        |instance: &&InstanceOutcome| matches!(instance.outcome, Outcome::ToBeExported | Outcome::ExportDelayed { .. });
    plan.instances.iter().filter(awaited).filter_map(|instance| instance.subject.address()).collect()
}

/// An address that already waits for the guard keeps waiting, even if this plan has proof for others.
fn is_proven(input: &Input<'_>, addr: InstanceAddr) -> bool {
    let proven = match input.proof {
        Proof::SpecChange => true,
        Proof::WatchEvent { unseen } => !unseen.contains(&addr.ip()),
        Proof::RelistOnly => false,
        // An endpoint that ended while its record was held does not wait any longer.
        Proof::OwnerGone { ready } => return !ready.contains(&addr),
    };
    proven && !input.state.departing.contains_key(&addr)
}

/// Leaves records alone whose endpoint did not end before our eyes.
fn spare(input: &Input<'_>, plan: &mut Plan, at_once: &mut Vec<&Record>, unproven: &Unproven<'_>, until: Timestamp) {
    let ready: BTreeSet<InstanceAddr> = input.instances.iter().flat_map(Instance::addresses).collect();
    let spared_at_once = |record: &&Record| {
        let addr = record.endpoint_addresses().next();
        let watched = matches!(input.proof, Proof::WatchEvent { .. });
        let here = input.name.is_some() && input.records.contains_key(&record.key);
        !(watched && here && addr.is_some_and(|addr| !ready.contains(&addr) && is_proven(input, addr)))
    };
    let spared: Vec<&Record> = at_once.extract_if(.., |record| spared_at_once(record)).collect();
    let since = |addr: &InstanceAddr| input.state.departing.get(addr).copied().unwrap_or(input.now);
    let waiting = spared.iter().filter_map(|record| record.endpoint_addresses().next()).chain(unproven.keys().copied());
    plan.state.departing = waiting.map(|addr| (addr, since(&addr))).collect();
    plan.state.guard = input.state.guard.clone();
    if !plan.state.departing.is_empty() || !spared.is_empty() {
        plan.requeue_at = earlier(plan.requeue_at, Some(until));
    }
}

fn ask_guard(input: &Input<'_>, plan: &mut Plan, unproven: &Unproven<'_>, desired: usize) {
    let since = |addr: &InstanceAddr| input.state.departing.get(addr).copied().unwrap_or(input.now);
    let unexplained: BTreeMap<InstanceAddr, Unexplained> =
        unproven.keys().map(|addr| (*addr, Unexplained { since: since(addr), rollback: false })).collect();
    plan.state.departing = unexplained.iter().map(|(addr, unexplained)| (*addr, unexplained.since)).collect();
    if !input.leads {
        return;
    }
    let mut guard = input.state.guard.clone();
    // A record without an address that a client can dial leaves the service as empty as none.
    let is_foreign = |record: &Record| matches!(record.kind(&input.owner.cluster_id), Kind::Foreign);
    let foreign = input.records.values().any(|record| is_foreign(record) && record.client_addresses().next().is_some());
    plan.guard = guard.decide(&GuardInput {
        unexplained: &unexplained,
        known: desired + unexplained.len(),
        would_be_empty: desired == 0 && !foreign && !matches!(input.proof, Proof::OwnerGone { .. }),
        limits: input.limits,
        context: input.context,
        now: input.now,
    });
    plan.requeue_at = earlier(plan.requeue_at, plan.guard.requeue_at);
    plan.state.guard = guard;
}

/// Another RegisteredService adopts this record of ours in one update; deleting it first would leave a gap.
fn is_released(input: &Input<'_>, registered: &Registered, record: &Record) -> bool {
    let is_registered = record.endpoint_addresses().any(|addr| registered.contains_key(&(addr.ip(), addr.port())));
    let contested = input.records.contains_key(&record.key)
        && record.endpoint_addresses().any(|addr| input.contested.contains_key(&addr));
    input.to_release.contains(&record.key) || (contested && !is_registered)
}

type Desired<'a> = BTreeMap<RecordKey, (&'a Instance, Registration)>;

fn desired<'a>(input: &Input<'a>, registered: &Registered<'_>, plan: &mut Plan) -> Desired<'a> {
    let mut desired = BTreeMap::new();
    let Some(name) = input.name else { return desired };
    let own = own_by_address(input);
    for instance in input.instances {
        let outcome = match placement(input, registered, name, instance) {
            Ok(key) => {
                let exported = instance.addresses().find_map(|addr| own.get(&addr));
                let registration = input.layout.registration(name, input.owner, instance);
                if is_too_long(input.layout, &registration) {
                    Outcome::Skipped(Reason::Undecodable)
                } else {
                    desired.insert(key, (instance, registration));
                    exported.map_or(Outcome::ToBeExported, |key| Outcome::Exported { key: (*key).clone() })
                }
            }
            Err(outcome) => outcome,
        };
        let delayed = match outcome {
            Outcome::ExportDelayed { until } => Some(until),
            _ => None,
        };
        plan.requeue_at = earlier(plan.requeue_at, delayed);
        // The address that names the instance counts; others follow it.
        for addr in instance.addresses().collect::<BTreeSet<_>>() {
            let (counts, held) = (addr == instance.addr, delayed.is_some());
            plan.instances.push(InstanceOutcome { held, counts, ..InstanceOutcome::of(addr, outcome.clone()) });
        }
    }
    desired
}

/// Whether nobody would read the record, ourselves included: with nearly all tags that the CRD allows, all of them
/// long.
fn is_too_long(layout: &Layout, registration: &Registration) -> bool {
    /// JSON escapes a byte with six at most.
    const ESCAPED: usize = 6;
    let tags: usize = registration.tags.iter().map(|(tag, value)| tag.len() + value.len()).sum();
    tags > MAX_VALUE / ESCAPED / 2 && layout.encode(registration).len() > MAX_VALUE
}

/// The key of the instance's record, or the outcome if it gets none.
fn placement(
    input: &Input<'_>,
    registered: &Registered<'_>,
    name: &RegistryName,
    instance: &Instance,
) -> Result<RecordKey, Outcome> {
    let by_others = instance.addresses().find_map(|addr| registered.get(&(addr.ip(), addr.port())));
    if let Some(record) = by_others {
        // A second record would double the traffic of the instance.
        return Err(taken(input, instance, record));
    }
    if instance.addresses().any(|addr| input.contested.get(&addr) == Some(&ContestedExport::Older)) {
        return Err(Outcome::Skipped(Reason::Conflict));
    }
    let key = input.layout.key(name, input.owner, instance);
    match input.records.get(&key).map(|record| record.kind(&input.owner.cluster_id)) {
        None => {
            let mut waits = instance.addresses().filter_map(|a| input.departures.get(&a)?.holds_export(input.now));
            waits.next().map_or(Ok(key), |until| Err(Outcome::ExportDelayed { until }))
        }
        Some(Kind::Own(_)) => Ok(key),
        Some(Kind::Healed(owner)) if owner == input.owner => Ok(key),
        // A record of another writer, or an unreadable one, has the key that we would use.
        Some(_) => Err(Outcome::Skipped(Reason::Conflict)),
    }
}

/// The outcome of an instance whose address a record names that is not an export of this cluster.
fn taken(input: &Input<'_>, instance: &Instance, record: &Record) -> Outcome {
    let key = record.key.clone();
    if record.kind(&input.owner.cluster_id) == Kind::OtherCluster {
        return Outcome::TakenByOtherCluster { key };
    }
    let ours = |addr: (IpAddr, u16)| instance.addresses().any(|own| (own.ip(), own.port()) == addr);
    let naming = record.listeners().iter().filter(|listener| named_address(&listener.text).is_some_and(ours));
    let mut forms: Vec<_> = naming.map(|listener| listener.addr).collect();
    // One form that can be imported is enough.
    forms.sort_by_key(Result::is_err);
    let refused = forms.first().and_then(|addr| addr.err());
    Outcome::SelfRegistered { key, refused }
}

/// The first key of this owner's records for each address.
fn own_by_address<'a>(input: &'a Input<'_>) -> BTreeMap<InstanceAddr, &'a RecordKey> {
    let mut keys = BTreeMap::new();
    for (key, record) in input.records {
        if record.own(&input.owner.cluster_id) == Some(input.owner) {
            for addr in record.endpoint_addresses() {
                keys.entry(addr).or_insert(key);
            }
        }
    }
    keys
}

/// The outcome of each record under the name that this cluster exported and that no instance of ours explains.
fn record_outcomes(input: &Input<'_>, plan: &Plan, deletes: &[RecordOp]) -> Vec<InstanceOutcome> {
    let deleted: BTreeSet<&RecordKey> = deletes.iter().map(RecordOp::key).collect();
    let explained: BTreeSet<InstanceAddr> =
        plan.instances.iter().filter_map(|instance| instance.subject.address()).collect();
    let mut outcomes = Vec::new();
    for (key, record) in input.records {
        let Some(owner) = record.own(&input.owner.cluster_id) else { continue };
        for (n, addr) in record.endpoint_addresses().enumerate().filter(|(_, addr)| !explained.contains(addr)) {
            let (outcome, held) = if owner != input.owner {
                (Outcome::ExportedByAnother { owner: owner.clone() }, false)
            } else if deleted.contains(key) {
                (Outcome::ToBeWithdrawn { key: key.clone() }, false)
            } else {
                (Outcome::RecordWithoutEndpoint, plan.guard.held.contains(&addr))
            };
            outcomes.push(InstanceOutcome { held, counts: n == 0, ..InstanceOutcome::of(addr, outcome) });
        }
    }
    outcomes
}

type Registered<'a> = BTreeMap<(IpAddr, u16), &'a Record>;

/// The records of other writers under the name, by the addresses that a client would call, regardless of key and form.
/// A healed record of this owner counts for none: it ends where the cluster has the endpoint.
fn registered_by_others<'a>(input: &Input<'a>) -> Registered<'a> {
    let mut registered = BTreeMap::new();
    for record in input.records.values() {
        match record.kind(&input.owner.cluster_id) {
            Kind::Own(_) | Kind::Undecodable => {}
            Kind::Healed(owner) if owner == input.owner => {}
            Kind::OtherCluster | Kind::Healed(_) | Kind::Foreign => {
                for addr in record.client_addresses() {
                    registered.entry(addr).or_insert(record.as_ref());
                }
            }
        }
    }
    registered
}

impl Plan {
    /// Own records once the plan is applied.
    pub fn exported(&self) -> usize {
        self.instances.iter().filter(|instance| instance.counts && instance.outcome.is_exported()).count()
    }
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
