//! The inputs of the planners of each direction and of the slices, from the facts.
//!
//! Owns the way from facts to each planner's input. Refuses to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::accepted::Reduced;
use super::endpoints::managed_addresses;
use super::mirror::mirrored;
use super::{Accepted, Checkpoint, Facts, HoldFacts, Incarnation, RegistryFacts, Siblings};
use crate::Timestamp;
use crate::model::{Family, IMPORTED_FROM_ANNOTATION, Instance, InstanceAddr, PodView, RegistryName, Slice, TargetPod};
use crate::plan::departure::guard::{GuardContext, Limits};
use crate::plan::export::{ExportState, Proof, Share, Writers};
use crate::plan::import::{ImportState, Imported, Present};
use crate::plan::trust::{self, PodOf, Trust};
use crate::plan::{export, import, slices};

/// No instance registered itself under another address.
pub const NONE: &BTreeMap<InstanceAddr, (IpAddr, u16)> = &BTreeMap::new();

/// The values that both directions and the slices share.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    pub facts: &'a Facts,
    pub siblings: &'a Siblings,
    pub checkpoint: &'a Checkpoint,
    pub now: Timestamp,
    /// The time of the change that triggered the pass.
    pub triggered: Timestamp,
}

/// The part of an export that differs between a sync and a withdrawal.
#[derive(Clone, Copy, Debug)]
pub struct ExportGoal<'a> {
    /// `None` withdraws every record.
    pub name: Option<&'a RegistryName>,
    pub instances: &'a [Instance],
    /// See [`export::Input::aliases`].
    pub aliases: &'a BTreeMap<InstanceAddr, (IpAddr, u16)>,
    /// See [`export::Input::stays`].
    pub stays: Option<&'a BTreeSet<IpAddr>>,
    /// Whether the import decides about healed records under the name.
    pub imports: bool,
    pub proof: Proof<'a>,
    pub limits: Limits,
    /// See [`export::Input::moved`].
    pub moved: Option<&'a BTreeSet<InstanceAddr>>,
    /// The share that the settings ask for.
    pub share: Option<ShareGoal<'a>>,
    pub state: &'a ExportState,
}

/// The share of an export, and the policy that tells the records of others which count.
#[derive(Clone, Copy, Debug)]
pub struct ShareGoal<'a> {
    percent: i64,
    policy: &'a trust::Policy,
}

impl<'a> ShareGoal<'a> {
    pub fn of(accepted: &'a Accepted) -> Option<Self> {
        accepted.share.map(|percent| Self { percent, policy: &accepted.policy })
    }
}

impl<'a> ExportGoal<'a> {
    /// The export of a spec that cannot be carried out: it only withdraws.
    pub fn reduced(
        pass: &'a Pass<'_>,
        reduced: &Reduced,
        stays: &'a BTreeSet<IpAddr>,
        registry: &'a RegistryFacts,
        state: &'a ExportState,
    ) -> Self {
        // The change of the spec does not say that an endpoint ended.
        let proof = match pass.facts.proof(pass.checkpoint) {
            Proof::SpecChange => Proof::RelistOnly,
            proof => proof,
        };
        Self {
            name: registry.registry_name.as_ref(),
            instances: &[],
            aliases: NONE,
            stays: Some(stays),
            imports: true,
            proof,
            limits: reduced.limits,
            moved: None,
            share: None,
            state,
        }
    }
}

/// The settings of an import.
#[derive(Clone, Debug)]
pub struct ImportGoal<'a> {
    pub options: &'a import::Options,
    pub policy: &'a trust::Policy,
    pub limits: Limits,
    /// Endpoints in our slices now.
    pub present: &'a BTreeMap<InstanceAddr, Present>,
    /// Registry and name.
    pub source: String,
}

impl<'a> ImportGoal<'a> {
    pub fn of(accepted: &'a Accepted, present: &'a BTreeMap<InstanceAddr, Present>, source: String) -> Self {
        let Accepted { import: options, policy, limits, .. } = accepted;
        Self { options, policy, limits: *limits, present, source }
    }
}

