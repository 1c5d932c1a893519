//! A Kubernetes API in memory, for unit tests: it keeps objects, records the writes, and refuses on demand.
//!
//! Owns what a write answers: `resourceVersion`s, conflicts, merge patches and objects that are missing. Refuses to
//! know any kind, to list more than one object, and to watch: a test fills the view by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use kube::Client;
use serde_json::{Value, json};

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub method: Method,
    pub path: String,
    /// The name of the only object that is listed.
    pub named: Option<String>,
    pub body: Value,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Value>,
    received: Vec<Received>,
    /// Requests whose path contains the text are refused with the code.
    refused: BTreeMap<String, StatusCode>,
    /// Requests whose body contains the text are refused with the code and these words.
    refused_bodies: Vec<(String, StatusCode, String)>,
    /// Requests whose path ends so are never answered.
    stalled: BTreeSet<String>,
    /// As many requests whose path ends so are never answered.
    stalled_times: BTreeMap<String, usize>,
    /// The time from a request's effect to its answer.
    latency: Duration,
    /// Fields that the server does not keep, as paths.
    dropped: BTreeSet<String>,
    version: u64,
    /// Requests that are not answered yet, and the most that there were.
    under_way: usize,
    most_at_once: usize,
}

/// The server; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that writes here.
    pub fn client(&self) -> Client {
        let api = self.clone();
        let answer = move |request: Request| {
            let api = api.clone();
            async move { api.answer(request).await }
        };
        Client::new(Router::new().fallback(answer), "default")
    }

    /// Keeps an object that another client wrote.
    pub fn put(&self, path: &str, object: Value) {
        let mut state = self.lock();
        let version = object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok());
        state.version = state.version.max(version.unwrap_or_default());
        state.objects.insert(path.to_owned(), object);
    }

    pub fn object(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Refuses every request whose path contains the text, until [`FakeApi::accept`].
    pub fn refuse(&self, path_part: &str, code: u16) {
        self.lock().refused.insert(path_part.to_owned(), StatusCode::from_u16(code).unwrap());
    }

    /// Refuses every request whose body contains the text, in these words, until [`FakeApi::accept`].
    pub fn refuse_bodies(&self, text: &str, code: u16, words: &str) {
        self.lock().refused_bodies.push((text.to_owned(), StatusCode::from_u16(code).unwrap(), words.to_owned()));
    }

    /// Never answers a request whose path ends so.
    pub fn stall(&self, path_end: &str) {
        self.lock().stalled.insert(path_end.to_owned());
    }

    /// Never answers the next requests whose path ends so.
    pub fn stall_next(&self, path_end: &str, times: usize) {
        self.lock().stalled_times.insert(path_end.to_owned(), times);
    }

    /// Answers each request so long after it took effect.
    pub fn delay(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// The most requests that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.lock().most_at_once
    }

    /// Drops a field of everything that is patched, as a server does whose schema does not have it.
    pub fn drop_field(&self, path: &str) {
        self.lock().dropped.insert(path.to_owned());
    }

    /// Refuses nothing any more.
    pub fn accept(&self) {
        let mut state = self.lock();
        state.refused.clear();
        state.refused_bodies.clear();
    }

    /// The requests since the last call whose path contains the text; the others stay.
    pub fn take(&self, path_part: &str) -> Vec<Received> {
        let mut state = self.lock();
        let (taken, rest) = std::mem::take(&mut state.received).into_iter().partition(|r| r.path.contains(path_part));
        state.received = rest;
        taken
    }

    async fn answer(&self, request: Request) -> (StatusCode, String) {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let selector = parts.uri.query().and_then(|query| query.split_once("fieldSelector=metadata.name%3D"));
        let named = selector.map(|(_, rest)| rest.split('&').next().unwrap_or_default().to_owned());
        let received = Received { method: parts.method, path: parts.uri.path().to_owned(), named, body };
        let stalled = self.lock().stalls(&received.path);
        if stalled {
            return std::future::pending().await;
        }
        let (answer, latency) = {
            let mut state = self.lock();
            state.under_way += 1;
            state.most_at_once = state.most_at_once.max(state.under_way);
            (state.asked(received), state.latency)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        self.lock().under_way -= 1;
        match answer {
            Ok(object) => (StatusCode::OK, object.to_string()),
            Err((code, words)) => (code, status(code, &words).to_string()),
        }
    }
}

/// The collections of our kinds.
const COLLECTIONS: [&str; 2] = ["/registeredservices", "/serviceregistries"];
/// As the API server words a missing permission.
const FORBIDDEN: &str = "it is forbidden: User \"twinspan\" cannot do this";

fn status(code: StatusCode, words: &str) -> Value {
    let reason = match code {
        StatusCode::CONFLICT => "Conflict",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::FORBIDDEN => "Forbidden",
        _ => "Refused",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": words, "reason": reason,
        "code": code.as_u16()})
}

