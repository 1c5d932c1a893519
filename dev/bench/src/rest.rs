//! Nothing changes: the CPU time and the memory of Twinspan at rest.
//!
//! Owns the moment at which rest begins: every status is written, and the process is quiet. Refuses to change anything.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};
use twinspan_testbed::Twinspan;

use crate::bed::{Bridge, Direction, INSTANCES};
use crate::cold::{self, GROUP};
use crate::report::{Row, number};
use crate::run::Run;

/// Statuses are written at 20 a second.
const STATUSES: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_secs(1);
/// A number of waiting statuses that stays the same for so many polls is that of rest.
const SAME: usize = 8;
const QUIET: Duration = Duration::from_secs(60);

pub async fn run(run: &mut Run, direction: Direction, size: usize) -> Result<()> {
    cold::settle(run, direction, size).await?;
    let waiting = statuses_settle(run.bed.twinspan()?).await?;
    let process = run.bed.process(Bridge::Twinspan, GROUP)?;
    process.quiet(QUIET).await?;
    let seconds = run.form.pick(10, 30);
    let before = process.cpu()?;
    sleep(Duration::from_secs(seconds)).await;
    let cpu = (process.cpu()? - before).as_secs_f64();
    let memory = process.memory()?;

    let scenario = format!("at rest, {} {size} × {INSTANCES}", direction.label());
    let row = Row::new(&scenario, "CPU", Bridge::Twinspan.label()).rate(cpu * 60.0 / seconds as f64, "s CPU/min");
    let row = row
        .fact("RSS", format!("{} MiB", number(memory.now)))
        .fact("RSS at most", format!("{} MiB", number(memory.peak)))
        .fact("statuses that wait", number(waiting));
    run.report.rows.push(row);
    let panel = format!("{}: MiB resident at rest, by instances", direction.label());
    run.report.size(&panel, Bridge::Twinspan.label(), (size * INSTANCES) as f64, memory.now);
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