impl Pass<'_> {
    pub fn export(&self, registry: &RegistryFacts, goal: ExportGoal<'_>) -> export::Plan {
        self.export_of(registry, &Writers::of(&registry.snapshot.records, &registry.owner), goal)
    }

    /// The export, if the writers of the records are known already.
    pub fn export_of(&self, registry: &RegistryFacts, writers: &Writers<'_>, goal: ExportGoal<'_>) -> export::Plan {
        let shared = self.siblings.of(registry);
        let pods = if goal.share.is_some() { self.facts.pods_of() } else { BTreeMap::new() };
        let share = |ShareGoal { percent, policy }| Share { percent, trust: self.trust(policy, &pods) };
        let input = export::Input {
            layout: &registry.layout,
            owner: &registry.owner,
            name: goal.name,
            instances: goal.instances,
            aliases: goal.aliases,
            stays: goal.stays,
            records: &registry.snapshot.records,
            under_other_names: &registry.snapshot.under_other_names,
            contested: &shared.contested,
            to_release: &shared.to_release,
            departures: &registry.snapshot.departures,
            proof: goal.proof,
            limits: goal.limits,
            context: self.export_context(registry),
            imports: goal.imports,
            share: goal.share.map(share),
            grace_until: registry.orphan_grace_until.filter(|until| self.now < *until),
            moved: goal.moved,
            state: goal.state,
            leads: self.facts.term.is_some(),
            now: self.now,
        };
        export::plan_of(&input, writers)
    }

    fn trust<'a>(&'a self, policy: &'a trust::Policy, pods: &'a BTreeMap<IpAddr, PodOf>) -> Trust<'a> {
        let cluster = &self.facts.cluster;
        Trust { cluster: &cluster.trust, policy, pods, services: &cluster.service_ips }
    }

    /// Calls a planner of the import with its input.
    pub fn import(
        &self,
        registry: &RegistryFacts,
        goal: &ImportGoal<'_>,
        pods: import::Pods,
        planner: impl Fn(&import::Input<'_>) -> import::Plan,
    ) -> import::Plan {
        let facts = self.facts;
        // The state of another registry or name says nothing about this one.
        let fresh = ImportState::default();
        let known = self.checkpoint.source == goal.source;
        let cluster = &facts.cluster;
        let others: Vec<Arc<Slice>> =
            cluster.others_slices.iter().chain(&cluster.others_import_slices).cloned().collect();
        planner(&import::Input {
            layout: &registry.layout,
            owner: &registry.owner,
            records: &registry.snapshot.records,
            options: goal.options,
            families: families(facts),
            managed_by_others: &managed_addresses(&others, |_| true),
            pods_of_others: &managed_addresses(&others, |endpoint| endpoint.pod.is_some()),
            pods,
            trust: self.trust(goal.policy, &facts.pods_of()),
            departures: &registry.snapshot.departures,
            leads: facts.term.is_some(),
            started_after_rollback: registry.snapshot.incarnation != Incarnation::AsItWas,
            may_be_dead: self.checkpoint.planned.is_none()
                && facts.imported_before
                && facts.cluster.trust.pod_cidrs.is_empty()
                && goal.policy.pod_cidrs.is_empty(),
            present: goal.present,
            refused: &self.checkpoint.refused,
            contested: &self.siblings.contested_imports,
            to_adopt: &self.siblings.of(registry).to_adopt,
            probes: &facts.probes,
            limits: goal.limits,
            context: self.guard_context(&facts.holds.approved.import, &facts.holds.registry_let_go.import),
            state: if known { &self.checkpoint.import } else { &fresh },
            now: self.now,
        })
    }

    /// The writes of slices under the settings.
    pub fn slices(&self, accepted: &Accepted, imported: &BTreeMap<InstanceAddr, Imported>) -> slices::Plan {
        let ports = slice_ports(accepted);
        let registry = self.facts.registry.as_ref().map_or("", |registry| registry.name.as_str());
        let source = accepted.source(registry);
        let mut endpoints = self.endpoint_infos(imported);
        endpoints.extend(mirrored(self.facts, &ports));
        slices::plan(&self.slices_input(&ports, &endpoints, &plain(&self.facts.cluster.our_slices), &source))
    }

    /// The slices without the imports that go. None is added to any of them; mirrored endpoints are as they should be.
    pub fn shrunk(&self, accepted: Option<&Accepted>, stay: &BTreeMap<InstanceAddr, Imported>) -> slices::Plan {
        let cluster = &self.facts.cluster;
        let ours = &cluster.our_slices;
        let mut kept = self.on_server_clock(stay);
        if cluster.unreadable {
            kept.extend(as_they_are(&plain(ours)));
        }
        let (ports, into) = match accepted {
            Some(accepted) => {
                (slice_ports(accepted), cluster.import_service.as_deref().filter(|service| !service.deleting))
            }
            None => {
                // An endpoint stays under whatever name its port has now.
                let anywhere = mirrored(self.facts, &ports_of(cluster.others_slices.iter()));
                kept.extend(anywhere.iter().map(|(addr, known)| (*addr, slices::Stays::from(known))));
                let into = cluster.import_service.as_deref().filter(|service| self.facts.is_filled(service));
                let of_service = into.filter(|service| service.owner_uid.as_deref() == Some(self.facts.uid.as_str()));
                let named = of_service.into_iter().flat_map(|service| &service.ports).filter(|port| port.tcp);
                let named = named.map(|port| (port.name.as_str(), port.app_protocol.as_ref()));
                (ports_by_name(slice_port_names(ours.iter()).chain(named)), into)
            }
        };
        let endpoints = mirrored(self.facts, &ports);
        kept.extend(endpoints.iter().map(|(addr, known)| (*addr, slices::Stays::from(known))));
        let mut sources = ours.iter().filter_map(|slice| slice.annotations.get(IMPORTED_FROM_ANNOTATION));
        let source = sources.next().cloned().unwrap_or_default();
        let existing = plain(ours);
        let input = self.slices_input(&ports, &endpoints, &existing, &source);
        let service = input.service.filter(|service| into.is_some_and(|into| into.name == service.name));
        slices::follow(&slices::Input { service, ..input }, &ports, &kept)
    }

    /// The slices as they are while nothing can be told of imports: mirrored endpoints alone come and go.
    pub fn followed(&self, accepted: Option<&Accepted>) -> slices::Plan {
        let ours = plain(&self.facts.cluster.our_slices);
        if !self.facts.mirrors() && !ours.iter().any(|slice| slice.has_mirrored()) {
            return slices::Plan::default();
        }
        let imported = on_our_clock(self.facts, slices::present(&ours, &[], "")).into_iter();
        self.shrunk(accepted, &imported.map(|(addr, present)| (addr, stays_imported(present))).collect())
    }

    /// The endpoints that slices keep, with the deadlines of lost ones on the API server's clock.
    fn on_server_clock(&self, endpoints: &BTreeMap<InstanceAddr, Imported>) -> slices::Kept {
        let ahead = self.facts.holds.api_server_ahead;
        let until = |imported: &Imported| imported.lost_until.and_then(|until| until.checked_add(ahead).ok());
        endpoints.iter().map(|(addr, imported)| (*addr, slices::Stays::Imported(until(imported)))).collect()
    }

    fn slices_input<'a>(
        &'a self,
        ports: &'a [slices::Port],
        endpoints: &'a BTreeMap<InstanceAddr, slices::EndpointInfo>,
        existing: &'a [&'a Slice],
        source: &'a str,
    ) -> slices::Input<'a> {
        let facts = self.facts;
        let service = facts.cluster.import_service.as_ref().filter(|_| !ports.is_empty());
        slices::Input {
            owner: &facts.key,
            owner_uid: &facts.uid,
            service: service.map(|service| slices::Service {
                name: &service.name,
                ports,
                headless: service.headless,
                traffic: service.traffic,
                labels: &service.labels,
            }),
            endpoints,
            existing,
            source,
            merges: facts.mirrors(),
            refused: &self.checkpoint.refused,
            triggered: self.triggered,
            now: self.now,
        }
    }

    /// The endpoints of our slices that a sibling imports into the same Service, and that no slice of its own has yet.
    pub fn awaited_by_siblings(&self) -> BTreeMap<InstanceAddr, Imported> {
        let contested = &self.siblings.contested_imports;
        let awaited = |addr: &InstanceAddr| contested.get(addr).is_some_and(|contest| !contest.holds);
        let present = slices::present(&plain(&self.facts.cluster.our_slices), &[], "");
        let present = on_our_clock(self.facts, present).into_iter().filter(|(addr, _)| awaited(addr));
        present.map(|(addr, present)| (addr, stays_imported(present))).collect()
    }

    /// The slices without any import but these.
    pub fn withdrawn_but_for(&self, awaited: &BTreeMap<InstanceAddr, Imported>) -> slices::Plan {
        if awaited.is_empty() { self.withdrawn() } else { self.shrunk(None, awaited) }
    }

    /// The slices without any import. Mirrored endpoints need no settings.
    pub fn withdrawn(&self) -> slices::Plan {
        if self.facts.mirrors() {
            return self.shrunk(None, &BTreeMap::new());
        }
        slices::plan(&self.slices_input(&[], &BTreeMap::new(), &plain(&self.facts.cluster.our_slices), ""))
    }

    /// Some slices of ours without any import, and otherwise as they are.
    pub fn without(&self, slices: &[&Slice]) -> slices::Plan {
        if slices.iter().any(|slice| slice.has_mirrored()) {
            return slices::shrink(slices, &as_they_are(slices).collect(), self.triggered);
        }
        slices::plan(&self.slices_input(&[], &BTreeMap::new(), slices, ""))
    }

    fn export_context<'a>(&'a self, registry: &'a RegistryFacts) -> GuardContext<'a> {
        let holds = &self.facts.holds;
        let Some(vanished) = &registry.vanished else {
            return self.guard_context(&holds.approved.export, &holds.registry_let_go.export);
        };
        GuardContext {
            approved: &vanished.approved,
            restored: None,
            registry_hold: vanished.hold,
            registry_resumes: None,
            registry_let_go: &vanished.let_go,
            api_server_ahead: holds.api_server_ahead,
        }
    }

    fn guard_context<'a>(
        &'a self,
        approved: &'a BTreeSet<InstanceAddr>,
        registry_let_go: &'a BTreeSet<InstanceAddr>,
    ) -> GuardContext<'a> {
        let HoldFacts { restored, registry_hold, registry_resumes, api_server_ahead, .. } = self.facts.holds;
        GuardContext { approved, restored, registry_hold, registry_resumes, registry_let_go, api_server_ahead }
    }

    /// Imported endpoints with their zone, node and pod: a tag names the zone, or else the Node of the pod that has the
    /// address.
    fn endpoint_infos(
        &self,
        imported: &BTreeMap<InstanceAddr, Imported>,
    ) -> BTreeMap<InstanceAddr, slices::EndpointInfo> {
        let info = |(addr, imported): (&InstanceAddr, &Imported)| {
            let pod = self.facts.pod_with_address(addr.ip());
            let node = pod.and_then(|pod| pod.node.clone());
            let zone = imported.zone.clone().or_else(|| self.facts.cluster.nodes.get(node.as_ref()?)?.zone.clone());
            let target = |pod: &Arc<PodView>| TargetPod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            };
            let pod = pod.map(target).map(Box::new);
            // Annotations outlive the process, so they have the API server's time.
            let (ports, ahead) = (imported.ports, self.facts.holds.api_server_ahead);
            let lost_until = imported.lost_until.and_then(|until| until.checked_add(ahead).ok());
            (*addr, slices::EndpointInfo { ports, lost_until, zone, node, pod, mirrored: None })
        };
        imported.iter().map(info).collect()
    }
}

