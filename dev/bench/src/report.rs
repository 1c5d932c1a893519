//! The results of a run: rows of a table, and the lines of the pictures.
//!
//! Owns the table in Markdown and the JSON beside it. Refuses to judge.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::machine::Machine;
use crate::stats::{Ratio, Spread};

/// Samples in milliseconds of one round, or of several.
pub type Rounds = Vec<Vec<f64>>;

#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    pub value: f64,
    pub unit: &'static str,
}

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub scenario: String,
    pub measure: String,
    pub subject: String,
    pub milliseconds: Option<Spread>,
    pub rate: Option<Rate>,
    /// To the ideal bridge or to the floor, by the name of the value.
    pub ratios: BTreeMap<&'static str, Ratio>,
    pub facts: BTreeMap<&'static str, String>,
}

/// Lines of a picture by panel, and by subject.
pub type Lines<T> = BTreeMap<String, BTreeMap<String, Vec<T>>>;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub form: &'static str,
    pub seed: u64,
    pub seconds: u64,
    pub rows: Vec<Row>,
    /// Scenarios that failed, and why.
    pub failures: BTreeMap<String, String>,
    /// Latencies in milliseconds.
    #[serde(skip)]
    pub latencies: Lines<f64>,
    /// Size and cost.
    pub sizes: Lines<(f64, f64)>,
}

impl Row {
    pub fn new(scenario: &str, measure: &str, subject: &str) -> Self {
        let text = |of: &str| of.to_owned();
        Self { scenario: text(scenario), measure: text(measure), subject: text(subject), ..Self::default() }
    }

    pub fn samples(mut self, samples: &[f64]) -> Self {
        self.milliseconds = Spread::of(samples);
        self
    }

    pub fn rate(mut self, value: f64, unit: &'static str) -> Self {
        self.rate = Some(Rate { value, unit });
        self
    }

    pub fn ratio(mut self, name: &'static str, ratio: Option<Ratio>) -> Self {
        self.ratios.extend(ratio.map(|ratio| (name, ratio)));
        self
    }

    pub fn fact(mut self, name: &'static str, value: String) -> Self {
        self.facts.insert(name, value);
        self
    }
}

/// The ratios of a measured bridge to the one below it, from rounds in the same order: of the p50, the p90 and the p99.
pub fn ratios(measured: &Rounds, below: &Rounds) -> BTreeMap<&'static str, Ratio> {
    type Percentile = fn(&Spread) -> f64;
    let all: [(&'static str, Percentile); 3] = [("p50", |s| s.p50), ("p90", |s| s.p90), ("p99", |s| s.p99)];
    let rounds: Vec<(Spread, Spread)> =
        measured.iter().zip(below).filter_map(|(m, b)| Some((Spread::of(m)?, Spread::of(b)?))).collect();
    let of = |percentile: Percentile| {
        Ratio::of(&rounds.iter().map(|(m, b)| (percentile(m), percentile(b))).collect::<Vec<_>>())
    };
    all.into_iter().filter_map(|(name, percentile)| Some((name, of(percentile)?))).collect()
}

impl Report {
    pub fn new(machine: Machine, form: &'static str, seed: u64) -> Self {
        let (rows, failures) = (Vec::new(), BTreeMap::new());
        let (latencies, sizes) = (Lines::new(), Lines::new());
        Self { machine, form, seed, seconds: 0, rows, failures, latencies, sizes }
    }

    /// Two rows: a bridge, and the one beside which it was measured.
    pub fn compare(&mut self, scenario: &str, measure: &str, rounds: &BTreeMap<&str, Rounds>, order: [&str; 2]) {
        let [below, measured] = order;
        let (Some(base), Some(mine)) = (rounds.get(below), rounds.get(measured)) else { return };
        self.rows.push(Row::new(scenario, measure, below).samples(&base.concat()));
        let mut row = Row::new(scenario, measure, measured).samples(&mine.concat());
        row.ratios = ratios(mine, base);
        self.rows.push(row);
    }

    pub fn latency(&mut self, panel: &str, subject: &str, samples: &[f64]) {
        let line = self.latencies.entry(panel.to_owned()).or_default().entry(subject.to_owned()).or_default();
        line.extend_from_slice(samples);
    }

    pub fn size(&mut self, panel: &str, subject: &str, size: f64, cost: f64) {
        self.sizes.entry(panel.to_owned()).or_default().entry(subject.to_owned()).or_default().push((size, cost));
    }

    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub fn markdown(&self) -> String {
        let m = &self.machine;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "`make bench`, {} form, seed {}, {} s. {} cores of {}, {:.0} GiB, Linux {}; commit {}. Servers, bridges and \
             drivers share the cores, and etcd does not wait for the disk: ratios count.\n",
            self.form, self.seed, self.seconds, m.cores, m.cpu, m.memory_gib, m.kernel, m.commit
        );
        let _ = writeln!(
            text,
            "A ratio is to the ideal bridge unless its name says another floor: the median of the rounds' ratios, with its 90 % \
             interval.\n"
        );
        let _ = writeln!(text, "| scenario | measure | of | n | p50 ms | p90 ms | p99 ms | rate | ratio | more |");
        let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|---|");
        for row in &self.rows {
            let _ = writeln!(text, "{}", line(row));
        }
        for (scenario, why) in &self.failures {
            let _ = writeln!(text, "\n{scenario} failed: {why}");
        }
        text
    }
}

/// A row as a line of the table.
pub fn line(row: &Row) -> String {
    let spread = row.milliseconds.map_or_else(
        || " | | |".to_owned(),
        |s| format!("{} | {} | {} | {}", s.n, number(s.p50), number(s.p90), number(s.p99)),
    );
    let rate = row.rate.as_ref().map_or_else(String::new, |rate| format!("{} {}", number(rate.value), rate.unit));
    let ratio =
        |(name, r): (&&str, &Ratio)| format!("{name} {} ({} to {})", number(r.median), number(r.low), number(r.high));
    let ratios: Vec<String> = row.ratios.iter().map(ratio).collect();
    let facts: Vec<String> = row.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let (ratios, facts) = (ratios.join(", "), facts.join("; "));
    format!("| {} | {} | {} | {spread} | {rate} | {ratios} | {facts} |", row.scenario, row.measure, row.subject)
}

/// A number with three digits that count, or all before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 || v == 0.0 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.123, 9.999, 12.34, 1234.5].map(number), ["0", "0.12", "10.0", "12.3", "1234"]);
    }

    #[test]
    fn ratios_are_formed_round_by_round() {
        let found = ratios(&vec![vec![2.0], vec![6.0]], &vec![vec![1.0], vec![2.0]]);
        assert_eq!(found["p50"], Ratio { median: 2.5, low: 2.0, high: 3.0 });
    }

    #[test]
    fn a_row_has_every_column() {
        let row = Row::new("restart", "in sync", "twinspan").rate(12.0, "/s").fact("writes", "0".to_owned());
        assert_eq!(line(&row), "| restart | in sync | twinspan |  | | | | 12.0 /s |  | writes 0 |");
        let row = Row::new("latency", "import", "ideal").samples(&[1.0, 2.0]);
        assert_eq!(line(&row), "| latency | import | ideal | 2 | 1.00 | 2.00 | 2.00 |  |  |  |");
        assert_eq!(line(&row).matches('|').count(), 11);
    }
}
