//! The take-over of a registry's epoch, and its release.
//!
//! Owns the requests for the epoch key, and their retries. A registry that cannot be fenced delays no other. Refuses to
//! decide about the epoch that it finds, which [`twinspan_core::plan::fence`] does, and to know how the Lease was won:
//! it asks [`crate::leadership`].

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use twinspan_core::Timestamp;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey};
use twinspan_core::plan::RecordOp;
use twinspan_core::plan::fence::{Decision, Epoch, FenceInput, decide};

use super::fence::{FenceKeys, FenceState, FenceStatus};
use super::handle::RegistryHandle;
use super::incarnation::IncarnationKey;
use super::outcomes::start_over;
use super::{Batch, Outcome, Registry, RegistryError, Result};
use crate::env::Env;
use crate::leadership::{Leadership, LeaseHistory};

/// First wait after a take-over failed; doubled for each further one.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// Time between two reads of an epoch that another holder raised.
const RECHECK: Duration = Duration::from_secs(30);

/// Everything that a take-over depends on.
#[derive(Clone, Debug)]
pub struct Takeover {
    pub leadership: Leadership,
    pub lease_history: LeaseHistory,
    pub env: Env,
    /// The process ends: the epoch is released.
    pub ending: CancellationToken,
}

/// Raises the epoch whenever this process leads and may write, until it is stopped; releases it when the process ends.
pub async fn run(handle: Arc<RegistryHandle>, takeover: Takeover, stop: CancellationToken) {
    let Takeover { leadership, env, ending, .. } = &takeover;
    let Some(fence) = &handle.fence else { return };
    let mut leading = leadership.changes();
    let mut connections = handle.connections();
    let mut status = fence.status.subscribe();
    let mut approved = fence.approved.subscribe();
    let mut failures = 0;
    loop {
        // Any change from here on starts another round.
        leading.borrow_and_update();
        approved.borrow_and_update();
        let now = status.borrow_and_update().clone();
        let connection = connections.borrow_and_update().clone();
        let wait = match (leadership.may_write(), connection) {
            (false, _) => {
                let reported = !matches!(fence.fence(), Ok(_) | Err(RegistryError::NoEpoch));
                fence.set(FenceStatus::None);
                *fence.last_error() = None;
                status.borrow_and_update();
                if reported {
                    // Clears the reported error: only a leader reports that it cannot raise the epoch.
                    handle.requeue_all();
                }
                Duration::MAX
            }
            (true, None) => Duration::MAX,
            (true, Some(_)) if matches!(now, FenceStatus::Held(_)) => Duration::MAX,
            (true, Some(registry)) => match take_over(&handle, fence, registry.as_ref(), &takeover).await {
                Ok(()) => {
                    failures = 0;
                    *fence.last_error() = None;
                    // RegisteredServices that waited for the epoch may write now, or have to report why not.
                    handle.requeue_all();
                    handle.neighbours.look();
                    status.borrow_and_update();
                    match &*fence.status.borrow() {
                        FenceStatus::Held(_) => Duration::MAX,
                        _ => RECHECK,
                    }
                }
                Err(error) => {
                    failures += 1;
                    warn!(registry = handle.name, %error, "cannot raise the epoch; trying again");
                    let changed =
                        fence.last_error().replace(error.clone()).map(|before| before.label()) != Some(error.label());
                    if changed {
                        handle.requeue_all();
                    }
                    env.backoff(failures, BACKOFF, BACKOFF_CAP)
                }
            },
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = ending.cancelled() => break,
            _ = leading.changed() => {}
            _ = connections.changed() => {}
            _ = status.changed() => {}
            _ = approved.changed() => {}
            () = tokio::time::sleep(wait.min(Duration::from_secs(86_400))) => {}
        }
    }
    release(&handle, fence).await;
}

