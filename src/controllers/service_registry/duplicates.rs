//! Duplicates: ServiceRegistries with the same etcd, the same keyspace in it and the same cluster ID. The oldest has
//! it.
//!
//! Owns the comparison. Endpoints have many spellings, and etcd's cluster ID only rules out: where two have the same
//! one, [`crate::registry::rivals`] proves whether they are one etcd. Without a fence the cluster ID has to do. Refuses
//! to know the consequence.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::settings;
use crate::api::ServiceRegistry;
use crate::cluster::reach::Holding;
use crate::cluster::view::ClusterView;
use crate::registry::are_two_etcds;
use crate::registry::handle::Identity;
use crate::registry::incarnation::LastKnown;
use crate::registry::rivals::Comparison;
use crate::registry::sessions::Running;

/// The etcd that a session found behind these endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LastEtcd {
    pub endpoints: Vec<String>,
    pub etcd: u64,
}

/// The endpoints of an older ServiceRegistry and of a younger one.
pub(super) type Pair = (Vec<String>, Vec<String>);

/// The proofs about pairs of ServiceRegistries, the older one first, while they had these endpoints.
pub(super) type Verdicts = BTreeMap<(String, String), (Pair, Comparison)>;

/// An older ServiceRegistry with the same keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Older {
    pub name: String,
    /// Whether it is known to lead to the same etcd; otherwise nothing rules it out.
    pub proven: bool,
    pub endpoints: Pair,
}

/// Everything that the comparison rests on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub view: &'a ClusterView,
    pub running: &'a BTreeMap<String, Running>,
    /// The etcd of this ServiceRegistry if it has no session.
    pub last: Option<&'a LastEtcd>,
    pub verdicts: &'a Verdicts,
}

/// Whether both would have the same records in one etcd, so that each would take the other's for its own.
pub(super) fn same_keyspace(a: &Identity, b: &Identity) -> bool {
    a.cluster_id == b.cluster_id && a.layout.same_keyspace(&b.layout)
}

/// The registry that a ServiceRegistry means.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub identity: Identity,
    endpoints: Vec<String>,
}

/// The registry that a ServiceRegistry means; absent while that is unknown. One whose connection this version cannot
/// read keeps the registry of its session, and has none without: it is nobody's duplicate.
pub(super) fn place(known: Known<'_>, object: &ServiceRegistry) -> Option<Place> {
    match settings::identity(object, known.view) {
        Ok(identity) => Some(Place { identity, endpoints: object.spec.etcd.endpoints.clone() }),
        Err(_) => known.running.get(object.metadata.name.as_ref()?).map(in_session),
    }
}

/// The registry of a ServiceRegistry that another release serves, which tells its cluster ID in the status.
fn place_of_another(known: Known<'_>, object: &ServiceRegistry) -> Option<Place> {
    let told = object.status.as_ref().and_then(|status| status.cluster_id.as_deref());
    let cluster_id = told.or_else(|| known.view.cluster_id_of(object))?;
    let endpoints = object.spec.etcd.endpoints.clone();
    Some(Place { identity: settings::identity_as(object, cluster_id), endpoints })
}

fn in_session(Running { settings, .. }: &Running) -> Place {
    Place { identity: settings.identity.clone(), endpoints: settings.connection.endpoints.clone() }
}

/// The older ServiceRegistries that have, or may have, the same keyspace of the same etcd.
pub(super) fn older_duplicates(known: Known<'_>, object: &ServiceRegistry) -> Vec<Older> {
    let Known { view, running, last, verdicts } = known;
    let age = |object: &ServiceRegistry| {
        (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.metadata.name.clone())
    };
    let (Some(ours), Some(our_name)) = (place(known, object), object.metadata.name.clone()) else { return Vec::new() };
    let Place { identity: ours, endpoints } = ours;
    let our_last = match running.get(&our_name) {
        Some(running) => met(running),
        // The status may still name the etcd of earlier endpoints.
        None => last.filter(|last| last.endpoints == endpoints).map(|last| LastKnown::from((last.etcd, 0))),
    };
    let duplicate = |(name, other): (&String, &Arc<ServiceRegistry>)| {
        let runs = running.get(name);
        // No session of this release can ask their etcd.
        let is_anothers =
            view.unserved_registries.contains_key(name) || matches!(view.holding(other), Holding::Another(_));
        let theirs = match is_anothers {
            true => place_of_another(known, other),
            false => runs.map(in_session).or_else(|| place(known, other)),
        };
        let Place { identity: theirs, endpoints: addressed } = theirs?;
        if age(other) >= age(object) || !same_keyspace(&ours, &theirs) {
            return None;
        }
        let endpoints = (addressed, endpoints.clone());
        let older = |proven| Some(Older { name: name.clone(), proven, endpoints: endpoints.clone() });
        if endpoints.0.iter().any(|endpoint| endpoints.1.contains(endpoint)) {
            return older(true);
        }
        // A registry that is not connected counts with its last etcd, which has its records.
        let their_last = runs.and_then(met).or_else(|| settings::last_known(other, view))?;
        let our_last = our_last.as_ref()?;
        if are_two_etcds(our_last.etcd, their_last.etcd) {
            return None;
        }
        match (&ours.fence_prefix, &theirs.fence_prefix) {
            (Some(a), Some(b)) if a == b && known_to_differ(our_last, &their_last) => return None,
            // The incarnation is the one of this cluster ID, which both have: the same one, or one that is not told.
            (Some(_), Some(_)) if is_anothers => return older(our_last.incarnation.is_some()),
            (Some(_), Some(_)) => {}
            _ => return older(true),
        }
        match verdicts.get(&(name.clone(), our_name.clone())) {
            Some((at, Comparison::SameEtcd)) if *at == endpoints => older(true),
            Some((at, Comparison::OtherEtcd)) if *at == endpoints => None,
            _ => older(false),
        }
    };
    let stays = |(_, object): &(&String, &Arc<ServiceRegistry>)| object.metadata.deletion_timestamp.is_none();
    let all = view.service_registries.iter().chain(&view.unserved_registries);
    all.filter(stays).filter_map(duplicate).collect()
}

