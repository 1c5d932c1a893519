//! The findings of the doctor, and the text of each.
//!
//! Owns the levels, and the verdict over all findings. Refuses to know the checks.

use std::fmt;

use serde::Serialize;

use crate::tools::print::{Tone, clean, is_terminal, line, toned};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, but deserves attention.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }

    /// The sign for a person at a terminal; scripts search for the word.
    fn sign(self) -> &'static str {
        match self {
            Self::Ok => "✔",
            Self::Warn => "⚠",
            Self::Fail => "✘",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Warn => Tone::Doubtful,
            Self::Fail => Tone::Bad,
        }
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

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Whether the API server answers.
    #[serde(skip)]
    pub asked: bool,
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
        self.show(f, is_terminal())
    }
}

impl Report {
    /// The objects in the order of the checks, each with its findings below it.
    fn show(&self, f: &mut fmt::Formatter<'_>, signs: bool) -> fmt::Result {
        let mut objects: Vec<&str> = Vec::new();
        for finding in &self.findings {
            if !objects.contains(&finding.about.as_str()) {
                objects.push(&finding.about);
            }
        }
        for (n, about) in objects.into_iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            let heading =
                if about == CLUSTER || about.contains("://") { about.to_owned() } else { format!("registry {about}") };
            writeln!(f, "{}", toned(&clean(&heading), Tone::Heading))?;
            for finding in self.findings.iter().filter(|finding| finding.about == about) {
                let level = finding.level;
                let mark = if signs { format!("{} ", level.sign()) } else { format!("{:<5} ", level.word()) };
                line(f, &toned(&mark, level.tone()), &finding.text)?;
            }
        }
        let (ok, warn, fail) = (self.count(Level::Ok), self.count(Level::Warn), self.count(Level::Fail));
        let s = if warn == 1 { "" } else { "s" };
        writeln!(f, "\n{ok} passed, {warn} warning{s}, {fail} failed")
    }
}

/// The object of the checks of the cluster.
pub(super) const CLUSTER: &str = "cluster";

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

#[cfg(test)]
mod tests {
    use super::*;

    struct Shown<'a>(&'a Report, bool);

    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.show(f, self.1)
        }
    }

    #[test]
    fn objects_are_headings_and_words_are_signs_on_a_terminal() {
        let mut cluster = Findings::about(CLUSTER);
        cluster.add(Level::Ok, "it answers");
        let mut registry = Findings::about("main");
        registry.add(Level::Warn, "slow");
        registry.add(Level::Fail, "one\nforged");
        let mut late = Findings::about(CLUSTER);
        late.add(Level::Ok, "later");
        let findings = [cluster.all, registry.all, late.all].concat();
        let report = Report { findings, asked: true };
        let plain = |signs| anstream::adapter::strip_str(&Shown(&report, signs).to_string()).to_string();
        assert_eq!(
            plain(false),
            "cluster\nok    it answers\nok    later\n\nregistry main\nwarn  slow\nFAIL  one\\nforged\n\n\
             2 passed, 1 warning, 1 failed\n"
        );
        assert!(plain(true).contains("✔ later\n") && plain(true).contains("⚠ slow\n✘ one"), "{}", plain(true));
    }
}
