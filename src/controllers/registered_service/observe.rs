//! The observation: everything that a pass over one RegisteredService rests on, read from the views at one moment.
//!
//! Owns the way from views to facts: the view of the cluster is locked once, and every registry is read under that
//! lock. Registers interest in the addresses under the same lock, so that no change in between is lost. Refuses to
//! decide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;
use twinspan_core::Timestamp;
use twinspan_core::model::{Owner, Precedence, RegistryName, ServiceKey, Slice};
use twinspan_core::plan::departure::held::HeldDeletions;
use twinspan_core::plan::service::{ClusterFacts, Facts, HoldFacts, Silent, Term, ViewState, ips_of, ready_addresses};

use super::checkpoint::Found;
use super::crowd::is_crowded_out;
pub use super::observed::Observed;
use super::places::{Claim, Claims, have_one_keyspace, is_gated, read_former, registry_facts};
use super::{Checkpoint, Checkpoints};
use crate::api::{ExportAddress, RegisteredService, precedence};
use crate::cluster::view::{ClusterView, Kind};
use crate::controllers::views::Views;
use crate::registry::RegistryError;
use crate::registry::handle::RegistryHandle;
use crate::registry::phase::Phase;

#[cfg(test)]
thread_local! {
    /// The work of passes: each observes itself and its siblings.
    pub static OBSERVATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Observes one RegisteredService for a pass in this term; `None` while the view of its namespace is not complete, and
/// where another release may serve its registry, and told of it first. One whose ServiceRegistry another release holds
/// is gone for this release: what it has elsewhere is withdrawn, and its slices are the other's.
pub fn observe(views: &Views, checkpoints: &Checkpoints, key: &ServiceKey, term: Option<Term>) -> Option<Observed> {
    let view = views.cluster();
    if !view.is_complete_in(&key.namespace) {
        return None;
    }
    #[cfg(test)]
    OBSERVATIONS.set(OBSERVATIONS.get() + 1);
    // One that waits for a finalizer is gone, as for the built-in controllers: nothing is made for it any more.
    let found = view.registered_services.get(key).filter(|_| view.stays(key)).cloned();
    let is_held = |object: &Arc<RegisteredService>| view.is_held_elsewhere(object);
    let (held, found) = if found.as_ref().is_some_and(is_held) { (found, None) } else { (None, found) };
    let unreadable = view.unreadable_services.get(key).filter(|_| found.is_some()).cloned();
    let uid = found.as_ref().and_then(|object| object.metadata.uid.clone()).unwrap_or_default();
    let (nameless, object) = if view.is_nameless(key) { (found, None) } else { (None, found) };
    let registry = object.as_ref().and_then(|o| view.service_registries.get(&o.spec.registry_ref.name).cloned());
    let registry = registry.filter(|registry| registry.metadata.deletion_timestamp.is_none());
    let last = checkpoints.get(key);
    let is_anothers = held.is_some() || view.served_elsewhere.contains_key(key);
    let strays = if is_anothers { Strays::default() } else { strays(&view, key, last.as_ref(), &uid, views.env.now()) };
    let mut checkpoint = checkpoint(last, object.is_some(), &uid);
    checkpoint.strays_since = strays.since;
    let before = checkpoint.found.as_ref().filter(|found| found.term == term && term.is_some()).cloned();
    let before = before.unwrap_or_else(|| Found::new(object.as_deref(), term));
    checkpoint.found = Some(before.clone());
    checkpoint.planned = checkpoint.planned.in_term(term, views.env.now());
    // Records stay as they were while a spec cannot be carried out.
    let wants_outer = object.as_ref().is_some_and(|object| object.spec.export.address != ExportAddress::Pod);
    let has_outer = wants_outer || !checkpoint.planned.behind.is_empty();
    let precedence = object.as_ref().map_or_else(|| Precedence::last(key.clone()), |object| precedence(object));
    let mut observed = Observed {
        precedence,
        creators: BTreeMap::new(),
        facts: Facts {
            key: key.clone(),
            term,
            generation: object.as_ref().and_then(|object| object.metadata.generation),
            observed_generation: before.generation,
            imported_before: before.imported,
            cluster: ClusterFacts {
                unreadable: nameless.is_some() || unreadable.is_some(),
                ..cluster_facts(&view, key, object.as_deref(), &uid, strays, has_outer, views.env.now())
            },
            registry: None,
            former: Vec::new(),
            probes: term.map(|term| views.probes.answers(key, term)).unwrap_or_default(),
            holds: HoldFacts::default(),
            uid,
        },
        namespace: view.namespaces.get(&key.namespace).cloned(),
        has_nodes: !view.reach().is_limited(),
        taken_by: None,
        crowded_out: object.is_some() && is_crowded_out(&view, key),
        registry_failure: None,
        registry,
        unclaimed: BTreeSet::new(),
        unserved_since: None,
        former_registries: BTreeMap::new(),
        unreadable_registries: view.unreadable_registries.clone(),
        ready_in_namespace: if nameless.is_some() { ready_in_namespace(&view, key) } else { BTreeSet::new() },
        nameless,
        object,
        unreadable,
        checkpoint,
    };
    observed.creators = creators(&view, &observed.facts.cluster);
    // The records in a session that is about to end are left to the release that takes over.
    let handed_over = held.as_ref().map(|object| object.spec.registry_ref.name.as_str());
    read_registries(views, &view, handed_over, &mut observed);
    for registry in &observed.facts.former {
        // The ServiceRegistry of that name may be another one by now, and one that waits for a finalizer is gone.
        let found =
            view.service_registries.get(&registry.name).filter(|_| views.registries.get(&registry.name).is_some());
        let found = found.filter(|found| found.metadata.deletion_timestamp.is_none());
        observed.former_registries.extend(found.map(|found| (registry.name.clone(), found.clone())));
    }
    // Any of several releases may be the one that it means: they would write over each other's status.
    let is_told = observed.nameless.as_ref().is_some_and(|object| object.current_status().is_some());
    if is_told && observed.facts.former.is_empty() && !view.reach().registries.is_empty() {
        return None;
    }
    read_pods(views, &view, &mut observed);
    Some(observed)
}

/// The checkpoint for this pass. Another RegisteredService of the same name starts afresh; a deleted one keeps its
/// checkpoint.
fn checkpoint(last: Option<Checkpoint>, exists: bool, uid: &str) -> Checkpoint {
    match last {
        Some(last) if !exists || last.planned.uid == uid => last,
        Some(last) => Checkpoint { counted: last.counted, ..Checkpoint::default() },
        None => Checkpoint::default(),
    }
}

fn ready_in_namespace(view: &ClusterView, key: &ServiceKey) -> BTreeSet<IpAddr> {
    let slices = view.slices.of_namespace(&key.namespace);
    let others: Vec<_> = slices.filter(|slice| !slice.is_ours()).cloned().collect();
    let mut ready = ready_addresses(&others, true);
    let endpoints = others.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| !endpoint.is_terminating());
    ready.extend(endpoints.filter(|endpoint| is_gated(view, endpoint)).filter_map(|endpoint| endpoint.address.ip()));
    if !ready.is_empty() {
        ready.extend(view.outer_addresses(&key.namespace));
    }
    ready
}

