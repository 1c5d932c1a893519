//! The readiness gate of a pod, from the API object, and the condition that opens it.
//!
//! Owns which conditions of a pod count. Refuses to decide when a gate opens.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};
use twinspan_core::Timestamp;
use twinspan_core::model::{
    GATES_NOT_READY, READINESS_GATE, REGISTERED_TIMEOUT_ANNOTATION, ReadinessGate, registered_timeout,
};
use twinspan_core::plan::gate::Passed;

/// The part of an annotation that cannot be read that is told to people.
const TOLD: usize = 40;

/// The gate, if the pod has ours.
pub fn of(object: &Pod) -> Option<ReadinessGate> {
    let gates = object.spec.as_ref()?.readiness_gates.as_ref()?;
    if !gates.iter().any(|gate| gate.condition_type == READINESS_GATE) {
        return None;
    }
    let status = object.status.as_ref();
    let conditions = || status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let find = |type_: &str| conditions().find(|condition| condition.type_ == type_);
    let is_true = |type_: &str| find(type_).is_some_and(|condition| condition.status == "True");
    let others = gates.iter().filter(|gate| gate.condition_type != READINESS_GATE);
    let ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
    let stays = object.metadata.deletion_timestamp.is_none() && !ended;
    let text = object.annotations().get(REGISTERED_TIMEOUT_ANNOTATION);
    let timeout: Option<SignedDuration> = text.and_then(|text| registered_timeout(text));
    let odd = text.filter(|_| timeout.is_none()).map(|text| text.chars().take(TOLD).collect::<String>().into());
    let because_of = |condition: &PodCondition| condition.reason.as_deref() == Some(GATES_NOT_READY);
    let since = |condition: &PodCondition| condition.last_transition_time.as_ref().map(|time| time.0);
    Some(ReadinessGate {
        passed: is_true(READINESS_GATE),
        otherwise_ready: stays && is_true("ContainersReady") && others.into_iter().all(|g| is_true(&g.condition_type)),
        // The controller of slices is a moment behind the kubelet.
        only_gates: find("Ready").is_none_or(|ready| ready.status == "True" || because_of(ready)),
        since: find("ContainersReady").and_then(since),
        timeout,
        odd_timeout: odd,
    })
}

/// The patch that opens the gate of one version of one pod, and changes nothing else. Conditions are merged by their
/// type (`patchMergeKey` of `PodStatus.conditions`).
pub fn opened(uid: &str, version: &str, why: Passed, now: Timestamp) -> Value {
    let condition = PodCondition {
        type_: READINESS_GATE.to_owned(),
        status: "True".to_owned(),
        reason: Some(why.label().to_owned()),
        message: Some(why.message().to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    };
    json!({"metadata": {"uid": uid, "resourceVersion": version}, "status": {"conditions": [condition]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &Value, gates: &[&str]) -> Pod {
        let gates: Vec<Value> = gates.iter().map(|gate| json!({"conditionType": gate})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"containers": [], "readinessGates": gates}, "status": status,
        }))
        .unwrap()
    }

    fn status(conditions: &[(&str, &str, &str)]) -> Value {
        let condition = |(type_, status, reason): &(&str, &str, &str)| json!({"type": type_, "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T12:00:00Z"});
        json!({"conditions": conditions.iter().map(condition).collect::<Vec<_>>()})
    }

    #[test]
    fn a_pod_without_our_gate_has_none() {
        assert_eq!(of(&pod(&status(&[]), &["example.com/other"])), None);
        assert_eq!(of(&pod(&status(&[]), &[])), None);
        assert_eq!(of(&Pod::default()), None);
    }

    #[test]
    fn containers_and_the_other_gates_have_to_be_ready_and_the_pod_has_to_stay() {
        let both = ["example.com/other", READINESS_GATE];
        let ready = [("ContainersReady", "True", ""), ("example.com/other", "True", "")];
        assert!(of(&pod(&status(&ready), &both)).unwrap().otherwise_ready);
        assert!(!of(&pod(&status(&ready[..1]), &both)).unwrap().otherwise_ready, "the other gate has no condition");
        assert!(!of(&pod(&status(&ready[1..]), &both)).unwrap().otherwise_ready, "nor have the containers");
        let mut deleted = pod(&status(&ready), &both);
        deleted.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(!of(&deleted).unwrap().otherwise_ready);
        let mut ended = pod(&status(&ready), &both);
        ended.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert!(!of(&ended).unwrap().otherwise_ready);
        let since = of(&pod(&status(&ready), &both)).unwrap().since;
        assert_eq!(since, Some("2026-01-01T12:00:00Z".parse().unwrap()));
    }

    #[test]
    fn the_reason_of_ready_tells_gates_from_a_lost_node() {
        let gate = |ready: (&str, &str, &str)| {
            of(&pod(&status(&[ready, (READINESS_GATE, "True", "Registered")]), &[READINESS_GATE])).unwrap()
        };
        assert!(gate(("Ready", "False", GATES_NOT_READY)).only_gates && gate(("Ready", "False", "")).passed);
        assert!(!gate(("Ready", "False", "")).only_gates);
        assert!(gate(("Ready", "True", "")).only_gates, "the kubelet says so before a slice does");
    }

    #[test]
    fn a_timeout_that_cannot_be_read_is_kept_for_people_and_counts_as_none() {
        let with = |text: &str| {
            let mut pod = pod(&status(&[]), &[READINESS_GATE]);
            pod.annotations_mut().insert(REGISTERED_TIMEOUT_ANNOTATION.to_owned(), text.to_owned());
            of(&pod).unwrap()
        };
        assert_eq!((with("5m").timeout, with("5m").odd_timeout), (Some(SignedDuration::from_mins(5)), None));
        assert_eq!((with("soon").timeout, with("soon").odd_timeout.as_deref()), (None, Some("soon")));
        assert_eq!(with(&"x".repeat(1000)).odd_timeout.unwrap().len(), TOLD);
    }

    #[test]
    fn the_patch_names_one_version_of_one_pod_and_one_condition() {
        let patch = opened("u", "7", Passed::Registered, Timestamp::UNIX_EPOCH);
        assert_eq!(
            patch,
            json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "status": {"conditions": [{
                "type": "twinspan.dev/registered", "status": "True", "reason": "Registered",
                "message": "its record is in the registry", "lastTransitionTime": "1970-01-01T00:00:00Z",
            }]}})
        );
    }
}
