//! A side, which is the real server or the fake: requests to it, and its answers, with numbers in place of what it
//! makes up.
//!
//! Owns the numbering: a version or a UID is numbered by its first appearance, which is the same on both sides. Refuses
//! to compare.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::operations::Operation;

/// The deadline of one answer; a list at a version from the future takes three seconds.
const ANSWER: Duration = Duration::from_secs(20);

/// A code and a body, without what differs by nature.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.body)
    }
}

pub struct Side {
    pub client: Client,
    versions: Vec<String>,
    uids: Vec<String>,
    /// The token of the last page.
    token: String,
}

impl Side {
    pub fn new(client: Client) -> Self {
        Self { client, versions: Vec::new(), uids: Vec::new(), token: String::new() }
    }

    pub async fn send(&mut self, operation: &Operation) -> Result<Answer> {
        let mut request = http::Request::builder().method(operation.method.clone()).uri(self.fill_in(&operation.path));
        let patches = operation.method == http::Method::PATCH;
        let kind = if patches { "application/merge-patch+json" } else { "application/json" };
        request = request.header("content-type", kind).header("accept", "application/json");
        let body = operation.body.as_ref().map(|body| self.fill_in(&body.to_string()));
        let request = request.body(Body::from(body.unwrap_or_default().into_bytes()))?;
        let answer = timeout(ANSWER, self.client.send(request)).await??;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Ok(Answer { code, body: self.number(body) })
    }

    /// Puts the values of this side where the text says `$version:N`, `$uid:N` and `$token`.
    pub fn fill_in(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            filled += before;
            let word: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == ':').collect();
            rest = &after[word.len()..];
            let at = |values: &[String], index: &str| {
                index.parse().ok().and_then(|index: usize| values.get(index).cloned()).unwrap_or_default()
            };
            filled += &match word.split_once(':') {
                Some(("version", index)) => at(&self.versions, index),
                Some(("uid", index)) => at(&self.uids, index),
                _ => self.token.clone(),
            };
        }
        filled + rest
    }

    /// How many versions and UIDs it has shown.
    pub fn numbers(&self) -> (usize, usize) {
        (self.versions.len(), self.uids.len())
    }

    /// Numbers from here on, after the sides showed different ones.
    pub fn number_from(&mut self, (versions, uids): (usize, usize)) {
        self.versions.resize(versions, String::new());
        self.uids.resize(uids, String::new());
    }

    /// Numbers a body.
    pub fn number(&mut self, mut body: Value) -> Value {
        if let Some(metadata) =
            body.get_mut("metadata").filter(|metadata| metadata["continue"] != "" && metadata.get("continue").is_some())
        {
            self.token = metadata["continue"].as_str().unwrap_or_default().to_owned();
            metadata["continue"] = json!("token");
        }
        // The version of a list is that of everything else in the cluster.
        if body["items"].is_array()
            && let Some(metadata) = body["metadata"].as_object_mut()
        {
            metadata.remove("resourceVersion");
        }
        self.number_value(&mut body);
        body
    }

    fn number_value(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("managedFields");
                for (name, value) in fields {
                    match (name.as_str(), value.as_str().map(str::to_owned)) {
                        ("resourceVersion", Some(text)) => *value = json!(index(&mut self.versions, text)),
                        ("uid", Some(text)) => *value = json!(index(&mut self.uids, text)),
                        ("creationTimestamp" | "deletionTimestamp", Some(_)) => *value = json!("time"),
                        ("message", Some(text)) => *value = json!(self.without_numbers(text)),
                        ("clusterIP", Some(text)) => *value = json!(family(&text)),
                        ("clusterIPs", _) => {
                            for address in value.as_array_mut().into_iter().flatten() {
                                *address = json!(family(address.as_str().unwrap_or_default()));
                            }
                        }
                        _ => self.number_value(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.number_value(item)),
            _ => {}
        }
    }

    /// A message without the values of this side.
    fn without_numbers(&self, text: String) -> String {
        let known = self.uids.iter().enumerate().filter(|(_, uid)| !uid.is_empty());
        let named = known.fold(text, |text, (n, uid)| text.replace(uid.as_str(), &format!("uid-{n}")));
        let mut plain = String::new();
        for character in named.chars() {
            match character {
                '0'..='9' if plain.ends_with('#') => {}
                '0'..='9' => plain.push('#'),
                other => plain.push(other),
            }
        }
        plain
    }
}

fn index(values: &mut Vec<String>, text: String) -> usize {
    values.iter().position(|known| *known == text).unwrap_or_else(|| {
        values.push(text);
        values.len() - 1
    })
}

fn family(address: &str) -> &str {
    match address {
        "None" | "" => address,
        address if address.contains(':') => "IPv6",
        _ => "IPv4",
    }
}
