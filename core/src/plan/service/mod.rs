//! One RegisteredService, both ways: the planner of a whole pass.
//!
//! - [`facts`]: the state of both sides as values; [`accepted`]: the goal and the settings in force; [`checkpoint`]:
//!   the values that the last pass handed on; [`siblings`]: other RegisteredServices that share a name or a Service.
//! - [`endpoints`]: the endpoints that may be exported; [`instances`]: their form in the registry.
//! - [`gates`]: the verdicts of a pass on the readiness gates of its pods.
//! - [`reach`]: the addresses that clients get for them.
//! - [`inputs`]: the inputs of the planners of each direction.
//! - [`mirror`]: pods that stand in the Service of the imports too. [`pods`]: what imports have to know of pods.
//! - [`moves`]: the places that a RegisteredService referred to before.
//! - [`silence`]: deletions that rest on a kind that was not heard of.
//! - [`reduced`]: a spec that cannot be carried out adds nothing, and goes on removing.
//! - [`revoked`]: places whose administrator does not allow the name.
//! - [`risks`]: what clients in the cluster may miss.
//! - [`outcomes`]: the outcome of each instance, and the counts that follow from it; [`one_sided`]: those that one side
//!   alone has.
//!
//! Owns the order of the steps: the created Service, export, import, slices, former places. Refuses to know
//! handles, API objects and words for people: operations name their registry, and every instance has an outcome.

mod accepted;
mod checkpoint;
mod endpoints;
mod facts;
mod gates;
#[cfg(test)]
mod hand_over_properties;
mod inputs;
mod instances;
mod mirror;
mod moves;
mod one_sided;
mod outcomes;
mod pods;
#[cfg(test)]
mod properties;
mod reach;
mod reduced;
mod revoked;
mod risks;
#[cfg(test)]
mod scene;
mod shared;
mod siblings;
mod silence;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;

use crate::Timestamp;
use crate::model::{InstanceAddr, NewService, Outcome, PortSet, RecordKey, ServiceView};
use crate::plan::departure::guard::{Guard, Limits};
use crate::plan::departure::held::{HeldDeletions, Hold};
use crate::plan::departure::registry_guard::ServiceDeletions;
use crate::plan::export::ExportState;
use crate::plan::export::{Proof, Writers};
use crate::plan::slices::SliceGroup;
use crate::plan::{RecordOp, earlier, export, import, slices};
use endpoints::EndpointState;
use inputs::{ExportGoal, ImportGoal, Pass, ShareGoal};
use moves::{Former, NewPlace, any_goes_on, plan_former};
use reduced::Reduction;
use silence::Kept;

pub use accepted::{Accepted, AcceptedPort, Goal, Reduced};
pub use checkpoint::{Checkpoint, Place, Planned, Term};
pub use endpoints::{ready_addresses, ready_in};
pub use facts::{
    ClusterFacts, Facts, HoldFacts, Incarnation, RegistryFacts, Silent, Snapshot, Vanished, ViewState, ips_of,
    lets_export,
};
pub use gates::{Verdicts, verdicts};
pub use moves::FormerGoals;
pub use outcomes::{Counts, Difference, Outcomes, Progress, Side, Written};
pub use reach::{Reach, outer_addresses};
pub use revoked::Revoked;
pub use risks::{ImportPlace, Risk, risks};
pub use shared::{Shared, Siblings};
pub use siblings::{Sibling, weigh};

/// The next look at a Service from which imports move.
const EMPTIED_WITHIN: SignedDuration = SignedDuration::from_secs(1);
/// The next look at an endpoint that stays until a sibling's slice has it.
const HANDED_OVER_WITHIN: SignedDuration = SignedDuration::from_secs(1);

