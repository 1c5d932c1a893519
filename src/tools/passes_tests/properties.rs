//! Properties of whole passes over objects that the schema admits, and over those that it does not.
//!
//! Owns that every pass ends with conditions in the words of the API. Refuses to know which reason is right: files and
//! the tests of validation do.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use proptest::prelude::*;
use serde_json::{Value, json};
use twinspan_core::codec::Layout;
use twinspan_core::model::{ObjectKey, RegistryName};

use super::result;
use super::scene::{Passed, Scene};
use crate::api::conditions::{ACCEPTED, CONNECTED, OF_REGISTERED_SERVICE, READY, Reason, SHARE_LIMITED, STALLED};
use crate::api::testing::{object_of, registered_service_spec, repeatable, service_registry_spec};
use crate::api::{ServiceRegistry, ServiceRegistrySpec};
use crate::cluster::kinds::Watched;
use crate::cluster::view::ClusterView;
use crate::controllers::service_registry::settings;

/// The spec with references that are there, so that passes come further than the first check.
fn at_home(mut spec: Value, name: Option<&'static str>) -> Value {
    spec["registryRef"] = json!({"name": "main"});
    if let Some(name) = name {
        spec["registryName"] = json!(name);
        spec["service"]["name"] = json!("echo");
    }
    spec
}

/// What else there is, in the short forms of the files.
fn surroundings() -> impl Strategy<Value = Value> {
    let record = prop_oneof![
        Just(json!({})),
        Just(json!({"owner": "c1/shop/echo"})),
        Just(json!({"healed": "c1/shop/echo"})),
        Just(json!({"owner": "c2/shop/echo"})),
        ".{0,20}".prop_map(|value| json!({"value": value})),
    ];
    let address = r"(10\.0\.0|192\.0\.2)\.[1-4]:80";
    let records = prop::collection::btree_map(address, record, 0..4);
    let ready = prop::collection::btree_map(r"10\.0\.0\.[1-4]", "(Ready|NotReady|Terminating)", 0..3);
    let view = prop::sample::select(vec!["Fresh", "Fresh", "Fresh", "Unknown", "Stale"]);
    let service = prop::sample::select(vec![
        json!({}),
        json!({}),
        Value::Null,
        json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}}),
        json!({"spec": {"type": "ExternalName", "externalName": "example.com"}}),
    ]);
    (records, ready, view, service, prop::bool::weighted(0.9)).prop_map(|(records, ready, view, service, leads)| {
        json!({"records": records, "view": view, "service": service, "leads": leads,
            "slices": [{"name": "echo-1", "endpoints": ready}]})
    })
}

/// Secrets by name, and their data.
fn secrets() -> impl Strategy<Value = BTreeMap<String, BTreeMap<String, String>>> {
    let data = prop::collection::btree_map("(ca|tls)\\.(crt|key)", ".{0,4}", 0..3);
    prop::collection::btree_map(".{0,4}", data, 0..2)
}

/// Puts the records under the name `echo`.
fn under(given: &mut Value, layout: &Layout) {
    let root = layout.service_root(&RegistryName::new("echo").unwrap());
    let records = given["records"].as_object().unwrap();
    given["records"] = records.iter().map(|(key, record)| (format!("{root}{key}"), record.clone())).collect();
}

fn run(given: &Value, before: &[Value]) -> Passed {
    let scene = json!({"about": "Any.", "given": given, "before": before});
    serde_json::from_value::<Scene>(scene).unwrap().run("any")
}

