//! The fence of one registry: the epoch that every batch compares, and our claim to it.
//!
//! Owns the epoch key and its state. Refuses to raise the epoch, which [`super::takeover`] does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use twinspan_core::Timestamp;
use twinspan_core::plan::fence::Epoch;

use super::{Fence, RegistryError, Result};

/// The state of our claim to the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FenceStatus {
    /// Not the leader, or the epoch is not raised yet.
    None,
    Held(Epoch),
    /// etcd rejected a batch: our epoch may no longer be the newest.
    Suspect(Epoch),
    /// Another holder raised the epoch, and no Lease explains that holder.
    InUse {
        ours: Epoch,
        found: String,
    },
}

/// The epoch of one registry.
#[derive(Debug)]
pub struct FenceState {
    key: String,
    pub(super) status: watch::Sender<FenceStatus>,
    /// The error of the last attempt to raise the epoch.
    last_error: Mutex<Option<RegistryError>>,
    pub(super) approved: watch::Sender<Option<String>>,
    /// The end of the time in which own records without an owner stay.
    pub(super) orphan_grace_until: watch::Sender<Option<Timestamp>>,
}

impl FenceState {
    pub fn new(key: String) -> Self {
        let status = watch::Sender::new(FenceStatus::None);
        Self {
            key,
            status,
            last_error: Mutex::default(),
            approved: watch::Sender::new(None),
            orphan_grace_until: watch::Sender::new(None),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// # Errors
    /// The reason why nothing may be written.
    pub fn fence(&self) -> Result<Fence> {
        match &*self.status.borrow() {
            FenceStatus::Held(epoch) => Ok(Fence { key: self.key.clone(), value: epoch.to_string() }),
            FenceStatus::None | FenceStatus::Suspect(_) => {
                Err(self.last_error().clone().unwrap_or(RegistryError::NoEpoch))
            }
            FenceStatus::InUse { found, .. } => {
                Err(RegistryError::ClusterIdInUse { key: self.key.clone(), value: found.clone() })
            }
        }
    }

    /// A batch was rejected because the fence did not hold.
    pub fn suspect(&self) {
        self.status.send_if_modified(|status| match status {
            FenceStatus::Held(epoch) => {
                *status = FenceStatus::Suspect(epoch.clone());
                true
            }
            _ => false,
        });
    }

    /// Takes the epoch that an administrator lets us raise, from the annotation of the ServiceRegistry.
    pub fn approve(&self, value: Option<String>) {
        self.approved.send_if_modified(|approved| {
            let changed = *approved != value;
            *approved = value;
            changed
        });
    }

    /// The end of the time in which own records without an owner stay: an unexplained leader may have written them for
    /// a RegisteredService of another cluster.
    pub fn orphan_grace_until(&self) -> Option<Timestamp> {
        *self.orphan_grace_until.borrow()
    }

    pub(super) fn last_error(&self) -> MutexGuard<'_, Option<RegistryError>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, status: FenceStatus) {
        self.status.send_replace(status);
    }

    pub(super) fn ours(&self) -> Option<Epoch> {
        match &*self.status.borrow() {
            FenceStatus::None => None,
            FenceStatus::Held(ours) | FenceStatus::Suspect(ours) | FenceStatus::InUse { ours, .. } => {
                Some(ours.clone())
            }
        }
    }
}
