//! An object as the API server stores it, whether or not this version can read all of it.
//!
//! A newer version, or a newer CRD, may have stored a value that this one does not know. Owns the reading of such an
//! object field by field, so that one of them refuses no list, and the names of the fields that cannot be read. Refuses
//! to decide what follows: an object that is there and unreadable is neither gone nor in order.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::{RegisteredService, ServiceRegistry};

/// An object as the operator keeps it, and what cannot be read of it.
#[derive(Clone, Debug)]
pub struct Stored<K> {
    /// The object; where it is unreadable, a stand-in with the fields that can be read and the defaults of the others.
    pub object: K,
    /// Absent if everything can be read.
    pub unreadable: Option<Arc<Unreadable>>,
}

/// An object that this version cannot read.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The fields of its spec that cannot be read: `direction`, `service.create`.
    pub fields: BTreeSet<String>,
    /// The reason for each, for people.
    pub problems: Vec<String>,
    /// The whole object.
    pub raw: Value,
}

impl Unreadable {
    /// Whether these fields of the spec, with all that they have, are as they were stored.
    pub fn has_read(&self, fields: &[&str]) -> bool {
        let within = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let whole = |field: &str| self.fields.iter().all(|unread| !within(unread, field) && !within(field, unread));
        // A spec that is no object has no field that could be read.
        self.raw["spec"].is_object() && fields.iter().all(|field| whole(field))
    }

    /// The sentence for the status.
    pub fn message(&self) -> String {
        let problems = self.problems.join("; ");
        format!(
            "this version of Twinspan cannot read it ({problems}); nothing is added for it, and only what ended goes. Run the \
             version that knows it, or correct it"
        )
    }
}

/// A kind that can be read in part.
pub trait PartlyReadable: Resource<DynamicType = ()> + DeserializeOwned {
    /// A spec with the fields that every object has, all empty.
    fn smallest_spec() -> Value;

    /// Drops the parts of a status that are for people alone.
    fn forget_details(&mut self) {}

    /// Makes a stand-in careful: what cannot be read may forbid something.
    fn be_careful(&mut self, _unreadable: &Unreadable) {}
}

impl PartlyReadable for RegisteredService {
    fn smallest_spec() -> Value {
        json!({"registryRef": {"name": ""}})
    }

    fn forget_details(&mut self) {
        if let Some(status) = &mut self.status {
            status.differences.forget_entries();
        }
    }

    fn be_careful(&mut self, unreadable: &Unreadable) {
        // One that cannot be read may forbid to write.
        self.spec.suspend |= !unreadable.has_read(&["suspend", "policy"]);
    }
}

impl RegisteredService {
    /// The fields of the spec that name its registry and its Service: with their defaults the object would mean another
    /// place.
    pub const NAMES: &[&str] = &["registryRef", "registryName", "service.name"];
}

impl PartlyReadable for ServiceRegistry {
    fn smallest_spec() -> Value {
        json!({"etcd": {"endpoints": []}, "format": "Kitex", "allowed": []})
    }
}

impl ServiceRegistry {
    /// The fields of the spec that make a session; without one of them there can be none.
    pub const CONNECTION_FIELDS: &[&str] = &["etcd", "format", "prefix", "leadingSlash", "clusterID", "lease", "fence"];
}

impl<'de, K: PartlyReadable> Deserialize<'de> for Stored<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        let mut stored = match K::deserialize(&raw) {
            Ok(object) => Self { object, unreadable: None },
            Err(error) => in_part(raw, &error).map_err(D::Error::custom)?,
        };
        stored.object.forget_details();
        Ok(stored)
    }
}

