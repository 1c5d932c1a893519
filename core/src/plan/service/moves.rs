//! Moves: the places that a RegisteredService referred to before.
//!
//! Owns the rule that a move puts before it withdraws: a former place goes on as before, additions and removals, and an
//! instance leaves it once it is in the new place. Only where the former place itself gives a reason, for example that
//! the name is not allowed there any more, everything leaves it at once. Where the RegisteredService or the
//! ServiceRegistry is gone, perhaps with many others, the records of ready endpoints wait. Refuses to validate: the
//! operator's controller says what is the goal in each place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::accepted::{Accepted, Goal};
use super::checkpoint::Place;
use super::facts::RegistryFacts;
use super::inputs::{ExportGoal, NONE, Pass, ShareGoal};
use super::instances::instances;
use super::reach::{Reach, registered_at_nodes};
use crate::Timestamp;
use crate::model::{Instance, InstanceAddr, Record, RecordKey};
use crate::plan::departure::guard::Limits;
use crate::plan::departure::held::HeldDeletions;
use crate::plan::departure::registry_guard::ServiceDeletions;
use crate::plan::export::{ExportState, Proof, Writers};
use crate::plan::{RecordOp, earlier};

/// The goal in each former place. Everything leaves one that has none.
pub type FormerGoals = BTreeMap<Place, Goal>;

/// The place that takes the instances over, where its view is fresh and its goal is to sync.
#[derive(Clone, Copy, Debug)]
pub struct NewPlace<'a> {
    pub registry: &'a RegistryFacts,
    pub accepted: &'a Accepted,
}

/// The operations on the registries of former places, and the states of the exports there.
#[derive(Clone, Debug, Default)]
pub struct Former {
    pub records: Vec<(String, Vec<RecordOp>)>,
    pub states: BTreeMap<Place, ExportState>,
    /// The deletions of a RegisteredService that is gone, by registry.
    pub left_behind: BTreeMap<String, ServiceDeletions>,
    pub requeue_at: Option<Timestamp>,
}

/// Plans every former place. With a new place in the same registry, the export there counts the former names itself.
pub fn plan_former(pass: &Pass<'_>, goals: &FormerGoals, new: Option<NewPlace<'_>>) -> Former {
    let mut plan = Former::default();
    if pass.facts.former.is_empty() {
        return plan;
    }
    let moved = new.map(|new| addresses(new.registry));
    let same = |registry: &&RegistryFacts| new.is_some_and(|new| new.registry.name == registry.name);
    for registry in pass.facts.former.iter().filter(|registry| registry.is_fresh() && !same(registry)) {
        let goal = goals.get(&registry.place()).unwrap_or(&Goal::Withdraw { guarded: None });
        if *goal == Goal::Revoke {
            continue;
        }
        plan_place(pass, &without_shared(pass, registry), goal, new, moved.as_ref(), &mut plan);
    }
    plan
}

/// Two registries without a common prefix may lie in one etcd: a record that the current one has too is no former one.
fn without_shared(pass: &Pass<'_>, registry: &RegistryFacts) -> RegistryFacts {
    let mut registry = registry.clone();
    if let Some(current) = pass.facts.fresh_registry().filter(|current| current.name != registry.name) {
        let shared = |key: &RecordKey, record: &Arc<Record>| current.snapshot.records.get(key) == Some(record);
        Arc::make_mut(&mut registry.snapshot.records).retain(|key, record| !shared(key, record));
        registry.snapshot.under_other_names.retain(|key, record| !shared(key, record));
    }
    registry
}

/// Whether one of the former places goes on.
pub fn any_goes_on(pass: &Pass<'_>, goals: &FormerGoals) -> bool {
    pass.facts.former.iter().any(|registry| matches!(goals.get(&registry.place()), Some(Goal::Sync(_))))
}

fn plan_place(
    pass: &Pass<'_>,
    registry: &RegistryFacts,
    goal: &Goal,
    new: Option<NewPlace<'_>>,
    moved: Option<&BTreeSet<InstanceAddr>>,
    plan: &mut Former,
) {
    let state = pass.checkpoint.former_export(&registry.place());
    let everything = ExportGoal {
        name: None,
        instances: &[],
        aliases: NONE,
        stays: None,
        imports: moved.is_none(),
        proof: match &registry.vanished {
            Some(vanished) => Proof::OwnerGone { ready: &vanished.ready },
            None => Proof::SpecChange,
        },
        limits: Limits::NONE,
        moved,
        share: None,
        state,
    };
    let waits = |addr: &InstanceAddr| moved.is_none_or(|moved| !moved.contains(addr));
    let (name, proof) = (registry.registry_name.as_ref(), pass.facts.proof(pass.checkpoint));
    let waiting: Vec<Instance>;
    let (aliases, stays);
    let goal = match goal {
        Goal::Sync(accepted) => {
            let reach = if accepted.exports { accepted.reach(pass.facts, Some(registry)) } else { Reach::default() };
            let writers = Writers::of(&registry.snapshot.records, &registry.owner);
            aliases = registered_at_nodes(pass.facts, &reach, &writers);
            let (instances, _) = instances(pass.facts, accepted, registry.layout.format(), &reach);
            waiting = instances.into_iter().filter(|i| i.addresses().all(|a| waits(&a))).collect();
            let proof = if accepted.exports { proof } else { Proof::SpecChange };
            let goes_on = ExportGoal {
                name,
                instances: &waiting,
                aliases: &aliases,
                proof,
                limits: accepted.limits,
                share: ShareGoal::of(accepted),
                ..everything
            };
            if waiting.is_empty() && moved.is_some() { everything } else { goes_on }
        }
        Goal::Withdraw { guarded: Some(limits) } => ExportGoal { name, proof, limits: *limits, ..everything },
        Goal::Withdraw { guarded: None } | Goal::Revoke => everything,
        // The former place cannot carry the spec: what did not end stays until all have moved.
        Goal::Reduce(reduced) => match new {
            Some(new) if !new.accepted.reach(pass.facts, Some(new.registry)).ports.keys().any(waits) => everything,
            _ => {
                stays = reduced.stays();
                ExportGoal { moved, ..ExportGoal::reduced(pass, reduced, &stays, registry, state) }
            }
        },
    };
    let export = pass.export(registry, goal);
    plan.requeue_at = earlier(plan.requeue_at, export.requeue_at);
    if let Some(vanished) = registry.vanished.as_ref().filter(|vanished| vanished.remaining.is_some()) {
        let held = HeldDeletions { export: export.guard.held.clone(), ..HeldDeletions::default() };
        let deletions =
            ServiceDeletions { held: held.named(), remaining: vanished.remaining, ..ServiceDeletions::default() };
        plan.left_behind.insert(registry.name.clone(), deletions);
    }
    plan.records.push((registry.name.clone(), export.ops));
    plan.states.insert(registry.place(), export.state);
}

/// The addresses that clients find in a place, whoever registered them.
fn addresses(registry: &RegistryFacts) -> BTreeSet<InstanceAddr> {
    let clients = registry.snapshot.records.values().flat_map(|record| record.client_addresses());
    clients.filter_map(|(ip, port)| InstanceAddr::new(ip, port).ok()).collect()
}
