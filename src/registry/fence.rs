//! The fence of one registry: the epoch that every batch compares, our claim to it, and the incarnation key.
//!
//! Owns both keys, their reads and the state of the claim. Refuses to write them, which [`super::takeover`] does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use twinspan_core::Timestamp;
use twinspan_core::model::{RawRecord, RecordKey, Revision};
use twinspan_core::plan::fence::Epoch;

use super::incarnation::{FenceValues, IncarnationKey};
use super::{Fence, Registry, RegistryError, Result};

/// The state of our claim to the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceStatus {
    /// Not the leader, or the epoch is not raised yet.
    None,
    Held(Epoch),
    /// etcd rejected a batch: our epoch may no longer be the newest.
    Suspect(Epoch),
    /// Another holder raised the epoch, and no Lease explains that holder.
    InUse {
        ours: Option<Epoch>,
        found: String,
    },
}

/// The keys of the fence, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceKeys {
    pub revision: Revision,
    pub epoch: Option<RawRecord>,
    pub incarnation: IncarnationKey,
}

impl FenceKeys {
    pub fn values(&self) -> FenceValues {
        let epoch = self.epoch.as_ref().and_then(|record| std::str::from_utf8(&record.value).ok());
        let epoch = epoch.and_then(|text| text.parse::<Epoch>().ok()).map(|epoch| epoch.counter);
        FenceValues { incarnation: self.incarnation.clone(), epoch }
    }
}

/// The epoch of one registry.
#[derive(Debug)]
pub struct FenceState {
    place: String,
    key: String,
    incarnation_key: String,
    pub(super) status: watch::Sender<FenceStatus>,
    /// The error of the last attempt to raise the epoch.
    last_error: Mutex<Option<RegistryError>>,
    pub(super) approved: watch::Sender<Option<String>>,
    /// The epoch at which we, or the leader before us, stopped writing.
    refused: Mutex<Option<String>>,
    /// The epoch that a write raised whose answer was lost. It may be ours without anybody having read it.
    attempted: Mutex<Option<Epoch>>,
    /// The highest counter of our epoch that is known, whatever became of the registry since.
    highest: AtomicU64,
    /// The last epoch that we raised, and when.
    raised: Mutex<Option<(Instant, Epoch)>>,
    /// Held by an attempt to take over. A session that begins anew meanwhile would read the keys of the fence before
    /// the attempt writes them, and be told of it after that.
    pub(super) attempt: tokio::sync::Mutex<()>,
    /// The end of the time in which own records without an owner stay.
    pub(super) orphan_grace_until: watch::Sender<Option<Timestamp>>,
}

impl FenceState {
    /// `place` is the start of the fences of all clusters. No ServiceRegistry has the empty name that the key of the
    /// incarnation has in the place of one.
    pub fn new(place: &str, cluster_id: &str, registry: &str) -> Self {
        let status = watch::Sender::new(FenceStatus::None);
        Self {
            place: place.to_owned(),
            key: format!("{place}{cluster_id}/{registry}"),
            incarnation_key: format!("{place}{cluster_id}//incarnation"),
            status,
            last_error: Mutex::default(),
            approved: watch::Sender::new(None),
            refused: Mutex::default(),
            attempted: Mutex::default(),
            highest: AtomicU64::default(),
            raised: Mutex::default(),
            attempt: tokio::sync::Mutex::default(),
            orphan_grace_until: watch::Sender::new(None),
        }
    }