/// Reads what can be read. Without metadata it is no object.
fn in_part<K: PartlyReadable>(raw: Value, error: &serde_json::Error) -> Result<Stored<K>, serde_json::Error> {
    let mut readable = json!({"metadata": raw["metadata"], "spec": K::smallest_spec()});
    for field in ["apiVersion", "kind"] {
        readable[field] = raw[field].clone();
    }
    let mut pruned = Pruned::default();
    pruned.prune::<K>(&mut readable, &["spec"], &raw["spec"]);
    for required in K::smallest_spec().as_object().into_iter().flat_map(Map::keys) {
        if raw["spec"].get(required).is_none() {
            pruned.unread(&["spec", required], "it is missing");
        }
    }
    // A status is ours, and the next one replaces it: what cannot be read of it is no reason to refuse the object.
    readable["status"] = json!({});
    Pruned::default().prune::<K>(&mut readable, &["status"], &raw["status"]);
    let mut object = K::deserialize(&readable)?;
    if pruned.problems.is_empty() && raw["spec"].is_object() {
        return Ok(Stored { object, unreadable: None });
    }
    if pruned.problems.is_empty() {
        pruned.unread(&["spec"], &error.to_string());
    }
    let unreadable = Unreadable { fields: pruned.fields, problems: pruned.problems, raw };
    object.be_careful(&unreadable);
    Ok(Stored { object, unreadable: Some(Arc::new(unreadable)) })
}

/// The fields that were left out.
#[derive(Default)]
struct Pruned {
    fields: BTreeSet<String>,
    problems: Vec<String>,
}

impl Pruned {
    /// Enters each field of `from` at the path into an object that can be read, as long as it can be read then. A
    /// field that cannot is tried field by field; a list is taken or left as a whole.
    fn prune<K: PartlyReadable>(&mut self, readable: &mut Value, path: &[&str], from: &Value) {
        for (name, value) in from.as_object().into_iter().flatten() {
            let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            let before = readable.clone();
            *at(readable, &path) = value.clone();
            let Err(error) = K::deserialize(&*readable) else { continue };
            *at(readable, &path) = json!({});
            if value.is_object() && K::deserialize(&*readable).is_ok() {
                self.prune::<K>(readable, &path, value);
            } else {
                *readable = before;
                self.unread(&path, &error.to_string());
            }
        }
    }

    fn unread(&mut self, path: &[&str], why: &str) {
        self.fields.extend(path.split_first().map(|(_, field)| field.join(".")).filter(|field| !field.is_empty()));
        self.problems.push(format!("{}: {why}", path.join(".")));
    }
}

fn at<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(object, |value, name| &mut value[*name])
}

