use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::json;
use twinspan_core::model::ServiceKey;

use super::*;
use crate::cluster::reach::Reach;

fn put<K: Watched>(view: &mut ClusterView, object: serde_json::Value) -> Vec<ClusterEvent> {
    let object: K = serde_json::from_value(object).unwrap();
    K::put(view, ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any()), object)
}

#[test]
fn a_registry_that_a_list_lacks_is_told_from_one_that_was_deleted() {
    let mut view = ClusterView::default();
    let main = ObjectKey::new("", "main");
    let object = json!({"metadata": {"name": "main"}, "spec": {"etcd": {"endpoints": []}, "format": "Kitex",
        "allowed": []}});
    put::<Stored<ServiceRegistry>>(&mut view, object.clone());
    Stored::<ServiceRegistry>::remove(&mut view, &main);
    assert!(view.vanished_registries.is_empty());
    put::<Stored<ServiceRegistry>>(&mut view, object.clone());
    Stored::<ServiceRegistry>::vanish(&mut view, &main);
    assert!(view.vanished_registries.contains("main"));
    put::<Stored<ServiceRegistry>>(&mut view, object);
    assert!(view.vanished_registries.is_empty());
}

#[test]
fn a_slice_that_nobody_owns_concerns_the_one_that_it_tells_of() {
    let mut view = ClusterView::default();
    let owner = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "echo", "uid": "u"});
    let slice = |version: &str| {
        json!({"metadata": {"name": "s", "namespace": "shop", "resourceVersion": version, "ownerReferences": [owner],
                "labels": {"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "twinspan.dev"}},
            "addressType": "IPv4", "endpoints": []})
    };
    let web = ClusterEvent::Service(ServiceKey::new("shop", "web"));
    let keeper = ClusterEvent::RegisteredService(ServiceKey::new("shop", "echo"));
    assert_eq!(put::<EndpointSlice>(&mut view, slice("1")), [web.clone(), keeper], "nobody knows the owner");
    let object = json!({"metadata": {"name": "echo", "namespace": "shop", "uid": "u"}, "spec": {"registryRef": {"name": "main"}}});
    put::<Stored<RegisteredService>>(&mut view, object);
    assert_eq!(put::<EndpointSlice>(&mut view, slice("2")), [web]);
}

#[test]
fn a_status_is_told_as_one_and_concerns_nobody_else() {
    let mut view = ClusterView::default();
    let service = |version: &str, imported: i64| {
        json!({"metadata": {"name": "echo", "namespace": "shop", "uid": "u", "resourceVersion": version},
            "spec": {"registryRef": {"name": "main"}}, "status": {"instances": {"imported": imported}}})
    };
    put::<Stored<RegisteredService>>(&mut view, service("1", 1));
    assert_eq!(put::<Stored<RegisteredService>>(&mut view, service("2", 1)), []);
    let changed = ClusterEvent::StatusChanged(Object::RegisteredService(ServiceKey::new("shop", "echo")));
    assert_eq!(put::<Stored<RegisteredService>>(&mut view, service("3", 2)), [changed]);

    let registry = |version: &str, prefix: &str| {
        json!({"metadata": {"name": "main", "resourceVersion": version}, "status": {"prefix": prefix},
            "spec": {"etcd": {"endpoints": []}, "format": "Kitex", "allowed": []}})
    };
    put::<Stored<ServiceRegistry>>(&mut view, registry("1", "p"));
    assert_eq!(put::<Stored<ServiceRegistry>>(&mut view, registry("2", "p")), []);
    let changed = ClusterEvent::StatusChanged(Object::ServiceRegistry("main".to_owned()));
    assert_eq!(put::<Stored<ServiceRegistry>>(&mut view, registry("3", "q")), [changed]);
}

/// Namespaced mode, or one of several releases.
fn serving(registries: &[&str]) -> ClusterView {
    let registries = registries.iter().map(ToString::to_string).collect();
    let mut view = ClusterView::default();
    view.set_reach(Reach { registries, ..Reach::default() });
    view
}

#[test]
fn what_another_release_serves_is_not_looked_at_and_its_slices_are_no_strays() {
    let mut view = serving(&["main"]);
    let registry = |name: &str| json!({"metadata": {"name": name}, "spec": {"etcd": {"endpoints": []}, "format": "Kitex", "allowed": []}});
    put::<Stored<ServiceRegistry>>(&mut view, registry("main"));
    let other = || [ClusterEvent::ServiceRegistry("other".into())];
    assert_eq!(put::<Stored<ServiceRegistry>>(&mut view, registry("other")), other(), "it may be the same as ours");
    assert!(put::<Stored<ServiceRegistry>>(&mut view, registry("other")).is_empty());
    assert_eq!(view.service_registries.keys().collect::<Vec<_>>(), ["main"]);
    assert_eq!(view.unserved_registries.keys().collect::<Vec<_>>(), ["other"]);
    let key = ObjectKey::new("", "other");
    assert!(Stored::<ServiceRegistry>::known(&view).contains(&key), "a list tells when it is gone");
    assert_eq!(Stored::<ServiceRegistry>::remove(&mut view, &key), other());
    assert!(view.unserved_registries.is_empty());

    let echo = ServiceKey::new("shop", "echo");
    let object = |registry: &str| json!({"metadata": {"name": "echo", "namespace": "shop", "uid": "u"}, "spec": {"registryRef": {"name": registry}}});
    // Only the reference decides whose it is.
    let odd = json!({"metadata": {"name": "odd", "namespace": "shop"}, "spec": {"registryRef": {"name": "other"}, "registryName": 7}});
    assert_eq!(put::<Stored<RegisteredService>>(&mut view, odd), [ClusterEvent::Selects("shop".into())]);
    assert!(view.served_elsewhere.contains_key(&ServiceKey::new("shop", "odd")) && view.unreadable_services.is_empty());
    let slice = |version: &str| {
        json!({"metadata": {"name": "echo-twinspan-1", "namespace": "shop", "resourceVersion": version,
            "labels": {"endpointslice.kubernetes.io/managed-by": "twinspan.dev", "kubernetes.io/service-name": "echo"},
            "ownerReferences": [{"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "echo", "uid": "u"}]},
            "addressType": "IPv4", "endpoints": [], "ports": []})
    };
    let strays =
        |events: Vec<ClusterEvent>| events.contains(&ClusterEvent::RegisteredService(ServiceKey::new("shop", "echo")));
    let selects = [ClusterEvent::Selects("shop".into())];
    assert_eq!(put::<Stored<RegisteredService>>(&mut view, object("other")), selects);
    assert!(put::<Stored<RegisteredService>>(&mut view, object("other")).is_empty());
    assert!(view.registered_services.is_empty() && view.served_elsewhere.contains_key(&echo));
    assert!(!strays(put::<EndpointSlice>(&mut view, slice("1"))), "its owner is known, if not looked at");
    assert!(Stored::<RegisteredService>::known(&view).contains(&echo), "a list tells when it is gone");

    // The object moves to a registry of ours, and away: then it is gone for us, and its slices are the other release's.
    assert!(
        put::<Stored<RegisteredService>>(&mut view, object("main"))
            .contains(&ClusterEvent::RegisteredService(echo.clone()))
    );
    assert!(!view.served_elsewhere.contains_key(&echo) && view.registered_services.contains_key(&echo));
    assert!(
        put::<Stored<RegisteredService>>(&mut view, object("other"))
            .contains(&ClusterEvent::RegisteredService(echo.clone()))
    );
    assert!(view.index.of_uid("u").is_none() && !strays(put::<EndpointSlice>(&mut view, slice("2"))));
    Stored::<RegisteredService>::remove(&mut view, &echo);
    assert!(strays(put::<EndpointSlice>(&mut view, slice("3"))), "nobody's");
}
