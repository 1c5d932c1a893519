//! The oracles: they judge a run from outside.
//!
//! - [`doors`]: the forms of requests. [`claims`]: who may send them. [`stores`]: who changed what, and whether it was
//!   its own.
//! - [`removals`]: nothing that serves is taken away. [`evidence`]: the least time between a cause and a removal.
//!   [`latency`]: the longest.
//! - [`news`]: what a replica was told. [`state`]: what it made. [`clients`]: what clients see. [`rest`]: both sides
//!   equal the truth, and nothing is written.
//!
//! Owns the violations. Refuses to know a planner: the stores, their histories and the truth are all that they read.

pub mod claims;
pub mod clients;
pub mod doors;
pub mod evidence;
pub mod latency;
pub mod news;
pub mod removals;
pub mod rest;
pub mod state;
pub mod stores;

use std::fmt;
use std::time::Duration;

/// An invariant of the design that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub at: Duration,
    pub text: String,
}

impl Violation {
    pub fn new(invariant: &'static str, at: Duration, text: impl Into<String>) -> Self {
        Self { invariant, at, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.invariant, self.at.as_secs_f64(), self.text)
    }
}

/// True for a process of the operator.
pub fn is_replica(author: &str) -> bool {
    author.contains('#')
}

/// The cluster of a process of the operator.
pub fn cluster_of(author: &str) -> &str {
    author.split('-').next().unwrap_or_default()
}