/// The operations that a pass wants, and the outcome of each instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub create: Option<NewService>,
    /// A Service that we created, with its UID, and that needs other ports.
    pub amend: Option<(NewService, String)>,
    /// A Service that was created for another RegisteredService, and that becomes ours.
    pub adopt: Option<Arc<ServiceView>>,
    /// Services that we created and that nothing refers to any more, or that must be recreated.
    pub remove: Vec<Arc<ServiceView>>,
    /// The operations on each registry, by its name.
    pub records: Vec<(String, Vec<RecordOp>)>,
    pub slices: slices::Plan,
    /// The part of the operations that is written even where the spec forbids to write.
    pub revoked: Revoked,
    /// Absent if nothing could be planned because the registry's view is not fresh.
    pub directions: Option<Directions>,
    pub outcomes: Outcomes,
    /// An annotation of a pod that cannot be read, for the `Exported` condition.
    pub note: Option<String>,
    /// The endpoints behind each exported address that is not their own; `None` where the pass exported nothing anew.
    pub behind: Option<BTreeMap<InstanceAddr, BTreeSet<IpAddr>>>,
    pub requeue_at: Option<Timestamp>,
    /// The states of the exports in former places, for the next pass.
    pub former: BTreeMap<Place, ExportState>,
    /// Records that a RegisteredService that is gone still has to withdraw, by registry.
    pub left_behind: BTreeMap<String, ServiceDeletions>,
}

/// The plans of both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directions {
    pub export: export::Plan,
    pub import: import::Plan,
    /// Registry and name of the import, where they are not those that the RegisteredService refers to.
    pub source: Option<String>,
}

impl Directions {
    /// The hold of either direction.
    pub fn hold(&self) -> Option<Hold> {
        [self.import.guard.hold, self.export.guard.hold].into_iter().flatten().reduce(Hold::and)
    }

    /// Whether the hold of an earlier process may go on: its deletions become unexplained one after the other.
    pub fn may_resume(&self) -> bool {
        self.import.state.guard.may_resume() || self.export.state.guard.may_resume()
    }

    /// The name of the hold, for its approval.
    pub fn hash(&self) -> Option<String> {
        Some(self.held().hash(self.hold()?.since))
    }

    /// The deletions that wait for the guard.
    pub fn held(&self) -> HeldDeletions {
        HeldDeletions { import: self.import.guard.held.clone(), export: self.export.guard.held.clone() }
    }

    /// The deletions that the guard of the whole registry counts.
    pub fn deletions(&self) -> ServiceDeletions {
        let mut deletions = ServiceDeletions {
            known: self.import.endpoints.len() + self.export.exported() + self.export.guard.held.len(),
            held: self.held().named(),
            seen: self.import.guard.held.iter().filter_map(|addr| self.seen(addr)).collect(),
            ..ServiceDeletions::default()
        };
        let guards = [&self.import.state.guard, &self.export.state.guard];
        for (end, count) in guards.into_iter().filter_map(Guard::deleted) {
            *deletions.deleted.entry(end).or_default() += count;
        }
        deletions
    }

    /// The name and the time of a departure that the process saw itself.
    fn seen(&self, addr: &InstanceAddr) -> Option<(String, Timestamp)> {
        let departed = self.import.state.departing.get(addr).filter(|departed| departed.saw)?;
        Some((HeldDeletions::name_of_import(addr), departed.at))
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.create.is_none()
            && self.amend.is_none()
            && self.adopt.is_none()
            && self.remove.is_empty()
            && self.slices.ops.is_empty()
            && self.records.iter().all(|(_, ops)| ops.is_empty())
    }