/// Slices of ours that tell of a RegisteredService and that no RegisteredService owns.
#[derive(Debug, Default)]
struct Strays {
    /// The ones that may be taken over, or deleted if it is gone.
    slices: Vec<Arc<Slice>>,
    /// Since when others wait, and until when: their owner may have been created a moment ago, and not be in the view.
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// An owner that this process never knew may still appear.
const STRAYS_WAIT: SignedDuration = SignedDuration::from_secs(30);

fn strays(view: &ClusterView, key: &ServiceKey, last: Option<&Checkpoint>, uid: &str, now: Timestamp) -> Strays {
    let mut strays = Strays::default();
    let since = last.and_then(|last| last.strays_since).unwrap_or(now);
    for slice in view.slices.of_keeper(key) {
        let owner = slice.owner_uid.as_deref();
        if slice.deleting || owner == Some(uid) || !view.may_keep(key, owner) {
            continue;
        }
        let known = owner.is_none_or(|owner| {
            view.index.of_uid(owner).is_some() || last.is_some_and(|last| last.planned.uid == owner)
        });
        if known || now >= since + STRAYS_WAIT {
            strays.slices.push(slice);
        } else {
            (strays.since, strays.until) = (Some(since), Some(since + STRAYS_WAIT));
        }
    }
    strays
}

fn cluster_facts(
    view: &ClusterView,
    key: &ServiceKey,
    object: Option<&RegisteredService>,
    uid: &str,
    strays: Strays,
    has_outer: bool,
    now: Timestamp,
) -> ClusterFacts {
    let is_silent = |kind| view.is_silent_in(kind, &key.namespace, now);
    let owned = view.slices.of_owner(uid).into_iter().filter(|slice| slice.is_ours());
    let mut facts = ClusterFacts {
        silent: Silent {
            specs: is_silent(Kind::RegisteredService),
            endpoints: is_silent(Kind::EndpointSlice) || is_silent(Kind::Pod),
            slices: is_silent(Kind::EndpointSlice),
            outer: has_outer && (is_silent(Kind::Node) || is_silent(Kind::Service)),
            services: is_silent(Kind::Service),
        },
        our_slices: owned.chain(strays.slices).collect(),
        strays_until: strays.until,
        created_services: view.services.of_owner(&key.namespace, uid),
        trust: view.networks.trust(),
        nodes: view.networks.nodes().clone(),
        ..ClusterFacts::default()
    };
    facts.import_place = object.map(RegisteredService::import_place).unwrap_or_default();
    if let Some(service) = object.map(RegisteredService::service_key) {
        facts.service = view.services.get(&service).cloned();
        let import_service = object.map_or_else(|| service.clone(), RegisteredService::import_service_key);
        facts.import_service = view.services.get(&import_service).cloned();
        if import_service != service {
            let all = view.slices.of_service(&import_service).into_iter();
            facts.others_import_slices = all.filter(|slice| !slice.is_ours()).collect();
        }
        facts.others_slices = view.slices.of_service(&service).into_iter().filter(|slice| !slice.is_ours()).collect();
        facts.relists = view.listings(&service);
        if has_outer {
            facts.relists += view.networks.vanished_nodes();
        }
    }
    facts
}

fn creators(view: &ClusterView, cluster: &ClusterFacts) -> BTreeMap<String, Precedence> {
    let services = cluster.service.iter().chain(&cluster.import_service);
    let owners = services.filter_map(|service| service.owner_uid.as_ref());
    let creator = |uid: &String| {
        let key = view.index.of_uid(uid).filter(|key| view.stays(key))?;
        Some((uid.clone(), precedence(view.registered_services.get(key)?)))
    };
    owners.filter_map(creator).collect()
}

fn read_registries(views: &Views, view: &ClusterView, handed_over: Option<&str>, observed: &mut Observed) {
    let key = observed.facts.key.clone();
    let current = observed.object.as_ref().filter(|_| observed.registry.is_some());
    let current = current.and_then(|object| views.registries.get(&object.spec.registry_ref.name));
    let name = observed.object.as_ref().and_then(|object| RegistryName::new(object.registry_name()).ok());
    let mut handles = views.registries.all();
    handles.retain(|handle| Some(handle.name.as_str()) != handed_over);
    handles.retain(|handle| !view.is_out_of_sight(&handle.name, &key.namespace));
    for handle in handles {
        let owner = Owner { cluster_id: handle.cluster_id.clone(), service: key.clone() };
        let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &handle));
        let is_home = current.as_ref().is_some_and(|current| have_one_keyspace(views, current, &handle));
        let claims = Claims::of(views, view, &handle, observed);
        read_former(views, view, &claims, name.as_ref().filter(|_| is_current || is_home), observed);
        if is_current {
            let Some(name) = name.clone() else { continue };
            let mut snapshot = handle.view().snapshot(&name, &owner);
            snapshot.under_other_names.retain(|_, record| claims.of_record(record) != Claim::Another);
            match handle.taken.get(&name) {
                Some(taken) if taken.proven => observed.taken_by = Some(taken.by),
                // Whether the name is taken is not known yet.
                Some(_) => snapshot.state = ViewState::Unknown,
                None => {}
            }
            observed.registry_failure = failure(&handle, &name);
            observed.facts.holds = holds(views, view, observed, &handle.name);
            observed.facts.registry = Some(registry_facts(&handle, owner, Some(name), snapshot));
        }
    }
}

