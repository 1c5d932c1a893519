//! The share of an export: weights that give the exported instances a part of the traffic beside records of others.
//!
//! Owns the sum of the weights, its spread over the instances, the rule by which weights stay as they are, and what
//! cannot be reached. Refuses to know records: [`super::weights`] reads the numbers from them. All are integers, so the
//! same input gives the same weights on every machine.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

/// The weights that every format bears, as `spec.export.weight` does.
const WEIGHTS: RangeInclusive<i64> = 1..=10_000;

/// Written weights stay while the share is off by no more points than these.
const TOLERATED: i128 = 2;

/// A share that no weights reach is told where it is off by more points than these.
const UNTOLD: i128 = 3;

/// One exported instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The weight without a share: the parts of the instances are in proportion to it.
    pub configured: i64,
    /// The weight in its record, if it has one.
    pub written: Option<i64>,
}

/// The records of others that clients see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    pub records: u32,
    /// The sum of their weights.
    pub weight: i128,
}

/// The weight of each instance, in the order of the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    pub weights: Vec<i64>,
    pub limit: Option<ShareLimit>,
}

/// A share that weights from 1 to 10,000 do not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareLimit {
    /// The share that the exported instances have with the weights of the plan, in thousandths.
    pub permille: u16,
    /// Whether it is more than was asked for: the weights of others are too low, and not too high.
    pub over: bool,
    /// The weight of each record of others with which the share can be reached.
    pub others_weight: i64,
}

/// The weights that give the instances `percent` of the sum of all weights. `held` is the sum of own records that are
/// there and stand for none of the parts. The parts are in the order of their addresses.
///
/// Written weights stay where the share is within two points, and each instance's part among them within a quarter; a
/// new instance then gets the weight that its part gives beside them. So a Deployment that is rolled writes new records
/// only. `None` without a record of others, or without an instance.
pub fn weigh(percent: i64, parts: &[Part], held: i64, others: Others) -> Option<Weighed> {
    if parts.is_empty() || others.weight <= 0 {
        return None;
    }
    let scale = Scale { percent: percent.into(), held: held.into(), others };
    let weights = standing(&scale, parts).unwrap_or_else(|| spread(scale.wanted(), parts));
    let limit = scale.limit(&weights);
    Some(Weighed { weights, limit })
}

/// The written weights, and the parts of new instances beside them, if they may stay.
fn standing(scale: &Scale, parts: &[Part]) -> Option<Vec<i64>> {
    let written: Vec<(i64, i64)> =
        parts.iter().filter_map(|part| Some((part.configured.max(1), part.written?))).collect();
    if written.is_empty() || !written.iter().all(|(_, weight)| WEIGHTS.contains(weight)) {
        return None;
    }
    let configured: i128 = written.iter().map(|(configured, _)| i128::from(*configured)).sum();
    let weight: i128 = written.iter().map(|(_, weight)| i128::from(*weight)).sum();
    let all: i128 = parts.iter().map(|part| i128::from(part.configured.max(1))).sum();
    let balanced = spread(rounded(weight * all, configured), parts);
    let in_proportion = |(part, balanced): (&Part, &i64)| {
        part.written.is_none_or(|written| (written - balanced).abs() <= (balanced / 4).max(1))
    };
    if !parts.iter().zip(&balanced).all(in_proportion) {
        return None;
    }
    let weights: Vec<i64> = parts.iter().zip(balanced).map(|(part, new)| part.written.unwrap_or(new)).collect();
    (!scale.is_off(scale.own(&weights), TOLERATED)).then_some(weights)
}

/// The two sides of the scale, without the instances to be weighed.
struct Scale {
    percent: i128,
    held: i128,
    others: Others,
}

impl Scale {
    /// The sum of the weights of instances that gives the share, whether or not they can have it.
    fn wanted(&self) -> i128 {
        rounded(self.others.weight * self.percent, 100 - self.percent) - self.held
    }

    fn own(&self, weights: &[i64]) -> i128 {
        self.held + weights.iter().copied().map(i128::from).sum::<i128>()
    }

    /// By how many hundredths of all weights the own ones are more than was asked for.
    fn excess(&self, own: i128) -> i128 {
        100 * own - self.percent * (own + self.others.weight)
    }

    fn is_off(&self, own: i128, points: i128) -> bool {
        self.excess(own).abs() > points * (own + self.others.weight)
    }

    fn limit(&self, weights: &[i64]) -> Option<ShareLimit> {
        let own = self.own(weights);
        let over = self.excess(own) > 0;
        let last = if over { WEIGHTS.start() } else { WEIGHTS.end() };
        if !self.is_off(own, UNTOLD) || weights.iter().any(|weight| weight != last) {
            return None;
        }
        let (needed, each) = (own * (100 - self.percent), self.percent * i128::from(self.others.records.max(1)));
        // Higher weights of others leave room below the share, lower ones above it.
        let others_weight = if over { (needed + each - 1) / each } else { needed / each };
        let permille = rounded(1000 * own, own + self.others.weight);
        Some(ShareLimit {
            permille: u16::try_from(permille).unwrap_or(1000),
            over,
            others_weight: i64::try_from(others_weight.max(1)).unwrap_or(i64::MAX),
        })
    }
}

/// The highest sum of so many weights.
fn most(instances: usize) -> i128 {
    i128::try_from(instances).unwrap_or(i128::MAX).saturating_mul((*WEIGHTS.end()).into())
}

/// The nearest integer of a quotient of positive numbers.
fn rounded(dividend: i128, divisor: i128) -> i128 {
    (2 * dividend + divisor) / (2 * divisor).max(1)
}

/// Spreads a sum over the parts in proportion to their configured weights: each gets 1, and the rest by largest
/// remainder, of equal ones the first. The sum is exact where weights within the bounds give it.
fn spread(sum: i128, parts: &[Part]) -> Vec<i64> {
    let mut weights = vec![*WEIGHTS.start(); parts.len()];
    let least = most(parts.len()) / i128::from(*WEIGHTS.end());
    let mut rest = sum.clamp(least, most(parts.len())) - least;
    let mut open: Vec<usize> = (0..parts.len()).collect();
    // Each round but the last fills one up at least.
    while rest > 0 && !open.is_empty() {
        let all: i128 = open.iter().map(|n| i128::from(parts[*n].configured.max(1))).sum();
        let quota = |n: &usize| rest * i128::from(parts[*n].configured.max(1));
        let mut left = rest - open.iter().map(|n| quota(n) / all).sum::<i128>();
        let mut by_remainder = open.clone();
        by_remainder.sort_by_key(|n| (Reverse(quota(n) % all), *n));
        let mut beyond = 0;
        for n in by_remainder {
            let one_more = i128::from(left > 0);
            left -= one_more;
            let weight = i128::from(weights[n]) + quota(&n) / all + one_more;
            let most = i128::from(*WEIGHTS.end());
            beyond += (weight - most).max(0);
            weights[n] = i64::try_from(weight.min(most)).unwrap_or(*WEIGHTS.end());
        }
        open.retain(|n| weights[*n] < *WEIGHTS.end());
        rest = beyond;
    }
    weights
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