    /// The part that is written: everything, or where the spec forbids to write only what is not allowed any more.
    pub fn written(&self, writes: bool) -> Cow<'_, Self> {
        if writes {
            return Cow::Borrowed(self);
        }
        let Revoked { records, slices } = self.revoked.clone();
        Cow::Owned(Self { records, slices, ..Self::default() })
    }

    /// The API server refused these groups of slices: their endpoints are left out.
    pub fn leave_out(&mut self, refused: &BTreeMap<SliceGroup, String>) {
        let left_out = self.outcomes.imported.iter().filter(|instance| instance.outcome == Outcome::ToBeImported);
        let left_out = left_out.filter_map(|instance| instance.subject.address());
        let left_out: BTreeSet<InstanceAddr> =
            left_out.filter(|addr| refused.contains_key(&SliceGroup::from(*addr))).collect();
        self.outcomes.leave_out(&left_out);
        self.slices.left_out.extend(left_out);
        self.slices.refused.extend(refused.clone());
    }

    fn add(&mut self, former: Former) {
        self.records.extend(former.records);
        self.former.extend(former.states);
        self.left_behind.extend(former.left_behind);
        self.requeue_at = earlier(self.requeue_at, former.requeue_at);
    }

    /// The endpoints behind each address, for the next pass. One that ended unseen counts while the record is there.
    fn behind(&self, facts: &Facts, before: &Checkpoint) -> BTreeMap<InstanceAddr, BTreeSet<IpAddr>> {
        let mut behind = self.behind.clone().unwrap_or_default();
        if before.behind.is_empty() {
            return behind;
        }
        let own = facts.registry.iter().flat_map(|registry| {
            let ours = registry
                .snapshot
                .records
                .values()
                .filter(|r| r.own(&registry.owner.cluster_id) == Some(&registry.owner));
            ours.flat_map(|record| record.endpoint_addresses())
        });
        for addr in own.collect::<BTreeSet<_>>() {
            let Some(ips) = before.behind.get(&addr) else { continue };
            // Where nothing is reached now, the next pass has to know it still.
            let unknown = self.behind.as_ref().is_none_or(BTreeMap::is_empty);
            let stays = |ip: &&IpAddr| unknown || facts.cluster.unseen_behind.contains(*ip);
            let stay: Vec<IpAddr> = ips.iter().filter(stays).copied().collect();
            if !stay.is_empty() {
                behind.entry(addr).or_default().extend(stay);
            }
        }
        behind
    }

    /// The checkpoint for the next pass.
    pub fn checkpoint(&self, facts: &Facts, before: &Checkpoint) -> Checkpoint {
        let mut checkpoint = before.clone();
        // One that is gone is still known by what it was, until its slices are gone as well.
        if !facts.uid.is_empty() {
            checkpoint.uid.clone_from(&facts.uid);
        }
        if let Some(directions) = &self.directions {
            checkpoint.planned = Some(Planned { generation: facts.generation, relists: facts.cluster.relists });
            checkpoint.term = facts.term;
            let registry = facts.registry.as_ref();
            let source = registry.and_then(|r| Some(format!("{}/{}", r.name, r.registry_name.as_ref()?)));
            checkpoint.source = directions.source.clone().or(source).unwrap_or_default();
            checkpoint.import = directions.import.state.clone();
            checkpoint.export = directions.export.state.clone();
            checkpoint.behind = self.behind(facts, before);
            checkpoint.held = directions.held();
            checkpoint.held_hash = directions.hash();
            if !facts.holds.approved.is_empty() {
                checkpoint.carried_out.clone_from(&facts.holds.approval);
            }
        }
        checkpoint.former.retain(|place, _| facts.former.iter().any(|registry| registry.place() == *place));
        checkpoint.former.extend(self.former.clone());
        if !self.former.is_empty() {
            checkpoint.former_term = facts.term;
        }
        checkpoint
    }
}

/// Plans a pass. `triggered` is the time of the change that triggered it.
pub fn plan(
    facts: &Facts,
    goal: &Goal,
    former: &FormerGoals,
    siblings: &Siblings,
    checkpoint: &Checkpoint,
    now: Timestamp,
    triggered: Timestamp,
) -> Plan {
    let pass = Pass { facts, siblings, checkpoint, now, triggered };
    let revoked = revoked::plan(&pass, goal, former);
    let mut plan = match goal {
        Goal::Sync(accepted) => sync(&pass, accepted, former),
        Goal::Withdraw { guarded } => withdraw(&pass, *guarded, former),
        Goal::Revoke => {
            let mut plan = Plan { outcomes: Outcomes::not_accepted(facts), ..Plan::default() };
            plan.add(plan_former(&pass, former, None));
            plan.slices = if any_goes_on(&pass, former) { pass.followed(None) } else { pass.withdrawn() };
            plan
        }
        Goal::Reduce(reduced) => reduce(&pass, reduced, former),
    };
    let kept = Kept::of(facts, goal);
    plan.records.iter_mut().for_each(|(_, ops)| kept.keep_records(ops));
    kept.keep_endpoints(&mut plan.slices, &facts.cluster.our_slices);
    plan.remove.retain(|_| !kept.imports);
    // A grant that an administrator took back ends whatever is silent.
    plan.records.splice(0..0, revoked.records.iter().cloned());
    plan.slices.add_missing(&revoked.slices);
    plan.revoked = revoked;
    plan.requeue_at = earlier(plan.requeue_at, facts.cluster.strays_until);
    plan
}

