//! Creations and updates of objects, by the rules that every kind shares.
//!
//! Owns preconditions, versions, names, and the metadata that the server sets
//! (`k8s.io/apiserver/pkg/registry/generic/registry/store.go` and `rest/{create,update}.go`, v0.37.2). Refuses what
//! differs by kind, which [`crate::strategy`] and [`crate::defaults`] have, and deletions ([`crate::delete`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::{self, Clock};
use crate::identity::Identities;
use crate::kinds::{Family, Kind};
use crate::merge::merge;
use crate::status::{Cause, Status};
use crate::store::{Origin, Store};
use crate::{defaults, strategy};

/// The conflict of two writers.
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// A request that writes.
#[derive(Debug)]
pub struct Writer<'a> {
    pub kinds: &'a [Kind],
    pub store: &'a mut Store,
    pub identities: &'a mut Identities,
    pub clock: &'a Clock,
    pub author: Arc<str>,
}

/// The object that a request names.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The number of its kind.
    pub kind: usize,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Whether the request is about the subresource `status`.
    pub is_status: bool,
}

/// The new state that an update asks for.
#[derive(Debug)]
pub enum Update {
    Replace(Value),
    Merge(Value),
}

/// The result of a write.
#[derive(Debug)]
pub struct Written {
    pub object: Arc<Value>,
    pub created: bool,
}

