//! Nothing changes: the CPU time and the memory of Twinspan at rest.
//!
//! Owns the moment at which rest begins: every status is written, and the process is quiet. Refuses to change anything.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use twinspan_testbed::eventually;

use crate::bed::{Bridge, Direction, INSTANCES};
use crate::cold::{self, GROUP};
use crate::report::{Row, number};
use crate::run::Run;

/// Statuses are written at 20 a second.
const STATUSES: Duration = Duration::from_secs(900);
const QUIET: Duration = Duration::from_secs(60);

pub async fn run(run: &mut Run, direction: Direction, size: usize) -> Result<()> {
    cold::settle(run, direction, size).await?;
    let twinspan = run.bed.twinspan()?;
    eventually("every status is written", STATUSES, || async {
        let waiting = twinspan.metric("twinspan_statuses_waiting").await?;
        ensure!(waiting == Some(0.0), "{waiting:?} statuses wait");
        Ok(())
    })
    .await?;
    let process = run.bed.process(Bridge::Twinspan, GROUP)?;
    process.quiet(QUIET).await?;
    let seconds = run.form.pick(15, 30);
    let before = process.cpu()?;
    sleep(Duration::from_secs(seconds)).await;
    let cpu = (process.cpu()? - before).as_secs_f64();
    let memory = process.memory()?;

    let scenario = format!("at rest, {} {size} × {INSTANCES}", direction.label());
    let row = Row::new(&scenario, "CPU", Bridge::Twinspan.label()).rate(cpu * 60.0 / seconds as f64, "s CPU/min");
    let row = row
        .fact("RSS", format!("{} MiB", number(memory.now)))
        .fact("RSS at most", format!("{} MiB", number(memory.peak)));
    run.report.rows.push(row);
    let panel = format!("{}: MiB resident at rest, by instances", direction.label());
    run.report.size(&panel, Bridge::Twinspan.label(), (size * INSTANCES) as f64, memory.now);
    Ok(())
}
