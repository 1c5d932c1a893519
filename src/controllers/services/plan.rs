//! Calls the planners of the core with what was observed, and gathers what they want written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::model::{Instance, InstanceAddr, PortSet, Record, RecordKey, RegistryName, Slice, TargetPod};
use twinspan_core::plan::export::Seen;
use twinspan_core::plan::guard::{Around, Guard, Limits, Share, Stays};
use twinspan_core::plan::import::{Imported, Present};
use twinspan_core::plan::trust::{PodOf, Trust};
use twinspan_core::plan::{RecordOp, earlier, export, import, slices};

use super::endpoints::managed_addresses;
use super::observe::{Observed, Session};
use super::validate::{Accepted, Verdict};
use crate::api::conditions::DELETIONS_HELD;
use crate::cluster::convert::{PodView, ServiceView, WEIGHT_ANNOTATION};
use crate::cluster::write::NewService;
use crate::controllers::conditions;
use crate::registry::handle::RegistryHandle;
use crate::registry::view::{Return, State};

/// Everything that a pass wants written, and what it says about it.
#[derive(Debug, Default)]
pub struct Plan {
    pub create: Option<NewService>,
    /// A Service that we created, with its UID, and that should have other ports.
    pub amend: Option<(NewService, String)>,
    /// Services that we created and that it refers to no longer, or that have to be made anew.
    pub remove: Vec<Arc<ServiceView>>,
    pub records: Vec<(Arc<RegistryHandle>, Vec<RecordOp>)>,
    pub slices: slices::Plan,
    /// Absent where nothing could be planned because the registry's view is not fresh.
    pub sides: Option<Sides>,
    /// Ready endpoints of the cluster.
    pub cluster: usize,
    /// What is wrong with an annotation of a pod, for the `Exported` condition.
    pub remark: Option<String>,
    pub look_again: Option<Timestamp>,
}

/// Both directions.
#[derive(Debug, Default)]
pub struct Sides {
    pub export: export::Plan,
    pub import: import::Plan,
    /// Foreign records under the name.
    pub registry: usize,
}

impl Sides {
    /// What waits for more evidence or for the guard, in both directions.
    pub fn held(&self) -> usize {
        self.export.waiting + self.export.ruling.stays.len() + self.import.waiting
    }

    /// From when, and until when, a limit holds deletions.
    pub fn held_since_until(&self) -> Option<(Timestamp, Timestamp)> {
        let rulings = [self.import.ruling.held, self.export.ruling.held];
        let since = rulings.iter().flatten().map(|(since, _)| *since).min()?;
        let until = rulings.iter().flatten().map(|(_, until)| *until).max()?;
        Some((since, until))
    }

    /// What waits for the guard.
    pub fn stays(&self) -> Stays {
        Stays { import: self.import.ruling.stays.clone(), export: self.export.ruling.stays.clone() }
    }

    /// The part in what happens to the registry as a whole.
    pub fn share(&self) -> Share {
        let mut gone = BTreeMap::new();
        for (end, count) in [&self.import.memory.guard, &self.export.memory.guard].into_iter().filter_map(Guard::gone) {
            *gone.entry(end).or_default() += count;
        }
        Share {
            known: self.import.endpoints.len() + self.export.exported + self.export.ruling.stays.len(),
            gone,
            stays: self.stays().named(),
        }
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.create.is_none()
            && self.amend.is_none()
            && self.remove.is_empty()
            && self.slices.ops.is_empty()
            && self.records.iter().all(|(_, ops)| ops.is_empty())
    }
}

pub fn plan(observed: &Observed, verdict: &Verdict, now: Timestamp, triggered: Timestamp) -> Plan {
    match verdict {
        Verdict::Accepted(accepted) => sync(observed, accepted, now, triggered),
        Verdict::Refused(refusal) if refusal.withdraw => withdraw(observed, refusal.guarded, now, triggered),
        Verdict::Refused(_) => Plan::default(),
        Verdict::Gone { .. } => withdraw(observed, None, now, triggered),
    }
}

