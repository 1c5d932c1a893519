//! The verdicts of one pass on the readiness gates of the pods behind its Service.
//!
//! Owns the verdict of one RegisteredService on each pod that waits: its record is there, is to come, or never will.
//! Refuses to weigh several RegisteredServices, and to know time: [`crate::plan::gate`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Accepted, Facts, Outcomes};
use crate::model::{Family, InstanceAddr, InstanceOutcome, Outcome, PodView};
use crate::plan::gate::{Passed, Verdict};

/// The verdicts on pods that a slice names, by name and UID.
pub type Verdicts = BTreeMap<(String, String), Verdict>;

/// The verdict on each pod that waits and that a slice of the Service names. `recorded` has the addresses in own
/// records under the name in force, now that the writes of the pass are done; nobody asks where no pod waits.
pub fn verdicts(
    facts: &Facts,
    accepted: &Accepted,
    outcomes: &Outcomes,
    recorded: impl FnOnce() -> BTreeSet<InstanceAddr>,
) -> Verdicts {
    let waiting = waiting(facts);
    if waiting.is_empty() {
        return Verdicts::new();
    }
    let recorded = recorded();
    let named = facts.named_pods();
    let mut by_pod: BTreeMap<&str, BTreeMap<IpAddr, Vec<Verdict>>> = BTreeMap::new();
    for instance in [&outcomes.gated, &outcomes.ready, &outcomes.withheld].into_iter().flatten() {
        let Some(addr) = instance.subject.address() else { continue };
        let Some(verdict) = of_endpoint(instance, recorded.contains(&addr)) else { continue };
        for uid in named.get(&(addr.ip(), addr.port())).into_iter().flatten() {
            by_pod.entry(uid).or_default().entry(addr.ip()).or_default().push(verdict);
        }
    }
    let none = BTreeMap::new();
    let of_pod = |(uid, (pod, ips)): (&str, (&PodView, BTreeSet<IpAddr>))| {
        let found = by_pod.get(uid).unwrap_or(&none);
        ((pod.name.clone(), uid.to_owned()), of_pod(facts, accepted, pod, &ips, found))
    };
    waiting.into_iter().map(of_pod).collect()
}

/// Pods that wait, with the addresses at which a slice names them.
fn waiting(facts: &Facts) -> BTreeMap<&str, (&PodView, BTreeSet<IpAddr>)> {
    let mut waiting: BTreeMap<&str, (&PodView, BTreeSet<IpAddr>)> = BTreeMap::new();
    for endpoint in facts.cluster.others_slices.iter().flat_map(|slice| &slice.endpoints) {
        let Some(pod) = facts.named_pod(endpoint) else { continue };
        if pod.gate.as_ref().is_none_or(|gate| gate.passed) {
            continue;
        }
        let (_, ips) = waiting.entry(&pod.uid).or_insert_with(|| (pod, BTreeSet::new()));
        ips.extend(endpoint.address.ip());
    }
    waiting
}

/// A pod has several addresses where it has both IP families: it waits for each that is exported.
fn of_pod(
    facts: &Facts,
    accepted: &Accepted,
    pod: &PodView,
    named: &BTreeSet<IpAddr>,
    found: &BTreeMap<IpAddr, Vec<Verdict>>,
) -> Verdict {
    let service = facts.cluster.service.as_deref();
    // The built-in controller names every address of a pod sooner or later, one slice for each family.
    let has_selector = service.is_some_and(|service| service.selector);
    let served = |ip: &IpAddr| {
        let family = Family::of(*ip);
        let by_service = service.is_none_or(|s| s.families.is_empty() || s.families.contains(&family));
        accepted.families.contains(&family) && by_service
    };
    let all = pod.ips.iter().filter(|_| has_selector).chain(named).copied().filter(served);
    let of_ip = |ip: IpAddr| match found.get(&ip) {
        Some(verdicts) => verdicts.iter().copied().fold(Verdict::Pass(Passed::Refused), Verdict::and),
        // The Service has it at other ports alone.
        None if named.contains(&ip) => Verdict::Pass(Passed::Refused),
        None => Verdict::Wait,
    };
    let all: BTreeSet<IpAddr> = all.collect();
    all.into_iter().map(of_ip).fold(Verdict::Pass(Passed::Refused), Verdict::and)
}

/// The verdict on one endpoint; `None` where it is at a port that is not meant.
fn of_endpoint(instance: &InstanceOutcome, is_recorded: bool) -> Option<Verdict> {
    Some(match &instance.outcome {
        Outcome::OtherPort { .. } => return None,
        outcome if outcome.is_exported() && is_recorded => Verdict::Pass(Passed::Registered),
        Outcome::SelfRegistered { .. } | Outcome::TakenByOtherCluster { .. } => Verdict::Pass(Passed::SelfRegistered),
        Outcome::Skipped(_) | Outcome::OtherFamily | Outcome::Unmanaged => Verdict::Pass(Passed::Refused),
        _ => Verdict::Wait,
    })
}

#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;
