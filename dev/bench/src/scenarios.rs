//! The scenarios of a run in order.
//!
//! Owns their names, and the sizes of both forms. Refuses to measure.

use anyhow::Result;
use tokio::time::Instant;

use crate::bed::Direction;
use crate::run::{Form, Run};
use crate::{churn, cold, floors, large, latency, report, rest, restart, spaced};

#[derive(Clone, Copy, Debug)]
enum Scenario {
    Floors,
    Resolution,
    /// Beside so many settled services.
    Latency(usize),
    Spaced,
    Burst,
    Cold(Direction, usize),
    Restart(Direction, usize),
    Rest(Direction, usize),
    Churn(Direction),
    Large(usize),
}

impl Scenario {
    fn name(self) -> String {
        match self {
            Self::Floors => "floors".to_owned(),
            Self::Resolution => "resolution".to_owned(),
            Self::Latency(others) => format!("latency-{others}"),
            Self::Spaced => "spaced".to_owned(),
            Self::Burst => "burst".to_owned(),
            Self::Cold(direction, size) => format!("cold-{}-{size}", direction.label()),
            Self::Restart(direction, size) => format!("restart-{}-{size}", direction.label()),
            Self::Rest(direction, size) => format!("rest-{}-{size}", direction.label()),
            Self::Churn(direction) => format!("churn-{}", direction.label()),
            Self::Large(size) => format!("large-{size}"),
        }
    }

    async fn run(self, run: &mut Run) -> Result<()> {
        match self {
            Self::Floors => floors::run(run).await,
            Self::Resolution => latency::resolution(run).await,
            Self::Latency(others) => latency::beside(run, others).await,
            Self::Spaced => spaced::spaced(run).await,
            Self::Burst => spaced::burst(run).await,
            Self::Cold(direction, size) => cold::run(run, direction, size).await,
            Self::Restart(direction, size) => restart::run(run, direction, size).await,
            Self::Rest(direction, size) => rest::run(run, direction, size).await,
            Self::Churn(direction) => churn::run(run, direction).await,
            Self::Large(size) => large::run(run, size).await,
        }
    }
}

/// The scenarios of a form. Those that need settled services follow the cold start that makes them.
fn scenarios(form: Form) -> Vec<Scenario> {
    use Direction::{Export, Import};
    let sizes: &[usize] = form.pick(&[1000], &[1000, 10_000]);
    let mut all = vec![Scenario::Floors, Scenario::Resolution, Scenario::Latency(0), Scenario::Spaced, Scenario::Burst];
    let instances: &[usize] = form.pick(&[100, 5000], &[100, 5000, 10_000]);
    all.extend(instances.iter().copied().map(Scenario::Large));
    for size in sizes.iter().copied() {
        all.extend([
            Scenario::Cold(Import, size),
            Scenario::Restart(Import, size),
            Scenario::Latency(size),
            Scenario::Rest(Import, size),
        ]);
        if size == churn::SERVICES {
            all.push(Scenario::Churn(Import));
        }
    }
    for size in sizes.iter().copied() {
        all.extend([Scenario::Cold(Export, size), Scenario::Restart(Export, size)]);
        if size == churn::SERVICES {
            all.push(Scenario::Churn(Export));
        }
    }
    all
}

/// The names of the scenarios of a form.
pub fn names(form: Form) -> Vec<String> {
    scenarios(form).into_iter().map(Scenario::name).collect()
}

/// True if a name is meant by a word: the name itself, or its beginning up to a dash.
pub fn is_meant(name: &str, only: Option<&str>) -> bool {
    only.is_none_or(|only| name.strip_prefix(only).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
}

/// Runs the scenarios that are meant. One that fails does not end the others.
pub async fn run(run: &mut Run, only: Option<&str>) {
    for scenario in scenarios(run.form).into_iter().filter(|scenario| is_meant(&scenario.name(), only)) {
        let (start, rows, name) = (Instant::now(), run.report.rows.len(), scenario.name());
        let outcome = scenario.run(run).await;
        println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
        for row in &run.report.rows[rows..] {
            println!("  {}", report::line(row));
        }
        if let Err(error) = outcome {
            println!("  failed: {error:#}");
            run.report.failures.insert(name, format!("{error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_one_scenario_or_a_family() {
        let meant = |only| names(Form::Quick).into_iter().filter(|name| is_meant(name, only)).collect::<Vec<_>>();
        assert_eq!(meant(Some("latency-0")), ["latency-0"]);
        assert_eq!(meant(Some("latency")), ["latency-0", "latency-1000"]);
        assert_eq!(meant(Some("cold-export")), ["cold-export-1000"]);
        assert_eq!(meant(Some("lat")), Vec::<String>::new());
        assert_eq!(meant(None), names(Form::Quick));
    }

    #[test]
    fn no_two_scenarios_have_one_name() {
        let names = names(Form::Full);
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
