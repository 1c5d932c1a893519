//! The trace: every message and every event of a run, in order.
//!
//! Owns the lines and their hash, by which two runs of one seed are compared. Refuses to judge.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::dice::hash;

/// Records lines; clones share them.
#[derive(Clone, Debug)]
pub struct Trace {
    began: Instant,
    lines: Arc<Mutex<Lines>>,
}

#[derive(Debug)]
struct Lines {
    hash: u64,
    count: u64,
    kept: Vec<String>,
    prints: bool,
}

impl Trace {
    /// A trace that begins now. `prints` writes each line at once.
    pub fn begin(prints: bool) -> Self {
        let lines = Lines { hash: 0, count: 0, kept: Vec::new(), prints };
        Self { began: Instant::now(), lines: Arc::new(Mutex::new(lines)) }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> std::time::Duration {
        self.began.elapsed()
    }

    /// Adds a line: the subject, then what it did.
    pub fn add(&self, who: &str, what: &str) {
        let at = self.elapsed();
        let mut line = String::with_capacity(who.len() + what.len() + 16);
        // A String takes everything.
        let _ = write!(line, "{:>4}.{:03} {who:<8} {what}", at.as_secs(), at.subsec_millis());
        let mut lines = self.lines();
        lines.hash = hash(lines.hash, &[&line], lines.count);
        lines.count += 1;
        if lines.prints {
            #[expect(clippy::print_stderr, reason = "a person follows the run")]
            {
                eprintln!("{line}");
            }
        }
        lines.kept.push(line);
    }

    /// A number that differs where the lines differ.
    pub fn hash(&self) -> u64 {
        self.lines().hash
    }

    pub fn all(&self) -> Vec<String> {
        self.lines().kept.clone()
    }

    /// The last lines.
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.lines();
        let first = lines.kept.len().saturating_sub(count);
        lines.kept[first..].to_vec()
    }
}
