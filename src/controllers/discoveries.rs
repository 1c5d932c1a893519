//! The last findings of discovery for each ServiceRegistry, and the changes that it has yet to look at.
//!
//! Owns the way between the router, the controller of discovery and the status of a ServiceRegistry. Refuses to plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use twinspan_core::model::ServiceKey;

use crate::api::DiscoveryStatus;
use crate::api::conditions::DesiredCondition;

/// The part of a ServiceRegistry's status about its discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub status: DiscoveryStatus,
    pub condition: DesiredCondition,
}

/// Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Discoveries {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    found: BTreeMap<String, Found>,
    /// RegisteredServices whose status decides when a discovered one goes.
    awaited: BTreeSet<ServiceKey>,
    /// RegisteredServices without a grant, by their status: such a one wins over no discovered one.
    denied: BTreeSet<ServiceKey>,
    /// Something changed that no count of the views tells.
    is_due: bool,
}

impl Discoveries {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A view may have changed.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Everything has to be looked at again.
    pub fn look_again(&self) {
        self.lock().is_due = true;
        self.wake();
    }

    /// The status of a RegisteredService changed; `denied` says whether it lacks a grant now.
    pub fn status_changed(&self, key: &ServiceKey, denied: bool) {
        let mut state = self.lock();
        let other = if denied { state.denied.insert(key.clone()) } else { state.denied.remove(key) };
        let counts = other || state.awaited.contains(key);
        drop(state);
        if counts {
            self.look_again();
        }
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// True once after [`Self::look_again`].
    pub fn take_due(&self) -> bool {
        std::mem::take(&mut self.lock().is_due)
    }

    pub fn of(&self, registry: &str) -> Option<Found> {
        self.lock().found.get(registry).cloned()
    }

    /// Returns whether the status says something else now.
    pub fn set(&self, registry: &str, found: Option<Found>) -> bool {
        let mut state = self.lock();
        if state.found.get(registry) == found.as_ref() {
            return false;
        }
        match found {
            Some(found) => state.found.insert(registry.to_owned(), found),
            None => state.found.remove(registry),
        };
        true
    }

    pub fn set_awaited(&self, awaited: BTreeSet<ServiceKey>) {
        self.lock().awaited = awaited;
    }
}
