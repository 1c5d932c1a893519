//! When each RegisteredService is looked after.
//!
//! Owns pace and retries: the first change of a quiet service is looked after at once, a busy one at most every [`PACE`]; one pass
//! at a time for each service, and any number of services at once, so that one that waits for a slow answer delays no other;
//! failures back off and never give up. Refuses to know what a pass does.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::time::{DelayQueue, delay_queue};
use tracing::error;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use crate::world::World;

/// Least time between the starts of two passes over one service.
pub const PACE: Duration = Duration::from_millis(200);
/// First wait after a failure; doubled for each further one.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait after failures.
const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// How long passes that are under way may go on when everything stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing to do until something changes.
    Settled,
    /// Look again then, if nothing changes before.
    After(Duration),
    /// It failed: look again with backoff.
    Retry,
    /// The service is gone and nothing of it is left.
    Gone,
}

/// How a pass ended, and whether what led to it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub next: Next,
    /// A side could not be read or written, so the change still waits for its answer: the next pass is told of it and not of a later one.
    pub open: bool,
}

impl From<Next> for Ended {
    fn from(next: Next) -> Self {
        Self { next, open: next == Next::Retry }
    }
}

/// Marks services as changed.
#[derive(Clone, Debug)]
pub struct Marker {
    world: World,
    sender: mpsc::UnboundedSender<(ServiceKey, Timestamp)>,
}

impl Marker {
    pub fn mark(&self, key: &ServiceKey) {
        // Nobody listens only while the process ends.
        let _ = self.sender.send((key.clone(), self.world.now()));
    }

    pub fn mark_all<'a>(&self, keys: impl IntoIterator<Item = &'a ServiceKey>) {
        for key in keys {
            self.mark(key);
        }
    }
}

/// The marker, and the queue that it fills.
pub fn new(world: World) -> (Marker, Queue) {
    let (sender, marks) = mpsc::unbounded_channel();
    (
        Marker { world: world.clone(), sender },
        Queue { world, marks, entries: HashMap::new(), delays: DelayQueue::new() },
    )
}

#[derive(Debug)]
struct Entry {
    running: bool,
    /// When the first change came that no pass has seen yet.
    changed: Option<Timestamp>,
    /// When the first change came that a pass has seen; while one runs, and after it where it left that open.
    seen: Option<Timestamp>,
    scheduled: Option<(delay_queue::Key, Instant)>,
    started: Option<Instant>,
    failures: u32,
}

#[derive(Debug)]
pub struct Queue {
    world: World,
    marks: mpsc::UnboundedReceiver<(ServiceKey, Timestamp)>,
    entries: HashMap<ServiceKey, Entry>,
    delays: DelayQueue<ServiceKey>,
}

impl Queue {
    /// Whoever was marked since this was asked last.
    #[cfg(test)]
    pub fn take_marks(&mut self) -> Vec<ServiceKey> {
        std::iter::from_fn(|| self.marks.try_recv().ok()).map(|(key, _)| key).collect()
    }

    /// Runs passes until it is stopped. A pass is given its service and when the change came that led to it.
    pub async fn run<F, Fut>(mut self, pass: F, stop: CancellationToken)
    where
        F: Fn(ServiceKey, Timestamp) -> Fut,
        Fut: Future<Output = Ended> + Send + 'static,
    {
        let mut running = JoinSet::new();
        let mut keys: HashMap<Id, ServiceKey> = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                mark = self.marks.recv() => match mark {
                    Some((key, at)) => self.marked(key, at),
                    None => break,
                },
                Some(due) = self.delays.next() => {
                    let key = due.into_inner();
                    if let Some(triggered) = self.start(&key) {
                        let handle = running.spawn(pass(key.clone(), triggered));
                        keys.insert(handle.id(), key);
                    }
                }
                Some(ended) = running.join_next_with_id() => {
                    let (id, how) = match ended {
                        Ok((id, how)) => (id, how),
                        Err(failure) => {
                            // A defect in one pass must not cost the others anything.
                            error!(%failure, "a pass broke off");
                            (failure.id(), Next::Retry.into())
                        }
                    };
                    if let Some(key) = keys.remove(&id) {
                        self.ended(key, how);
                    }
                }
            }
        }
        let drain = async { while running.join_next().await.is_some() {} };
        // What is still under way after that is cut off; every write is a compare-and-swap, so the successor repairs it.
        let _ = tokio::time::timeout(DRAIN, drain).await;
    }

    fn marked(&mut self, key: ServiceKey, at: Timestamp) {
        let now = Instant::now();
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            running: false,
            changed: None,
            seen: None,
            scheduled: None,
            started: None,
            failures: 0,
        });
        entry.changed.get_or_insert(at);
        if !entry.running {
            let at = entry.started.map_or(now, |started| now.max(started + PACE));
            schedule(&mut self.delays, entry, key, at);
        }
    }

    fn start(&mut self, key: &ServiceKey) -> Option<Timestamp> {
        let now = self.world.now();
        let entry = self.entries.get_mut(key)?;
        entry.scheduled = None;
        entry.running = true;
        entry.started = Some(Instant::now());
        // What an earlier pass left open is older than what came since.
        let triggered = entry.seen.or(entry.changed).unwrap_or(now);
        entry.changed = None;
        entry.seen = Some(triggered);
        Some(triggered)
    }

    fn ended(&mut self, key: ServiceKey, Ended { next, open }: Ended) {
        let now = Instant::now();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.running = false;
        entry.seen = entry.seen.filter(|_| open);
        entry.failures = if next == Next::Retry { entry.failures + 1 } else { 0 };
        match next {
            Next::Gone if entry.changed.is_none() => {
                self.entries.remove(&key);
                return;
            }
            Next::Settled | Next::Gone => {}
            Next::After(wait) => schedule(&mut self.delays, entry, key.clone(), now + wait),
            Next::Retry => {
                let wait = self.world.backoff(entry.failures, BACKOFF, BACKOFF_CAP);
                schedule(&mut self.delays, entry, key.clone(), now + wait);
            }
        }
        if entry.changed.is_some() {
            let at = entry.started.map_or(now, |started| now.max(started + PACE));
            schedule(&mut self.delays, entry, key, at);
        }
    }
}

