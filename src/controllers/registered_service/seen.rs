//! The facts of a pass that its status does not have, and the line of the status page needs.
//!
//! Owns the digest of all that the details of a service show: a row whose counts are equal comes again when its details
//! changed. A digest does not move because a planned write is done. Refuses to choose a word.

use std::hash::{DefaultHasher, Hash, Hasher};

use twinspan_core::model::Outcome;
use twinspan_core::plan::service::{Outcomes, RegistryFacts, Written};

use super::pass::Pass;
use crate::api::RegisteredServiceStatus;

/// Facts of one pass beside its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub leads: bool,
    /// Whether writes may follow: neither the spec forbids them, nor is it a dry run.
    pub writes: bool,
    /// Whether both sides were there to be compared.
    pub compared: bool,
    /// Whether an instance waits on one side for evidence or for its time.
    pub waits: bool,
    /// Whether an instance is left out on one side.
    pub differs: bool,
    pub digest: u64,
}

impl Seen {
    pub(super) fn of(pass: &Pass<'_>, status: &RegisteredServiceStatus, is_dry_run: bool) -> Self {
        let Pass { observed, validation, plan, written, .. } = *pass;
        let exports = validation.goal.accepted().is_some_and(|accepted| accepted.exports);
        Self {
            leads: observed.facts.term.is_some(),
            writes: validation.writes && !is_dry_run,
            compared: plan.directions.is_some(),
            waits: plan.outcomes.wait(),
            differs: plan.outcomes.differ(&observed.facts.cluster.others_slices, exports),
            digest: digest(status, &plan.outcomes, written, observed.facts.registry.as_ref()),
        }
    }
}

/// Equal while the details are.
fn digest(
    status: &RegisteredServiceStatus,
    outcomes: &Outcomes,
    written: &Written,
    registry: Option<&RegistryFacts>,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    for condition in &status.conditions {
        (&condition.type_, &condition.status, &condition.reason, &condition.message).hash(&mut hasher);
        condition.last_transition_time.0.hash(&mut hasher);
    }
    for instance in outcomes.all() {
        let addr = instance.subject.address();
        let [exported, imported] =
            [&written.exported, &written.imported].map(|there| addr.is_some_and(|addr| there.contains(&addr)));
        // The state that a write leads to, and whether it is there.
        match &instance.outcome {
            Outcome::ToBeWithdrawn { .. } if !exported => continue,
            Outcome::ToBeExported | Outcome::Exported { .. } => ("export", exported).hash(&mut hasher),
            Outcome::ToBeImported | Outcome::Imported => ("import", imported).hash(&mut hasher),
            outcome => outcome.hash(&mut hasher),
        }
        (&instance.subject, instance.held).hash(&mut hasher);
    }
    for registry in registry.into_iter() {
        // Own keys follow from their addresses; a foreign one may be replaced by another with the same address.
        let foreign = registry.snapshot.records.values().filter(|it| it.own(&registry.owner.cluster_id).is_none());
        foreign.for_each(|record| record.key.hash(&mut hasher));
    }
    hasher.finish()
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
