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
use twinspan_core::model::{IMPORTED_FROM_ANNOTATION, Owner, RegistryName, ServiceKey, Slice};
use twinspan_core::plan::departure::held::HeldDeletions;
use twinspan_core::plan::service::{
    ClusterFacts, Facts, HoldFacts, RegistryFacts, Snapshot, Term, ViewState, ips_of, ready_addresses,
};

use super::{Checkpoint, Checkpoints};
use crate::api::{APPROVE_DELETIONS, RegisteredService, ServiceRegistry, held_since};
use crate::cluster::convert::NamespaceView;
use crate::cluster::view::{ClusterView, Unreadable};
use crate::controllers::views::Views;
use crate::registry::RegistryError;
use crate::registry::handle::{Phase, RegistryHandle};

/// The facts of a pass, and the objects that only the validation and the report read.
#[derive(Clone, Debug)]
pub struct Observed {
    pub facts: Facts,
    /// As far as it can be read; `None` if the RegisteredService was deleted, or cannot be read at all.
    pub object: Option<Arc<RegisteredService>>,
    /// The reason why it cannot be decoded, if it cannot.
    pub unreadable: Option<Arc<Unreadable>>,
    /// Addresses of ready endpoints in the namespace, where nothing says which Service is meant.
    pub ready_in_namespace: BTreeSet<IpAddr>,
    pub namespace: Option<Arc<NamespaceView>>,
    pub registry: Option<Arc<ServiceRegistry>>,
    /// The older ServiceRegistry that serves the name in the same etcd, if one does.
    pub taken_by: Option<String>,
    /// The ServiceRegistries of the former places, by name.
    pub former_registries: BTreeMap<String, Arc<ServiceRegistry>>,
    /// The reason why the records under the name are not known, if they are not.
    pub registry_failure: Option<RegistryError>,
    pub checkpoint: Checkpoint,
}

