//! The queue: the time at which each RegisteredService is reconciled.
//!
//! Owns pace and retries. The first changes of a quiet service are reconciled immediately, a busy service at most every
//! [`PACE`]: a service has [`BURST`] passes in hand, and gets one back for each [`PACE`]. A change of everything waits
//! for the pace, whatever is in hand. Each service has one pass at a time. [`PLACES`] of them run at once, so that a
//! start with ten thousand services does not hold all their plans; a pass that waits for an answer leaves its place
//! after [`PLACE_HELD`], so that a slow answer for one delays no other for longer. Failures back off and are retried
//! for ever. Refuses to know what a pass does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::time::{DelayQueue, delay_queue};
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use crate::env::Env;
use crate::tasks;

/// Least time between the starts of two passes over one service that is busy.
pub const PACE: Duration = Duration::from_millis(200);
/// Passes that a quiet service may have one after the other: a server that leaves costs two, and a rolling update a few
/// in a second.
const BURST: u32 = 10;
/// First wait after a failure; it doubles with each further failure.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait after failures.
const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// Passes at once, but for those that have waited for an answer for longer than [`PLACE_HELD`]. Far more than writes at
/// once, so that those never lack one.
const PLACES: usize = 256;
const PLACE_HELD: Duration = Duration::from_secs(1);
/// Time that running passes have to finish when everything stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Changes that may come before the start or the end of the next pass. Many changes of one service are one pass, so
/// they come first; but there may always be more.
const CHANGES_IN_A_ROW: usize = 100;

/// The action after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait until something changes.
    Await,
    /// Reconcile again after this time, if nothing changes before.
    RequeueAfter(Duration),
    /// The pass failed: reconcile again with backoff.
    Retry,
    /// The service is gone, and nothing of it is left: forget it.
    Forget,
}

/// The action after a pass, and whether the change that led to it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    pub action: Action,
    /// Whether the change still waits for its answer, because a side could not be read or written: the next pass gets
    /// the time of this change and not that of a later one.
    pub keep_trigger_time: bool,
}

impl From<Action> for Finished {
    fn from(action: Action) -> Self {
        Self { action, keep_trigger_time: action == Action::Retry }
    }
}

/// A service that changed.
#[derive(Debug)]
struct Mark {
    key: ServiceKey,
    at: Timestamp,
    /// Whether everything changed, perhaps for the second time in a moment.
    with_all: bool,
}

/// Enqueues services that changed.
#[derive(Clone, Debug)]
pub struct Enqueuer {
    env: Env,
    sender: mpsc::UnboundedSender<Mark>,
}

impl Enqueuer {
    pub fn enqueue(&self, key: &ServiceKey) {
        self.mark(key, false);
    }

    fn mark(&self, key: &ServiceKey, with_all: bool) {
        // The receiver is dropped only while the process ends.
        let _ = self.sender.send(Mark { key: key.clone(), at: self.env.now(), with_all });
    }

    /// Enqueues the services of a registry, or of everything: several such changes within [`PACE`] are one pass over
    /// each, after the first.
    pub fn enqueue_round<'a>(&self, keys: impl IntoIterator<Item = &'a ServiceKey>) {
        for key in keys {
            self.mark(key, true);
        }
    }

    pub fn enqueue_all<'a>(&self, keys: impl IntoIterator<Item = &'a ServiceKey>) {
        for key in keys {
            self.enqueue(key);
        }
    }
}

/// The enqueuer, and the queue that it fills.
pub fn new(env: Env) -> (Enqueuer, Queue) {
    let (sender, marks) = mpsc::unbounded_channel();
    let (entries, due, delays, backlog) = Default::default();
    let places = Arc::new(Semaphore::new(PLACES));
    let queue = Queue { env: env.clone(), marks, entries, due, delays, places, backlog };
    (Enqueuer { env, sender }, queue)
}

