//! For any history: the first plan of a standby that takes over adds no endpoint that the first plan of a new process
//! would not add, and beyond what that one removes it removes only what its own evidence explains.

use std::collections::BTreeSet;

use super::scene::{Scene, addr, vm};
use super::{ImportState, Plan};
use crate::model::{InstanceAddr, LeaseId, PortSet, RawRecord, Reason};
use crate::plan::RecordOp;
use crate::plan::departure::{Answer, Departures, Evidence, OnExpiry};
use crate::plan::import::{OtherClusters, Present};
use crate::plan::trust::PodOf;

/// Addresses in use.
const ADDRESSES: usize = 8;
const EVIDENCE: [Evidence; 8] = [
    Evidence::LookingUp,
    Evidence::Deregistered,
    Evidence::DeregisteredUnseen,
    Evidence::LeaseExpired,
    Evidence::NoRecordAtStart,
    Evidence::BulkDeleted,
    Evidence::LeaseUnreadable,
    Evidence::RolledBack,
];

/// Numbers that follow from a seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % n
    }
}

/// A leader with its own view and probes, and a standby with another view of the same registry and slices.
struct History {
    dice: Dice,
    leader: Scene,
    standby: ImportState,
    standby_sees: Departures,
}

impl History {
    fn begin(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut leader = Scene::of(1 + dice.below(ADDRESSES - 1));
        leader.options.on_expiry = [OnExpiry::Remove, OnExpiry::Probe, OnExpiry::Heal][dice.below(3)];
        leader.options.other_clusters = [None, Some(None), Some(Some(1)), Some(Some(3))][dice.below(4)]
            .map(|min_local| OtherClusters { min_local, ..OtherClusters::default() });
        Self { dice, leader, standby: ImportState::default(), standby_sees: Departures::new() }
    }

    fn address(&mut self) -> String {
        vm(1 + self.dice.below(ADDRESSES))
    }

    fn step(&mut self) {
        let address = self.address();
        match self.dice.below(14) {
            0 | 1 => {
                let marks = [
                    "",
                    r#""twinspan.dev/owner":"c2/shop/echo""#,
                    r#""twinspan.dev/owner":"c2/shop/echo","twinspan.dev/healed":"true""#,
                    r#""twinspan.dev/owner":"c1/shop/echo","twinspan.dev/healed":"true""#,
                ];
                self.leader.put(&address, marks[self.dice.below(marks.len())]);
                self.standby_sees.remove(&addr(&address));
            }
            2..=4 => self.goes(&address),
            5 => self.changes_its_address(&address),
            6 | 7 => {
                let answer = [Answer::Accepted, Answer::Refused, Answer::NoAnswer][self.dice.below(3)];
                self.leader.answers(&address, answer);
            }
            8 => self.leader.now += 1 + i64::try_from(self.dice.below(400)).unwrap(),
            // A plan that nobody applies.
            9 => self.leader.state = self.leader.plan().state,
            10 => {
                let present =
                    Present { ports: PortSet::of(0), from_here: self.dice.below(2) == 0, ..Present::default() };
                self.leader.present.insert(addr(&address), present);
            }
            11 => match self.dice.below(3) {
                0 => drop(self.leader.pods.insert(addr(&address).ip(), PodOf::SameNamespace)),
                1 => drop(self.leader.managed.insert((addr(&address).ip(), 80))),
                _ => {
                    self.leader.pods.clear();
                    self.leader.managed.clear();
                }
            },
            // A view forgets old departures.
            12 => self.standby_sees.clear(),
            _ => self.leader.restart(),
        }
        if self.dice.below(3) > 0 {
            self.leader.step();
        }
        if self.dice.below(3) > 0 {
            self.standby = self.as_standby(false).plan().state;
        }
    }

    fn goes(&mut self, address: &str) {
        if !self.leader.records.contains_key(&self.leader.key(address)) {
            return;
        }
        let evidence = EVIDENCE[self.dice.below(EVIDENCE.len())];
        self.leader.goes(address, evidence);
        // The standby may judge the circumstances otherwise, or miss the departure.
        if self.dice.below(4) > 0 {
            let mut departure = self.leader.departures[&addr(address)].clone();
            if self.dice.below(4) == 0 {
                departure.evidence = EVIDENCE[self.dice.below(EVIDENCE.len())];
            }
            self.standby_sees.insert(addr(address), departure);
        }
    }