fn sync(observed: &Observed, accepted: &Accepted, now: Timestamp, triggered: Timestamp) -> Plan {
    let mut plan = Plan { create: accepted.create.clone(), ..Plan::default() };
    let uid = observed.service.as_ref().map(|service| service.uid.clone()).unwrap_or_default();
    plan.amend = accepted.amend.clone().map(|wanted| (wanted, uid));
    // One of its name that has no port to import under has to be made anew.
    let kept = |service: &&Arc<ServiceView>| {
        service.deleting || (service.name == accepted.service.name && !accepted.ports.is_empty())
    };
    plan.remove = observed.created_services.iter().filter(|service| !kept(service)).cloned().collect();
    let ready = accepted.ready(observed);
    plan.cluster = ready.len();
    withdraw_former(observed, &mut plan, now);
    let Some(session) = observed.session.as_ref().filter(|session| session.snapshot.state == State::Fresh) else {
        // Unknown is not empty, and stale is not gone: keep what is there.
        return plan;
    };
    let exports = accepted.direction.exports();
    let instances = if exports { instances(observed, accepted, session, &ready, &mut plan) } else { Vec::new() };
    let export = export_to(
        observed,
        session,
        Some(&accepted.name),
        &instances,
        // What is not asked for any more is evident from the spec.
        if exports { observed.seen() } else { Seen::Asked },
        accepted.limits,
        now,
    );
    let import = if accepted.direction.imports() {
        with_inputs(observed, session, accepted, now, import::plan)
    } else {
        import::Plan::default()
    };

    let source = accepted.source(&session.handle.name);
    plan.slices = plan_slices(observed, Some((accepted, &source)), &known(observed, &import.endpoints), triggered);
    plan.look_again = earlier(export.look_again, import.look_again);
    plan.records.push((session.handle.clone(), export.ops.iter().chain(&import.ops).cloned().collect()));
    let cluster_id = &session.owner.cluster_id;
    let registry = session.snapshot.records.values().filter(|r| r.ours(cluster_id).is_none()).count();
    let sides = Sides { export, import, registry };
    if observed.approval().is_some_and(|hash| hash == sides.stays().hash()) {
        // It was approved before this process knew what is held.
        plan.look_again = earlier(plan.look_again, Some(now));
    }
    plan.sides = Some(sides);
    plan
}

/// Nothing of it belongs anywhere. Where that is known only because a list does not name its Service, the guard has a say in it.
fn withdraw(observed: &Observed, guarded: Option<Limits>, now: Timestamp, triggered: Timestamp) -> Plan {
    let mut plan = Plan::default();
    withdraw_former(observed, &mut plan, now);
    if let Some(session) = observed.session.as_ref().filter(|session| session.snapshot.state == State::Fresh) {
        let name = session.name.as_ref().filter(|_| guarded.is_some());
        let limits = guarded.unwrap_or(Limits { min_instances: 0, max_delete_percent: 100, hold: Default::default() });
        let seen = if guarded.is_some() { observed.seen() } else { Seen::Asked };
        let export = export_to(observed, session, name, &[], seen, limits, now);
        plan.look_again = earlier(plan.look_again, export.look_again);
        plan.records.push((session.handle.clone(), export.ops.clone()));
        if guarded.is_some() {
            plan.sides = Some(Sides { export, ..Sides::default() });
        }
    }
    plan.slices = plan_slices(observed, None, &BTreeMap::new(), triggered);
    plan
}

/// Registries that it refers to no longer.
fn withdraw_former(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    for session in observed.former.iter().filter(|session| session.snapshot.state == State::Fresh) {
        if let Some(after) = left_alone(observed, session).filter(|after| now < *after) {
            plan.look_again = earlier(plan.look_again, Some(after));
            continue;
        }
        let limits = Limits { min_instances: 0, max_delete_percent: 100, hold: Default::default() };
        let ops = export_to(observed, session, None, &[], Seen::Asked, limits, now).ops;
        plan.records.push((session.handle.clone(), ops));
    }
}

