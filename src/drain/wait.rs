//! The wait of one request: what was seen, since when, and so when it is answered.
//!
//! Owns the times. Refuses to look at anything and to read a clock: both are arguments.

use std::time::Duration;

use tokio::time::Instant;

/// How long the views may be incomplete, or the registry away. Within it a connection that broke stands again; a dead
/// registry delays the end of a pod by no more.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The part of a grace period that is left to the container itself.
pub const MARGIN: Duration = Duration::from_secs(2);
/// The longest wait, however long a grace period is.
pub const LONGEST: Duration = Duration::from_secs(120);
/// Time after which the views are looked at again though nothing changed: a spec may have.
const AGAIN: Duration = Duration::from_secs(1);

/// The result of a look at the views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The views are not complete, or the registry cannot be reached.
    Unknown,
    /// Nothing is exported, or nothing that is exported will be withdrawn.
    Nothing,
    /// A pod that ends has a record.
    Registered,
    /// None has one.
    Gone,
}

/// The reason for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The records are gone, and clients had the time to learn it.
    Drained,
    /// There is nothing to wait for.
    Nothing,
    /// The registry or the API server cannot be reached.
    Unreachable,
    /// A record is still there, and the pod has to end.
    Timeout,
    /// Too many wait.
    Busy,
    /// The process ends.
    Stopping,
}

impl Outcome {
    pub const ALL: [Self; 6] =
        [Self::Drained, Self::Nothing, Self::Unreachable, Self::Timeout, Self::Busy, Self::Stopping];

    /// Bounded, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Nothing => "nothing",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }
}

/// The consequence of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Answer(Outcome),
    /// Look again at this time, or earlier where the records change and that matters.
    Look {
        at: Instant,
        on_change: bool,
    },
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    arrived: Instant,
    until: Instant,
    /// How long clients may go on with a record that is gone.
    refresh: Duration,
    gone_since: Option<Instant>,
    unknown_since: Option<Instant>,
}

impl Wait {
    pub fn begin(arrived: Instant) -> Self {
        let until = arrived + LONGEST;
        Self { arrived, until, refresh: Duration::ZERO, gone_since: None, unknown_since: None }
    }

    /// The pods are known. `grace` is the shortest of their grace periods: a kubelet counts it from the moment at which
    /// it asks, so that no clock but ours matters. `refresh` is how long clients may go on with a record that is gone.
    pub fn know(&mut self, grace: Duration, refresh: Duration) {
        self.until = self.arrived + grace.saturating_sub(MARGIN).min(LONGEST);
        self.refresh = refresh;
    }

    /// A pod with this grace period may be one of them. Nothing more is known of any.
    pub fn limit(&mut self, grace: Duration) {
        self.until = self.until.min(self.arrived + grace.saturating_sub(MARGIN));
    }

    /// The views were not complete, or somebody could not be asked, since this moment.
    pub fn unknown_since(&mut self, at: Instant) {
        self.unknown_since.get_or_insert(at);
    }

