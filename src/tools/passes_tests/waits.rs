//! The end of a wait for an object with the status that each file ends with, by the rules of kstatus.
//!
//! Refuses to know which reason ends a wait: the table beside the rules does.

use std::collections::BTreeSet;

use serde_json::json;

use super::ALL;
use crate::api::conditions::{ACCEPTED, READY, STALLED, find, find_true};
use crate::api::kstatus;

#[test]
fn a_wait_ends_where_ready_is_true_or_only_a_person_helps() {
    let mut seen = BTreeSet::new();
    for file in ALL.iter() {
        let passed = file.scene.run(&file.name);
        let status = passed.status;
        let Some(ready) = find(&status.conditions, READY) else { continue };
        let found =
            kstatus::compute(&json!({"metadata": {"generation": status.observed_generation}, "status": status}));
        // If the spec is not at fault, the registry is, whose own status stalls. A namespace that was not seen yet may
        // come.
        let of_spec = find(&status.conditions, ACCEPTED).is_some_and(|accepted| accepted.status == "False");
        let of_spec = of_spec && passed.observed.namespace.is_some();
        let wanted = match kstatus::of_ready(&ready.reason) {
            "Failed" if !of_spec => "InProgress",
            other => other,
        };
        assert_eq!(found, wanted, "{}: {} {}", file.name, ready.reason, ready.message);
        assert_eq!(found == "Current", ready.status == "True", "{}", file.name);
        let stalled = find_true(&status.conditions, STALLED).map(|stalled| (&stalled.reason, &stalled.message));
        assert!(stalled.is_none_or(|it| it == (&ready.reason, &ready.message)), "{}: {stalled:?}", file.name);
        seen.insert(found);
    }
    assert_eq!(seen, BTreeSet::from(["Current", "Failed", "InProgress"]));
}
