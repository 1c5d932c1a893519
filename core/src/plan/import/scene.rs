//! A service on both sides as a value, for tests of departed endpoints and of healed records.
//!
//! Owns the fixture and the steps from one plan to the next. Refuses to assert anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;

use super::{Input, Plan};
use crate::Timestamp;
use crate::codec::{Format, Layout};
use crate::model::{
    Family, InstanceAddr, InstanceOutcome, LeaseId, Outcome, Owner, RawRecord, Record, RecordKey, ServiceKey,
};
use crate::plan::RecordOp;
use crate::plan::departure::guard::{GuardContext, Limits};
use crate::plan::departure::held::Reported;
use crate::plan::departure::{Answer, Departure, Departures, Evidence, MISSING_ANSWERS, Probe};
use crate::plan::import::{self, ContestedImport, ImportState, Options, Pods, Present};
use crate::plan::slices::Refusals;
use crate::plan::trust::{Cluster, PodOf, Policy, Trust};

pub const US: &str = "c1";

/// A service on both sides, and the time.
pub struct Scene {
    pub layout: Layout,
    pub owner: Owner,
    pub records: BTreeMap<RecordKey, Record>,
    pub options: Options,
    pub pods: BTreeMap<std::net::IpAddr, PodOf>,
    pub pods_of_service: Pods,
    pub refused: Refusals,
    pub managed: BTreeSet<(std::net::IpAddr, u16)>,
    pub departures: Departures,
    pub leads: bool,
    pub started_after_rollback: bool,
    pub present: BTreeMap<InstanceAddr, Present>,
    /// The addresses that another RegisteredService imports into the Service.
    pub contested: BTreeMap<InstanceAddr, ContestedImport>,
    pub to_adopt: BTreeSet<RecordKey>,
    pub probes: BTreeMap<InstanceAddr, Probe>,
    pub may_be_dead: bool,
    pub restored_hold_since: Option<Timestamp>,
    pub state: ImportState,
    pub revision: i64,
    pub now: i64,
}

pub fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap()
}

/// Endpoints that lost their registration and live.
pub fn lost(plan: &Plan) -> usize {
    let lost = [&plan.outcomes].into_iter().flatten().filter(|instance| !instance.held);
    lost.filter(|i| matches!(i.outcome, Outcome::Lost { .. } | Outcome::ToBeHealed { .. } | Outcome::Healed { .. }))
        .count()
}

/// Lost and waiting endpoints whose record is, or is about to be, put back.
pub fn healed(plan: &Plan) -> usize {
    let healed = |i: &&InstanceOutcome| matches!(i.outcome, Outcome::ToBeHealed { .. } | Outcome::Healed { .. });
    plan.outcomes.iter().filter(healed).count()
}

/// Endpoints that wait for more evidence or for the guard.
pub fn waiting(plan: &Plan) -> usize {
    plan.outcomes.iter().filter(|instance| instance.held).count()
}

