//! The status of a ServiceRegistry: the state of its session, for an administrator.
//!
//! Owns the messages of its conditions, the Events about its connection, and the reading of the annotation that
//! releases held deletions. Refuses to decide.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::departure::registry_guard::Approval;
use twinspan_core::plan::service::{Incarnation, Term};

use super::line::line;
use super::settings::Rejection;
use crate::api::conditions::{
    self, CONNECTED, ConditionStatus, DELETIONS_HELD, DISCOVERED, DesiredCondition, READY, Reason, STALLED, SYNCED,
    find_true,
};
use crate::api::{
    APPROVE_DELETIONS, EtcdStatus, HoldStatus, RecordCounts, RecordScope, ReturnedAs, ServiceRegistry,
    ServiceRegistryStatus,
};
use crate::cluster::events::{self, About, Note};
use crate::cluster::reach::Holding;
use crate::cluster::status_queue::{Object, Status};
use crate::cluster::view::Kind;
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;
use crate::registry::RegistryError;
use crate::registry::guards::RegistryHold;
use crate::registry::handle::RegistryHandle;
use crate::registry::phase::Phase;
use crate::registry::scope::Scope;

/// Wait between two looks at a hold of an earlier process that has not gone on yet.
const RESUMES: Duration = Duration::from_secs(10);
/// The maximum of TTLs in the status.
const MAX_TTLS: usize = 16;

/// The facts that an Event told last about each ServiceRegistry.
#[derive(Debug, Default)]
pub struct Told {
    term: Option<u64>,
    /// The status and the reason of its condition.
    connections: BTreeMap<String, (String, String)>,
    /// The message about one that this version cannot read.
    refusals: BTreeMap<String, Option<String>>,
    /// The message about namespaces out of sight, which the log has.
    pub(super) out_of_sight: BTreeMap<String, String>,
    /// The status that was handed over last. An API server that drops a field never has it.
    statuses: BTreeMap<String, ServiceRegistryStatus>,
}

/// Reports the state of sessions.
#[derive(Clone, Debug)]
pub struct Reporter {
    pub views: Views,
    pub writers: Writers,
}

impl Reporter {
    /// Hands the status over to its writer, and publishes its Events. `rejection` is why there can be
    /// no session.
    pub fn report(&self, name: &str, rejection: Option<&Rejection>, told: &mut Told) {
        let handle = self.views.registries.get(name);
        if let Some(handle) = &handle {
            self.measure(name, handle);
        }
        let status_of = Object::ServiceRegistry(name.to_owned());
        let Some(object) = self.views.cluster().service_registries.get(name).cloned() else {
            told.connections.remove(name);
            told.refusals.remove(name);
            told.out_of_sight.remove(name);
            told.statuses.remove(name);
            self.writers.statuses.forget(&status_of);
            self.writers.board.remove_registry(name);
            return;
        };
        let holding = self.views.cluster().holding(&object);
        if matches!(holding, Holding::Another(_)) {
            // Its release tells its state.
            self.writers.statuses.forget(&status_of);
            self.writers.board.remove_registry(name);
            self.writers.metrics.forget_registry(name);
            return;
        }
        self.release(name);
        let shown = object.status.clone().unwrap_or_default();
        // The status that waits to be written is newer than the one that the API server has.
        let waiting = self.writers.statuses.latest_of_registry(&object);
        let shown_as_ours = match self.views.cluster().own_status(&object) {
            Some(ours) => ours.clone(),
            None => ServiceRegistryStatus { conditions: shown.conditions.clone(), ..ServiceRegistryStatus::default() },
        };
        let known = waiting.as_ref().unwrap_or(&shown_as_ours);
        let mut status = self.desired(&object, known, handle.as_deref(), rejection);
        self.writers.metrics.set_ready(name, find_true(&status.conditions, READY).is_some());
        self.publish_events(&object, &shown, &status, told);
        self.tell_out_of_sight(name, handle.as_deref(), told);
        self.show(&object, &status, handle.as_deref());
        // An audit alone is no reason to write.
        let last = told.statuses.get(name);
        let last = last.filter(|last| {
            **last == ServiceRegistryStatus { last_verified: last.last_verified.clone(), ..status.clone() }
        });
        if let Some(last) = last {
            status.last_verified.clone_from(&last.last_verified);
        } else if status != *known {
            let verified = handle.as_ref().and_then(|handle| handle.audit.last_verified());
            status.last_verified = verified.map(|at| Time(conditions::whole_seconds(at))).or(status.last_verified);
        }
        told.statuses.insert(name.to_owned(), status.clone());
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        self.writers.statuses.hand_over(status_of, uid, Status::ServiceRegistry(Box::new(status)));
    }