/// One attempt. If an answer is lost, the next attempt reads the epoch again.
async fn take_over(
    handle: &RegistryHandle,
    fence: &FenceState,
    registry: &dyn Registry,
    takeover: &Takeover,
) -> Result<()> {
    let _attempt = fence.attempt.lock().await;
    let lease_history = &takeover.lease_history;
    let before = handle.view().newest_revision();
    let keys = fence.read(registry).await?;
    if keys.revision < before || handle.view().last_known().is_some_and(|known| !known.explains(&keys.incarnation)) {
        // The session has to judge that by its next list. An incarnation key that is created before would make another
        // etcd, or an older state, look like the known one.
        start_over(handle, registry);
        return Err(RegistryError::WatchEnded("another etcd answers than when the session began".to_owned()));
    }
    let found = keys.epoch.clone();
    let text = found.as_ref().map(|record| String::from_utf8_lossy(&record.value).into_owned());
    let epoch = text.as_deref().and_then(|text| text.parse::<Epoch>().ok());
    // An epoch above the one that we raised without an answer is that of somebody who displaced us.
    let above = |attempted: &Epoch| epoch.as_ref().is_some_and(|epoch| epoch.counter > attempted.counter);
    let ours = fence.ours().or_else(|| fence.attempted().filter(above));
    let holder = epoch.as_ref().map(|epoch| epoch.holder.clone());
    // A live read of the Lease: shows if we hold it, and updates the history of its holders.
    let leads = lease_history.confirm().await.map_err(|error| RegistryError::LeaseUnconfirmed(error.to_string()))?;
    let approved = fence.approved.borrow().clone();
    let refused = fence.refused();
    let decision = decide(&FenceInput {
        found: text.as_deref(),
        ours: ours.as_ref(),
        known: fence.highest(),
        me: lease_history.identity(),
        explained: holder.as_deref().is_none_or(|holder| lease_history.explains(holder, fence.raised_at())),
        approved: approved.as_deref(),
        refused: refused.as_deref(),
    });
    match decision {
        Decision::Hold => {
            if let Some(ours) = ours {
                if keys.incarnation == IncarnationKey::Missing && leads {
                    raise(handle, fence, registry, &keys, &ours, takeover).await?;
                }
                fence.set(FenceStatus::Held(ours));
            }
        }
        Decision::InUse => {
            let Some(found) = text else { return Ok(()) };
            fence.refuse(&found);
            warn!(
                registry = handle.name,
                key = fence.key(),
                found,
                "another writer uses this cluster ID; nothing is written"
            );
            fence.set(FenceStatus::InUse { ours, found });
        }
        Decision::Raise { .. } if !leads => {
            return Err(RegistryError::LeaseUnconfirmed("the Lease names another holder".to_owned()));
        }
        Decision::Raise { to, unexplained } => {
            let raised = raise(handle, fence, registry, &keys, &to, takeover).await;
            let lost = raised.as_ref().is_err_and(RegistryError::is_ambiguous);
            if lost {
                fence.set_attempted(&to);
            }
            // The next attempt may find our own epoch, which no longer tells whose it replaced.
            if unexplained && (lost || raised.is_ok()) {
                let ttl = handle.leases.ttl();
                warn!(
                    registry = handle.name,
                    found = text,
                    ttl_seconds = ttl.as_secs(),
                    "nothing explains who held the epoch before; own records without an owner are left alone for one lease TTL"
                );
                let after = takeover.env.now().checked_add(ttl).unwrap_or(Timestamp::MAX);
                fence.orphan_grace_until.send_replace(Some(after));
            }
            raised?;
            info!(registry = handle.name, epoch = %to, "raised the epoch");
            fence.set(FenceStatus::Held(to));
            handle.find_orphans.notify_one();
        }
    }
    Ok(())
}

/// Raises the epoch, and creates the incarnation key where it is missing. Asks for the claim before each request.
async fn raise(
    handle: &RegistryHandle,
    fence: &FenceState,
    registry: &dyn Registry,
    keys: &FenceKeys,
    to: &Epoch,
    takeover: &Takeover,
) -> Result<()> {
    let write = async |ops| {
        // The claim may have ended while an answer was awaited: the Lease that was ours may be another's by now.
        if takeover.leadership.may_write() { commit(registry, ops).await } else { Err(RegistryError::NotLeader) }
    };
    let mut incarnation = match &keys.incarnation {
        IncarnationKey::Value(value) => Some(value.clone()),
        IncarnationKey::Unreadable | IncarnationKey::Missing => None,
    };
    let epoch = write_epoch(fence, keys.epoch.as_ref(), to);
    if keys.incarnation == IncarnationKey::Missing {
        let value: String = (0..4).map(|_| format!("{:08x}", takeover.env.random_u32())).collect();
        let (key, bytes) = (fence.incarnation_key().into(), value.clone().into_bytes());
        match write(vec![epoch.clone(), RecordOp::Create { key, value: bytes }]).await {
            Ok(Some(Outcome::Conflict(Some(found)))) => {
                incarnation = Some(String::from_utf8_lossy(&found.value).into_owned());
            }
            Ok(_) => incarnation = Some(value),
            // A user that may write the epoch alone can still lead.
            Err(RegistryError::PermissionDenied(_)) => drop(write(vec![epoch]).await?),
            Err(error) => return Err(error),
        }
    } else {
        write(vec![epoch]).await?;
    }
    fence.set_raised(to);
    handle.view().raised(to.counter, incarnation);
    Ok(())
}

/// Compare-and-swap on the record that was read: of two processes that raise, one wins.
fn write_epoch(fence: &FenceState, found: Option<&RawRecord>, to: &Epoch) -> RecordOp {
    let (key, value) = (RecordKey::from(fence.key()), to.to_string().into_bytes());
    match found {
        None => RecordOp::Create { key, value },
        Some(found) => RecordOp::Update { key, value, if_revision: found.mod_revision, lease: found.lease },
    }
}

/// Writes the epoch, which is the first operation. Returns the outcome of the second one.
async fn commit(registry: &dyn Registry, ops: Vec<RecordOp>) -> Result<Option<Outcome>> {
    // Without a lease: the epoch must outlive every process that may still write under an older one.
    let committed = registry.commit(&Batch { fence: None, lease: LeaseId::NONE, ops }).await?;
    let mut outcomes = committed.outcomes.into_iter();
    match outcomes.next() {
        Some(Outcome::Written) => Ok(outcomes.next()),
        _ => Err(RegistryError::NoEpoch),
    }
}

/// Clears the holder, so that the next leader knows that no process writes under this epoch (`docs/decisions/0017`).
async fn release(handle: &RegistryHandle, fence: &FenceState) {
    let FenceStatus::Held(ours) = fence.status.send_replace(FenceStatus::None) else { return };
    let Ok(registry) = handle.connection() else { return };
    let released = async {
        let found = fence.read(registry.as_ref()).await?.epoch;
        if found.as_ref().is_some_and(|record| record.value == ours.to_string().as_bytes()) {
            let nobody = Epoch { holder: String::new(), ..ours };
            commit(registry.as_ref(), vec![write_epoch(fence, found.as_ref(), &nobody)]).await?;
        }
        Ok::<(), RegistryError>(())
    };
    if let Err(error) = released.await {
        warn!(registry = handle.name, %error, "cannot give the epoch back");
    }
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
