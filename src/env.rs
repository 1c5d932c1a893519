//! The environment: time of day and chance, which enter the program only here.
//!
//! Owns both, and the backoff that needs chance. Everything else takes an [`Env`], so that a test or a simulation
//! decides both. Refuses to measure durations: tokio's clock does, which tests can pause.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::Timestamp;

#[derive(Clone)]
pub struct Env {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

impl Env {
    /// The machine's clock and the thread's random numbers.
    pub fn real() -> Self {
        Self { now: Arc::new(Timestamp::now), chance: Arc::new(rand::random::<f64>) }
    }

    /// A clock and a source of numbers from 0 to 1 that a test decides.
    #[cfg(test)]
    pub fn of(
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        chance: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self { now: Arc::new(now), chance: Arc::new(chance) }
    }

    /// A random number, for names that have to differ between processes.
    pub fn random_u32(&self) -> u32 {
        ((self.chance)() * f64::from(u32::MAX)) as u32
    }

    pub fn now(&self) -> Timestamp {
        (self.now)()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_cap_and_never_gives_up() {
        let env = Env::of(|| Timestamp::UNIX_EPOCH, || 1.0);
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = [1, 2, 3, 4, 5, 100].map(|n| env.backoff(n, base, cap).as_millis()).into();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        let low = Env::of(|| Timestamp::UNIX_EPOCH, || 0.0);
        assert_eq!(low.backoff(1, base, cap), Duration::from_millis(50));
    }
}
