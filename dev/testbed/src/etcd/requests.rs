//! The requests that an etcd served, read from its own log at `--log-level=debug`.
//!
//! Owns the reading of the log. Refuses to judge.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// One request that may have written: `Put`, `DeleteRange` or `Txn`.
#[derive(Clone, Debug)]
pub struct Request {
    pub kind: String,
    /// Address and port of the client.
    pub remote: String,
    /// The request without values, in the text format of `NewLoggableTxnRequest` (etcd v3.7).
    pub content: String,
}

/// Every such request in the log, in order. The log has no content for a transaction that failed, and such a
/// transaction wrote nothing.
pub fn requests(log: &Path) -> Result<Vec<Request>> {
    let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter(|line| line.contains("\"request stats\"")).filter_map(request).collect())
}

fn request(line: &str) -> Option<Request> {
    // The last line may be incomplete.
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |field: &str| line[field].as_str().map(ToOwned::to_owned);
    let kind = line["response type"].as_str()?.strip_prefix("/etcdserverpb.KV/")?.to_owned();
    let content = text("request content")?;
    let writes = ["request_put:", "request_delete_range:"].iter().any(|op| content.contains(op));
    let kept = matches!(kind.as_str(), "Put" | "DeleteRange") || (kind == "Txn" && writes);
    kept.then_some(Request { kind, remote: text("remote")?, content })
}
