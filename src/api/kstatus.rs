//! kstatus, for tests: how Flux, Helm and kpt judge an object.
//!
//! Owns the rules of `sigs.k8s.io/cli-utils/pkg/kstatus/status` for a kind that it does not know by name
//! (`checkGenericProperties` in `generic.go`, then `checkReadyCondition` in `status.go`), and the table of reasons that
//! end a wait. Refuses to know how a status comes about.

use serde_json::Value;

use super::conditions::Reason;

/// `Failed` ends the wait of these tools with an error, `InProgress` lets it go on until its time is over.
pub fn compute(object: &Value) -> &'static str {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    if metadata["deletionTimestamp"].is_string() {
        return "Terminating";
    }
    let (wanted, seen) = (metadata["generation"].as_i64(), status["observedGeneration"].as_i64());
    if wanted.is_some() && seen.is_some() && wanted != seen {
        return "InProgress";
    }
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    for condition in conditions.iter().filter(|condition| condition["status"] == "True") {
        match condition["type"].as_str() {
            Some("Reconciling") => return "InProgress",
            Some("Stalled") => return "Failed",
            _ => {}
        }
    }
    match conditions.iter().find(|condition| condition["type"] == "Ready").map(|ready| &ready["status"]) {
        Some(ready) if ready != "True" => "InProgress",
        // Without a Ready condition an object counts as it is.
        _ => "Current",
    }
}

/// The end of a wait for an object, by the reason of its Ready condition.
///
/// # Panics
/// If the reason is none of the API.
pub fn of_ready(reason: &str) -> &'static str {
    let known = Reason::ALL.iter().copied().find(|known| known.as_str() == reason);
    match known.unwrap_or_else(|| panic!("no reason {reason}")) {
        Reason::Synced | Reason::Connected | Reason::Suspended | Reason::Observing => "Current",
        // The spec, the registry's grant, the Service's ports, a Secret's content: whatever is wrong is there already.
        Reason::NotAllowed
        | Reason::NameTaken
        | Reason::PortNotFound
        | Reason::PortAmbiguous
        | Reason::ExternalName
        | Reason::InvalidName
        | Reason::NotSupported
        | Reason::SecretInvalid
        | Reason::ClusterIDUnknown
        | Reason::ClusterIDInUse
        | Reason::Conflict => "Failed",
        // Another object of the same commit may come later.
        Reason::RegistryNotFound
        | Reason::ServiceMissing
        | Reason::NoNodePort
        | Reason::SecretNotFound
        // The object goes with its namespace.
        | Reason::NamespaceTerminating
        // Nobody has to change an object: the registry recovers, or a write is tried again.
        | Reason::Pending
        | Reason::Connecting
        | Reason::Listing
        | Reason::RegistryUnavailable
        | Reason::ClusterUnavailable
        | Reason::WriteFailed
        | Reason::RefusedByCluster
        | Reason::Unreachable
        | Reason::AuthFailed
        | Reason::PermissionDenied
        | Reason::TLSFailed
        | Reason::NoSpace
        | Reason::ServerError
        | Reason::LeaseGone
        | Reason::NoEpoch
        | Reason::Fenced
        | Reason::NotLeader => "InProgress",
        other @ (Reason::Accepted
        | Reason::ClusterChanged
        | Reason::RolledBack
        | Reason::NotRequested
        | Reason::NothingHeld
        | Reason::Held
        | Reason::ForeignWeightsTooLow
        | Reason::ForeignWeightsTooHigh
        | Reason::NotAccepted
        | Reason::NotWritten
        | Reason::AllDiscovered
        | Reason::Discovering
        | Reason::DiscoveryLimited
        | Reason::DiscoveryForbidden
        | Reason::RegistryTooLarge
        | Reason::NamespaceMissing) => panic!("Ready never has {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::crds::{UNSEEN, all};

    #[test]
    fn an_object_is_current_only_where_its_generation_was_seen_and_ready() {
        let object = |status: Value| json!({"metadata": {"generation": 2}, "status": status});
        let of = |kind: &str, status: &str| json!({"type": kind, "status": status});
        for (status, wanted) in [
            (json!({}), "Current"),
            (json!({"observedGeneration": UNSEEN}), "InProgress"),
            (json!({"observedGeneration": 1, "conditions": [of("Ready", "True")]}), "InProgress"),
            (json!({"observedGeneration": 2, "conditions": [of("Ready", "True")]}), "Current"),
            (json!({"observedGeneration": 2, "conditions": [of("Ready", "False")]}), "InProgress"),
            (json!({"observedGeneration": 2, "conditions": [of("Ready", "Unknown")]}), "InProgress"),
            (json!({"observedGeneration": 2, "conditions": [of("Ready", "False"), of("Stalled", "True")]}), "Failed"),
            (json!({"observedGeneration": 2, "conditions": [of("Ready", "True"), of("Stalled", "False")]}), "Current"),
            (json!({"observedGeneration": 1, "conditions": [of("Stalled", "True")]}), "InProgress"),
        ] {
            assert_eq!(compute(&object(status.clone())), wanted, "{status}");
        }
    }

    /// The API server gives each object a status that kstatus does not take for a good one.
    #[test]
    fn an_object_that_nobody_saw_is_in_progress() {
        for (file, crd) in all().unwrap() {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let object = json!({"metadata": {"generation": 1}, "status": schema["properties"]["status"]["default"]});
            assert_eq!(compute(&object), "InProgress", "{file}");
        }
    }
}
