//! A soak: changes at a steady rate in both directions for a long time, then both sides are compared.
//!
//! Owns the rates, a line of figures for each minute, and the verdict: both sides are equal, no write and no pass
//! failed, and memory did not grow. Refuses to compare with an ideal bridge, which [`crate::churn`] does.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::bed::{Bed, Bridge, Direction, SYNCED, Shape, beginning};
use crate::churn::{Load, plan};
use crate::counters;
use crate::feed::{Feed, Instance};
use crate::line::{Line, Sample};
use crate::records::SOURCE;
use crate::stats::{Spread, sorted};

const GROUP: &str = "soak";
/// Services of each direction.
const SERVICES: usize = 500;
/// Changes a second in each direction.
const RATE: u32 = 25;
/// The memory at the end may exceed that of the first minutes by so much: an allocator keeps some of what it got.
const GROWTH: f64 = 1.10;
/// Memory is judged after so many minutes: what is kept for a while, as departures are for five, is there by then.
const WARM: usize = 10;

/// The figures of one minute.
#[derive(Clone, Copy, Debug)]
struct Minute {
    import: Spread,
    export: Spread,
    /// Resident, in MiB.
    memory: f64,
    /// Share of one core, in percent.
    cpu: f64,
}

/// Counters from the beginning of the soak to its end.
#[derive(Clone, Copy, Debug)]
struct Counted {
    passes: f64,
    failed_passes: f64,
    writes: f64,
    failed_writes: f64,
    warnings: usize,
    /// Watches that were opened at the API server, by whomever, and lists.
    watches: f64,
    lists: f64,
    /// Watches on the etcd server, and the slow ones among them.
    etcd_watchers: f64,
    etcd_slow: f64,
}

/// Runs for so many minutes.
///
/// # Errors
/// The verdict, in words, or the reason why there is none.
pub async fn run(bed: &mut Bed, minutes: usize, seed: u64) -> Result<String> {
    for direction in Direction::BOTH {
        bed.seed(Bridge::Twinspan, GROUP, direction, Shape::of(SERVICES)).await?;
    }
    bed.twinspan_leads().await?;
    for direction in Direction::BOTH {
        let mut feed = bed.written(Bridge::Twinspan, GROUP, direction).await?;
        feed.until_count(Shape::of(SERVICES).all(), Instant::now() + SYNCED).await?;
    }
    let before = counted(bed).await?;
    let [mut import, mut export] = [
        Line::new(bed, Bridge::Twinspan, GROUP, Direction::Import).await?,
        Line::new(bed, Bridge::Twinspan, GROUP, Direction::Export).await?,
    ];
    let mut random = StdRng::seed_from_u64(seed);
    let mut all: Vec<Minute> = Vec::new();
    for minute in 1..=minutes {
        let mut plan = |direction| {
            let load = Load { group: GROUP, services: SERVICES, rate: RATE, seconds: 60 };
            plan(bed, &mut random, direction, load)
        };
        let plans = (plan(Direction::Import), plan(Direction::Export));
        let process = bed.process(Bridge::Twinspan, GROUP)?;
        let (start, cpu) = (Instant::now(), process.cpu()?);
        let (imports, exports) = tokio::join!(import.follow(&plans.0), export.follow(&plans.1));
        let figures = Minute {
            import: spread(&imports.with_context(|| format!("imports of minute {minute}"))?)?,
            export: spread(&exports.with_context(|| format!("exports of minute {minute}"))?)?,
            memory: process.memory()?.now,
            cpu: (process.cpu()? - cpu).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0,
        };
        println!("{}", row(minute, &figures));
        all.push(figures);
    }
    let after = counted(bed).await?;
    let differences = compare(bed).await?;
    let report = report(&all, &before, &after, &differences);
    ensure!(differences.is_empty(), "{report}\nboth sides differ");
    ensure!(after.failed_writes == before.failed_writes, "{report}\nwrites failed");
    ensure!(after.failed_passes == before.failed_passes, "{report}\npasses failed");
    if let Some((early, late)) = growth(&all) {
        ensure!(late <= early * GROWTH, "{report}\nmemory grew from {early:.1} to {late:.1} MiB");
    }
    Ok(report)
}

fn spread(samples: &[Sample]) -> Result<Spread> {
    Spread::of(&samples.iter().map(|sample| sample.bridged).collect::<Vec<_>>()).context("no samples")
}

/// The median memory of the minutes after the warm-up and of the last ones: a tenth of the minutes each.
fn growth(all: &[Minute]) -> Option<(f64, f64)> {
    let rest = all.get(WARM..).filter(|rest| rest.len() >= WARM)?;
    let part = (rest.len() / 10).max(3);
    let median = |minutes: &[Minute]| {
        let memory = sorted(&minutes.iter().map(|minute| minute.memory).collect::<Vec<_>>());
        memory.get(memory.len() / 2).copied()
    };
    Some((median(rest.get(..part)?)?, median(rest.get(rest.len() - part..)?)?))
}

/// The instances that one side has and the other lacks, once nothing changes any more.
async fn compare(bed: &Bed) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for direction in Direction::BOTH {
        let (from, to) = sides(bed, direction).await?;
        let told = |missing: BTreeSet<&Instance>, side: &str| -> Vec<String> {
            let label = direction.label();
            missing.into_iter().map(|one| format!("{label}: {} {} {side}", one.service, one.address)).collect()
        };
        let [from, to] = [&from, &to].map(|side| side.iter().collect::<BTreeSet<&Instance>>());
        differences.extend(told(from.difference(&to).copied().collect(), "is missing"));
        differences.extend(told(to.difference(&from).copied().collect(), "is left over"));
    }
    Ok(differences)
}