pub fn vm(n: usize) -> String {
    format!("10.0.0.{n}:80")
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

impl Scene {
    /// `count` servers that registered themselves, imported.
    pub fn of(count: usize) -> Self {
        let mut scene = Self {
            layout: Layout::new(Format::Kitex, "p"),
            owner: Owner { cluster_id: US.into(), service: ServiceKey::new("shop", "echo") },
            records: BTreeMap::new(),
            options: Options {
                schemes: vec![String::new()],
                keep_lost: SignedDuration::from_secs(3600),
                ..Options::default()
            },
            pods: BTreeMap::new(),
            pods_of_service: Pods::default(),
            refused: Refusals::default(),
            managed: BTreeSet::new(),
            departures: Departures::new(),
            leads: true,
            started_after_rollback: false,
            present: BTreeMap::new(),
            contested: BTreeMap::new(),
            to_adopt: BTreeSet::new(),
            probes: BTreeMap::new(),
            may_be_dead: false,
            restored_hold_since: None,
            state: ImportState::default(),
            revision: 100,
            now: 0,
        };
        for n in 1..=count {
            scene.put(&vm(n), "");
        }
        scene.step();
        scene
    }

    pub fn key(&self, address: &str) -> RecordKey {
        format!("p/echo/{address}").into()
    }

    /// A record as a server writes it; `tags` are inside the braces.
    pub fn put(&mut self, address: &str, tags: &str) {
        self.revision += 1;
        let value = format!(r#"{{"network":"tcp","address":"{address}","weight":7,"tags":{{{tags}}},"more":1}}"#);
        let raw = RawRecord {
            key: self.key(address),
            value: value.into_bytes(),
            mod_revision: self.revision,
            lease: LeaseId(9),
        };
        self.records.insert(raw.key.clone(), self.layout.decode(&raw));
        self.departures.remove(&addr(address));
    }

    pub fn goes(&mut self, address: &str, evidence: Evidence) {
        let record = self.records.remove(&self.key(address)).expect("it is there");
        let departure = Departure { evidence, at: at(self.now), record: Some(Arc::new(record)) };
        self.departures.insert(addr(address), departure);
    }

    pub fn answers(&mut self, address: &str, answer: Answer) {
        self.probes.insert(addr(address), Probe { answer, since: at(self.now), times: MISSING_ANSWERS });
    }

    pub fn plan(&self) -> Plan {
        self.plan_with(import::plan)
    }

    pub fn plan_with(&self, planner: impl Fn(&Input<'_>) -> Plan) -> Plan {
        let restored = self.restored_hold_since.map(|since| Reported { since, until: None });
        planner(&Input {
            layout: &self.layout,
            owner: &self.owner,
            records: &self.records.iter().map(|(key, record)| (key.clone(), Arc::new(record.clone()))).collect(),
            options: &self.options,
            families: &[Family::V4, Family::V6],
            managed_by_others: &self.managed,
            pods_of_others: &self.managed,
            pods: self.pods_of_service,
            refused: &self.refused,
            trust: Trust {
                cluster: &Cluster::default(),
                policy: &Policy::default(),
                pods: &self.pods,
                services: &BTreeSet::new(),
            },
            departures: &self.departures,
            leads: self.leads,
            started_after_rollback: self.started_after_rollback,
            may_be_dead: self.may_be_dead,
            present: &self.present,
            contested: &self.contested,
            to_adopt: &self.to_adopt,
            probes: &self.probes,
            limits: Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) },
            context: GuardContext { restored, ..GuardContext::default() },
            state: &self.state,
            now: at(self.now),
        })
    }

    /// Plans and applies: slices hold the planned endpoints, and healed records are written.
    pub fn step(&mut self) -> Plan {
        let plan = self.plan();
        self.present = plan
            .endpoints
            .iter()
            .map(|(addr, imported)| {
                let (ports, zone) = (imported.ports, imported.zone.clone());
                (*addr, Present { ports, zone, from_here: true, lost_until: imported.lost_until })
            })
            .collect();
        for op in &plan.ops {
            self.revision += 1;
            match op {
                RecordOp::Create { key, value } | RecordOp::Update { key, value, .. } => {
                    let raw = RawRecord {
                        key: key.clone(),
                        value: value.clone(),
                        mod_revision: self.revision,
                        lease: LeaseId(5),
                    };
                    let record = self.layout.decode(&raw);
                    record.endpoint_addresses().for_each(|addr| drop(self.departures.remove(&addr)));
                    self.records.insert(key.clone(), record);
                }
                RecordOp::Delete { key, .. } => drop(self.records.remove(key)),
            }
        }
        // Answers of addresses that are no longer probed are forgotten.
        self.probes.retain(|addr, _| plan.probe.contains(addr));
        self.state = plan.state.clone();
        self.restored_hold_since = None;
        plan
    }

    /// The process ends and another one starts: only the state in objects survives.
    pub fn restart(&mut self) {
        self.state = ImportState::default();
        self.departures.clear();
        self.probes.clear();
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.present.keys().map(ToString::to_string).collect()
    }
}