impl<'a> Writer<'a> {
    pub(crate) fn kind(&self, kind: usize) -> &'a Kind {
        &self.kinds[kind]
    }

    pub(crate) fn origin(&self, subresource: &'static str) -> Origin {
        Origin { at: self.clock.elapsed(), author: self.author.clone(), subresource }
    }

    /// Creates an object in a namespace; the namespace of a kind without them is empty.
    ///
    /// # Errors
    /// The refusal.
    pub fn create(&mut self, kind: usize, namespace: &str, mut object: Value) -> Result<Arc<Value>, Status> {
        let rules = self.kind(kind);
        check_type(rules, &mut object)?;
        check_namespace(rules, namespace, &mut object)?;
        let asked = object["metadata"]["name"].as_str().unwrap_or_default();
        self.check_may_create(rules, namespace, asked)?;
        let metadata = &mut object["metadata"];
        if metadata["name"].as_str().is_none_or(str::is_empty) {
            let Some(begin) = metadata["generateName"].as_str().filter(|begin| !begin.is_empty()) else {
                let cause = Cause::required("metadata.name", "name or generateName is required");
                return Err(Status::invalid(rules, "", &[cause]));
            };
            metadata["name"] = json!(self.identities.name(begin));
        }
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        if metadata["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        if let Some(fields) = metadata.as_object_mut() {
            for field in ["resourceVersion", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"] {
                fields.remove(field);
            }
        }
        metadata["uid"] = json!(self.identities.uid());
        metadata["creationTimestamp"] = json!(clock::seconds(self.clock.now()));
        self.complete(rules, &mut object, None);
        strategy::prepare_for_create(rules, &mut object);
        let causes = strategy::check(rules, &object);
        if !causes.is_empty() {
            return Err(Status::invalid(rules, &name, &causes));
        }
        let key = rules.key(namespace, &name);
        if let Some(found) = self.store.get(kind, &key) {
            let is_deleted = found["metadata"].get("deletionTimestamp").is_some();
            return Err(Status::already_exists(rules, &name, is_deleted));
        }
        let origin = self.origin("");
        // A status that is created is dropped, and each reading sets its default, which the store does not have.
        let stored = object.clone();
        if let Family::Custom { schema, .. } = &rules.family {
            schema.apply(&mut object);
        }
        let as_read = stored != object;
        let object = self.store.write(kind, &key, Some(object), origin).unwrap_or_default();
        if as_read {
            self.store.defaulted.insert((kind, key));
        }
        Ok(object)
    }

    /// Replaces or patches an object.
    ///
    /// # Errors
    /// The refusal.
    pub fn update(&mut self, target: Target<'_>, update: Update) -> Result<Written, Status> {
        let Target { kind, namespace, name, is_status } = target;
        let rules = self.kind(kind);
        let key = rules.key(namespace, name);
        let update = match update {
            Update::Replace(mut object) => {
                check_address(rules, target, &mut object)?;
                Update::Replace(object)
            }
            Update::Merge(patch) => Update::Merge(patch),
        };
        let found = self.store.get(kind, &key).cloned();
        let Some(old) = found else {
            return match update {
                Update::Replace(object) if rules.creates_on_update() && !is_status => {
                    self.create_by_replace(target, object)
                }
                _ => Err(Status::not_found(rules, name)),
            };
        };
        let mut new = match update {
            Update::Replace(object) => {
                let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
                check_uid(rules, target, uid, old["metadata"]["uid"].as_str().unwrap_or_default())?;
                object
            }
            Update::Merge(patch) => {
                let mut object = Value::clone(&old);
                merge(&mut object, &patch);
                check_address(rules, target, &mut object)?;
                object
            }
        };
        let version = new["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if version.is_empty() {
            if !rules.allows_unconditional_update() {
                let why = "must be specified for an update";
                let cause = Cause::invalid("metadata.resourceVersion", &json!(0), why);
                return Err(Status::invalid_resource(rules, name, &[cause]));
            }
        } else if old["metadata"]["resourceVersion"] != version {
            return Err(Status::conflict(rules, name, MODIFIED));
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        self.complete(rules, &mut new, Some(&old));
        strategy::prepare_for_update(rules, is_status, &mut new, &old);
        keep_system_fields(&mut new, &old);
        let causes: Vec<Cause> =
            strategy::check_update(rules, &new, &old).into_iter().chain(strategy::check(rules, &new)).collect();
        if !causes.is_empty() {
            return Err(Status::invalid(rules, name, &causes));
        }
        let origin = self.origin(if is_status { "status" } else { "" });
        if is_finalized(&new, &old) {
            self.store.write(kind, &key, None, origin);
            return Ok(Written { object: Arc::new(new), created: false });
        }
        // etcd is not asked to write what it has (`storage/etcd3/store.go`).
        let is_there = new == *old && !self.store.defaulted.contains(&(kind, key.clone()));
        let object = if is_there { old } else { self.store.write(kind, &key, Some(new), origin).unwrap_or_default() };
        Ok(Written { object, created: false })
    }

    fn create_by_replace(&mut self, target: Target<'_>, mut object: Value) -> Result<Written, Status> {
        let rules = self.kind(target.kind);
        check_uid(rules, target, object["metadata"]["uid"].as_str().unwrap_or_default(), "")?;
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let object = self.create(target.kind, target.namespace, object)?;
        Ok(Written { object, created: true })
    }

    /// A namespace has to exist, and to take objects (the admission plug-in NamespaceLifecycle).
    fn check_may_create(&self, rules: &Kind, namespace: &str, name: &str) -> Result<(), Status> {
        if !rules.namespaced {
            return Ok(());
        }
        let namespaces = self.kinds.iter().position(|kind| matches!(kind.family, Family::Namespace));
        let Some(number) = namespaces else { return Ok(()) };
        match self.store.get(number, namespace) {
            None => Err(Status::not_found(self.kind(number), namespace)),
            Some(found) if found["status"]["phase"] == "Terminating" => {
                Err(Status::namespace_terminates(rules, name, namespace))
            }
            Some(_) => Ok(()),
        }
    }

    /// Sets the defaults and drops what is not kept.
    fn complete(&mut self, rules: &Kind, object: &mut Value, before: Option<&Value>) {
        defaults::tidy(object);
        if let Family::Custom { schema, .. } = &rules.family {
            schema.apply(object);
        }
        let services = self.kinds.iter().position(|kind| matches!(kind.family, Family::Service));
        let store = &*self.store;
        let taken = || -> BTreeSet<String> {
            let all = services.into_iter().flat_map(|kind| store.all(kind));
            let addresses = all.flat_map(|(_, service)| service["spec"]["clusterIPs"].as_array().into_iter().flatten());
            addresses.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        defaults::fill(rules, object, before, self.identities, &taken);
    }
}

fn check_type(rules: &Kind, object: &mut Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the object provided is unrecognized (must be of type object)"));
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let api_version = rules.api_version();
    for (field, wanted) in [("apiVersion", &api_version), ("kind", &rules.kind)] {
        match object[field].as_str().unwrap_or_default() {
            "" => object[field] = json!(wanted),
            found if found == wanted => {}
            found => return Err(other_type(rules, field, found, wanted, object)),
        }
    }
    Ok(())
}

fn check_namespace(rules: &Kind, namespace: &str, object: &mut Value) -> Result<(), Status> {
    let Some(metadata) = object["metadata"].as_object_mut() else { return Ok(()) };
    // A namespace that the kind does not have is passed over.
    let named = metadata.remove("namespace").filter(|_| rules.namespaced);
    if named.as_ref().and_then(Value::as_str).is_some_and(|named| !named.is_empty() && named != namespace) {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message));
    }
    if rules.namespaced {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    Ok(())
}

