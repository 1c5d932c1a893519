//! The strategies of the registries: the part of an object that a request may set, and when it counts as changed.
//!
//! Owns `PrepareForCreate` and `PrepareForUpdate` of each kind (`pkg/registry/*/strategy.go`, v1.37.2, and
//! `apiextensions-apiserver/pkg/registry/customresource`, v0.37.2), and the checks that need the stored object. Refuses
//! preconditions and versions, which every kind has.

use serde_json::{Value, json};

use crate::kinds::{Family, Kind};
use crate::status::Cause;

/// Drops what a creation may not set.
pub fn prepare_for_create(kind: &Kind, object: &mut Value) {
    match &kind.family {
        Family::Custom { status, .. } => {
            if *status {
                remove(object, "status");
            }
            object["metadata"]["generation"] = json!(1);
        }
        Family::Pod => {
            object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
            object["metadata"]["generation"] = json!(1);
        }
        Family::EndpointSlice => object["metadata"]["generation"] = json!(1),
        Family::Service => object["status"] = json!({"loadBalancer": {}}),
        Family::Namespace => {
            object["status"] = json!({"phase": "Active"});
            let finalizers = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
            if !finalizers.contains(&json!("kubernetes")) {
                let all: Vec<Value> = finalizers.into_iter().chain([json!("kubernetes")]).collect();
                object["spec"]["finalizers"] = json!(all);
            }
        }
        _ => {}
    }
}

/// Puts back what an update may not change, and counts the generation up.
pub fn prepare_for_update(kind: &Kind, is_status: bool, new: &mut Value, old: &Value) {
    copy(new, old, &["metadata", "generation"]);
    match &kind.family {
        Family::Custom { .. } if is_status => {
            let status = new.get("status").cloned();
            *new = old.clone();
            match status {
                Some(status) => new["status"] = status,
                None => remove(new, "status"),
            }
        }
        Family::Custom { status, .. } => {
            if *status {
                copy(new, old, &["status"]);
            }
            if without_metadata(new) != without_metadata(old) {
                count_up(new, old);
            }
        }
        _ if is_status => {
            copy(new, old, &["spec"]);
            if matches!(kind.family, Family::Pod) {
                copy(new, old, &["metadata", "ownerReferences"]);
                if new["status"].get("qosClass").is_none() {
                    copy(new, old, &["status", "qosClass"]);
                }
            }
        }
        Family::Pod => {
            copy(new, old, &["status"]);
            if new["spec"] != old["spec"] {
                count_up(new, old);
            }
        }
        Family::Namespace => {
            copy(new, old, &["spec", "finalizers"]);
            copy(new, old, &["status"]);
        }
        Family::Service | Family::Node | Family::ServiceCidr => copy(new, old, &["status"]),
        Family::EndpointSlice => {
            let labels = |object: &Value| object["metadata"]["labels"].clone();
            if without_metadata(new) != without_metadata(old) || labels(new) != labels(old) {
                count_up(new, old);
            }
        }
        Family::Secret | Family::Lease | Family::Event => {}
    }
}

/// The reasons why an update is invalid.
pub fn check_update(kind: &Kind, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let added = new_finalizers(new, old);
    if old["metadata"].get("deletionTimestamp").is_some() && !added.is_empty() {
        let why = "no new finalizers can be added if the object is being deleted, found new finalizers";
        causes.push(Cause::forbidden("metadata.finalizers", &format!("{why} []string{{{}}}", added.join(", "))));
    }
    let uid = &new["metadata"]["uid"];
    if *uid != old["metadata"]["uid"] {
        causes.push(Cause::invalid("metadata.uid", uid, "field is immutable"));
    }
    if matches!(kind.family, Family::Custom { .. }) {
        // The metadata of custom resources is checked twice.
        causes.extend(causes.clone());
    }
    if matches!(kind.family, Family::EndpointSlice) && new["addressType"] != old["addressType"] {
        causes.push(Cause::invalid("addressType", &new["addressType"], "field is immutable"));
    }
    causes
}

fn new_finalizers(new: &Value, old: &Value) -> Vec<String> {
    let all = |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let before = all(old);
    all(new).iter().filter(|finalizer| !before.contains(finalizer)).map(Value::to_string).collect()
}

/// The reasons why an object is invalid, whoever sends it.
pub fn check(kind: &Kind, object: &Value) -> Vec<Cause> {
    match &kind.family {
        Family::Custom { schema, .. } => schema.check(object),
        Family::EndpointSlice if object["addressType"].as_str().is_none_or(str::is_empty) => {
            vec![Cause::required("addressType", "")]
        }
        // Events about objects without a namespace are in `default`.
        Family::Event => {
            let regarding = object["regarding"]["namespace"].as_str().unwrap_or_default();
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            let fits = !regarding.is_empty() || namespace == "default";
            let cause =
                || Cause::invalid("involvedObject.namespace", &json!(regarding), "does not match event.namespace");
            if fits { Vec::new() } else { vec![cause()] }
        }
        _ => Vec::new(),
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// Makes a field of the new object that of the old one.
fn copy(new: &mut Value, old: &Value, path: &[&str]) {
    let Some((last, parents)) = path.split_last() else { return };
    let from = parents.iter().fold(old, |value, name| &value[*name]).get(*last).cloned();
    let into = parents.iter().fold(new, |value, name| &mut value[*name]);
    match from {
        Some(value) => into[*last] = value,
        None => remove(into, last),
    }
}

fn without_metadata(object: &Value) -> Value {
    let mut rest = object.clone();
    remove(&mut rest, "metadata");
    rest
}

fn count_up(new: &mut Value, old: &Value) {
    let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
    new["metadata"]["generation"] = json!(generation + 1);
}
