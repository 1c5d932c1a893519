//! The budget of status writes.
//!
//! Owns their rate over all objects: statuses, which people read, must not cost the API server the capacity that slices
//! need. Refuses to know which status is written.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Status writes a second, over all objects.
const PER_SECOND: u32 = 20;

/// Gives out [`PER_SECOND`] permits a second, in one burst after a quiet second.
#[derive(Debug)]
pub struct StatusBudget {
    /// The time of the next permit; in the past after a quiet time.
    next: Mutex<Option<Instant>>,
}

impl Default for StatusBudget {
    fn default() -> Self {
        Self { next: Mutex::new(None) }
    }
}

impl StatusBudget {
    /// Takes a permit now.
    ///
    /// # Errors
    /// The wait before the next try.
    pub fn take(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let step = Duration::from_secs(1) / PER_SECOND;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let free = next.map_or(earliest, |at| at.max(earliest));
        if free > now {
            return Err(free - now);
        }
        *next = Some(free + step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn twenty_a_second_and_no_more_than_a_second_saved_up() {
        let budget = StatusBudget::default();
        tokio::time::sleep(Duration::from_secs(100)).await;
        let mut taken = 0;
        while budget.take().is_ok() {
            taken += 1;
        }
        assert!((20..=21).contains(&taken), "{taken} at once");
        let (start, mut more) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(10) {
            match budget.take() {
                Ok(()) => more += 1,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
        assert!((195..=205).contains(&more), "{more} in 10 s");
    }
}
