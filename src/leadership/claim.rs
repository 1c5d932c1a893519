//! The claim to lead, which each request checks first.
//!
//! Owns how long the claim holds without a renewal. The election runs beside the writers, so a process that resumes
//! after a freeze could write before the election notices that its Lease expired. The claim therefore ends by itself
//! [`RENEW_DEADLINE`] after the last request that won or renewed the Lease was *sent*, however late its answer came
//! (`docs/decisions/0030`): a Lease lasts 15 s from the time at which others saw it, which is later. Refuses to know
//! who else leads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::RENEW_DEADLINE;

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
    held: Option<Held>,
    /// The number of times that the Lease was won.
    term: u64,
}

/// How long the Lease is held.
#[derive(Clone, Copy, Debug)]
enum Held {
    /// There is no election, and no other process.
    Alone,
    /// Unless it is renewed before.
    Until(Instant),
}

impl State {
    fn leads(&self) -> bool {
        match self.held {
            None => false,
            Some(Held::Alone) => true,
            Some(Held::Until(end)) => Instant::now() < end,
        }
    }
}

impl Leadership {
    /// The claim of a process that does not lead yet.
    pub fn none() -> Self {
        let state = State { held: None, term: 0 };
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
        let state = *self.lock();
        state.leads().then_some(state.term)
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

    /// The process leads without an election, until it ends.
    pub fn acquired(&self) {
        self.begin(Held::Alone);
    }

    /// The Lease was won by a request that was sent at this time. Returns whether it can still be relied on.
    pub(super) fn acquired_at(&self, sent: Instant) -> bool {
        let end = sent + RENEW_DEADLINE;
        let lasts = Instant::now() < end;
        if lasts {
            self.begin(Held::Until(end));
        }
        lasts
    }

    fn begin(&self, held: Held) {
        let mut state = self.lock();
        *state = State { held: Some(held), term: state.term + 1 };
        drop(state);
        self.leading.send_replace(true);
    }

    /// The Lease was renewed by a request that was sent at this time. Returns false, and changes nothing, once the
    /// claim has ended: the Lease has to be won again.
    pub(super) fn renewed_at(&self, sent: Instant) -> bool {
        let mut state = self.lock();
        if state.leads() {
            state.held = Some(Held::Until(sent + RENEW_DEADLINE));
        }
        state.leads()
    }

    /// The end of the claim without another renewal.
    pub(super) fn ends(&self) -> Option<Instant> {
        match self.lock().held {
            Some(Held::Until(end)) => Some(end),
            Some(Held::Alone) | None => None,
        }
    }

    /// The Lease was lost or released.
    pub fn lost(&self) {
        self.lock().held = None;
        self.leading.send_replace(false);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_ends_by_itself_and_begins_with_the_request_that_won() {
        let leadership = Leadership::none();
        assert!(!leadership.is_leader());
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(leadership.acquired_at(sent), "the answer took 3 s");
        tokio::time::advance(Duration::from_millis(6_999)).await;
        assert!(leadership.is_leader());
        let sent = Instant::now();
        assert!(leadership.renewed_at(sent));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!leadership.is_leader(), "the process was frozen");
        assert!(!leadership.renewed_at(Instant::now()), "a claim that ended has to be won again");
        assert!(!leadership.is_leader());
        leadership.lost();
        assert!(!leadership.acquired_at(sent), "its answer came after ten seconds");
        assert!(!leadership.is_leader());
        assert!(leadership.acquired_at(Instant::now()));
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
