//! The reports about ServiceRegistries that are due.
//!
//! Owns the queue of due reports, one for each name, and the task that makes them beside the sessions. Refuses to know
//! what a status says, which [`super::status`] does, and when it is written, which its writer does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::settings::Rejection;
use super::status::{Reporter, Told};

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

    /// Reports what is due until it is stopped.
    pub async fn run(self, reporter: Reporter, stop: CancellationToken) {
        let mut told = Told::default();
        loop {
            let next = self.next();
            let wait = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.added.notified() => {}
                () = wait => {}
            }
            let now = Instant::now();
            for (name, Due { rejection, .. }) in self.take(now) {
                reporter.report(&name, rejection.as_ref(), &mut told);
                if let Some(wait) = reporter.looks_again(&name) {
                    self.postpone(&name, now + wait, rejection);
                }
            }
        }
    }
}
