//! An API server as a tower service: requests in, answers out.
//!
//! Owns what HTTP adds: methods, codes, headers, and the faults of the server as its clients meet them. A request takes
//! effect while its future is polled, and no sooner. Refuses the rules of each request.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::Value;
use tower::{BoxError, Service};

use crate::cluster::Cluster;
use crate::faults::{Failure, Verb};
use crate::path::{Path, Query};
use crate::status::Status;
use crate::write::{Target, Update};

/// The header that names the author of a change.
pub const AUTHOR: &str = "sim-author";

/// The body of an answer; that of a watch ends when the watch does.
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// An API server; clones are the same one.
#[derive(Clone, Debug)]
pub struct Server {
    cluster: Cluster,
    index: usize,
}

/// The answer of a server.
enum Answer {
    Object(u16, Arc<Value>),
    Watch(AnswerBody),
}

/// A request as the rules need it.
struct Asked {
    path: Path,
    query: Query,
    verb: Verb,
    author: String,
    is_merge_patch: bool,
    body: Value,
}

impl Server {
    pub(crate) fn new(cluster: Cluster, index: usize) -> Self {
        Self { cluster, index }
    }

    async fn handle(self, request: Request<Body>) -> Result<Response<AnswerBody>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        self.reachable().await?;
        let answer = match Asked::read(&parts, &body) {
            Ok(asked) => self.answer(asked).await,
            Err(status) => Err(status),
        };
        // A server that was frozen or killed meanwhile does not answer, though the request took effect.
        self.reachable().await?;
        self.response(answer)
    }

    /// Waits while the server is frozen.
    async fn reachable(&self) -> Result<(), BoxError> {
        loop {
            let changed = self.cluster.any_change();
            let told = changed.notified();
            {
                let state = self.cluster.state();
                match state.servers.get(self.index) {
                    Some(faults) if faults.down => return Err("connection refused".into()),
                    Some(faults) if faults.frozen => {}
                    Some(_) => return Ok(()),
                    None => return Err("no such server".into()),
                }
            }
            told.await;
        }
    }

    async fn answer(&self, asked: Asked) -> Result<Answer, Status> {
        let is_asked = |kind: &crate::kinds::Kind| {
            kind.plural == asked.path.resource && kind.group == asked.path.group && kind.version == asked.path.version
        };
        let found = self.cluster.shared().kinds.iter().position(is_asked);
        let kind = found.ok_or_else(Status::no_such_resource)?;
        let rules = &self.cluster.shared().kinds[kind];
        let is_status = match asked.path.subresource.as_str() {
            "" => false,
            "status" if rules.has_status() => true,
            _ => return Err(Status::no_such_resource()),
        };
        let failure = {
            let mut state = self.cluster.state();
            let faults = &mut state.servers[self.index];
            if matches!(asked.verb, Verb::List | Verb::Watch) && faults.refused.contains(&rules.plural) {
                let verb = if asked.verb == Verb::List { "list" } else { "watch" };
                let why = format!(
                    "User \"system:serviceaccount\" cannot {verb} resource \"{}\" in API group \"{}\" at the cluster scope",
                    rules.plural, rules.group
                );
                return Err(Status::forbidden(rules, "", &why));
            }
            faults.failure(asked.verb, &rules.plural)
        };
        match failure {
            Some(Failure { after_applying: false, status, .. }) => Err(status),
            Some(Failure { status, .. }) => {
                // The answer is lost, whatever it says.
                let _ = self.act(kind, is_status, asked).await;
                Err(status)
            }
            None => self.act(kind, is_status, asked).await,
        }
    }

    async fn act(&self, kind: usize, is_status: bool, asked: Asked) -> Result<Answer, Status> {
        let Asked { path, query, verb, author, is_merge_patch, body } = asked;
        let target = Target { kind, namespace: &path.namespace, name: &path.name, is_status };
        let cluster = &self.cluster;
        let update = |update| {
            let written = cluster.write(&author, |writer| writer.update(target, update))?;
            Ok(Answer::Object(if written.created { 201 } else { 200 }, written.object))
        };
        match verb {
            Verb::Get => Ok(Answer::Object(200, cluster.get_by_http(self.index, kind, &path, &query).await?)),
            Verb::List => {
                Ok(Answer::Object(200, Arc::new(cluster.list_by_http(self.index, kind, &path, &query).await?)))
            }
            Verb::Watch => {
                let events = cluster.watch_by_http(self.index, kind, &path, &query).await?;
                let frames = events.map(|event| event.map(Frame::data));
                Ok(Answer::Watch(StreamBody::new(frames).boxed_unsync()))
            }
            Verb::Create => {
                let object = cluster.write(&author, |writer| writer.create(kind, &path.namespace, body))?;
                Ok(Answer::Object(201, object))
            }
            Verb::Update => update(Update::Replace(body)),
            Verb::Patch if is_merge_patch => update(Update::Merge(body)),
            Verb::Patch => Err(Status::unsupported_media_type()),
            Verb::Delete => {
                let object = cluster.write(&author, |writer| writer.delete(target, &body))?;
                Ok(Answer::Object(200, Arc::new(object)))
            }
        }
    }

    fn response(&self, answer: Result<Answer, Status>) -> Result<Response<AnswerBody>, BoxError> {
        let response = Response::builder()
            .header(DATE, self.cluster.shared().clock.date())
            .header(CONTENT_TYPE, "application/json");
        let whole =
            |object: &Value| Full::new(Bytes::from(object.to_string())).map_err(|never| match never {}).boxed_unsync();
        Ok(match answer {
            Ok(Answer::Object(code, object)) => response.status(code).body(whole(&object))?,
            Ok(Answer::Watch(events)) => response.status(200).body(events)?,
            Err(status) => {
                let response = match status.retry_after() {
                    Some(seconds) => response.header(RETRY_AFTER, seconds),
                    None => response,
                };
                response.status(status.code).body(whole(&status.to_json()))?
            }
        })
    }
}

impl Asked {
    fn read(parts: &Parts, body: &Bytes) -> Result<Self, Status> {
        let path = Path::parse(parts.uri.path()).ok_or_else(Status::no_such_resource)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let watches = query.flag("watch") == Some(true);
        let verb = match (&parts.method, path.name.is_empty()) {
            (&Method::GET, true) if watches => Verb::Watch,
            (&Method::GET, true) => Verb::List,
            (&Method::GET, false) => Verb::Get,
            (&Method::POST, true) => Verb::Create,
            (&Method::PUT, false) => Verb::Update,
            (&Method::PATCH, false) => Verb::Patch,
            (&Method::DELETE, false) => Verb::Delete,
            _ => return Err(Status::method_not_allowed()),
        };
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let author = text(AUTHOR).unwrap_or("unknown").to_owned();
        let is_merge_patch =
            text(CONTENT_TYPE.as_str()).is_some_and(|of| of.starts_with("application/merge-patch+json"));
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(body)
                .map_err(|error| Status::bad_request(format!("the object provided is unrecognized: {error}")))?
        };
        Ok(Self { path, query, verb, author, is_merge_patch, body })
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().handle(request))
    }
}
