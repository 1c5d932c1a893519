//! Numbers from samples: percentiles, and ratios with their interval.
//!
//! Owns the arithmetic. Refuses to know the meaning of a sample.

use serde::Serialize;

/// Percentiles of samples in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub n: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

/// The median of ratios, one for each round, with a 90 % confidence interval of that median.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// None without samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let sorted = sorted(samples);
        let at = |percent| percentile(&sorted, percent);
        Some(Self { n: sorted.len(), p50: at(50)?, p90: at(90)?, p99: at(99)? })
    }
}

pub fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The smallest sample that so many percent of the samples do not exceed (nearest rank).
pub fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The median, as [`percentile`] has it; 0 without samples.
pub fn median(samples: &[f64]) -> f64 {
    percentile(&sorted(samples), 50).unwrap_or_default()
}

impl Ratio {
    /// The ratios of numerators to denominators, round by round. Rounds without a positive denominator are left out.
    pub fn of(rounds: &[(f64, f64)]) -> Option<Self> {
        let ratios: Vec<f64> =
            rounds.iter().filter(|(_, below)| *below > 0.0).map(|(above, below)| above / below).collect();
        let sorted = sorted(&ratios);
        let last = sorted.len().checked_sub(1)?;
        let median = (sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0;
        let cut = outside(sorted.len());
        Some(Self { median, low: sorted[cut], high: sorted[last - cut] })
    }
}

/// The number of order statistics on each side outside a 90 % interval of the median: the number of samples below the
/// median is binomial with a probability of one half. With fewer than five samples the interval is their range, and its
/// confidence is less.
fn outside(n: usize) -> usize {
    let total = 2f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let (mut cut, mut ways, mut tail) = (0, 1.0, 1.0);
    while tail / total <= 0.05 && cut < n / 2 {
        cut += 1;
        ways *= (n - cut + 1) as f64 / cut as f64;
        tail += ways;
    }
    cut.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(Spread::of(&samples), Some(Spread { n: 200, p50: 100.0, p90: 180.0, p99: 198.0 }));
        assert_eq!(Spread::of(&[3.0]), Some(Spread { n: 1, p50: 3.0, p90: 3.0, p99: 3.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds() {
        let rounds: Vec<(f64, f64)> = (1..=10).map(|n| (f64::from(n), 2.0)).collect();
        // Below the third of ten the tail is 5.5 %, below the second 1.1 %.
        assert_eq!(Ratio::of(&rounds), Some(Ratio { median: 2.75, low: 1.0, high: 4.5 }));
        assert_eq!(Ratio::of(&[(3.0, 2.0), (1.0, 0.0)]), Some(Ratio { median: 1.5, low: 1.5, high: 1.5 }));
        assert_eq!(Ratio::of(&[]), None);
    }

    #[test]
    fn an_interval_needs_five_rounds_to_be_one_of_90_percent() {
        assert_eq!([1, 4, 5, 7, 8, 10, 11].map(outside), [0, 0, 0, 0, 1, 1, 2]);
    }
}
