//! The requests, drawn from a seed: every one that Twinspan makes, with right, wrong and missing preconditions.
//!
//! Owns the draws, and the versions and UIDs that answers have shown. Refuses to know which server answers.

use std::collections::BTreeMap;
use std::fmt;

use http::Method;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::GROUP;
use super::objects::{KINDS, Kind};
use super::side::Answer;
use super::watches::Step;

/// The namespaces of the story. The last one does not exist.
const NAMESPACES: [&str; 3] = ["faithful-a", "faithful-b", "faithful-none"];
/// The namespaces of Events: the API server itself tells of Services in theirs.
const OF_EVENTS: [&str; 3] = ["faithful-events-a", "faithful-events-b", "faithful-none"];
const NAMES: usize = 4;

/// A request; `$version:N`, `$uid:N` and `$token` stand for the values of each side.
#[derive(Clone, Debug)]
pub struct Operation {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
    /// The object that it is about, if it is about one.
    object: Option<Key>,
}

type Key = (&'static str, String, usize);

impl Operation {
    /// A request whose answer says nothing about the objects that are drawn.
    pub fn about_nothing(method: Method, path: String, body: Option<Value>) -> Self {
        Self { method, path, body, object: None }
    }

    /// Whether every state from some version on is a right answer, so that the API server's cache need not have the
    /// newest one.
    pub fn may_be_behind(&self) -> bool {
        self.path.contains("resourceVersionMatch=NotOlderThan")
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}

pub struct Operations {
    rng: StdRng,
    /// Requests that come first.
    queue: Vec<Operation>,
    /// The version and the UID of each object, as numbers.
    current: BTreeMap<Key, (u64, u64)>,
    /// How many versions were shown.
    versions: u64,
    /// Whether a page has to be continued.
    continues: Option<String>,
}

impl Operations {
    pub fn new(rng: StdRng) -> Self {
        let mut queue = Vec::new();
        for namespace in NAMESPACES[..2].iter().chain(&OF_EVENTS[..2]) {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            let path = "/api/v1/namespaces".to_owned();
            queue.push(request(Method::POST, path, Some(body)));
        }
        Self { rng, queue, current: BTreeMap::new(), versions: 0, continues: None }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.rng.random_range(0..limit)
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn next(&mut self) -> Operation {
        if let Some(operation) = self.queue.pop() {
            return operation;
        }
        if let Some(path) = self.continues.take().filter(|_| self.rng.random_bool(0.7)) {
            return request(Method::GET, format!("{path}&continue=$token"), None);
        }
        let kind = KINDS[self.below(KINDS.len())];
        let namespace = namespaces(&kind)[if self.one_in(30) { 2 } else { self.below(2) }];
        let name = self.below(NAMES);
        let object = (kind.plural, if kind.namespaced { namespace.to_owned() } else { String::new() }, name);
        let collection = kind.path(namespace);
        let path = format!("{collection}/n{name}");
        let operation = match self.below(20) {
            0..5 => self.create(&kind, namespace, collection, name),
            5..7 => {
                let versions = if self.one_in(3) { self.any_version() } else { String::new() };
                request(Method::GET, format!("{path}{versions}"), None)
            }
            7..10 => self.list(&collection),
            10..13 => self.replace(&kind, namespace, path, &object),
            13..15 => self.patch(&kind, path, &object),
            15..17 => self.patch_status(&kind, path, &object),
            _ => self.delete(path, &object),
        };
        Operation { object: Some(object), ..operation }
    }

    /// A version that the cache has to reach first.
    fn any_version(&mut self) -> String {
        format!("?resourceVersion=$version:{}", self.versions.saturating_sub(1))
    }

    fn drawn_version(&mut self) -> String {
        let latest = self.versions.max(1);
        let back = u64::try_from(self.below(40)).unwrap_or_default().min(latest - 1);
        format!("$version:{}", latest - 1 - back)
    }

    fn create(&mut self, kind: &Kind, namespace: &str, collection: String, name: usize) -> Operation {
        let variant = self.below(24);
        let mut body = kind.object(name, variant);
        if kind.namespaced && self.one_in(2) {
            body["metadata"]["namespace"] = json!(namespace);
        }
        match self.below(25) {
            0 => body["metadata"]["namespace"] = json!("another"),
            1 => body["metadata"]["resourceVersion"] = json!(self.drawn_version()),
            2 if kind.group != GROUP && kind.kind != "Service" => {
                drop(body["metadata"].as_object_mut().map(|metadata| metadata.remove("name")));
            }
            3 => body["metadata"]["uid"] = json!("made-up"),
            4 if kind.group != GROUP => body["kind"] = json!("Other"),
            5 => body["metadata"]["finalizers"] = json!(["example.com/f"]),
            _ => {}
        }
        request(Method::POST, collection, Some(body))
    }

    fn list(&mut self, collection: &str) -> Operation {
        let query = match self.below(12) {
            0 => "?labelSelector=app%3Da".to_owned(),
            1 => "?labelSelector=app%20notin%20%28a%2Cb%29".to_owned(),
            2 => format!("?fieldSelector=metadata.name%3Dn{}", self.below(NAMES)),
            3 => "?labelSelector=app%3Da&limit=1".to_owned(),
            4 | 5 => "?limit=2".to_owned(),
            6 => format!("?resourceVersion={}&resourceVersionMatch=Exact", self.drawn_version()),
            7 => format!("?limit=2&resourceVersion={}", self.drawn_version()),
            8 => format!("?resourceVersion={}&resourceVersionMatch=NotOlderThan", self.drawn_version()),
            9 if self.one_in(3) => "?resourceVersionMatch=Exact".to_owned(),
            10 if self.one_in(3) => "?resourceVersion=1&resourceVersionMatch=Exact".to_owned(),
            _ => String::new(),
        };
        request(Method::GET, format!("{collection}{query}"), None)
    }

    fn replace(&mut self, kind: &Kind, namespace: &str, path: String, object: &Key) -> Operation {
        // An empty list that replaces is answered as it came, where the replace is the end of the object.
        let variant = [1, 2, 3, 4, 6, 7, 8, 9, 11, 12][self.below(10)];
        let mut body = kind.object(object.2, variant);
        if kind.namespaced {
            body["metadata"]["namespace"] = json!(namespace);
        }
        let known = self.current.get(object).copied();
        match (self.below(8), known) {
            (0, _) => {}
            (1, _) => body["metadata"]["resourceVersion"] = json!(self.drawn_version()),
            (_, Some((version, _))) => body["metadata"]["resourceVersion"] = json!(format!("$version:{version}")),
            (_, None) => {}
        }
        match (self.below(10), known) {
            (0, _) => body["metadata"]["uid"] = json!("made-up"),
            (1..3, Some((_, uid))) => body["metadata"]["uid"] = json!(format!("$uid:{uid}")),
            (3, _) if kind.has_status => body["status"] = kind.status(self.below(9))["status"].clone(),
            (4, _) => body["metadata"]["name"] = json!("another"),
            _ => {}
        }
        request(Method::PUT, path, Some(body))
    }

    fn patch(&mut self, kind: &Kind, path: String, object: &Key) -> Operation {
        let mut body = kind.patch(self.below(24));
        match self.below(16) {
            0 => body["metadata"]["finalizers"] = json!(["example.com/f"]),
            1..3 => body["metadata"]["finalizers"] = json!([]),
            3 if kind.has_status => body["status"] = kind.status(self.below(9))["status"].clone(),
            4 => body = json!({}),
            _ => {}
        }
        self.precondition(&mut body["metadata"], object);
        request(Method::PATCH, path, Some(body))
    }

    fn patch_status(&mut self, kind: &Kind, path: String, object: &Key) -> Operation {
        let mut body = kind.status(self.below(9));
        if self.one_in(6) {
            body["metadata"] = json!({"labels": {"from": "status"}});
            body["spec"] = json!({"other": 1});
        }
        self.precondition(&mut body["metadata"], object);
        if !kind.has_status {
            return self.patch(kind, path, object);
        }
        request(Method::PATCH, format!("{path}/status"), Some(body))
    }

    /// Names the version and the UID that the object is to have, the right ones or others.
    fn precondition(&mut self, into: &mut Value, object: &Key) {
        let known = self.current.get(object).copied();
        match (self.below(6), known) {
            (0, _) => into["resourceVersion"] = json!(self.drawn_version()),
            (1..3, Some((version, _))) => into["resourceVersion"] = json!(format!("$version:{version}")),
            _ => {}
        }
        match (self.below(8), known) {
            (0, _) => into["uid"] = json!("made-up"),
            (1..4, Some((_, uid))) => into["uid"] = json!(format!("$uid:{uid}")),
            _ => {}
        }
        if into.is_null() {
            *into = json!({});
        }
    }

    fn delete(&mut self, path: String, object: &Key) -> Operation {
        let mut wanted = json!({});
        self.precondition(&mut wanted, object);
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if wanted != json!({}) {
            body["preconditions"] = wanted;
        }
        match self.below(4) {
            0 => body["gracePeriodSeconds"] = json!(0),
            // Shorter ones depend on the time.
            1 => body["gracePeriodSeconds"] = json!(40),
            _ => {}
        }
        request(Method::DELETE, path, Some(body))
    }

    /// The requests that remove the object of an operation, after the sides disagreed about it.
    pub fn forget(&mut self, operation: &Operation) -> Vec<Operation> {
        let Some(key) = &operation.object else { return Vec::new() };
        self.current.remove(key);
        let kind = KINDS.into_iter().find(|kind| kind.plural == key.0).unwrap_or(KINDS[0]);
        let path = format!("{}/n{}", kind.path(&key.1), key.2);
        let free = request(Method::PATCH, path.clone(), Some(json!({"metadata": {"finalizers": null}})));
        vec![free, request(Method::DELETE, path, Some(json!({"gracePeriodSeconds": 0})))]
    }

    /// Enters an answer.
    pub fn learn(&mut self, operation: &Operation, answer: &Answer) {
        let metadata = &answer.body["metadata"];
        let shown = |metadata: &Value| metadata["resourceVersion"].as_u64().zip(metadata["uid"].as_u64());
        let items = answer.body["items"].as_array().into_iter().flatten();
        let all = items.map(|item| &item["metadata"]).chain([metadata]).filter_map(shown);
        self.versions = all.map(|(version, _)| version + 1).max().unwrap_or_default().max(self.versions);
        if metadata["continue"] == "token" && answer.code == 200 {
            let path = operation.path.split("&continue").next().unwrap_or_default();
            let plain: Vec<&str> = path.split('&').filter(|part| !part.starts_with("resourceVersion")).collect();
            self.continues = Some(plain.join("&"));
        }
        let Some(key) = operation.object.clone() else { return };
        match shown(metadata) {
            Some(known) if metadata["name"] == format!("n{}", key.2) => drop(self.current.insert(key, known)),
            _ if operation.method == Method::DELETE && answer.code == 200 => drop(self.current.remove(&key)),
            _ => {}
        }
    }

    /// The step of the watches after this operation, if there is one.
    pub fn watch(&mut self) -> Option<Step> {
        let drawn = self.below(60);
        if drawn > 3 {
            return None;
        }
        let kind = KINDS[self.below(KINDS.len())];
        let collection = kind.path(namespaces(&kind)[self.below(2)]);
        let selector = ["", "&labelSelector=app%3Da", "&labelSelector=app%20in%20%28a%2Cb%29"][self.below(3)];
        Some(match drawn {
            0 if kind.group == GROUP => {
                Step::Open { path: format!("{collection}?watch=true&resourceVersion=1{selector}"), kind }
            }
            0..=2 => {
                let path = format!("{collection}?watch=true&resourceVersion={}{selector}", self.drawn_version());
                Step::Open { path, kind }
            }
            _ => Step::Close,
        })
    }
}

fn namespaces(kind: &Kind) -> [&'static str; 3] {
    if kind.kind == "Event" { OF_EVENTS } else { NAMESPACES }
}

fn request(method: Method, path: String, body: Option<Value>) -> Operation {
    Operation::about_nothing(method, path, body)
}
