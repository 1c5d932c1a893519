//! Departures: records that are no longer there, and the consequence for the other side.
//!
//! - [`evidence`]: classifies a departure by the circumstances of the deletion.
//! - [`guard`]: limits the unexplained deletions of one service, [`registry_guard`] those of a whole registry;
//!   [`held`]: their names.
//!
//! Owns the kinds of evidence, the delay of an export after a departure, and the decision about an imported endpoint
//! whose record is gone. Refuses to look anything up: the registry's door looks up leases, and the probes open
//! connections.

pub mod evidence;
pub mod guard;
pub mod held;
pub mod registry_guard;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use crate::Timestamp;
use crate::model::{InstanceAddr, Record};

/// The reason for which a record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The lease is being looked up.
    LookingUp,
    /// The key was deleted while its lease lived, or had none: a server deregistered.
    Deregistered,
    /// A list lacks the key, and the lease that it was last seen on lives. The server most likely deregistered; but it
    /// may have registered under another lease meanwhile and lost that one, or others that went with it may be back.
    DeregisteredUnseen,
    /// The lease is gone: a server died, or lost the registry.
    LeaseExpired,
    /// An endpoint was in our slices when this process started, and no record is behind it.
    NoRecordAtStart,
    /// Two or more records of the service were deleted in one revision, which no server does.
    BulkDeleted,
    /// The lease could not be looked up.
    LeaseUnreadable,
    /// The registry came back as another one, or as an older one, and lacks the record.
    RolledBack,
}

/// A record that is no longer there. Each address has at most one departure: a newer one replaces it, and a record with
/// that address ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    pub evidence: Evidence,
    /// The time at which the view noticed that the record was gone.
    pub at: Timestamp,
    /// The last state of the record: an endpoint that is kept for it still obeys every rule of the import. `None` if
    /// this process never saw the record.
    pub record: Option<Arc<Record>>,
}

/// The departures of one registry name.
pub type Departures = BTreeMap<InstanceAddr, Departure>;

/// A ready endpoint is not exported for this long after its own server deregistered: such a server usually ends within
/// that time, and a call to it meanwhile fails.
pub const AFTER_LEAVING: SignedDuration = SignedDuration::from_secs(10);

/// The last endpoint of a service, and one whose server deregistered unseen, stays this long while it accepts
/// connections: a Kitex server puts its record back at its 30 s tick (`ObserveDelay` of registry-etcd v0.2.6).
pub const STAYS_AFTER_LEAVING: SignedDuration = SignedDuration::from_secs(35);

/// An endpoint that neither refuses nor accepts for this long may be gone.
pub const NO_ANSWER_FOR: SignedDuration = SignedDuration::from_secs(10);

/// Fewer missing answers in a row prove nothing: packets get lost.
pub const MISSING_ANSWERS: u32 = 3;

/// A lookup of a lease that takes longer explains nothing any more.
pub const LOOK_UP_TAKES: SignedDuration = SignedDuration::from_secs(30);

/// The registry's view drops a departure after this long; planners keep their own copy of an open one.
pub const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_secs(300);

impl Departure {
    /// The time until which an endpoint at this address is not exported; `None` once that time has passed.
    pub fn holds_export(&self, now: Timestamp) -> Option<Timestamp> {
        match self.evidence {
            Evidence::LookingUp | Evidence::Deregistered | Evidence::DeregisteredUnseen => {
                let until = self.at + AFTER_LEAVING;
                (now < until).then_some(until)
            }
            // Kitex gives up for good after five failed retries, so no server will register the instance. The records
            // of an emptied or restored registry are put back immediately.
            Evidence::LeaseExpired
            | Evidence::NoRecordAtStart
            | Evidence::BulkDeleted
            | Evidence::LeaseUnreadable
            | Evidence::RolledBack => None,
        }
    }
}

/// `spec.import.onExpiry`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    Remove,
    #[default]
    Probe,
    Heal,
}

/// The answer to a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The connection opened, and was still open after a moment.
    Accepted,
    Refused,
    /// Neither accepted nor refused in time.
    NoAnswer,
}

/// The last answer of an address, and the start of the time for which it has been the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub answer: Answer,
    pub since: Timestamp,
    /// How many times in a row.
    pub times: u32,
}

impl Probe {
    /// Whether so many answers are missing in a row that the silence is no lost packet.
    fn is_missing(&self) -> bool {
        self.answer == Answer::NoAnswer && self.times >= MISSING_ANSWERS
    }

    /// The end of the time for which an endpoint may stay silent.
    fn silent_at(&self) -> Timestamp {
        self.since + NO_ANSWER_FOR
    }
}

