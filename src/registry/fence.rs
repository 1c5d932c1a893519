//! The fence of one registry: the epoch that every batch compares, and how our hold of it stands.
//!
//! Owns the epoch key and its state. Refuses to raise the epoch, which [`super::takeover`] does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use twinspan_core::Timestamp;
use twinspan_core::plan::fence::Epoch;

use super::{Fence, RegistryError, Result};

/// How our hold of the epoch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FenceStatus {
    /// Not the leader, or not yet raised.
    None,
    Held(Epoch),
    /// A batch was refused: our epoch may not be the newest any more.
    Suspect(Epoch),
    /// Another holder raised it, and nothing explains that holder.
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
    /// Why the last attempt to raise it failed.
    last_error: Mutex<Option<RegistryError>>,
    pub(super) approved: watch::Sender<Option<String>>,
    /// Until when own records without an owner are left alone.
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
    /// Why nothing may be written.
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

    /// A batch was refused because the fence did not hold.
    pub fn suspect(&self) {
        self.status.send_if_modified(|status| match status {
            FenceStatus::Held(epoch) => {
                *status = FenceStatus::Suspect(epoch.clone());
                true
            }
            _ => false,
        });
    }

    /// Takes the value that an administrator lets us raise, from the annotation of the ServiceRegistry.
    pub fn approve(&self, value: Option<String>) {
        self.approved.send_if_modified(|approved| {
            let changed = *approved != value;
            *approved = value;
            changed
        });
    }

    /// Until when own records without an owner are left alone: a leader that nothing explains may have written them for a
    /// RegisteredService of another cluster.
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
