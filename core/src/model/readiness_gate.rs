//! The readiness gate `twinspan.dev/registered` of a pod, reduced to what the planners read.
//!
//! Owns the names of gate and annotation, and the form of the annotation. Refuses to know the API machinery, and to
//! decide when the gate opens, which [`crate::plan::gate`] does.

use jiff::SignedDuration;

use crate::Timestamp;

/// In `spec.readinessGates` of a pod, and the type of the condition that Twinspan sets.
pub const READINESS_GATE: &str = "twinspan.dev/registered";
/// On a pod: the longest time for which it waits for its record, as in `5m`.
pub const REGISTERED_TIMEOUT_ANNOTATION: &str = "twinspan.dev/registered-timeout";
/// The reason of the condition Ready while nothing but readiness gates keeps a pod from it (`pkg/kubelet/status/
/// generate.go` of Kubernetes). Where a Node is lost, its controller makes Ready False too, and keeps the reason.
pub const GATES_NOT_READY: &str = "ReadinessGatesNotReady";

/// The longest [`REGISTERED_TIMEOUT_ANNOTATION`].
const LONGEST: SignedDuration = SignedDuration::from_secs(86_400);

/// The gate of a pod that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadinessGate {
    /// The condition is True, and stays so.
    pub passed: bool,
    /// Its containers are ready and every other readiness gate is True, and the pod is neither ended nor being deleted.
    pub otherwise_ready: bool,
    /// Nothing but readiness gates keeps the pod from being ready, or the pod is ready: the kubelet takes a moment to
    /// see the condition, and the controller of slices another one to see that the pod is ready.
    pub only_gates: bool,
    /// The time at which its containers became ready.
    pub since: Option<Timestamp>,
    /// [`REGISTERED_TIMEOUT_ANNOTATION`]; absent too where it cannot be read.
    pub timeout: Option<SignedDuration>,
    /// [`REGISTERED_TIMEOUT_ANNOTATION`], where it cannot be read.
    pub odd_timeout: Option<Box<str>>,
}

impl ReadinessGate {
    /// Whether the pod is as good as ready for those who call it by its record.
    pub fn lets_export(&self) -> bool {
        self.otherwise_ready && (!self.passed || self.only_gates)
    }
}

/// Reads [`REGISTERED_TIMEOUT_ANNOTATION`]: a whole number of seconds, minutes or hours, 1s to 24h.
pub fn registered_timeout(text: &str) -> Option<SignedDuration> {
    let (number, unit) = match text.as_bytes() {
        [number @ .., b's'] => (number, 1),
        [number @ .., b'm'] => (number, 60),
        [number @ .., b'h'] => (number, 3600),
        _ => return None,
    };
    if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: i64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    let timeout = SignedDuration::from_secs(number.checked_mul(unit)?);
    (timeout > SignedDuration::ZERO && timeout <= LONGEST).then_some(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_whole_number_with_a_unit_of_one_second_to_a_day() {
        for (text, seconds) in [("1s", 1), ("5m", 300), ("24h", 86_400), ("0300s", 300)] {
            assert_eq!(registered_timeout(text), Some(SignedDuration::from_secs(seconds)), "{text}");
        }
        for odd in ["", "s", "5", "0s", "-5m", "+5m", "1.5h", "1h30m", "25h", "5 m", "5M", "99999999999999999999h"] {
            assert_eq!(registered_timeout(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_pod_with_an_open_gate_is_exported_until_the_kubelet_has_seen_it_and_no_longer() {
        let gate = |passed, otherwise_ready, only_gates| ReadinessGate {
            passed,
            otherwise_ready,
            only_gates,
            ..ReadinessGate::default()
        };
        assert!(gate(false, true, true).lets_export() && gate(true, true, true).lets_export());
        assert!(gate(false, true, false).lets_export(), "no kubelet has said why it is not ready");
        assert!(!gate(true, true, false).lets_export(), "it is not ready for another reason");
        assert!(!gate(false, false, true).lets_export() && !gate(true, false, true).lets_export());
    }
}
