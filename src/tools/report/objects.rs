//! Objects of the API server, as YAML.
//!
//! Owns the bounds: pages of one kind, and the time of a request. Refuses to choose kinds.

use std::time::Duration;

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use super::clean::clean;

/// Objects of a page, and pages of one kind.
const PAGE: usize = 500;
const PAGES: usize = 20;
/// The deadline of one request.
pub const CALL: Duration = Duration::from_secs(20);

/// The items of a list; `query` is empty or parameters without `?`.
///
/// # Errors
/// In words, for the bundle.
pub async fn list(client: &Client, path: &str, query: &str) -> Result<Vec<Value>, String> {
    let (mut items, mut token) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let mut uri = format!("{path}?limit={PAGE}");
        if !query.is_empty() {
            uri = format!("{uri}&{query}");
        }
        if !token.is_empty() {
            uri = format!("{uri}&continue={token}");
        }
        let mut page = get(client, &uri).await?;
        if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
            items.extend(found);
        }
        page["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    Ok(items)
}

pub async fn get(client: &Client, uri: &str) -> Result<Value, String> {
    let request = Request::get(uri).body(Vec::new()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(CALL, client.request::<Value>(request)).await {
        Ok(answer) => answer.map_err(|error| words(&error)),
        Err(_) => Err(late()),
    }
}

pub async fn text(client: &Client, uri: &str) -> Result<String, String> {
    let request = Request::get(uri).body(Vec::new()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(CALL, client.request_text(request)).await {
        Ok(answer) => answer.map_err(|error| words(&error)),
        Err(_) => Err(late()),
    }
}

fn late() -> String {
    format!("no answer within {} s", CALL.as_secs())
}

/// The API server's own words, without kube's dump of the answer.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// A list in YAML, sorted by namespace and name.
///
/// # Errors
/// In words, for the bundle.
pub fn yaml(kind: &str, mut items: Vec<Value>, with_values: bool) -> Result<String, String> {
    let place = |item: &Value| ["namespace", "name"].map(|field| item["metadata"][field].as_str().map(str::to_owned));
    items.sort_by_key(place);
    let named = |item: Value| {
        let mut item = clean(item, with_values);
        item["kind"] = json!(kind);
        item
    };
    let all: Vec<Value> = items.into_iter().map(named).collect();
    serde_yaml::to_string(&json!({"apiVersion": "v1", "kind": "List", "items": all})).map_err(|error| error.to_string())
}