impl State {
    fn stalls(&mut self, path: &str) -> bool {
        let next = self.stalled_times.iter_mut().find(|(end, left)| path.ends_with(end.as_str()) && **left > 0);
        if let Some((_, left)) = next {
            *left -= 1;
            return true;
        }
        self.stalled.iter().any(|end| path.ends_with(end))
    }

    fn asked(&mut self, received: Received) -> Result<Value, (StatusCode, String)> {
        let body = received.body.to_string();
        if let Some((_, code, words)) = self.refused_bodies.iter().find(|(text, ..)| body.contains(text)) {
            self.received.push(received);
            return Err((*code, words.clone()));
        }
        let words = |code| if code == StatusCode::FORBIDDEN { FORBIDDEN } else { "as the test wants it" };
        self.answer(received).map_err(|code| (code, words(code).to_owned()))
    }

    fn answer(&mut self, received: Received) -> Result<Value, StatusCode> {
        self.received.push(received.clone());
        let Received { method, path, named, body } = received;
        if let Some((_, code)) = self.refused.iter().find(|(part, _)| path.contains(*part)) {
            return Err(*code);
        }
        let path = path.strip_suffix("/status").unwrap_or(&path).to_owned();
        // A test may have put a whole list in place of a collection.
        if let Some(name) = named.filter(|_| !self.objects.contains_key(&path)) {
            let items: Vec<&Value> = self.objects.get(&format!("{path}/{name}")).into_iter().collect();
            return Ok(json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}));
        }
        match method.as_str() {
            "POST" => self.create(&path, body),
            "PUT" => {
                let known = self.objects.get(&path).ok_or(StatusCode::NOT_FOUND)?;
                if known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                    return Err(StatusCode::CONFLICT);
                }
                Ok(self.write(path, body))
            }
            "PATCH" => {
                let mut object = self.objects.get(&path).cloned().ok_or(StatusCode::NOT_FOUND)?;
                let wanted =
                    ["uid", "resourceVersion"].map(|field| (&body["metadata"][field], &object["metadata"][field]));
                if wanted.into_iter().any(|(wanted, found)| !wanted.is_null() && wanted != found) {
                    return Err(StatusCode::CONFLICT);
                }
                merge(&mut object, body);
                for field in self.dropped.iter().map(|field| field.split('/')) {
                    drop_field(&mut object, field);
                }
                Ok(self.write(path, object))
            }
            "DELETE" => {
                let metadata = &self.objects.get(&path).ok_or(StatusCode::NOT_FOUND)?["metadata"];
                let wanted = body["preconditions"].as_object().into_iter().flatten();
                if wanted.into_iter().any(|(field, value)| metadata[field] != *value) {
                    return Err(StatusCode::CONFLICT);
                }
                self.objects.remove(&path);
                Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            // Of these the operator's role has `list` and not `get`.
            _ if path.contains("/twinspan.dev/")
                && !path.ends_with(COLLECTIONS[0])
                && !path.ends_with(COLLECTIONS[1]) =>
            {
                Err(StatusCode::FORBIDDEN)
            }
            _ => self.objects.get(&path).cloned().ok_or(StatusCode::NOT_FOUND),
        }
    }

    fn create(&mut self, collection: &str, object: Value) -> Result<Value, StatusCode> {
        let metadata = &object["metadata"];
        let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
            (Some(name), _) => name.to_owned(),
            (None, begin) => format!("{}{}", begin.unwrap_or_default(), self.version),
        };
        let path = format!("{collection}/{name}");
        if self.objects.contains_key(&path) { Err(StatusCode::CONFLICT) } else { Ok(self.write(path, object)) }
    }

    fn write(&mut self, path: String, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        object
    }
}

fn drop_field<'a>(from: &mut Value, mut path: impl Iterator<Item = &'a str>) {
    let Some((field, fields)) = path.next().zip(from.as_object_mut()) else { return };
    match fields.get_mut(field) {
        Some(inner) if inner.is_object() => drop_field(inner, path),
        _ => drop(fields.remove(field)),
    }
}

/// A JSON merge patch (RFC 7386).
fn merge(into: &mut Value, patch: Value) {
    match patch {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (name, value) in fields {
                if value.is_null() {
                    into.as_object_mut().unwrap().remove(&name);
                } else {
                    merge(&mut into[&name], value);
                }
            }
        }
        other => *into = other,
    }
}
