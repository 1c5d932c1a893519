//! Properties of hand-over: two RegisteredServices want the same, one or both of them discovered.
//!
//! Owns that each address ends with the first in precedence, and that its record is never away meanwhile, in whatever
//! order the two are planned. Refuses to know slices: the tests of imports have them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::scene::{LEASE, RIVAL, Rival, Scene, addr, at, rival, scene, unique};
use super::*;
use crate::codec::testing::{US, repeatable};
use crate::model::RawRecord;

/// The registry, and a revision for each write.
struct Registry<'a> {
    scene: &'a Scene,
    records: BTreeMap<RecordKey, RawRecord>,
    revision: i64,
}

impl Registry<'_> {
    fn raw(&self) -> Vec<RawRecord> {
        self.records.values().cloned().collect()
    }

    /// A pass over one of the two; `seen` is told of the registry after each operation.
    fn pass(&mut self, of: &str, seen: impl Fn(&Self)) {
        let (records, goal, now) = (self.raw(), Goal::Sync(Box::new(self.scene.accepted())), at(1_000));
        let facts = self.scene.facts(of, &records, &self.scene.endpoints, 0);
        let siblings = self.scene.siblings(&facts, &goal, &records, now);
        let plan = plan(&facts, &goal, &FormerGoals::new(), &siblings, &Checkpoint::default(), now, now);
        for op in plan.records.iter().flat_map(|(_, ops)| ops) {
            self.revision += 1;
            match op {
                RecordOp::Create { key, value } | RecordOp::Update { key, value, .. } => {
                    let (value, mod_revision) = (value.clone(), self.revision);
                    self.records.insert(key.clone(), RawRecord { key: key.clone(), value, mod_revision, lease: LEASE });
                }
                RecordOp::Delete { key, .. } => drop(self.records.remove(key)),
            }
            seen(self);
        }
    }

    /// The RegisteredServices of this cluster that export an address, and whether any record has it.
    fn exporters(&self, host: u8) -> (BTreeSet<String>, bool) {
        let decoded = self.records.values().map(|raw| self.scene.layout.decode(raw));
        let named: Vec<_> = decoded.filter(|record| record.endpoint_addresses().any(|a| a == addr(host))).collect();
        let exporters = named.iter().filter_map(|record| Some(record.own(US)?.service.name.clone())).collect();
        (exporters, !named.is_empty())
    }
}

/// Two that export, and the order of their passes.
fn two() -> impl Strategy<Value = (Scene, Rival, Vec<bool>)> {
    (scene(), rival(), prop::collection::vec(any::<bool>(), 0..4))
        .prop_map(|(scene, rival, turns)| (scene.exporting_beside(rival.clone()), rival, turns))
}

proptest! {
    #![proptest_config(repeatable(200))]

    #[test]
    fn an_address_ends_with_the_first_in_precedence_and_is_never_away((scene, rival, turns) in two()) {
        let revision = 1_000;
        let mut registry = Registry { scene: &scene, records: unique(scene.good()), revision };
        let turns = turns.into_iter().map(|rivals| if rivals { RIVAL } else { "echo" });
        let settling = ["echo", RIVAL, "echo", RIVAL];
        let there = |registry: &Registry<'_>| -> BTreeSet<u8> {
            scene.endpoints.iter().copied().filter(|host| registry.exporters(*host).1).collect()
        };
        let mut known = there(&registry);
        for of in turns.chain(settling) {
            registry.pass(of, |after| assert!(there(after).is_superset(&known), "{of}: {known:?}"));
            known = there(&registry);
        }
        let first = ["echo", RIVAL].into_iter().min_by_key(|of| rival.precedence(of)).unwrap();
        for host in &scene.endpoints {
            let (exporters, there) = registry.exporters(*host);
            prop_assert!(there);
            prop_assert!(exporters.iter().all(|exporter| exporter == first), "{}: {:?}", host, exporters);
        }
        // Nothing follows.
        let settled = registry.revision;
        settling.into_iter().for_each(|of| registry.pass(of, |_| ()));
        prop_assert_eq!(registry.revision, settled);
    }
}
