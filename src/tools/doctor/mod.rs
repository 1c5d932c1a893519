//! The doctor: checks of a cluster and its registries, from the place where the command runs.
//!
//! - [`cluster`]: the API server, CRDs, permissions and the leader; [`registries`]: every endpoint of every registry.
//! - [`rbac`]: the permissions of the operator; [`versions`]: etcd versions with known faults.
//!
//! Owns the list of checks, and the advice for each finding. Refuses to change anything: permissions are asked for, and
//! tried only in ways that cannot succeed.

mod cluster;
mod rbac;
mod registries;
mod versions;

use std::fmt;

use kube::Client;
use serde::Serialize;

use super::print::{Tone, toned};

pub use rbac::{Grant, Place, granted};

/// The choice of checks.
pub struct Request<'a> {
    pub client: Client,
    /// The namespace of the Secrets of ServiceRegistries, the Lease and the ServiceAccount.
    pub operator_namespace: &'a str,
    pub service_account: &'a str,
    /// The ServiceRegistries to check; empty means all.
    pub registries: &'a [String],
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("operator_namespace", &self.operator_namespace).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, but deserves attention.
    Warn,
    /// It does not work.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// `cluster`, or the name of a ServiceRegistry.
    pub about: String,
    /// The finding, and the advice if something must be done.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = format!("{:<5}", self.level);
        let level = match self.level {
            Level::Ok => toned(&level, Tone::Good),
            Level::Warn => level,
            Level::Fail => toned(&level, Tone::Bad),
        };
        write!(f, "{level} {}: {}", self.about, self.text)
    }
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether any check failed.
    pub fn fails(&self) -> bool {
        self.count(Level::Fail) > 0
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let (ok, warn, fail) = (self.count(Level::Ok), self.count(Level::Warn), self.count(Level::Fail));
        writeln!(f, "{ok} ok, {warn} to look at, {fail} failed")
    }
}

/// Collects the findings about one object.
#[derive(Debug)]
struct Findings<'a> {
    about: &'a str,
    all: Vec<Finding>,
}

impl<'a> Findings<'a> {
    fn about(about: &'a str) -> Self {
        Self { about, all: Vec::new() }
    }

    fn add(&mut self, level: Level, text: impl Into<String>) {
        self.all.push(Finding { level, about: self.about.to_owned(), text: text.into() });
    }
}

/// Runs all checks. A check that cannot run is a finding too.
pub async fn examine(request: &Request<'_>) -> Vec<Finding> {
    let mut all = cluster::examine(request).await;
    all.extend(registries::examine(request).await);
    all
}
