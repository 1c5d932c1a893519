//! Departures: a record that is no longer there, and what that means for the other side.
//!
//! Owns the evidence for how a record went, how long an export waits because of it, and the judgement of an imported endpoint whose
//! record is gone. Refuses to know how evidence is gathered: the registry's door looks leases up, the third door opens connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use crate::Timestamp;
use crate::model::{InstanceAddr, Record};

/// How a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Its lease is being looked up.
    Pending,
    /// Deleted while its lease lived, or it had none: a server that deregistered.
    Left,
    /// Its lease is gone: a server that died, or lost the registry.
    Expired,
    /// Nobody saw it go: an endpoint was in our slices when this process started, and no record is behind it.
    Orphaned,
    /// Two or more records of the service were deleted at once, which no server does.
    Swept,
    /// Its lease could not be looked up.
    Unreadable,
    /// The registry came back as another one, or as an older one, and lacks it.
    RolledBack,
}

/// A record that is no longer there. At most one for each address: a newer one replaces it, and it ends when a record with
/// that address appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    pub evidence: Evidence,
    /// When it was seen to be gone.
    pub at: Timestamp,
    /// What is no longer there; what is kept for it is still subject to every rule of the import. `None` where nobody saw it.
    pub record: Option<Arc<Record>>,
}

/// The departures of one registry name.
pub type Departures = BTreeMap<InstanceAddr, Departure>;

/// How long a ready endpoint is not exported after the record of its own server left: a server that deregisters
/// usually ends within that time, and a client that is sent to it meanwhile fails.
pub const AFTER_LEAVING: SignedDuration = SignedDuration::from_secs(10);

/// How long the last endpoint of a service stays after its record left, while it accepts connections: a Kitex server puts its record
/// back at its 30 s tick (`ObserveDelay` of registry-etcd v0.2.6).
pub const LAST_ONE_STAYS: SignedDuration = SignedDuration::from_secs(35);

/// An endpoint that neither refuses nor accepts for so long may be gone.
pub const SILENT_FOR: SignedDuration = SignedDuration::from_secs(10);

/// The registry's view drops a departure after so long; planners remember what they still need of it.
pub const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_secs(300);

impl Departure {
    /// Until when an endpoint at this address is not exported, where that is still to come.
    pub fn holds_export(&self, now: Timestamp) -> Option<Timestamp> {
        match self.evidence {
            Evidence::Pending | Evidence::Left => {
                // A clock that was set back must not hold for longer than the wait.
                let until = self.at.min(now) + AFTER_LEAVING;
                (now < until).then_some(until)
            }
            // Kitex gives up for good after five failed retries: nobody else will register the instance. And what a registry
            // lacks that was emptied or set back is put back at once.
            Evidence::Expired | Evidence::Orphaned | Evidence::Swept | Evidence::Unreadable | Evidence::RolledBack => {
                None
            }
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

/// What a TCP connection showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Opened, and still open after a moment.
    Accepted,
    Refused,
    /// Neither.
    Silent,
}

/// The last answer of an address, and since when it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub answer: Answer,
    pub since: Timestamp,
}

/// Everything that the judgement of one endpoint rests on.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub evidence: Evidence,
    pub at: Timestamp,
    pub on_expiry: OnExpiry,
    /// Not the address of a pod, and not what another cluster's Twinspan exported: those are never kept, for somebody else knows
    /// better whether they live.
    pub keepable: bool,
    /// The service would have no endpoint without it.
    pub last: bool,
    pub probe: Option<Probe>,
    /// Until when it is kept, where it was found lost before.
    pub lost_until: Option<Timestamp>,
    pub keep_lost: SignedDuration,
    pub now: Timestamp,
}

/// What becomes of an endpoint whose record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    Gone,
    /// It stays until more is known.
    Waiting {
        probe: bool,
        look_again: Option<Timestamp>,
    },
    /// The server lives and only lost its registration. Until then it stays while it accepts connections.
    Lost {
        until: Timestamp,
    },
    /// The guard decides.
    Unexplained {
        since: Timestamp,
        /// It is asked all the same: what refuses goes at any time.
        probe: bool,
    },
}

/// The first rule that matches (design: departures are judged by evidence).
pub fn judge(case: &Case) -> Judgement {
    let at = case.at.min(case.now);
    match case.evidence {
        Evidence::Pending => Judgement::Waiting { probe: false, look_again: None },
        Evidence::Swept | Evidence::Unreadable | Evidence::RolledBack => {
            Judgement::Unexplained { since: at, probe: false }
        }
        Evidence::Left if case.last && case.keepable => last_one_left(case, at),
        Evidence::Left => Judgement::Gone,
        Evidence::Expired | Evidence::Orphaned if !case.keepable => Judgement::Unexplained { since: at, probe: false },
        Evidence::Expired if case.on_expiry == OnExpiry::Remove => Judgement::Unexplained { since: at, probe: false },
        Evidence::Orphaned if case.on_expiry == OnExpiry::Remove => match case.probe.map(|probe| probe.answer) {
            None => Judgement::Waiting { probe: true, look_again: None },
            Some(Answer::Refused) => Judgement::Gone,
            Some(Answer::Accepted | Answer::Silent) => Judgement::Unexplained { since: at, probe: true },
        },
        Evidence::Expired | Evidence::Orphaned => probed(case, at),
    }
}

fn last_one_left(case: &Case, at: Timestamp) -> Judgement {
    let until = at + LAST_ONE_STAYS;
    match case.probe.map(|probe| probe.answer) {
        _ if case.now >= until => Judgement::Gone,
        None | Some(Answer::Accepted) => Judgement::Waiting { probe: true, look_again: Some(until) },
        Some(Answer::Refused | Answer::Silent) => Judgement::Gone,
    }
}

fn probed(case: &Case, at: Timestamp) -> Judgement {
    // A shorter `keepLostSeconds` takes effect at once; a longer one does not prolong what has begun.
    let until = case.lost_until.unwrap_or(at + case.keep_lost).min(case.now + case.keep_lost);
    match case.probe {
        Some(Probe { answer: Answer::Refused, .. }) => Judgement::Gone,
        Some(Probe { answer: Answer::Silent, since }) if case.now >= since.min(case.now) + SILENT_FOR => {
            Judgement::Unexplained { since: since.min(case.now) + SILENT_FOR, probe: true }
        }
        _ if case.now >= until => Judgement::Unexplained { since: until, probe: true },
        None => Judgement::Waiting { probe: true, look_again: Some(until) },
        Some(Probe { answer: Answer::Accepted, .. }) => Judgement::Lost { until },
        Some(Probe { answer: Answer::Silent, since }) => {
            let silent = since.min(case.now) + SILENT_FOR;
            match case.lost_until {
                // It accepted once: a moment of silence does not change what it is.
                Some(_) => Judgement::Lost { until },
                None => Judgement::Waiting { probe: true, look_again: Some(silent.min(until)) },
            }
        }
    }
}

#[cfg(test)]
#[path = "departures_tests.rs"]
mod tests;
