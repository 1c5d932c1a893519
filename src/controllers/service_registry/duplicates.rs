//! Duplicates: ServiceRegistries with the same etcd, the same keyspace in it and the same cluster ID. The oldest has
//! it.
//!
//! Owns the comparison. Endpoints have many spellings, so the deciding fact is the cluster ID with which etcd itself
//! answers. Refuses to know the consequence.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::settings;
use crate::api::ServiceRegistry;
use crate::cluster::view::ClusterView;
use crate::registry::handle::Identity;
use crate::registry::sessions::Running;

/// The etcd that a session found behind these endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LastEtcd {
    pub endpoints: Vec<String>,
    pub etcd: u64,
}

/// Whether both would have the same records in one etcd, so that each would take the other's for its own.
pub(super) fn same_keyspace(a: &Identity, b: &Identity) -> bool {
    a.cluster_id == b.cluster_id && a.layout.same_keyspace(&b.layout)
}

/// The older ServiceRegistry for the same registry, if there is one. `last` is the etcd of this one if it has no
/// session.
pub(super) fn older_duplicate(
    view: &ClusterView,
    running: &BTreeMap<String, Running>,
    last: Option<&LastEtcd>,
    object: &ServiceRegistry,
) -> Option<String> {
    let age = |object: &ServiceRegistry| {
        (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.metadata.name.clone())
    };
    let identity = |object: &ServiceRegistry| settings::identity(object, view).ok();
    let ours = identity(object)?;
    let endpoints = &object.spec.etcd.endpoints;
    let etcd = match object.metadata.name.as_ref().and_then(|name| running.get(name)) {
        Some(running) => running.handle.etcd(),
        // The status may still name the etcd of earlier endpoints.
        None => last.filter(|last| last.endpoints == *endpoints).map(|last| last.etcd),
    };
    let duplicate = |(name, other): (&String, &Arc<ServiceRegistry>)| {
        let runs = running.get(name);
        let theirs = runs.map(|running| running.settings.identity.clone()).or_else(|| identity(other))?;
        if age(other) >= age(object) || !same_keyspace(&ours, &theirs) {
            return None;
        }
        let addressed = runs.map_or(&other.spec.etcd.endpoints, |running| &running.settings.connection.endpoints);
        // A registry that is not connected counts with its last etcd, which has its records.
        let found = runs.and_then(|running| running.handle.etcd()).or_else(|| other.last_etcd().map(|(etcd, _)| etcd));
        let same_etcd = addressed.iter().any(|endpoint| endpoints.contains(endpoint));
        (same_etcd || (etcd.is_some() && etcd == found)).then(|| name.clone())
    };
    view.service_registries.iter().find_map(duplicate)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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

    fn duplicate(older: ServiceRegistry, last: Option<u64>, prefix: &str) -> Option<String> {
        let younger = object("a", "2026-01-02T00:00:00Z", "http://b:2379", prefix, None);
        let mut view = ClusterView::default();
        for object in [older, younger.clone()] {
            view.service_registries.insert(object.metadata.name.clone().unwrap(), Arc::new(object));
        }
        let last = last.map(|etcd| LastEtcd { endpoints: younger.spec.etcd.endpoints.clone(), etcd });
        older_duplicate(&view, &BTreeMap::new(), last.as_ref(), &younger)
    }

    #[test]
    fn the_older_one_has_the_place_also_while_it_is_not_connected() {
        let older = |endpoint, etcd| object("z", "2026-01-01T00:00:00Z", endpoint, "p", etcd);
        assert_eq!(duplicate(older("http://b:2379", None), None, "p").as_deref(), Some("z"), "the same endpoint");
        assert_eq!(
            duplicate(older("http://a:2379", None), Some(10), "p"),
            None,
            "nothing shows that it is the same etcd"
        );
        assert_eq!(duplicate(older("http://a:2379", Some("a")), None, "p"), None, "nor here, yet");
        assert_eq!(
            duplicate(older("http://a:2379", Some("a")), Some(10), "p").as_deref(),
            Some("z"),
            "status tells where it was"
        );
        assert_eq!(duplicate(older("http://a:2379", Some("b")), Some(10), "p"), None, "another etcd");
        assert_eq!(duplicate(older("http://b:2379", None), None, "p/q"), None, "another place");
        let younger = object("z", "2026-01-03T00:00:00Z", "http://b:2379", "p", Some("a"));
        assert_eq!(duplicate(younger, Some(10), "p"), None, "the younger one gives way");
    }
}
