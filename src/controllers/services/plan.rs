//! Calls the planners of the core with what was observed, and gathers what they want written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::model::{Instance, InstanceAddr, Record, RecordKey, Slice, TargetPod};
use twinspan_core::plan::trust::{PodOf, Trust};
use twinspan_core::plan::{RecordOp, earlier, export, import, slices};

use super::endpoints::managed_addresses;
use super::observe::{Observed, Session};
use super::validate::{Accepted, Verdict};
use crate::cluster::convert::{PodView, ServiceView, WEIGHT_ANNOTATION};
use crate::cluster::write::NewService;
use crate::registry::handle::RegistryHandle;
use crate::registry::view::State;

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
        Verdict::Refused(refusal) if refusal.withdraw => withdraw(observed, now, triggered),
        Verdict::Refused(_) => Plan::default(),
        Verdict::Gone { .. } => withdraw(observed, now, triggered),
    }
}

fn sync(observed: &Observed, accepted: &Accepted, now: Timestamp, triggered: Timestamp) -> Plan {
    let mut plan = Plan { create: accepted.create.clone(), ..Plan::default() };
    let uid = observed.service.as_ref().map(|service| service.uid.clone()).unwrap_or_default();
    plan.amend = accepted.amend.clone().map(|wanted| (wanted, uid));
    // One of its name that has no port to import under has to be made anew.
    let kept = |service: &&Arc<ServiceView>| {
        service.deleting || (service.name == accepted.service.name && accepted.port.is_some())
    };
    plan.remove = observed.created_services.iter().filter(|service| !kept(service)).cloned().collect();
    let ready = accepted.ready(observed);
    plan.cluster = ready.len();
    withdraw_former(observed, &mut plan, now);
    let Some(session) = observed.session.as_ref().filter(|session| session.snapshot.state == State::Fresh) else {
        // Unknown is not empty, and stale is not gone: keep what is there.
        return plan;
    };
    let exports =
        if accepted.direction.exports() { instances(observed, accepted, &ready, &mut plan) } else { BTreeMap::new() };
    let export = export::plan(&export::Input {
        layout: &session.handle.layout,
        owner: &session.owner,
        name: Some(&accepted.name),
        endpoints: &exports,
        records: &borrowed(&session.snapshot.records),
        elsewhere: &borrowed(&session.snapshot.elsewhere),
        claims: &session.claims,
        departures: &session.snapshot.departures,
        now,
    });
    let import = if accepted.direction.imports() {
        with_inputs(observed, session, accepted, now, import::plan)
    } else {
        import::Plan::default()
    };

    plan.slices = plan_slices(observed, Some(accepted), &known(observed, &import.endpoints), triggered);
    plan.look_again = earlier(export.look_again, import.look_again);
    plan.records.push((session.handle.clone(), export.ops.clone()));
    let cluster_id = &session.owner.cluster_id;
    let registry = session.snapshot.records.values().filter(|r| r.own(cluster_id).is_none()).count();
    plan.sides = Some(Sides { export, import, registry });
    plan
}

/// Nothing of it belongs anywhere.
fn withdraw(observed: &Observed, now: Timestamp, triggered: Timestamp) -> Plan {
    let mut plan = Plan::default();
    withdraw_former(observed, &mut plan, now);
    if let Some(session) = &observed.session {
        withdraw_from(session, &mut plan, now);
    }
    plan.slices = plan_slices(observed, None, &BTreeMap::new(), triggered);
    plan
}

/// Registries that it refers to no longer.
fn withdraw_former(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    for session in &observed.former {
        withdraw_from(session, plan, now);
    }
}

fn withdraw_from(session: &Session, plan: &mut Plan, now: Timestamp) {
    if session.snapshot.state != State::Fresh {
        return;
    }
    let ops = export::plan(&export::Input {
        layout: &session.handle.layout,
        owner: &session.owner,
        name: None,
        endpoints: &BTreeMap::new(),
        records: &borrowed(&session.snapshot.records),
        elsewhere: &borrowed(&session.snapshot.elsewhere),
        claims: &session.claims,
        departures: &session.snapshot.departures,
        now,
    })
    .ops;
    plan.records.push((session.handle.clone(), ops));
}

/// How each ready endpoint should appear in the registry; its pod may have a word in it.
fn instances(
    observed: &Observed,
    accepted: &Accepted,
    ready: &BTreeSet<InstanceAddr>,
    plan: &mut Plan,
) -> BTreeMap<InstanceAddr, Instance> {
    let instance = |addr: InstanceAddr| {
        let mut instance = Instance { addr, weight: accepted.weight, tags: accepted.tags.clone() };
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
        (addr, instance)
    };
    ready.iter().copied().map(instance).collect()
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
    planner(&import::Input {
        cluster_id: &session.owner.cluster_id,
        records: &borrowed(&session.snapshot.records),
        options: &accepted.import,
        managed_by_others: &managed_addresses(&observed.others_slices),
        trust: Trust { cluster: &observed.trust, policy: &accepted.policy, pods: &pods },
        shadows: &observed.memory.shadows,
        departures: &session.snapshot.departures,
        present: &slices::present(&plain(&observed.our_slices)),
        rivals: &observed.rivals,
        now,
    })
}

/// What is known of imported endpoints besides their addresses: the tag says the zone, else the Node of the pod that has it.
fn known(
    observed: &Observed,
    endpoints: &BTreeMap<InstanceAddr, Option<String>>,
) -> BTreeMap<InstanceAddr, slices::Known> {
    let known = |(addr, zone): (&InstanceAddr, &Option<String>)| {
        let pod = observed.pod_at(addr.ip());
        let node = pod.and_then(|pod| pod.node.clone());
        let zone = zone.clone().or_else(|| observed.zones.get(node.as_ref()?).cloned());
        let pod =
            pod.map(|pod| TargetPod { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() });
        (*addr, slices::Known { zone, node, pod })
    };
    endpoints.iter().map(known).collect()
}

fn plan_slices(
    observed: &Observed,
    accepted: Option<&Accepted>,
    endpoints: &BTreeMap<InstanceAddr, slices::Known>,
    triggered: Timestamp,
) -> slices::Plan {
    let service = accepted.and_then(|accepted| Some((accepted.port.as_ref()?, observed.service.as_ref()?)));
    slices::plan(&slices::Input {
        owner: &observed.key,
        owner_uid: observed.uid(),
        service: service.map(|(port, service)| slices::Service {
            name: &service.name,
            port_name: &port.name,
            app_protocol: port.app_protocol.as_deref(),
            headless: service.headless,
            traffic: service.traffic,
            labels: &service.labels,
        }),
        endpoints,
        existing: &plain(&observed.our_slices),
        triggered,
    })
}

fn plain(slices: &[Arc<Slice>]) -> Vec<&Slice> {
    slices.iter().map(AsRef::as_ref).collect()
}

fn borrowed(records: &BTreeMap<RecordKey, Arc<Record>>) -> BTreeMap<RecordKey, &Record> {
    records.iter().map(|(key, record)| (key.clone(), record.as_ref())).collect()
}