/// Until when records without an owner are left alone: where nothing explains who led before us, an owner that we have never
/// known may live in another cluster.
fn left_alone(observed: &Observed, session: &Session) -> Option<Timestamp> {
    let unknown = observed.object.is_none() && observed.memory.uid.is_empty();
    session.handle.epoch.as_ref()?.sweep_after().filter(|_| unknown)
}

fn export_to(
    observed: &Observed,
    session: &Session,
    name: Option<&RegistryName>,
    instances: &[Instance],
    seen: Seen<'_>,
    limits: Limits,
    now: Timestamp,
) -> export::Plan {
    export::plan(&export::Input {
        layout: &session.handle.layout,
        owner: &session.owner,
        name,
        instances,
        records: &borrowed(&session.snapshot.records),
        elsewhere: &borrowed(&session.snapshot.elsewhere),
        claims: &session.claims,
        inherited: &session.passed_on,
        departures: &session.snapshot.departures,
        seen,
        limits,
        around: around(observed, &observed.approved.export),
        memory: &observed.memory.export,
        now,
    })
}

/// What the objects say about holding deletions of one direction.
fn around<'a>(observed: &'a Observed, approved: &'a BTreeSet<InstanceAddr>) -> Around<'a> {
    let status = observed.object.as_ref().and_then(|object| object.status.as_ref());
    let held = status.and_then(|status| conditions::find(&status.conditions, DELETIONS_HELD));
    let first = observed.memory.uid.is_empty();
    Around {
        approved,
        held_before: held.filter(|held| first && held.status == "True").map(|held| held.last_transition_time.0),
        registry_hold: observed.registry_hold,
    }
}

/// How each ready endpoint should appear in the registry; its pod may have a word in it.
fn instances(
    observed: &Observed,
    accepted: &Accepted,
    session: &Session,
    ready: &BTreeMap<InstanceAddr, PortSet>,
    plan: &mut Plan,
) -> Vec<Instance> {
    let mut together: BTreeMap<(IpAddr, u16), Vec<(String, InstanceAddr)>> = BTreeMap::new();
    for (addr, ports) in ready {
        for place in ports.places() {
            // One record stands for every port of an IP where addresses have schemes.
            let schemes = session.handle.layout.format().has_schemes();
            let group = (addr.ip(), if schemes { 0 } else { addr.port() });
            together.entry(group).or_default().push((accepted.ports[place].scheme.clone(), *addr));
        }
    }
    let instance = |mut endpoints: Vec<(String, InstanceAddr)>| {
        let place = |scheme: &String| accepted.ports.iter().position(|port| port.scheme == *scheme);
        endpoints.sort_by_key(|(scheme, addr)| (place(scheme), *addr));
        let addr = endpoints.iter().map(|(_, addr)| *addr).min()?;
        let mut instance = Instance { addr, endpoints, weight: accepted.weight, tags: accepted.tags.clone() };
        if let Some(pod) = observed.pod_at(addr.ip()) {
            match weight(pod) {
                Ok(weight) => instance.weight = weight.unwrap_or(accepted.weight),
                Err(remark) => {
                    plan.remark.get_or_insert(remark);
                }
            }
            for (label, tag) in &accepted.tags_from_labels {
                instance.tags.extend(pod.label(label).map(|value| (tag.clone(), value.to_owned())));
            }
        }
        Some(instance)
    };
    together.into_values().filter_map(instance).collect()
}

/// What the pod's annotation says, where it has one.
fn weight(pod: &PodView) -> Result<Option<i64>, String> {
    let Some(text) = &pod.weight else { return Ok(None) };
    match text.parse() {
        Ok(weight @ 1..=10_000) => Ok(Some(weight)),
        _ => Err(format!(
            "pod {}/{}: annotation {WEIGHT_ANNOTATION} {text:?} is no integer from 1 to 10000; spec.export.weight is used",
            pod.namespace, pod.name
        )),
    }
}

/// What it would import if it were alone.
pub fn imports(observed: &Observed, session: &Session, accepted: &Accepted, now: Timestamp) -> import::Plan {
    with_inputs(observed, session, accepted, now, import::wanted)
}

