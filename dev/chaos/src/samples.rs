//! Wrong answers and lag, sampled while the run goes on.
//!
//! Owns what is wrong at one moment, from the truth and from what both sides say. Refuses to ask either side.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::bed::{SYNCED, TTL};
use crate::fault::Target;
use crate::sides::Seen;
use crate::truth::Instance;

/// Between two samples.
pub const PACE: Duration = Duration::from_millis(250);
/// A change may take so long to reach the other side before an answer counts as wrong.
const SOON: Duration = Duration::from_secs(5);
/// The lease of a server that was killed, the probe that follows it, and [`SOON`].
const DEAD: Duration = Duration::from_secs(TTL as u64 + 10 + 5);

/// A side that Twinspan writes for clients of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Servers on VMs in Twinspan's EndpointSlices.
    Cluster,
    /// Pods in Twinspan's records.
    Registry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// In service, and not there.
    Missing,
    /// Killed or frozen, and still there.
    Dead,
    /// Deregistered, not ready or unknown, and still there.
    Ghost,
}

/// The number of instances that are wrong at a moment, by side and kind.
pub fn wrong(seen: &Seen, instances: &BTreeMap<Ipv4Addr, Instance>, now: Duration) -> BTreeMap<(Side, Wrong), usize> {
    let mut found = BTreeMap::new();
    for (side, listed) in [(Side::Cluster, &seen.imported), (Side::Registry, &seen.exported)] {
        let listed = listed.get(SYNCED).cloned().unwrap_or_default();
        let mut add = |wrong: Wrong| *found.entry((side, wrong)).or_default() += 1;
        for (ip, instance) in instances.iter().filter(|(_, instance)| on(side, instance)) {
            if let Some(wrong) = of(instance, listed.contains(ip), now) {
                add(wrong);
            }
        }
        let unknown = listed.iter().filter(|ip| !instances.contains_key(ip)).count();
        (0..unknown).for_each(|_| add(Wrong::Ghost));
    }
    found
}

fn on(side: Side, instance: &Instance) -> bool {
    matches!((side, instance.target), (Side::Cluster, Target::Vm(_)) | (Side::Registry, Target::Pod(_)))
}

fn of(instance: &Instance, listed: bool, now: Duration) -> Option<Wrong> {
    let ((wanted, asked), (serving, began)) = (instance.wanted.at(now), instance.serving.at(now));
    let for_longer = |since: Duration, bound: Duration| now.saturating_sub(since) > bound;
    match (wanted, serving, listed) {
        (true, true, false) => for_longer(asked.max(began), SOON).then_some(Wrong::Missing),
        (true, false, true) => for_longer(began, DEAD).then_some(Wrong::Dead),
        (false, _, true) => for_longer(asked, SOON).then_some(Wrong::Ghost),
        _ => None,
    }
}

/// The age of the oldest difference between the two sides.
#[derive(Debug, Default)]
pub struct Lag {
    since: BTreeMap<(String, Ipv4Addr, &'static str), Duration>,
}

impl Lag {
    /// Takes a sample. An endpoint that Twinspan keeps because its server lives is no lag, for its record is gone with
    /// its lease.
    pub fn sample(
        &mut self,
        differences: BTreeSet<(String, Ipv4Addr, &'static str)>,
        instances: &BTreeMap<Ipv4Addr, Instance>,
        now: Duration,
    ) -> Duration {
        let kept = |(name, ip, side): &(String, Ipv4Addr, &'static str)| {
            let lives = instances.get(ip).is_some_and(|i| matches!(i.target, Target::Vm(_)) && i.serving.at(now).0);
            name == SYNCED && *side == "registry" && lives
        };
        let mut since = BTreeMap::new();
        for difference in differences.into_iter().filter(|difference| !kept(difference)) {
            let began = self.since.get(&difference).copied().unwrap_or(now);
            since.insert(difference, began);
        }
        self.since = since;
        self.since.values().map(|began| now.saturating_sub(*began)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);
    const POD: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 1);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn instance(target: Target, serving: &[(u64, bool)], wanted: &[(u64, bool)]) -> Instance {
        let mut instance = Instance { target, serving: Default::default(), wanted: Default::default() };
        serving.iter().for_each(|(at, value)| instance.serving.set(s(*at), *value));
        wanted.iter().for_each(|(at, value)| instance.wanted.set(s(*at), *value));
        instance
    }

    fn listed(imported: &[Ipv4Addr], exported: &[Ipv4Addr]) -> Seen {
        let of = |ips: &[Ipv4Addr]| BTreeMap::from([(SYNCED.to_owned(), ips.iter().copied().collect())]);
        Seen { imported: of(imported), exported: of(exported), ..Seen::default() }
    }

    #[test]
    fn missing_dead_and_ghost_have_bounds() {
        let vm = instance(Target::Vm(0), &[(0, true), (100, false)], &[(0, true)]);
        let pod = instance(Target::Pod(0), &[(0, true)], &[(0, true), (100, false)]);
        let all = BTreeMap::from([(VM, vm), (POD, pod)]);
        assert!(wrong(&listed(&[], &[]), &all, s(4)).is_empty());
        let missing = BTreeMap::from([((Side::Cluster, Wrong::Missing), 1), ((Side::Registry, Wrong::Missing), 1)]);
        assert_eq!(wrong(&listed(&[], &[]), &all, s(6)), missing);
        assert!(wrong(&listed(&[VM], &[POD]), &all, s(104)).is_empty());
        let ghost = BTreeMap::from([((Side::Registry, Wrong::Ghost), 1)]);
        assert_eq!(wrong(&listed(&[VM], &[POD]), &all, s(106)), ghost);
        let dead = BTreeMap::from([((Side::Cluster, Wrong::Dead), 1)]);
        assert_eq!(wrong(&listed(&[VM], &[]), &all, s(136)), dead);
    }

    #[test]
    fn an_address_that_nobody_has_is_a_ghost() {
        let ghost = BTreeMap::from([((Side::Cluster, Wrong::Ghost), 1)]);
        assert_eq!(wrong(&listed(&[VM], &[]), &BTreeMap::new(), s(1)), ghost);
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_difference() {
        let mut lag = Lag::default();
        let all = BTreeMap::new();
        let difference = |ip| ("churn-0".to_owned(), ip, "cluster");
        assert_eq!(lag.sample(BTreeSet::from([difference(VM)]), &all, s(1)), s(0));
        assert_eq!(lag.sample(BTreeSet::from([difference(VM), difference(POD)]), &all, s(3)), s(2));
        assert_eq!(lag.sample(BTreeSet::from([difference(POD)]), &all, s(4)), s(1));
        assert_eq!(lag.sample(BTreeSet::new(), &all, s(5)), s(0));
    }

    #[test]
    fn an_endpoint_kept_for_a_living_server_is_no_lag() {
        let all = BTreeMap::from([(VM, instance(Target::Vm(0), &[(0, true), (10, false)], &[(0, true)]))]);
        let mut lag = Lag::default();
        let kept = || BTreeSet::from([(SYNCED.to_owned(), VM, "registry")]);
        assert_eq!(lag.sample(kept(), &all, s(1)), s(0));
        assert_eq!(lag.sample(kept(), &all, s(9)), s(0));
        assert_eq!(lag.sample(kept(), &all, s(11)), s(0));
        assert_eq!(lag.sample(kept(), &all, s(13)), s(2));
    }
}