fn failure(handle: &RegistryHandle, name: &RegistryName) -> Option<RegistryError> {
    match handle.status().phase {
        Phase::Failed(error) => Some(error),
        _ => handle.view().refusal(name).cloned(),
    }
}

/// The holds and approvals in the objects and in the registry's guard, which begins with the first look of a term.
fn holds(views: &Views, view: &ClusterView, observed: &Observed, registry: &str) -> HoldFacts {
    let (key, planned) = (&observed.facts.key, &observed.checkpoint.planned);
    if let Some(term) = observed.facts.term {
        let restored = observed.registry.as_ref().and_then(|object| view.held_since(object));
        views.guards.begin(registry, term, restored, &views.env);
    }
    let approval = observed.approval().map(ToOwned::to_owned);
    let approved: HeldDeletions = match &approval {
        Some(_) if approval == planned.held_hash && approval != planned.carried_out => planned.held.clone(),
        _ => planned.held.of_names(&views.guards.released(registry, key)),
    };
    let (registry_hold, let_go) = views.guards.hold(registry, key, &views.env);
    HoldFacts {
        restored: observed.reported_hold().filter(|_| planned.term.is_none()),
        registry_hold,
        registry_resumes: views.guards.resumes(registry, &views.env),
        registry_let_go: planned.held.of_names(&let_go),
        api_server_ahead: views.env.api_server_ahead(),
        approved,
        approval,
    }
}

