//! Properties of a whole pass: any bytes as records, beside good ones and in place of them.
//!
//! Owns that a pass ends, that it touches only records that this cluster wrote, and that junk changes nothing about the
//! others, also where another RegisteredService, written by a person or discovered, wants the same. Refuses to know how
//! bytes decode, which [`crate::codec`] has properties of.

use proptest::prelude::*;

use super::scene::{LEASE, Scene, Writer, good, owner, scene, unique};
use super::*;
use crate::codec::testing::{US, record, repeatable};
use crate::model::{InstanceOutcome, Kind, Outcome, RawRecord};

/// The plan without the part that may tell of junk, and the memory that it is known.
fn essence(plan: &Plan, junk: &[RawRecord]) -> Plan {
    let mut plan = plan.clone();
    plan.outcomes.skipped.clear();
    plan.outcomes.foreign_records = 0;
    if let Some(directions) = &mut plan.directions {
        directions.import.skipped.clear();
        let doubted = directions.import.state.doubted.iter_mut();
        doubted.for_each(|doubted| doubted.retain(|key, _| junk.iter().all(|raw| raw.key != *key)));
    }
    plan
}

/// The outcomes that only the second list has, if it has all of the first.
fn added(without: &[InstanceOutcome], with: &[InstanceOutcome]) -> Option<Vec<InstanceOutcome>> {
    let mut rest = with.to_vec();
    for outcome in without {
        rest.remove(rest.iter().position(|other| other == outcome)?);
    }
    Some(rest)
}

/// Records of the scene, and any others. No two have one key.
fn with_others() -> impl Strategy<Value = (Scene, Vec<RawRecord>)> {
    scene().prop_flat_map(|scene| {
        let others = prop::collection::vec(record(scene.layout.clone()), 0..6);
        (Just(scene), others)
    })
}

proptest! {
    #![proptest_config(repeatable(350))]

    #[test]
    fn a_pass_over_any_records_touches_only_those_that_this_cluster_wrote((scene, others) in with_others()) {
        let records = unique(scene.good().into_iter().chain(others));
        let all: Vec<RawRecord> = records.values().cloned().collect();
        let plans = scene.passes(&all);
        let all_ops = plans.iter().flat_map(|plan| plan.records.iter().chain(&plan.revoked.records));
        for op in all_ops.flat_map(|(_, ops)| ops) {
            let known = records.get(op.key());
            match op {
                RecordOp::Create { .. } => prop_assert!(known.is_none(), "{:?}", op),
                RecordOp::Update { if_revision, .. } | RecordOp::Delete { if_revision, .. } => {
                    let Some(known) = known else { panic!("{op:?}: nothing is there") };
                    prop_assert_eq!(*if_revision, known.mod_revision);
                    let decoded = scene.layout.decode(known);
                    prop_assert!(decoded.ours(US).is_some(), "{:?}: {:?}", op, decoded);
                }
            }
            if let RecordOp::Create { key, value } | RecordOp::Update { key, value, .. } = op {
                let raw = RawRecord { key: key.clone(), value: value.clone(), mod_revision: 1, lease: LEASE };
                let written = scene.layout.decode(&raw);
                prop_assert_eq!(written.ours(US).map(AsRef::as_ref), Some(&owner(US, "echo")), "we write only what is ours");
            }
        }
        prop_assert_eq!(scene.passes(&all), plans, "the same facts give the same plan");
    }

    #[test]
    fn junk_beside_good_records_changes_nothing_about_them((scene, others) in with_others()) {
        let clean = unique(scene.good());
        let wanted: BTreeSet<RecordKey> = (1..5).map(|host| good(&scene.layout, host, Writer::Us).key).collect();
        let is_junk = |raw: &RawRecord| {
            let decoded = scene.layout.decode(raw);
            let unmarked = matches!(decoded.kind(US), Kind::Foreign | Kind::OtherCluster | Kind::Undecodable);
            unmarked && decoded.client_addresses().next().is_none() && decoded.endpoint_addresses().next().is_none()
        };
        let junk = unique(others.into_iter().filter(is_junk));
        // At the key of a record, or of one that we would write, there is no room for a good one.
        let junk: Vec<RawRecord> =
            junk.into_values().filter(|raw| !clean.contains_key(&raw.key) && !wanted.contains(&raw.key)).collect();
        let clean: Vec<RawRecord> = clean.into_values().collect();
        let soiled: Vec<RawRecord> = clean.iter().chain(&junk).cloned().collect();
        for (without, with) in scene.passes(&clean).iter().zip(&scene.passes(&soiled)) {
            prop_assert_eq!(essence(with, &junk), essence(without, &junk), "with {:?}", junk);
            let Some(told) = added(&without.outcomes.skipped, &with.outcomes.skipped) else {
                panic!("{:?} lacks some of {:?}", with.outcomes.skipped, without.outcomes.skipped)
            };
            let left_out = |told: &InstanceOutcome| matches!(told.outcome, Outcome::Skipped(_) | Outcome::NotAccepted);
            prop_assert!(told.iter().all(left_out), "{:?}", told);
            // Each of them is told, with its reason.
            let here = |raw: &&RawRecord| scene.layout.split_key(&raw.key).is_some_and(|(found, _)| found == b"echo");
            if scene.goal > 3 && scene.direction.1 {
                prop_assert_eq!(told.len(), junk.iter().filter(here).count(), "{:?}", told);
            }
        }
    }
}
