//! The line of a ServiceRegistry on the status page.
//!
//! Owns the word for its session, and which conditions a reader has to know of. Refuses to decide: everything follows
//! from the status. Endpoints, Secrets and the names of users are in no line.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use twinspan_core::codec::Format;

use crate::api::conditions::{self, CONNECTED, DISCOVERED, READY, Reason, SYNCED, find_true};
use crate::api::{ServiceRegistry, ServiceRegistryStatus};
use crate::page::rows::{Hold, Note, Ready, Records, Registry};
use crate::page::text;
use crate::registry::handle::RegistryHandle;

/// The line. `held` is the number of deletions that a hold of the whole registry keeps; a replica that does not lead
/// knows of none.
pub fn line(
    object: &ServiceRegistry,
    status: &ServiceRegistryStatus,
    handle: Option<&RegistryHandle>,
    held: Option<usize>,
) -> Registry {
    let name = object.metadata.name.clone().unwrap_or_default();
    let ready = conditions::find(&status.conditions, READY).map(|ready| Ready {
        status: ready.status.clone(),
        reason: ready.reason.clone(),
        message: text::of_condition(&ready.reason, &ready.message),
        code: text::code(&ready.reason),
    });
    let synced = find_true(&status.conditions, SYNCED).is_some();
    let records = status.records.clone().unwrap_or_default();
    let hold = status.hold.as_ref().zip(held).map(|(hold, held)| Hold {
        since: hold.since.0,
        until: hold.until.0,
        hash: hold.hash.clone(),
        held: i64::try_from(held).unwrap_or(i64::MAX),
        command: format!("twinspan approve --registry {name} --only {}", hold.hash),
    });
    let verified = handle.and_then(|handle| handle.audit.last_verified());
    Registry {
        format: Format::from(object.spec.format).as_str(),
        prefix: status.prefix.clone().unwrap_or_else(|| object.spec.effective_prefix().to_owned()),
        session: session(status),
        ready: ready.unwrap_or_default(),
        records: Records { own: records.own, foreign: records.foreign, healed: 0, undecodable: records.undecodable },
        last_verified: verified.or(status.last_verified.as_ref().map(|at| at.0)),
        hold,
        clusters: clusters(status),
        notes: notes(status, held.is_some()),
        synced,
        cluster_id: status.cluster_id.clone().unwrap_or_default(),
        name,
    }
}

/// The clusters that share it, of which the status names the others; none if there is no other.
fn clusters(status: &ServiceRegistryStatus) -> Vec<String> {
    if status.clusters.is_empty() {
        return Vec::new();
    }
    let all: BTreeSet<&String> = status.clusters.iter().chain(&status.cluster_id).collect();
    all.into_iter().cloned().collect()
}

/// Conditions that say more than Ready and the session: a warning about a complete view, and why discovery does not go
/// on. The row has holds of the registry already.
fn notes(status: &ServiceRegistryStatus, leads: bool) -> Vec<Note> {
    let ready = conditions::find(&status.conditions, READY);
    let is_told = |condition: &Condition| {
        let is = |reason: Reason| condition.reason == reason.as_str();
        let plain = match condition.type_.as_str() {
            CONNECTED => is(Reason::Connected) || is(Reason::Connecting),
            SYNCED => is(Reason::Synced) || is(Reason::Connecting) || is(Reason::Listing),
            DISCOVERED => is(Reason::AllDiscovered) || is(Reason::Discovering) || (is(Reason::Held) && !leads),
            _ => true,
        };
        let repeated = |ready: &Condition| (&ready.reason, &ready.message) == (&condition.reason, &condition.message);
        !plain && !ready.is_some_and(repeated)
    };
    let note = |condition: &Condition| Note {
        kind: condition.type_.clone(),
        reason: condition.reason.clone(),
        message: text::of_condition(&condition.reason, &condition.message),
        code: text::code(&condition.reason),
    };
    status.conditions.iter().filter(|condition| is_told(condition)).map(note).collect()
}

