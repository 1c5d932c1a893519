//! Groups of slices that the API server refuses for good: by a quota, by an admission policy, or as invalid.
//!
//! Owns the time of the next attempt for each group, which is no other group's. A refusal lasts: meanwhile the slices
//! of the group only lose endpoints. Refuses to know the API server's errors, and to plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::SignedDuration;

use crate::Timestamp;
use crate::model::{AddressType, Family, InstanceAddr, Slice};

/// The wait before the second attempt; doubled for each further one.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(5);
/// The longest wait.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(60);
/// The doublings up to the longest wait.
const DOUBLINGS: u32 = 4;

/// The slices whose writes depend on each other: those of one address family and port number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceGroup {
    pub family: Family,
    pub number: u16,
}

impl fmt::Display for SliceGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} ({})", self.number, self.family.as_str())
    }
}

impl SliceGroup {
    pub fn of(slice: &Slice) -> Option<Self> {
        let AddressType::Ip(family) = slice.address_type else { return None };
        let number = slice.ports.first()?.number?;
        Some(Self { family, number })
    }
}

impl From<InstanceAddr> for SliceGroup {
    fn from(addr: InstanceAddr) -> Self {
        Self { family: addr.family(), number: addr.port() }
    }
}

/// A group that the API server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The API server's words.
    pub message: String,
    pub until: Timestamp,
    attempts: u32,
    /// Whether it refuses even the removal of endpoints.
    removals: bool,
}

/// The refused groups of one RegisteredService.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<SliceGroup, Refusal>);

impl Refusals {
    /// The refusal of a group, while no further attempt is due.
    pub fn standing(&self, group: SliceGroup, now: Timestamp) -> Option<&Refusal> {
        self.0.get(&group).filter(|refusal| now < refusal.until)
    }

    /// Whether endpoints may be taken out of the group's slices.
    pub fn may_shrink(&self, group: SliceGroup, now: Timestamp) -> bool {
        !self.standing(group, now).is_some_and(|refusal| refusal.removals)
    }

    /// The refusals after a pass that wrote: those that still stand, and those that it met. Where it did not try every
    /// group, those that it did not meet stay as they were.
    pub fn after(&self, met: &BTreeMap<SliceGroup, String>, tried_all: bool, now: Timestamp) -> Self {
        let groups: BTreeSet<SliceGroup> = self.0.keys().chain(met.keys()).copied().collect();
        let next = |group: SliceGroup| match (self.standing(group, now), met.get(&group)) {
            (Some(standing), None) => Some(standing.clone()),
            (Some(standing), Some(_)) => Some(Refusal { removals: true, ..standing.clone() }),
            // The attempt that was due succeeded, or nothing had to be written any more.
            (None, None) if tried_all => None,
            (None, None) => self.0.get(&group).cloned(),
            (None, Some(message)) => {
                let attempts = self.0.get(&group).map_or(1, |before| before.attempts.saturating_add(1));
                let doublings = attempts.saturating_sub(1).min(DOUBLINGS);
                let wait = (FIRST_WAIT * 2_i32.pow(doublings)).min(LONGEST_WAIT);
                Some(Refusal { message: message.clone(), until: now + wait, attempts, removals: false })
            }
        };
        Self(groups.into_iter().filter_map(|group| Some((group, next(group)?))).collect())
    }

    /// Whether one of these groups was not refused before, so that its removals are still to be planned.
    pub fn lacks(&self, met: &BTreeMap<SliceGroup, String>, now: Timestamp) -> bool {
        met.keys().any(|group| self.standing(*group, now).is_none())
    }

    /// The time of the next attempt.
    pub fn next_attempt(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.values().map(|refusal| refusal.until).filter(|until| now < *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn each_group_backs_off_by_itself_up_to_a_minute() {
        let [a, b] = [80, 90].map(|number| SliceGroup { family: Family::V4, number });
        let met = |group: SliceGroup| BTreeMap::from([(group, "no".to_owned())]);
        let mut refusals = Refusals::default().after(&met(a), true, at(0));
        assert!(refusals.standing(a, at(4)).is_some() && refusals.standing(b, at(4)).is_none());
        let (mut now, mut waits) = (at(0), Vec::new());
        for _ in 0..6 {
            let until = refusals.next_attempt(now).unwrap();
            waits.push(until.duration_since(now).as_secs());
            now = until;
            refusals = refusals.after(&met(a), true, now);
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        let both = refusals.after(&met(b), true, now);
        assert_eq!(both.next_attempt(now), Some(now + SignedDuration::from_secs(5)));
        assert!(both.standing(a, now).is_some());
        let late = now + SignedDuration::from_secs(100);
        assert_eq!(both.after(&BTreeMap::new(), true, late), Refusals::default(), "the attempts succeeded");
        let untried = both.after(&BTreeMap::new(), false, late).after(&met(a), true, late);
        assert_eq!(untried.next_attempt(late), Some(late + LONGEST_WAIT), "nobody tried, so it goes on as it was");
    }

    #[test]
    fn removals_that_are_refused_too_wait_for_the_next_attempt() {
        let group = SliceGroup { family: Family::V4, number: 80 };
        let met = BTreeMap::from([(group, "no".to_owned())]);
        let once = Refusals::default().after(&met, true, at(0));
        assert!(once.may_shrink(group, at(1)) && !once.lacks(&met, at(1)));
        let twice = once.after(&met, true, at(1));
        assert!(!twice.may_shrink(group, at(1)) && twice.may_shrink(group, at(5)));
    }
}
