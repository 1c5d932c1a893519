//! The handle of one registry: its view, connection, leases, fence and health.
//!
//! Owns the state that the tasks of a registry share, and the events that tell the controllers about changes. Refuses
//! to send requests: the session, the writer, the take-over and the keepalive task do.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{self, AtomicBool};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracing::warn;
use twinspan_core::codec::Layout;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision, ServiceKey};
use twinspan_core::plan::service::Incarnation;

use super::asked_names::AskedNames;
use super::commits::Commits;
use super::fence::FenceState;
use super::health::Health;
use super::incarnation::LastKnown;
use super::kept::Kept;
use super::known_clusters::Neighbours;
use super::leases::LeasePool;
use super::phase::{Phase, SessionStatus};
use super::records::Affected;
use super::settling::Settling;
use super::taken_names::TakenNames;
use super::verified::{AuditState, WatchProgress};
use super::view::RegistryView;
use super::{Fence, Registry, RegistryError, Result, ServerStatus};

/// A change of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEvent {
    /// Records changed. `by` is the RegisteredService of this cluster that wrote them, if one did.
    Affected { registry: String, affected: Affected, by: Option<ServiceKey> },
    /// Only the status of the ServiceRegistry changed; no RegisteredService has to be reconciled.
    Status { registry: String },
    /// The view became fresh or stale, or counts changed: every RegisteredService has to be reconciled.
    State { registry: String },
}

/// The identity of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// UID of the ServiceRegistry.
    pub uid: String,
    pub cluster_id: String,
    pub layout: Layout,
    pub ttl_seconds: i64,
    /// The prefix of the epoch's key; `None` without a fence.
    pub fence_prefix: Option<String>,
}

impl Identity {
    /// Whether both have the same records: perhaps with another lease, fence or ServiceRegistry.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.cluster_id == other.cluster_id && self.layout == other.layout
    }

    /// Whether one session can serve both: a ServiceRegistry that was created again has another UID.
    pub fn is_alike(&self, other: &Self) -> bool {
        *self == Self { uid: self.uid.clone(), ..other.clone() }
    }
}