#[derive(Debug)]
struct Entry {
    running: bool,
    /// The time of the first change that no pass has seen yet.
    changed: Option<Timestamp>,
    /// The time of the first change that a pass has seen; while a pass runs, and afterwards if it left the change
    /// unanswered.
    in_flight_since: Option<Timestamp>,
    scheduled: Option<Scheduled>,
    started: Option<Instant>,
    /// The time at which all passes are in hand again.
    full_at: Option<Instant>,
    /// Whether each change that no pass has seen yet was one of everything.
    with_all: bool,
    failures: u32,
}

/// The next pass over a service.
#[derive(Clone, Copy, Debug)]
enum Scheduled {
    /// As soon as the changes are seen that wait, and there is a place.
    Due,
    At(delay_queue::Key, Instant),
}

#[derive(Debug)]
pub struct Queue {
    env: Env,
    marks: mpsc::UnboundedReceiver<Mark>,
    entries: BTreeMap<ServiceKey, Entry>,
    /// Services whose pass is due now: a timer would be up to a millisecond late.
    due: VecDeque<(ServiceKey, Instant)>,
    delays: DelayQueue<ServiceKey>,
    places: Arc<Semaphore>,
    backlog: Backlog,
}

/// The passes that are due and have not begun; clones share what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<Mutex<(usize, Option<Instant>)>>);

impl Backlog {
    /// Their number, and since when the first of them has been due.
    pub fn get(&self) -> (usize, Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, due: &VecDeque<(ServiceKey, Instant)>) {
        let first = due.front().map(|(_, since)| *since);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (due.len(), first);
    }
}

impl Queue {
    pub fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// The services that were enqueued since the last call.
    #[cfg(test)]
    pub fn take_enqueued(&mut self) -> Vec<ServiceKey> {
        std::iter::from_fn(|| self.marks.try_recv().ok()).map(|mark| mark.key).collect()
    }

