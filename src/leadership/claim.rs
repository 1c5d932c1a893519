//! The claim to lead, which each request checks first.
//!
//! Owns how long the claim holds without a heartbeat. The election runs beside the writers, so a process that resumes
//! after a freeze could write before the election notices that its Lease expired. The claim therefore lives from
//! heartbeat to heartbeat: a gap, which only a frozen process has, ends it for good, and the process has to win the
//! Lease again (`docs/decisions/0006`). A Lease lasts 15 s and its holder gives up after 10 s without renewal, so a gap
//! shorter than [`GAP`] is always inside the Lease. Refuses to know who else leads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Time between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// A longer time without a heartbeat ends the claim.
const GAP: Duration = Duration::from_secs(4);

/// The claim of this process to lead. Every door that writes asks it before each request; clones share the claim.
///
/// A dry run has a claim too, so that it judges and plans as a leader does; it holds no Lease, and no door accepts its
/// claim.
#[derive(Clone, Debug)]
pub struct Leadership {
    dry_run: bool,
    state: Arc<Mutex<State>>,
    leading: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    last_beat: Option<Instant>,
    /// The number of times that the Lease was won.
    term: u64,
}

impl Leadership {
    /// The claim of a process that does not lead yet.
    pub fn none() -> Self {
        let state = State { last_beat: None, term: 0 };
        Self { dry_run: false, state: Arc::new(Mutex::new(state)), leading: watch::Sender::new(false) }
    }

    /// The claim of a process that only plans; see [`Leadership::may_write`].
    pub fn dry_run() -> Self {
        Self { dry_run: true, ..Self::none() }
    }

    /// True if this process judges and plans as the leader now.
    pub fn is_leader(&self) -> bool {
        self.term().is_some()
    }

    /// The term in which this process leads; each time that it wins the Lease begins another.
    pub fn term(&self) -> Option<u64> {
        let State { last_beat, term } = *self.lock();
        last_beat.is_some_and(|beat| beat.elapsed() < GAP).then_some(term)
    }

    /// True if a request that writes may be sent now; never in a dry run.
    pub fn may_write(&self) -> bool {
        !self.dry_run && self.is_leader()
    }

    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// A receiver that changes when the Lease is won or lost.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// The Lease was won.
    pub fn acquired(&self) {
        let mut state = self.lock();
        *state = State { last_beat: Some(Instant::now()), term: state.term + 1 };
        drop(state);
        self.leading.send_replace(true);
    }

    /// The Lease was lost or released.
    pub fn lost(&self) {
        self.lock().last_beat = None;
        self.leading.send_replace(false);
    }

    /// Beats until there is a gap.
    pub async fn heartbeat(&self) {
        loop {
            tokio::time::sleep(BEAT).await;
            if !self.is_leader() {
                return;
            }
            self.lock().last_beat = Some(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_holds_while_it_beats_and_a_gap_ends_it_for_good() {
        let leadership = Leadership::none();
        assert!(!leadership.is_leader());
        leadership.acquired();
        let beating = tokio::spawn({
            let leadership = leadership.clone();
            async move { leadership.heartbeat().await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(leadership.is_leader() && !beating.is_finished());

        // The process is frozen: time passes and no task runs. A writer is the first to run afterwards.
        tokio::time::advance(Duration::from_secs(5)).await;
        let stopped = Leadership::none();
        stopped.acquired();
        stopped.lock().last_beat = Some(Instant::now() - Duration::from_secs(5));
        assert!(!stopped.is_leader());
        stopped.heartbeat().await;
        assert!(!stopped.is_leader(), "a heartbeat after a gap does not bring the claim back");
        leadership.lost();
        assert!(!leadership.is_leader());
        leadership.acquired();
        assert_eq!(leadership.term(), Some(2), "another leadership is another term");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dry_run_leads_and_never_writes() {
        let (real, dry) = (Leadership::none(), Leadership::dry_run());
        assert!(!real.may_write() && !dry.may_write());
        real.acquired();
        dry.acquired();
        assert!(real.is_leader() && real.may_write());
        assert!(dry.is_leader() && !dry.may_write());
    }
}