    /// Puts the status on the board of the status page.
    fn show(&self, object: &ServiceRegistry, status: &ServiceRegistryStatus, handle: Option<&RegistryHandle>) {
        if self.writers.board.is_on() {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let held = self.views.guards.held(name, &self.views.env).map(|held| held.deletions);
            // A hold of an earlier process that goes on has not been counted yet.
            let held = self.writers.leadership.is_leader().then(|| held.unwrap_or_default());
            self.writers.board.put_registry(line(object, status, handle, held));
        }
    }

    /// Lets the deletions go that an administrator approved, in every service of the registry. The first call of a
    /// leader resumes the hold that the status reports, before any status is written.
    pub fn release(&self, name: &str) {
        let Some(object) = self.views.cluster().service_registries.get(name).cloned() else { return };
        let Views { guards, env, .. } = &self.views;
        let Some(term) = self.writers.leadership.term().map(Term) else {
            guards.forget(name);
            return;
        };
        let held_since = self.views.cluster().held_since(&object);
        guards.begin(name, term, held_since, env);
        let approval = object.metadata.annotations.as_ref().and_then(|all| all.get(APPROVE_DELETIONS));
        match approval.map(|hash| guards.approve(name, hash, env)) {
            Some(Approval::Released) => self.views.registries.get(name).iter().for_each(|handle| handle.requeue_all()),
            Some(Approval::NamesSetOnly { hash }) if guards.refuse(name, &hash) => {
                let note = events::refused_approval(&hash);
                self.writers.events.publish(
                    About::ServiceRegistry(object),
                    events::Reason::ApprovalRefused,
                    Note::Text(note),
                );
            }
            Some(Approval::NamesSetOnly { .. } | Approval::Other) | None => {}
        }
    }

    /// The wait until the status has to be looked at again without a change; `None` if it need not be.
    pub fn looks_again(&self, name: &str) -> Option<Duration> {
        self.views.guards.may_resume(name, &self.views.env).then_some(RESUMES)
    }

    fn measure(&self, name: &str, handle: &RegistryHandle) {
        let counts = handle.view().counts();
        let metrics = &self.writers.metrics;
        metrics.set_records(name, counts.own, counts.foreign, counts.undecodable);
        metrics.set_session(name, handle.status().phase.label());
        for (result, times) in handle.audit.take_results() {
            metrics.audited(name, result.label(), times);
        }
    }

