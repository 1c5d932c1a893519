//! `sim`: runs one seed, or many.
//!
//! Owns the command line. Refuses to judge: a violation is printed, and the exit code tells.

use std::process::ExitCode;
use std::time::Instant;

use twinspan_sim::plan::Plan;
use twinspan_sim::run::run;

/// Lines of the trace that a failure shows.
const LAST_LINES: usize = 40;

#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for people, which measures real time")]
fn main() -> ExitCode {
    let number = |name: &str, or: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (first, count, prints) = (number("SEED", 1), number("SEEDS", 1), number("TRACE", 0) > 0);
    let started = Instant::now();
    let (mut failed, mut virtual_time, mut polls) = (0, std::time::Duration::ZERO, 0);
    for seed in first..first + count {
        let outcome = run(&Plan::of(seed), prints);
        virtual_time += outcome.length;
        polls += outcome.polls;
        if !outcome.violations.is_empty() {
            failed += 1;
            println!("seed {seed}:");
            for violation in outcome.violations.iter().take(8) {
                println!("  {violation}");
            }
            if count == 1 && !prints {
                let from = outcome.lines.len().saturating_sub(LAST_LINES);
                outcome.lines[from..].iter().for_each(|line| println!("    {line}"));
            }
        }
        if count == 1 {
            println!("trace {:x}, {} lines, faults {:?}", outcome.trace, outcome.lines.len(), outcome.faults);
        }
    }
    let wall = started.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {failed} with violations, {:.0} virtual seconds and {polls} polls in {wall:.1} s: {:.2} seeds/s",
        virtual_time.as_secs_f64(),
        count as f64 / wall
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