/// Registers the addresses in question, and reads the pods that have them.
pub(crate) fn read_pods(views: &Views, view: &ClusterView, observed: &mut Observed) {
    let Observed { facts, checkpoint, .. } = observed;
    let ips = facts.ips_in_question(&checkpoint.planned);
    {
        let mut interest = views.interest();
        interest.set(&facts.key, &ips);
        interest.set_gone(&facts.key, observed.object.is_none() && observed.unreadable.is_none());
    }
    let in_slices = ips_of(&facts.cluster.others_slices);
    let services = facts.cluster.service.iter().chain(&facts.cluster.import_service);
    let external = services.flat_map(|service| &service.external_ips).copied();
    let external: BTreeSet<IpAddr> = external.collect();
    let leads_to_service = |ip: &&IpAddr| view.cluster_ips.contains(*ip) || external.contains(*ip);
    facts.cluster.service_ips = ips.iter().filter(leads_to_service).copied().collect();
    for ip in ips {
        let pods: Vec<_> = view.pods.at(ip).cloned().collect();
        if !pods.is_empty() {
            facts.cluster.pods.insert(ip, pods);
        }
        if !in_slices.contains(&ip) && view.end_is_unseen(ip) {
            facts.cluster.unseen.insert(ip);
        }
    }
    // A hostPort is known from the pod alone, so that a slice which still has the pod explains nothing.
    for (addr, ips) in &checkpoint.planned.behind {
        let unseen: Vec<IpAddr> = ips.iter().copied().filter(|ip| view.end_is_unseen(*ip)).collect();
        if !unseen.is_empty() {
            facts.cluster.unseen.insert(addr.ip());
            facts.cluster.unseen_behind.extend(unseen);
        }
    }
}
