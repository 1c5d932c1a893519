//! A pace: so many requests a second, and a few at once after a quiet time.
//!
//! Owns the time of the next request. Refuses to know requests, and to wait.

use std::time::Duration;

use tokio::time::Instant;

/// The most that is saved up. A start with many services is no quiet time: more requests at once would take the API
/// server, and new connections, from their slices and records.
const SAVED: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// In the past after a quiet time.
    next: Option<Instant>,
}

impl Pace {
    pub fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second, next: None }
    }

    /// The time of the next request, which may have come.
    pub fn next(&self, now: Instant) -> Instant {
        let earliest = now.checked_sub(SAVED).unwrap_or(now);
        self.next.map_or(earliest, |at| at.max(earliest))
    }

    /// A request is sent.
    pub fn take(&mut self, now: Instant) {
        self.next = Some(self.next(now) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_a_second_and_a_few_saved_up() {
        let mut pace = Pace::new(20);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let start = Instant::now();
        let mut at_once = 0;
        while pace.next(start) <= start {
            pace.take(start);
            at_once += 1;
        }
        assert!((5..=6).contains(&at_once), "{at_once} at once");
        let mut more = 0;
        while start.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep_until(pace.next(Instant::now())).await;
            pace.take(Instant::now());
            more += 1;
        }
        assert!((195..=205).contains(&more), "{more} in 10 s");
    }
}
