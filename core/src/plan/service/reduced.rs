//! A RegisteredService whose spec cannot be carried out: nothing is added for it, and what ended goes.
//!
//! Owns the rule about what ended. An own record goes once its address is no ready endpoint at any port; an imported
//! endpoint goes as the evidence about its record says ([`crate::plan::departure`]), or when it may not be there any
//! more. Everything else stays as it is. Refuses to know why the spec cannot be carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::facts::{Facts, RegistryFacts};
use super::inputs::{ExportGoal, ImportGoal, Pass, on_our_clock};
use super::moves::{FormerGoals, plan_former};
use super::outcomes::Outcomes;
use super::{Directions, Plan};
use crate::model::{IMPORTED_FROM_ANNOTATION, InstanceAddr, RegistryName, Slice};
use crate::plan::departure::guard::Limits;
use crate::plan::export::Proof;
use crate::plan::import::Imported;
use crate::plan::{earlier, export, import, slices, trust};

/// The settings under which instances only go. They are those of the spec as far as it can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    pub import: import::Options,
    pub limits: Limits,
    pub policy: trust::Policy,
    /// Own records at these addresses stay, at whatever port: see [`super::ready_addresses`].
    pub ready: BTreeSet<IpAddr>,
}

pub fn plan(pass: &Pass<'_>, reduced: &Reduced, former: &FormerGoals) -> Plan {
    let facts = pass.facts;
    let mut plan = Plan::default();
    plan.add(plan_former(pass, former, None));
    let export = facts.fresh_registry().map(|registry| {
        let registry = without_former(facts, registry);
        (registry.name.clone(), pass.export(&registry, goal(pass, reduced, &registry, &pass.checkpoint.export)))
    });
    let import = import_place(facts).map(|(registry, name)| {
        let source = format!("{}/{name}", registry.name);
        let present = slices::present(&ours(facts), &[], &source);
        let goal = ImportGoal {
            options: &reduced.import,
            policy: &reduced.policy,
            limits: reduced.limits,
            present: &on_our_clock(facts, present),
            source: source.clone(),
        };
        (registry.name.clone(), source, pass.import(registry, &goal, !reduced.ready.is_empty(), import::reduce))
    });
    if export.is_none() && import.is_none() {
        plan.outcomes = Outcomes::not_accepted(facts);
        return plan;
    }
    let mut directions = Directions::default();
    if let Some((registry, export)) = export {
        plan.requeue_at = earlier(plan.requeue_at, export.requeue_at);
        plan.records.push((registry, export.ops.clone()));
        directions.export = export;
    }
    if let Some((registry, source, import)) = import {
        plan.requeue_at = earlier(plan.requeue_at, import.requeue_at);
        plan.records.push((registry, import.ops.clone()));
        plan.slices = slices::shrink(&ours(facts), &pass.on_server_clock(&import.endpoints), pass.triggered);
        directions.source = Some(source);
        directions.import = import;
    }
    plan.outcomes = Outcomes::reduced(facts, &directions.export, &directions.import);
    plan.directions = Some(directions);
    plan
}

/// The export that only withdraws, in one place.
pub fn goal<'a>(
    pass: &'a Pass<'_>,
    reduced: &'a Reduced,
    registry: &'a RegistryFacts,
    state: &'a export::ExportState,
) -> ExportGoal<'a> {
    // The change of the spec does not say that an endpoint ended.
    let proof = match pass.facts.proof(pass.checkpoint) {
        Proof::SpecChange => Proof::RelistOnly,
        proof => proof,
    };
    ExportGoal {
        name: registry.registry_name.as_ref(),
        instances: &[],
        stays: Some(&reduced.ready),
        imports: true,
        proof,
        limits: reduced.limits,
        moved: None,
        state,
    }
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

impl Pass<'_> {
    /// The endpoints that slices keep, with the deadlines of lost ones on the API server's clock.
    fn on_server_clock(&self, endpoints: &BTreeMap<InstanceAddr, Imported>) -> slices::Kept {
        let ahead = self.facts.holds.api_server_ahead;
        let until = |imported: &Imported| imported.lost_until.and_then(|until| until.checked_add(ahead).ok());
        endpoints.iter().map(|(addr, imported)| (*addr, until(imported))).collect()
    }
}

/// Addresses of ready endpoints in the slices of other managers, at whatever port.
pub fn ready_addresses(slices: &[Arc<Slice>], has_selector: bool) -> BTreeSet<IpAddr> {
    super::endpoints::ready_anywhere(slices, has_selector).into_iter().map(|addr| addr.ip()).collect()
}
