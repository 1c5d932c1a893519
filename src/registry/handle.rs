//! What the rest of the operator holds of one registry: its view, its connection, its leases.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, watch};
use twinspan_core::codec::Layout;
use twinspan_core::model::{Revision, ServiceKey};

use super::leases::LeaseBook;
use super::view::{RegistryView, Touched};
use super::{Registry, RegistryError, Result, ServerStatus};

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Listing,
    Watching,
    /// Waiting to connect again.
    Failed(RegistryError),
}

/// What a session last knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    pub phase: Phase,
    pub server: Option<ServerStatus>,
    /// Of the last complete list.
    pub revision_at_last_session: Revision,
}

/// Something about a registry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEvent {
    /// Records changed.
    Touched { registry: String, touched: Touched },
    /// The view became fresh or stale, or counts changed: every RegisteredService may have to say so.
    State { registry: String },
}

/// Shared by the session, the writer, the lease keeper and the controllers.
pub struct RegistryHandle {
    /// Of the ServiceRegistry.
    pub name: String,
    pub cluster_id: String,
    pub layout: Layout,
    view: Mutex<RegistryView>,
    pub leases: LeaseBook,
    connection: watch::Sender<Option<Arc<dyn Registry>>>,
    status: watch::Sender<SessionStatus>,
    /// Ends the current connection and starts over with a list.
    pub start_over: Notify,
    events: mpsc::UnboundedSender<RegistryEvent>,
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RegistryHandle {
    pub fn new(
        name: &str,
        cluster_id: &str,
        layout: Layout,
        ttl_seconds: i64,
        events: mpsc::UnboundedSender<RegistryEvent>,
    ) -> Arc<Self> {
        let status = SessionStatus { phase: Phase::Connecting, server: None, revision_at_last_session: 0 };
        Arc::new(Self {
            name: name.to_owned(),
            cluster_id: cluster_id.to_owned(),
            view: Mutex::new(RegistryView::new(layout.clone(), cluster_id)),
            leases: LeaseBook::new(cluster_id, name, &layout, ttl_seconds),
            layout,
            connection: watch::Sender::new(None),
            status: watch::Sender::new(status),
            start_over: Notify::new(),
            events,
        })
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

    pub(super) fn connected(&self, registry: Arc<dyn Registry>) {
        self.connection.send_replace(Some(registry));
    }

    pub(super) fn disconnected(&self) {
        self.connection.send_replace(None);
        self.view().set_stale();
    }

    pub fn status(&self) -> SessionStatus {
        self.status.borrow().clone()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        // Failing again in the same way is no news, and would have every service of the registry looked after.
        let again = match (&self.status.borrow().phase, &phase) {
            (Phase::Failed(before), Phase::Failed(now)) => before.label() == now.label(),
            _ => false,
        };
        self.status.send_modify(|status| status.phase = phase);
        if !again {
            self.tell(RegistryEvent::State { registry: self.name.clone() });
        }
    }

    pub(super) fn set_server(&self, server: ServerStatus) {
        self.status.send_modify(|status| status.server = Some(server));
    }

    pub(super) fn set_listed(&self, revision: Revision) {
        self.status.send_modify(|status| status.revision_at_last_session = revision);
    }

    /// Tells the controllers whom to look after again.
    pub(super) fn touch(&self, touched: Touched) {
        if !touched.names.is_empty() || !touched.owners.is_empty() {
            self.tell(RegistryEvent::Touched { registry: self.name.clone(), touched });
        }
    }

    fn tell(&self, event: RegistryEvent) {
        // Nobody listens only while the process ends.
        let _ = self.events.send(event);
    }

    /// Every RegisteredService that owns a record here, also those that no longer exist.
    pub fn owners(&self) -> Vec<ServiceKey> {
        self.view().owners().cloned().collect()
    }
}
