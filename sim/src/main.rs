//! `sim`: runs one seed and tells what happened, or many and tells which failed.
//!
//! - `SEED=n`: one seed. `TRACE=1` prints every message and log line; `SHRINK=1` shrinks a seed that breaks an
//!   invariant to a story and its plan, for `sim/found`.
//! - `PLAN=file`: the plan of a file, such as those of `sim/found`, in place of a seed's.
//! - `SEED=n SEEDS=m`: so many seeds from that one on, on all cores, with a line for every thousand of them.
//!   `FIRST=1` runs them one after the other, up to the first that breaks an invariant.
//!
//! Owns the command line. Refuses to judge: a violation is printed, and the exit code tells.

use std::process::ExitCode;
use std::time::Instant;

use twinspan_sim::many::{Sum, run_all};
use twinspan_sim::plan::Plan;
use twinspan_sim::run::run;
use twinspan_sim::shrink::{Shrunk, shrink};

/// Lines of the trace that a failure shows.
const LAST_LINES: usize = 40;
/// Seeds between two lines.
const CHUNK: u64 = 1000;

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> ExitCode {
    let number = |name: &str, or: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (first, count) = (number("SEED", 1), number("SEEDS", 1));
    let holds = if number("FIRST", 0) > 0 {
        until_the_first(first, count)
    } else if count > 1 {
        many(first, count)
    } else if number("SHRINK", 0) > 0 {
        let shrunk = shrink(&Plan::of(first));
        println!("{}", shrunk.as_ref().map_or("no violation".to_owned(), Shrunk::story));
        let plan = shrunk.as_ref().and_then(|shrunk| serde_json::to_string(&shrunk.plan).ok());
        println!("{}", plan.unwrap_or_default());
        shrunk.is_none()
    } else {
        match plan(first) {
            Ok(plan) => one(&plan, number("TRACE", 0) > 0),
            Err(error) => {
                println!("{error}");
                false
            }
        }
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The plan of the file that is named, or else of the seed.
fn plan(seed: u64) -> std::io::Result<Plan> {
    let Ok(path) = std::env::var("PLAN") else { return Ok(Plan::of(seed)) };
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn one(plan: &Plan, prints: bool) -> bool {
    if prints {
        let level = tracing::level_filters::LevelFilter::INFO;
        tracing_subscriber::fmt()
            .without_time()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .with_max_level(level)
            .init();
    }
    let outcome = run(plan, prints);
    if !outcome.violations.is_empty() && !prints {
        let from = outcome.lines.len().saturating_sub(LAST_LINES);
        outcome.lines.iter().skip(from).for_each(|line| println!("    {line}"));
    }
    outcome.violations.iter().for_each(|violation| println!("  {violation}"));
    let seed = plan.seed;
    println!("seed {seed}: trace {:x}, {} lines, faults {:?}", outcome.trace, outcome.lines.len(), outcome.faults);
    outcome.violations.is_empty()
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn until_the_first(first: u64, count: u64) -> bool {
    for seed in first..first + count {
        let outcome = run(&Plan::of(seed), false);
        if !outcome.violations.is_empty() {
            println!("seed {seed}:");
            outcome.violations.iter().take(3).for_each(|violation| println!("  {violation}"));
            return false;
        }
    }
    println!("{count} seeds, 0 with violations");
    true
}

#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for people, which measures real time")]
fn many(first: u64, count: u64) -> bool {
    let (started, mut total) = (Instant::now(), Sum::default());
    let mut from = first;
    while from < first + count {
        let to = (from + CHUNK).min(first + count);
        let sum = run_all((from..to).map(|seed| (format!("SEED={seed}"), Plan::of(seed))), usize::MAX);
        total.merge(sum);
        let wall = started.elapsed().as_secs_f64();
        println!("seeds {first} to {}, {wall:.0} s, {:.1} a second: {total}", to - 1, total.runs as f64 / wall);
        from = to;
    }
    total.failed.is_empty()
}
