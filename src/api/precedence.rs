//! The precedence of a RegisteredService, as its metadata tells it.
//!
//! Owns which metadata tell: the label of discovery, and the creation time. Refuses to know the order, which the core
//! has.

use twinspan_core::model::Precedence;

use super::RegisteredService;
use super::discovered::discovered_by;

/// The place of a RegisteredService among those that want the same.
pub fn precedence(object: &RegisteredService) -> Precedence {
    let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    Precedence::new(discovered_by(object).is_some(), created, object.key())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, created: &str, labels: &Value) -> RegisteredService {
        serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created, "labels": labels},
            "spec": {"registryRef": {"name": "main"}},
        }))
        .unwrap()
    }

    #[test]
    fn the_label_counts_whatever_its_value_and_no_other_label_does() {
        let label = |value| json!({"twinspan.dev/discovered-by": value});
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let precedes =
            |one: &RegisteredService, other: &RegisteredService| precedence(one).precedes(&precedence(other));
        let by_hand = object("b", new, &json!({"app": "echo"}));
        for value in ["uid", ""] {
            assert!(precedes(&by_hand, &object("a", old, &label(value))), "{value:?}");
        }
        assert!(precedes(&object("a", old, &json!({})), &by_hand), "the older one of two that persons wrote");
        assert!(
            precedes(&object("a", old, &label("uid")), &object("b", new, &label("uid"))),
            "and of two discovered ones"
        );
    }
}
