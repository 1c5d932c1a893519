//! The report of a run: a table in Markdown.
//!
//! Owns the words. Refuses to judge.

use std::fmt::Write as _;
use std::time::Duration;

use crate::calls::Tally;
use crate::run::{Outcome, Plan};
use crate::samples::{PACE, Side, Wrong};

fn seconds(of: Duration) -> String {
    format!("{:.1} s", of.as_secs_f64())
}

/// The table, and the faults of the run as a list.
pub fn table(plan: &Plan, outcome: &Outcome, why: &[String]) -> String {
    let m = &outcome.measured;
    let mut rows: Vec<(String, String, String)> = Vec::new();
    let mut both =
        |what: &str, of: &dyn Fn(&Tally) -> String| rows.push((what.to_owned(), of(&m.synced), of(&m.control)));
    both("calls of a Kitex client", &|t| t.calls.to_string());
    both("failed", &|t| {
        let reasons: Vec<String> = t.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        if reasons.is_empty() { "0".to_owned() } else { format!("{} ({})", t.failed, reasons.join(", ")) }
    });
    both("failed, to living servers", &|t| t.living.to_string());
    both("failed, without an instance", &|t| t.no_instance.to_string());
    both("failed, to dead servers on VMs", &|t| t.dead_vms.to_string());
    both("failed, to dead pods", &|t| t.dead_pods.to_string());
    both("longest time without an answer", &|t| seconds(t.silence));
    let mut one = |what: &str, value: String| rows.push((what.to_owned(), value, String::new()));
    one("calls to dead servers on VMs that the control did not list", m.late.vms.to_string());
    one("calls to dead pods beyond the bound", m.late.pods.to_string());
    let unanswered = outcome.asked.iter().filter(|asked| asked.answer.is_none()).count();
    let empty = outcome.asked.iter().filter(|asked| asked.answer == Some(0)).count();
    one(
        "questions to DNS",
        format!("{}, {unanswered} without an answer, {empty} answered with nothing", outcome.asked.len()),
    );
    one("longest time without addresses from DNS", seconds(dns_silence(outcome)));
    for (side, name) in [(Side::Cluster, "EndpointSlices"), (Side::Registry, "registry")] {
        let of = |wrong: Wrong| {
            let sum: usize = outcome.samples.iter().filter_map(|sample| sample.wrong.get(&(side, wrong))).sum();
            format!("{:.0}", sum as f64 * PACE.as_secs_f64())
        };
        one(
            &format!("wrong answers in the {name}, instance-seconds"),
            format!("{} missing, {} dead, {} ghost", of(Wrong::Missing), of(Wrong::Dead), of(Wrong::Ghost)),
        );
    }
    one(
        "changes of the load",
        format!("{} ({:.1}/s)", outcome.changes, outcome.changes as f64 / plan.window.as_secs_f64()),
    );
    one("Twinspan's writes to records and slices", outcome.writes.to_string());
    let equal = m.equal_after.map_or("never".to_owned(), seconds);
    one("equal after the last fault and hold", format!("{equal} (bound {:.0} s)", m.bound.as_secs_f64()));
    one("machines whose servers registered no more", outcome.settled.restarted.to_string());
    one(&format!("writes in {} at rest", seconds(plan.rest)), m.writes_at_rest.to_string());
    one(
        "foreign changes",
        format!("{} in {} writes ({} not comparable)", m.foreign, outcome.foreign.writes, outcome.foreign.unseen),
    );
    one("replicas that ended by themselves", m.crashes.to_string());
    let memory: Vec<String> = outcome.memory.iter().map(|kib| format!("{} MiB", kib / 1024)).collect();
    one("most memory of the replicas", memory.join(", "));

    let mut text = String::new();
    let verdict = if why.is_empty() { "passed".to_owned() } else { format!("FAILED: {}", why.join("; ")) };
    let minutes = plan.window.as_secs_f64() / 60.0;
    let _ =
        writeln!(text, "`make chaos MINUTES={minutes} SEED={}`: {} faults, {verdict}.\n", plan.seed, plan.faults.len());
    let _ = writeln!(text, "| measure | synced service | control |\n|---|---|---|");
    for (what, synced, control) in rows {
        let _ = writeln!(text, "| {what} | {synced} | {control} |");
    }
    text
}

/// The details of a failure, for the search for its cause.
pub fn details(outcome: &Outcome) -> String {
    let mut text = String::new();
    let lists = [
        ("faults that could not begin", &outcome.skipped),
        ("faults that could not be undone", &outcome.failures),
        ("foreign changes", &outcome.foreign.violations),
        ("differences", &outcome.settled.differences),
        ("written at rest", &outcome.settled.at_rest),
    ];
    for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        let _ = writeln!(text, "{what}:");
        for line in list.iter().take(20) {
            let _ = writeln!(text, "  {line}");
        }
    }
    for (part, times) in &outcome.ended {
        let _ = writeln!(text, "{part} ended by itself {times} times");
    }
    text
}

fn dns_silence(outcome: &Outcome) -> Duration {
    let answered = outcome.asked.iter().filter(|asked| asked.answer.is_some_and(|n| n > 0)).map(|asked| asked.at);
    let ends = outcome.asked.first().into_iter().chain(outcome.asked.last()).map(|asked| asked.at);
    let mut times: Vec<Duration> = answered.chain(ends).collect();
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
