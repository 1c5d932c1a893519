//! What the rest of the operator holds of one registry: its view, its connection, its leases.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use twinspan_core::codec::{Layout, Range};
use twinspan_core::model::{RegistryName, Revision, ServiceKey};

use super::fence::FenceState;
use super::health::Health;
use super::leases::LeasePool;
use super::records::Affected;
use super::view::RegistryView;
use super::{Fence, Registry, RegistryError, Result, ServerStatus};

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Listing,
    Watching,
    /// Waiting to connect again.
    Failed(RegistryError),
}

impl Phase {
    /// Bounded, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Failed(_) => "failed",
        }
    }
}

/// The last facts about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    pub phase: Phase,
    pub server: Option<ServerStatus>,
    /// Of the last list, once this session has listed everything; 0 before that.
    pub revision_at_last_session: Revision,
}

/// Something about a registry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEvent {
    /// Records changed, and who wrote them where that was one of ours.
    Affected { registry: String, affected: Affected, by: Option<ServiceKey> },
    /// What its status says changed, and nothing that a RegisteredService has to look at.
    Status { registry: String },
    /// The view became fresh or stale, or counts changed: every RegisteredService may have to say so.
    State { registry: String },
}

/// Whose records are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of RegisteredServices.
    pub registered: BTreeSet<RegistryName>,
    /// Under which records of ours were found that nothing refers to.
    pub orphaned: BTreeSet<RegistryName>,
}

/// What makes a registry the one that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// UID of the ServiceRegistry.
    pub uid: String,
    pub cluster_id: String,
    pub layout: Layout,
    pub ttl_seconds: i64,
    /// Where the epoch is; `None` where there is no fence.
    pub fence_prefix: Option<String>,
}

