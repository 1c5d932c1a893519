//! Deletions: at once, after a grace period, or once the finalizers are gone.
//!
//! Owns the preconditions of a delete, `deletionTimestamp`, and the two stages of a namespace
//! (`k8s.io/apiserver/pkg/registry/rest/delete.go`, v0.37.2; `pkg/registry/core/{pod,namespace}`, v1.37.2). Refuses to
//! delete dependents, which the garbage collector and the namespace controller do.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::clock;
use crate::kinds::Family;
use crate::status::Status;
use crate::write::{Target, Writer};

/// The effect of a graceful deletion.
enum Grace {
    /// The deletion is under way, and the request changes nothing.
    Pending,
    /// The object stays for so many seconds.
    Seconds(i64),
    /// The kind, or the state of the object, knows none.
    None,
}

impl Writer<'_> {
    /// Deletes an object by `DeleteOptions`. Returns the body of the answer.
    ///
    /// # Errors
    /// The refusal.
    pub fn delete(&mut self, target: Target<'_>, options: &Value) -> Result<Value, Status> {
        let Target { kind, namespace, name, .. } = target;
        let rules = self.kind(kind);
        let key = rules.key(namespace, name);
        let Some(old) = self.store.get(kind, &key).cloned() else { return Err(Status::not_found(rules, name)) };
        self.check_preconditions(target, &old, &options["preconditions"])?;
        if matches!(rules.family, Family::Namespace) {
            return Ok(self.delete_namespace(target, &old));
        }
        let mut object = Value::clone(&old);
        let grace = match rules.family {
            Family::Pod => self.grace(&mut object, options["gracePeriodSeconds"].as_i64()),
            _ => Grace::None,
        };
        let has_finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        match grace {
            Grace::Pending => return Ok(object),
            Grace::None if has_finalizers => self.mark_as_deleting(&mut object),
            Grace::None => return Ok(self.remove(target, &key)),
            Grace::Seconds(_) => {}
        }
        let origin = self.origin("");
        let stored =
            if object == *old { old } else { self.store.write(kind, &key, Some(object), origin).unwrap_or_default() };
        match grace {
            Grace::Seconds(0) if !has_finalizers => Ok(self.remove(target, &key)),
            _ => Ok(Value::clone(&stored)),
        }
    }

    /// Removes a namespace that nothing is left in.
    pub fn finalize_namespace(&mut self, kind: usize, name: &str) {
        if self.store.get(kind, name).is_some() {
            let origin = self.origin("");
            self.store.write(kind, name, None, origin);
        }
    }

    fn check_preconditions(&self, target: Target<'_>, old: &Value, wanted: &Value) -> Result<(), Status> {
        let rules = self.kind(target.kind);
        for (field, title, hint) in [
            ("uid", "UID", "The object might have been deleted and then recreated"),
            ("resourceVersion", "ResourceVersion", "The object might have been modified"),
        ] {
            let (Some(wanted), found) = (wanted[field].as_str(), old["metadata"][field].as_str().unwrap_or_default())
            else {
                continue;
            };
            if wanted == found {
                continue;
            }
            if matches!(rules.family, Family::Namespace) {
                let why =
                    format!("Precondition failed: {title} in precondition: {wanted}, {title} in object meta: {found}");
                return Err(Status::conflict(rules, target.name, &why));
            }
            let why = format!(
                "the {title} in the precondition ({wanted}) does not match the {title} in record ({found}). {hint}"
            );
            return Err(Status::conflict_of_kind(rules, target.name, &why));
        }
        Ok(())
    }

    /// Deletes for good.
    fn remove(&mut self, target: Target<'_>, key: &str) -> Value {
        let rules = self.kind(target.kind);
        let Some(last) = self.store.get(target.kind, key).cloned() else { return Value::Null };
        let origin = self.origin("");
        self.store.write(target.kind, key, None, origin);
        if rules.returns_deleted() {
            let mut object = Value::clone(&last);
            object["metadata"]["resourceVersion"] = json!(self.store.revision().to_string());
            return object;
        }
        let mut details = json!({"name": target.name, "kind": rules.plural, "uid": last["metadata"]["uid"]});
        if !rules.group.is_empty() {
            details["group"] = json!(rules.group);
        }
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    }

    /// The first stage: its content goes before it does.
    fn delete_namespace(&mut self, target: Target<'_>, old: &Arc<Value>) -> Value {
        if old["metadata"].get("deletionTimestamp").is_some() {
            return Value::clone(old);
        }
        let mut object = Value::clone(old);
        object["metadata"]["deletionTimestamp"] = json!(clock::seconds(self.clock.now()));
        object["status"]["phase"] = json!("Terminating");
        let origin = self.origin("");
        let written = self.store.write(target.kind, target.name, Some(object), origin);
        written.map(|object| Value::clone(&object)).unwrap_or_default()
    }

    fn mark_as_deleting(&self, object: &mut Value) {
        let metadata = &mut object["metadata"];
        if metadata.get("deletionTimestamp").is_none() {
            count_up(metadata);
            metadata["deletionTimestamp"] = json!(clock::seconds(self.clock.now()));
        }
        metadata["deletionGracePeriodSeconds"] = json!(0);
    }

    /// The grace of a pod: none before it has a node or after it ended, and a later request may only shorten it.
    fn grace(&self, object: &mut Value, asked: Option<i64>) -> Grace {
        let asked = asked.map(|seconds| if seconds < 0 { 1 } else { seconds });
        let known = object["metadata"].get("deletionTimestamp").is_some();
        let before = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
        let ended = ["Failed", "Succeeded"].iter().any(|phase| object["status"]["phase"] == *phase);
        let mut until = None;
        let period = match asked {
            _ if known && before == 0 => return Grace::None,
            Some(seconds) if known && seconds < before => {
                let (end, seconds) = self.shortened(&object["metadata"], before, seconds);
                until = Some(end);
                seconds
            }
            _ if known => return Grace::Pending,
            _ if ended || object["spec"]["nodeName"].as_str().is_none_or(str::is_empty) => 0,
            Some(seconds) => seconds,
            None => object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or_default(),
        };
        let metadata = &mut object["metadata"];
        if !known {
            count_up(metadata);
        }
        let wait = Duration::from_secs(u64::try_from(period).unwrap_or_default());
        metadata["deletionTimestamp"] = json!(clock::seconds(until.unwrap_or_else(|| self.clock.after(wait))));
        metadata["deletionGracePeriodSeconds"] = json!(period);
        Grace::Seconds(period)
    }

    /// The end of a shorter grace, which began when the longer one did but never ends in the past.
    fn shortened(&self, metadata: &Value, before: i64, seconds: i64) -> (Timestamp, i64) {
        let now = self.clock.now();
        let known = metadata["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        let end = known.and_then(|known| known.checked_add(SignedDuration::from_secs(seconds - before)).ok());
        match end.filter(|end| *end >= now) {
            Some(end) => (end, seconds),
            // A second is left, so that the kubelet has the last word.
            None => (now, seconds.min(1)),
        }
    }
}

fn count_up(metadata: &mut Value) {
    if let Some(generation) = metadata["generation"].as_i64() {
        metadata["generation"] = json!(generation + 1);
    }
}
