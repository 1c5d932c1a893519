use std::sync::Arc;

use serde_json::{Value, json};
use twinspan_core::model::{Family, Precedence, ServiceKey, ServicePortView, ServiceView, TrafficDistribution};
use twinspan_core::plan::service::{ClusterFacts, Facts, HoldFacts, ImportPlace};

use super::*;
use crate::cluster::convert::NamespaceView;
use crate::controllers::registered_service::Checkpoint;

fn object(spec: &Value) -> RegisteredService {
    let mut whole = json!({"registryRef": {"name": "main"}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": {"name": "echo", "namespace": "shop"}, "spec": whole}))
    .unwrap()
}

fn registry(allowed: &Value) -> Arc<ServiceRegistry> {
    registry_of("Kitex", allowed)
}

fn registry_of(format: &str, allowed: &Value) -> Arc<ServiceRegistry> {
    let spec = json!({"etcd": {"endpoints": ["http://a"]}, "format": format, "allowed": allowed});
    let object = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": "main"}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn service(ports: &[(&str, bool)]) -> ServiceView {
    let port = |(name, tcp): &(&str, bool)| ServicePortView {
        name: (*name).to_owned(),
        number: 80,
        node_port: None,
        tcp: *tcp,
        app_protocol: None,
    };
    ServiceView {
        name: "echo".into(),
        uid: "s".into(),
        external_name: false,
        headless: true,
        selector: true,
        selects: Default::default(),
        traffic: TrafficDistribution::Anywhere,
        ports: ports.iter().map(port).collect(),
        cluster_ips: Vec::new(),
        external_ips: Vec::new(),
        balancer_ips: Vec::new(),
        local_traffic: false,
        families: vec![Family::V6, Family::V4],
        labels: BTreeMap::new(),
        owner_uid: None,
        deleting: false,
        created: None,
        annotations: BTreeMap::new(),
    }
}

fn observed(spec: &Value) -> Observed {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let service = Some(Arc::new(service(&[("rpc", true)])));
    let cluster = ClusterFacts { service: service.clone(), import_service: service, ..ClusterFacts::default() };
    Observed {
        has_nodes: true,
        precedence: Precedence::last(ServiceKey::new("shop", "echo")),
        creators: BTreeMap::new(),
        facts: Facts {
            term: None,
            key: ServiceKey::new("shop", "echo"),
            uid: String::new(),
            generation: None,
            observed_generation: None,
            imported_before: false,
            cluster,
            registry: None,
            former: Vec::new(),
            probes: BTreeMap::new(),
            holds: HoldFacts::default(),
        },
        object: Some(Arc::new(object(spec))),
        nameless: None,
        unreadable: None,
        unreadable_registries: BTreeMap::new(),
        ready_in_namespace: BTreeSet::new(),
        namespace: Some(Arc::new(NamespaceView { uid: "n".into(), labels, export: None, deleting: false })),
        registry: Some(registry(&json!([{"namespaceSelector": {}, "registryNames": ["*"]}]))),
        taken_by: None,
        crowded_out: false,
        registry_failure: None,
        unclaimed: BTreeSet::new(),
        unserved_since: None,
        former_registries: BTreeMap::new(),
        checkpoint: Checkpoint::default(),
    }
}

fn accepted(observed: &Observed) -> Accepted {
    match validate(observed).goal {
        Goal::Sync(accepted) => *accepted,
        other => panic!("{other:?}"),
    }
}

/// The reason, and whether records and slices are withdrawn.
fn rejected(observed: &Observed) -> (Reason, bool) {
    let validation = validate(observed);
    (validation.rejection.as_ref().unwrap().reason, validation.withdraws())
}

fn is_accepted(observed: &Observed) -> bool {
    validate(observed).goal.accepted().is_some()
}

#[test]
fn names_default_to_metadata_and_the_only_port_is_meant() {
    let plain = accepted(&observed(&json!({})));
    assert_eq!((plain.name.as_str(), plain.service.to_string().as_str()), ("echo", "shop/echo"));
    assert_eq!(plain.ports.iter().map(|p| p.port.name.as_str()).collect::<Vec<_>>(), ["rpc"]);
    assert_eq!(plain.families, [Family::V6], "the Service's primary family");
    let named = accepted(&observed(
        &json!({"registryName": "a.b", "service": {"name": "other"}, "export": {"ipFamilyPolicy": "All"}}),
    ));
    assert_eq!((named.name.as_str(), named.service.to_string().as_str()), ("a.b", "shop/other"));
    assert_eq!(named.families, [Family::V4, Family::V6]);
}

#[test]
fn imports_that_are_apart_have_a_service_with_the_ports_of_the_other_one() {
    let apart = json!({"import": {"into": "Apart"}});
    let mut seen = observed(&apart);
    seen.facts.cluster.import_service = None;
    let created = accepted(&seen);
    assert_eq!(created.import_service.to_string(), "shop/echo-imported");
    let wanted = created.create.unwrap();
    assert_eq!(
        (wanted.key.name.as_str(), wanted.headless, wanted.ports),
        ("echo-imported", true, vec![("rpc".into(), 80)])
    );
    assert!(created.amend.is_none() && created.ports.len() == 1, "exports do not wait for it");

    let found = |change: fn(&mut ServiceView)| {
        let mut seen = observed(&apart);
        let mut view = ServiceView { selector: false, ..service(&[("rpc", true)]) };
        change(&mut view);
        seen.facts.cluster.import_service = Some(Arc::new(view));
        seen.facts.uid = "uid-1".into();
        seen
    };
    assert!(accepted(&found(|_| {})).create.is_none(), "somebody made it");
    assert_eq!(rejected(&found(|view| view.selector = true)), (Reason::NotSupported, false));
    assert_eq!(rejected(&found(|view| view.external_name = true)), (Reason::ExternalName, false));
    assert_eq!(rejected(&found(|view| view.ports.clear())), (Reason::PortNotFound, false));
    let ours = accepted(&found(|view| (view.owner_uid, view.ports) = (Some("uid-1".into()), Vec::new())));
    assert_eq!(ours.amend.unwrap().ports, [("rpc".into(), 80)]);
    let mut together = observed(&json!({"import": {"into": "Together"}}));
    (together.facts.cluster.import_service, together.facts.cluster.import_place) = (None, ImportPlace::Together);
    let wanted = accepted(&together).create.unwrap();
    assert_eq!((wanted.key.name.as_str(), wanted.family), ("echo-all", Some(Family::V6)), "one family, one slice");
    let both = json!({
        "import": {"into": "Apart"}, "service": {"create": "Headless", "ports": [{"name": "rpc", "number": 80}]},
    });
    assert_eq!(rejected(&observed(&both)), (Reason::NotSupported, false));
}

#[test]
fn a_refusal_withdraws_only_where_it_is_certain_that_nothing_belongs_there() {
    type Change = fn(&mut Observed);
    let cases: [(Reason, Value, Change, bool); 8] = [
        (Reason::RegistryNotFound, json!({}), |o| o.registry = None, true),
        (Reason::NotAllowed, json!({}), |o| o.registry = Some(registry(&json!([]))), true),
        (Reason::ServiceMissing, json!({}), |o| o.facts.cluster.service = None, true),
        (
            Reason::ExternalName,
            json!({}),
            |o| o.facts.cluster.service = Some(Arc::new(ServiceView { external_name: true, ..service(&[]) })),
            true,
        ),
        (Reason::PortNotFound, json!({"service": {"ports": [{"name": "grpc"}]}}), |_| {}, false),
        (
            Reason::PortNotFound,
            json!({}),
            |o| o.facts.cluster.service = Some(Arc::new(service(&[("rpc", false)]))),
            false,
        ),
        (
            Reason::PortAmbiguous,
            json!({}),
            |o| o.facts.cluster.service = Some(Arc::new(service(&[("a", true), ("b", true)]))),
            false,
        ),
        (Reason::NotSupported, json!({"service": {"ports": [{"name": "rpc", "scheme": "grpc"}]}}), |_| {}, false),
    ];
    for (reason, spec, change, withdraws) in cases {
        let mut observed = observed(&spec);
        change(&mut observed);
        assert_eq!(rejected(&observed), (reason, withdraws));
    }
    let mut terminating = observed(&json!({}));
    terminating.namespace =
        Some(Arc::new(NamespaceView { uid: "n".into(), labels: BTreeMap::new(), export: None, deleting: true }));
    assert_eq!(rejected(&terminating), (Reason::NamespaceTerminating, true));
    let mut odd = observed(&json!({"registryName": "a/b"}));
    assert_eq!(rejected(&odd), (Reason::InvalidName, false));
    odd = observed(&json!({"registryName": "Echo"}));
    assert!(is_accepted(&odd));
    odd.registry = Some(registry_of("Hertz", &json!([{"namespaceSelector": {}, "registryNames": ["*"]}])));
    assert_eq!(rejected(&odd), (Reason::InvalidName, false), "a client would never find it");
}

#[test]
fn what_a_format_has_no_place_for_is_refused() {
    let two = json!({"service": {"ports": [{"name": "rpc", "scheme": "grpc"}, {"name": "web", "scheme": "http"}]}});
    let same = json!({"service": {"ports": [{"name": "rpc"}, {"name": "web", "scheme": "grpc"}]}});
    for (format, spec, carried) in [
        ("Kitex", two.clone(), false),
        ("GRPC", two.clone(), false),
        ("Kratos", two, true),
        ("Kratos", same, false),
        ("Kitex", json!({"export": {"weight": 5, "tags": {"a": "b"}}, "import": {"onExpiry": "Heal"}}), true),
        ("Hertz", json!({"import": {"onExpiry": "Heal"}}), true),
        ("GoZero", json!({"export": {"weight": 5}}), false),
        ("GoZero", json!({"export": {"tags": {"a": "b"}}}), false),
        ("GoZero", json!({"import": {"onExpiry": "Heal"}}), false),
        ("GRPC", json!({"export": {"tagsFromPodLabels": [{"label": "a", "tag": "a"}]}}), false),
        ("GoZero", json!({"export": {"zoneTag": "az"}}), false),
        ("GoZero", json!({"export": {"share": 10}}), false),
        ("GRPC", json!({"export": {"share": 10}}), false),
        ("GoFrame", json!({"export": {"share": 10}}), false),
        ("GoFrame", json!({"export": {"weight": 5, "zoneTag": "az"}}), true),
        ("Kitex", json!({"export": {"share": 10, "zoneTag": "az"}}), true),
        ("Hertz", json!({"export": {"share": 10}}), true),
        ("GRPC", json!({"import": {"onExpiry": "Remove", "keepLostSeconds": 60}}), true),
        ("GoZero", json!({"deletionGuard": {"minInstances": 3, "maxDeletePercent": 20, "holdSeconds": 60}}), true),
    ] {
        let mut observed = observed(&spec);
        observed.facts.cluster.service = Some(Arc::new(service(&[("rpc", true), ("web", true)])));
        if spec["service"].is_null() {
            observed.facts.cluster.service = Some(Arc::new(service(&[("rpc", true)])));
        }
        observed.registry = Some(registry_of(format, &json!([{"namespaceSelector": {}, "registryNames": ["*"]}])));
        if !carried {
            assert_eq!(rejected(&observed), (Reason::NotSupported, false), "{format} {spec}");
            continue;
        }
        let accepted = accepted(&observed);
        let schemes: Vec<&str> = accepted.ports.iter().map(|port| port.scheme.as_str()).collect();
        let expected: &[&str] = if format == "Kratos" { &["grpc", "http"] } else { &[""] };
        assert_eq!(schemes, expected, "{format} {spec}");
    }
}

#[test]
fn allowed_is_by_namespace_labels_and_names() {
    let team = |team: &str, names: &[&str]| json!({"namespaceSelector": {"matchLabels": {"team": team}}, "registryNames": names});
    for (allowed, name, expected) in [
        (json!([team("a", &["*"])]), "echo", true),
        (json!([team("b", &["*"])]), "echo", false),
        (json!([team("a", &["shop.*"])]), "shop.echo", true),
        (json!([team("a", &["shop.*"])]), "payment", false),
        (json!([team("b", &["*"]), team("a", &["payment", "echo"])]), "echo", true),
        (json!([]), "echo", false),
    ] {
        let mut observed = observed(&json!({"registryName": name}));
        observed.registry = Some(registry(&allowed));
        assert_eq!(is_accepted(&observed), expected, "{allowed} {name}");
        observed.namespace = None;
        assert!(!is_accepted(&observed), "an unknown namespace has no labels");
    }
}

#[test]
fn a_missing_service_is_created_where_asked_and_a_leaving_one_counts_as_missing() {
    let spec = json!({"service": {"create": "Headless", "ports": [{"name": "rpc", "number": 8888}]}});
    let mut observed = observed(&spec);
    assert_eq!(accepted(&observed).create, None);
    observed.facts.cluster.service = Some(Arc::new(ServiceView { deleting: true, ..service(&[("rpc", true)]) }));
    let new = accepted(&observed).create.unwrap();
    assert_eq!((new.headless, new.ports), (true, vec![("rpc".to_owned(), 8888)]));
}

#[test]
fn suspended_and_observed_services_write_nothing_but_stay_accepted() {
    for spec in [json!({"suspend": true}), json!({"policy": "Observe"})] {
        let validation = validate(&observed(&spec));
        assert!(validation.goal.accepted().is_some());
        assert!(!validation.writes && validation.accepted().is_none(), "{spec}");
    }
    let mut gone = observed(&json!({}));
    gone.object = None;
    assert!(validate(&gone).writes && validate(&gone).gone);
}