    fn desired(
        &self,
        object: &ServiceRegistry,
        known: &ServiceRegistryStatus,
        handle: Option<&RegistryHandle>,
        rejection: Option<&Rejection>,
    ) -> ServiceRegistryStatus {
        let now = self.views.env.now();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let guard = self.views.guards.held(name, &self.views.env);
        // Until the services have reported, the hold of an earlier process goes on.
        let resumes = self.views.guards.may_resume(name, &self.views.env);
        let before = find_true(&known.conditions, DELETIONS_HELD).filter(|_| resumes);
        let held = before.map_or_else(|| held(guard.as_ref()), goes_on);
        let [mut ready, connected, synced] = session(handle, rejection, self.writers.leadership.may_write());
        if ready.status == ConditionStatus::True {
            let message = self.out_of_sight(name, handle).or_else(|| self.without_service_range());
            ready.message = message.unwrap_or(ready.message);
        }
        let unreadable = self.views.cluster().unreadable_registries.get(name).cloned();
        if let Some(unreadable) = unreadable {
            // The session goes on where the connection could be read.
            let (status, reason) = (ConditionStatus::False, Reason::NotSupported);
            ready = DesiredCondition::new(READY, status, reason, unreadable.message());
        }
        let stalled = stalled(&ready);
        let found = self.views.discoveries.of(name);
        let discovered = found.as_ref().map(|found| found.condition.clone());
        let conditions: Vec<_> =
            [ready, connected, synced, held].into_iter().chain(discovered).chain(stalled).collect();
        let generation = object.metadata.generation;
        // A process that starts has yet to look.
        let unknown = found.is_none() && object.spec.discovery.is_some();
        let discovered = conditions::find(&known.conditions, DISCOVERED).filter(|_| unknown).cloned();
        let mut status = ServiceRegistryStatus {
            observed_generation: generation,
            holder: self.views.cluster().reach().release.clone(),
            hold: if resumes { known.hold.clone() } else { guard.map(|held| HoldStatus::new(held.hold, held.hash)) },
            conditions: conditions::set(&known.conditions, &conditions, generation, now)
                .into_iter()
                .chain(discovered)
                .collect(),
            discovery: if unknown { known.discovery.clone() } else { found.map(|found| found.status) },
            ..known.clone()
        };
        if let Some(handle) = handle {
            // Before all are listed nobody knows whose holds are still to be reported.
            let listed = self.views.cluster().has_listed(&[Kind::RegisteredService]);
            describe(&mut status, handle, listed.then_some(|| self.holds_in_statuses(name)));
        }
        status
    }

    /// The RegisteredServices of a registry, and whether the status of each reports a hold.
    fn holds_in_statuses(&self, name: &str) -> BTreeMap<ServiceKey, bool> {
        let view = self.views.cluster();
        let reports = |key: &ServiceKey| {
            let status = view.registered_services.get(key).and_then(|object| object.status.as_ref());
            status.is_some_and(|status| find_true(&status.conditions, DELETIONS_HELD).is_some())
        };
        view.staying_in(name).map(|key| (key.clone(), reports(key))).collect()
    }

    /// Publishes an Event if the object became unreadable, or the connection was made or lost, since the last one. The
    /// first time in a leadership the status in the API server says what was told.
    fn publish_events(
        &self,
        object: &Arc<ServiceRegistry>,
        shown: &ServiceRegistryStatus,
        status: &ServiceRegistryStatus,
        told: &mut Told,
    ) {
        let term = self.writers.leadership.term();
        if told.term != term {
            *told = Told { term, ..Told::default() };
        }
        if term.is_none() {
            return;
        }
        let name = object.metadata.name.clone().unwrap_or_default();
        let about = About::ServiceRegistry(object.clone());
        let refusal = |status: &ServiceRegistryStatus| {
            let ready = conditions::find(&status.conditions, READY);
            ready.filter(|ready| ready.reason == Reason::NotSupported.as_str()).map(|ready| ready.message.clone())
        };
        let now = refusal(status);
        let before = told.refusals.insert(name.clone(), now.clone()).unwrap_or_else(|| refusal(shown));
        if let Some(message) = now.filter(|now| before.as_ref() != Some(now)) {
            let note = Note::Text(format!("{}: {message}", Reason::NotSupported.as_str()));
            self.writers.events.publish(about.clone(), events::Reason::NotAccepted, note);
        }
        let Some(now) = conditions::find(&status.conditions, CONNECTED) else { return };
        if now.status == ConditionStatus::Unknown.as_str() {
            return;
        }
        let of = |condition: &Condition| (condition.status.clone(), condition.reason.clone());
        let before = told.connections.get(&name).cloned();
        let before = before.or_else(|| conditions::find(&shown.conditions, CONNECTED).map(of));
        told.connections.insert(name, of(now));
        if before == Some(of(now)) {
            return;
        }
        let (reason, note) = if now.status == ConditionStatus::True.as_str() {
            (events::Reason::Connected, "connected to the registry".to_owned())
        } else {
            (events::Reason::Disconnected, now.message.clone())
        };
        self.writers.events.publish(about, reason, Note::Text(note));
    }
}