/// The registry that a session has met.
fn met(running: &Running) -> Option<LastKnown> {
    let etcd = running.handle.etcd()?;
    // Until everything is listed, the view knows the incarnation of the session before.
    let connected = running.handle.connection().is_ok();
    let known = running.handle.view().last_known().filter(|_| connected).cloned().unwrap_or_default();
    Some(LastKnown { etcd, ..known })
}

/// One etcd has one incarnation.
fn known_to_differ(a: &LastKnown, b: &LastKnown) -> bool {
    a.incarnation.as_ref().zip(b.incarnation.as_ref()).is_some_and(|(a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::conditions::Reason;
    use crate::cluster::reach::{Limits, Reach};

    fn object(name: &str, created: &str, endpoint: &str, prefix: &str, etcd: Option<&str>) -> ServiceRegistry {
        let status = etcd.map_or(
            Value::Null,
            |id| json!({"conditions": [], "etcd": {"clusterID": id, "version": "3.6.0", "revisionAtLastSession": 7}}),
        );
        serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"etcd": {"endpoints": [endpoint]}, "format": "Kitex", "prefix": prefix, "clusterID": "c1", "allowed": []},
            "status": status,
        }))
        .unwrap()
    }

    fn duplicate(older: ServiceRegistry, last: Option<u64>, prefix: &str) -> Option<(String, bool)> {
        let younger = object("a", "2026-01-02T00:00:00Z", "http://b:2379", prefix, None);
        let mut view = ClusterView::default();
        for object in [older, younger.clone()] {
            view.service_registries.insert(object.metadata.name.clone().unwrap(), Arc::new(object));
        }
        let last = last.map(|etcd| LastEtcd { endpoints: younger.spec.etcd.endpoints.clone(), etcd });
        let (running, verdicts) = (BTreeMap::new(), Verdicts::new());
        let known = Known { view: &view, running: &running, last: last.as_ref(), verdicts: &verdicts };
        older_duplicates(known, &younger).first().map(|older| (older.name.clone(), older.proven))
    }

    /// The younger `a` is ours, and has met etcd 10; another release serves the older `z`.
    fn beside_another_release(endpoint: &str, their: Option<&str>) -> bool {
        let younger = object("a", "2026-01-02T00:00:00Z", "http://b:2379", "p", None);
        let mut older = object("z", "2026-01-01T00:00:00Z", endpoint, "p", None);
        older.spec.cluster_id = None;
        let told = json!({"holder": "team-b", "clusterID": "c1", "etcd": their.map(|incarnation| {
            json!({"clusterID": "a", "version": "3.6.0", "revisionAtLastSession": 7, "incarnation": incarnation})
        })});
        older.status = serde_json::from_value(told).unwrap();
        let mut view = ClusterView::default();
        view.set_reach(Reach {
            release: Some("team-a".into()),
            registries: ["a".to_owned()].into(),
            limits: Some(Limits { cluster_id: "c1".into(), ..Limits::default() }),
        });
        view.service_registries.insert("a".into(), Arc::new(younger.clone()));
        view.unserved_registries.insert("z".into(), Arc::new(older));
        let settings = settings::session_settings(&younger, &view);
        assert_eq!(settings.unwrap_err().reason, Reason::ClusterIDInUse);
        let last = LastEtcd { endpoints: younger.spec.etcd.endpoints.clone(), etcd: 10 };
        let (running, verdicts) = (BTreeMap::new(), Verdicts::new());
        let known = Known { view: &view, running: &running, last: Some(&last), verdicts: &verdicts };
        !older_duplicates(known, &younger).is_empty()
    }

    #[test]
    fn one_that_another_release_serves_counts_with_what_its_status_tells() {
        assert!(beside_another_release("http://b:2379", None), "the same endpoint");
        assert!(!beside_another_release("http://a:2379", None), "its etcd is not known");
        assert!(beside_another_release("http://a:2379", Some("i")));
    }

    #[test]
    fn the_older_one_has_the_place_also_while_it_is_not_connected() {
        let older = |endpoint, etcd| object("z", "2026-01-01T00:00:00Z", endpoint, "p", etcd);
        let z = |proven| Some(("z".to_owned(), proven));
        assert_eq!(duplicate(older("http://b:2379", None), None, "p"), z(true), "the same endpoint");
        assert_eq!(
            duplicate(older("http://a:2379", None), Some(10), "p"),
            None,
            "nothing shows that it is the same etcd"
        );
        assert_eq!(duplicate(older("http://a:2379", Some("a")), None, "p"), None, "nor here, yet");
        assert_eq!(
            duplicate(older("http://a:2379", Some("a")), Some(10), "p"),
            z(false),
            "an etcd with the same cluster ID, which proves nothing"
        );
        let mut unfenced = older("http://a:2379", Some("a"));
        unfenced.spec.fence.mode = crate::api::FenceMode::None;
        assert_eq!(duplicate(unfenced, Some(10), "p"), z(true), "without a fence nothing better is known");
        assert_eq!(duplicate(older("http://a:2379", Some("b")), Some(10), "p"), None, "another etcd");
        assert_eq!(duplicate(older("http://b:2379", None), None, "p/q"), None, "another place");
        let younger = object("z", "2026-01-03T00:00:00Z", "http://b:2379", "p", Some("a"));
        assert_eq!(duplicate(younger, Some(10), "p"), None, "the younger one gives way");
    }
}
