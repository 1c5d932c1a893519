//! Comparisons of two ServiceRegistries with the same keyspace: whether both lead to one etcd.
//!
//! Owns the tasks that compare, their pace and the verdicts. Refuses to know how two etcds are told apart, which
//! [`crate::registry::rivals`] does, and the consequence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::duplicates::{Older, Pair, Verdicts};
use crate::controllers::views::Views;
use crate::registry::RegistryError;
use crate::registry::handle::RegistryHandle;
use crate::registry::rivals::{self, Comparison};
use crate::registry::sessions::Registries;
use crate::tasks;

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
    /// The task of each pair that is being compared, the older one first.
    under_way: BTreeMap<(String, String), Arc<Task>>,
    /// Younger ones with a new verdict.
    decided: BTreeSet<String>,
}

/// A task, by what it compares.
#[derive(Debug)]
struct Task {
    theirs: Arc<RegistryHandle>,
    ours: Arc<RegistryHandle>,
    endpoints: Pair,
    stop: CancellationToken,
}

impl Task {
    fn compares_the_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.theirs, &other.theirs)
            && Arc::ptr_eq(&self.ours, &other.ours)
            && self.endpoints == other.endpoints
    }
}

impl Comparisons {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdicts so far.
    pub fn verdicts(&self) -> Verdicts {
        self.lock().verdicts.clone()
    }

    /// True once after a verdict about a younger ServiceRegistry.
    pub fn is_decided(&self, younger: &str) -> bool {
        self.lock().decided.remove(younger)
    }

    /// Whatever was proven about a ServiceRegistry proves nothing any more, and neither does what is being compared.
    pub fn forget(&self, name: &str) {
        let mut state = self.lock();
        state.verdicts.retain(|(older, younger), _| older != name && younger != name);
        state.decided.remove(name);
        state.under_way.retain(|(older, younger), task| {
            let stays = older != name && younger != name;
            if !stays {
                task.stop.cancel();
            }
            stays
        });
    }

    /// Finds out whether an older ServiceRegistry leads to the same etcd; the younger one waits meanwhile.
    pub fn start(&self, views: &Views, name: &str, older: Older, tasks: &TaskTracker, stop: &CancellationToken) {
        let (registries, pair) = (&views.registries, (older.name.clone(), name.to_owned()));
        let (Some(theirs), Some(ours)) = (registries.get(&older.name), registries.get(name)) else { return };
        let task = Arc::new(Task { theirs, ours, endpoints: older.endpoints, stop: stop.child_token() });
        {
            let mut state = self.lock();
            if state.under_way.get(&pair).is_some_and(|former| former.compares_the_same(&task)) {
                return;
            }
            if let Some(former) = state.under_way.insert(pair.clone(), task.clone()) {
                former.stop.cancel();
            }
        }
        let (all, registries) = (self.clone(), registries.clone());
        views.env.spawn_on(tasks, async move {
            let found = tokio::select! {
                biased;
                () = task.stop.cancelled() => None,
                found = tasks::repeated("comparison", || compare(&registries, &task.theirs, &task.ours)) => found,
            };
            all.end(pair, &task, found);
            // The younger one waits no more, or waits for another task.
            task.ours.report();
        });
    }

    /// Takes the result of a task, unless the pair was forgotten or has another task by now.
    fn end(&self, pair: (String, String), task: &Arc<Task>, found: Option<Comparison>) {
        let mut state = self.lock();
        if !state.under_way.get(&pair).is_some_and(|current| Arc::ptr_eq(current, task)) {
            return;
        }
        state.under_way.remove(&pair);
        if let Some(found) = found {
            state.decided.insert(pair.1.clone());
            state.verdicts.insert(pair, (task.endpoints.clone(), found));
        }
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
            biased;
            _ = their_connection.changed() => {}
            _ = our_connection.changed() => {}
            _ = epoch.changed() => {}
            () = tokio::time::sleep(wait) => wait = (2 * wait).min(COMPARE_CAP),
        }
    }
    None
}
