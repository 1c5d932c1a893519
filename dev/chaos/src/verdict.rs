//! The verdict of a run.
//!
//! Owns the bounds and why they are what they are. Refuses to measure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::calls::{Call, Kind, Outcome, Tally, kind};
use crate::fault::{Action, Fault, Target};
use crate::kubelet::PROBES;
use crate::truth::{Instance, Timeline};

/// Both sides are equal so long after the last fault and hold.
pub const EQUAL: Duration = Duration::from_secs(10);
/// The same where a connection was cut silently: a watch that hears nothing ends after 65 s, and every watch lives
/// again within 90 s (decision 0031).
pub const EQUAL_AFTER_SILENCE: Duration = Duration::from_secs(90);
/// A leader that is gone is replaced once its Lease of 15 s has ended (`leaseDuration`, as in client-go), at the next
/// try, which comes every 2 s.
pub const LEASE: Duration = Duration::from_secs(17);
/// A Kitex client asks the registry every 5 s (`lbcache`, kitex v0.16).
const POLL: Duration = Duration::from_secs(5);
/// The slice controller gathers changes for 1 s, and a call may time out after 2 s.
const CARRY: Duration = Duration::from_secs(3);

/// How long after the last of these faults both sides may differ.
pub fn bound(faults: &[Fault]) -> Duration {
    let Some(last) = faults.iter().map(Fault::ends).max() else { return EQUAL };
    let silent = |fault: &&Fault| fault.action.is_silent() && fault.ends() + EQUAL_AFTER_SILENCE > last;
    if faults.iter().any(|fault| silent(&fault)) {
        return EQUAL_AFTER_SILENCE;
    }
    // A replica that came back sooner than its Lease ended waits for that too.
    let leads =
        |fault: &&Fault| matches!(fault.action, Action::Kill(Target::Replica(_)) | Action::Freeze(Target::Replica(_)));
    let lease = faults.iter().filter(leads).map(|fault| fault.at + LEASE).max().unwrap_or_default();
    EQUAL + lease.saturating_sub(last)
}

/// Failed calls to dead servers that a client of the control would not have made, or not any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// To a server on a VM whose record under the name of the control had gone long enough before.
    pub vms: usize,
    /// To a pod, later than Twinspan may take to withdraw it.
    pub pods: usize,
}

/// Counts late calls of the synced service. `control` says when each VM was listed under the name of the control.
pub fn late_calls(
    calls: &[Call],
    instances: &BTreeMap<Ipv4Addr, Instance>,
    control: &BTreeMap<Ipv4Addr, Timeline>,
    faults: &[Fault],
) -> Late {
    let mut late = Late::default();
    for call in calls.iter().filter(|call| kind(call, instances, faults) == Some(Kind::Dead)) {
        let Outcome::Failed(Some(to), _) = &call.outcome else { continue };
        let Some(instance) = instances.get(to) else { continue };
        let (serving, died) = instance.serving.at(call.at);
        if serving {
            // Out of the client's reach, which is nobody's fault.
            continue;
        }
        if let Target::Pod(_) = instance.target {
            let bound = PROBES + CARRY + EQUAL + POLL;
            late.pods += usize::from(call.at > allowed(died, bound, faults, Action::delays_changes));
        } else {
            let (listed, gone) = control.get(to).map_or((true, Duration::ZERO), |listed| listed.at(call.at));
            let until = || allowed(gone, CARRY + POLL, faults, Action::delays_clients);
            late.vms += usize::from(!listed && call.at > until());
        }
    }
    late
}

/// Until when calls may fail: so long after the news, or after the faults that delay it.
fn allowed(news: Duration, bound: Duration, faults: &[Fault], delays: fn(Action) -> bool) -> Duration {
    let mut until = news + bound;
    // While the way of the news is broken itself, the bound waits for the end of that, and that may be so again.
    for _ in 0..faults.len() {
        let broken = faults.iter().filter(|fault| delays(fault.action) && fault.overlaps(news, until));
        let healed = broken.map(|fault| {
            let equal = if fault.action.is_silent() { EQUAL_AFTER_SILENCE } else { EQUAL.max(LEASE) };
            fault.ends() + equal + CARRY + POLL
        });
        let next = healed.max().unwrap_or(until).max(until);
        if next == until {
            break;
        }
        until = next;
    }
    until
}

/// The measures by which a run is judged.
#[derive(Clone, Debug)]
pub struct Measured {
    pub foreign: usize,
    pub synced: Tally,
    pub control: Tally,
    pub late: Late,
    /// From the last fault, hold or change of others until both sides were equal; none if they never were.
    pub equal_after: Option<Duration>,
    pub bound: Duration,
    pub writes_at_rest: usize,
    /// How often a replica ended by itself.
    pub crashes: usize,
    /// Faults that could not be undone.
    pub failures: usize,
}