    pub fn step(&mut self, now: Instant, seen: Seen) -> Step {
        let next = match seen {
            Seen::Nothing => return Step::Answer(Outcome::Nothing),
            Seen::Unknown => {
                let end = *self.unknown_since.get_or_insert(now) + PATIENCE;
                if now >= end {
                    return Step::Answer(Outcome::Unreachable);
                }
                end.min(now + AGAIN)
            }
            Seen::Registered => {
                (self.gone_since, self.unknown_since) = (None, None);
                now + AGAIN
            }
            Seen::Gone => {
                self.unknown_since = None;
                // When a record went that was not seen here, nobody knows: it may have been a moment ago.
                let end = *self.gone_since.get_or_insert(now) + self.refresh;
                if now >= end {
                    return Step::Answer(Outcome::Drained);
                }
                end
            }
        };
        if now >= self.until {
            return Step::Answer(Outcome::Timeout);
        }
        Step::Look { at: next.min(self.until), on_change: seen != Seen::Gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_millis(5_500);

    /// The answer and its time in milliseconds after the arrival, where the views show `seen` at that time.
    fn answer(grace: u64, seen: impl Fn(u128) -> Seen) -> (Outcome, u128) {
        let arrived = Instant::now();
        let mut wait = Wait::begin(arrived);
        wait.know(Duration::from_secs(grace), REFRESH);
        let mut now = arrived;
        for _ in 0..1_000 {
            match wait.step(now, seen(now.duration_since(arrived).as_millis())) {
                Step::Answer(outcome) => return (outcome, now.duration_since(arrived).as_millis()),
                Step::Look { at, .. } => {
                    assert!(at > now, "it turns on the spot");
                    now = at;
                }
            }
        }
        panic!("never answered");
    }

    #[test]
    fn it_ends_when_the_records_are_gone_for_the_time_of_a_refresh() {
        let gone_at = |gone: u128| move |at: u128| if at < gone { Seen::Registered } else { Seen::Gone };
        assert_eq!(answer(30, gone_at(0)), (Outcome::Drained, 5_500), "whenever it went before");
        assert_eq!(answer(30, gone_at(3_000)), (Outcome::Drained, 8_500));
        // A record that comes back is one that clients have again.
        let again = |at: u128| if (1_000..4_000).contains(&at) || at >= 6_000 { Seen::Gone } else { Seen::Registered };
        let flapping = answer(60, |at| if at == 6_500 { Seen::Registered } else { again(at) });
        assert_eq!(flapping.0, Outcome::Drained);
        assert!(flapping.1 >= 6_500 + 5_500, "{flapping:?}");
    }

    #[test]
    fn it_ends_before_the_grace_period_and_at_the_latest_after_two_minutes() {
        assert_eq!(answer(30, |_| Seen::Registered), (Outcome::Timeout, 28_000));
        assert_eq!(answer(6, |_| Seen::Gone), (Outcome::Timeout, 4_000), "clients did not learn it all");
        assert_eq!(answer(3_600, |_| Seen::Registered), (Outcome::Timeout, 120_000));
        assert_eq!(answer(2, |_| Seen::Registered), (Outcome::Timeout, 0));
        assert_eq!(answer(0, |_| Seen::Registered), (Outcome::Timeout, 0));
    }

    #[test]
    fn nothing_to_wait_for_is_answered_at_once_and_a_registry_that_is_away_after_five_seconds() {
        assert_eq!(answer(30, |_| Seen::Nothing), (Outcome::Nothing, 0));
        assert_eq!(answer(30, |_| Seen::Unknown), (Outcome::Unreachable, 5_000));
        let breaks = |at: u128| if at < 10_000 { Seen::Registered } else { Seen::Unknown };
        assert_eq!(answer(30, breaks), (Outcome::Unreachable, 15_000));
        // A connection that stands again within that time costs nothing.
        let blip = |at: u128| match at {
            0..2_000 => Seen::Registered,
            2_000..6_000 => Seen::Unknown,
            6_000..9_000 => Seen::Registered,
            9_000..13_000 => Seen::Unknown,
            _ => Seen::Gone,
        };
        assert_eq!(answer(30, blip), (Outcome::Drained, 13_000 + 5_500));
        // Nor does one that breaks after the record went: clients read on meanwhile.
        let now = Instant::now();
        let mut wait = Wait::begin(now);
        wait.know(Duration::from_secs(30), REFRESH);
        for (at, seen) in [(0, Seen::Gone), (2, Seen::Unknown)] {
            assert!(matches!(wait.step(now + Duration::from_secs(at), seen), Step::Look { .. }));
        }
        assert_eq!(wait.step(now + REFRESH, Seen::Gone), Step::Answer(Outcome::Drained));
    }

    #[test]
    fn changes_are_listened_to_only_while_one_may_end_the_wait() {
        let now = Instant::now();
        for (seen, listens) in [(Seen::Registered, true), (Seen::Unknown, true), (Seen::Gone, false)] {
            let mut wait = Wait::begin(now);
            wait.know(Duration::from_secs(30), REFRESH);
            assert!(matches!(wait.step(now, seen), Step::Look { on_change, .. } if on_change == listens), "{seen:?}");
        }
    }
}