fn sync(pass: &Pass<'_>, accepted: &Accepted, former: &FormerGoals) -> Plan {
    let (facts, now) = (pass.facts, pass.now);
    let mut plan = Plan { create: accepted.create.clone(), ..Plan::default() };
    let uid = facts.cluster.import_service.as_ref().map(|service| service.uid.clone()).unwrap_or_default();
    plan.amend = accepted.amend.clone().map(|wanted| (wanted, uid));
    plan.adopt = facts.cluster.import_service.clone().filter(|_| accepted.adopt);
    // A Service of the right name without a port for imports must be recreated.
    let right =
        |service: &Arc<ServiceView>| [&accepted.service.name, &accepted.import_service.name].contains(&&service.name);
    let kept = |service: &&Arc<ServiceView>| service.deleting || (right(service) && !accepted.ports.is_empty());
    let wrong = facts.cluster.created_services.iter().filter(|service| !kept(service)).cloned();
    // One from which imports move goes once none is left in it.
    let (emptied, remove) = wrong.partition(|service| !right(service) && facts.fills(&service.name));
    let emptied: Vec<Arc<ServiceView>> = emptied;
    plan.remove = remove;
    let endpoints = accepted.endpoints(facts);
    let Some(registry) = facts.fresh_registry() else {
        plan.add(plan_former(pass, former, None));
        plan.slices = pass.followed(Some(accepted));
        plan.outcomes = Outcomes::unavailable(facts, accepted, endpoints);
        return plan;
    };
    let registry = &*revoked::without(registry, facts, former);
    // Clients in the cluster have no endpoint that its gate keeps from being ready.
    let ready = endpoints.iter().filter_map(|(addr, state)| match state {
        EndpointState::Ready(ports) => Some((*addr, *ports)),
        EndpointState::Gated(_) | EndpointState::Withheld(_) => None,
    });
    let mut ready: BTreeMap<InstanceAddr, PortSet> = ready.collect();
    let pods = pods::of(pass, accepted, &ready);
    let gated = |(addr, state): (&InstanceAddr, &EndpointState)| Some((*addr, state.exported()?));
    ready.extend(endpoints.iter().filter(|(_, state)| matches!(state, EndpointState::Gated(_))).filter_map(gated));
    let reach = if accepted.exports { accepted.reach_of(facts, Some(registry), ready) } else { Reach::default() };
    // Records from before stay while nothing takes their place.
    let stays = reach.is_without_any().then(|| reach.earlier_addresses(facts, &pass.checkpoint.behind));
    let (instances, note) = instances::instances(facts, accepted, registry.layout.format(), &reach);
    plan.note = note;
    plan.behind = Some(reach.ips_behind());
    let writers = Writers::of(&registry.snapshot.records, &registry.owner);
    let aliases = reach::registered_at_nodes(facts, &reach, &writers);
    let export = pass.export_of(
        registry,
        &writers,
        ExportGoal {
            name: Some(&accepted.name),
            instances: &instances,
            aliases: &aliases,
            stays: stays.as_ref(),
            imports: accepted.imports,
            // The spec itself proves that the export is no longer wanted.
            proof: if accepted.exports { facts.proof(pass.checkpoint) } else { Proof::SpecChange },
            limits: accepted.limits,
            moved: None,
            share: ShareGoal::of(accepted),
            state: &pass.checkpoint.export,
        },
    );
    let import = if accepted.imports {
        let (present, source) = (inputs::present(facts, accepted), accepted.source(&registry.name));
        pass.import(registry, &ImportGoal::of(accepted, &present, source), pods, import::plan)
    } else {
        import::Plan::default()
    };
    plan.slices = match &plan.create {
        // Imports stay where they are until the Service exists to which they move.
        Some(_) if accepted.has_import_service() => pass.shrunk(Some(accepted), &import.endpoints),
        _ => pass.slices(accepted, &import.endpoints),
    };
    plan.requeue_at = earlier(plan.requeue_at, earlier(export.requeue_at, import.requeue_at));
    if !emptied.is_empty() && plan.create.is_none() {
        plan.requeue_at = earlier(plan.requeue_at, now.checked_add(EMPTIED_WITHIN).ok());
    }
    plan.records.push((registry.name.clone(), merged(&export, &import)));
    plan.add(plan_former(pass, former, Some(NewPlace { registry, accepted })));
    plan.requeue_at = earlier(plan.requeue_at, plan.slices.requeue_at);
    plan.outcomes = Outcomes::synced(&writers, accepted, endpoints, &reach, &export, &import);
    plan.outcomes.leave_out(&plan.slices.left_out);
    let directions = Directions { export, import, source: None };
    let approval = &facts.holds.approval;
    if approval.is_some() && *approval == directions.hash() && *approval != pass.checkpoint.carried_out {
        // The approval came before this process knew the held deletions.
        plan.requeue_at = earlier(plan.requeue_at, Some(now));
    }
    plan.directions = Some(directions);
    plan
}

