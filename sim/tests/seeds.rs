//! Seeds: each makes a world, a load and its faults, and breaks no invariant; a seed gives one run.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use twinspan_sim::many::{note_log_lines, reached_log_lines, run_all};
use twinspan_sim::plan::Plan;
use twinspan_sim::run::run;

/// Seeds that every test run tries, unless `TWINSPAN_SEEDS` says how many. `make soak` tries more.
const SEEDS: u64 = 120;
/// Each kind of fault comes at least so often in a thousand seeds.
const EACH_FAULT: u64 = 5;

#[test]
#[expect(clippy::disallowed_methods, reason = "seeds a second are of real time")]
fn seeds_break_no_invariant() {
    note_log_lines();
    let started = Instant::now();
    let seeds = std::env::var("TWINSPAN_SEEDS").map_or(SEEDS, |number| number.parse().unwrap());
    let sum = run_all((1..=seeds).map(|seed| (format!("SEED={seed}"), Plan::of(seed))), 10);
    let rate = sum.runs as f64 / started.elapsed().as_secs_f64();
    println!("seeds: {rate:.1} a second; {sum}");
    assert!(sum.failed.is_empty(), "{sum}");
    let rare: Vec<_> = sum.faults.iter().filter(|(_, count)| **count * 1000 < EACH_FAULT * seeds).collect();
    assert!(rare.is_empty(), "too rare: {rare:?}");
    let unreached = unreached_log_lines().unwrap();
    println!("log lines that no seed reached: {unreached:#?}");
}

#[test]
fn a_seed_gives_one_run() {
    for seed in 1..=10 {
        let plan = Plan::of(seed);
        let (first, second) = (run(&plan, false), run(&plan, false));
        let differs = first.lines.iter().zip(&second.lines).find(|(a, b)| a != b);
        assert_eq!(first.trace, second.trace, "seed {seed}: {differs:?}");
        assert!(first.length > Duration::from_secs(60));
    }
}

/// The log lines of the operator, by file and text of the line.
fn unreached_log_lines() -> std::io::Result<BTreeSet<String>> {
    let reached = reached_log_lines();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut unreached = BTreeSet::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?.path();
            let name = entry.strip_prefix(&root).unwrap_or(&entry).to_string_lossy().into_owned();
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let outside = ["cli/", "tools/", "telemetry/", "registry/fake/"].iter().any(|part| name.starts_with(part));
            if outside || !name.ends_with(".rs") || name.ends_with("_tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&entry)?;
            let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for (number, line) in program.lines().enumerate() {
                let logs = ["info!(", "warn!(", "error!(", "debug!("].iter().any(|log| line.trim().starts_with(log));
                let place = (format!("src/{name}"), number as u32 + 1);
                if logs && !reached.contains(&place) {
                    let more = program.lines().skip(number).take(8).find(|line| line.contains('"')).unwrap_or(line);
                    unreached.insert(format!("{name}: {}", more.trim()));
                }
            }
        }
    }
    Ok(unreached)
}