/// Shared by the session, the writer, the lease keeper and the controllers.
pub struct RegistryHandle {
    /// Of the ServiceRegistry.
    pub name: String,
    pub cluster_id: String,
    pub layout: Layout,
    view: Mutex<RegistryView>,
    pub leases: LeasePool,
    /// `None` where there is no fence.
    pub fence: Option<FenceState>,
    names: watch::Sender<Names>,
    connection: watch::Sender<Option<Arc<dyn Registry>>>,
    status: watch::Sender<SessionStatus>,
    /// Held by the session that runs.
    pub(super) session_lock: tokio::sync::Mutex<()>,
    /// The etcd cluster in which, as far as is known, no older ServiceRegistry has the same place.
    sole_in: Mutex<Option<u64>>,
    health: Health,
    /// The session ends its connection and starts over with a list.
    pub(super) start_over: Notify,
    /// Looks for own records that nothing refers to.
    pub find_orphans: Notify,
    events: mpsc::UnboundedSender<RegistryEvent>,
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RegistryHandle {
    /// `before` is the etcd cluster and the revision that another process met, where status tells of one.
    pub fn new(
        name: &str,
        identity: &Identity,
        before: Option<(u64, Revision)>,
        events: mpsc::UnboundedSender<RegistryEvent>,
    ) -> Arc<Self> {
        let status = SessionStatus { phase: Phase::Connecting, server: None, revision_at_last_session: 0 };
        let Identity { cluster_id, layout, ttl_seconds, fence_prefix, .. } = identity;
        Arc::new(Self {
            name: name.to_owned(),
            cluster_id: cluster_id.clone(),
            view: Mutex::new(RegistryView::new(layout.clone(), cluster_id, before)),
            leases: LeasePool::new(cluster_id, name, layout, *ttl_seconds),
            fence: fence_prefix.as_ref().map(|prefix| FenceState::new(format!("{prefix}{cluster_id}/{name}"))),
            layout: layout.clone(),
            names: watch::Sender::new(Names::default()),
            connection: watch::Sender::new(None),
            status: watch::Sender::new(status),
            session_lock: tokio::sync::Mutex::default(),
            sole_in: Mutex::default(),
            health: Health::default(),
            start_over: Notify::new(),
            find_orphans: Notify::new(),
            events,
        })
    }

    /// The fence that every batch compares.
    ///
    /// # Errors
    /// Why nothing may be written: the epoch is not ours, or not yet.
    pub fn fence(&self) -> Result<Option<Fence>> {
        self.fence.as_ref().map(FenceState::fence).transpose()
    }

    pub(super) fn names(&self) -> watch::Receiver<Names> {
        self.names.subscribe()
    }

    /// The names of the RegisteredServices that refer to the registry.
    pub fn set_registered(&self, registered: BTreeSet<RegistryName>) {
        self.names.send_if_modified(|names| {
            let changed = names.registered != registered;
            names.registered = registered;
            changed
        });
    }

    pub(super) fn set_orphaned(&self, orphaned: BTreeSet<RegistryName>) {
        self.names.send_if_modified(|names| {
            let changed = names.orphaned != orphaned;
            names.orphaned = orphaned;
            changed
        });
    }

    /// What is to be listed and watched: whatever is asked about, and whatever holds a record of ours.
    pub(super) fn wanted_ranges(&self) -> BTreeSet<Range> {
        if self.layout.root().is_some() {
            return BTreeSet::from([Range::Everything]);
        }
        let mut all = self.view().names_of_ours();
        let names = self.names.borrow();
        all.extend(names.registered.iter().chain(&names.orphaned).cloned());
        drop(names);
        self.layout.ranges(&all)
    }

    /// The view, for as long as the guard lives: never across an await.
    pub fn view(&self) -> MutexGuard<'_, RegistryView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`RegistryError::NotConnected`] while there is no session.
    pub fn connection(&self) -> Result<Arc<dyn Registry>> {
        self.connection.borrow().clone().ok_or(RegistryError::NotConnected)
    }

    pub fn connections(&self) -> watch::Receiver<Option<Arc<dyn Registry>>> {
        self.connection.subscribe()
    }

    /// Everything was listed.
    pub(super) fn connected(&self, registry: Arc<dyn Registry>) {
        self.view().set_all_listed();
        // What the session before was asked to do, this one has done.
        let _ = self.start_over.notified().now_or_never();
        self.connection.send_replace(Some(registry));
    }

    pub(super) fn disconnected(&self) {
        self.connection.send_replace(None);
        self.view().set_stale();
    }

    /// What a connection wrote is not known: its session starts over. Where it has ended, the next one lists in any case.
    pub(super) fn write_unknown(&self, by: &dyn Registry) {
        let current = self.connection.borrow().as_ref().map(Arc::as_ptr);
        if current.is_some_and(|current| std::ptr::addr_eq(current, by)) {
            self.start_over.notify_one();
        }
    }

    pub fn status(&self) -> SessionStatus {
        self.status.borrow().clone()
    }

    /// The etcd cluster that the session met last.
    pub fn etcd(&self) -> Option<u64> {
        self.status.borrow().server.as_ref().map(|server| server.cluster_id)
    }

    /// Whether what the view holds may be taken for ours, and be written: nobody else has our place in the etcd that answers.
    pub fn is_sole(&self) -> bool {
        let sole_in = *self.sole_in.lock().unwrap_or_else(PoisonError::into_inner);
        sole_in.is_some() && sole_in == self.etcd()
    }

    /// Says in which etcd cluster the place is ours; `None` shuts it.
    pub fn confirm_sole(&self, etcd: Option<u64>) {
        let before = std::mem::replace(&mut *self.sole_in.lock().unwrap_or_else(PoisonError::into_inner), etcd);
        if etcd.is_some() && before != etcd {
            self.requeue_all();
        }
    }

    /// What the registry refuses although the session stands, where it refuses anything.
    pub fn problem(&self, leads: bool) -> Option<RegistryError> {
        self.health.first(leads)
    }

    /// How the last writes for a RegisteredService ended.
    pub fn record_write_result(&self, by: &ServiceKey, error: Option<RegistryError>) {
        if self.health.write_result(by, error) {
            self.send(RegistryEvent::Status { registry: self.name.clone() });
        }
    }

    /// How the last keepalives ended.
    pub(super) fn record_keepalive_result(&self, error: Option<RegistryError>) {
        if self.health.keepalive_result(error) {
            self.send(RegistryEvent::Status { registry: self.name.clone() });
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        // Failing again in the same way is no news, and would have every service of the registry looked after.
        let again = match (&self.status.borrow().phase, &phase) {
            (Phase::Failed(before), Phase::Failed(now)) => before.label() == now.label(),
            _ => false,
        };
        self.status.send_modify(|status| status.phase = phase);
        if !again {
            self.send(RegistryEvent::State { registry: self.name.clone() });
        }
    }

    /// Who answers. Until everything is listed, the ServiceRegistry goes on to tell of the one before: a process that starts then has to
    /// see for itself that another one came back.
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

    /// The same for the writes of a RegisteredService, which has no reason to be reconciled because of them.
    pub fn notify_others(&self, affected: Affected, by: &ServiceKey) {
        self.affected_by(affected, Some(by.clone()));
    }

    fn affected_by(&self, affected: Affected, by: Option<ServiceKey>) {
        if !affected.is_empty() {
            self.send(RegistryEvent::Affected { registry: self.name.clone(), affected, by });
        }
    }

    /// Something changed that concerns every service of the registry.
    pub fn requeue_all(&self) {
        self.send(RegistryEvent::State { registry: self.name.clone() });
    }

    pub(super) fn send(&self, event: RegistryEvent) {
        // Nobody listens only while the process ends.
        let _ = self.events.send(event);
    }

    /// Every RegisteredService that owns a record here, also those that no longer exist.
    pub fn owners(&self) -> Vec<ServiceKey> {
        self.view().owners().cloned().collect()
    }
}
