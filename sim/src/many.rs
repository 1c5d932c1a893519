//! Many runs on all cores.
//!
//! Owns the sharing of work between threads, and the sum of what runs showed. Refuses to know a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::plan::Plan;
use crate::run::{Outcome, run};

/// The sum of many outcomes.
#[derive(Debug, Default)]
pub struct Sum {
    pub runs: usize,
    /// The label of each run with violations, and the first of them.
    pub failed: BTreeMap<String, Vec<String>>,
    pub faults: BTreeMap<&'static str, u64>,
    /// Virtual time.
    pub length: Duration,
    pub polls: u64,
}

impl Sum {
    fn add(&mut self, label: &str, outcome: &Outcome) {
        self.runs += 1;
        self.length += outcome.length;
        self.polls += outcome.polls;
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        if !outcome.violations.is_empty() {
            let texts = outcome.violations.iter().take(5).map(ToString::to_string).collect();
            self.failed.insert(label.to_owned(), texts);
        }
    }
}

impl Sum {
    /// Adds what other runs showed.
    pub fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.length += other.length;
        self.polls += other.polls;
        self.failed.extend(other.failed);
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.length.as_secs_f64() / 86_400.0;
        writeln!(f, "{} runs, {} with violations, {days:.2} virtual days", self.runs, self.failed.len())?;
        for (label, violations) in &self.failed {
            writeln!(f, "  {label}")?;
            violations.iter().try_for_each(|violation| writeln!(f, "    {violation}"))?;
        }
        writeln!(f, "  faults: {:?}", self.faults)
    }
}

/// Runs all plans on all cores, in any order. Ends early once so many have violations.
pub fn run_all(plans: impl IntoIterator<Item = (String, Plan)>, enough: usize) -> Sum {
    let plans: Vec<(String, Plan)> = plans.into_iter().collect();
    let (next, sum) = (AtomicUsize::new(0), Mutex::new(Sum::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((label, plan)) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(plan, false);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.add(label, &outcome);
                    if sum.failed.len() >= enough {
                        return;
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The log lines of the operator that a process has reached, by file and line.
static REACHED: Mutex<BTreeSet<(String, u32)>> = Mutex::new(BTreeSet::new());

/// Notes which log lines of the operator are reached.
#[derive(Debug)]
struct Reached;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Reached {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let place = event.metadata();
        if let (Some(file), Some(line)) = (place.file(), place.line())
            && place.target().starts_with("twinspan::")
        {
            REACHED.lock().unwrap_or_else(PoisonError::into_inner).insert((file.to_owned(), line));
        }
    }
}

/// From now on the log lines that are reached are noted.
pub fn note_log_lines() {
    use tracing_subscriber::layer::SubscriberExt;
    let subscriber = tracing_subscriber::registry().with(Reached);
    // Somebody else may log already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The log lines that were reached.
pub fn reached_log_lines() -> BTreeSet<(String, u32)> {
    REACHED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