/// The facts about the session besides its conditions. `services` refer to the registry, if they are known; the value
/// is whether their status reports a hold. Only a registry that has something to settle asks for them.
fn describe(
    status: &mut ServiceRegistryStatus,
    handle: &RegistryHandle,
    services: Option<impl FnOnce() -> BTreeMap<ServiceKey, bool>>,
) {
    let session = handle.status();
    status.cluster_id = Some(handle.cluster_id.clone());
    status.prefix = Some(handle.layout.prefix().to_owned());
    status.clusters = match &handle.fence {
        Some(_) => handle.neighbours.known().unwrap_or_else(|| std::mem::take(&mut status.clusters)),
        None => Vec::new(),
    };
    // Longer ones matter longer.
    status.lease_ttls = handle.lease_ttls(&status.lease_ttls).into_iter().rev().take(MAX_TTLS).collect();
    status.epoch_in_use = match handle.fence() {
        Ok(_) => None,
        Err(RegistryError::ClusterIdInUse { value, .. }) => Some(value),
        Err(_) => status.epoch_in_use.take(),
    };
    let Some(server) = session.server.filter(|_| session.revision_at_last_session > 0) else { return };
    let highest_epoch = handle.fence.as_ref().map_or(0, |fence| fence.highest());
    let (known, incarnation, counts) = {
        let view = handle.view();
        let known = view.last_known().cloned().unwrap_or_default();
        (known, view.incarnation(), view.counts())
    };
    // A process that ends before every hold is in a status leaves what tells its successor that there are some.
    status.returned_as = match incarnation {
        _ if services.is_some_and(|services| handle.settles(services)) => None,
        Incarnation::AsItWas => status.returned_as,
        Incarnation::ClusterChanged => Some(ReturnedAs::ClusterChanged),
        Incarnation::RolledBack => Some(ReturnedAs::RolledBack),
    };
    if status.returned_as.is_none() || status.etcd.is_none() {
        status.etcd = Some(EtcdStatus {
            cluster_id: format!("{:x}", server.cluster_id),
            version: server.version,
            revision_at_last_session: session.revision_at_last_session,
            incarnation: known.incarnation,
            epoch: known.epoch.and_then(|epoch| i64::try_from(epoch).ok()),
            highest_epoch: Some(highest_epoch)
                .filter(|highest| *highest > known.epoch.unwrap_or_default())
                .and_then(|epoch| i64::try_from(epoch).ok()),
        });
    }
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    status.records = Some(RecordCounts {
        own: count(counts.own),
        foreign: count(counts.foreign),
        undecodable: count(counts.undecodable),
        scope: handle.asked.scope().filter(|scope| *scope == Scope::FollowedNames).map(|_| RecordScope::FollowedNames),
    });
}

/// Absent where it is not True, as kstatus wants it.
fn stalled(ready: &DesiredCondition) -> Option<DesiredCondition> {
    let stalls = ready.status == ConditionStatus::False && ready.reason.stalls();
    stalls.then(|| DesiredCondition::new(STALLED, ConditionStatus::True, ready.reason, ready.message.clone()))
}

fn held(held: Option<&RegistryHold>) -> DesiredCondition {
    let Some(RegistryHold { deletions, gone, sweeps, hold, hash }) = held else {
        return DesiredCondition::new(DELETIONS_HELD, ConditionStatus::False, Reason::NothingHeld, "");
    };
    let many = match gone {
        0 => "many services".to_owned(),
        gone => format!("many services, of which {gone} RegisteredServices are gone,"),
    };
    let swept = format!("discovery would delete {sweeps} RegisteredServices");
    let what = match (deletions.saturating_sub(*sweeps), sweeps) {
        (0, 1..) => swept,
        (instances, 0) => format!("nothing shows that {instances} instances of {many} ended"),
        (instances, _) => format!("nothing shows that {instances} instances of {many} ended, and {swept}"),
    };
    let message = format!(
        "{what}; they stay until {:.0}, or until the annotation {APPROVE_DELETIONS}={hash} releases them",
        hold.until
    );
    DesiredCondition {
        since: Some(hold.since),
        ..DesiredCondition::new(DELETIONS_HELD, ConditionStatus::True, Reason::Held, message)
    }
}

