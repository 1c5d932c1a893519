//! The requests that wait: their number, and the way of each from its arrival to its answer.
//!
//! Owns the order of looks: is there anything to wait for, which pods end, have they records. Refuses to know
//! connections, and the time of an answer, which [`super::wait`] has.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use twinspan_core::model::ServiceKey;

use super::exposure::{Ending, Exposure, exposure};
use super::pods::Pods;
use super::wait::{Outcome, Seen, Step, Wait};
use crate::controllers::views::Views;
use crate::env::milliseconds;
use crate::telemetry::metrics::{DrainOutcome, Metrics};

/// Requests that wait at once.
pub const WAITING: usize = 1_000;
/// Least time between two warnings.
const TELL: Duration = Duration::from_secs(60);

/// Everything that requests share.
pub struct Drain {
    views: Views,
    pods: Pods,
    metrics: Arc<Metrics>,
    /// Nothing is ever withdrawn.
    dry_run: bool,
    places: Semaphore,
    /// The process ends.
    stopping: CancellationToken,
    told: Mutex<Option<Instant>>,
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Drain")
    }
}

/// Counts a request while it waits.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.drains_waiting.inc();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.drains_waiting.dec();
    }
}

impl Drain {
    /// `stopping` is cancelled when the process begins to end.
    pub fn new(
        views: &Views,
        client: Client,
        metrics: Arc<Metrics>,
        dry_run: bool,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        // A series that appears with its first value hides that value from `rate()`.
        for outcome in Outcome::ALL {
            drop(metrics.drain_requests.get_or_create(&DrainOutcome { outcome: outcome.label() }));
        }
        let (views, pods) = (views.clone(), Pods::new(client));
        Arc::new(Self {
            views,
            pods,
            metrics,
            dry_run,
            places: Semaphore::new(WAITING),
            stopping,
            told: Mutex::default(),
        })
    }

    /// Waits until no client has the addresses of the pods that end, or there is no reason to wait any longer.
    pub async fn drained(&self, key: &ServiceKey) -> Outcome {
        let arrived = Instant::now();
        let outcome = self.answer(key, arrived).await;
        self.metrics.drain_requests.get_or_create(&DrainOutcome { outcome: outcome.label() }).inc();
        let (ServiceKey { namespace, name }, duration_ms) = (key, milliseconds(arrived.elapsed()));
        debug!(
            namespace,
            name,
            outcome = outcome.label(),
            duration_ms,
            "a pod of {key} that ends was answered after {duration_ms} ms"
        );
        if outcome == Outcome::Timeout && self.may_tell() {
            warn!(
                namespace,
                name,
                "a pod of {key} ends while its record is in the registry still; the status of the RegisteredService says why, \
                 or its terminationGracePeriodSeconds is too short"
            );
        }
        outcome
    }

    /// True at most once a minute.
    fn may_tell(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let may = told.is_none_or(|told| told.elapsed() >= TELL);
        if may {
            *told = Some(Instant::now());
        }
        may
    }

    async fn answer(&self, key: &ServiceKey, arrived: Instant) -> Outcome {
        if self.stopping.is_cancelled() {
            return Outcome::Stopping;
        }
        if self.exposure(key) == Exposure::Nothing {
            return Outcome::Nothing;
        }
        let Ok(_place) = self.places.try_acquire() else { return Outcome::Busy };
        let _counted = Counted::new(&self.metrics);
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Outcome::Stopping,
            outcome = self.wait(key, arrived) => outcome,
        }
    }

    fn exposure(&self, key: &ServiceKey) -> Exposure {
        if self.dry_run { Exposure::Nothing } else { exposure(&self.views, key) }
    }

    async fn wait(&self, key: &ServiceKey, arrived: Instant) -> Outcome {
        let mut changes = self.views.record_changes.of(key);
        let mut wait = Wait::begin(arrived);
        let mut ending = None;
        let mut limited = false;
        loop {
            // A change from now on is not missed.
            changes.borrow_and_update();
            let seen = match (self.exposure(key), &mut ending) {
                (Exposure::Nothing, _) => Seen::Nothing,
                (Exposure::Unknown, None) if !limited => {
                    limited = true;
                    wait.unknown_since(Instant::now());
                    let listed = self.pods.ending_in(&key.namespace).await;
                    // Nobody knows which of them are the service's.
                    listed.iter().flat_map(|pods| pods.iter()).for_each(|pod| wait.limit(pod.grace));
                    Seen::Unknown
                }
                (Exposure::Unknown, _) => Seen::Unknown,
                (Exposure::Follows { exports, .. }, Some(ending)) => Ending::look(ending, &self.views, exports),
                (Exposure::Follows { refresh, .. }, None) => {
                    let asked = Instant::now();
                    if let Some(listed) = self.pods.ending_in(&key.namespace).await {
                        let env = &self.views.env;
                        let now = env.now().checked_add(env.api_server_ahead()).unwrap_or(env.now());
                        let Some(found) = Ending::of(&self.views, key, &listed, now) else { return Outcome::Nothing };
                        wait.know(found.grace, refresh);
                        ending = Some(found);
                        continue;
                    }
                    wait.unknown_since(asked);
                    Seen::Unknown
                }
            };
            match wait.step(Instant::now(), seen) {
                Step::Answer(outcome) => return outcome,
                Step::Look { at, on_change: false } => sleep_until(at).await,
                Step::Look { at, on_change: true } => {
                    // The sender is there as long as a receiver is.
                    tokio::select! {
                        biased;
                        Ok(()) = changes.changed() => {}
                        () = sleep_until(at) => {}
                    }
                }
            }
        }
    }
}
