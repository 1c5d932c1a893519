//! Traps: faults of a sender at one of its messages, by number or by kind.
//!
//! Owns the kinds of messages and of faults. Refuses to carry anything, and to know who sets a trap.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A fault of the sender at one message: the moments of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Moment {
    CrashBefore,
    CrashAfter,
    CrashAfterAnswer,
    Freeze,
    /// As the answer arrives.
    FreezeAnswered,
    LoseAnswer,
    Late,
}

impl Moment {
    pub const ALL: [Self; 7] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::CrashAfterAnswer,
        Self::Freeze,
        Self::FreezeAnswered,
        Self::LoseAnswer,
        Self::Late,
    ];
}

/// The messages of a replica that are numbered, each kind by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// A request and its answer.
    Request,
    /// A frame of a stream that it reads, after the first one.
    Frame,
}

impl Part {
    /// The faults that can befall such a message. What comes by itself is neither sent nor answered.
    pub fn moments(self) -> &'static [Moment] {
        match self {
            Self::Request => &Moment::ALL,
            Self::Frame => &[Moment::CrashBefore, Moment::CrashAfter, Moment::Freeze, Moment::LoseAnswer, Moment::Late],
        }
    }
}

/// A fault of a replica at one of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripted {
    /// The replica, counted from the one that leads as the storm begins.
    pub replica: usize,
    pub part: Part,
    /// The number of the message since then, from 1.
    pub number: u64,
    pub moment: Moment,
}

/// Length of a [`Moment::Freeze`].
pub(super) const FREEZE: Duration = Duration::from_secs(20);
/// Delay of [`Moment::Late`].
pub(super) const LATE: Duration = Duration::from_secs(25);

/// A kind of message on which a trap may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Call {
    /// The grant of a lease of the registry.
    Grant,
    /// A transaction, also one that only reads.
    Txn,
    /// A page of a list of the registry.
    Range,
    /// The opening of a watch stream of the registry.
    Watch,
    /// A read of the Lease.
    LeaseRead,
    /// A write of a slice.
    Slice,
}

impl Call {
    pub const ALL: [Self; 6] = [Self::Grant, Self::Txn, Self::Range, Self::Watch, Self::LeaseRead, Self::Slice];

    fn is(self, summary: &str) -> bool {
        let reads = summary.starts_with("GET ");
        match self {
            Self::Grant => summary == "LeaseGrant",
            Self::Txn => summary.starts_with("Txn"),
            Self::Range => summary == "Range",
            Self::Watch => summary == "Watch",
            Self::LeaseRead => reads && summary.contains("/leases/"),
            Self::Slice => !reads && summary.contains("/endpointslices"),
        }
    }
}

/// The traps of one sender: the call, so many of it to let pass, and the moment.
#[derive(Debug, Default)]
pub(super) struct Traps(Vec<(Call, u64, Moment)>);

impl Traps {
    pub fn set(&mut self, call: Call, skip: u64, moment: Moment) {
        self.0.push((call, skip, moment));
    }

    /// The moment of the trap that this message springs; the others count it.
    pub fn sprung(&mut self, summary: &str) -> Option<Moment> {
        let mut hit = None;
        for (at, (call, skip, _)) in self.0.iter_mut().enumerate().filter(|(_, (call, _, _))| call.is(summary)) {
            match skip.checked_sub(1) {
                Some(rest) => *skip = rest,
                None => hit = hit.or(Some((at, *call))),
            }
        }
        hit.map(|(at, _)| self.0.remove(at).2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_springs_once_at_its_message() {
        let mut traps = Traps::default();
        traps.set(Call::Txn, 1, Moment::Freeze);
        traps.set(Call::Slice, 0, Moment::Late);
        assert_eq!(traps.sprung("Range"), None);
        assert_eq!(traps.sprung("Txn"), None);
        assert_eq!(traps.sprung("GET /apis/discovery.k8s.io/v1/endpointslices"), None);
        assert_eq!(traps.sprung("PUT /apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/a"), Some(Moment::Late));
        assert_eq!(traps.sprung("Txn"), Some(Moment::Freeze));
        assert_eq!(traps.sprung("Txn"), None);
    }
}
