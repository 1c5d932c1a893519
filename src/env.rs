//! The environment: time of day, chance and the executor of tasks, which enter the program only here.
//!
//! Owns them, and the backoff that needs chance. Time of day is read once: from then on the process counts on the
//! monotonic clock, so that a step of the machine's clock neither ends nor prolongs any wait. Everything else takes an
//! [`Env`], so that a test or a simulation decides them. Refuses to measure durations: tokio's clock does, which tests
//! can pause.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, Either};
use jiff::SignedDuration;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use twinspan_core::Timestamp;

/// A smaller difference between two clocks does not matter, and would have stored times written again and again.
const NEGLIGIBLE: SignedDuration = SignedDuration::from_secs(2);
/// The `Date` of an answer has whole seconds.
const DATE_RESOLUTION: SignedDuration = SignedDuration::from_secs(1);

#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    executor: Option<Arc<dyn Executor>>,
}

/// Runs the tasks of a process in place of tokio, and decides their order and their end.
pub trait Executor: Send + Sync {
    /// Takes a task over, until its end or until the returned guard is dropped.
    fn submit(&self, task: BoxFuture<'static, ()>) -> Box<dyn Send>;
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

impl Env {
    /// The machine's clock and the thread's random numbers.
    #[expect(clippy::disallowed_methods, reason = "the door")]
    pub fn real() -> Self {
        Self::started_at(Timestamp::now, rand::random::<f64>)
    }

    /// A process that starts now. `wall` tells the time of day, and `chance` numbers from 0 to 1.
    pub fn started_at(wall: impl Fn() -> Timestamp, chance: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(ProcessClock::new(wall())), chance: Arc::new(chance), executor: None }
    }

    /// The same environment for tasks that an executor runs.
    pub fn run_by(self, executor: Arc<dyn Executor>) -> Self {
        Self { executor: Some(executor), ..self }
    }

    /// Starts a task that nobody waits for.
    pub fn spawn<F: Future<Output: Send> + Send + 'static>(&self, task: F) {
        #[expect(clippy::disallowed_methods, reason = "the door")]
        tokio::spawn(self.task(task));
    }

    /// Starts a task of a tracker.
    pub fn spawn_on<F>(&self, tracker: &TaskTracker, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "the door")]
        tracker.spawn(self.task(task))
    }

    /// Starts a task of a set.
    pub fn spawn_in<F>(&self, set: &mut JoinSet<F::Output>, task: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "the door")]
        set.spawn(self.task(task));
    }

    /// The future of a task: the task itself, or its end where an executor runs it. A process that the executor ended
    /// has tasks without an end.
    fn task<F>(&self, task: F) -> impl Future<Output = F::Output> + Send + 'static + use<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let Some(executor) = self.executor.clone() else { return Either::Left(task) };
        Either::Right(async move {
            let (ended, end) = oneshot::channel();
            // The receiver is gone only if the task was aborted.
            let _running = executor.submit(Box::pin(async move { drop(ended.send(task.await)) }));
            match end.await {
                Ok(output) => output,
                Err(_) => std::future::pending().await,
            }
        })
    }

    /// A clock that stands still at a time, and a source of numbers from 0 to 1.
    #[cfg(test)]
    pub fn standing(now: Timestamp, chance: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(now), chance: Arc::new(chance), executor: None }
    }

    /// The time of the process: the API server's at its first answer, and monotonic from then on.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How far the API server's clock is ahead of [`Env::now`], in whole seconds: zero until somebody sets it.
    pub fn api_server_ahead(&self) -> SignedDuration {
        self.clock.api_server_ahead()
    }

    /// The API server answered a request that was sent at `sent`, and its answer has this `Date`.
    pub fn api_server_answered(&self, sent: Instant, date: Timestamp) {
        self.clock.api_server_answered(sent, date);
    }

    /// A random number, for names that have to differ between processes.
    pub fn random_u32(&self) -> u32 {
        ((self.chance)() * f64::from(u32::MAX)) as u32
    }

    /// Between half of the duration and all of it, so that processes that wait for the same event do not retry
    /// together.
    pub fn jittered(&self, duration: Duration) -> Duration {
        duration.mul_f64(0.5 + (self.chance)() / 2.0)
    }

    /// Exponential backoff: `base` doubled for each failure after the first, at most `cap`, jittered.
    pub fn backoff(&self, failures: u32, base: Duration, cap: Duration) -> Duration {
        let factor = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
        self.jittered(base.saturating_mul(factor).min(cap))
    }
}

trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
    fn api_server_ahead(&self) -> SignedDuration;
    fn api_server_answered(&self, sent: Instant, date: Timestamp);
}

/// The time of day at the start, and the monotonic time since.
#[derive(Debug)]
struct ProcessClock {
    started: Instant,
    wall: Timestamp,
    api_server: Mutex<ApiServer>,
}

/// The API server's clock as its answers show it.
#[derive(Debug, Default)]
struct ApiServer {
    answered: bool,
    /// Its difference from ours at the first answer, which is added to our time.
    at_first: SignedDuration,
    /// The difference since.
    ahead: SignedDuration,
}

impl ProcessClock {
    fn new(wall: Timestamp) -> Self {
        Self { started: Instant::now(), wall, api_server: Mutex::default() }
    }

    fn api_server(&self) -> MutexGuard<'_, ApiServer> {
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, at_first: SignedDuration, instant: Instant) -> Timestamp {
        let elapsed = SignedDuration::try_from(instant.saturating_duration_since(self.started));
        let since = elapsed.unwrap_or(SignedDuration::MAX).saturating_add(at_first);
        self.wall.checked_add(since).unwrap_or(Timestamp::MAX)
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        self.at(self.api_server().at_first, Instant::now())
    }

    fn api_server_ahead(&self) -> SignedDuration {
        let ahead = self.api_server().ahead;
        if ahead.abs() < NEGLIGIBLE { SignedDuration::ZERO } else { SignedDuration::from_secs(ahead.as_secs()) }
    }

    fn api_server_answered(&self, sent: Instant, date: Timestamp) {
        let mut api_server = self.api_server();
        let at = |instant| self.at(api_server.at_first, instant);
        // The server took its time at some moment between the request and the answer, and cut off the fraction.
        let least = date.duration_since(at(Instant::now()));
        let most = date.duration_since(at(sent)).saturating_add(DATE_RESOLUTION);
        // No wait has begun before the first answer, for nothing is known without one. Later only what is stored takes
        // a difference into account.
        let ahead = api_server.ahead.clamp(least, most.max(least));
        if api_server.answered {
            api_server.ahead = ahead;
        } else {
            (api_server.answered, api_server.at_first) = (true, ahead);
        }
    }
}

#[cfg(test)]
impl Clock for Timestamp {
    fn now(&self) -> Timestamp {
        *self
    }

    fn api_server_ahead(&self) -> SignedDuration {
        SignedDuration::ZERO
    }

    fn api_server_answered(&self, _: Instant, _: Timestamp) {}
}

/// Milliseconds as a number that JSON can hold: tracing writes an integer of more than 64 bits as text.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_cap_and_never_gives_up() {
        let env = Env::standing(Timestamp::UNIX_EPOCH, || 1.0);
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = [1, 2, 3, 4, 5, 100].map(|n| env.backoff(n, base, cap).as_millis()).into();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        let low = Env::standing(Timestamp::UNIX_EPOCH, || 0.0);
        assert_eq!(low.backoff(1, base, cap), Duration::from_millis(50));
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_268_800 + seconds).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_of_the_machines_clock_changes_nothing() {
        let wall = Arc::new(Mutex::new(at(0)));
        let machine = wall.clone();
        let env = Env::started_at(move || *machine.lock().unwrap(), || 0.5);
        for step in [301, -3600] {
            let before = env.now();
            *wall.lock().unwrap() += SignedDuration::from_secs(step);
            tokio::time::advance(Duration::from_secs(2)).await;
            assert_eq!(env.now().duration_since(before), SignedDuration::from_secs(2), "a step of {step} s");
        }
        assert_eq!(env.now(), at(4));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_of_the_api_server_sets_the_clock_and_later_ones_tell_the_difference() {
        let env = Env::started_at(|| at(-3600), || 0.5);
        env.api_server_answered(Instant::now(), at(0));
        assert_eq!((env.now(), env.api_server_ahead()), (at(0), SignedDuration::ZERO));
        // An answer that was long under way says little.
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(10)).await;
        env.api_server_answered(sent, at(3));
        assert_eq!((env.now(), env.api_server_ahead()), (at(10), SignedDuration::ZERO));
        // Somebody set the API server's clock.
        env.api_server_answered(Instant::now(), at(311));
        assert_eq!((env.now(), env.api_server_ahead()), (at(10), SignedDuration::from_secs(301)));
        env.api_server_answered(Instant::now(), at(10));
        assert_eq!((env.now(), env.api_server_ahead()), (at(10), SignedDuration::ZERO), "less than a second");
    }
}
