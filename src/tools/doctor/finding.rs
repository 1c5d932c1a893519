//! The findings of the doctor, and the text of each.
//!
//! Owns the levels, and the verdict over all findings. Refuses to know the checks.

use std::fmt;

use serde::Serialize;

use crate::tools::print::{Tone, toned};

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
pub(super) struct Findings<'a> {
    about: &'a str,
    pub all: Vec<Finding>,
}

impl<'a> Findings<'a> {
    pub fn about(about: &'a str) -> Self {
        Self { about, all: Vec::new() }
    }

    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        self.all.push(Finding { level, about: self.about.to_owned(), text: text.into() });
    }
}
