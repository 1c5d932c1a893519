//! Shrinking: the fewest operations that still break the same invariant.
//!
//! Owns the search and the story that it prints. Refuses to change a run in another way than by taking something out:
//! the fates of messages do not move, because they follow from the message alone. The search over operations is ddmin
//! (Zeller and Hildebrandt, 2002).

use std::fmt::Write as _;
use std::time::Duration;

use crate::plan::{Plan, Size, Timed};
use crate::run::{Outcome, run};

/// Lines of the trace before the violation that a story has.
const LINES: usize = 25;

/// The smallest plan that was found, and its outcome.
#[derive(Clone, Debug)]
pub struct Shrunk {
    pub plan: Plan,
    pub outcome: Outcome,
    pub runs: usize,
}

/// Shrinks a plan that breaks an invariant; `None` if it breaks none.
pub fn shrink(plan: &Plan) -> Option<Shrunk> {
    let outcome = run(plan, false);
    let invariant = outcome.violations.first()?.invariant;
    let mut search = Search { invariant, runs: 1, best: plan.clone(), outcome };
    search.cut_the_end();
    search.take_out_operations();
    search.make_smaller();
    search.take_out_operations();
    Some(Shrunk { plan: search.best, outcome: search.outcome, runs: search.runs })
}

struct Search {
    invariant: &'static str,
    runs: usize,
    best: Plan,
    outcome: Outcome,
}

impl Search {
    /// Keeps a plan if it breaks the same invariant.
    fn keeps(&mut self, plan: Plan) -> bool {
        self.runs += 1;
        let outcome = run(&plan, false);
        let breaks = outcome.violations.iter().any(|violation| violation.invariant == self.invariant);
        if breaks {
            (self.best, self.outcome) = (plan, outcome);
        }
        breaks
    }

    fn with(&self, ops: Vec<Timed>) -> Plan {
        Plan { ops, ..self.best.clone() }
    }

    fn cut_the_end(&mut self) {
        let mut step = self.best.ops.len() / 2;
        while step > 0 {
            let kept = self.best.ops.len().saturating_sub(step);
            let ops = self.best.ops.get(..kept).unwrap_or_default().to_vec();
            if !self.keeps(self.with(ops)) {
                step /= 2;
            }
            step = step.min(self.best.ops.len());
        }
        let end = self.best.ops.last().map_or(Duration::ZERO, |timed| timed.at);
        let shorter = Plan { storm: end + Duration::from_secs(1), ..self.best.clone() };
        self.keeps(shorter);
    }

    fn take_out_operations(&mut self) {
        let mut size = self.best.ops.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.ops.len() {
                let to = (from + size).min(self.best.ops.len());
                let ops = &self.best.ops;
                let rest = ops[..from].iter().chain(&ops[to..]).copied().collect();
                if !self.keeps(self.with(rest)) {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    fn make_smaller(&mut self) {
        let smaller: [fn(Size) -> Size; 10] = [
            |size| Size { clusters: 1, ..size },
            |size| Size { replicas: 1, ..size },
            |size| Size { services: 1, ..size },
            |size| Size { servers: 1, ..size },
            |size| Size { members: 1, ..size },
            |size| Size { shuffle: 0, ..size },
            |size| Size { password: false, ..size },
            |size| Size { audited: false, ..size },
            |size| Size { crowd: false, ..size },
            |size| Size { vms: 1, pods: 1, ..size },
        ];
        for make in smaller {
            let size = make(self.best.size);
            if size != self.best.size {
                self.keeps(Plan { size, ..self.best.clone() });
            }
        }
        if self.best.core {
            self.keeps(Plan { core: false, ..self.best.clone() });
        }
    }
}

impl Shrunk {
    /// The course of events, for a person.
    pub fn story(&self) -> String {
        let mut story = String::new();
        let Plan { seed, size, storm, ops, .. } = &self.plan;
        // A String takes everything.
        let _ = writeln!(story, "seed {seed}, shrunk in {} runs to {} operations; {size:?}", self.runs, ops.len());
        for Timed { at, op } in ops {
            let _ = writeln!(story, "  {:>8.3} s of the storm: {op:?}", at.as_secs_f64());
        }
        let _ = writeln!(story, "  {:>8.3} s: the storm ends", storm.as_secs_f64());
        for violation in self.outcome.violations.iter().take(3) {
            let _ = writeln!(story, "{violation}");
        }
        let first = self.outcome.violations.first().map_or(Duration::ZERO, |violation| violation.at);
        let before: Vec<&String> = self
            .outcome
            .lines
            .iter()
            .filter(|line| !line.contains("/leases/") && !line.contains("LeaseKeepAlive"))
            .filter(|line| seconds(line).is_some_and(|at| at <= first.as_secs_f64()))
            .collect();
        let from = before.len().saturating_sub(LINES);
        for line in before.get(from..).unwrap_or_default() {
            let _ = writeln!(story, "    {line}");
        }
        story
    }
}

fn seconds(line: &str) -> Option<f64> {
    line.split_whitespace().next()?.parse().ok()
}
