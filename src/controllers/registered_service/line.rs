//! The line of a RegisteredService on the status page.
//!
//! Owns the rule by which one word stands for a status. Refuses to decide: everything follows from the status and the
//! outcomes that the pass hands over.

use twinspan_core::model::ServiceKey;

use super::seen::Seen;
use crate::api::conditions::{self, ACCEPTED, ConditionStatus, READY, Reason};
use crate::api::discovered::discovered_by;
use crate::api::{Direction, Policy, RegisteredService, RegisteredServiceStatus};
use crate::page::rows::{Hold, Service, State};
use crate::page::text::{bounded, of_condition};

/// The line, and the hold if there is one. A replica that does not lead knows of no hold.
pub fn line(object: &RegisteredService, status: &RegisteredServiceStatus, seen: Seen) -> (Service, Option<Hold>) {
    let counts = &status.instances;
    let hold = status.hold.as_ref().filter(|_| seen.leads).map(|hold| Hold {
        since: hold.since.0,
        until: hold.until.0,
        hash: hold.hash.clone(),
        held: counts.held,
        command: command(&object.key(), &hold.hash),
    });
    let ready = conditions::find(&status.conditions, READY);
    let service = Service {
        registry: object.spec.registry_ref.name.clone(),
        registry_name: bounded(&object.registry_name()),
        service: object.service_key().name,
        direction: match object.spec.direction {
            Direction::Both => "Both",
            Direction::Export => "Export",
            Direction::Import => "Import",
        },
        policy: match object.spec.policy {
            Policy::Sync => "Sync",
            Policy::Observe => "Observe",
        },
        discovered: discovered_by(object).is_some(),
        state: state(status, seen, hold.is_some()),
        reason: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
        message: ready.map(|ready| of_condition(&ready.reason, &ready.message)).unwrap_or_default(),
        cluster: counts.cluster,
        registry_instances: counts.registry,
        exported: counts.exported,
        imported: counts.imported,
        lost: counts.lost,
        healed: counts.healed,
        skipped: counts.skipped,
        held: counts.held,
        digest: seen.digest,
    };
    (service, hold)
}

/// The command that lets the held deletions go, and no later ones.
fn command(key: &ServiceKey, hash: &str) -> String {
    format!("twinspan approve {} -n {} --only {hash}", key.name, key.namespace)
}