    /// The start of the keys of all clusters' fences.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn incarnation_key(&self) -> &str {
        &self.incarnation_key
    }

    /// Reads both keys in one transaction. A user that may not read the incarnation key still has the epoch.
    ///
    /// # Errors
    /// The epoch key could not be read.
    pub async fn read(&self, registry: &dyn Registry) -> Result<FenceKeys> {
        let [epoch, incarnation] = [self.key.as_str(), self.incarnation_key.as_str()].map(RecordKey::from);
        let (reading, readable) = match registry.read(&[epoch.clone(), incarnation]).await {
            Ok(reading) => (reading, true),
            Err(RegistryError::PermissionDenied(_)) => (registry.read(&[epoch]).await?, false),
            Err(error) => return Err(error),
        };
        let mut records = reading.records.into_iter().map(|(_, record)| record);
        let epoch = records.next().flatten();
        let incarnation = match records.next().flatten() {
            _ if !readable => IncarnationKey::Unreadable,
            Some(record) => IncarnationKey::Value(String::from_utf8_lossy(&record.value).into_owned()),
            None => IncarnationKey::Missing,
        };
        Ok(FenceKeys { revision: reading.revision, epoch, incarnation })
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

    /// A receiver that changes with the state of our claim.
    pub fn changes(&self) -> watch::Receiver<FenceStatus> {
        self.status.subscribe()
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

    /// A session found these keys: an epoch that is not ours has to be raised again.
    pub(super) fn found(&self, keys: &FenceKeys) {
        self.know(keys.values().epoch.unwrap_or_default());
        let epoch = keys.epoch.as_ref().map(|record| record.value.as_slice());
        let ours = self.ours().map(|ours| ours.to_string().into_bytes());
        if ours.as_deref() != epoch || keys.incarnation == IncarnationKey::Missing {
            self.suspect();
        }
    }

    /// An epoch with this counter exists, or existed. A backup that is restored may bring it back, so that the next
    /// leader's has to be higher.
    pub fn know(&self, counter: u64) {
        self.highest.fetch_max(counter, Ordering::Relaxed);
    }

    /// The highest counter of our epoch that is known; 0 if none is.
    pub fn highest(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }

    /// Takes the epoch that an administrator lets us raise, from the annotation of the ServiceRegistry.
    pub fn approve(&self, value: Option<String>) {
        self.approved.send_if_modified(|approved| {
            let changed = *approved != value;
            *approved = value;
            changed
        });
    }

    /// The epoch was raised just now.
    pub(super) fn set_raised(&self, to: &Epoch) {
        self.know(to.counter);
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), to.clone()));
    }

    /// The epoch that we raised after that time, if we did.
    pub(super) fn raised_since(&self, since: Option<Instant>) -> Option<Epoch> {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        raised.as_ref().filter(|(at, _)| since.is_some_and(|since| *at >= since)).map(|(_, epoch)| epoch.clone())
    }

    /// When we raised the epoch last.
    pub(super) fn raised_at(&self) -> Option<Instant> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(at, _)| *at)
    }

    /// Our epoch has to be raised anew, though it is the newest.
    pub(super) fn raise_again(&self) {
        self.status.send_if_modified(|status| {
            let held = matches!(status, FenceStatus::Held(_));
            if held {
                *status = FenceStatus::None;
            }
            held
        });
    }

    /// Takes the epoch at which the leader before us stopped writing, from the status of the ServiceRegistry.
    pub fn refuse(&self, value: &str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(value.to_owned());
    }

    /// Takes over what the session before refused, at a former place or with other settings: a clone that writes under
    /// our fence does so wherever our records are. `same_etcd`: the epoch that the session before held is ours here
    /// too, so that a higher one that nothing explains is a clone's, although nobody has met it yet.
    pub fn succeed(&self, former: &Self, same_etcd: bool) {
        if self.key != former.key {
            return;
        }
        self.know(former.highest());
        if let Some(refused) = former.refused() {
            self.refuse(&refused);
        }
        if let Some(ours) = former.ours().filter(|_| same_etcd) {
            self.set(FenceStatus::Suspect(ours));
        } else if let Some(attempted) = former.attempted().filter(|_| same_etcd) {
            self.set_attempted(&attempted);
        }
    }

    /// The answer to a write that raises the epoch is lost.
    pub(super) fn set_attempted(&self, to: &Epoch) {
        self.know(to.counter);
        *self.attempted.lock().unwrap_or_else(PoisonError::into_inner) = Some(to.clone());
    }

    /// The epoch that such a write raised, for all that is known; forgotten once the state of our claim is known.
    pub(super) fn attempted(&self) -> Option<Epoch> {
        self.attempted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        *self.attempted.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.status.send_replace(status);
    }

    pub(super) fn ours(&self) -> Option<Epoch> {
        match &*self.status.borrow() {
            FenceStatus::None => None,
            FenceStatus::Held(ours) | FenceStatus::Suspect(ours) => Some(ours.clone()),
            FenceStatus::InUse { ours, .. } => ours.clone(),
        }
    }
}