impl<K: PartlyReadable> Resource for Stored<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Direction, RecordFormat};
    use twinspan_core::codec::Format;

    fn service(spec: &Value, status: &Value) -> Stored<RegisteredService> {
        let object = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "echo", "namespace": "shop", "uid": "u"}, "spec": spec, "status": status});
        serde_json::from_str(&object.to_string()).unwrap()
    }

    #[test]
    fn what_can_be_read_is_read_and_the_rest_is_named() {
        let spec = json!({"registryRef": {"name": "main"}, "registryName": "echo", "direction": "Sideways",
            "service": {"name": "svc", "create": "Somehow"}, "export": {"weight": 3}});
        let Stored { object, unreadable } = service(&spec, &json!({"observedGeneration": 7}));
        let unreadable = unreadable.unwrap();
        assert_eq!(unreadable.fields, ["direction", "service.create"].map(str::to_owned).into());
        assert!(unreadable.problems[0].starts_with("spec.direction: unknown variant `Sideways`"), "{unreadable:?}");
        assert!(unreadable.problems[1].starts_with("spec.service.create: "), "{unreadable:?}");
        assert!(unreadable.has_read(&["registryRef", "registryName"]) && !unreadable.has_read(&["service"]));
        assert!(unreadable.has_read(RegisteredService::NAMES) && unreadable.has_read(&["service.name"]));
        assert_eq!(unreadable.raw["spec"], spec);
        assert_eq!((object.spec.registry_ref.name.as_str(), object.registry_name().as_str()), ("main", "echo"));
        assert_eq!((object.service_key().name.as_str(), object.spec.direction), ("svc", Direction::Both));
        assert_eq!(object.spec.export.weight, 3);
        assert_eq!(object.status.unwrap().observed_generation, Some(7));
    }

    #[test]
    fn a_whole_object_is_no_stand_in_and_a_status_alone_is_no_reason_to_refuse_it() {
        let spec = json!({"registryRef": {"name": "main"}});
        assert!(service(&spec, &Value::Null).unreadable.is_none());
        let stored = service(&spec, &json!({"observedGeneration": "x", "differences": []}));
        assert!(stored.unreadable.is_none());
        assert_eq!(stored.object.status.unwrap().observed_generation, None);
    }

    #[test]
    fn what_is_for_people_alone_is_not_kept() {
        let one =
            json!({"instance": "10.0.0.1:80", "side": "Registry", "reason": "Lost", "since": "2026-01-01T00:00:00Z"});
        let status = json!({"differences": [one], "instances": {"lost": 1}});
        for spec in [json!({"registryRef": {"name": "main"}}), json!({"registryRef": "main"})] {
            let kept = service(&spec, &status).object.status.unwrap();
            assert_eq!((kept.differences.len(), kept.differences.reasons().len(), kept.instances.lost), (0, 1, 1));
        }
    }

    #[test]
    fn an_object_without_its_references_is_there_all_the_same() {
        let Stored { object, unreadable } = service(&json!({"registryRef": "main"}), &Value::Null);
        assert!(!unreadable.unwrap().has_read(&["registryRef"]));
        assert_eq!((object.spec.registry_ref.name.as_str(), object.metadata.uid.as_deref()), ("", Some("u")));
        assert!(service(&json!({}), &Value::Null).unreadable.is_some());
        assert!(service(&json!("text"), &Value::Null).unreadable.is_some());
        let nothing: Result<Stored<RegisteredService>, _> = serde_json::from_str("{\"metadata\": 1}");
        nothing.unwrap_err();
    }

    #[test]
    fn names_that_cannot_be_read_are_told_from_other_fields() {
        for spec in [
            json!({}),
            json!("text"),
            json!({"registryRef": "main"}),
            json!({"registryRef": {"name": ["main"]}}),
            json!({"registryRef": {"name": "main"}, "registryName": {"text": "pay"}}),
            json!({"registryRef": {"name": "main"}, "service": {"name": 7}}),
        ] {
            let unreadable = service(&spec, &Value::Null).unreadable.unwrap();
            assert!(!unreadable.has_read(RegisteredService::NAMES), "{spec}");
        }
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
            assert_eq!(service(&whole, &Value::Null).object.spec.suspend, suspended, "{spec}");
        }
    }

    #[test]
    fn a_registry_keeps_its_connection_where_something_else_is_new() {
        let registry = |field: &str, value: Value| -> Stored<ServiceRegistry> {
            let mut spec =
                json!({"etcd": {"endpoints": ["http://a:2379"]}, "format": "Kratos", "prefix": "p", "allowed": []});
            spec[field] = value;
            serde_json::from_value(json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry",
                "metadata": {"name": "main"}, "spec": spec}))
            .unwrap()
        };
        let Stored { object, unreadable } = registry("importPolicy", json!({"allowCIDRs": "all"}));
        assert!(unreadable.unwrap().has_read(ServiceRegistry::CONNECTION_FIELDS));
        assert_eq!((object.spec.format, object.spec.prefix.as_deref()), (RecordFormat(Format::Kratos), Some("p")));
        for (field, value) in [("format", json!("Nacos")), ("fence", json!({"mode": "New"})), ("etcd", json!({}))] {
            let unreadable = registry(field, value).unreadable.unwrap();
            assert!(!unreadable.has_read(ServiceRegistry::CONNECTION_FIELDS), "{field}");
        }
    }
}
