//! Held deletions: a hold and its times, the held set by direction, and the hash that an approval names.
//!
//! A hold is told apart by its start on the API server's clock, which is in status, so that a process that takes over
//! resumes it. Inside a process it counts on the clock of the process, which no step of a machine's clock moves.
//!
//! Owns the arithmetic of one hold, and the names of held deletions. Refuses to know the reason of a hold; the limits
//! are in [`super::guard`] and [`super::registry_guard`].

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

use jiff::SignedDuration;
use sha2::{Digest, Sha256};

use crate::Timestamp;
use crate::model::InstanceAddr;

/// Deletions count together for this time from the first.
pub const WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// A hold as people see it, and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// On the API server's clock, in whole seconds. No other hold has the same.
    pub since: Timestamp,
    /// The same clock, and `since` plus the length.
    pub until: Timestamp,
    /// The time at which the guard lets go, on the clock of the process.
    pub ends: Timestamp,
}

impl Hold {
    /// Two holds as one: it is new since the later of them began, and lasts until both have ended.
    pub fn and(self, other: Self) -> Self {
        Self { since: self.since.max(other.since), until: self.until.max(other.until), ends: self.ends.max(other.ends) }
    }
}

/// A hold as the status of an earlier process reports it, on the API server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    pub since: Timestamp,
    /// Later than the hold of the service alone where that of the registry lasts longer. `None` in a status of versions
    /// before `status.hold`.
    pub until: Option<Timestamp>,
}

/// A hold as a guard counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    since: Timestamp,
    /// The start on the clock of the process.
    began: Timestamp,
    /// The time from which on deletions belong to the hold: its start, or that of the process that resumed it.
    covers_from: Timestamp,
}

impl Running {
    /// A hold that begins at a time on the clock of the process.
    pub fn begin(began: Timestamp, api_server_ahead: SignedDuration, last_since: Option<Timestamp>) -> Self {
        let since = whole_seconds(plus(began, api_server_ahead));
        // A second hold within one second needs another name.
        let since = if last_since == Some(since) { plus(since, SignedDuration::from_secs(1)) } else { since };
        Self { since, began, covers_from: began }
    }

    /// The hold of an earlier process: the API server's clock tells its age. `None` if its time is over: nobody ruled
    /// when it ended, so the deletions that are still unexplained are judged anew.
    pub fn resume(
        since: Timestamp,
        now: Timestamp,
        api_server_ahead: SignedDuration,
        length: SignedDuration,
    ) -> Option<Self> {
        let age = plus(now, api_server_ahead).duration_since(since).max(SignedDuration::ZERO);
        (age < length).then(|| Self { since, began: plus(now, -age), covers_from: now })
    }

    pub fn since(&self) -> Timestamp {
        self.since
    }

    pub fn hold(&self, length: SignedDuration) -> Hold {
        Hold { since: self.since, until: plus(self.since, length), ends: self.ends(length) }
    }

    /// The time at which it lets go.
    pub fn ends(&self, length: SignedDuration) -> Timestamp {
        plus(self.began, length)
    }

    /// Whether a deletion that became unexplained at this time goes with the hold: those of its first [`WINDOW`], or of
    /// its first half where that is shorter. A later one may be the first of another wave.
    pub fn covers(&self, arrival: Timestamp, length: SignedDuration) -> bool {
        arrival <= self.covers_until(length)
    }

    /// The time of the last deletion that goes with the hold.
    pub fn covers_until(&self, length: SignedDuration) -> Timestamp {
        plus(self.covers_from, WINDOW.min(length / 2))
    }

    /// The same for a deletion whose departure is known. A process that resumed the hold judges what was missing then
    /// for the first time. Of what it `saw` depart itself, before that or after, the earlier process took up only what
    /// went so soon after the true start.
    pub fn covers_departed(&self, departed: Timestamp, saw: bool, arrival: Timestamp, length: SignedDuration) -> bool {
        let is_early = |time: Timestamp| time <= plus(self.began, WINDOW.min(length / 2));
        let was_missing = departed <= self.covers_from && (!saw || is_early(departed));
        was_missing && self.covers(arrival, length) || is_early(arrival)
    }
}

