//! A cold start: objects and instances are there, and a bridge starts and writes the other side.
//!
//! Owns the settled services, which later scenarios have beside theirs, and their start. Refuses to change one.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::bed::{Bed, Bridge, Direction, SYNCED, Shape};
use crate::counters;
use crate::floors;
use crate::process::Memory;
use crate::registry::BATCH;
use crate::report::{Row, number};
use crate::run::Run;
use crate::stats::Ratio;

/// The group of the settled services.
pub const GROUP: &str = "settled";

/// A start, from the process to the last write.
pub struct Start {
    first: Duration,
    pub last: Duration,
    /// Writes a second between the first and the last: slices or records.
    pub rate: f64,
}

/// The start of Twinspan, and its cost.
struct Cost {
    start: Start,
    memory: Memory,
    cpu: Duration,
    refused: f64,
    grants: f64,
}

/// Measures the cold start of both bridges beside the floor. Twinspan's services stay as the settled ones.
pub async fn run(run: &mut Run, direction: Direction, shape: Shape) -> Result<()> {
    run.base().await?;
    run.bed.stop_twinspan().await?;
    let mut floors = vec![floor(run, direction).await?];
    let ideal = ideal(run, direction, shape).await?;
    floors.push(floor(run, direction).await?);
    let cost = start(run, direction, shape).await?;

    let (scenario, unit) = (format!("cold {}, {shape}", direction.label()), unit(direction));
    let row = |measure: &str, subject: &str, rate: f64| Row::new(&scenario, measure, subject).rate(rate, unit);
    let to_floor = |rate: f64| Ratio::of(&floors.iter().map(|floor| (rate, *floor)).collect::<Vec<_>>());
    let seconds = |of: Duration| format!("{} s", number(of.as_secs_f64()));
    let best = floors.iter().copied().fold(0.0, f64::max);
    run.report.rows.push(row("writes", "raw", best));
    let from_start = |row: Row, start: &Start| {
        row.ratio("to raw", to_floor(start.rate))
            .fact("first write after", seconds(start.first))
            .fact("last after", seconds(start.last))
    };
    run.report.rows.push(from_start(row("writes", Bridge::Ideal.label(), ideal.rate), &ideal));
    let row = from_start(row("writes", Bridge::Twinspan.label(), cost.start.rate), &cost.start)
        .ratio("to ideal", Ratio::of(&[(cost.start.rate, ideal.rate)]))
        .fact("CPU", seconds(cost.cpu))
        .fact("RSS then", format!("{} MiB", number(cost.memory.now)))
        .fact("RSS at most", format!("{} MiB", number(cost.memory.peak)))
        .fact("answers 429", number(cost.refused))
        .fact("lease grants", number(cost.grants));
    run.report.rows.push(row);
    let panel = format!("{}: s until all is written, by instances", direction.label());
    for (bridge, start) in [(Bridge::Ideal, &ideal), (Bridge::Twinspan, &cost.start)] {
        run.report.size(&panel, bridge.label(), shape.all() as f64, start.last.as_secs_f64());
    }
    Ok(())
}

/// Makes sure that so many services are settled, and that Twinspan leads.
pub async fn settle(run: &mut Run, direction: Direction, shape: Shape) -> Result<()> {
    run.base().await?;
    if run.settled != Some((direction, shape)) {
        start(run, direction, shape).await?;
    }
    run.bed.twinspan_leads().await
}

fn unit(direction: Direction) -> &'static str {
    match direction {
        Direction::Import => "slices/s",
        Direction::Export => "records/s",
    }
}

/// The rate of raw writes of the same kind.
async fn floor(run: &mut Run, direction: Direction) -> Result<f64> {
    run.bed.create_namespace(floors::NAMESPACE).await?;
    match direction {
        Direction::Import => {
            let mut best: f64 = 0.0;
            for at_once in floors::CONCURRENCY {
                best = best.max(floors::creates(&mut run.bed, run.form.pick(300, 2000), at_once).await?);
            }
            Ok(best)
        }
        Direction::Export => {
            let records = run.form.pick(80, 800) * BATCH;
            let one = floors::commits(&mut run.bed, records, 1).await?;
            Ok(one.max(floors::commits(&mut run.bed, records, 4).await?))
        }
    }
}

async fn ideal(run: &mut Run, direction: Direction, shape: Shape) -> Result<Start> {
    let bed = &mut run.bed;
    bed.clear(Bridge::Ideal, GROUP).await?;
    bed.seed(Bridge::Ideal, GROUP, direction, shape).await?;
    let mut feed = bed.written(Bridge::Ideal, GROUP, direction).await?;
    let begin = Instant::now();
    bed.start_ideal(GROUP)?;
    let span = feed.until_count(shape.all(), begin + SYNCED).await?;
    let started = measured(begin, span, direction, shape)?;
    bed.clear(Bridge::Ideal, GROUP).await?;
    Ok(started)
}

async fn start(run: &mut Run, direction: Direction, shape: Shape) -> Result<Cost> {
    run.settled = None;
    let bed = &mut run.bed;
    bed.clear(Bridge::Twinspan, GROUP).await?;
    bed.seed(Bridge::Twinspan, GROUP, direction, shape).await?;
    let (refused, grants) = (refused(bed).await?, grants(bed).await?);
    let mut feed = bed.written(Bridge::Twinspan, GROUP, direction).await?;
    let begin = Instant::now();
    bed.start_twinspan()?;
    let span = feed.until_count(shape.all(), begin + SYNCED).await?;
    let process = bed.process(Bridge::Twinspan, GROUP)?;
    let cost = Cost {
        start: measured(begin, span, direction, shape)?,
        memory: process.memory()?,
        cpu: process.cpu()?,
        refused: self::refused(bed).await? - refused,
        grants: self::grants(bed).await? - grants,
    };
    bed.twinspan_leads().await?;
    run.settled = Some((direction, shape));
    Ok(cost)
}

/// The start of a process at `begin` that made the first and the last write then.
pub fn measured(begin: Instant, span: Option<(Instant, Instant)>, direction: Direction, shape: Shape) -> Result<Start> {
    let (first, last) = span.context("nothing was written")?;
    let writes = match direction {
        Direction::Import => shape.services - 1,
        Direction::Export => shape.all() - shape.instances,
    };
    Ok(Start { first: first - begin, last: last - begin, rate: floors::rate(span, writes)? })
}

/// Requests that the API server has refused because of its load.
async fn refused(bed: &Bed) -> Result<f64> {
    let page = counters::of_apiserver(&bed.admin).await?;
    Ok(counters::sum(&page, "apiserver_request_total", &["code=\"429\""]))
}

async fn grants(bed: &Bed) -> Result<f64> {
    bed.testbed.registry.metric("etcd_debugging_lease_granted_total").await
}