/// Shared by the session, the writer, the take-over, the keepalive task and the controllers.
pub struct RegistryHandle {
    /// The name of the ServiceRegistry.
    pub name: String,
    pub cluster_id: String,
    pub layout: Layout,
    view: Mutex<RegistryView>,
    pub leases: LeasePool,
    pub audit: AuditState,
    /// `None` without a fence.
    pub fence: Option<Arc<FenceState>>,
    pub neighbours: Neighbours,
    /// The names whose records are watched.
    pub asked: AskedNames,
    /// The connection of a session that has listed everything, for plans.
    connection: watch::Sender<Option<Arc<dyn Registry>>>,
    /// The connection of a session from its first answer on, for keepalives.
    reachable: watch::Sender<Option<Arc<dyn Registry>>>,
    records_known: AtomicBool,
    pub(super) commits: Commits,
    status: watch::Sender<SessionStatus>,
    /// Held by the running session.
    pub(super) session_lock: tokio::sync::Mutex<()>,
    /// The etcd cluster in which no older ServiceRegistry is known to have the same keyspace.
    sole_in: Mutex<Option<u64>>,
    /// The names that older ServiceRegistries serve in the same etcd.
    pub taken: TakenNames,
    /// When the session had listed everything.
    connected_at: Mutex<Option<Instant>>,
    health: Health,
    pub kept: Kept,
    pub settling: Settling,
    /// Notified when writes of another RegisteredService are refused.
    pub(super) writes_refused: Notify,
    /// Makes the session reconnect and relist.
    pub(super) start_over: Notify,
    /// Makes the session search for orphaned own records.
    pub find_orphans: Notify,
    events: mpsc::UnboundedSender<RegistryEvent>,
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RegistryHandle {
    /// `before` is the registry in the status, which an earlier process wrote.
    pub fn new(
        name: &str,
        identity: &Identity,
        before: Option<LastKnown>,
        events: mpsc::UnboundedSender<RegistryEvent>,
    ) -> Arc<Self> {
        let status = SessionStatus { phase: Phase::Connecting, server: None, revision_at_last_session: 0 };
        let Identity { cluster_id, layout, ttl_seconds, fence_prefix, .. } = identity;
        let leases = LeasePool::new(cluster_id, name, layout, *ttl_seconds);
        let fence = fence_prefix.as_ref().map(|place| FenceState::new(place, cluster_id, name));
        fence.iter().zip(&before).for_each(|(fence, before)| fence.know(before.highest()));
        let mut view = RegistryView::new(layout.clone(), cluster_id, before);
        view.departures.set_our_leases(leases.ids());
        Arc::new(Self {
            name: name.to_owned(),
            cluster_id: cluster_id.clone(),
            view: Mutex::new(view),
            leases,
            fence: fence.map(Arc::new),
            neighbours: Neighbours::default(),
            asked: AskedNames::new(layout),
            layout: layout.clone(),
            connection: watch::Sender::new(None),
            reachable: watch::Sender::new(None),
            records_known: AtomicBool::new(false),
            commits: Commits::default(),
            status: watch::Sender::new(status),
            session_lock: tokio::sync::Mutex::default(),
            sole_in: Mutex::default(),
            taken: TakenNames::default(),
            connected_at: Mutex::default(),
            health: Health::default(),
            kept: Kept::default(),
            audit: AuditState::default(),
            settling: Settling::default(),
            writes_refused: Notify::new(),
            start_over: Notify::new(),
            find_orphans: Notify::new(),
            events,
        })
    }

    /// The fence that every batch compares.
    ///
    /// # Errors
    /// The epoch is not ours, or not raised yet, so nothing may be written.
    pub fn fence(&self) -> Result<Option<Fence>> {
        self.fence.as_deref().map(FenceState::fence).transpose()
    }

    /// Takes the TTLs of earlier settings, on whose leases own and healed records may still hang.
    pub fn set_former_ttls(&self, ttls: &[i64]) {
        self.leases.set_former(ttls);
        self.view().departures.set_our_leases(self.leases.ids());
    }

    /// Locks the view; never hold the guard across an await.
    pub fn view(&self) -> MutexGuard<'_, RegistryView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`RegistryError::NotConnected`] while there is no session.
    pub fn connection(&self) -> Result<Arc<dyn Registry>> {
        self.connection.borrow().clone().ok_or(RegistryError::NotConnected)
    }

    /// When the last session had listed everything.
    pub fn connected_at(&self) -> Option<Instant> {
        *self.connected_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn connections(&self) -> watch::Receiver<Option<Arc<dyn Registry>>> {
        self.connection.subscribe()
    }

    /// The connection for keepalives, which wait for no list.
    pub(super) fn reachable(&self) -> watch::Receiver<Option<Arc<dyn Registry>>> {
        self.reachable.subscribe()
    }

    /// True once this process has listed every own record: the view names the leases that carry some.
    pub(super) fn knows_its_records(&self) -> bool {
        self.records_known.load(atomic::Ordering::Relaxed)
    }

    pub(super) fn set_records_known(&self) {
        self.records_known.store(true, atomic::Ordering::Relaxed);
    }

    /// The TTLs of leases that may carry own records, as status keeps them; `before` has those known so far. A former
    /// one is forgotten once everything is listed and nothing hangs on its leases.
    pub fn lease_ttls(&self, before: &[i64]) -> BTreeSet<i64> {
        let mut ttls = self.leases.ttls_of(self.view().own_leases().keys().copied());
        if !self.knows_its_records() {
            ttls.extend(before);
        }
        ttls
    }

    /// No session follows: nothing is kept alive over the last connection any more.
    pub(super) fn ended(&self) {
        self.reachable.send_replace(None);
    }

    /// The registry answers a session. Its connection serves keepalives until the next one answers, even if the session
    /// ends before that.
    pub(super) fn answered(&self, registry: Arc<dyn Registry>) {
        self.reachable.send_replace(Some(registry));
    }

    /// The session has listed everything.
    pub(super) fn connected(&self, registry: Arc<dyn Registry>) {
        if self.view().incarnation() != Incarnation::AsItWas {
            self.settling.begin();
        }
        // The list may show leases that nobody knew, and that end soon.
        self.leases.in_use.notify_one();
        // This session has relisted, so a request to the one before is done.
        let _ = self.start_over.notified().now_or_never();
        *self.connected_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.connection.send_replace(Some(registry));
    }

    pub(super) fn disconnected(&self) {
        self.connection.send_replace(None);
        self.asked.release();
        self.audit.set_progress(WatchProgress::Unknown);
        self.view().set_stale();
    }

    /// The view, for an answer of this connection; `None` if the connection is no longer the session's: another etcd
    /// may answer by now, whose revisions cannot be compared.
    pub(super) fn view_of(&self, by: &dyn Registry) -> Option<MutexGuard<'_, RegistryView>> {
        let view = self.view();
        self.is_current(by).then_some(view)
    }

    pub(super) fn is_current(&self, by: &dyn Registry) -> bool {
        let current = self.connection.borrow().as_ref().map(Arc::as_ptr);
        current.is_some_and(|current| std::ptr::addr_eq(current, by))
    }

    /// Enters the state of a key from an answer. A name that is not followed is looked at if it has a record of ours
    /// now.
    pub(super) fn learn(
        &self,
        view: &mut RegistryView,
        key: &RecordKey,
        record: Option<&RawRecord>,
        revision: Revision,
        affected: &mut Affected,
    ) {
        if view.has_missed(key, record, revision) {
            warn!(registry = self.name, %key, revision, "the watch did not tell of a change; an answer shows it");
        }
        view.learnt(key, record, revision, affected);
        self.asked.look_at(view.unfollowed(affected));
    }

    /// The result of a write is unknown, so the session relists. If that session has already ended, the next one lists
    /// anyway.
    pub(super) fn write_unknown(&self, by: &dyn Registry) {
        if self.is_current(by) {
            self.start_over.notify_one();
        }
    }

    pub fn status(&self) -> SessionStatus {
        self.status.borrow().clone()
    }

    /// The ID of the etcd cluster that answered last.
    pub fn etcd(&self) -> Option<u64> {
        self.status.borrow().server.as_ref().map(|server| server.cluster_id)
    }

    /// True if no other ServiceRegistry has our keyspace in the etcd that answers: own records in the view are ours,
    /// and may be written.
    pub fn is_sole(&self) -> bool {
        let sole_in = *self.sole_in.lock().unwrap_or_else(PoisonError::into_inner);
        sole_in.is_some() && sole_in == self.etcd()
    }

    /// Sets the etcd cluster in which the keyspace is ours alone; `None` if it is not.
    pub fn confirm_sole(&self, etcd: Option<u64>) {
        let before = std::mem::replace(&mut *self.sole_in.lock().unwrap_or_else(PoisonError::into_inner), etcd);
        if etcd.is_some() && before != etcd {
            self.requeue_all();
        }
    }

    /// The error of a connected registry that rejects writes or keepalives.
    pub fn problem(&self, leads: bool) -> Option<RegistryError> {
        self.health.first(leads)
    }

    /// Takes the result of the last writes for a RegisteredService. Once its writes work again, the others' may as
    /// well.
    pub fn record_write_result(&self, by: &ServiceKey, error: Option<RegistryError>) {
        let before = self.health.refused_services();
        if self.health.write_result(by, error) {
            self.report();
        }
        let after = self.health.refused_services();
        match after.len().cmp(&before.len()) {
            Ordering::Less => self.retry_refused_writes(after),
            Ordering::Equal => {}
            Ordering::Greater => self.writes_refused.notify_one(),
        }
    }

    /// Whether a RegisteredService has a hold that this incarnation brought.
    pub fn report_hold(&self, service: &ServiceKey, incarnation: Incarnation, holds: bool) {
        if self.view().incarnation() == incarnation && self.settling.report(service, holds) {
            self.report();
        }
    }

    /// Whether nothing is left to settle for these RegisteredServices; the value is whether the status of each reports
    /// a hold. A session that has yet to list everything may bring other evidence.
    pub fn settles(&self, services: impl FnOnce() -> BTreeMap<ServiceKey, bool>) -> bool {
        if !self.settling.is_due() {
            return true;
        }
        let settled = self.connection().is_ok() && self.settling.finish(&services());
        if settled {
            self.view().set_settled();
        }
        settled
    }

    /// The RegisteredServices whose last writes the registry refused.
    pub(super) fn refused_services(&self) -> BTreeSet<ServiceKey> {
        self.health.refused_services()
    }

    fn retry_refused_writes(&self, owners: BTreeSet<ServiceKey>) {
        self.notify(Affected { owners, ..Affected::default() });
    }

    /// etcd refuses one of our leases for the sake of some records on it. The owners of all of them are reconciled:
    /// what may be written moves to another lease.
    pub(crate) fn lease_refused(&self, lease: LeaseId) {
        if !self.leases.refuse(lease) {
            return;
        }
        let owners = {
            let view = self.view();
            let on_it = |owner: &&ServiceKey| view.owned_by(owner).any(|record| record.lease == lease);
            view.owners().filter(on_it).cloned().collect()
        };
        self.notify(Affected { owners, ..Affected::default() });
    }

    /// Takes the result of the last keepalives. Once they work again, writes may as well.
    pub(super) fn record_keepalive_result(&self, error: Option<RegistryError>) {
        let works_again = error.is_none() && self.health.keepalives_fail();
        if self.health.keepalive_result(error) {
            self.report();
        }
        if works_again {
            self.retry_refused_writes(self.health.refused_services());
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        // A repeated failure of the same kind must not requeue every service of the registry.
        let again = match (&self.status.borrow().phase, &phase) {
            (Phase::Failed(before), Phase::Failed(now)) => before.label() == now.label(),
            _ => false,
        };
        self.status.send_modify(|status| status.phase = phase);
        if !again {
            self.send(RegistryEvent::State { registry: self.name.clone() });
        }
    }

    /// Sets the etcd that answers. Status keeps the previous one until everything is listed, so that a process that
    /// starts meanwhile still detects the change.
    pub(crate) fn set_server(&self, server: ServerStatus) {
        self.status.send_modify(|status| {
            status.server = Some(server);
            status.revision_at_last_session = 0;
        });
    }

    pub(super) fn set_listed(&self, revision: Revision) {
        self.status.send_modify(|status| status.revision_at_last_session = revision);
    }

    /// Tells the controllers which services are affected.
    pub fn notify(&self, affected: Affected) {
        self.affected_by(affected, None);
    }

    /// The same for the writes of a RegisteredService, which need not be reconciled because of them.
    pub fn notify_others(&self, affected: Affected, by: &ServiceKey) {
        self.affected_by(affected, Some(by.clone()));
    }

    fn affected_by(&self, affected: Affected, by: Option<ServiceKey>) {
        if !affected.is_empty() {
            self.send(RegistryEvent::Affected { registry: self.name.clone(), affected, by });
        }
    }

    /// Only the status of the ServiceRegistry may have changed.
    pub fn report(&self) {
        self.send(RegistryEvent::Status { registry: self.name.clone() });
    }

    /// Requeues every service of the registry.
    pub fn requeue_all(&self) {
        self.send(RegistryEvent::State { registry: self.name.clone() });
    }

    pub(super) fn send(&self, event: RegistryEvent) {
        // The receiver is gone only while the process ends.
        let _ = self.events.send(event);
    }

    /// Every RegisteredService that owns a record here, deleted ones included.
    pub fn owners(&self) -> Vec<ServiceKey> {
        self.view().owners().cloned().collect()
    }

    /// Whether both would have the same keys in one etcd, without a common prefix.
    pub fn has_same_keys(&self, other: &Self) -> bool {
        self.layout.root().is_none() && self.layout.same_keyspace(&other.layout) && self.cluster_id == other.cluster_id
    }
}