/// Observes one RegisteredService for a pass in this term; `None` while the view of the cluster is not complete.
pub fn observe(views: &Views, checkpoints: &Checkpoints, key: &ServiceKey, term: Option<Term>) -> Option<Observed> {
    let view = views.cluster();
    if !view.unsynced().is_empty() {
        return None;
    }
    let unreadable = view.unreadable.get(key).cloned();
    let salvaged = || unreadable.as_ref().and_then(|unreadable| unreadable.object.clone());
    // One that waits for a finalizer is gone, as for the built-in controllers: nothing is made for it any more.
    let stays = |object: &Arc<RegisteredService>| object.metadata.deletion_timestamp.is_none();
    let object = view.registered_services.get(key).cloned().or_else(salvaged).filter(stays);
    let unreadable = unreadable.filter(|unreadable| unreadable.object.as_ref().is_none_or(stays));
    let uid = object.as_ref().and_then(|object| object.metadata.uid.clone());
    let uid = uid.or_else(|| Some(unreadable.as_ref()?.uid.clone())).unwrap_or_default();
    let nameless = object.is_none() && unreadable.is_some();
    let registry = object.as_ref().and_then(|o| view.service_registries.get(&o.spec.registry_ref.name).cloned());
    let registry = registry.filter(|registry| registry.metadata.deletion_timestamp.is_none());
    let last = checkpoints.get(key);
    let strays = strays(&view, key, last.as_ref(), &uid, views.env.now());
    let mut checkpoint = checkpoint(last, object.is_some(), &uid);
    checkpoint.strays_since = strays.since;
    checkpoint.planned = checkpoint.planned.in_term(term, views.env.now());
    let mut observed = Observed {
        facts: Facts {
            key: key.clone(),
            term,
            generation: object.as_ref().and_then(|object| object.metadata.generation),
            observed_generation: object.as_ref().and_then(|object| object.status.as_ref()?.observed_generation),
            cluster: cluster_facts(&view, key, object.as_deref(), &uid, strays),
            registry: None,
            former: Vec::new(),
            probes: term.map(|term| views.probes.answers(key, term)).unwrap_or_default(),
            holds: HoldFacts::default(),
            uid,
        },
        namespace: view.namespaces.get(&key.namespace).cloned(),
        taken_by: None,
        registry_failure: None,
        registry,
        former_registries: BTreeMap::new(),
        ready_in_namespace: if nameless { ready_in_namespace(&view, key) } else { BTreeSet::new() },
        object,
        unreadable,
        checkpoint,
    };
    read_registries(views, &mut observed);
    for registry in &observed.facts.former {
        let found = view.service_registries.get(&registry.name);
        let found = found.filter(|found| found.metadata.deletion_timestamp.is_none());
        observed.former_registries.extend(found.map(|found| (registry.name.clone(), found.clone())));
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
    let others: Vec<_> = slices.into_iter().filter(|slice| !slice.is_ours()).collect();
    ready_addresses(&others, true)
}

/// Slices of ours that tell of a RegisteredService and that no RegisteredService owns.
#[derive(Debug, Default)]
struct Strays {
    /// Those that may be taken over, or deleted if it is gone.
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
) -> ClusterFacts {
    let owned = view.slices.of_owner(uid).into_iter().filter(|slice| slice.is_ours());
    let mut facts = ClusterFacts {
        our_slices: owned.chain(strays.slices).collect(),
        strays_until: strays.until,
        created_services: view.services_of_owner(&key.namespace, uid),
        trust: view.trust(),
        ..ClusterFacts::default()
    };
    if let Some(service) = object.map(RegisteredService::service_key) {
        facts.service = view.services.get(&service).cloned();
        facts.others_slices = view.slices.of_service(&service).into_iter().filter(|slice| !slice.is_ours()).collect();
        facts.relists = view.listings(&service);
    }
    facts
}

fn read_registries(views: &Views, observed: &mut Observed) {
    let key = observed.facts.key.clone();
    let current = observed.object.as_ref().filter(|_| observed.registry.is_some());
    let current = current.and_then(|object| views.registries.get(&object.spec.registry_ref.name));
    let name = observed.object.as_ref().and_then(|object| RegistryName::new(object.registry_name()).ok());
    for handle in views.registries.all() {
        let owner = Owner { cluster_id: handle.cluster_id.clone(), service: key.clone() };
        let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &handle));
        read_former(&handle, &owner, name.as_ref().filter(|_| is_current), observed);
        if is_current {
            let Some(name) = name.clone() else { continue };
            let mut snapshot = handle.view().snapshot(&name, &owner);
            match handle.taken.get(&name) {
                Some(taken) if taken.proven => observed.taken_by = Some(taken.by),
                // Whether the name is taken is not known yet.
                Some(_) => snapshot.state = ViewState::Unknown,
                None => {}
            }
            observed.registry_failure = failure(&handle, &name);
            observed.facts.holds = holds(views, observed, &handle.name);
            observed.facts.registry = Some(registry_facts(&handle, owner, Some(name), snapshot));
        }
    }
}

fn registry_facts(
    handle: &RegistryHandle,
    owner: Owner,
    registry_name: Option<RegistryName>,
    mut snapshot: Snapshot,
) -> RegistryFacts {
    if !handle.is_sole() {
        // Records that look like ours may belong to another ServiceRegistry.
        snapshot.state = ViewState::Unknown;
    }
    let orphan_grace_until = handle.fence.as_ref().and_then(|fence| fence.orphan_grace_until());
    let (name, layout) = (handle.name.clone(), handle.layout.clone());
    RegistryFacts { name, layout, owner, registry_name, orphan_grace_until, snapshot }
}