/// Checks that the object is the one in the URL.
fn check_address(rules: &Kind, target: Target<'_>, object: &mut Value) -> Result<(), Status> {
    check_type(rules, object)?;
    check_namespace(rules, target.namespace, object)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    Ok(())
}

/// The refusal of an object of another type, which custom resources word in a way of their own.
fn other_type(rules: &Kind, field: &str, found: &str, wanted: &str, object: &Value) -> Status {
    if matches!(rules.family, Family::Custom { .. }) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let cause = Cause::invalid(field, &json!(found), &format!("must be {wanted}"));
        let kind = object["kind"].as_str().unwrap_or_default();
        return Status::other_kind(&rules.group, kind, name, cause);
    }
    Status::bad_request(if field == "kind" {
        format!(
            "{found} in version \"{}\" cannot be handled as a {wanted}: no kind \"{found}\" is registered for version \
             \"{}\" in scheme \"pkg/runtime/scheme.go:110\"",
            rules.version,
            rules.api_version()
        )
    } else {
        format!("the API version in the data ({found}) does not match the expected API version ({wanted})")
    })
}

/// The UID in an object that replaces another is a precondition (`rest.defaultUpdatedObjectInfo`).
fn check_uid(rules: &Kind, target: Target<'_>, wanted: &str, found: &str) -> Result<(), Status> {
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    let place = match rules.family {
        Family::Custom { .. } => format!("{}/{}", rules.group, rules.plural),
        Family::Service => "services/specs".to_owned(),
        Family::Node => "minions".to_owned(),
        _ => rules.plural.clone(),
    };
    let key = format!("/registry/{place}/{}", rules.key(target.namespace, target.name));
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
         UID in precondition: {wanted}, UID in object meta: {found}"
    );
    Err(Status::conflict(rules, target.name, &why))
}

/// Metadata that no update changes (`rest.BeforeUpdate`).
fn keep_system_fields(new: &mut Value, old: &Value) {
    let (new, old) = (&mut new["metadata"], &old["metadata"]);
    if new["uid"].as_str().is_none_or(str::is_empty) {
        new["uid"] = old["uid"].clone();
    }
    new["creationTimestamp"] = old["creationTimestamp"].clone();
    let Some(fields) = new.as_object_mut() else { return };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        match old.get(field) {
            Some(value) => drop(fields.insert(field.to_owned(), value.clone())),
            None => drop(fields.remove(field)),
        }
    }
}

/// Whether the update takes the last finalizer from an object that is being deleted.
fn is_finalized(new: &Value, old: &Value) -> bool {
    let has_finalizers =
        |object: &Value| object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    let grace = new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    new["metadata"].get("deletionTimestamp").is_some() && grace == 0 && has_finalizers(old) && !has_finalizers(new)
}
