//! The reasons for which a RegisteredService lacks something that its spec asks for, from its spec and its status.
//!
//! Owns the order of the reasons. Refuses to decide what follows from one, which the planner does.

use twinspan_core::plan::discovery::facts::{Lag, Lags};

use crate::api::conditions::{ACCEPTED, ConditionStatus, EXPORTED, IMPORTED, find, find_true};
use crate::api::{Policy, RegisteredService};

pub(super) fn lags(object: &RegisteredService) -> Lags {
    Lags { export: lag(object, EXPORTED), import: lag(object, IMPORTED) }
}

/// The reason in one direction, which has a condition of its own.
fn lag(object: &RegisteredService, side: &str) -> Option<Lag> {
    if object.spec.suspend {
        return Some(Lag::Suspended);
    }
    if object.spec.policy == Policy::Observe {
        return Some(Lag::Observes);
    }
    let Some(status) = object.current_status() else { return Some(Lag::Unseen) };
    match find(&status.conditions, ACCEPTED).map(|accepted| accepted.status.as_str()) {
        Some(accepted) if accepted == ConditionStatus::True.as_str() => {}
        Some(accepted) if accepted == ConditionStatus::False.as_str() => return Some(Lag::Rejected),
        _ => return Some(Lag::Unseen),
    }
    let counts = &status.instances;
    if find_true(&status.conditions, side).is_none() || counts.pending.is_some_and(|pending| pending > 0) {
        return Some(Lag::Pending);
    }
    (counts.held > 0).then_some(Lag::Held)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A RegisteredService of a person whose status has these conditions.
    fn object(spec: &Value, generation: i64, conditions: &[(&str, &str)], counts: &Value) -> RegisteredService {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| {
                json!({"type": kind, "status": status, "reason": "Synced", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        let mut object = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "hand", "namespace": "shop", "generation": 2},
            "spec": {"registryRef": {"name": "main"}},
            "status": {"observedGeneration": generation, "conditions": conditions, "instances": counts},
        });
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_first_reason_counts_and_each_direction_has_its_own() {
        let fine = [("Accepted", "True"), ("Exported", "True"), ("Imported", "False")];
        let none = || json!({});
        let found = |spec: Value, generation, conditions: &[_], counts: Value| {
            let Lags { export, import } = lags(&object(&spec, generation, conditions, &counts));
            (export, import)
        };
        assert_eq!(found(none(), 2, &fine, json!({"exported": 3})), (None, Some(Lag::Pending)));
        let both = |lag| (Some(lag), Some(lag));
        assert_eq!(found(none(), 2, &fine, json!({"pending": 1})), both(Lag::Pending));
        assert_eq!(found(none(), 2, &fine, json!({"held": 1})), (Some(Lag::Held), Some(Lag::Pending)));
        assert_eq!(found(none(), 1, &fine, none()), both(Lag::Unseen), "the status is about another spec");
        assert_eq!(found(none(), 2, &[("Accepted", "False")], none()), both(Lag::Rejected));
        assert_eq!(found(none(), 2, &[], none()), both(Lag::Unseen));
        assert_eq!(found(json!({"policy": "Observe"}), 2, &fine, none()), both(Lag::Observes));
        assert_eq!(found(json!({"policy": "Observe", "suspend": true}), 2, &fine, none()), both(Lag::Suspended));
    }
}
