//! Waiting for conditions. Tests never sleep and hope: they wait for a condition, with a deadline, and report the last
//! state.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(50);
/// A change that takes long comes no sooner for being asked for often: the parts have the machine.
const LONGEST_POLL: Duration = Duration::from_millis(500);

/// The share of a minute, in percent, in which a process waited for a core, from which the machine counts as busy.
const BUSY: f64 = 80.0;

/// Polls until `check` returns `Ok`; after the deadline, doubled on a busy machine, the test reports the last error.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        match check().await {
            Ok(found) => return Ok(found),
            Err(error) if started.elapsed() >= within && (started.elapsed() >= within * 2 || !is_busy()) => {
                bail!("{what}: not within {:?}; last: {error:#}", started.elapsed())
            }
            Err(_) => tokio::time::sleep(pause(started.elapsed(), asked.elapsed())).await,
        }
    }
}

/// Whether processes wait for the cores of this machine, as the kernel tells (`Documentation/accounting/psi.rst`);
/// false where it does not tell.
fn is_busy() -> bool {
    std::fs::read_to_string("/proc/pressure/cpu").is_ok_and(|text| pressure(&text).is_some_and(|share| share >= BUSY))
}

/// The share of the last minute in which some process waited.
fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("avg60="))?.parse().ok()
}

/// The pause before the next question: a tenth of the wait so far, and no less than the question took.
fn pause(waited: Duration, took: Duration) -> Duration {
    (waited / 10).max(took).clamp(POLL, LONGEST_POLL)
}

/// Checks repeatedly that a value does not change.
pub async fn holds<T, F, Fut>(what: &str, throughout: Duration, mut check: F) -> Result<()>
where
    T: PartialEq + Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let started = Instant::now();
    let first = check().await?;
    while started.elapsed() < throughout {
        tokio::time::sleep(POLL * 4).await;
        let now = check().await?;
        if now != first {
            bail!("{what}: changed after {:?}\n was: {first:?}\n now: {now:?}", started.elapsed());
        }
    }
    Ok(())
}
