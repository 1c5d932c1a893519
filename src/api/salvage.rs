//! A RegisteredService that cannot be decoded, as far as it can be read: field by field.
//!
//! Owns the fields without which nothing may be concluded (the registry, the names, whether anything may be written),
//! and the rule that each other field that cannot be read is left out. The result serves to remove what ended, never to
//! add. Refuses to know why an object cannot be decoded: a field of a later version, usually.

use serde_json::{Map, Value, json};

use super::RegisteredService;

/// Fields that must be read if they are there: with their defaults the object would mean another place.
const NAMES: [&str; 3] = ["/spec/registryRef/name", "/spec/registryName", "/spec/service/name"];

/// Fields that forbid to write. One that cannot be read forbids it too.
const FORBID: [&str; 2] = ["suspend", "policy"];

/// The RegisteredService with the fields that can be read; `None` if the registry or a name cannot.
pub fn registered_service(object: &Value) -> Option<RegisteredService> {
    let text = |path: &str| object.pointer(path).is_none_or(|value| value.is_string() || value.is_null());
    if !NAMES.into_iter().all(text) {
        return None;
    }
    let mut read = json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": metadata(object),
        "spec": {"registryRef": object.pointer("/spec/registryRef")?},
    });
    decode(&read)?;
    let mut forbids = false;
    for (name, value) in object.pointer("/spec")?.as_object()?.iter().filter(|(name, _)| *name != "registryRef") {
        forbids |= !add(&mut read, &["spec", name], value) && FORBID.contains(&name.as_str());
    }
    if let Some(status) = object.get("status") {
        add(&mut read, &["status"], status);
    }
    let mut salvaged = decode(&read)?;
    salvaged.spec.suspend |= forbids;
    Some(salvaged)
}

/// Names, UID, generation and the rest of the metadata, or only what tells one object from another.
fn metadata(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_default();
    if serde_json::from_value::<kube::api::ObjectMeta>(metadata.clone()).is_ok() {
        return metadata;
    }
    let identity = ["name", "namespace", "uid", "generation", "creationTimestamp"];
    let known = identity.into_iter().filter_map(|name| Some((name.to_owned(), metadata.get(name)?.clone())));
    Value::Object(known.collect())
}

/// Adds a field if the object can still be decoded with it; of a field that cannot, the parts that can.
fn add(read: &mut Value, path: &[&str], value: &Value) -> bool {
    let Some((name, parents)) = path.split_last() else { return false };
    let before = read.clone();
    let Some(Value::Object(fields)) = parents.iter().try_fold(&mut *read, |at, field| at.get_mut(*field)) else {
        return false;
    };
    fields.insert((*name).to_owned(), value.clone());
    if decode(read).is_some() {
        return true;
    }
    *read = before;
    if let Value::Object(parts) = value
        && path.len() < 3
        && add(read, path, &Value::Object(Map::new()))
    {
        for (part, value) in parts {
            add(read, &[path, &[part]].concat(), value);
        }
    }
    false
}

fn decode(read: &Value) -> Option<RegisteredService> {
    serde_json::from_value(read.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{DeletionGuard, OnExpiry};

    fn object(spec: &Value) -> Value {
        json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "echo", "namespace": "shop", "uid": "u"}, "spec": spec})
    }

    #[test]
    fn what_cannot_be_read_is_left_out_alone() {
        let spec = json!({
            "registryRef": {"name": "main"}, "registryName": "pay", "direction": "Sideways",
            "service": {"name": "svc", "create": "Someday"},
            "import": {"onExpiry": "Sometime", "keepLostSeconds": 7},
            "deletionGuard": {"minInstances": 3, "maxDeletePercent": "half"},
        });
        let read = registered_service(&object(&spec)).unwrap();
        assert_eq!((read.spec.registry_ref.name.as_str(), read.registry_name().as_str()), ("main", "pay"));
        assert_eq!(read.service_key().name, "svc");
        assert_eq!((read.spec.import.on_expiry, read.spec.import.keep_lost_seconds), (OnExpiry::Probe, 7));
        let guard = DeletionGuard { min_instances: 3, ..DeletionGuard::default() };
        assert_eq!(read.spec.deletion_guard, guard);
        assert!(!read.spec.suspend);
        assert_eq!(read.metadata.uid.as_deref(), Some("u"));
    }

    #[test]
    fn nothing_is_read_from_an_object_whose_place_is_unknown() {
        for spec in [
            json!({}),
            json!({"registryRef": "main"}),
            json!({"registryRef": {"name": ["main"]}}),
            json!({"registryRef": {"name": "main"}, "registryName": {"text": "pay"}}),
            json!({"registryRef": {"name": "main"}, "service": {"name": 7}}),
        ] {
            assert!(registered_service(&object(&spec)).is_none(), "{spec}");
        }
        assert!(registered_service(&json!(null)).is_none());
    }

    #[test]
    fn whoever_may_not_want_writes_gets_none() {
        for (spec, suspended) in [
            (json!({"policy": "Sometimes", "suspend": false}), true),
            (json!({"suspend": "perhaps"}), true),
            (json!({"suspend": true, "direction": "Sideways"}), true),
            (json!({"policy": "Sync", "direction": "Sideways"}), false),
        ] {
            let mut whole = spec.clone();
            whole["registryRef"] = json!({"name": "main"});
            assert_eq!(registered_service(&object(&whole)).unwrap().spec.suspend, suspended, "{spec}");
        }
    }
}