/// The families of endpoints that somebody reads: kube-proxy passes over those that a ClusterIP does not have, and a
/// headless Service serves both to whoever asks. Where one slice holds all endpoints, they have one family.
fn families(facts: &Facts) -> &[Family] {
    const BOTH: &[Family] = &[Family::V4, Family::V6];
    match &facts.cluster.import_service {
        Some(service) if facts.mirrors() => service.families.get(..1).unwrap_or(BOTH),
        Some(service) if !service.headless && !service.families.is_empty() => &service.families,
        _ => BOTH,
    }
}

/// The endpoints in the slices of the RegisteredService, under the ports and the registry in force.
pub fn present(facts: &Facts, accepted: &Accepted) -> BTreeMap<InstanceAddr, Present> {
    let registry = facts.registry.as_ref().map_or("", |registry| registry.name.as_str());
    let source = accepted.source(registry);
    on_our_clock(facts, slices::present(&plain(&facts.cluster.our_slices), &slice_ports(accepted), &source))
}

fn stays_imported(present: Present) -> Imported {
    Imported { ports: present.ports, zone: present.zone, lost_until: present.lost_until }
}

/// Annotations have the API server's time.
pub fn on_our_clock(facts: &Facts, mut present: BTreeMap<InstanceAddr, Present>) -> BTreeMap<InstanceAddr, Present> {
    for endpoint in present.values_mut() {
        let until = endpoint.lost_until.map(|until| until.checked_sub(facts.holds.api_server_ahead).unwrap_or(until));
        endpoint.lost_until = until;
    }
    present
}

