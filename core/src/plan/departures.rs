//! Departures: a record that is no longer there, and what that means for the other side.
//!
//! Owns the evidence for how a record went and how long each side waits because of it. Refuses to know how evidence is
//! gathered: the registry's door looks a lease up and says what it found.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::Timestamp;
use crate::model::{InstanceAddr, Registration};

/// How a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Its lease is being looked up.
    Pending,
    /// Deleted while its lease lived, or it had none: a server that deregistered.
    Left,
    /// Its lease is gone: a server that died, or lost the registry.
    Expired,
    /// Nothing shows that the instance itself ended: the registry came back as another one, or as an older one.
    Unexplained,
}

/// A record that is no longer there. At most one for each address: a newer one replaces it, and it ends when a record with
/// that address appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    pub evidence: Evidence,
    /// When it was seen to be gone.
    pub at: Timestamp,
    /// What the record said; what is kept for it is still subject to every rule of the import.
    pub registration: Registration,
}

/// The departures of one registry name.
pub type Departures = BTreeMap<InstanceAddr, Departure>;

/// How long a ready endpoint is not exported after the record of its own server left: a server that deregisters
/// usually ends within that time, and a client that is sent to it meanwhile fails.
pub const AFTER_LEAVING: SignedDuration = SignedDuration::from_secs(10);

/// How long an imported endpoint stays when nothing explains why its record is gone. The default of
/// `deletionGuard.holdSeconds`; the guard itself is not built yet.
pub const UNEXPLAINED_HOLD: SignedDuration = SignedDuration::from_secs(300);

/// A departure older than this changes nothing any more.
pub const FORGOTTEN_AFTER: SignedDuration = UNEXPLAINED_HOLD;

impl Departure {
    /// Until when an endpoint at this address is not exported, where that is still to come.
    pub fn holds_export(&self, now: Timestamp) -> Option<Timestamp> {
        match self.evidence {
            // Kitex gives up for good after five failed retries: nobody else will register the instance.
            Evidence::Expired | Evidence::Unexplained => None,
            Evidence::Pending | Evidence::Left => after(self.at, AFTER_LEAVING, now),
        }
    }

    /// Until when an imported endpoint stays although its record is gone, where that is still to come.
    pub fn holds_import(&self, now: Timestamp) -> Option<Timestamp> {
        match self.evidence {
            Evidence::Unexplained => after(self.at, UNEXPLAINED_HOLD, now),
            Evidence::Pending | Evidence::Left | Evidence::Expired => None,
        }
    }
}

fn after(at: Timestamp, wait: SignedDuration, now: Timestamp) -> Option<Timestamp> {
    // A clock that was set back must not hold for longer than the wait.
    let until = at.min(now).checked_add(wait).ok()?;
    (now < until).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn departure(evidence: Evidence) -> Departure {
        Departure { evidence, at: Timestamp::UNIX_EPOCH, registration: Registration::default() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn an_endpoint_whose_server_left_waits_ten_seconds_and_one_whose_server_expired_does_not_wait() {
        for (evidence, now, until) in [
            (Evidence::Left, 0, Some(10)),
            (Evidence::Left, 9, Some(10)),
            (Evidence::Left, 10, None),
            (Evidence::Pending, 9, Some(10)),
            (Evidence::Expired, 0, None),
            (Evidence::Unexplained, 0, None),
        ] {
            assert_eq!(departure(evidence).holds_export(at(now)), until.map(at), "{evidence:?} at {now}");
        }
    }

    #[test]
    fn only_an_unexplained_departure_keeps_an_imported_endpoint() {
        for (evidence, now, until) in [
            (Evidence::Unexplained, 0, Some(300)),
            (Evidence::Unexplained, 299, Some(300)),
            (Evidence::Unexplained, 300, None),
            (Evidence::Left, 0, None),
            (Evidence::Expired, 0, None),
            (Evidence::Pending, 0, None),
        ] {
            assert_eq!(departure(evidence).holds_import(at(now)), until.map(at), "{evidence:?} at {now}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_never_prolongs_a_hold() {
        assert_eq!(departure(Evidence::Left).holds_export(at(-100)), Some(at(-90)));
    }
}