/// Everything that the decision about one endpoint rests on.
#[derive(Clone, Copy, Debug)]
pub struct DepartureInput {
    pub evidence: Evidence,
    pub at: Timestamp,
    pub on_expiry: OnExpiry,
    /// Whether the endpoint may be kept. A pod's address and an export of another cluster's Twinspan never are, because
    /// another controller knows whether they live.
    pub keepable: bool,
    /// Whether the service would have no endpoint without this one.
    pub last: bool,
    pub probe: Option<Probe>,
    /// The deadline of an endpoint that was already lost.
    pub lost_until: Option<Timestamp>,
    pub keep_lost: SignedDuration,
    pub now: Timestamp,
}

/// The decision about an endpoint whose record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Gone,
    /// The endpoint stays until more is known.
    Waiting {
        probe: bool,
        requeue_at: Option<Timestamp>,
    },
    /// The server lives and only lost its registration. The endpoint stays until `until` while it accepts connections.
    Lost {
        until: Timestamp,
        requeue_at: Timestamp,
    },
    /// The guard decides.
    Unexplained {
        since: Timestamp,
        /// Whether the endpoint is still probed: it is deleted as soon as it refuses.
        probe: bool,
    },
}

/// Applies the first rule that matches; `docs/departures.md` has the rules as a table.
pub fn decide(input: &DepartureInput) -> Decision {
    let at = input.at;
    match input.evidence {
        Evidence::LookingUp => looking_up(at + LOOK_UP_TAKES, input.now),
        Evidence::BulkDeleted | Evidence::LeaseUnreadable | Evidence::RolledBack => {
            Decision::Unexplained { since: at, probe: false }
        }
        Evidence::Deregistered if input.last && input.keepable => may_come_back(input, at),
        Evidence::DeregisteredUnseen if input.keepable => may_come_back(input, at),
        Evidence::Deregistered | Evidence::DeregisteredUnseen => Decision::Gone,
        Evidence::LeaseExpired | Evidence::NoRecordAtStart if !input.keepable => {
            Decision::Unexplained { since: at, probe: false }
        }
        Evidence::LeaseExpired if input.on_expiry == OnExpiry::Remove => {
            Decision::Unexplained { since: at, probe: false }
        }
        Evidence::NoRecordAtStart if input.on_expiry == OnExpiry::Remove => match input.probe.map(|probe| probe.answer)
        {
            None => Decision::Waiting { probe: true, requeue_at: None },
            Some(Answer::Refused) => Decision::Gone,
            Some(Answer::Accepted | Answer::NoAnswer) => Decision::Unexplained { since: at, probe: true },
        },
        Evidence::LeaseExpired | Evidence::NoRecordAtStart => probed(input, at),
    }
}

/// A lookup that does not end in time leaves the lease unreadable.
fn looking_up(until: Timestamp, now: Timestamp) -> Decision {
    if now < until {
        Decision::Waiting { probe: false, requeue_at: Some(until) }
    } else {
        Decision::Unexplained { since: until, probe: false }
    }
}

fn may_come_back(input: &DepartureInput, at: Timestamp) -> Decision {
    let until = at + STAYS_AFTER_LEAVING;
    match input.probe {
        _ if input.now >= until => Decision::Gone,
        Some(Probe { answer: Answer::Refused, .. }) => Decision::Gone,
        Some(probe) if probe.is_missing() => Decision::Gone,
        None | Some(_) => Decision::Waiting { probe: true, requeue_at: Some(until) },
    }
}

fn probed(input: &DepartureInput, at: Timestamp) -> Decision {
    // A shorter `keepLostSeconds` takes effect immediately; a longer one does not move a deadline that is already set.
    let until = input.lost_until.unwrap_or(at + input.keep_lost).min(input.now + input.keep_lost);
    match input.probe {
        Some(Probe { answer: Answer::Refused, .. }) => Decision::Gone,
        Some(probe) if probe.is_missing() && input.now >= probe.silent_at() => {
            Decision::Unexplained { since: probe.silent_at(), probe: true }
        }
        _ if input.now >= until => Decision::Unexplained { since: until, probe: true },
        None => Decision::Waiting { probe: true, requeue_at: Some(until) },
        Some(Probe { answer: Answer::Accepted, .. }) => Decision::Lost { until, requeue_at: until },
        Some(probe) => {
            // Past that time, the next missing answer triggers the pass.
            let silent = Some(probe.silent_at()).filter(|silent| *silent > input.now);
            let requeue_at = silent.map_or(until, |silent| silent.min(until));
            match input.lost_until {
                // The endpoint accepted once, so a missing answer proves nothing yet.
                Some(_) => Decision::Lost { until, requeue_at },
                None => Decision::Waiting { probe: true, requeue_at: Some(requeue_at) },
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
