use kube::ResourceExt;
use serde_json::json;

use super::*;

fn put<K: Watched>(view: &mut ClusterView, object: serde_json::Value) -> Vec<ClusterEvent> {
    let object: K = serde_json::from_value(object).unwrap();
    K::put(view, ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any()), object)
}

#[test]
fn cluster_ips_follow_their_services_and_affect_whoever_looks_at_them() {
    let mut view = ClusterView::default();
    let service = |ip: &str| {
        json!({"metadata": {"name": "echo", "namespace": "shop"},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "externalIPs": ["192.0.2.7"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"hostname": "lb.example"}]}}})
    };
    let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let echo = ServiceKey::new("shop", "echo");
    let events = put::<Service>(&mut view, service("10.96.0.1"));
    let changed = ClusterEvent::Addresses(ips(&["10.96.0.1"]));
    assert_eq!(events, [changed.clone(), ClusterEvent::Service(echo.clone())]);
    assert_eq!(view.services.get(&echo).unwrap().external_ips, ips(&["192.0.2.7", "192.0.2.8"]));
    put::<Service>(&mut view, service("10.96.0.2"));
    assert_eq!(view.cluster_ips.iter().copied().collect::<Vec<_>>(), ips(&["10.96.0.2"]));
    assert_eq!(put::<Service>(&mut view, service("None")).len(), 2);
    assert!(view.cluster_ips.is_empty(), "headless");
    put::<Service>(&mut view, service("10.96.0.1"));
    assert!(Service::remove(&mut view, &echo).contains(&changed) && view.cluster_ips.is_empty());
}

#[test]
fn helms_secrets_are_not_kept() {
    let mut view = ClusterView::default();
    let secret = |kind: &str, data: &str| json!({"metadata": {"name": "s", "namespace": "twinspan"}, "type": kind, "data": {"password": data}});
    assert!(put::<Secret>(&mut view, secret("helm.sh/release.v1", "eA==")).is_empty());
    assert!(view.secrets.is_empty());
    assert_eq!(put::<Secret>(&mut view, secret("Opaque", "eA==")), [ClusterEvent::Secret]);
    assert!(put::<Secret>(&mut view, secret("Opaque", "eA==")).is_empty(), "an annotation changed");
    assert_eq!(put::<Secret>(&mut view, secret("Opaque", "eQ==")), [ClusterEvent::Secret]);
}

#[test]
fn the_watch_may_show_a_slice_before_its_writer_has_the_answer() {
    let mut view = ClusterView::default();
    let slice = |version: &str| {
        json!({"metadata": {"name": "s", "namespace": "shop", "resourceVersion": version,
                "labels": {"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "twinspan.dev"}},
            "addressType": "IPv4", "endpoints": []})
    };
    let (web, by, key) = (ServiceKey::new("shop", "web"), ServiceKey::new("shop", "echo"), ObjectKey::new("shop", "s"));
    let told = ClusterEvent::Wrote { services: vec![web.clone()], by: by.clone() };
    view.slices.begin_write(&key, &by);
    assert_eq!(put::<EndpointSlice>(&mut view, slice("5")), std::slice::from_ref(&told));
    assert!(!view.slices.end_write(&key, Some("5")), "its own write was shown");
    assert_eq!(put::<EndpointSlice>(&mut view, slice("6")), [ClusterEvent::Service(web)]);
    view.slices.begin_write(&key, &by);
    for version in ["7", "8"] {
        assert_eq!(put::<EndpointSlice>(&mut view, slice(version)), std::slice::from_ref(&told));
    }
    assert!(view.slices.end_write(&key, Some("7")), "somebody changed it again");
    view.slices.begin_write(&key, &by);
    assert!(!view.slices.end_write(&key, None), "the write failed, and nothing was shown");
}

#[test]
fn a_pod_with_a_closed_gate_and_a_service_that_selects_others_are_told() {
    let mut view = ClusterView::default();
    let key = ObjectKey::new("shop", "a");
    let pod = |version: &str, gate: &str| {
        json!({"metadata": {"name": "a", "namespace": "shop", "resourceVersion": version},
            "spec": {"containers": [], "readinessGates": [{"conditionType": "twinspan.dev/registered"}]},
            "status": {"conditions": [{"type": "twinspan.dev/registered", "status": gate}]}})
    };
    let gate = [ClusterEvent::Gate(key.clone())];
    assert_eq!(put::<Pod>(&mut view, pod("1", "False")), gate);
    assert_eq!(put::<Pod>(&mut view, pod("2", "False")), gate, "its version counts for the next write");
    assert_eq!(put::<Pod>(&mut view, pod("3", "True")), gate);
    assert_eq!(put::<Pod>(&mut view, pod("4", "True")), []);
    put::<Pod>(&mut view, pod("5", "False"));
    assert_eq!(Pod::vanish(&mut view, &key), gate);
    let service =
        |app: &str| json!({"metadata": {"name": "s", "namespace": "shop"}, "spec": {"selector": {"app": app}}});
    let selects = ClusterEvent::Selects("shop".into());
    assert!(put::<Service>(&mut view, service("a")).contains(&selects));
    assert!(put::<Service>(&mut view, service("b")).contains(&selects));
    let mut labelled = service("b");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert!(!put::<Service>(&mut view, labelled).contains(&selects));
    assert!(Service::remove(&mut view, &ObjectKey::new("shop", "s")).contains(&selects));
}
