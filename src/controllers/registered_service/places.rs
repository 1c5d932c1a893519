//! Places: where a RegisteredService has records, and which ServiceRegistry may write them.
//!
//! A place is an etcd, a keyspace and a name. Without a common prefix several ServiceRegistries have one keyspace and
//! see records of each other. Owns the rule that a record belongs to the ServiceRegistry to which its RegisteredService
//! refers, and otherwise to the one on whose lease it hangs: that one withdraws it, and no other one does. Where no
//! session knows the lease, any that sees the record withdraws what ended, once those that may yet begin had a minute.
//! Refuses to say what becomes of a former place, which the validation does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;
use twinspan_core::model::{IMPORTED_FROM_ANNOTATION, InstanceAddr, Owner, Record, RegistryName, SliceEndpoint};
use twinspan_core::plan::departure::held::HeldDeletions;
use twinspan_core::plan::departure::registry_guard::REGISTRY_MIN;
use twinspan_core::plan::service::{
    RegistryFacts, Snapshot, Vanished, ViewState, lets_export, ready_addresses, ready_in,
};

use super::observed::Observed;
use crate::cluster::view::ClusterView;
use crate::controllers::views::Views;
use crate::registry::handle::RegistryHandle;

/// The claim to an own record that a ServiceRegistry sees, where its RegisteredService refers to another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// The ServiceRegistry that sees it.
    Ours,
    /// No session knows its lease: any ServiceRegistry that sees it may withdraw it.
    Nobody,
    /// Another ServiceRegistry.
    Another,
}

/// The claims to the own records that one ServiceRegistry sees.
pub(super) struct Claims {
    handle: Arc<RegistryHandle>,
    /// Every other session with the same keys in the same etcd.
    others: Vec<Arc<RegistryHandle>>,
    /// A ServiceRegistry has no session yet: what nobody claims may be its own.
    awaits_a_session: bool,
}

/// The time in which a ServiceRegistry gets a session, unless something is wrong with it. Records of instances that
/// ended must not wait for a Secret that nobody may ever create.
pub(super) const SERVED_WITHIN: SignedDuration = SignedDuration::from_secs(60);

impl Claims {
    pub(super) fn of(
        views: &Views,
        cluster: &ClusterView,
        handle: &Arc<RegistryHandle>,
        observed: &mut Observed,
    ) -> Self {
        let mut others = views.registries.all();
        others.retain(|other| !Arc::ptr_eq(other, handle) && have_one_keyspace(views, handle, other));
        let mut claims = Self { handle: handle.clone(), others, awaits_a_session: false };
        let key = &observed.facts.key;
        let unclaimed = handle.view().owned_by(key).any(|record| claims.of_record(record) == Claim::Nobody);
        if unclaimed && lacks_a_session(views, cluster) {
            let now = views.env.now();
            let since = observed.checkpoint.unserved_since.unwrap_or(now);
            observed.unserved_since = Some(since);
            claims.awaits_a_session = now < since + SERVED_WITHIN;
        }
        claims
    }

    pub(super) fn of_record(&self, record: &Record) -> Claim {
        if self.handle.layout.root().is_some() || self.handle.leases.is_ours(record.lease) {
            return Claim::Ours;
        }
        let is_anothers = self.others.iter().any(|other| other.leases.is_ours(record.lease));
        if is_anothers || self.awaits_a_session { Claim::Another } else { Claim::Nobody }
    }
}

/// Whether a ServiceRegistry that stays has no session.
fn lacks_a_session(views: &Views, cluster: &ClusterView) -> bool {
    let stay = cluster.service_registries.iter().filter(|(_, object)| object.metadata.deletion_timestamp.is_none());
    stay.into_iter().any(|(name, _)| views.registries.get(name).is_none())
}

/// Whether both have the same keys in one etcd, as two ServiceRegistries without a common prefix have: they work side
/// by side, each for its own names, and a record has one place for both.
pub(super) fn have_one_keyspace(views: &Views, a: &RegistryHandle, b: &RegistryHandle) -> bool {
    // Of two sessions with an endpoint in common, one may have yet to meet the etcd that answers there now.
    let is_one_etcd =
        || may_be_one_etcd(known_etcd(a), known_etcd(b)) || views.registries.have_an_endpoint_in_common(a, b);
    a.has_same_keys(b) && is_one_etcd()
}

