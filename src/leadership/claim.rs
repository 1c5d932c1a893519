//! The claim to lead, checked before each request.
//!
//! The election runs beside the writers, so a process that was frozen and goes on could write before the election notices that
//! its Lease ran out. The claim therefore lives from heartbeat to heartbeat: a gap in them, which only a frozen process has,
//! ends it for good, and the Lease has to be won again. A Lease lasts 15 s and is given up after 10 s without renewal, so a
//! gap of less than [`GAP`] is always inside it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Time between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// A longer time without a heartbeat ends the claim.
const GAP: Duration = Duration::from_secs(4);

#[derive(Clone, Debug)]
pub struct Claim {
    last_beat: Arc<Mutex<Option<Instant>>>,
    leading: watch::Sender<bool>,
}

impl Claim {
    /// Nobody leads yet.
    pub fn none() -> Self {
        Self { last_beat: Arc::default(), leading: watch::Sender::new(false) }
    }

    /// Whether a request may be sent now.
    pub fn holds(&self) -> bool {
        self.beat_age().is_some_and(|age| age < GAP)
    }

    /// Follows whether this process leads.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// The Lease was won.
    pub fn begin(&self) {
        self.set(Some(Instant::now()));
        self.leading.send_replace(true);
    }

    /// The Lease was lost or given back.
    pub fn end(&self) {
        self.set(None);
        self.leading.send_replace(false);
    }

    /// Beats until there is a gap.
    pub async fn beat(&self) {
        loop {
            tokio::time::sleep(BEAT).await;
            if !self.holds() {
                return;
            }
            self.set(Some(Instant::now()));
        }
    }

    fn set(&self, beat: Option<Instant>) {
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = beat;
    }

    fn beat_age(&self) -> Option<Duration> {
        self.last_beat.lock().unwrap_or_else(PoisonError::into_inner).map(|beat| beat.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_holds_while_it_beats_and_a_gap_ends_it_for_good() {
        let claim = Claim::none();
        assert!(!claim.holds());
        claim.begin();
        let beating = tokio::spawn({
            let claim = claim.clone();
            async move { claim.beat().await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(claim.holds() && !beating.is_finished());

        // The process is frozen: time goes on, nothing runs. The first thing that runs afterwards is a writer.
        tokio::time::advance(Duration::from_secs(5)).await;
        let mut stopped = Claim::none();
        stopped.last_beat = Arc::new(Mutex::new(Some(Instant::now() - Duration::from_secs(5))));
        assert!(!stopped.holds());
        stopped.beat().await;
        assert!(!stopped.holds(), "a heartbeat after a gap does not bring the claim back");
        claim.end();
        assert!(!claim.holds());
    }
}
