//! Setting a condition as `meta.SetStatusCondition` of k8s.io/apimachinery does: `lastTransitionTime` moves only with the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use twinspan_core::Timestamp;

use crate::api::conditions::{READY, Reason};

/// The `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    True,
    False,
    Unknown,
}

impl Is {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub kind: &'static str,
    pub is: Is,
    pub reason: Reason,
    pub message: String,
    /// When it became so, where that is known better than from the last status.
    pub since: Option<Timestamp>,
}

impl Wanted {
    pub fn new(kind: &'static str, is: Is, reason: Reason, message: impl Into<String>) -> Self {
        debug_assert!(kind == READY || reason.carried_by().contains(&kind), "{kind} is not said to carry {reason:?}");
        Self { kind, is, reason, message: message.into(), since: None }
    }
}

/// The conditions as they should be, in the given order; times are kept where the status is the same.
pub fn set(known: &[Condition], wanted: &[Wanted], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    wanted
        .iter()
        .map(|wanted| {
            let before = find(known, wanted.kind).filter(|c| c.status == wanted.is.as_str());
            Condition {
                type_: wanted.kind.to_owned(),
                status: wanted.is.as_str().to_owned(),
                reason: wanted.reason.as_str().to_owned(),
                message: wanted.message.clone(),
                observed_generation: generation,
                last_transition_time: match (wanted.since, before) {
                    (None, Some(before)) => before.last_transition_time.clone(),
                    (since, _) => Time(whole_seconds(since.unwrap_or(now))),
                },
            }
        })
        .collect()
}

pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The API keeps whole seconds: with fractions a status would never equal what was read back.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_only_with_the_status() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let first = set(&[], &[Wanted::new("Ready", Is::False, Reason::Pending, "")], Some(1), at(10));
        let same = set(&first, &[Wanted::new("Ready", Is::False, Reason::Unreachable, "x")], Some(2), at(20));
        assert_eq!(same[0].last_transition_time, Time(at(10)));
        assert_eq!((same[0].reason.as_str(), same[0].observed_generation), ("Unreachable", Some(2)));
        let turned = set(&same, &[Wanted::new("Ready", Is::True, Reason::Synced, "")], Some(2), at(30));
        assert_eq!(turned[0].last_transition_time, Time(at(30)));
    }
}
