//! Discovery: the cold start of Services whose RegisteredServices one ServiceRegistry made, beside that of as many that
//! were written by hand, and beside an ideal bridge; and the time until many new Services are exported.
//!
//! Owns both ways in which the objects come, and their comparison in one run. Refuses to count the time in which
//! discovery makes the objects of the first start, which it paces on purpose.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use twinspan::api::ServiceRegistry;
use twinspan_testbed::{apply_file, discovery_manifest};

use crate::bed::{Bed, Bridge, Direction, REGISTRY, SYNCED, Shape, service};
use crate::cluster;
use crate::cold::{self, GROUP, Start};
use crate::feed::Feed;
use crate::report::{Row, number};
use crate::run::Run;
use crate::stats::{Ratio, median};

/// The way in which RegisteredServices come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Objects {
    HandWritten,
    Discovered,
}

impl Objects {
    fn label(self) -> &'static str {
        match self {
            Self::HandWritten => "hand-written",
            Self::Discovered => "discovered",
        }
    }
}

/// The cold start, and the time from the first new Service to the last record.
struct Times {
    cold: Start,
    new: Duration,
}

/// One of the figures.
type Of = fn(&Times) -> f64;

/// `new` Services come once all others are exported.
pub async fn run(run: &mut Run, shape: Shape, new: usize) -> Result<()> {
    run.base().await?;
    run.settled = None;
    apply_file(&run.bed.admin, &discovery_manifest()).await?;
    let (mut ideal, mut by_hand, mut discovered) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.form.pick(1, 3) {
        run.bed.stop_twinspan().await?;
        ideal.push(self::ideal(&mut run.bed, shape).await?.rate);
        by_hand.push(times(&mut run.bed, Objects::HandWritten, shape, new).await?);
        discovered.push(times(&mut run.bed, Objects::Discovered, shape, new).await?);
    }
    let scenario = format!("discovery, {shape}");
    let news = format!("{new} new Services are exported");
    let written = |of: &str, rates: &[f64]| {
        Row::new(&scenario, "cold start, first to last write", of).rate(median(rates), "records/s")
    };
    run.report.rows.push(written(Bridge::Ideal.label(), &ideal));
    for (objects, all) in [(Objects::HandWritten, &by_hand), (Objects::Discovered, &discovered)] {
        let figures = |of: Of| -> Vec<f64> { all.iter().map(of).collect() };
        let to_hand_written = |of: Of| Ratio::of(&all.iter().map(of).zip(by_hand.iter().map(of)).collect::<Vec<_>>());
        let rates = figures(|times| times.cold.rate);
        let to_ideal: Vec<(f64, f64)> = rates.iter().copied().zip(ideal.iter().copied()).collect();
        run.report.rows.push(written(objects.label(), &rates).ratio("to ideal", Ratio::of(&to_ideal)));
        let measured: [(&str, Of); 2] =
            [("cold start", |times| milliseconds(times.cold.last)), (news.as_str(), |times| milliseconds(times.new))];
        for (measure, of) in measured {
            let mut row = Row::new(&scenario, measure, objects.label()).samples(&figures(of));
            if objects == Objects::Discovered {
                row = row.ratio("to hand-written", to_hand_written(of));
            }
            if measure == news {
                let most = figures(of).into_iter().fold(0.0, f64::max);
                row = row.fact("a second", number(new as f64 * 1000.0 / most));
            }
            run.report.rows.push(row);
        }
    }
    Ok(())
}

fn milliseconds(of: Duration) -> f64 {
    of.as_secs_f64() * 1000.0
}