/// `Synced`, or the reason why the registry is not followed.
fn session(status: &ServiceRegistryStatus) -> String {
    let not_true = [CONNECTED, SYNCED].into_iter().find(|kind| find_true(&status.conditions, kind).is_none());
    match not_true {
        None => "Synced".to_owned(),
        Some(kind) => {
            let reason = conditions::find(&status.conditions, kind).map(|condition| condition.reason.clone());
            reason.unwrap_or_else(|| "Connecting".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::conditions::Reason;

    fn lined(status: Value, held: Option<usize>) -> Registry {
        let object: ServiceRegistry = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": "main"},
            "spec": {"etcd": {"endpoints": ["http://etcd-secret-endpoint:2379"]}, "format": "Kitex", "allowed": []},
        }))
        .unwrap();
        line(&object, &serde_json::from_value(status).unwrap(), None, held)
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "2026-01-01T12:00:00Z"})
    }

    #[test]
    fn a_message_that_names_a_secret_is_not_shown() {
        let message = |reason: Reason| {
            lined(json!({"conditions": [condition("Ready", "False", reason.as_str())]}), None).ready.message
        };
        for reason in [Reason::SecretNotFound, Reason::SecretInvalid, Reason::TLSFailed] {
            assert_ne!(message(reason), "m", "{reason:?}");
        }
        assert_eq!(message(Reason::Unreachable), "m");
    }

    #[test]
    fn the_session_is_synced_or_has_the_reason_why_not() {
        let session = |connected: Value, synced: Value| lined(json!({"conditions": [connected, synced]}), None).session;
        let (connected, synced) = (condition("Connected", "True", "Connected"), condition("Synced", "True", "Synced"));
        assert_eq!(session(connected.clone(), synced.clone()), "Synced");
        assert_eq!(session(connected, condition("Synced", "False", "Listing")), "Listing");
        assert_eq!(session(condition("Connected", "False", "Unreachable"), synced), "Unreachable");
        assert_eq!(lined(json!({}), None).session, "Connecting");
    }

    #[test]
    fn a_warning_is_told_although_its_condition_is_true() {
        let noted = |kind: &str, status: &str, reason: Reason, held: Option<usize>| {
            let ready = condition("Ready", "True", "Connected");
            let conditions = json!({"conditions": [ready, condition(kind, status, reason.as_str())]});
            let notes = lined(conditions, held).notes;
            notes.into_iter().map(|note| (note.kind, note.reason, note.message)).collect::<Vec<_>>()
        };
        for (kind, status, reason) in [
            ("Synced", "True", Reason::PermissionDenied),
            ("Synced", "True", Reason::RolledBack),
            ("Synced", "True", Reason::ClusterChanged),
            ("Discovered", "False", Reason::DiscoveryLimited),
            ("Discovered", "False", Reason::DiscoveryForbidden),
            ("Discovered", "False", Reason::Held),
            ("Discovered", "True", Reason::Observing),
        ] {
            let note = (kind.to_owned(), reason.as_str().to_owned(), "m".to_owned());
            assert_eq!(noted(kind, status, reason, Some(0)), [note], "{reason:?}");
        }
        for (kind, status, reason) in [
            ("Synced", "True", Reason::Synced),
            ("Synced", "False", Reason::Listing),
            ("Connected", "True", Reason::Connected),
            ("Discovered", "True", Reason::AllDiscovered),
            ("Discovered", "False", Reason::Discovering),
            ("DeletionsHeld", "True", Reason::Held),
        ] {
            assert_eq!(noted(kind, status, reason, Some(0)), [], "{kind} {reason:?}");
        }
        assert_eq!(noted("Discovered", "False", Reason::Held, None), [], "a replica that stands by knows of no hold");
        let repeats = json!({"conditions": [condition("Ready", "False", "AuthFailed"), condition("Synced", "False", "AuthFailed")]});
        assert_eq!(lined(repeats, None).notes, [], "Ready has it");
    }

    #[test]
    fn a_message_of_the_page_has_a_name() {
        let unusable = lined(json!({"conditions": [condition("Ready", "False", "SecretNotFound")]}), None);
        assert_eq!(unusable.ready.code, Some("SecretUnusable"));
        assert_eq!(lined(json!({"conditions": [condition("Ready", "False", "Unreachable")]}), None).ready.code, None);
    }

    #[test]
    fn a_hold_has_its_command_and_no_line_names_an_endpoint() {
        let hold = json!({"since": "2026-01-01T12:00:00Z", "until": "2026-01-01T12:05:00Z", "hash": "0a1b"});
        let registry = lined(json!({"hold": hold, "clusterID": "c1", "clusters": ["c2"]}), Some(40));
        assert_eq!(registry.clusters, ["c1", "c2"]);
        assert!(lined(json!({"clusterID": "c1"}), None).clusters.is_empty(), "nobody shares it");
        let hold = registry.hold.as_ref().unwrap();
        assert_eq!((hold.held, hold.command.as_str()), (40, "twinspan approve --registry main --only 0a1b"));
        assert!(!serde_json::to_string(&registry).unwrap().contains("etcd-secret-endpoint"));
        assert_eq!(registry.prefix, "kitex/registry-etcd");
    }
}