fn plus(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(if duration.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Names a hold: 12 hexadecimal digits that follow from its start and the sorted set of its deletions. An approval that
/// names them releases this hold only, for another one of the same set has another start.
pub fn hash<T: Display>(since: Timestamp, held: impl IntoIterator<Item = T>) -> String {
    digest(Some(since), held)
}

/// The hash that versions before `status.hold` named: it followed from the set alone, so one approval released the same
/// set again and again.
pub fn hash_of_set<T: Display>(held: impl IntoIterator<Item = T>) -> String {
    digest(None, held)
}

fn digest<T: Display>(since: Option<Timestamp>, held: impl IntoIterator<Item = T>) -> String {
    let mut text = since.map(|since| format!("since {}\n", since.as_second())).unwrap_or_default();
    for item in held {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{item}");
    }
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The held deletions of one service, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldDeletions {
    pub import: BTreeSet<InstanceAddr>,
    pub export: BTreeSet<InstanceAddr>,
}

impl HeldDeletions {
    pub fn len(&self) -> usize {
        self.import.len() + self.export.len()
    }

    pub fn is_empty(&self) -> bool {
        self.import.is_empty() && self.export.is_empty()
    }

    /// `import 10.0.0.1:80`, sorted.
    pub fn named(&self) -> BTreeSet<String> {
        let export = |addr| format!("export {addr}");
        self.import.iter().map(Self::name_of_import).chain(self.export.iter().map(export)).collect()
    }

    /// The name of the deletion of an imported endpoint.
    pub fn name_of_import(addr: &InstanceAddr) -> String {
        format!("import {addr}")
    }

    /// Names the hold of this set that began at `since`, for its approval.
    pub fn hash(&self, since: Timestamp) -> String {
        hash(since, self.named())
    }

    /// The name that former versions gave the set.
    pub fn hash_of_set(&self) -> String {
        hash_of_set(self.named())
    }

    /// The part of the set that has one of these names.
    pub fn of_names(&self, names: &BTreeSet<String>) -> Self {
        let of = |verb: &str, set: &BTreeSet<InstanceAddr>| {
            set.iter().filter(|addr| names.contains(&format!("{verb} {addr}"))).copied().collect()
        };
        Self { import: of("import", &self.import), export: of("export", &self.export) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::departure::guard::tests::at;

    #[test]
    fn the_hash_follows_from_the_start_and_the_set() {
        assert_eq!(hash(at(0), ["a", "b"]), hash(at(0), vec!["a", "b"]));
        assert_ne!(hash(at(0), ["a", "b"]), hash(at(0), ["ab"]));
        assert_ne!(hash(at(0), ["a", "b"]), hash(at(1), ["a", "b"]), "another hold of the same set");
        assert_ne!(hash(at(0), ["a", "b"]), hash_of_set(["a", "b"]));
        assert_eq!(hash(at(0), ["a"]).len(), 12);
    }

    #[test]
    fn a_hold_is_named_by_the_api_servers_clock_and_counts_on_ours() {
        let (ahead, length) = (SignedDuration::from_millis(3_600_400), SignedDuration::from_secs(300));
        let running = Running::begin(at(0), ahead, None);
        assert_eq!(running.hold(length), Hold { since: at(3600), until: at(3900), ends: at(300) });
        let again = Running::begin(at(0), ahead, Some(at(3600)));
        assert_eq!(again.since(), at(3601), "two holds have two names");
    }

    #[test]
    fn the_age_of_a_resumed_hold_is_between_zero_and_its_length() {
        let length = SignedDuration::from_secs(300);
        let ends = |since: i64, ahead: i64| {
            let running = Running::resume(at(since), at(0), SignedDuration::from_secs(ahead), length)?;
            assert_eq!(running.since(), at(since));
            Some(running.ends(length))
        };
        assert_eq!(ends(-100, 0), Some(at(200)));
        assert_eq!(ends(-3700, -3600), Some(at(200)), "our own clock does not matter");
        assert_eq!(ends(3600, 0), Some(at(300)), "a clock that was set back prolongs nothing");
        assert_eq!(ends(-301, 0), None);
        assert_eq!(Running::resume(Timestamp::MAX, at(0), SignedDuration::ZERO, length).unwrap().ends(length), at(300));
    }
}
