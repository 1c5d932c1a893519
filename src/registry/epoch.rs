//! The fence of one registry: the epoch that every batch compares, and its take-over.
//!
//! Owns the epoch key and the state of our claim to it. What to do about what is found there is decided in
//! [`twinspan_core::plan::epoch`]; who holds the Lease is [`crate::leadership`]'s. One registry that cannot be fenced delays no other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use twinspan_core::Timestamp;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey};
use twinspan_core::plan::RecordOp;
use twinspan_core::plan::epoch::{Case, Decision, Epoch, decide};

use super::handle::RegistryHandle;
use super::{Batch, Fence, Outcome, Registry, RegistryError, Result};
use crate::leadership::{Claim, Holders};
use crate::world::World;

/// First wait after a take-over failed; doubled for each further one.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// How often an epoch that is somebody else's is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Where our claim to the epoch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Not the leader, or not yet raised.
    None,
    Held(Epoch),
    /// A batch was refused: ours may not be the epoch any more.
    Doubted(Epoch),
    /// Somebody else raised it, and nothing explains who.
    InUse {
        ours: Epoch,
        found: String,
    },
}

/// The epoch of one registry.
#[derive(Debug)]
pub struct EpochBook {
    key: String,
    standing: watch::Sender<Standing>,
    /// Why it could not be raised, where it could not.
    trouble: Mutex<Option<RegistryError>>,
    approved: watch::Sender<Option<String>>,
    /// Until when own records without an owner are left alone.
    sweep_after: watch::Sender<Option<Timestamp>>,
}