/// The earlier of two times counts.
fn schedule(delays: &mut DelayQueue<ServiceKey>, entry: &mut Entry, key: ServiceKey, at: Instant) {
    match &entry.scheduled {
        Some((_, due)) if *due <= at => {}
        Some((scheduled, _)) => {
            delays.reset_at(scheduled, at);
            entry.scheduled = Some((*scheduled, at));
        }
        None => entry.scheduled = Some((delays.insert_at(key, at), at)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Log = Arc<Mutex<Vec<(String, u128)>>>;

    struct Bench {
        marker: Marker,
        log: Log,
        stop: CancellationToken,
        started: Instant,
    }

    /// Runs passes that take `takes` and end as `ends` says for their number.
    fn bench(takes: Duration, ends: impl Fn(usize) -> Next + Send + Sync + 'static) -> Bench {
        let (marker, queue) = new(World::real());
        let log = Log::default();
        let stop = CancellationToken::new();
        let started = Instant::now();
        let ends = Arc::new(ends);
        let pass = {
            let log = log.clone();
            move |key: ServiceKey, _| {
                let (log, ends) = (log.clone(), ends.clone());
                async move {
                    let number = {
                        let mut log = log.lock().unwrap();
                        log.push((key.name, started.elapsed().as_millis()));
                        log.len() - 1
                    };
                    tokio::time::sleep(takes).await;
                    Ended::from(ends(number))
                }
            }
        };
        tokio::spawn(queue.run(pass, stop.clone()));
        Bench { marker, log, stop, started }
    }

    impl Bench {
        fn mark(&self, name: &str) {
            self.marker.mark(&ServiceKey::new("ns", name));
        }

        fn times(&self, name: &str) -> Vec<u128> {
            self.log.lock().unwrap().iter().filter(|(n, _)| n == name).map(|(_, t)| *t).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_of_a_quiet_service_is_at_once_and_a_busy_one_is_paced() {
        let bench = bench(Duration::ZERO, |_| Next::Settled);
        for _ in 0..50 {
            bench.mark("busy");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let times = bench.times("busy");
        assert!(times[0] < 5, "{times:?}");
        assert!(times.windows(2).all(|w| w[1] - w[0] >= 200), "{times:?}");
        assert!((3..=4).contains(&times.len()), "half a second of churn: {times:?}");
        bench.stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_service_delays_no_other_and_never_runs_twice_at_once() {
        let bench = bench(Duration::from_secs(10), |_| Next::Settled);
        bench.mark("slow");
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.mark("slow");
        bench.mark("other");
        tokio::time::sleep(Duration::from_secs(30)).await;
        let slow = bench.times("slow");
        assert_eq!(slow.len(), 2);
        assert!(slow[1] >= 10_000, "the change during the first pass leads to a second one after it: {slow:?}");
        assert!(bench.times("other")[0] < 1_010);
        bench.stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_never_give_up_and_a_success_starts_afresh() {
        let bench = bench(Duration::ZERO, |number| if number < 12 { Next::Retry } else { Next::Settled });
        bench.mark("failing");
        tokio::time::sleep(Duration::from_secs(600)).await;
        let times = bench.times("failing");
        assert_eq!(times.len(), 13);
        assert!(times[12] - times[11] <= 60_000, "{times:?}");
        assert!(times[2] - times[1] >= 90, "{times:?}");
        bench.stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_asks_to_look_again_is_called_again_then() {
        let bench =
            bench(Duration::ZERO, |number| if number == 0 { Next::After(Duration::from_secs(10)) } else { Next::Gone });
        bench.mark("later");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let times = bench.times("later");
        assert_eq!(times.len(), 2);
        assert!((10_000..10_100).contains(&times[1]), "{times:?}");
        assert!(bench.started.elapsed() > Duration::ZERO);
        bench.stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_a_change_runs_until_it_is_answered() {
        let (marker, queue) = new(World::real());
        let told: Arc<Mutex<Vec<Timestamp>>> = Arc::default();
        let stop = CancellationToken::new();
        let pass = {
            let told = told.clone();
            move |_, triggered| {
                let mut told = told.lock().unwrap();
                told.push(triggered);
                // The first fails, the second finds a side away, the third does it.
                let how = match told.len() {
                    1 => Ended::from(Next::Retry),
                    2 => Ended { next: Next::Settled, open: true },
                    _ => Ended::from(Next::Settled),
                };
                async move { how }
            }
        };
        tokio::spawn(queue.run(pass, stop.clone()));
        let key = ServiceKey::new("ns", "echo");
        for _ in 0..3 {
            marker.mark(&key);
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0] == told[1] && told[1] == told[2], "it waits: {told:?}");
        assert!(told[3] > told[2], "this one is new: {told:?}");
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_panics_costs_the_others_nothing_and_is_tried_again() {
        let bench = bench(Duration::ZERO, |number| if number == 0 { panic!("a defect") } else { Next::Settled });
        bench.mark("broken");
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.mark("other");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(bench.times("broken").len(), 2);
        assert_eq!(bench.times("other").len(), 1);
        bench.stop.cancel();
    }
}
