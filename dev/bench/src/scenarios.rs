//! The scenarios of a run in order.
//!
//! Owns their names, and the sizes of both forms. Refuses to measure.

use anyhow::Result;
use tokio::time::Instant;

use crate::bed::{Direction, Shape};
use crate::crowd::Crowd;
use crate::report::{self, Report};
use crate::run::{Form, Run};
use crate::{beside, churn, cold, crowd, floors, large, latency, lost, page, rest, restart, slow, spaced, takeover};

/// Records about which nobody asks: of many clusters that change, and as many as a registry may hold.
const CROWDS: [Crowd; 2] =
    [Crowd { clusters: 250, records: 1000, rate: 250 }, Crowd { clusters: 99, records: 10_000, rate: 0 }];

#[derive(Clone, Copy, Debug)]
enum Scenario {
    Floors,
    Resolution,
    /// Beside so many settled services.
    Latency(usize),
    Spaced,
    Burst,
    Cold(Direction, Shape),
    Statuses(Direction, Shape),
    Restart(Direction, Shape),
    TakeOver(Direction, Shape),
    Rest(Direction, Shape),
    Churn(Direction),
    Lost(Shape),
    Large(usize),
    Beside,
    Slow,
    Crowd(Crowd),
    Page,
}

impl Scenario {
    fn name(self) -> String {
        match self {
            Self::Floors => "floors".to_owned(),
            Self::Resolution => "resolution".to_owned(),
            Self::Latency(others) => format!("latency-{others}"),
            Self::Spaced => "spaced".to_owned(),
            Self::Burst => "burst".to_owned(),
            Self::Cold(direction, shape) => format!("cold-{}-{}", direction.label(), shape.label()),
            Self::Statuses(direction, shape) => format!("statuses-{}-{}", direction.label(), shape.label()),
            Self::Restart(direction, shape) => format!("restart-{}-{}", direction.label(), shape.label()),
            Self::TakeOver(direction, shape) => format!("takeover-{}-{}", direction.label(), shape.label()),
            Self::Rest(direction, shape) => format!("rest-{}-{}", direction.label(), shape.label()),
            Self::Churn(direction) => format!("churn-{}", direction.label()),
            Self::Lost(shape) => format!("lost-{}", shape.all()),
            Self::Large(size) => format!("large-{size}"),
            Self::Beside => "beside".to_owned(),
            Self::Slow => "slow".to_owned(),
            Self::Crowd(crowd) => format!("crowd-{}", crowd.all()),
            Self::Page => "page".to_owned(),
        }
    }

    async fn run(self, run: &mut Run) -> Result<()> {
        match self {
            Self::Floors => floors::run(run).await,
            Self::Resolution => latency::resolution(run).await,
            Self::Latency(others) => latency::beside(run, others).await,
            Self::Spaced => spaced::spaced(run).await,
            Self::Burst => spaced::burst(run).await,
            Self::Cold(direction, shape) => cold::run(run, direction, shape).await,
            Self::Statuses(direction, shape) => rest::statuses(run, direction, shape).await,
            Self::Restart(direction, shape) => restart::run(run, direction, shape).await,
            Self::TakeOver(direction, shape) => takeover::run(run, direction, shape).await,
            Self::Rest(direction, shape) => rest::run(run, direction, shape).await,
            Self::Churn(direction) => churn::run(run, direction).await,
            Self::Lost(shape) => lost::run(run, shape).await,
            Self::Large(size) => large::run(run, size).await,
            Self::Beside => beside::run(run).await,
            Self::Slow => slow::run(run).await,
            Self::Crowd(crowd) => crowd::run(run, crowd).await,
            Self::Page => page::run(run).await,
        }
    }
}

/// The scenarios of a form. Those that need settled services follow the cold start that makes them.
fn scenarios(form: Form) -> Vec<Scenario> {
    use Direction::{Export, Import};
    let mut all = vec![Scenario::Floors, Scenario::Resolution, Scenario::Latency(0), Scenario::Spaced, Scenario::Burst];
    let instances: &[usize] = form.pick(&[100, 5000], &[100, 5000, 10_000]);
    all.extend(instances.iter().copied().map(Scenario::Large));
    let usual = Shape::of(churn::SERVICES);
    all.extend([Scenario::Cold(Import, usual), Scenario::Statuses(Import, usual), Scenario::Restart(Import, usual)]);
    all.extend([Scenario::Latency(usual.services), Scenario::Rest(Import, usual), Scenario::Churn(Import)]);
    if form == Form::Quick {
        all.push(Scenario::Page);
    }
    if form == Form::Full {
        all.extend(CROWDS.map(Scenario::Crowd));
        all.extend([Scenario::Beside, Scenario::Slow]);
        let (many, wide) = (Shape::of(10_000), Shape { services: 1000, instances: 100 });
        all.extend([Scenario::Cold(Import, many), Scenario::Statuses(Import, many), Scenario::Restart(Import, many)]);
        all.extend([Scenario::Latency(many.services), Scenario::Rest(Import, many), Scenario::TakeOver(Import, many)]);
        all.push(Scenario::Page);
        all.extend([Scenario::Cold(Import, wide), Scenario::Restart(Import, wide), Scenario::Rest(Import, wide)]);
    }
    all.extend([Scenario::Cold(Export, usual), Scenario::Restart(Export, usual), Scenario::Churn(Export)]);
    if form == Form::Full {
        all.extend([Scenario::Lost(Shape::of(500))]);
        let (many, wide) = (Shape::of(10_000), Shape { services: 1000, instances: 100 });
        all.extend([Scenario::Cold(Export, many), Scenario::Restart(Export, many), Scenario::Rest(Export, many)]);
        all.extend([Scenario::Cold(Export, wide), Scenario::Rest(Export, wide)]);
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

/// Runs the scenarios that are meant, and keeps the report after each. One that fails does not end the others.
pub async fn run(run: &mut Run, only: Option<&str>, keep: impl Fn(&mut Report) -> Result<()>) -> Result<()> {
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
        keep(&mut run.report)?;
    }
    Ok(())
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