impl EpochBook {
    pub fn new(key: String) -> Self {
        let standing = watch::Sender::new(Standing::None);
        Self {
            key,
            standing,
            trouble: Mutex::default(),
            approved: watch::Sender::new(None),
            sweep_after: watch::Sender::new(None),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// # Errors
    /// Why nothing may be written.
    pub fn fence(&self) -> Result<Fence> {
        match &*self.standing.borrow() {
            Standing::Held(epoch) => Ok(Fence { key: self.key.clone(), value: epoch.to_string() }),
            Standing::None | Standing::Doubted(_) => Err(self.trouble().clone().unwrap_or(RegistryError::NoEpoch)),
            Standing::InUse { found, .. } => {
                Err(RegistryError::ClusterIdInUse { key: self.key.clone(), value: found.clone() })
            }
        }
    }

    /// A batch was refused because of it.
    pub fn doubt(&self) {
        self.standing.send_if_modified(|standing| match standing {
            Standing::Held(epoch) => {
                *standing = Standing::Doubted(epoch.clone());
                true
            }
            _ => false,
        });
    }

    /// The value that an administrator lets us raise, from the annotation of the ServiceRegistry.
    pub fn approve(&self, value: Option<String>) {
        self.approved.send_if_modified(|approved| {
            let changed = *approved != value;
            *approved = value;
            changed
        });
    }

    /// Until when own records without an owner are left alone: a leader that nothing explains may have written them for
    /// somebody who lives.
    pub fn sweep_after(&self) -> Option<Timestamp> {
        *self.sweep_after.borrow()
    }

    fn trouble(&self) -> MutexGuard<'_, Option<RegistryError>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, standing: Standing) {
        self.standing.send_replace(standing);
    }

    fn ours(&self) -> Option<Epoch> {
        match &*self.standing.borrow() {
            Standing::None => None,
            Standing::Held(ours) | Standing::Doubted(ours) | Standing::InUse { ours, .. } => Some(ours.clone()),
        }
    }
}

/// What a take-over asks.
#[derive(Clone, Debug)]
pub struct Leader {
    pub claim: Claim,
    pub holders: Holders,
    pub world: World,
    /// The process ends: what is held is given back.
    pub ending: CancellationToken,
}

/// Takes the epoch over whenever this process leads, until it is stopped; gives it back when the process ends.
pub async fn run(handle: Arc<RegistryHandle>, leader: Leader, stop: CancellationToken) {
    let Leader { claim, holders, world, ending } = leader;
    let Some(book) = &handle.epoch else { return };
    let mut leading = claim.changes();
    let mut connections = handle.connections();
    let mut standing = book.standing.subscribe();
    let mut approved = book.approved.subscribe();
    let mut failures = 0;
    loop {
        // Whatever changes from here on leads to another look.
        leading.borrow_and_update();
        approved.borrow_and_update();
        let now = standing.borrow_and_update().clone();
        let connection = connections.borrow_and_update().clone();
        let wait = match (claim.holds(), connection) {
            (false, _) => {
                let told = !matches!(book.fence(), Ok(_) | Err(RegistryError::NoEpoch));
                book.set(Standing::None);
                *book.trouble() = None;
                standing.borrow_and_update();
                if told {
                    // That it could not be raised is the next leader's affair.
                    handle.everybody_looks();
                }
                Duration::MAX
            }
            (true, None) => Duration::MAX,
            (true, Some(_)) if matches!(now, Standing::Held(_)) => Duration::MAX,
            (true, Some(registry)) => match take_over(&handle, book, registry.as_ref(), &holders, &world).await {
                Ok(()) => {
                    failures = 0;
                    *book.trouble() = None;
                    // Those that waited for it may write now, or have to say why they may not.
                    handle.everybody_looks();
                    standing.borrow_and_update();
                    match &*book.standing.borrow() {
                        Standing::Held(_) => Duration::MAX,
                        _ => LOOK_AGAIN,
                    }
                }
                Err(error) => {
                    failures += 1;
                    warn!(registry = handle.name, %error, "cannot raise the epoch; trying again");
                    let news =
                        book.trouble().replace(error.clone()).map(|before| before.label()) != Some(error.label());
                    if news {
                        handle.everybody_looks();
                    }
                    world.backoff(failures, BACKOFF, BACKOFF_CAP)
                }
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = ending.cancelled() => break,
            _ = leading.changed() => {}
            _ = connections.changed() => {}
            _ = standing.changed() => {}
            _ = approved.changed() => {}
            () = tokio::time::sleep(wait.min(Duration::from_secs(86_400))) => {}
        }
    }
    give_back(&handle, book).await;
}

/// One attempt. After an answer that was lost the next attempt reads again what became of it.
async fn take_over(
    handle: &RegistryHandle,
    book: &EpochBook,
    registry: &dyn Registry,
    holders: &Holders,
    world: &World,
) -> Result<()> {
    let found = read(book, registry).await?;
    let text = found.as_ref().map(|record| String::from_utf8_lossy(&record.value).into_owned());
    let ours = book.ours();
    let holder = text.as_deref().and_then(|text| text.parse::<Epoch>().ok()).map(|epoch| epoch.holder);
    // A live read: it tells whether we hold the Lease, and who else may have until lately.
    let leads = holders.confirm().await.map_err(|error| RegistryError::LeaseUnconfirmed(error.to_string()))?;
    let approved = book.approved.borrow().clone();
    let decision = decide(&Case {
        found: text.as_deref(),
        ours: ours.as_ref(),
        me: holders.identity(),
        explained: holder.as_deref().is_none_or(|holder| holders.explains(holder)),
        approved: approved.as_deref(),
    });
    match decision {
        Decision::Hold => {
            if let Some(ours) = ours {
                book.set(Standing::Held(ours));
            }
        }
        Decision::InUse => {
            let (Some(ours), Some(found)) = (ours, text) else { return Ok(()) };
            warn!(
                registry = handle.name,
                key = book.key,
                found,
                "somebody else uses our cluster ID; nothing is written"
            );
            book.set(Standing::InUse { ours, found });
        }
        Decision::Raise { .. } if !leads => {
            return Err(RegistryError::LeaseUnconfirmed("the Lease names another holder".to_owned()));
        }
        Decision::Raise { to, strange } => {
            raise(book, registry, found, &to).await?;
            if strange {
                let ttl = handle.leases.ttl();
                warn!(
                    registry = handle.name,
                    found = text,
                    ttl_seconds = ttl.as_secs(),
                    "nothing explains who held the epoch before; own records without an owner are left alone for one lease TTL"
                );
                let after = world.now().checked_add(ttl).unwrap_or(Timestamp::MAX);
                book.sweep_after.send_replace(Some(after));
            }
            info!(registry = handle.name, epoch = %to, "raised the epoch");
            book.set(Standing::Held(to));
            handle.adopt.notify_one();
        }
    }
    Ok(())
}

async fn read(book: &EpochBook, registry: &dyn Registry) -> Result<Option<RawRecord>> {
    let reading = registry.read(&[RecordKey::from(book.key.as_str())]).await?;
    Ok(reading.records.into_iter().next().and_then(|(_, record)| record))
}

/// Compare-and-swap on what was read: of two that raise, one wins.
async fn raise(book: &EpochBook, registry: &dyn Registry, found: Option<RawRecord>, to: &Epoch) -> Result<()> {
    let (key, value) = (RecordKey::from(book.key.as_str()), to.to_string().into_bytes());
    let op = match found {
        None => RecordOp::Create { key, value },
        Some(found) => RecordOp::Update { key, value, seen: found.mod_revision, lease: found.lease },
    };
    // It hangs on no lease: it must outlive everybody who could be wrong.
    let committed = registry.commit(&Batch { fence: None, lease: LeaseId::NONE, ops: vec![op] }).await?;
    match committed.outcomes.first() {
        Some(Outcome::Written) => Ok(()),
        _ => Err(RegistryError::NoEpoch),
    }
}

/// So that the next leader knows that nobody is behind it any more.
async fn give_back(handle: &RegistryHandle, book: &EpochBook) {
    let Standing::Held(ours) = book.standing.send_replace(Standing::None) else { return };
    let Ok(registry) = handle.connection() else { return };
    let given_back = async {
        let found = read(book, registry.as_ref()).await?;
        if found.as_ref().is_some_and(|record| record.value == ours.to_string().as_bytes()) {
            raise(book, registry.as_ref(), found, &Epoch { holder: String::new(), ..ours }).await?;
        }
        Ok::<(), RegistryError>(())
    };
    if let Err(error) = given_back.await {
        warn!(registry = handle.name, %error, "cannot give the epoch back");
    }
}

#[cfg(test)]
#[path = "epoch_tests.rs"]
mod tests;
