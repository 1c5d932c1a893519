//! Prometheus' own code (`dev/parts/prometheus`), for the alerts that fire after a series of scrapes and for queries
//! about them, and its operator's types, for the known fields of an object.

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

/// One series of an answer to a query.
#[derive(Clone, Debug, Deserialize)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    /// Seconds since the first scrape, and the value there; what is no number is left out.
    pub points: Vec<(f64, f64)>,
}

/// The answer to each query at the time of every scrape. The first one was taken at `start`, in seconds since the Unix
/// epoch, and each further one a step later.
pub async fn ranges(start: u64, step: Duration, scrapes: &[Scrape], queries: &[String]) -> Result<Vec<Vec<Series>>> {
    let question = json!({"start": start, "step": step.as_secs(), "scrapes": scrapes, "queries": queries});
    ask("prometheus", &["ranges"], &question).await
}

/// Fails if an object of the Prometheus operator (`ServiceMonitor`, `PodMonitor`, `PrometheusRule`) has an unknown
/// field.
pub async fn decodes(kind: &str, object: &Value) -> Result<()> {
    ask("prometheus", &["decode", kind], object).await
}
