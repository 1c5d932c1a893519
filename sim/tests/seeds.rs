//! Seeds: each makes a world, a load and its faults, and breaks no invariant; a seed gives one run.

mod unreached;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use twinspan_sim::many::{note_log_lines, reached_log_lines, run_all};
use twinspan_sim::plan::{Op, Plan, Size, Timed};
use twinspan_sim::run::run;
use unreached::UNREACHED;

/// Seeds that every test run tries, unless `TWINSPAN_SEEDS` says how many. `make soak` tries more.
const SEEDS: u64 = 1000;
/// Seeds that run twice.
const TWICE: u64 = 20;
/// Seeds of which each runs without the bridge too.
const CONTROLLED: u64 = 40;
/// Seeds of which each runs beside hostile objects too.
const HOSTILE: u64 = 20;
/// Each kind of fault comes at least so often in a thousand seeds.
const EACH_FAULT: u64 = 100;

#[test]
#[expect(clippy::disallowed_methods, reason = "seeds a second are of real time")]
fn seeds_break_no_invariant() {
    note_log_lines();
    let started = Instant::now();
    let seeds = std::env::var("TWINSPAN_SEEDS").map_or(SEEDS, |number| number.parse().unwrap());
    let sum = run_all((1..=seeds).map(|seed| (format!("SEED={seed}"), Plan::of(seed))), 10);
    let rate = sum.runs as f64 / started.elapsed().as_secs_f64();
    println!("seeds: {rate:.1} a second; {sum}");
    let (unreached, lines) = unreached_log_lines().unwrap();
    println!("log lines that no seed reached: {} of {lines}: {unreached:#?}", unreached.len());
    assert!(sum.failed.is_empty(), "{sum}");
    let rare: Vec<_> = sum.faults.iter().filter(|(_, count)| **count * 1000 < EACH_FAULT * seeds).collect();
    assert!(rare.is_empty(), "too rare: {rare:?}");
    let pinned = |line: &&String| UNREACHED.iter().any(|(part, _)| line.contains(part));
    let missing: Vec<_> = unreached.iter().filter(|line| seeds >= SEEDS && !pinned(line)).collect();
    assert!(missing.is_empty(), "no seed reached these log lines any more: {missing:#?}");
}

#[test]
fn a_seed_gives_one_run() {
    for seed in 1..=TWICE {
        let plan = Plan::of(seed);
        let (first, second) = (run(&plan, false), run(&plan, false));
        let differs = first.lines.iter().zip(&second.lines).find(|(a, b)| a != b);
        assert_eq!(first.trace, second.trace, "seed {seed}: {differs:?}");
        assert!(first.length > Duration::from_secs(60));
    }
}

/// Clients of what each side has by itself fail no more often than without the bridge (T3). A record that is put back
/// outlives its server by design, so that those seeds are no part of it.
#[test]
fn no_call_fails_more_often_than_in_the_control() {
    let heals = |plan: &Plan| plan.spec["import"]["onExpiry"] == "Heal";
    let (mut calls, mut failed) = (0, 0);
    for plan in (1..=CONTROLLED).map(Plan::of).filter(|plan| !heals(plan)) {
        let beside = run(&Plan { rests: false, ..plan.clone() }, false);
        let control = Plan { size: Size { control: Some(beside.calm), ..plan.size }, ..plan };
        let alone = run(&control, false);
        let seed = control.seed;
        assert!(
            beside.failed_calls <= alone.failed_calls,
            "seed {seed}: {} {}",
            beside.failed_calls,
            alone.failed_calls
        );
        (calls, failed) = (calls + 1, failed + alone.failed_calls);
    }
    println!("control: {calls} seeds, in which {failed} calls fail without the bridge");
    assert!(failed > 0, "no call fails without the bridge either: the comparison shows nothing");
}

/// Objects that nobody can carry out, a registry that is away and junk cost nobody else anything: without faults every
/// instance comes and goes as often as without them (I7).
#[test]
fn hostile_objects_cost_their_neighbours_nothing() {
    for seed in 1..=HOSTILE {
        let mut plan = Plan::of(seed);
        plan.ops.retain(|timed| !timed.op.is_fault());
        plan.rests = false;
        let mut hostile = plan.clone();
        hostile.ops.insert(0, Timed { at: Duration::ZERO, op: Op::Hostile { cluster: 0 } });
        let (alone, beside) = (run(&plan, false), run(&hostile, false));
        assert_eq!(beside.violations, [], "seed {seed}");
        let differs = alone.turns.iter().find(|(name, turns)| beside.turns.get(*name) != Some(*turns));
        assert_eq!(differs, None, "seed {seed}: {:?}", differs.and_then(|(name, _)| beside.turns.get(name)));
        assert_eq!(alone.turns.len(), beside.turns.len(), "seed {seed}");
    }
}

/// The log lines of the operator that no seed reached, by file and text of the line, and the number of all.
fn unreached_log_lines() -> std::io::Result<(BTreeSet<String>, usize)> {
    let reached = reached_log_lines();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let (mut unreached, mut lines) = (BTreeSet::new(), 0);
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
                lines += usize::from(logs);
                if logs && !reached.contains(&place) {
                    let more = program.lines().skip(number).take(8).find(|line| line.contains('"')).unwrap_or(line);
                    unreached.insert(format!("{name}: {}", more.trim()));
                }
            }
        }
    }
    Ok((unreached, lines))
}
