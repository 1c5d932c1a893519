//! The requests to the Kubernetes API as metrics name them: verb, resource, and why one failed.
//!
//! Owns these names, of which there are few, and the time of each request up to the head of its answer: a watch lives
//! on after that. Refuses to send anything, and to know the consequence of a failure.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::telemetry::metrics::Metrics;

/// The resources that Twinspan asks for, with their subresources.
const RESOURCES: [&str; 15] = [
    "endpointslices",
    "events",
    "leases",
    "namespaces",
    "nodes",
    "pods",
    "pods/status",
    "registeredservices",
    "registeredservices/status",
    "secrets",
    "selfsubjectaccessreviews",
    "servicecidrs",
    "serviceregistries",
    "serviceregistries/status",
    "services",
];
/// Every other resource, and paths that lead to none.
const OTHER: &str = "other";

/// The reason of a failure without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The deadline of an answer passed.
    Timeout,
    /// The connection failed.
    Unreachable,
}

impl Unanswered {
    const fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A request under way. One that is dropped without an answer counts as given up: whoever sent it waits no longer.
pub struct UnderWay {
    verb: &'static str,
    resource: &'static str,
    sent: Instant,
    metrics: Arc<Metrics>,
    ended: bool,
}

impl UnderWay {
    pub fn begin<B>(request: &Request<B>, metrics: Arc<Metrics>) -> Self {
        let (verb, resource) = name(request.method(), request.uri().path(), request.uri().query());
        Self { verb, resource, sent: Instant::now(), metrics, ended: false }
    }

    pub fn sent(&self) -> Instant {
        self.sent
    }

    pub fn answered(mut self, status: StatusCode) {
        self.end(reason(status, self.resource));
    }

    pub fn failed(mut self, why: Unanswered) {
        self.end(Some(why.label()));
    }

    fn end(&mut self, error: Option<&'static str>) {
        self.ended = true;
        self.metrics.calls.asked_api(self.verb, self.resource, self.sent.elapsed(), error);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Some("given_up"));
        }
    }
}

/// Verb and resource, as Kubernetes' authorization names them.
fn name(method: &Method, path: &str, query: Option<&str>) -> (&'static str, &'static str) {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let known = match parts.next() {
        Some("api") => parts.next().is_some(),
        Some("apis") => parts.next().is_some() && parts.next().is_some(),
        _ => false,
    };
    let rest: Vec<&str> = if known { parts.collect() } else { Vec::new() };
    // `namespaces/shop` is a namespace; anything longer is something in it.
    let rest = match rest.as_slice() {
        ["namespaces", _, inside @ ..] if !inside.is_empty() => inside,
        all => all,
    };
    let (resource, object, subresource) = match rest {
        [] => (String::new(), None, None),
        [resource] => ((*resource).to_owned(), None, None),
        [resource, object] => ((*resource).to_owned(), Some(*object), None),
        [resource, object, subresource, ..] => (format!("{resource}/{subresource}"), Some(*object), Some(*subresource)),
    };
    let resource = RESOURCES.into_iter().find(|known| *known == resource).unwrap_or(OTHER);
    let watches = query.is_some_and(|query| query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1"));
    let verb = match (method.as_str(), object.is_some() || subresource.is_some()) {
        ("GET", _) if watches => "watch",
        ("GET", false) if !rest.is_empty() => "list",
        ("GET", _) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => OTHER,
    };
    (verb, resource)
}

/// Why an answer is a failure; `None` if it is none.
fn reason(status: StatusCode, resource: &str) -> Option<&'static str> {
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    Some(match status.as_u16() {
        // Before Kubernetes 1.33 there are none, and it is asked again and again whether there are.
        404 if resource == "servicecidrs" => return None,
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        410 => "expired",
        422 => "invalid",
        429 => "too_many_requests",
        500.. => "server_error",
        _ => "rejected",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_verb_and_the_resource_of_authorization() {
        let slices = "/apis/discovery.k8s.io/v1";
        for (method, path, query, verb, resource) in [
            (Method::GET, "/api/v1/pods".to_owned(), Some("limit=500"), "list", "pods"),
            (Method::GET, "/api/v1/pods".to_owned(), Some("watch=true&timeoutSeconds=60"), "watch", "pods"),
            (Method::GET, "/api/v1/namespaces".to_owned(), None, "list", "namespaces"),
            (Method::GET, "/api/v1/namespaces/shop".to_owned(), None, "get", "namespaces"),
            (Method::GET, "/api/v1/namespaces/shop/secrets".to_owned(), Some("watch=1"), "watch", "secrets"),
            (Method::POST, format!("{slices}/namespaces/shop/endpointslices"), None, "create", "endpointslices"),
            (Method::PUT, format!("{slices}/namespaces/shop/endpointslices/a"), None, "update", "endpointslices"),
            (Method::DELETE, format!("{slices}/namespaces/shop/endpointslices/a"), None, "delete", "endpointslices"),
            (
                Method::DELETE,
                format!("{slices}/namespaces/shop/endpointslices"),
                None,
                "deletecollection",
                "endpointslices",
            ),
            (
                Method::PATCH,
                "/apis/twinspan.dev/v1alpha1/namespaces/shop/registeredservices/echo/status".to_owned(),
                None,
                "patch",
                "registeredservices/status",
            ),
            (Method::GET, "/version".to_owned(), None, "get", "other"),
            (Method::GET, "/api/v1/namespaces/shop/pods/a/log".to_owned(), None, "get", "other"),
        ] {
            assert_eq!(name(&method, &path, query), (verb, resource), "{method} {path}");
        }
    }

    #[test]
    fn answers_are_told_apart_by_few_reasons() {
        for (code, expected) in [
            (200, None),
            (304, None),
            (403, Some("forbidden")),
            (409, Some("conflict")),
            (418, Some("rejected")),
            (429, Some("too_many_requests")),
            (503, Some("server_error")),
        ] {
            assert_eq!(reason(StatusCode::from_u16(code).unwrap(), "pods"), expected, "{code}");
        }
        assert_eq!(reason(StatusCode::NOT_FOUND, "pods"), Some("not_found"));
        assert_eq!(reason(StatusCode::NOT_FOUND, "servicecidrs"), None, "an older API server has none");
    }
}