/// The operations of both directions. An export takes over a healed record at its key, in one update.
fn merged(export: &export::Plan, import: &import::Plan) -> Vec<RecordOp> {
    let exported: BTreeSet<&RecordKey> = export.ops.iter().map(RecordOp::key).collect();
    let import = import.ops.iter().filter(|op| !exported.contains(op.key()));
    export.ops.iter().chain(import).cloned().collect()
}

/// Adds nothing, and removes what ended.
fn reduce(pass: &Pass<'_>, reduced: &Reduced, former: &FormerGoals) -> Plan {
    let mut plan = Plan::default();
    plan.add(plan_former(pass, former, None));
    let Reduction { export, import, slices } = reduced::plan(pass, reduced);
    plan.slices = slices;
    if export.is_none() && import.is_none() {
        plan.outcomes = Outcomes::not_accepted(pass.facts);
        return plan;
    }
    let mut directions = Directions::default();
    if let Some((registry, export)) = export {
        plan.requeue_at = earlier(plan.requeue_at, export.requeue_at);
        plan.records.push((registry, export.ops.clone()));
        directions.export = export;
    }
    if let Some((registry, import, source)) = import {
        plan.requeue_at = earlier(plan.requeue_at, import.requeue_at);
        plan.records.push((registry, import.ops.clone()));
        directions.source = Some(source);
        directions.import = import;
    }
    plan.outcomes = Outcomes::reduced(pass.facts, &directions.export, &directions.import);
    plan.directions = Some(directions);
    plan
}

/// Withdraws everything. If only a re-list says that the Service is gone, the deletions go through the guard.
fn withdraw(pass: &Pass<'_>, guarded: Option<Limits>, former: &FormerGoals) -> Plan {
    let mut plan = Plan { outcomes: Outcomes::not_accepted(pass.facts), ..Plan::default() };
    plan.add(plan_former(pass, former, None));
    if let Some(registry) = pass.facts.fresh_registry() {
        let registry = reduced::without_former(pass.facts, registry);
        let export = pass.export(
            &registry,
            ExportGoal {
                name: registry.registry_name.as_ref().filter(|_| guarded.is_some()),
                instances: &[],
                aliases: inputs::NONE,
                stays: None,
                imports: true,
                proof: if guarded.is_some() { pass.facts.proof(pass.checkpoint) } else { Proof::SpecChange },
                limits: guarded.unwrap_or(Limits::NONE),
                moved: None,
                share: None,
                state: &pass.checkpoint.export,
            },
        );
        plan.requeue_at = earlier(plan.requeue_at, export.requeue_at);
        plan.records.push((registry.name, export.ops.clone()));
        if guarded.is_some() {
            plan.outcomes.records.clone_from(&export.records);
            plan.directions = Some(Directions { export, ..Directions::default() });
        }
    }
    // Nothing says yet that a ServiceRegistry which vanished is gone for good.
    let may_come_back = pass
        .facts
        .former
        .iter()
        .any(|registry| registry.vanished.as_ref().is_some_and(|vanished| vanished.remaining.is_none()));
    let stays = any_goes_on(pass, former) || may_come_back;
    let awaited = pass.awaited_by_siblings();
    plan.slices = if stays { pass.followed(None) } else { pass.withdrawn_but_for(&awaited) };
    if !stays && !awaited.is_empty() {
        // The slice that a sibling writes is told to no RegisteredService that is gone.
        plan.requeue_at = earlier(plan.requeue_at, pass.now.checked_add(HANDED_OVER_WITHIN).ok());
    }
    plan
}
