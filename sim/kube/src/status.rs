//! The refusals of an API server: `Status` objects, worded as kube-apiserver words them.
//!
//! Owns code, reason, message and details of each (`k8s.io/apimachinery/pkg/api/errors`, v0.37.2). Refuses to know when
//! a request is refused.

use std::fmt;

use serde_json::{Value, json};

use crate::kinds::{Family, Kind};

/// A request that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The HTTP code.
    pub code: u16,
    /// Empty for an error of the storage that nobody interprets.
    pub reason: String,
    pub message: String,
    /// `details` of the object; `Null` if there are none. `retryAfterSeconds` in it becomes the header `Retry-After`.
    pub details: Value,
    /// `metadata.continue`: the token with which an expired list may go on.
    pub continue_token: Option<String>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for Status {}

/// A reason why an object is invalid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    pub field: String,
    pub reason: &'static str,
    pub message: String,
}

impl Cause {
    pub fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self { field: field.to_owned(), reason: "FieldValueInvalid", message: format!("Invalid value: {value}: {why}") }
    }

    pub fn required(field: &str, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { field: field.to_owned(), reason: "FieldValueRequired", message }
    }

    pub fn forbidden(field: &str, why: &str) -> Self {
        Self { field: field.to_owned(), reason: "FieldValueForbidden", message: format!("Forbidden: {why}") }
    }
}

impl Status {
    /// A refusal without details.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.to_owned(), message: message.into(), details: Value::Null, continue_token: None }
    }

    fn about(mut self, name: &str, group: &str, kind: &str) -> Self {
        let mut details = json!({});
        for (field, text) in [("name", name), ("group", group), ("kind", kind)] {
            if !text.is_empty() {
                details[field] = json!(text);
            }
        }
        self.details = details;
        self
    }

    /// The same with the wait that the server asks for.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        if !self.details.is_object() {
            self.details = json!({});
        }
        self.details["retryAfterSeconds"] = json!(seconds);
        self
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())).about(
            name,
            &kind.group,
            &kind.plural,
        )
    }

    /// No such path.
    pub fn no_such_resource() -> Self {
        let mut status = Self::new(404, "NotFound", "the server could not find the requested resource");
        status.details = json!({});
        status
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str, is_being_deleted: bool) -> Self {
        let begin = if is_being_deleted { "object is being deleted: " } else { "" };
        let message = format!("{begin}{} \"{name}\" already exists", kind.qualified());
        Self::new(409, "AlreadyExists", message).about(name, &kind.group, &kind.plural)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::new(409, "Conflict", message).about(name, &kind.group, &kind.plural)
    }

    /// The conflict of a delete, which names the kind where others name the resource (`rest.BeforeDelete`).
    pub(crate) fn conflict_of_kind(kind: &Kind, name: &str, why: &str) -> Self {
        // Events are those of `v1`.
        let is_event = matches!(kind.family, Family::Event);
        let (what, group) =
            if is_event { ("Event".to_owned(), "") } else { (kind.qualified_kind(), kind.group.as_str()) };
        let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(name, group, &kind.kind)
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        if matches!(kind.family, Family::Event) {
            // Checked as an Event of `v1`.
            return Self::invalid_as("Event", "", "Event", name, causes);
        }
        Self::invalid_as(&kind.qualified_kind(), &kind.group, &kind.kind, name, causes)
    }

    /// An object of another kind, for a custom resource.
    pub(crate) fn other_kind(group: &str, kind: &str, name: &str, cause: Cause) -> Self {
        Self::invalid_as(&format!("{kind}.{group}"), group, kind, name, &[cause])
    }

    /// The same, which names the resource (`Store.Update`).
    pub(crate) fn invalid_resource(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_as(&kind.qualified(), &kind.group, &kind.plural, name, causes)
    }

    /// A request whose parameters are invalid.
    pub(crate) fn invalid_list_options(causes: &[Cause]) -> Self {
        Self::invalid_as("ListOptions.meta.k8s.io", "meta.k8s.io", "ListOptions", "", causes)
    }

    fn invalid_as(what: &str, group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let mut all: Vec<String> = Vec::new();
        for error in causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)) {
            if !all.contains(&error) {
                all.push(error);
            }
        }
        let errors = match all.as_slice() {
            [one] => one.clone(),
            more => format!("[{}]", more.join(", ")),
        };
        let mut status =
            Self::new(422, "Invalid", format!("{what} \"{name}\" is invalid: {errors}")).about(name, group, kind);
        let list: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        status.details["causes"] = json!(list);
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// RBAC refuses.
    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        Self::new(403, "Forbidden", format!("{}{subject} is forbidden: {why}", kind.qualified())).about(
            name,
            &kind.group,
            &kind.plural,
        )
    }

    /// A namespace that terminates takes no new objects.
    pub(crate) fn namespace_terminates(kind: &Kind, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut status = Self::forbidden(kind, name, &why);
        status.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        status
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The cache has not seen the version within its wait (`storage.NewTooLargeResourceVersionError`).
    pub fn too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let mut status = Self::new(504, "Timeout", message);
        status.details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        status
    }

    /// Priority and fairness, or a limit of requests in flight.
    pub fn too_many_requests(retry_after_seconds: u32) -> Self {
        let message = "the server has received too many requests and has asked us to try again later";
        Self::new(429, "TooManyRequests", message).with_retry_after(retry_after_seconds)
    }

    pub fn internal(message: &str) -> Self {
        let mut status = Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        status.details = json!({"causes": [{"message": message}]});
        status
    }

    pub fn unavailable() -> Self {
        let message = "the server is currently unable to handle the request";
        Self::new(503, "ServiceUnavailable", message).with_retry_after(1)
    }

    /// The request took longer than `--request-timeout`.
    pub fn timeout() -> Self {
        Self::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut status = Self::new(405, "MethodNotAllowed", message);
        status.details = json!({});
        status
    }

    pub fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/merge-patch+json";
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// Seconds of the header `Retry-After`.
    pub fn retry_after(&self) -> Option<u64> {
        self.details["retryAfterSeconds"].as_u64()
    }

    /// The object in the answer.
    pub fn to_json(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}