/// Every condition has a type and a reason of the API, and the reason is one that this type may have.
fn speaks_the_api(passed: &Passed) -> Result<(), TestCaseError> {
    let mut kinds: BTreeSet<&str> = OF_REGISTERED_SERVICE.iter().map(|(kind, _)| *kind).collect();
    let found: BTreeSet<&str> = passed.status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    if !passed.validation.rejection.as_ref().is_some_and(|rejection| rejection.reason.stalls()) {
        kinds.remove(STALLED);
    }
    if !found.contains(SHARE_LIMITED) {
        kinds.remove(SHARE_LIMITED);
    }
    prop_assert_eq!(&found, &kinds, "{:?}", passed.status.conditions);
    for condition in &passed.status.conditions {
        let reason = Reason::ALL.iter().find(|reason| reason.as_str() == condition.reason);
        let Some(reason) = reason else { panic!("no reason {}", condition.reason) };
        let may = condition.type_ == READY || reason.carried_by().contains(&condition.type_.as_str());
        prop_assert!(may, "{}: {}", condition.type_, condition.reason);
        prop_assert!(condition.message.chars().count() <= 32_768, "{}", condition.type_);
        prop_assert!(["True", "False", "Unknown"].contains(&condition.status.as_str()));
    }
    let accepted = passed.status.conditions.iter().find(|condition| condition.type_ == ACCEPTED).unwrap();
    prop_assert_eq!(accepted.status == "True", passed.validation.rejection.is_none(), "{:?}", accepted);
    Ok(())
}

proptest! {
    #![proptest_config(repeatable(60))]

    #[test]
    fn a_pass_over_any_spec_ends_with_conditions_of_the_api(
        spec in registered_service_spec(),
        home in prop::option::weighted(0.7, prop::sample::select(vec!["echo", "Echo", "a.b~c"])),
        mut registry in service_registry_spec(),
        lax in prop::bool::weighted(0.7),
        mut given in surroundings(),
        mut later in surroundings(),
    ) {
        // Secrets are not what this is about: a session needs those that it names.
        let etcd = registry["etcd"].as_object_mut().unwrap();
        etcd.remove("tls");
        etcd.remove("auth");
        if lax {
            registry["allowed"] = json!([{"namespaceSelector": {}, "registryNames": ["*"]}]);
        }
        let layout = serde_json::from_value::<ServiceRegistrySpec>(registry.clone()).unwrap().layout();
        under(&mut given, &layout);
        under(&mut later, &layout);
        given["registeredService"] = json!({"spec": if home.is_some() { at_home(spec, home) } else { spec }});
        given["serviceRegistry"] = json!({"spec": registry});
        let first = run(&given, &[]);
        speaks_the_api(&first)?;
        // The other side changes, and the next pass goes on from there.
        let mut changed = given.clone();
        for (field, value) in later.as_object().unwrap() {
            changed[field] = value.clone();
        }
        let before = given.clone();
        let second = run(&changed, &[before]);
        speaks_the_api(&second)?;
        prop_assert_eq!(result::of(&run(&given, &[])), result::of(&first), "the same objects give the same result");
    }

    #[test]
    fn a_session_has_settings_or_a_reason_of_the_api(
        spec in service_registry_spec(),
        secrets in secrets(),
        named in any::<bool>(),
    ) {
        let object: ServiceRegistry =
            serde_json::from_value(object_of("ServiceRegistry", "main", &spec, &Value::Null)).unwrap();
        let mut view = ClusterView::default();
        for (name, data) in secrets {
            let data = data.into_iter().map(|(key, text)| (key, json!(ByteString(text.into()))));
            let data: serde_json::Map<_, _> = data.collect();
            let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap();
            Watched::put(&mut view, ObjectKey::new("twinspan", &name), secret);
        }
        if named {
            let namespace = json!({"metadata": {"name": "kube-system", "uid": "u"}});
            let namespace: Namespace = serde_json::from_value(namespace).unwrap();
            Watched::put(&mut view, ObjectKey::new("", "kube-system"), namespace);
        }
        match settings::session_settings(&object, &view) {
            Ok(settings) => prop_assert_eq!(settings.connection.endpoints, object.spec.etcd.endpoints),
            Err(rejection) => {
                prop_assert!(rejection.reason.carried_by().contains(&CONNECTED), "{:?}", rejection);
                prop_assert!(!rejection.message.is_empty());
            }
        }
    }
}