/// The cold start of the ideal bridge, whose records are lost as those of Twinspan are: etcd keeps what was deleted.
async fn ideal(bed: &mut Bed, shape: Shape) -> Result<Start> {
    let direction = Direction::Export;
    bed.clear(Bridge::Ideal, GROUP).await?;
    bed.seed(Bridge::Ideal, GROUP, direction, shape).await?;
    bed.start_ideal(GROUP)?.ready().await?;
    bed.stop_ideal(GROUP).await?;
    let mut feed = lose(bed, Bridge::Ideal).await?;
    let begin = Instant::now();
    bed.start_ideal(GROUP)?;
    let span = feed.until_count(shape.all(), begin + SYNCED).await?;
    bed.clear(Bridge::Ideal, GROUP).await?;
    cold::measured(begin, span, direction, shape)
}

/// The registry loses all exports of a bridge. Returns what comes after that.
async fn lose(bed: &mut Bed, bridge: Bridge) -> Result<Feed> {
    bed.delete_records(bridge, GROUP, Direction::Export).await?;
    bed.written(bridge, GROUP, Direction::Export).await
}

async fn times(bed: &mut Bed, objects: Objects, shape: Shape, new: usize) -> Result<Times> {
    let measured = measure(bed, objects, shape, new).await;
    bed.clear(Bridge::Twinspan, GROUP).await?;
    discover(bed, None).await?;
    measured
}

async fn measure(bed: &mut Bed, objects: Objects, shape: Shape, new: usize) -> Result<Times> {
    bed.clear(Bridge::Twinspan, GROUP).await?;
    if objects == Objects::Discovered {
        let namespace = Bridge::Twinspan.place(GROUP).namespace;
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
        let export = json!({"namespaceSelector": selector, "serviceSelector": {}});
        discover(bed, Some(json!({"policy": "Sync", "export": export}))).await?;
    }
    seed(bed, objects, shape, 0).await?;
    bed.twinspan_leads().await?;
    until_exported(bed, shape.all()).await.context("the first start")?;

    // Every object is there and was seen; the registry lost everything.
    bed.stop_twinspan().await?;
    let mut feed = lose(bed, Bridge::Twinspan).await?;
    let begin = Instant::now();
    bed.start_twinspan()?;
    let span = feed.until_count(shape.all(), begin + SYNCED).await?;
    let cold = cold::measured(begin, span, Direction::Export, shape)?;

    bed.twinspan_leads().await?;
    let begin = Instant::now();
    seed(bed, objects, Shape::of(new), shape.services).await?;
    let all = shape.all() + Shape::of(new).all();
    let (_, last) = feed.until_count(all, begin + SYNCED).await?.context("nothing was written")?;
    Ok(Times { cold, new: last - begin })
}

/// Makes Services from this number on, with their slices, and by hand their RegisteredServices.
async fn seed(bed: &mut Bed, objects: Objects, shape: Shape, first: usize) -> Result<()> {
    let place = Bridge::Twinspan.place(GROUP);
    bed.create_namespace(&place.namespace).await?;
    let names = (first..first + shape.services).map(|n| service(GROUP, Direction::Export, n));
    let names: Vec<String> = names.collect();
    let slices = bed.sources(&place, &names, shape.instances);
    cluster::create_slices(&bed.admin, &place, &slices).await?;
    cluster::create_headless(&bed.admin, &place, &names).await?;
    match objects {
        Objects::HandWritten => cluster::register(&bed.admin, &place, REGISTRY, &names).await,
        Objects::Discovered => Ok(()),
    }
}

/// Discovery makes objects at its own pace.
async fn until_exported(bed: &Bed, count: usize) -> Result<()> {
    let mut feed = bed.written(Bridge::Twinspan, GROUP, Direction::Export).await?;
    feed.until_count(count, Instant::now() + 4 * SYNCED).await.map(drop)
}

async fn discover(bed: &Bed, discovery: Option<Value>) -> Result<()> {
    let api: Api<ServiceRegistry> = Api::all(bed.admin.clone());
    let patch = Patch::Merge(json!({"spec": {"discovery": discovery}}));
    api.patch(REGISTRY, &PatchParams::default(), &patch).await?;
    Ok(())
}
