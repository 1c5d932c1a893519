//! One change in a large service.
//!
//! Owns the size of the services and the turns of the bridges. Refuses to know how a latency is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::bed::{Bridge, Direction, Shape};
use crate::line::Line;
use crate::report::{Report, Rounds, Row};
use crate::run::Run;
use crate::stats::Spread;

/// After a change, so that no pace and no echo of it meets the next one.
const GAP: Duration = Duration::from_millis(250);
/// Pairs of changes in a round.
const PAIRS: usize = 2;

pub async fn run(run: &mut Run, size: usize) -> Result<()> {
    run.base().await?;
    let group = format!("large{size}");
    run.bed.prepare(&group, Shape { services: 1, instances: size }).await?;
    for bridge in Bridge::BOTH {
        run.bed.process(bridge, &group)?.quiet(Duration::from_secs(20)).await?;
    }
    let rounds = run.form.pick(2, 10);
    for direction in Direction::BOTH {
        one_direction(run, &group, direction, size, rounds).await?;
    }
    for bridge in Bridge::BOTH {
        run.bed.clear(bridge, &group).await?;
    }
    Ok(())
}

/// The cost of the changes of one bridge.
#[derive(Default)]
struct Cost {
    /// Latencies by what became of the instance.
    rounds: BTreeMap<&'static str, Rounds>,
    cpu: Duration,
}

async fn one_direction(run: &mut Run, group: &str, direction: Direction, size: usize, rounds: usize) -> Result<()> {
    let mut costs: BTreeMap<Bridge, Cost> = BTreeMap::new();
    let mut lines = Vec::new();
    for bridge in Bridge::BOTH {
        let line = Line::new(&run.bed, bridge, group, direction).await?;
        let leaving = line.instances(rounds * PAIRS);
        lines.push((bridge, line, leaving));
    }
    for round in 0..rounds {
        let mut samples: BTreeMap<(Bridge, &str), Vec<f64>> = BTreeMap::new();
        for pair in 0..PAIRS {
            for (present, became) in [(false, "removed"), (true, "added")] {
                for (bridge, line, leaving) in &mut lines {
                    let mut instance = leaving[round * PAIRS + pair].clone();
                    if present {
                        instance.address = run.bed.fresh(1)[0];
                    }
                    let process = run.bed.process(*bridge, group)?;
                    let before = process.cpu()?;
                    let sample = line.change(&instance, present).await?;
                    sleep(GAP).await;
                    costs.entry(*bridge).or_default().cpu += process.cpu()? - before;
                    samples.entry((*bridge, became)).or_default().push(sample.bridged);
                }
            }
        }
        for ((bridge, became), samples) in samples {
            costs.entry(bridge).or_default().rounds.entry(became).or_default().push(samples);
        }
    }
    report(&mut run.report, direction, size, &costs);
    Ok(())
}

fn report(report: &mut Report, direction: Direction, size: usize, costs: &BTreeMap<Bridge, Cost>) {
    let scenario = format!("one change in a service of {size}");
    let label = direction.label();
    for became in ["removed", "added"] {
        let of = |(bridge, cost): (&Bridge, &Cost)| Some((bridge.label(), cost.rounds.get(became)?.clone()));
        let rounds: BTreeMap<&str, Rounds> = costs.iter().filter_map(of).collect();
        report.compare(&scenario, &format!("{label}: instance {became}"), &rounds, Bridge::BOTH.map(Bridge::label));
    }
    for (bridge, cost) in costs {
        let samples: Vec<f64> = cost.rounds.values().flatten().flatten().copied().collect();
        let cpu = cost.cpu.as_secs_f64() * 1000.0 / samples.len().max(1) as f64;
        let row = Row::new(&scenario, &format!("{label}: CPU of a change"), bridge.label());
        report.rows.push(row.rate(cpu, "ms CPU"));
        if let Some(spread) = Spread::of(&samples) {
            let panel = format!("{label}: p50 ms of one change, by instances of the service");
            report.size(&panel, bridge.label(), size as f64, spread.p50);
        }
    }
}
