//! A RegisteredService whose spec cannot be carried out: nothing is added for it, and what ended goes.
//!
//! Owns the rule about what ended. An own record goes once its address is no ready endpoint at any port; an imported
//! endpoint goes as the evidence about its record says ([`crate::plan::departure`]), or when it may not be there any
//! more. Everything else stays as it is. Refuses to know why the spec cannot be carried out.

use super::accepted::Reduced;
use super::facts::{Facts, RegistryFacts};
use super::inputs::{ExportGoal, ImportGoal, Pass, on_our_clock};
use crate::model::{IMPORTED_FROM_ANNOTATION, RegistryName, Slice};
use crate::plan::{export, import, slices};

/// The removals in the current place, and in the one that the slices were filled from.
#[derive(Clone, Debug, Default)]
pub struct Reduction {
    /// The registry and the export.
    pub export: Option<(String, export::Plan)>,
    /// The registry, the import, and registry and name as slices have them.
    pub import: Option<(String, import::Plan, String)>,
    pub slices: slices::Plan,
}

pub fn plan(pass: &Pass<'_>, reduced: &Reduced) -> Reduction {
    let facts = pass.facts;
    let mut reduction = Reduction::default();
    if let Some(registry) = facts.fresh_registry() {
        let registry = without_former(facts, registry);
        let stays = reduced.stays();
        let goal = ExportGoal::reduced(pass, reduced, &stays, &registry, &pass.checkpoint.export);
        let export = pass.export(&registry, goal);
        reduction.export = Some((registry.name, export));
    }
    if let Some((registry, name)) = import_place(facts) {
        let source = format!("{}/{name}", registry.name);
        let present = on_our_clock(facts, slices::present(&ours(facts), &[], &source));
        let goal = ImportGoal {
            options: &reduced.import,
            policy: &reduced.policy,
            limits: reduced.limits,
            present: &present,
            source: source.clone(),
        };
        let beside = facts.pods_are_with_imports() && !reduced.ready.is_empty();
        let import = pass.import(registry, &goal, import::Pods { beside, ..import::Pods::default() }, import::reduce);
        reduction.slices = pass.shrunk(None, &import.endpoints);
        reduction.import = Some((registry.name.clone(), import, source));
    } else {
        reduction.slices = pass.followed(None);
    }
    reduction
}

/// The current registry without the records of former places in it: each is planned by itself.
pub fn without_former(facts: &Facts, registry: &RegistryFacts) -> RegistryFacts {
    let mut registry = registry.clone();
    for other in facts.former.iter().filter(|other| other.name == registry.name) {
        registry.snapshot.under_other_names.retain(|key, _| !other.snapshot.records.contains_key(key));
    }
    registry
}

/// The place from which the slices were filled, if its view is fresh; the current one if there are none.
fn import_place(facts: &Facts) -> Option<(&RegistryFacts, &RegistryName)> {
    let sources =
        || facts.cluster.our_slices.iter().filter_map(|slice| slice.annotations.get(IMPORTED_FROM_ANNOTATION));
    let mut places =
        facts.registry.iter().chain(&facts.former).filter_map(|place| Some((place, place.registry_name.as_ref()?)));
    let filled = |(place, name): &(&RegistryFacts, &RegistryName)| {
        let source = format!("{}/{name}", place.name);
        place.is_fresh() && (sources().next().is_none() || sources().any(|other| *other == source))
    };
    places.find(filled)
}

fn ours(facts: &Facts) -> Vec<&Slice> {
    facts.cluster.our_slices.iter().map(AsRef::as_ref).collect()
}
