//! The settling of a registry that came back as an older or another one.
//!
//! Owns which RegisteredServices have said that the hold that follows from it is in their status, or that there is
//! none. Until all have, the status of the ServiceRegistry keeps what tells the next process that holds are due.
//! Refuses to know the holds.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use twinspan_core::model::ServiceKey;

/// `None` while there is nothing to settle.
#[derive(Debug, Default)]
pub struct Settling(Mutex<Option<BTreeSet<ServiceKey>>>);

impl Settling {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeSet<ServiceKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry came back as an older or another one.
    pub(super) fn begin(&self) {
        *self.lock() = Some(BTreeSet::new());
    }

    /// The hold of a RegisteredService is in its status, or it has none. Returns true if that was not known.
    pub(super) fn report(&self, service: &ServiceKey) -> bool {
        self.lock().as_mut().is_some_and(|settled| settled.insert(service.clone()))
    }

    /// Returns true if nothing is left to settle for these RegisteredServices.
    pub fn finish(&self, services: &BTreeSet<ServiceKey>) -> bool {
        let mut settled = self.lock();
        if settled.as_ref().is_some_and(|settled| settled.is_superset(services)) {
            *settled = None;
        }
        settled.is_none()
    }
}