/// Reads the places in a registry that the RegisteredService no longer refers to: the names under which it has records,
/// and the one from which it exported or imported last.
fn read_former(handle: &RegistryHandle, owner: &Owner, current: Option<&RegistryName>, observed: &mut Observed) {
    let view = handle.view();
    if observed.is_gone() {
        if view.owned_by(&owner.service).next().is_some() {
            let snapshot = view.snapshot_of_owner(owner);
            drop(view);
            observed.facts.former.push(registry_facts(handle, owner.clone(), None, snapshot));
        }
        return;
    }
    let mut names: BTreeSet<RegistryName> = view
        .owned_by(&owner.service)
        .filter_map(|record| RegistryName::new(std::str::from_utf8(handle.layout.split_key(&record.key)?.0).ok()?).ok())
        .collect();
    let slices = observed.facts.cluster.our_slices.iter();
    let sources = slices.filter_map(|slice| slice.annotations.get(IMPORTED_FROM_ANNOTATION));
    for source in sources.chain([&observed.checkpoint.planned.source]) {
        let name = source.split_once('/').filter(|(registry, _)| *registry == handle.name);
        names.extend(name.and_then(|(_, name)| RegistryName::new(name).ok()));
    }
    let places: Vec<(RegistryName, Snapshot)> = names
        .into_iter()
        .filter(|name| Some(name) != current)
        .map(|name| {
            let mut snapshot = view.snapshot(&name, owner);
            // They are places of their own.
            snapshot.under_other_names.clear();
            (name, snapshot)
        })
        .collect();
    drop(view);
    for (name, snapshot) in places {
        observed.facts.former.push(registry_facts(handle, owner.clone(), Some(name), snapshot));
    }
}

fn failure(handle: &RegistryHandle, name: &RegistryName) -> Option<RegistryError> {
    match handle.status().phase {
        Phase::Failed(error) => Some(error),
        _ => handle.view().refusal(name).cloned(),
    }
}

/// The holds and approvals in the objects and in the registry's guard.
fn holds(views: &Views, observed: &Observed, registry: &str) -> HoldFacts {
    let (key, planned) = (&observed.facts.key, &observed.checkpoint.planned);
    let approval = observed.approval().map(ToOwned::to_owned);
    let approved: HeldDeletions = match &approval {
        Some(_) if approval == planned.held_hash && approval != planned.carried_out => planned.held.clone(),
        _ => planned.held.of_names(&views.guards.released(registry, key)),
    };
    let (registry_hold, let_go) = views.guards.hold(registry, key, &views.env);
    HoldFacts {
        restored_hold_since: observed.held_since().filter(|_| planned.term.is_none()),
        registry_hold,
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
    views.interest().set(&facts.key, ips.clone());
    let in_slices = ips_of(&facts.cluster.others_slices);
    let now = views.env.now();
    for ip in ips {
        let pods: Vec<_> = view.pods.at(ip).cloned().collect();
        for node in pods.iter().filter_map(|pod| pod.node.as_ref()) {
            if let Some(zone) = view.node(node).and_then(|node| node.zone.clone()) {
                facts.cluster.zones.insert(node.clone(), zone);
            }
        }
        if !pods.is_empty() {
            facts.cluster.pods.insert(ip, pods);
        }
        if !in_slices.contains(&ip) && view.end_is_unseen(ip, now) {
            facts.cluster.unseen.insert(ip);
        }
    }
}

impl Observed {
    /// Whether the RegisteredService was deleted. One that cannot be read is there.
    pub fn is_gone(&self) -> bool {
        self.object.is_none() && self.unreadable.is_none()
    }

    /// The start of the hold that the status reports.
    pub fn held_since(&self) -> Option<Timestamp> {
        held_since(&self.object.as_ref()?.status.as_ref()?.conditions)
    }

    /// The hash that the annotation on the RegisteredService approves.
    pub fn approval(&self) -> Option<&str> {
        let annotations = self.object.as_ref()?.metadata.annotations.as_ref()?;
        annotations.get(APPROVE_DELETIONS).map(String::as_str)
    }
}
