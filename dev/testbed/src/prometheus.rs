//! Prometheus' own code (`dev/parts/prometheus`), for the alerts that fire after a series of scrapes, and its
//! operator's types, for the known fields of an object.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ask::ask;

/// The answer of each target, by its name; a target that did not answer is absent.
pub type Scrape = BTreeMap<String, String>;

/// An alert whose condition holds now.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    pub name: String,
    /// `pending` until its `for` is over, then `firing`.
    pub state: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// The alerts of a rules file after the last of these scrapes; each scrape counts as taken one step after the one
/// before.
pub async fn alerts(rules: &Path, step: Duration, scrapes: &[Scrape]) -> Result<Vec<Alert>> {
    ask("prometheus", &[], &json!({"rules": rules, "step": step.as_secs(), "scrapes": scrapes})).await
}

/// Fails if an object of the Prometheus operator (`ServiceMonitor`, `PodMonitor`, `PrometheusRule`) has an unknown
/// field.
pub async fn decodes(kind: &str, object: &Value) -> Result<()> {
    ask("prometheus", &["decode", kind], object).await
}