/// The worst that holds.
fn state(status: &RegisteredServiceStatus, seen: Seen, held: bool) -> State {
    let is = |kind: &str, wanted: ConditionStatus| {
        conditions::find(&status.conditions, kind).is_some_and(|condition| condition.status == wanted.as_str())
    };
    let reason = conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str()).unwrap_or_default();
    let one_of = |reasons: &[Reason]| reasons.iter().any(|it| it.as_str() == reason);
    let counts = &status.instances;
    let unseen = [Reason::RegistryUnavailable, Reason::ClusterUnavailable, Reason::Unreachable];
    if is(ACCEPTED, ConditionStatus::False) || one_of(&[Reason::RefusedByCluster, Reason::PermissionDenied]) {
        State::Refused
    } else if one_of(&unseen) || !seen.compared {
        State::Unknown
    } else if held {
        State::Held
    } else if counts.lost + counts.healed > 0 {
        State::Lost
    } else if !seen.writes {
        State::Observing
    } else if !is(READY, ConditionStatus::True) || counts.held > 0 || counts.pending.is_some() || seen.waits {
        State::Pending
    } else if seen.differs {
        State::Differs
    } else {
        State::InSync
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "2026-01-01T12:00:00Z"})
    }

    fn object(labels: &Value) -> RegisteredService {
        serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "echo", "namespace": "shop", "labels": labels},
            "spec": {"registryRef": {"name": "main"}, "registryName": "echo.rpc"},
        }))
        .unwrap()
    }

    const SEEN: Seen = Seen { leads: true, writes: true, compared: true, waits: false, differs: false, digest: 7 };

    fn lined(ready: Value, accepted: Value, counts: Value, hold: Value, seen: Seen) -> (Service, Option<Hold>) {
        let conditions = Value::from(vec![ready, accepted]);
        let status = Value::from_iter([("conditions", conditions), ("instances", counts), ("hold", hold)]);
        line(&object(&Value::Null), &serde_json::from_value(status).unwrap(), seen)
    }

    #[test]
    fn a_discovered_one_says_so() {
        let discovered = |labels: Value| line(&object(&labels), &RegisteredServiceStatus::default(), SEEN).0.discovered;
        assert!(discovered(json!({"twinspan.dev/discovered-by": "uid"})) && !discovered(json!({"app": "echo"})));
    }

    #[test]
    fn one_word_says_the_worst() {
        let (ready, accepted) = (condition("Ready", "True", "Synced"), condition("Accepted", "True", "Accepted"));
        let state = |ready: Value, accepted: &Value, counts: Value, seen: Seen| {
            lined(ready, accepted.clone(), counts, Value::Null, seen).0.state
        };
        let of = |counts| state(ready.clone(), &accepted, counts, SEEN);
        let differs = Seen { differs: true, ..SEEN };
        assert_eq!(of(json!({"exported": 3})), State::InSync);
        assert_eq!(state(ready.clone(), &accepted, json!({"skipped": 1}), differs), State::Differs);
        assert_eq!(state(ready.clone(), &accepted, json!({"skipped": 1, "pending": 1}), differs), State::Pending);
        assert_eq!(state(ready.clone(), &accepted, json!({}), Seen { waits: true, ..differs }), State::Pending);
        assert_eq!(of(json!({"held": 1})), State::Pending, "it waits for evidence, and no guard holds it");
        assert_eq!(of(json!({"held": 1, "lost": 1})), State::Lost);
        let not = |reason| state(condition("Ready", "False", reason), &accepted, json!({}), SEEN);
        assert_eq!(not("WriteFailed"), State::Pending);
        assert_eq!(not("RefusedByCluster"), State::Refused);
        assert_eq!(not("Unreachable"), State::Unknown);
        let refused = condition("Accepted", "False", "NotAllowed");
        let not_allowed = condition("Ready", "False", "NotAllowed");
        assert_eq!(state(not_allowed, &refused, json!({"lost": 1}), SEEN), State::Refused);
    }

    #[test]
    fn a_pass_that_does_not_write_or_sees_one_side_alone_promises_nothing() {
        let (ready, accepted) = (condition("Ready", "True", "Observing"), condition("Accepted", "True", "Accepted"));
        let state =
            |counts: Value, seen: Seen| lined(ready.clone(), accepted.clone(), counts, Value::Null, seen).0.state;
        let observes = Seen { writes: false, differs: true, ..SEEN };
        assert_eq!(state(json!({"pending": 3}), observes), State::Observing);
        assert_eq!(state(json!({"lost": 1}), observes), State::Lost);
        assert_eq!(state(json!({"pending": 3}), Seen { compared: false, ..SEEN }), State::Unknown);
    }

    #[test]
    fn the_words_of_a_registry_are_not_copied() {
        let message = |reason: Reason| {
            let ready = condition("Ready", "Unknown", reason.as_str());
            lined(ready, condition("Accepted", "True", "Accepted"), json!({}), Value::Null, SEEN).0.message
        };
        assert_ne!(message(Reason::RegistryUnavailable), "m");
        assert_eq!(message(Reason::ClusterUnavailable), "m");
    }

    #[test]
    fn a_hold_comes_with_its_command_and_only_from_a_leader() {
        let (ready, accepted) = (condition("Ready", "True", "Synced"), condition("Accepted", "True", "Accepted"));
        let hold = json!({"since": "2026-01-01T12:00:00Z", "until": "2026-01-01T12:05:00Z", "hash": "0a1b"});
        let lined = |leads| {
            let seen = Seen { leads, ..SEEN };
            lined(ready.clone(), accepted.clone(), json!({"held": 12}), hold.clone(), seen)
        };
        let (service, hold) = lined(true);
        let hold = hold.unwrap();
        assert_eq!((service.state, hold.held), (State::Held, 12));
        assert_eq!(hold.command, "twinspan approve echo -n shop --only 0a1b");
        let (service, hold) = lined(false);
        assert_eq!((service.state, hold), (State::Pending, None));
    }
}