    /// Runs passes until it is stopped. A pass gets its service and the time of the change that led to it.
    pub async fn run<F, Fut>(mut self, pass: F, stop: CancellationToken)
    where
        F: Fn(ServiceKey, Timestamp) -> Fut,
        Fut: Future<Output = Finished> + Send + 'static,
    {
        let mut running = JoinSet::new();
        loop {
            for _ in 0..CHANGES_IN_A_ROW {
                let Ok(mark) = self.marks.try_recv() else { break };
                self.marked(mark);
            }
            while !self.due.is_empty()
                && let Ok(place) = self.places.clone().try_acquire_owned()
            {
                self.start_next(place, &pass, &mut running);
            }
            self.backlog.set(&self.due);
            let places = self.places.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(delayed) = self.delays.next() => self.is_due(delayed.into_inner()),
                Ok(place) = places.acquire_owned(), if !self.due.is_empty() => {
                    self.start_next(place, &pass, &mut running);
                }
                Some(ended) = running.join_next() => {
                    // A panic in one pass must not affect the others. Nothing aborts a pass here.
                    if let Ok((key, how)) = ended {
                        self.ended(key, how.unwrap_or_else(|_| Action::Retry.into()));
                    }
                }
                mark = self.marks.recv() => match mark {
                    Some(mark) => self.marked(mark),
                    None => break,
                },
            }
        }
        let drain = async { while running.join_next().await.is_some() {} };
        // A pass that still runs after that is aborted; every write is a compare-and-swap, so the next leader repairs
        // the rest.
        let _ = timeout(DRAIN, drain).await;
    }

    fn marked(&mut self, Mark { key, at, with_all }: Mark) {
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            running: false,
            changed: None,
            in_flight_since: None,
            scheduled: None,
            started: None,
            full_at: None,
            with_all,
            failures: 0,
        });
        entry.with_all = with_all && (entry.with_all || entry.changed.is_none());
        entry.changed.get_or_insert(at);
        if !entry.running {
            let at = entry.earliest(Instant::now());
            self.schedule(key, at);
        }
    }

    /// The delay of a pass has ended.
    fn is_due(&mut self, key: ServiceKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.scheduled = Some(Scheduled::Due);
            self.due.push_back((key, Instant::now()));
        }
    }

    /// Starts the pass that has been due for the longest time.
    fn start_next<F, Fut>(
        &mut self,
        place: OwnedSemaphorePermit,
        pass: &F,
        running: &mut JoinSet<(ServiceKey, Result<Finished, String>)>,
    ) where
        F: Fn(ServiceKey, Timestamp) -> Fut,
        Fut: Future<Output = Finished> + Send + 'static,
    {
        let now = self.env.now();
        let Some((key, _)) = self.due.pop_front() else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let started = Instant::now();
        entry.scheduled = None;
        entry.running = true;
        entry.started = Some(started);
        entry.full_at = Some(entry.full_at.map_or(started, |at| at.max(started)) + PACE);
        // A change that an earlier pass left unanswered is older than later ones.
        let triggered = entry.in_flight_since.or(entry.changed).unwrap_or(now);
        entry.changed = None;
        entry.in_flight_since = Some(triggered);
        // A pass is large, and each layer around it would copy it.
        let pass = Box::pin(pass(key.clone(), triggered));
        self.env.spawn_in(running, async move { (key, in_place(place, tasks::unbroken("pass", pass)).await) });
    }

    fn ended(&mut self, key: ServiceKey, Finished { action, keep_trigger_time }: Finished) {
        let now = Instant::now();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.running = false;
        entry.in_flight_since = entry.in_flight_since.filter(|_| keep_trigger_time);
        entry.failures = if action == Action::Retry { entry.failures + 1 } else { 0 };
        let changed = entry.changed.is_some().then(|| entry.earliest(now));
        let again = match action {
            Action::Forget if changed.is_none() => {
                self.entries.remove(&key);
                return;
            }
            Action::Await | Action::Forget => None,
            Action::RequeueAfter(wait) => Some(now + wait),
            Action::Retry => Some(now + self.env.backoff(entry.failures, BACKOFF, BACKOFF_CAP)),
        };
        if let Some(at) = again.into_iter().chain(changed).min() {
            self.schedule(key, at);
        }
    }

    /// Schedules a pass; an earlier time replaces a later one.
    fn schedule(&mut self, key: ServiceKey, at: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let now = Instant::now();
        let is_due = at <= now;
        match entry.scheduled {
            Some(Scheduled::Due) => {}
            Some(Scheduled::At(_, before)) if before <= at => {}
            Some(Scheduled::At(delayed, _)) if is_due => {
                self.delays.remove(&delayed);
                entry.scheduled = Some(Scheduled::Due);
                self.due.push_back((key, now));
            }
            Some(Scheduled::At(delayed, _)) => {
                self.delays.reset_at(&delayed, at);
                entry.scheduled = Some(Scheduled::At(delayed, at));
            }
            None if is_due => {
                entry.scheduled = Some(Scheduled::Due);
                self.due.push_back((key, now));
            }
            None => entry.scheduled = Some(Scheduled::At(self.delays.insert_at(key, at), at)),
        }
    }
}

/// Runs a pass, which has a place for some time.
async fn in_place<T>(place: OwnedSemaphorePermit, pass: impl Future<Output = T>) -> T {
    let mut pass = std::pin::pin!(pass);
    match timeout(PLACE_HELD, &mut pass).await {
        Ok(ended) => ended,
        Err(_) => {
            drop(place);
            pass.await
        }
    }
}

impl Entry {
    /// The earliest start of the pass that its changes ask for.
    fn earliest(&self, now: Instant) -> Instant {
        let paced = if self.with_all { self.started.map(|started| started + PACE) } else { None };
        // The last pass in hand may be spent.
        let in_hand = self.full_at.and_then(|full| (full + PACE).checked_sub(PACE * BURST));
        now.max(paced.unwrap_or(now)).max(in_hand.unwrap_or(now))
    }
}

#[cfg(test)]
#[path = "queue_pace_tests.rs"]
mod tests;
