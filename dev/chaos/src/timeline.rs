//! The timeline of a run as a picture: faults as bars, failed calls as ticks, lag as a line.
//!
//! Owns the drawing. Refuses to know what is shown to be good or bad.

use std::fmt::Write as _;
use std::time::Duration;

use crate::calls::{self, Call};
use crate::fault::Fault;
use crate::run::{Outcome, Plan};

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 130.0;
const ROW: f64 = 15.0;
const LAG: f64 = 120.0;
/// The width of a letter on a bar.
const LETTER: f64 = 4.3;
/// Ticks of calls that failed within one such part of the width are one tick.
const TICK: f64 = 1.0;

/// Draws a run as SVG.
pub fn draw(plan: &Plan, outcome: &Outcome) -> String {
    let end = outcome.samples.last().map_or(plan.window, |sample| sample.at).max(plan.window);
    let x = |at: Duration| LEFT + at.as_secs_f64() / end.as_secs_f64() * (WIDTH - LEFT - 20.0);
    let letter = end.mul_f64(LETTER / (WIDTH - LEFT - 20.0));
    let lanes = lanes(&plan.faults, letter);
    let count = lanes.iter().max().map_or(1, |last| last + 1);
    let calls_at = 30.0 + count as f64 * ROW + 15.0;
    let lag_at = calls_at + 60.0;
    let height = lag_at + LAG + 35.0;

    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>"
    );
    let mut text = |x: f64, y: f64, what: &str| {
        let what = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{what}</text>");
    };
    text(
        10.0,
        18.0,
        &format!("seed {}: faults, failed calls, and the age of the oldest difference between the sides", plan.seed),
    );
    text(10.0, 42.0, "faults");
    text(10.0, calls_at + 10.0, "failed, synced");
    text(10.0, calls_at + 35.0, "failed, control");
    let highest = outcome.samples.iter().map(|sample| sample.lag.as_secs_f64()).fold(10.0, f64::max);
    text(10.0, lag_at + 10.0, &format!("lag, 0 to {highest:.0} s"));
    let step = if end > Duration::from_secs(300) { 60 } else { 10 };
    for at in (0..=end.as_secs()).step_by(step) {
        text(x(Duration::from_secs(at)), lag_at + LAG + 20.0, &format!("{at} s"));
    }
    for (fault, lane) in plan.faults.iter().zip(&lanes) {
        let (from, to, y) = (x(fault.at), x(fault.ends()), 30.0 + *lane as f64 * ROW);
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#c9d7ee\" stroke=\"#7b93bd\"/>",
            to - from,
            ROW - 2.0
        );
        let words = fault.action.to_string().replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"8\">{words}</text>", from + 2.0, y + 9.5);
    }
    for (calls, y, colour) in
        [(&outcome.calls[0], calls_at, "#b03030"), (&outcome.calls[1], calls_at + 25.0, "#808080")]
    {
        for at in ticks(calls, &x) {
            let _ =
                writeln!(svg, "<rect x=\"{at:.0}\" y=\"{y:.1}\" width=\"{TICK}\" height=\"14\" fill=\"{colour}\"/>");
        }
    }
    let points: Vec<String> = outcome
        .samples
        .iter()
        .map(|sample| (x(sample.at), lag_at + LAG * (1.0 - sample.lag.as_secs_f64() / highest)))
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#2f6f3e\"/>", straight(&points).join(" "));
    for (at, what) in [(outcome.settled.held_until, "last hold ends"), (outcome.settled.equal_at, "equal")] {
        let Some(at) = at.map(x) else { continue };
        let _ =
            writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"30\" y2=\"{:.1}\" stroke=\"#444\"/>", lag_at + LAG);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{what}</text>", at + 2.0, lag_at - 4.0);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A row for each fault, so that no two at once share one, and each has room for its words. A letter is as wide as so
/// much time.
fn lanes(faults: &[Fault], letter: Duration) -> Vec<usize> {
    let mut free: Vec<Duration> = Vec::new();
    faults
        .iter()
        .map(|fault| {
            let lane = free.iter().position(|from| *from <= fault.at).unwrap_or(free.len());
            let words = fault.action.to_string().chars().count();
            let until = fault.ends().max(fault.at + letter * u32::try_from(words).unwrap_or(u32::MAX));
            if lane == free.len() {
                free.push(until)
            } else {
                free[lane] = until
            }
            lane
        })
        .collect()
}

fn ticks(calls: &[Call], x: &dyn Fn(Duration) -> f64) -> Vec<f64> {
    let failed = calls.iter().filter(|call| call.outcome != calls::Outcome::Answered);
    let mut at: Vec<f64> = failed.map(|call| (x(call.at) / TICK).floor() * TICK).collect();
    at.dedup();
    at
}

/// Without the points between two equal heights.
fn straight(points: &[String]) -> Vec<String> {
    let height = |point: &String| point.split(',').nth(1).map(ToOwned::to_owned);
    let between = |n: usize| {
        n > 0
            && n + 1 < points.len()
            && height(&points[n - 1]) == height(&points[n])
            && height(&points[n]) == height(&points[n + 1])
    };
    let kept: Vec<usize> = (0..points.len()).filter(|n| !between(*n)).collect();
    kept.into_iter().map(|n| points[n].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Action, Target};

    #[test]
    fn faults_at_once_have_rows_of_their_own() {
        let fault = |at, lasts| Fault {
            at: Duration::from_secs(at),
            lasts: Duration::from_secs(lasts),
            action: Action::Kill(Target::Dns),
        };
        let faults = [fault(0, 40), fault(10, 5), fault(39, 5), fault(45, 5)];
        assert_eq!(lanes(&faults, Duration::from_millis(100)), [0, 1, 1, 0]);
        // "kill coredns" has twelve letters.
        assert_eq!(lanes(&faults, Duration::from_secs(3)), [0, 1, 2, 0]);
    }

    #[test]
    fn a_line_keeps_its_corners() {
        let points = ["0,1", "1,1", "2,1", "3,5"].map(ToOwned::to_owned);
        assert_eq!(straight(&points), ["0,1", "2,1", "3,5"]);
    }
}