/// Before an etcd has ever answered it may be the other one: what may be the place of a record is no former place.
fn may_be_one_etcd(a: Option<u64>, b: Option<u64>) -> bool {
    // An etcd that tells no cluster ID may be any.
    a.zip(b).is_none_or(|(a, b)| a == b && a != 0)
}

/// The cluster ID of the etcd that answered last, this process or one before it.
fn known_etcd(handle: &RegistryHandle) -> Option<u64> {
    handle.etcd().or_else(|| handle.view().last_known().map(|known| known.etcd))
}

pub(super) fn registry_facts(
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
    RegistryFacts { name, layout, owner, registry_name, orphan_grace_until, vanished: None, snapshot }
}

/// The records that an object leaves behind that is gone in a registry; `None` if it was hardly lost with many others.
fn vanished(views: &Views, view: &ClusterView, claims: &Claims, observed: &Observed) -> Option<Vanished> {
    let handle = &claims.handle;
    let (key, env, kept) = (&observed.facts.key, &views.env, handle.kept.hold());
    let deleted = observed.is_gone() && views.registries.get(&handle.name).is_some();
    let is_decided = || views.guards.is_decided(&handle.name, key, env);
    if kept.is_none() && (!(deleted && may_be_many(view, handle)) || is_decided()) {
        return None;
    }
    let mut found = Vanished::default();
    let held_export = |names: &BTreeSet<String>, export: &BTreeSet<InstanceAddr>| {
        HeldDeletions { export: export.clone(), ..HeldDeletions::default() }.of_names(names).export
    };
    let owned = {
        let registry = handle.view();
        let ours = registry.owned_by(key).filter(|record| claims.of_record(record) != Claim::Another);
        ours.flat_map(|record| record.endpoint_addresses().next()).collect()
    };
    found.ready = ready_in(view.slices.of_namespace(&key.namespace), &owned, |endpoint| is_gated(view, endpoint));
    found.ready.extend(view.led_to_ready(&key.namespace, &owned));
    found.ready.extend(owned.iter().filter(|addr| view.end_is_unseen(addr.ip())));
    // The Node or the Service of an address may have vanished with its RegisteredService.
    let others: Vec<_> = view.slices.of_namespace(&key.namespace).filter(|slice| !slice.is_ours()).cloned().collect();
    let ready = ready_addresses(&others, true);
    let lives = |ip: &IpAddr| view.end_is_unseen(*ip) || ready.contains(ip);
    let led_to =
        |addr: &&InstanceAddr| observed.checkpoint.planned.behind.get(*addr).is_some_and(|ips| ips.iter().any(lives));
    found.ready.extend(owned.iter().filter(led_to));
    if kept.is_some() {
        if !view.reach().looks_at(&key.namespace) {
            found.ready.extend(&owned);
        }
        return Some(Vanished { hold: kept, ..found });
    }
    found.remaining = Some(view.staying_in(&handle.name).count());
    let (hold, let_go) = views.guards.hold_of_gone(&handle.name, key, env);
    found.hold = hold;
    found.let_go = held_export(&let_go, &found.ready);
    found.approved = held_export(&views.guards.released(&handle.name, key), &found.ready);
    Some(found)
}

/// Whether nothing but its readiness gate keeps the pod of an endpoint from being ready.
pub(super) fn is_gated(view: &ClusterView, endpoint: &SliceEndpoint) -> bool {
    let found = endpoint.pod.as_ref().zip(endpoint.address.ip());
    let pod = found.and_then(|(target, ip)| view.pods.at(ip).find(|pod| pod.uid == target.uid));
    pod.is_some_and(|pod| lets_export(pod, view.networks.nodes()))
}

/// Whether the registry has, or had, so many RegisteredServices that its guard may ever hold what they leave behind.
fn may_be_many(view: &ClusterView, handle: &RegistryHandle) -> bool {
    let remaining = view.staying_in(&handle.name).take(REGISTRY_MIN).count();
    let gone = handle.owners().into_iter().filter(|owner| !view.stays(owner));
    remaining + gone.take(REGISTRY_MIN - remaining).count() >= REGISTRY_MIN
}

