//! Calls of the Kitex clients, and why they failed.
//!
//! Owns the reading of a client's lines, and the question whether the called server lived. Refuses to know bounds.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::fault::{Fault, Target};
use crate::truth::Instance;

/// One call, with times from the beginning of the run.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Duration,
    pub took: Duration,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// The server that the client chose, if it knew one, and the reason.
    Failed(Option<Ipv4Addr>, &'static str),
}

impl Call {
    /// A line of a client, read so long after the beginning of the run; none for a line that is no call.
    pub fn read(line: &str, read: Duration) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        if line["event"] != "call" {
            return None;
        }
        let took = Duration::from_millis(line["took"].as_u64()?);
        let outcome = match line["error"].as_str() {
            None => Outcome::Answered,
            Some(error) => Outcome::Failed(line["to"].as_str().and_then(ipv4), reason(error)),
        };
        Some(Self { at: read.saturating_sub(took), took, outcome })
    }

    fn ends(&self) -> Duration {
        self.at + self.took
    }
}

fn ipv4(address: &str) -> Option<Ipv4Addr> {
    match address.parse::<SocketAddr>().ok()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// A reason in one word or two, from the text of an error of Kitex or Go.
fn reason(error: &str) -> &'static str {
    let has = |part: &str| error.contains(part);
    if has("no instance") || has("service discovery") || has("resolver") {
        "no instance"
    } else if has("connection refused") {
        "refused"
    } else if has("no route to host") {
        "no route"
    } else if has("timeout") || has("deadline") {
        "timeout"
    } else if has("reset") || has("EOF") || has("broken pipe") || has("closed") {
        "closed"
    } else {
        "other"
    }
}

/// Why a call failed, as far as Twinspan may be blamed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The client knew no server.
    NoInstance,
    /// The called server lived and could be reached.
    Living,
    /// The called server was dead, frozen, or out of the client's reach.
    Dead,
}

/// A server that has just begun may not accept yet, and the bed learns of an end a little late.
const AROUND: Duration = Duration::from_secs(1);
/// A packet that is lost is sent again after up to so long (RFC 6298: 1 s, doubled).
const AFTER_A_CUT: Duration = Duration::from_secs(4);

/// Judges a failed call; none for an answered one.
pub fn kind(call: &Call, instances: &BTreeMap<Ipv4Addr, Instance>, faults: &[Fault]) -> Option<Kind> {
    let Outcome::Failed(to, _) = &call.outcome else { return None };
    let Some(instance) = to.and_then(|to| instances.get(&to)) else { return Some(Kind::NoInstance) };
    let lived = instance.serving.throughout(call.at.saturating_sub(AROUND), call.ends() + AROUND);
    let apart = |fault: &Fault| {
        fault.action.parts_client_from(instance.target)
            && fault.overlaps(call.at.saturating_sub(AFTER_A_CUT), call.ends())
    };
    Some(if lived && !faults.iter().any(apart) { Kind::Living } else { Kind::Dead })
}

/// Calls of one client in numbers.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub calls: usize,
    pub failed: usize,
    pub no_instance: usize,
    pub living: usize,
    /// To dead servers on VMs, and to dead pods.
    pub dead_vms: usize,
    pub dead_pods: usize,
    pub reasons: BTreeMap<&'static str, usize>,
    /// The longest time between two answers.
    pub silence: Duration,
}

pub fn tally(calls: &[Call], instances: &BTreeMap<Ipv4Addr, Instance>, faults: &[Fault]) -> Tally {
    let mut tally = Tally { calls: calls.len(), ..Tally::default() };
    let mut answered = calls.first().map(|call| call.at);
    for call in calls {
        if call.outcome == Outcome::Answered {
            let before = answered.replace(call.ends()).unwrap_or_default();
            tally.silence = tally.silence.max(call.ends().saturating_sub(before));
        }
        let (Some(kind), Outcome::Failed(to, reason)) = (kind(call, instances, faults), &call.outcome) else {
            continue;
        };
        tally.failed += 1;
        *tally.reasons.entry(reason).or_default() += 1;
        let pod = to.and_then(|to| instances.get(&to)).is_some_and(|i| matches!(i.target, Target::Pod(_)));
        match kind {
            Kind::NoInstance => tally.no_instance += 1,
            Kind::Living => tally.living += 1,
            Kind::Dead if pod => tally.dead_pods += 1,
            Kind::Dead => tally.dead_vms += 1,
        }
    }
    if let (Some(answered), Some(last)) = (answered, calls.last()) {
        tally.silence = tally.silence.max(last.ends().saturating_sub(answered));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Action, Traffic, Ways};

    const VM: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn instances() -> BTreeMap<Ipv4Addr, Instance> {
        let mut instance = Instance { target: Target::Vm(0), serving: Default::default(), wanted: Default::default() };
        instance.serving.set(s(0), true);
        instance.serving.set(s(20), false);
        instance.serving.set(s(30), true);
        BTreeMap::from([(VM, instance)])
    }

    fn failed(at: u64) -> Call {
        Call { at: s(at), took: Duration::ZERO, outcome: Outcome::Failed(Some(VM), "refused") }
    }

    #[test]
    fn lines_of_a_client_are_read() {
        let call = Call::read(r#"{"event":"call","from":"10.77.2.1:9000","took":40}"#, s(2)).unwrap();
        assert_eq!((call.at, call.outcome), (Duration::from_millis(1960), Outcome::Answered));
        let line = r#"{"event":"call","error":"dial tcp: connection refused","to":"10.77.2.1:9000","took":1}"#;
        assert_eq!(Call::read(line, s(2)).unwrap().outcome, Outcome::Failed(Some(VM), "refused"));
        let line = r#"{"event":"call","error":"no instance remains for user","to":null,"took":1}"#;
        assert_eq!(Call::read(line, s(2)).unwrap().outcome, Outcome::Failed(None, "no instance"));
        assert!(Call::read(r#"{"event":"started"}"#, s(2)).is_none());
    }

    #[test]
    fn a_living_server_is_told_from_a_dead_one() {
        let kind = |at| kind(&failed(at), &instances(), &[]);
        assert_eq!(kind(10), Some(Kind::Living));
        assert_eq!(kind(25), Some(Kind::Dead));
        // Around the changes nobody can tell.
        assert_eq!((kind(19), kind(30)), (Some(Kind::Dead), Some(Kind::Dead)));
        assert_eq!(kind(32), Some(Kind::Living));
    }

    #[test]
    fn a_server_out_of_reach_is_no_living_one() {
        let action = Action::Cut { from: Target::Client, to: Target::Vm(0), ways: Ways::Both, traffic: Traffic::All };
        let fault = Fault { at: s(5), lasts: s(5), action };
        assert_eq!(kind(&failed(8), &instances(), &[fault]), Some(Kind::Dead));
        assert_eq!(kind(&failed(15), &instances(), &[fault]), Some(Kind::Living));
    }

    #[test]
    fn a_tally_knows_the_longest_silence() {
        let answered = |at| Call { at: s(at), took: Duration::ZERO, outcome: Outcome::Answered };
        let tally = tally(&[answered(1), failed(3), failed(10), answered(12), answered(13)], &instances(), &[]);
        assert_eq!((tally.calls, tally.failed, tally.living, tally.silence), (5, 2, 2, s(11)));
    }
}
