//! The handle of a cluster, and its clock.
//!
//! Owns the lock around the state, the task that does what is due, and the waking of calls that wait. Refuses to know
//! what requests mean.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::service::Member;
use crate::state::State;

/// How a cluster is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The number of members, from 1.
    pub members: usize,
    pub cluster_id: u64,
    /// The least TTL of a lease, in seconds: 2 with etcd's default election timeout.
    pub min_lease_ttl: i64,
    /// The version that the members say they run.
    pub version: String,
    /// Operations in a transaction at most: the default of `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// Bytes of a request at most: the default of `--max-request-bytes`.
    pub max_request_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            members: 1,
            cluster_id: 0x0cdf_8181_94e3_a8c3,
            min_lease_ttl: 2,
            version: "3.6.14".to_owned(),
            max_txn_ops: 128,
            max_request_bytes: 1536 * 1024,
        }
    }
}

/// A fake etcd cluster: every clone is the same cluster. A tokio runtime is needed when it is used; all time is that of
/// tokio's clock.
#[derive(Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
}

struct Shared {
    origin: Instant,
    inner: Mutex<Inner>,
    /// Told when something is due earlier than the clock knows.
    clock: Arc<Notify>,
    /// Told when calls that wait for the cluster have to look again.
    changed: Arc<Notify>,
}

struct Inner {
    state: State,
    ticking: bool,
    /// When the clock wakes up by itself.
    alarm: Option<Duration>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The clock sees that the cluster is gone.
        self.clock.notify_one();
    }
}

impl Etcd {
    pub fn new(options: Options) -> Self {
        let inner = Inner { state: State::new(options), ticking: false, alarm: None };
        let shared =
            Shared { origin: Instant::now(), inner: Mutex::new(inner), clock: Arc::default(), changed: Arc::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The gRPC endpoint of one member. A member that does not exist cannot be reached.
    pub fn member(&self, index: usize) -> Member {
        Member::new(self.clone(), index)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Looks at the state as it is now, or changes it.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        let mut inner = self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.state.advance(Instant::now() - self.shared.origin);
        let result = look(&mut inner.state);
        let changed = std::mem::take(&mut inner.state.changed);
        let next = inner.state.next_deadline();
        let earlier = next.is_some_and(|next| inner.alarm.is_none_or(|alarm| next < alarm));
        if earlier {
            inner.alarm = next;
            self.start_clock(&mut inner);
        }
        drop(inner);
        if earlier {
            self.shared.clock.notify_one();
        }
        if changed {
            self.shared.changed.notify_waiters();
        }
        result
    }

    fn start_clock(&self, inner: &mut Inner) {
        if std::mem::replace(&mut inner.ticking, true) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // No runtime, no clock: the next call from inside a runtime starts it.
            inner.ticking = false;
            inner.alarm = None;
            return;
        };
        let (clock, shared, origin) = (self.shared.clock.clone(), Arc::downgrade(&self.shared), self.shared.origin);
        runtime.spawn(async move {
            loop {
                let Some(shared) = shared.upgrade() else { return };
                let etcd = Self { shared };
                let alarm = etcd.next_alarm();
                drop(etcd);
                match alarm {
                    Some(at) => {
                        let woken = tokio::time::timeout_at(origin + at, clock.notified()).await;
                        drop(woken);
                    }
                    None => clock.notified().await,
                }
            }
        });
    }

    /// Does what is due, and says when the next thing is.
    fn next_alarm(&self) -> Option<Duration> {
        self.with(|_| ());
        let mut inner = self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.alarm = inner.state.next_deadline();
        inner.alarm
    }

    /// Waits until the state gives an answer; none after so long, if a time is given.
    pub(crate) async fn wait<R>(
        &self,
        patience: Option<Duration>,
        mut look: impl FnMut(&mut State) -> Option<R>,
    ) -> Option<R> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = self.with(&mut look) {
                return Some(found);
            }
            match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, changed).await.ok()?,
                None => changed.await,
            }
        }
    }
}