fn with_inputs(
    observed: &Observed,
    session: &Session,
    accepted: &Accepted,
    now: Timestamp,
    planner: impl Fn(&import::Input<'_>) -> import::Plan,
) -> import::Plan {
    let pods: BTreeMap<IpAddr, PodOf> = observed.pods_of();
    // What was remembered of another registry or name says nothing about this one.
    let source = accepted.source(&session.handle.name);
    let fresh = import::Memory::default();
    let memory = if observed.memory.source == source { &observed.memory.import } else { &fresh };
    planner(&import::Input {
        layout: &session.handle.layout,
        owner: &session.owner,
        records: &borrowed(&session.snapshot.records),
        options: &accepted.import,
        managed_by_others: &managed_addresses(&observed.others_slices),
        others_ready: !accepted.ready(observed).is_empty(),
        trust: Trust { cluster: &observed.trust, policy: &accepted.policy, pods: &pods },
        departures: &session.snapshot.departures,
        began_rolled_back: session.snapshot.returned != Return::AsItWas,
        present: &present(observed, accepted),
        rivals: &observed.rivals,
        inherited: &session.inherited,
        probes: &observed.probes,
        limits: accepted.limits,
        around: around(observed, &observed.approved.import),
        memory,
        now,
    })
}

/// The endpoints in the slices of a RegisteredService, seen with the ports and the place in the registry that are in force.
pub fn present(observed: &Observed, accepted: &Accepted) -> BTreeMap<InstanceAddr, Present> {
    let registry = observed.session.as_ref().map_or("", |session| session.handle.name.as_str());
    let source = accepted.source(registry);
    slices::present(&plain(&observed.our_slices), &slice_ports(accepted), &source)
}

/// What is known of imported endpoints besides their addresses: the tag says the zone, else the Node of the pod that has it.
fn known(observed: &Observed, endpoints: &BTreeMap<InstanceAddr, Imported>) -> BTreeMap<InstanceAddr, slices::Known> {
    let known = |(addr, imported): (&InstanceAddr, &Imported)| {
        let pod = observed.pod_at(addr.ip());
        let node = pod.and_then(|pod| pod.node.clone());
        let zone = imported.zone.clone().or_else(|| observed.zones.get(node.as_ref()?).cloned());
        let pod =
            pod.map(|pod| TargetPod { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() });
        let (ports, lost_until) = (imported.ports, imported.lost_until);
        (*addr, slices::Known { ports, lost_until, zone, node, pod })
    };
    endpoints.iter().map(known).collect()
}

fn slice_ports(accepted: &Accepted) -> Vec<slices::Port> {
    let port = |accepted: &super::validate::AcceptedPort| slices::Port {
        name: accepted.port.name.clone(),
        app_protocol: accepted.port.app_protocol.clone(),
    };
    accepted.ports.iter().map(port).collect()
}

fn plan_slices(
    observed: &Observed,
    accepted: Option<(&Accepted, &str)>,
    endpoints: &BTreeMap<InstanceAddr, slices::Known>,
    triggered: Timestamp,
) -> slices::Plan {
    let ports = accepted.map(|(accepted, _)| slice_ports(accepted)).unwrap_or_default();
    slices::plan(&slices::Input {
        owner: &observed.key,
        owner_uid: observed.uid(),
        service: observed.service.as_ref().filter(|_| !ports.is_empty()).map(|service| slices::Service {
            name: &service.name,
            ports: &ports,
            headless: service.headless,
            traffic: service.traffic,
            labels: &service.labels,
        }),
        endpoints,
        existing: &plain(&observed.our_slices),
        source: accepted.map_or("", |(_, source)| source),
        triggered,
    })
}

fn plain(slices: &[Arc<Slice>]) -> Vec<&Slice> {
    slices.iter().map(AsRef::as_ref).collect()
}

fn borrowed(records: &BTreeMap<RecordKey, Arc<Record>>) -> BTreeMap<RecordKey, &Record> {
    records.iter().map(|(key, record)| (key.clone(), record.as_ref())).collect()
}
