//! Places whose administrator does not allow the name: what a RegisteredService has there goes.
//!
//! Owns the rule that this happens at once, and whatever the spec says about writing: who may write the spec must not
//! keep a name that was taken back. Refuses to know why a place is revoked: the operator's controller judges `allowed`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::accepted::Goal;
use super::facts::{Facts, RegistryFacts};
use super::inputs::{ExportGoal, NONE, Pass};
use super::moves::FormerGoals;
use crate::model::{IMPORTED_FROM_ANNOTATION, Slice};
use crate::plan::departure::guard::Limits;
use crate::plan::export::{ExportState, Proof};
use crate::plan::{RecordOp, slices};

/// The operations that withdraw what is not allowed. A plan contains them, and a pass that must not write anything else
/// writes them nevertheless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// On each registry, by its name.
    pub records: Vec<(String, Vec<RecordOp>)>,
    pub slices: slices::Plan,
}

pub fn plan(pass: &Pass<'_>, goal: &Goal, former: &FormerGoals) -> Revoked {
    let facts = pass.facts;
    let current = facts.registry.iter().filter(|_| *goal == Goal::Revoke);
    let formers = facts.former.iter().filter(|registry| former.get(&registry.place()) == Some(&Goal::Revoke));
    let places: Vec<&RegistryFacts> = current.chain(formers).collect();
    let records = places.iter().filter(|registry| registry.is_fresh()).map(|registry| {
        let mut registry = (*registry).clone();
        // Former places are places of their own.
        registry.snapshot.under_other_names.clear();
        let everything = ExportGoal {
            name: None,
            instances: &[],
            aliases: NONE,
            stays: None,
            imports: true,
            proof: Proof::SpecChange,
            limits: Limits::NONE,
            moved: None,
            share: None,
            state: &ExportState::default(),
        };
        (registry.name.clone(), pass.export(&registry, everything).ops)
    });
    let source = |registry: &&RegistryFacts| Some(format!("{}/{}", registry.name, registry.registry_name.as_ref()?));
    let sources: BTreeSet<String> = places.iter().filter_map(source).collect();
    let ours = facts.cluster.our_slices.iter().filter(|slice| !slice.deleting);
    let from = |slice: &&Slice| slice.annotations.get(IMPORTED_FROM_ANNOTATION).is_some_and(|s| sources.contains(s));
    let revoked: Vec<&Slice> = ours.map(AsRef::as_ref).filter(from).collect();
    Revoked { records: records.collect(), slices: pass.without(&revoked) }
}

/// The current registry without records under names that are revoked: each of these is a place of its own.
pub fn without<'a>(registry: &'a RegistryFacts, facts: &Facts, former: &FormerGoals) -> Cow<'a, RegistryFacts> {
    let mut registry = Cow::Borrowed(registry);
    for other in &facts.former {
        if other.name == registry.name && former.get(&other.place()) == Some(&Goal::Revoke) {
            let of_other = &other.snapshot.records;
            registry.to_mut().snapshot.under_other_names.retain(|key, _| !of_other.contains_key(key));
        }
    }
    registry
}