/// The mirrored endpoints of slices, with the conditions that they have there.
fn as_they_are(slices: &[&Slice]) -> impl Iterator<Item = (InstanceAddr, slices::Stays)> {
    let endpoints = slices.iter().flat_map(|slice| slice.ports.iter().flat_map(|port| slice.at(port)));
    let mirrored = endpoints.filter(|(_, endpoint)| endpoint.mirrored);
    mirrored.map(|(addr, endpoint)| (addr, slices::Stays::Mirrored(endpoint.conditions())))
}

/// The ports of slices, by name.
fn ports_of<'a>(slices: impl Iterator<Item = &'a Arc<Slice>>) -> Vec<slices::Port> {
    ports_by_name(slice_port_names(slices))
}

fn slice_port_names<'a>(
    slices: impl Iterator<Item = &'a Arc<Slice>>,
) -> impl Iterator<Item = (&'a str, Option<&'a String>)> {
    let ports = slices.filter(|slice| !slice.deleting).flat_map(|slice| &slice.ports);
    ports.map(|port| (port.name.as_str(), port.app_protocol.as_ref()))
}

fn ports_by_name<'a>(named: impl Iterator<Item = (&'a str, Option<&'a String>)>) -> Vec<slices::Port> {
    let port = |(name, app_protocol): (&str, Option<&String>)| slices::Port {
        name: name.to_owned(),
        app_protocol: app_protocol.cloned(),
    };
    named.collect::<BTreeMap<_, _>>().into_iter().map(port).collect()
}

fn slice_ports(accepted: &Accepted) -> Vec<slices::Port> {
    let port = |accepted: &super::AcceptedPort| slices::Port {
        name: accepted.port.name.clone(),
        app_protocol: accepted.port.app_protocol.clone(),
    };
    accepted.ports.iter().map(port).collect()
}

fn plain(slices: &[Arc<Slice>]) -> Vec<&Slice> {
    slices.iter().map(AsRef::as_ref).collect()
}
