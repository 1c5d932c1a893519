//! The pictures of a report: distributions of latencies, and cost against size.
//!
//! Owns which lines are drawn on which axes. Refuses to know SVG.

use crate::report::Report;
use crate::stats::sorted;
use crate::svg::{Panel, Scale, draw};

/// Points of a distribution at most; a line has no more pixels.
const POINTS: usize = 300;

/// The cumulative distribution of latencies, the ideal bridge beside Twinspan.
pub fn latency(report: &Report) -> String {
    let panels: Vec<Panel> = report
        .latencies
        .iter()
        .map(|(title, lines)| Panel {
            title: title.clone(),
            axes: ["latency, ms", "part of the changes, %"],
            scales: [Scale::Logarithmic, Scale::Linear],
            lines: lines.iter().map(|(subject, samples)| (subject.clone(), distribution(samples))).collect(),
            marked: false,
        })
        .collect();
    draw(&panels)
}

/// Cost against size.
pub fn size(report: &Report) -> String {
    let panels: Vec<Panel> = report
        .sizes
        .iter()
        .map(|(title, lines)| Panel {
            title: title.clone(),
            axes: axes(title),
            scales: [Scale::Logarithmic, Scale::Linear],
            lines: lines.iter().map(|(subject, points)| (subject.clone(), by_size(points))).collect(),
            marked: true,
        })
        .collect();
    draw(&panels)
}

/// The labels of the axes, from the words of the title: the cost, and the size behind `by`.
fn axes(title: &str) -> [&'static str; 2] {
    let size = if title.ends_with("by services") { "services" } else { "instances" };
    let cost =
        [("p50 ms", "p50, ms"), ("MiB", "MiB"), ("s until", "s")].into_iter().find(|(word, _)| title.contains(word));
    [size, cost.map_or("", |(_, label)| label)]
}

fn by_size(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn distribution(samples: &[f64]) -> Vec<(f64, f64)> {
    let sorted = sorted(samples);
    let step = sorted.len().div_ceil(POINTS).max(1);
    let last = sorted.len().saturating_sub(1);
    let drawn = |n: &usize| n.is_multiple_of(step) || *n == last;
    (0..sorted.len()).filter(drawn).map(|n| (sorted[n], (n + 1) as f64 / sorted.len() as f64 * 100.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_ends_at_its_greatest_sample() {
        let samples: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        let points = distribution(&samples);
        assert!(points.len() <= POINTS + 1);
        assert_eq!((points[0], points[points.len() - 1]), ((1.0, 0.1), (1000.0, 100.0)));
        assert!(distribution(&[]).is_empty());
    }

    #[test]
    fn axes_have_units() {
        assert_eq!(axes("p50 ms of import, by services"), ["services", "p50, ms"]);
        assert_eq!(axes("import: MiB resident at rest, by instances"), ["instances", "MiB"]);
    }
}