/// Whether a ServiceRegistry is gone and its session does not know yet: then nobody has decided whether it was lost
/// with many other objects, and nothing may be withdrawn.
fn is_undecided(views: &Views, view: &ClusterView, handle: &RegistryHandle) -> bool {
    let stays = view.service_registries.get(&handle.name).is_some_and(|o| o.metadata.deletion_timestamp.is_none());
    !stays && views.registries.get(&handle.name).is_some()
}

/// Reads the places in a registry that the RegisteredService no longer refers to: the names under which it has records
/// there, and the one from which it exported or imported last. `current` is its name there, if it has its place there.
pub(super) fn read_former(
    views: &Views,
    cluster: &ClusterView,
    claims: &Claims,
    current: Option<&RegistryName>,
    observed: &mut Observed,
) {
    let handle = &claims.handle;
    let owner = &Owner { cluster_id: handle.cluster_id.clone(), service: observed.facts.key.clone() };
    let vanished = vanished(views, cluster, claims, observed);
    let undecided = is_undecided(views, cluster, handle);
    let view = handle.view();
    if observed.is_gone() {
        let mut snapshot = view.snapshot_of_owner(owner);
        snapshot.under_other_names.retain(|_, record| claims.of_record(record) != Claim::Another);
        if !snapshot.under_other_names.is_empty() {
            snapshot.state = if undecided { ViewState::Unknown } else { snapshot.state };
            drop(view);
            let facts = registry_facts(handle, owner.clone(), None, snapshot);
            observed.facts.former.push(RegistryFacts { vanished, ..facts });
        }
        return;
    }
    let mut names: BTreeMap<RegistryName, BTreeSet<Claim>> = BTreeMap::new();
    for record in view.owned_by(&owner.service) {
        let name = handle.layout.split_key(&record.key).and_then(|(name, _)| std::str::from_utf8(name).ok());
        let Some(name) = name.and_then(|name| RegistryName::new(name).ok()) else { continue };
        names.entry(name).or_default().insert(claims.of_record(record));
    }
    let slices = observed.facts.cluster.our_slices.iter();
    let sources = slices.filter_map(|slice| slice.annotations.get(IMPORTED_FROM_ANNOTATION));
    for source in sources.chain([&observed.checkpoint.planned.source]) {
        let name = source.split_once('/').filter(|(registry, _)| *registry == handle.name);
        let name = name.and_then(|(_, name)| RegistryName::new(name).ok());
        if let Some(name) = name {
            names.entry(name).or_default().insert(Claim::Ours);
        }
    }
    let is_anothers = |of: &BTreeSet<Claim>| of.iter().all(|claim| *claim == Claim::Another);
    let former = names.into_iter().filter(|(name, of)| Some(name) != current && !is_anothers(of));
    let places: Vec<(RegistryName, BTreeSet<Claim>, Snapshot)> = former
        .map(|(name, of)| {
            let mut snapshot = view.snapshot(&name, owner);
            if of.contains(&Claim::Another) {
                let is_own = |record: &Record| record.own(&handle.cluster_id) == Some(owner);
                let keep = |record: &Record| !is_own(record) || claims.of_record(record) != Claim::Another;
                Arc::make_mut(&mut snapshot.records).retain(|_, record| keep(record));
            }
            // Records under other names have places of their own.
            snapshot.under_other_names.clear();
            snapshot.state = if undecided { ViewState::Unknown } else { snapshot.state };
            (name, of, snapshot)
        })
        .collect();
    drop(view);
    for (name, of, snapshot) in places {
        let facts = registry_facts(handle, owner.clone(), Some(name), snapshot);
        // Nothing can be added where another one has the keys already.
        if of.contains(&Claim::Another) || !of.contains(&Claim::Ours) {
            observed.unclaimed.insert(facts.place());
        }
        observed.facts.former.push(RegistryFacts { vanished: vanished.clone(), ..facts });
    }
}
