//! Calls the planners of the core with what was observed, and gathers what they want written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, Record, RecordKey, RegistryName, Slice, Tags};
use twinspan_core::plan::{RecordOp, earlier, export, import, slices};

use super::observe::{Observed, Session, managed_addresses, ready_endpoints};
use super::validate::{Accepted, Verdict};
use crate::cluster::write::NewService;
use crate::registry::handle::RegistryHandle;
use crate::registry::view::State;

/// Everything that a pass wants written, and what it says about it.
#[derive(Debug, Default)]
pub struct Plan {
    pub create: Option<NewService>,
    pub records: Vec<(Arc<RegistryHandle>, Vec<RecordOp>)>,
    pub slices: slices::Plan,
    /// Absent where nothing could be planned because the registry's view is not fresh.
    pub sides: Option<Sides>,
    /// Ready endpoints of the cluster.
    pub cluster: usize,
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
        self.create.is_none() && self.slices.ops.is_empty() && self.records.iter().all(|(_, ops)| ops.is_empty())
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
    let ready = match &accepted.port {
        Some(port) => ready_endpoints(&observed.others_slices, &port.name, &accepted.families),
        None => BTreeSet::new(),
    };
    plan.cluster = ready.len();
    withdraw_former(observed, &mut plan, now);
    let Some(session) = observed.session.as_ref().filter(|session| session.snapshot.state == State::Fresh) else {
        // Unknown is not empty, and stale is not gone: keep what is there.
        return plan;
    };
    let nothing = BTreeSet::new();
    let exported = if accepted.direction.exports() { &ready } else { &nothing };
    let export = plan_export(session, &accepted.name, exported, accepted.weight, &accepted.tags, now);
    let import = if accepted.direction.imports() {
        plan_import(observed, session, accepted, now)
    } else {
        import::Plan::default()
    };

    plan.slices = plan_slices(observed, Some(accepted), &import.endpoints, triggered);
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
    plan.slices = plan_slices(observed, None, &BTreeSet::new(), triggered);
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
    // No name is wanted any more, so every record of the owner is elsewhere.
    let ours = |records: &BTreeMap<RecordKey, Arc<Record>>| -> BTreeMap<RecordKey, Arc<Record>> {
        let ours = records.iter().filter(|(_, r)| r.own(&session.owner.cluster_id) == Some(&session.owner));
        ours.map(|(k, r)| (k.clone(), r.clone())).collect()
    };
    let mut elsewhere = session.snapshot.elsewhere.clone();
    elsewhere.extend(ours(&session.snapshot.records));
    let Ok(name) = RegistryName::new("-") else { return };
    let input = export::Input {
        layout: &session.handle.layout,
        owner: &session.owner,
        name: &name,
        endpoints: &BTreeSet::new(),
        records: &BTreeMap::new(),
        elsewhere: &borrowed(&elsewhere),
        departures: &BTreeMap::new(),
        weight: 1,
        tags: &Tags::new(),
        now,
    };
    plan.records.push((session.handle.clone(), export::plan(&input).ops));
}

fn plan_export(
    session: &Session,
    name: &RegistryName,
    endpoints: &BTreeSet<InstanceAddr>,
    weight: i64,
    tags: &Tags,
    now: Timestamp,
) -> export::Plan {
    export::plan(&export::Input {
        layout: &session.handle.layout,
        owner: &session.owner,
        name,
        endpoints,
        records: &borrowed(&session.snapshot.records),
        elsewhere: &borrowed(&session.snapshot.elsewhere),
        departures: &session.snapshot.departures,
        weight,
        tags,
        now,
    })
}

fn plan_import(observed: &Observed, session: &Session, accepted: &Accepted, now: Timestamp) -> import::Plan {
    import::plan(&import::Input {
        cluster_id: &session.owner.cluster_id,
        records: &borrowed(&session.snapshot.records),
        other_clusters: accepted.other_clusters,
        managed_by_others: &managed_addresses(&observed.others_slices),
        shadows: &observed.memory.shadows,
        departures: &session.snapshot.departures,
        present: &slices::present(&plain(&observed.our_slices)),
        now,
    })
}

fn plan_slices(
    observed: &Observed,
    accepted: Option<&Accepted>,
    endpoints: &BTreeSet<InstanceAddr>,
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
