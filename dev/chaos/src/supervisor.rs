//! Starts again what ended, as a kubelet or systemd does, unless a fault keeps it down.
//!
//! Owns what is down on purpose. Refuses to end anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::bed::Bed;
use crate::fault::Target;
use crate::truth::Truth;

const LOOK: Duration = Duration::from_millis(200);
/// Between two starts of a part that ends by itself.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Supervisor {
    down: Mutex<BTreeSet<Target>>,
    /// How often each part ended by itself.
    ended: Mutex<BTreeMap<String, usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    /// From now on the parts of the host stay as they are.
    pub fn leave(&self, target: Target) {
        lock(&self.down).insert(target);
    }

    /// From now on they are started again if they ended.
    pub fn keep(&self, target: Target) {
        lock(&self.down).remove(&target);
    }

    /// How often each part ended by itself.
    pub fn ended(&self) -> BTreeMap<String, usize> {
        lock(&self.ended).clone()
    }

    /// Runs until it is dropped. The times of `truth` are counted from `start`.
    pub async fn run(&self, bed: &Bed, truth: &Truth, start: Instant) {
        // Parts that a fault has ended since they last ran.
        let mut expected: BTreeSet<Target> = BTreeSet::new();
        let mut tried: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            let down = lock(&self.down).clone();
            expected.extend(&down);
            for target in bed.hosts.keys().filter(|target| !down.contains(target)) {
                let ended: Vec<_> =
                    bed.parts(*target).into_iter().filter(|part| part.check_running().is_err()).collect();
                for part in &ended {
                    let soon = tried.get(part.name()).is_some_and(|at| at.elapsed() < PAUSE);
                    if !expected.contains(target) {
                        *lock(&self.ended).entry(part.name().to_owned()).or_default() += usize::from(!soon);
                    }
                    if !soon || expected.contains(target) {
                        tried.insert(part.name().to_owned(), Instant::now());
                        // A start that fails is tried again.
                        let _ = part.start_again();
                    }
                }
                expected.remove(target);
                if !ended.is_empty() {
                    truth.serving(*target, start.elapsed(), true);
                }
            }
            sleep(LOOK).await;
        }
    }
}
