//! Moments: five short scenarios, and every single fault at every message of a replica in them.
//!
//! Owns the scenarios and the list of runs. Refuses to draw: no luck is needed. The enumeration is that of Sieve (OSDI
//! 2022): a reference run numbers the messages, and each run has one fault at one of them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::plan::{Op, Plan, Size, Timed};
use crate::run::run;
use crate::wire::{Part, Scripted};

/// The names of the scenarios.
pub const SCENARIOS: [&str; 5] = ["register", "roll", "fail over", "heal", "sweep"];

/// Time after the last operation: the longest moment, and what follows it.
const AFTERWARDS: u64 = 32;

fn at(seconds: u64, op: Op) -> Timed {
    Timed { at: Duration::from_secs(seconds), op }
}

/// The plan of a scenario, without a fault.
pub fn scenario(name: &str) -> Plan {
    let pod = Op::PodAdd { cluster: 0, service: 0 };
    let (ops, spec, seconds): (Vec<Timed>, Value, u64) = match name {
        "register" => (vec![at(1, Op::VmStart { vm: 1 }), at(2, pod)], json!({}), 6),
        "roll" => {
            let gone = |pod| Op::PodDelete { pod };
            (vec![at(1, pod), at(5, gone(0)), at(6, pod), at(10, gone(0))], json!({}), 14)
        }
        // The other replica takes over while a pod goes and a server comes.
        "fail over" => {
            let crash = Op::Crash { replica: 0, polls: 1, seconds: 20 };
            (vec![at(1, crash), at(2, Op::PodDelete { pod: 0 }), at(3, Op::VmStart { vm: 1 })], json!({}), 24)
        }
        "heal" => (vec![at(1, Op::VmLoses { vm: 0 })], json!({"import": {"onExpiry": "Heal"}}), 12),
        _ => {
            let ops = vec![at(1, Op::DeletePrefix { service: 0 }), at(14, Op::Approve { cluster: 0, service: 0 })];
            (ops, json!({"import": {"onExpiry": "Remove"}, "deletionGuard": {"holdSeconds": 60}}), 20)
        }
    };
    let storm = Duration::from_secs(seconds + AFTERWARDS);
    Plan { seed: 1, size: Size::SCENE, spec, storm, ops, core: false, moment: None, rests: false }
}

/// Every run of a scenario, by name: each fault at each message of the replica that leads in it, until the scenario
/// has ended.
pub fn all_of(name: &str) -> Vec<(String, Plan)> {
    let plan = scenario(name);
    let quiet = Plan { storm: plan.storm.saturating_sub(Duration::from_secs(AFTERWARDS)), ..plan.clone() };
    let reference = run(&quiet, false);
    // The other one leads after a failover.
    let replica = usize::from(name == "fail over");
    let mut all = Vec::new();
    for (part, counts) in [(Part::Request, &reference.messages), (Part::Frame, &reference.frames)] {
        for number in 1..=counts.get(replica).copied().unwrap_or_default() {
            all.extend(part.moments().iter().map(|moment| {
                let label = format!("{name}, {part:?} {number}: {moment:?}");
                let moment = Some(Scripted { replica, part, number, moment: *moment });
                (label, Plan { moment, ..plan.clone() })
            }));
        }
    }
    all
}
