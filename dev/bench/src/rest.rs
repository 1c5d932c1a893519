//! Nothing changes any more: the CPU time until every status is written, then CPU time and memory at rest.
//!
//! Owns the moment at which rest begins: every status is written, every Event is told, and the process is quiet.
//! Refuses to change anything.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::{Instant, sleep};
use twinspan_testbed::Twinspan;

use crate::bed::{Bed, Bridge, Direction, Shape};
use crate::cold::{self, GROUP};
use crate::counters;
use crate::report::{Row, number};
use crate::run::Run;

/// Statuses are written at 20 a second.
const STATUSES: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_secs(1);
/// The time in which statuses that wait are worth a figure.
const STORM: Duration = Duration::from_secs(3);
/// A number of waiting statuses that stays the same for so many polls is that of rest.
const SAME: usize = 8;
const QUIET: Duration = Duration::from_secs(60);
/// Events are told at 10 a second, 1,000 at most.
const EVENTS: Duration = Duration::from_secs(150);

/// After a cold start: the CPU time while statuses are written.
pub async fn statuses(run: &mut Run, direction: Direction, shape: Shape) -> Result<()> {
    cold::settle(run, direction, shape).await?;
    let twinspan = run.bed.twinspan()?;
    let process = run.bed.process(Bridge::Twinspan, GROUP)?;
    let (start, before) = (Instant::now(), process.cpu()?);
    let within = run.form.pick(Duration::from_secs(10), STATUSES);
    while twinspan.metric("twinspan_statuses_waiting").await? != Some(0.0) && start.elapsed() < within {
        sleep(POLL).await;
    }
    let (cpu, passed) = ((process.cpu()? - before).as_secs_f64(), start.elapsed());
    ensure!(passed >= STORM, "no status waited for {STORM:?}: a cold start comes first");
    let scenario = format!("statuses after a cold {}, {shape}", direction.label());
    let row = Row::new(&scenario, "CPU", Bridge::Twinspan.label());
    let row = row.rate(cpu / passed.as_secs_f64() * 100.0, "% of a core");
    run.report.rows.push(row.fact("observed for", format!("{} s", number(passed.as_secs_f64()))));
    Ok(())
}

pub async fn run(run: &mut Run, direction: Direction, shape: Shape) -> Result<()> {
    cold::settle(run, direction, shape).await?;
    let waiting = statuses_settle(run.bed.twinspan()?).await?;
    events_settle(&run.bed).await?;
    let process = run.bed.process(Bridge::Twinspan, GROUP)?;
    process.quiet(QUIET).await?;
    let seconds = run.form.pick(10, 30);
    let before = process.cpu()?;
    sleep(Duration::from_secs(seconds)).await;
    let cpu = (process.cpu()? - before).as_secs_f64();
    let memory = process.memory()?;

    let scenario = format!("at rest, {} {shape}", direction.label());
    let row = Row::new(&scenario, "CPU", Bridge::Twinspan.label()).rate(cpu * 60.0 / seconds as f64, "s CPU/min");
    let row = row
        .fact("RSS", format!("{} MiB", number(memory.now)))
        .fact("RSS at most", format!("{} MiB", number(memory.peak)))
        .fact("statuses that wait", number(waiting));
    run.report.rows.push(row);
    let panel = format!("{}: MiB resident at rest, by instances", direction.label());
    run.report.size(&panel, Bridge::Twinspan.label(), shape.all() as f64, memory.now);
    Ok(())
}

/// Waits until no status is written any more. Returns the number of those that Twinspan says to wait still.
async fn statuses_settle(twinspan: &Twinspan) -> Result<f64> {
    let (start, mut before, mut same) = (Instant::now(), None, 0);
    while start.elapsed() < STATUSES {
        let waiting = twinspan.metric("twinspan_statuses_waiting").await?;
        same = if waiting == before { same + 1 } else { 0 };
        before = waiting;
        if waiting == Some(0.0) || same >= SAME {
            return Ok(waiting.unwrap_or_default());
        }
        sleep(POLL).await;
    }
    bail!("statuses are still written after {STATUSES:?}")
}

/// Waits until no Event is told any more.
async fn events_settle(bed: &Bed) -> Result<()> {
    let (start, mut before, mut same) = (Instant::now(), None, 0);
    while same < SAME {
        ensure!(start.elapsed() < EVENTS, "Events are still told after {EVENTS:?}");
        let page = counters::of_apiserver(&bed.admin).await?;
        let told = counters::sum(&page, "apiserver_request_total", &["resource=\"events\""]);
        same = if before == Some(told) { same + 1 } else { 0 };
        before = Some(told);
        sleep(POLL).await;
    }
    Ok(())
}