/// Why the run failed; empty if it did not.
pub fn verdict(m: &Measured) -> Vec<String> {
    let mut why = Vec::new();
    let mut fails = |failed: bool, text: String| {
        if failed {
            why.push(text);
        }
    };
    fails(m.foreign > 0, format!("{} foreign changes", m.foreign));
    for (what, synced, control) in [
        ("calls to living servers", m.synced.living, m.control.living),
        ("calls without an instance", m.synced.no_instance, m.control.no_instance),
    ] {
        fails(synced > control, format!("{synced} failed {what}, {control} of the control"));
    }
    fails(m.late.vms > 0, format!("{} failed calls to dead servers on VMs that the control did not list", m.late.vms));
    fails(m.late.pods > 0, format!("{} failed calls to dead pods beyond the bound", m.late.pods));
    match m.equal_after {
        None => fails(true, "the sides did not become equal".to_owned()),
        Some(after) => fails(
            after > m.bound,
            format!("equal after {:.1} s, the bound is {:.0} s", after.as_secs_f64(), m.bound.as_secs_f64()),
        ),
    }
    fails(m.writes_at_rest > 0, format!("{} writes at rest", m.writes_at_rest));
    fails(m.crashes > 0, format!("replicas ended by themselves {} times", m.crashes));
    fails(m.failures > 0, format!("{} faults could not be undone", m.failures));
    why
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Traffic, Ways};

    const POD: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 1);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fault(at: u64, lasts: u64, action: Action) -> Fault {
        Fault { at: s(at), lasts: s(lasts), action }
    }

    fn cut() -> Action {
        Action::Cut { from: Target::Replica(0), to: Target::ApiServer, ways: Ways::Both, traffic: Traffic::All }
    }

    #[test]
    fn a_silent_cut_has_a_longer_bound_until_it_is_long_ago() {
        let kill = |at| fault(at, 10, Action::Kill(Target::ApiServer));
        assert_eq!(bound(&[kill(100)]), s(10));
        assert_eq!(bound(&[fault(50, 10, cut()), kill(100)]), s(90));
        assert_eq!(bound(&[fault(5, 10, cut()), kill(100)]), s(10));
    }

    #[test]
    fn a_short_kill_of_a_replica_waits_for_its_lease() {
        let kill = |lasts| fault(100, lasts, Action::Kill(Target::Replica(1)));
        assert_eq!(bound(&[kill(5)]), s(22));
        assert_eq!(bound(&[kill(30)]), s(10));
    }

    #[test]
    fn calls_to_a_dead_pod_may_fail_until_the_client_knows() {
        let mut instance = Instance { target: Target::Pod(0), serving: Default::default(), wanted: Default::default() };
        instance.serving.set(s(0), true);
        instance.serving.set(s(100), false);
        let instances = BTreeMap::from([(POD, instance)]);
        let call = |at| Call { at: s(at), took: Duration::ZERO, outcome: Outcome::Failed(Some(POD), "refused") };
        let calls: Vec<Call> = [101, 121, 122, 150].map(call).into();
        let late = |faults: &[Fault]| late_calls(&calls, &instances, &BTreeMap::new(), faults);
        assert_eq!(late(&[]), Late { vms: 0, pods: 2 });
        let broken = fault(110, 30, Action::Kill(Target::Replica(0)));
        assert_eq!(late(&[broken]), Late::default());
    }

    #[test]
    fn calls_to_a_dead_server_on_a_vm_may_fail_as_long_as_the_control_lists_it() {
        let vm = Ipv4Addr::new(10, 77, 2, 1);
        let mut instance = Instance { target: Target::Vm(0), serving: Default::default(), wanted: Default::default() };
        instance.serving.set(s(0), true);
        instance.serving.set(s(100), false);
        let instances = BTreeMap::from([(vm, instance)]);
        let mut listed = Timeline::default();
        listed.set(s(0), true);
        listed.set(s(120), false);
        let control = BTreeMap::from([(vm, listed)]);
        let call = |at| Call { at: s(at), took: Duration::ZERO, outcome: Outcome::Failed(Some(vm), "timeout") };
        let calls: Vec<Call> = [101, 119, 128, 129].map(call).into();
        let late = |faults: &[Fault]| late_calls(&calls, &instances, &control, faults);
        assert_eq!(late(&[]), Late { vms: 1, pods: 0 });
        assert_eq!(late(&[fault(110, 10, Action::Kill(Target::ApiServer))]), Late { vms: 1, pods: 0 });
        assert_eq!(late(&[fault(110, 10, Action::Kill(Target::Member(0)))]), Late::default());
    }

    #[test]
    fn a_clean_run_passes_and_each_measure_can_fail_it() {
        let clean = Measured {
            foreign: 0,
            synced: Tally::default(),
            control: Tally::default(),
            late: Late::default(),
            equal_after: Some(s(9)),
            bound: s(10),
            writes_at_rest: 0,
            crashes: 0,
            failures: 0,
        };
        assert!(verdict(&clean).is_empty());
        let living = Tally { living: 1, ..Tally::default() };
        let cases = [
            Measured { foreign: 1, ..clean.clone() },
            Measured { synced: living.clone(), ..clean.clone() },
            Measured { late: Late { vms: 1, pods: 0 }, ..clean.clone() },
            Measured { late: Late { vms: 0, pods: 1 }, ..clean.clone() },
            Measured { equal_after: None, ..clean.clone() },
            Measured { equal_after: Some(s(11)), ..clean.clone() },
            Measured { writes_at_rest: 1, ..clean.clone() },
            Measured { crashes: 1, ..clean.clone() },
            Measured { failures: 1, ..clean.clone() },
        ];
        assert!(cases.iter().all(|case| verdict(case).len() == 1));
        assert!(verdict(&Measured { synced: living.clone(), control: living, ..clean }).is_empty());
    }
}