/// The instances on the side from which they come, and on the other: fresh lists of both.
async fn sides(bed: &Bed, direction: Direction) -> Result<(Vec<Instance>, Vec<Instance>)> {
    let place = Bridge::Twinspan.place(GROUP);
    let source = match direction {
        Direction::Import => Feed::records(&bed.etcd, &place, &beginning(GROUP, direction)).await?,
        Direction::Export => Feed::slices(&bed.admin, &place.namespace, SOURCE).await?,
    };
    let written = bed.written(Bridge::Twinspan, GROUP, direction).await?;
    let all = |feed: &Feed| feed.present().cloned().collect::<Vec<_>>();
    let ours = |instance: &Instance| instance.service.starts_with(&beginning(GROUP, direction));
    Ok((all(&source).into_iter().filter(ours).collect(), all(&written).into_iter().filter(ours).collect()))
}

async fn counted(bed: &Bed) -> Result<Counted> {
    let twinspan = bed.twinspan()?;
    let (status, page) = twinspan.get("/metrics").await?;
    if status != 200 {
        bail!("Twinspan's metrics: {status}");
    }
    let apiserver = counters::of_apiserver(&bed.admin).await?;
    let requests = |verb: &str| counters::sum(&apiserver, "apiserver_request_total", &[verb]);
    let (passes, writes) = ("twinspan_reconcile_total", "twinspan_writes_total");
    let all_writes = counters::sum(&page, writes, &[]);
    let good = |result: &str| counters::sum(&page, writes, &[&format!("result=\"{result}\"")]);
    let is_warning = |line: &String| line.contains("WARN") || line.contains("ERROR");
    Ok(Counted {
        passes: counters::sum(&page, passes, &[]),
        failed_passes: counters::sum(&page, passes, &["outcome=\"failed\""]),
        writes: all_writes,
        // A lost race is planned again: another writer was first.
        failed_writes: all_writes - good("ok") - good("lost_race"),
        warnings: twinspan.part().lines().iter().filter(|line| is_warning(line)).count(),
        watches: requests("verb=\"WATCH\""),
        lists: requests("verb=\"LIST\""),
        etcd_watchers: bed.testbed.registry.metric("etcd_debugging_mvcc_watcher_total").await?,
        etcd_slow: bed.testbed.registry.metric("etcd_debugging_mvcc_slow_watcher_total").await?,
    })
}

fn row(minute: usize, of: &Minute) -> String {
    let Minute { import, export, memory, cpu } = of;
    format!(
        "| {minute} | {:.1} | {:.1} | {:.1} | {:.1} | {memory:.1} | {cpu:.1} |",
        import.p50, import.p99, export.p50, export.p99
    )
}

fn report(all: &[Minute], before: &Counted, after: &Counted, differences: &[String]) -> String {
    let mut text = format!(
        "Soak of {} min: {} changes/s over {} services, in both directions.\n\n\
         | minute | import p50 ms | p99 | export p50 ms | p99 | RSS MiB | CPU % of a core |\n|---|---|---|---|---|---|---|\n",
        all.len(),
        2 * RATE,
        2 * SERVICES,
    );
    let every = (all.len() / 12).max(1);
    for (n, minute) in all.iter().enumerate().filter(|(n, _)| (n + 1) % every == 0) {
        let _ = writeln!(text, "{}", row(n + 1, minute));
    }
    let counts = [
        ("passes", after.passes - before.passes),
        ("passes that failed", after.failed_passes - before.failed_passes),
        ("writes", after.writes - before.writes),
        ("writes that failed", after.failed_writes - before.failed_writes),
        ("warnings and errors in the log", (after.warnings - before.warnings) as f64),
        ("watches opened at the API server (every client's)", after.watches - before.watches),
        ("lists at the API server (every client's)", after.lists - before.lists),
        ("watches of etcd: more or fewer than at the start", after.etcd_watchers - before.etcd_watchers),
        ("slow watches of etcd at the end", after.etcd_slow),
        ("instances that differ", differences.len() as f64),
    ];
    text.push('\n');
    for (name, count) in counts {
        let _ = writeln!(text, "- {name}: {count}");
    }
    for difference in differences.iter().take(20) {
        let _ = writeln!(text, "  - {difference}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(memory: impl IntoIterator<Item = f64>) -> Vec<Minute> {
        let none = Spread { n: 1, p50: 1.0, p90: 1.0, p99: 1.0 };
        memory.into_iter().map(|memory| Minute { import: none, export: none, memory, cpu: 1.0 }).collect()
    }

    #[test]
    fn growth_is_that_after_the_warm_up() {
        assert_eq!(growth(&minutes((0..19).map(f64::from))), None, "too short to judge");
        let leak = growth(&minutes((0..60).map(f64::from)));
        assert_eq!(leak, Some((12.0, 57.0)));
        let flat = growth(&minutes((0..60).map(|n| if n < 10 { 500.0 } else { 100.0 })));
        assert_eq!(flat, Some((100.0, 100.0)));
    }
}
