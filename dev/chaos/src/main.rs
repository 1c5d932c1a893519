//! `make chaos`: several faults at once on real parts, under churn, and what callers see of them.
//!
//! - [`schedule`]: which [`fault`]s, from a seed. [`bed`], [`second`]: the parts, each on a host of its own.
//! - [`inject`]: carries the faults out, with [`nft`] and [`registry`]. [`supervisor`]: brings back what ended.
//!   [`kubelet`]: writes the readiness of pods.
//! - [`run`]: one run. [`settle`]: its end. [`churn`]: the load. [`truth`]: who lives. [`sides`]: what both sides say.
//! - [`calls`], [`samples`], [`foreign`]: what is measured. [`verdict`]: the bounds. [`report`], [`timeline`]: the
//!   words and the picture.
//!
//! Owns the command line, and where the results of a run go. Refuses to know how a run goes.

mod bed;
mod calls;
mod churn;
mod fault;
mod foreign;
mod inject;
mod kubelet;
mod nft;
mod registry;
mod report;
mod run;
mod samples;
mod schedule;
mod second;
mod settle;
mod sides;
mod supervisor;
mod timeline;
mod truth;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use twinspan_testbed::{namespace, repository};

use crate::run::Plan;
use crate::schedule::{Abilities, schedule};

const USAGE: &str = "usage: chaos [--minutes N] [--seed N] [--rest SECONDS] [--second] [--list] [--keep] [--write]
  --minutes N     the length of the part with faults; 10
  --seed N        the schedule; drawn if absent
  --rest SECONDS  how long nothing may be written in the end; 60
  --second        a second cluster with the same names; off, for it needs another core
  --list          print the faults of the seed, and end
  --keep          keep the logs of a run that passed
  --write         write the table and the timeline into docs/";
/// Where the table of a run is in docs/reliability.md.
const MARKS: [&str; 2] = ["<!-- run -->\n", "<!-- end of run -->\n"];

#[derive(Clone, Copy, Debug)]
struct Arguments {
    minutes: u64,
    seed: Option<u64>,
    rest: u64,
    second: bool,
    list: bool,
    keep: bool,
    write: bool,
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(chaos);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments> {
    let mut parsed =
        Arguments { minutes: 10, seed: None, rest: 60, second: false, list: false, keep: false, write: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64> {
            words.next().and_then(|n| n.parse().ok()).with_context(|| format!("{word} needs a number\n{USAGE}"))
        };
        match word.as_str() {
            "--minutes" => parsed.minutes = number()?.max(1),
            "--seed" => parsed.seed = Some(number()?),
            "--rest" => parsed.rest = number()?,
            "--second" => parsed.second = true,
            "--list" => parsed.list = true,
            "--keep" => parsed.keep = true,
            "--write" => parsed.write = true,
            _ => bail!("{USAGE}"),
        }
    }
    Ok(parsed)
}

fn chaos(arguments: Arguments) -> Result<bool> {
    namespace::enter_with_hosts(&["etcdutl"])?;
    let seed = arguments
        .seed
        .unwrap_or_else(|| u64::from(std::process::id()) ^ u64::from(namespace::outer_pid().unwrap_or(1)));
    let window = Duration::from_secs(arguments.minutes * 60);
    let abilities = Abilities { delay: can_delay(), clock: bed::has_faketime() };
    if !abilities.delay {
        println!("this kernel has no netem: no fault delays packets");
    }
    if !abilities.clock {
        println!("libfaketime is missing (dev/setup chaos): no fault moves a clock");
    }
    let faults = schedule(seed, window, abilities);
    println!("seed {seed}, {} faults: when, for how long, what", faults.len());
    faults.iter().for_each(|fault| println!("  {fault}"));
    if arguments.list {
        return Ok(true);
    }
    let plan = Plan { seed, window, rest: Duration::from_secs(arguments.rest), second: arguments.second, faults };

    let dir = std::env::temp_dir().join(format!("twinspan-chaos-{}", namespace::outer_pid()?));
    let binary = std::env::current_exe()?.with_file_name("twinspan");
    ensure!(binary.exists(), "{} is missing; build it with `cargo build`", binary.display());
    let binary = binary.display().to_string();
    let outcome = tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            outcome = run::run(&plan, &dir, &binary) => outcome,
            // Without a handler Ctrl-C does nothing to the first process of a PID namespace.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    });
    let outcome = outcome.with_context(|| format!("seed {seed}; logs are in {}", dir.display()))?;

    let why = verdict::verdict(&outcome.measured);
    let table = report::table(&plan, &outcome, &why);
    println!("\n{table}\n{}", report::details(&outcome));
    let picture = timeline::draw(&plan, &outcome);
    let target = repository().join("target/chaos");
    std::fs::create_dir_all(&target)?;
    std::fs::write(target.join("reliability.md"), &table)?;
    std::fs::write(target.join("reliability.svg"), &picture)?;
    if arguments.write {
        write(&repository().join("docs"), &table, &picture)?;
    }
    if why.is_empty() && !arguments.keep {
        bed::remove(&dir)?;
    } else {
        println!("logs are in {}", dir.display());
    }
    Ok(why.is_empty())
}

/// Puts the table between the marks of the document, and the picture beside it.
fn write(docs: &Path, table: &str, picture: &str) -> Result<()> {
    let page: PathBuf = docs.join("reliability.md");
    let text = std::fs::read_to_string(&page)?;
    let [begin, end] = MARKS.map(|mark| text.find(mark));
    let (begin, end) = begin.zip(end).context("docs/reliability.md has lost its marks")?;
    let text = format!("{}{table}{}", &text[..begin + MARKS[0].len()], &text[end..]);
    std::fs::write(page, text)?;
    std::fs::write(docs.join("reliability.svg"), picture)?;
    Ok(())
}

/// True if the kernel can delay packets, by a try on the loopback interface of the bed.
fn can_delay() -> bool {
    let tc =
        |words: &str| Command::new("tc").args(words.split(' ')).output().is_ok_and(|output| output.status.success());
    let can = tc("qdisc add dev lo root netem delay 1ms");
    if can {
        tc("qdisc del dev lo root");
    }
    can
}
