//! Registrations that are lost at once, and put back; imports go on meanwhile.
//!
//! Owns the loss: one delete of the keys of the group. Refuses to touch what a server registered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::DeleteOptions;
use tokio::time::{Instant, sleep};

use crate::bed::{BASE, Bed, Bridge, Direction, SERVICES, SYNCED, Shape, beginning, service};
use crate::cold::{self, GROUP};
use crate::feed::{Feed, Instance};
use crate::floors;
use crate::line::Line;
use crate::registry::BATCH;
use crate::report::{Row, number};
use crate::run::Run;
use crate::stats::{Ratio, median};

/// Between two imports, as where one is measured at a time.
const GAP: Duration = Duration::from_millis(12);

pub async fn run(run: &mut Run, shape: Shape) -> Result<()> {
    cold::settle(run, Direction::Export, shape).await?;
    let place = Bridge::Twinspan.place(GROUP);
    let range = format!("{}/{}", place.prefix, beginning(GROUP, Direction::Export));
    let (mut rates, mut floors) = (Vec::new(), Vec::new());
    let (mut alone, mut meanwhile) = (Vec::new(), Vec::new());
    let mut line = Line::new(&run.bed, Bridge::Twinspan, BASE, Direction::Import).await?;
    for _ in 0..run.form.pick(2, 10) {
        run.bed.process(Bridge::Twinspan, GROUP)?.quiet(Duration::from_secs(20)).await?;
        floors.push(floors::commits(&mut run.bed, shape.all() / BATCH * BATCH, 4).await?);
        let began = Instant::now();
        let mut feed = run.bed.written(Bridge::Twinspan, GROUP, Direction::Export).await?;
        let mut etcd = run.bed.etcd.clone();
        let back = tokio::spawn({
            let range = range.clone();
            async move {
                etcd.delete(range, Some(DeleteOptions::new().with_prefix())).await?;
                put_back(&mut feed, shape.all()).await
            }
        });
        let during = imports(&mut run.bed, &mut line, || !back.is_finished()).await?;
        meanwhile.push(during);
        rates.push(back.await??);
        // As many imports without a loss, for the comparison.
        let span = began.elapsed().max(Duration::from_millis(500));
        let until = Instant::now() + span;
        alone.push(imports(&mut run.bed, &mut line, || Instant::now() < until).await?);
    }
    let scenario = format!("{} registrations lost at once", shape.all());
    let ratios: Vec<(f64, f64)> = rates.iter().copied().zip(floors.iter().copied()).collect();
    run.report.rows.push(Row::new(&scenario, "put back", "raw").rate(median(&floors), "records/s"));
    let row = Row::new(&scenario, "put back", Bridge::Twinspan.label()).rate(median(&rates), "records/s");
    run.report.rows.push(row.ratio("to raw", Ratio::of(&ratios)).fact("rounds", number(rates.len() as f64)));
    let rounds = [("without", alone), ("meanwhile", meanwhile)].into();
    run.report.compare(&scenario, "imports", &rounds, ["without", "meanwhile"]);
    Ok(())
}

/// Records a second between the first and the last that came back, once all had gone.
async fn put_back(feed: &mut Feed, count: usize) -> Result<f64> {
    let deadline = Instant::now() + SYNCED;
    let mut gone = 0;
    let (mut came, mut span) = (0, None);
    while came < count {
        let change = feed.next(deadline).await.with_context(|| format!("{gone} of {count} went, {came} came back"))?;
        if change.present {
            came += 1;
            span = Some((span.map_or(change.at, |(first, _)| first), change.at));
        } else {
            gone += 1;
        }
    }
    ensure!(gone == count, "{gone} of {count} records went");
    floors::rate(span, count - 1)
}

/// Latencies in milliseconds of imports, one at a time, for as long as something is under way; one at least.
async fn imports(bed: &mut Bed, line: &mut Line, under_way: impl Fn() -> bool) -> Result<Vec<f64>> {
    let (mut samples, mut present) = (Vec::new(), Vec::new());
    while under_way() || samples.is_empty() {
        let name = service(BASE, Direction::Import, samples.len() % SERVICES);
        let instance = Instance { service: name, address: bed.fresh(1)[0] };
        samples.push(line.change(&instance, true).await?.bridged);
        present.push(instance);
        sleep(GAP).await;
    }
    for instance in &present {
        line.change(instance, false).await?;
    }
    Ok(samples)
}