/// The condition as it was.
fn goes_on(before: &Condition) -> DesiredCondition {
    DesiredCondition {
        since: Some(before.last_transition_time.0),
        ..DesiredCondition::new(DELETIONS_HELD, ConditionStatus::True, Reason::Held, before.message.clone())
    }
}

fn session(handle: Option<&RegistryHandle>, rejection: Option<&Rejection>, leads: bool) -> [DesiredCondition; 3] {
    let all = |connected: ConditionStatus, synced: ConditionStatus, reason: Reason, message: &str| {
        let ready = if connected == ConditionStatus::True && synced == ConditionStatus::True {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        [
            DesiredCondition::new(READY, ready, reason, message),
            DesiredCondition::new(
                CONNECTED,
                connected,
                if connected == ConditionStatus::True { Reason::Connected } else { reason },
                message,
            ),
            DesiredCondition::new(
                SYNCED,
                synced,
                if synced == ConditionStatus::True { Reason::Synced } else { reason },
                message,
            ),
        ]
    };
    if let Some(rejection) = rejection {
        return all(ConditionStatus::False, ConditionStatus::False, rejection.reason, &rejection.message);
    }
    let Some(handle) = handle else {
        return all(ConditionStatus::Unknown, ConditionStatus::Unknown, Reason::Connecting, "no session yet");
    };
    match handle.status().phase {
        Phase::Connecting => {
            all(ConditionStatus::Unknown, ConditionStatus::Unknown, Reason::Connecting, "connecting for the first time")
        }
        Phase::Listing => {
            all(ConditionStatus::True, ConditionStatus::False, Reason::Listing, "waiting for a complete list")
        }
        Phase::Watching => {
            let [mut ready, connected, mut synced] =
                all(ConditionStatus::True, ConditionStatus::True, Reason::Connected, "");
            if let Some(message) = refused(handle) {
                synced = DesiredCondition::new(SYNCED, ConditionStatus::True, Reason::PermissionDenied, message);
            }
            if let Some((reason, message)) = incarnation(handle.view().incarnation()) {
                synced = DesiredCondition::new(SYNCED, ConditionStatus::True, reason, message);
            }
            // The view is complete, but writes may be refused. An epoch that is not raised yet is not worth a
            // condition.
            let refused = match handle.fence() {
                Ok(_) | Err(RegistryError::NoEpoch | RegistryError::LeaseUnconfirmed(_)) => handle.problem(leads),
                Err(error) => Some(error),
            };
            if let Some(error) = refused {
                ready = DesiredCondition::new(READY, ConditionStatus::False, error.reason(), error.to_string());
            }
            [ready, connected, synced]
        }
        Phase::Failed(error) => all(ConditionStatus::False, ConditionStatus::False, error.reason(), &error.to_string()),
    }
}

/// The names that our user may not read, if it may read others.
fn refused(handle: &RegistryHandle) -> Option<String> {
    let view = handle.view();
    let mut refused = view.refused();
    let number = refused.len();
    let first = handle.layout.key_prefix(refused.next()?);
    Some(format!(
        "the registry's user may not read the keys of {number} names, first {first}; what is there is kept. Grant it read and write on them, \
         or delete their RegisteredServices"
    ))
}

/// The condition of a registry that did not come back as it was.
fn incarnation(incarnation: Incarnation) -> Option<(Reason, &'static str)> {
    match incarnation {
        Incarnation::AsItWas => None,
        Incarnation::ClusterChanged => Some((
            Reason::ClusterChanged,
            "another etcd cluster answers than before; Twinspan restores its own records, and holds the deletions that others' missing records ask for",
        )),
        Incarnation::RolledBack => Some((
            Reason::RolledBack,
            "the etcd cluster is at an older revision than before; Twinspan restores its own records, and holds the deletions that others' missing records ask for",
        )),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
