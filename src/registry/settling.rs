//! The settling of a registry that came back as an older or another one.
//!
//! Owns which RegisteredServices have said whether a hold follows from it. Until all have, and each hold is in its
//! status, the status of the ServiceRegistry keeps what tells the next process that holds are due. Refuses to know the
//! holds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use twinspan_core::model::ServiceKey;

/// `None` while there is nothing to settle.
#[derive(Debug, Default)]
pub struct Settling(Mutex<Option<BTreeMap<ServiceKey, bool>>>);

impl Settling {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<ServiceKey, bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry came back as an older or another one.
    pub(super) fn begin(&self) {
        *self.lock() = Some(BTreeMap::new());
    }

    /// Whether there is something to settle.
    pub fn is_due(&self) -> bool {
        self.lock().is_some()
    }

    /// A RegisteredService has a hold, or none. Returns true if that was not known.
    pub(super) fn report(&self, service: &ServiceKey, holds: bool) -> bool {
        self.lock().as_mut().is_some_and(|settled| settled.insert(service.clone(), holds) != Some(holds))
    }

    /// Returns true if nothing is left to settle for these RegisteredServices, with whether the status of each reports
    /// a hold.
    pub(super) fn finish(&self, services: &BTreeMap<ServiceKey, bool>) -> bool {
        let mut settled = self.lock();
        let reported = |settled: &BTreeMap<ServiceKey, bool>| {
            services.iter().all(|(service, reports)| settled.get(service) == Some(reports))
        };
        if settled.as_ref().is_some_and(reported) {
            *settled = None;
        }
        settled.is_none()
    }
}
