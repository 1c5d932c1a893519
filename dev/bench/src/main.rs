//! `make bench`: floors first, then an ideal bridge of raw clients and Twinspan on the same servers, in turns.
//!
//! - [`bed`]: the parts and the two bridges. [`ideal`]: the ideal one. [`line`]: changes and the clock of a latency, by
//!   the [`feed`]s of both sides. [`records`], [`registry`], [`cluster`]: raw clients. [`process`], [`counters`]: the
//!   costs.
//! - [`scenarios`]: their order; a new one is a file and a line there. [`floors`], [`latency`], [`spaced`], [`large`],
//!   [`churn`], [`cold`], [`lost`], [`restart`], [`takeover`], [`rest`], [`beside`], [`slow`], [`crowd`], [`page`]:
//!   the measurements. [`run`]: the state that one leaves for the next. [`soak`]: changes for a long time, which has a
//!   verdict.
//! - [`stats`]: percentiles and ratios. [`report`]: the table. [`pictures`], [`svg`]: the pictures. [`machine`].
//!
//! Owns the command line, and where the results of a run go. Refuses to judge: a figure is never a verdict, but
//! for those of a soak.

mod bed;
mod beside;
mod churn;
mod cluster;
mod cold;
mod counters;
mod crowd;
mod feed;
mod floors;
mod ideal;
mod large;
mod latency;
mod line;
mod lost;
mod machine;
mod page;
mod pictures;
mod process;
mod records;
mod registry;
mod report;
mod rest;
mod restart;
mod run;
mod scenarios;
mod slow;
mod soak;
mod spaced;
mod stats;
mod svg;
mod takeover;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};
use twinspan_testbed::{namespace, repository};

use crate::bed::Bed;
use crate::machine::Machine;
use crate::report::Report;
use crate::run::{Form, Run};

const USAGE: &str = "usage: bench [--quick] [--only NAME] [--seed N] [--twinspan PATH] [--list]
  --quick          the form of a few minutes, which judges no p99
  --only NAME      one scenario, or all whose names begin with NAME and a dash
  --seed N         the order of the churn; 1
  --twinspan PATH  the operator; the binary beside this one if absent
  --soak MINUTES   change instances for so long in place of the scenarios, and compare both sides
  --list           print the names of the scenarios, and end";

#[derive(Debug)]
struct Arguments {
    form: Form,
    only: Option<String>,
    seed: u64,
    twinspan: Option<PathBuf>,
    soak: Option<usize>,
    list: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let outcome = if words.next_if(|word| word == bed::IDEAL).is_some() {
        ideal(words)
    } else {
        arguments(words).and_then(|arguments| bench(&arguments))
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let (form, seed) = (Form::Full, 1);
    let mut parsed = Arguments { form, only: None, seed, twinspan: None, soak: None, list: false };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--quick" => parsed.form = Form::Quick,
            "--only" => parsed.only = Some(value()?),
            "--seed" => parsed.seed = value()?.parse().context("--seed needs a number")?,
            "--twinspan" => parsed.twinspan = Some(PathBuf::from(value()?)),
            "--soak" => parsed.soak = Some(value()?.parse().context("--soak needs minutes")?),
            "--list" => parsed.list = true,
            _ => bail!("{USAGE}"),
        }
    }
    Ok(parsed)
}

/// The process of an ideal bridge, which a run starts inside its namespace.
fn ideal(words: impl Iterator<Item = String>) -> Result<bool> {
    let order = ideal::Order::read(words)?;
    tokio::runtime::Runtime::new()?.block_on(ideal::run(&order))?;
    Ok(true)
}

fn bench(arguments: &Arguments) -> Result<bool> {
    let names = scenarios::names(arguments.form);
    if arguments.list {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    let only = arguments.only.as_deref();
    let meant = names.iter().any(|name| scenarios::is_meant(name, only));
    ensure!(meant, "no scenario {}; there are {}", only.unwrap_or_default(), names.join(", "));
    namespace::enter(&[])?;
    let dir = std::env::temp_dir().join(format!("twinspan-bench-{}", namespace::outer_pid()?));
    let beside = std::env::current_exe()?.with_file_name("twinspan");
    let binary = arguments.twinspan.clone().unwrap_or(beside);
    ensure!(binary.exists(), "{} is missing; build it with `cargo build --release`", binary.display());

    if let Some(minutes) = arguments.soak {
        return soak(minutes, arguments.seed, &dir, &binary.display().to_string());
    }
    let start = Instant::now();
    let keep = |report: &mut Report| {
        report.seconds = start.elapsed().as_secs();
        write(report)
    };
    let report = tokio::runtime::Runtime::new()?.block_on(async {
        let bed = Bed::start(&dir, &binary.display().to_string()).await?;
        let (form, seed) = (arguments.form, arguments.seed);
        let report = Report::new(Machine::read()?, form.label(), seed);
        let mut run = Run { bed, report, form, seed, settled: None, prepared: false };
        tokio::select! {
            outcome = scenarios::run(&mut run, only, keep) => outcome.map(|()| run.report),
            () = interrupted() => bail!("interrupted"),
        }
    })?;
    println!("\n{}", report.markdown());
    if report.failures.is_empty() {
        // A process that ends at this moment may still write; files that stay do no harm.
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        println!("logs are in {}", dir.display());
    }
    Ok(report.failures.is_empty())
}

/// Writes the report of what was measured so far.
fn write(report: &Report) -> Result<()> {
    let target = repository().join("target/bench");
    std::fs::create_dir_all(&target)?;
    std::fs::write(target.join("report.md"), report.markdown())?;
    std::fs::write(target.join("report.json"), report.json()?)?;
    std::fs::write(target.join("latency.svg"), pictures::latency(report))?;
    std::fs::write(target.join("size.svg"), pictures::size(report))?;
    Ok(())
}

/// Ends with the first signal that asks the program to end: without a handler it does nothing to the first process of a
/// PID namespace.
async fn interrupted() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(_) => return,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Runs the soak, and writes its report beside those of the scenarios.
fn soak(minutes: usize, seed: u64, dir: &Path, binary: &str) -> Result<bool> {
    let outcome = tokio::runtime::Runtime::new()?.block_on(async {
        let mut bed = Bed::start(dir, binary).await?;
        tokio::select! {
            outcome = soak::run(&mut bed, minutes, seed) => outcome,
            () = interrupted() => bail!("interrupted"),
        }
    });
    let report = outcome.with_context(|| format!("logs are in {}", dir.display()))?;
    let target = repository().join("target/bench");
    std::fs::create_dir_all(&target)?;
    std::fs::write(target.join("soak.md"), &report)?;
    println!("\n{report}");
    let _ = std::fs::remove_dir_all(dir);
    Ok(true)
}
