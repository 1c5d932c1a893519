//! The readiness gate of a pod: whether it opens now, and why.
//!
//! Owns the decision: a pod waits for every RegisteredService that would write its record, and for no other; it is
//! decided upon once its containers and its other gates are ready, because it could not be ready before, and an object
//! that is applied with it has come by then. Refuses to know clients, and to close a gate again.

use std::fmt;

use jiff::SignedDuration;

use crate::model::ReadinessGate;

/// The reason why a gate opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Passed {
    /// No RegisteredService selects the pod.
    NotSelected,
    /// The RegisteredService cannot be acted upon.
    NotAccepted,
    Suspended,
    /// The policy is Observe.
    Observed,
    /// The direction of the RegisteredService is Import.
    ImportOnly,
    /// Other addresses than those of pods are exported: traffic to them reaches a pod only once it is ready.
    AddressNotPod,
    /// The pod's address is not exported, for a reason that the status of the RegisteredService names.
    Refused,
    /// Its own server registered it, or another cluster's Twinspan.
    SelfRegistered,
    /// Its record is in the registry.
    Registered,
    /// The time in its annotation is over.
    TimedOut,
}

impl Passed {
    pub const ALL: [Self; 10] = [
        Self::NotSelected,
        Self::NotAccepted,
        Self::Suspended,
        Self::Observed,
        Self::ImportOnly,
        Self::AddressNotPod,
        Self::Refused,
        Self::SelfRegistered,
        Self::Registered,
        Self::TimedOut,
    ];

    /// The reason of the condition, and a label of a metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotSelected => "NotSelected",
            Self::NotAccepted => "NotAccepted",
            Self::Suspended => "Suspended",
            Self::Observed => "Observed",
            Self::ImportOnly => "ImportOnly",
            Self::AddressNotPod => "AddressNotPod",
            Self::Refused => "Refused",
            Self::SelfRegistered => "SelfRegistered",
            Self::Registered => "Registered",
            Self::TimedOut => "TimedOut",
        }
    }

    /// The message of the condition.
    pub fn message(self) -> &'static str {
        match self {
            Self::NotSelected => "no RegisteredService selects the pod",
            Self::NotAccepted => "its RegisteredService is not accepted; see its conditions",
            Self::Suspended => "its RegisteredService is suspended",
            Self::Observed => "the policy of its RegisteredService is Observe",
            Self::ImportOnly => "its RegisteredService only imports",
            Self::AddressNotPod => "its RegisteredService exports other addresses than those of pods",
            Self::Refused => "its address is not exported; see status.differences of its RegisteredService",
            Self::SelfRegistered => "it is registered already, and not by this cluster's Twinspan",
            Self::Registered => "its record is in the registry",
            Self::TimedOut => {
                "its record did not come within the time of the annotation twinspan.dev/registered-timeout"
            }
        }
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The word of one RegisteredService, or of all together, about the gate of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A record is to be written, or nobody knows yet.
    Wait,
    Pass(Passed),
}

impl Verdict {
    /// Both: the pod waits if either waits, and the reason that says most counts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Pass(one), Self::Pass(other)) => Self::Pass(one.max(other)),
            _ => Self::Wait,
        }
    }
}

/// The consequence for a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The gate is open already, or its pod cannot be ready yet.
    NotDue,
    /// The gate stays closed; `left` is the time until its annotation opens it.
    Wait {
        left: Option<SignedDuration>,
    },
    Open(Passed),
}

/// Decides about a gate that was due for `waited`. `says` is what each RegisteredService says that selects the pod;
/// `None` for one that has not judged it yet.
pub fn decide(
    gate: &ReadinessGate,
    says: impl IntoIterator<Item = Option<Verdict>>,
    waited: SignedDuration,
) -> Decision {
    if gate.passed || !gate.otherwise_ready {
        return Decision::NotDue;
    }
    let nothing = Verdict::Pass(Passed::NotSelected);
    let says = says.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Wait)).fold(nothing, Verdict::and);
    match (says, gate.timeout) {
        (Verdict::Pass(why), _) => Decision::Open(why),
        (Verdict::Wait, Some(timeout)) if waited >= timeout => Decision::Open(Passed::TimedOut),
        (Verdict::Wait, timeout) => Decision::Wait { left: timeout.map(|timeout| timeout - waited) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due() -> ReadinessGate {
        ReadinessGate { otherwise_ready: true, ..ReadinessGate::default() }
    }

    fn secs(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_pod_waits_for_each_that_would_write_it_and_for_no_other() {
        let [wait, none] = [Some(Verdict::Wait), None];
        let pass = |why| Some(Verdict::Pass(why));
        let of = |says: &[Option<Verdict>]| decide(&due(), says.iter().copied(), secs(0));
        let open = Decision::Open;
        let waits = Decision::Wait { left: None };
        assert_eq!(of(&[]), open(Passed::NotSelected));
        assert_eq!(of(&[wait]), waits);
        assert_eq!(of(&[none]), waits, "unknown is not empty");
        assert_eq!(of(&[pass(Passed::Registered), wait]), waits);
        assert_eq!(of(&[pass(Passed::ImportOnly), none]), waits);
        assert_eq!(of(&[pass(Passed::Registered), pass(Passed::Suspended)]), open(Passed::Registered));
        assert_eq!(of(&[pass(Passed::Observed)]), open(Passed::Observed));
    }

    #[test]
    fn nothing_is_decided_before_the_containers_are_ready_or_after_it_is_open() {
        let early = ReadinessGate { otherwise_ready: false, ..due() };
        let open = ReadinessGate { passed: true, ..due() };
        for gate in [early, open] {
            assert_eq!(decide(&gate, [], secs(0)), Decision::NotDue, "{gate:?}");
        }
    }

    #[test]
    fn the_annotation_bounds_the_wait_and_a_reason_wins_over_it() {
        let gate = ReadinessGate { timeout: Some(secs(300)), ..due() };
        let after = |waited, says| decide(&gate, [says], secs(waited));
        assert_eq!(after(299, Some(Verdict::Wait)), Decision::Wait { left: Some(secs(1)) });
        assert_eq!(after(300, Some(Verdict::Wait)), Decision::Open(Passed::TimedOut));
        assert_eq!(after(300, None), Decision::Open(Passed::TimedOut));
        let registered = Some(Verdict::Pass(Passed::Registered));
        assert_eq!(after(300, registered), Decision::Open(Passed::Registered));
        assert_eq!(decide(&due(), [None], secs(86_400)), Decision::Wait { left: None }, "without it a pod waits on");
    }

    #[test]
    fn every_reason_has_words_that_the_api_server_takes() {
        for why in Passed::ALL {
            assert!(why.label().chars().all(|c| c.is_ascii_alphabetic()) && !why.message().is_empty(), "{why}");
        }
    }
}
