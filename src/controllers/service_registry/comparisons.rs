//! Comparisons of two ServiceRegistries with the same keyspace: whether both lead to one etcd.
//!
//! Owns the tasks that compare, their pace and the verdicts. Refuses to know how two etcds are told apart, which
//! [`crate::registry::rivals`] does, and the consequence.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::duplicates::{Older, Verdicts};
use crate::registry::RegistryError;
use crate::registry::handle::RegistryHandle;
use crate::registry::rivals::{self, Comparison};
use crate::registry::sessions::Registries;

/// First wait before two ServiceRegistries are compared again; doubled for each further one. A new connection and a
/// raised epoch end it.
const COMPARE_FIRST: Duration = Duration::from_millis(250);
/// Longest wait: two that only a leader can tell apart cost a standby almost nothing.
const COMPARE_CAP: Duration = Duration::from_secs(600);

/// The comparisons of all sessions; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparisons(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    verdicts: Verdicts,
    /// Younger and older ones that are being compared.
    under_way: BTreeSet<(String, String)>,
    /// Younger ones with a new verdict.
    decided: BTreeSet<String>,
}

impl Comparisons {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found so far.
    pub fn verdicts(&self) -> Verdicts {
        self.lock().verdicts.clone()
    }

    /// True once after a verdict about a younger ServiceRegistry.
    pub fn is_decided(&self, younger: &str) -> bool {
        self.lock().decided.remove(younger)
    }

    /// Whatever was proven about a ServiceRegistry proves nothing any more.
    pub fn forget(&self, name: &str) {
        self.lock().verdicts.retain(|(older, younger), _| older != name && younger != name);
    }

    /// Finds out whether an older ServiceRegistry leads to the same etcd; the younger one waits meanwhile.
    pub fn start(
        &self,
        registries: &Registries,
        name: &str,
        older: Older,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let pair = (older.name.clone(), name.to_owned());
        let (Some(theirs), Some(ours)) = (registries.get(&older.name), registries.get(name)) else { return };
        if !self.lock().under_way.insert(pair.clone()) {
            return;
        }
        let (all, registries, stop) = (self.clone(), registries.clone(), stop.clone());
        tasks.spawn(async move {
            let found = tokio::select! {
                () = stop.cancelled() => None,
                found = compare(&registries, &theirs, &ours) => found,
            };
            let mut state = all.lock();
            state.under_way.remove(&pair);
            if let Some(found) = found {
                state.decided.insert(pair.1.clone());
                state.verdicts.insert(pair, (older.endpoints, found));
            }
            drop(state);
            ours.report();
        });
    }
}

/// Compares the etcds of two sessions until it is known; `None` if one of them ends before that.
async fn compare(
    registries: &Registries,
    theirs: &Arc<RegistryHandle>,
    ours: &Arc<RegistryHandle>,
) -> Option<Comparison> {
    let runs = |handle: &Arc<RegistryHandle>| {
        registries.get(&handle.name).is_some_and(|running| Arc::ptr_eq(&running, handle))
    };
    let (mut their_connection, mut our_connection) = (theirs.connections(), ours.connections());
    let mut epoch = ours.fence.as_ref()?.changes();
    let mut wait = COMPARE_FIRST;
    while runs(theirs) && runs(ours) {
        their_connection.borrow_and_update();
        our_connection.borrow_and_update();
        epoch.borrow_and_update();
        match rivals::compare(theirs, ours).await {
            // A user that may not read the other's key has nothing better than the cluster ID.
            Err(RegistryError::PermissionDenied(_)) => return Some(Comparison::SameEtcd),
            Ok(Comparison::Unproven) | Err(_) => {}
            Ok(found) => return Some(found),
        }
        tokio::select! {
            _ = their_connection.changed() => {}
            _ = our_connection.changed() => {}
            _ = epoch.changed() => {}
            () = tokio::time::sleep(wait) => wait = (2 * wait).min(COMPARE_CAP),
        }
    }
    None
}
