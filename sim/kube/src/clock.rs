//! The cluster's clock: a given time of day, and tokio's time since.
//!
//! Owns the texts of times in objects and headers. Refuses to read the machine's clock.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Timestamp,
    zero: Instant,
}

impl Clock {
    /// A clock that shows `base` now.
    pub fn new(base: Timestamp) -> Self {
        Self { base, zero: Instant::now() }
    }

    /// The time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.zero.elapsed()
    }

    /// The instant so long after the beginning.
    pub fn instant(&self, elapsed: Duration) -> Instant {
        self.zero + elapsed
    }

    pub fn now(&self) -> Timestamp {
        self.after(Duration::ZERO)
    }

    /// The time of day so long from now; the last that can be said if there is none.
    pub fn after(&self, wait: Duration) -> Timestamp {
        self.base.checked_add(self.elapsed() + wait).unwrap_or(Timestamp::MAX)
    }

    /// The `Date` header (RFC 9110, section 6.6.1).
    pub fn date(&self) -> String {
        DateTimePrinter::new().timestamp_to_rfc9110_string(&self.now()).unwrap_or_default()
    }
}

/// A `metav1.Time`, which has seconds.
pub fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}
