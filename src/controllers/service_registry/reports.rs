//! The pace of the statuses of ServiceRegistries: at most one write of each in [`STATUS_PACE`].
//!
//! Owns the queue of due reports, one for each name, and the task that writes them beside the sessions: a slow API
//! server delays no session. Refuses to know what a status says, which [`super::status`] does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::settings::Rejection;
use super::status::{Reported, Reporter};

/// Least time between two status writes of one ServiceRegistry.
const STATUS_PACE: Duration = Duration::from_secs(5);
/// Wait before a throttled status is tried again.
const STATUS_RETRY: Duration = Duration::from_millis(250);

/// A report that is due.
#[derive(Debug)]
struct Due {
    at: Instant,
    /// Why there can be no session; the latest counts.
    rejection: Option<Rejection>,
}

/// The due reports; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    due: Arc<Mutex<BTreeMap<String, Due>>>,
    added: Arc<Notify>,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Due>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status of a ServiceRegistry may have changed.
    pub fn soon(&self, name: &str, rejection: Option<&Rejection>) {
        self.put(name, Instant::now(), rejection.cloned());
        self.added.notify_one();
    }

    fn put(&self, name: &str, at: Instant, rejection: Option<Rejection>) {
        let mut due = self.lock();
        let at = due.get(name).map_or(at, |known| known.at.min(at));
        due.insert(name.to_owned(), Due { at, rejection });
    }

    /// Waits for later, unless something newer is due meanwhile.
    fn postpone(&self, name: &str, at: Instant, rejection: Option<Rejection>) {
        self.lock().entry(name.to_owned()).or_insert(Due { at, rejection });
    }

    fn next(&self) -> Option<Instant> {
        self.lock().values().map(|due| due.at).min()
    }

    fn take(&self, now: Instant) -> BTreeMap<String, Due> {
        let mut all = self.lock();
        let (taken, rest) = std::mem::take(&mut *all).into_iter().partition(|(_, due)| due.at <= now);
        *all = rest;
        taken
    }

    /// Writes what is due until it is stopped.
    pub async fn run(self, reporter: Reporter, stop: CancellationToken) {
        let mut written: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            let next = self.next();
            let wait = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.added.notified() => {}
                () = wait => {}
            }
            let now = Instant::now();
            written.retain(|_, last| *last + STATUS_PACE > now);
            for (name, Due { rejection, .. }) in self.take(now) {
                if let Some(last) = written.get(&name) {
                    self.postpone(&name, *last + STATUS_PACE, rejection);
                    continue;
                }
                match reporter.report(&name, rejection.as_ref()).await {
                    Ok(Reported::Written) => drop(written.insert(name.clone(), now)),
                    Ok(Reported::Nothing) => {}
                    Ok(Reported::Throttled) => self.postpone(&name, now + STATUS_RETRY, rejection.clone()),
                    Err(error) => {
                        warn!(registry = name, %error, "cannot write the status of the ServiceRegistry; trying again");
                        self.postpone(&name, now + STATUS_PACE, rejection.clone());
                    }
                }
                if let Some(wait) = reporter.looks_again(&name) {
                    self.postpone(&name, now + wait, rejection);
                }
            }
        }
    }
}