    fn changes_its_address(&mut self, address: &str) {
        let key = self.leader.key(address);
        if self.leader.records.contains_key(&key) {
            self.leader.revision += 1;
            let other = self.address();
            let value = format!(r#"{{"network":"tcp","address":"{other}","weight":7}}"#).into_bytes();
            // Any key but one that names another address.
            let key = format!("p/echo/moved-{}", addr(address).ip()).into();
            let raw = RawRecord { key, value, mod_revision: self.leader.revision, lease: LeaseId(9) };
            self.leader.records.remove(&self.leader.key(address));
            self.leader.records.insert(raw.key.clone(), self.leader.layout.decode(&raw));
            self.leader.departures.remove(&addr(&other));
            self.standby_sees.remove(&addr(&other));
        }
    }

    /// The standby's scene: the same registry and slices, its own evidence, and no probes.
    fn as_standby(&self, leads: bool) -> Scene {
        let state = self.standby.clone().evidence();
        Scene { state, departures: self.standby_sees.clone(), ..self.as_new_process(leads) }
    }

    fn as_new_process(&self, leads: bool) -> Scene {
        let leader = &self.leader;
        Scene {
            layout: leader.layout.clone(),
            owner: leader.owner.clone(),
            records: leader.records.clone(),
            options: leader.options.clone(),
            pods: leader.pods.clone(),
            managed: leader.managed.clone(),
            present: leader.present.clone(),
            revision: leader.revision,
            now: leader.now,
            leads,
            ..Scene::of(0)
        }
    }

    /// Checks the take-over that would begin now. Returns how many endpoints it adds, removes and holds.
    fn check(&self, seed: u64) -> [usize; 3] {
        let (standby, new) = (self.as_standby(true), self.as_new_process(true).plan());
        let plan = standby.plan();
        let removed = |plan: &Plan| -> BTreeSet<InstanceAddr> {
            standby.present.keys().filter(|addr| !plan.endpoints.contains_key(addr)).copied().collect()
        };
        for (addr, imported) in &plan.endpoints {
            match standby.present.get(addr) {
                None => assert!(new.endpoints.contains_key(addr), "seed {seed}: {addr} is added"),
                Some(present) if !present.ports.is_empty() => {
                    let expected = new.endpoints.get(addr).map_or(present.ports, |new| new.ports);
                    assert_eq!(imported.ports, expected, "seed {seed}: ports of {addr}");
                }
                Some(_) => {}
            }
        }
        let explained = |addr: &InstanceAddr| {
            let refused = plan.skipped.iter().any(|skipped| skipped.skip_reason() == Some(Reason::FormerEndpoint));
            standby.departures.contains_key(addr) || standby.state.departing.contains_key(addr) || refused
        };
        for addr in removed(&plan).difference(&removed(&new)) {
            assert!(explained(addr), "seed {seed}: {addr} is removed without evidence");
        }
        for op in &plan.ops {
            let known = new.ops.contains(op);
            let address = standby.records.get(op.key()).and_then(|record| record.endpoint_addresses().next());
            let ends = matches!(op, RecordOp::Delete { .. }) && address.is_some_and(|addr| explained(&addr));
            assert!(known || ends, "seed {seed}: {op:?} without a probe");
        }
        assert!(plan.guard.allowed.is_empty(), "seed {seed}: the guard lets go before a leader ruled");
        let now = super::scene::at(standby.now);
        assert!(plan.guard.hold.is_none_or(|hold| hold.since == now), "seed {seed}: {:?}", plan.guard.hold);
        let added = plan.endpoints.keys().filter(|addr| !standby.present.contains_key(addr)).count();
        [added, removed(&plan).len(), plan.guard.held.len()]
    }
}

#[test]
fn a_standby_that_takes_over_adds_nothing_and_removes_what_its_evidence_explains() {
    let mut seen = [0; 3];
    for seed in 1..=150 {
        let mut history = History::begin(seed);
        for _ in 0..40 {
            history.step();
            let counts = history.check(seed);
            (0..3).for_each(|n| seen[n] += counts[n]);
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "the histories say too little: {seen:?}");
}
