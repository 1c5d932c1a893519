//! The RegisteredServices that follow from Services and names.

use serde_json::{Value, json};
use twinspan_core::codec::Format;
use twinspan_core::model::RegistryName;

use super::*;
use crate::cluster::convert;

fn service(name: &str, selects: bool, extra: &Value) -> ServiceView {
    let selector = if selects { json!({"app": name}) } else { Value::Null };
    let mut object = json!({"metadata": {"name": name}, "spec": {"selector": selector, "ports": [{"port": 80}]}});
    for (field, value) in extra.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    convert::service(&serde_json::from_value(object).unwrap())
}

fn registry(name: &str, foreign: &[&str]) -> RegistryFacts {
    RegistryFacts {
        name: name.to_owned(),
        format: Format::Kitex,
        foreign: foreign.iter().map(|name| (RegistryName::new(*name).unwrap(), 2)).collect(),
        problem: None,
        partial: None,
        allows: Box::new(|name| name.as_str() != "secret"),
    }
}

fn registered(name: &str, spec: &Value) -> RegisteredService {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).unwrap()
}

fn chosen(services: Vec<ServiceView>, registered: Vec<RegisteredService>, registries: Vec<RegistryFacts>) -> Manifest {
    choose(&Facts { namespace: "shop".to_owned(), services, registered, registries })
}

/// Name of the object, registry, name there and direction of each.
fn summary(manifest: &Manifest) -> Vec<String> {
    let one = |document: &Document| {
        let (meta, spec) = (&document.object["metadata"], &document.object["spec"]);
        let name = spec["registryName"].as_str().or(meta["name"].as_str()).unwrap();
        let (object, registry) = (&meta["name"], &spec["registryRef"]["name"]);
        format!(
            "{} {} {name} {}",
            object.as_str().unwrap(),
            registry.as_str().unwrap(),
            spec["direction"].as_str().unwrap()
        )
    };
    manifest.documents.iter().map(one).collect()
}

#[test]
fn the_direction_follows_from_what_exists() {
    let services = vec![
        service("vm", false, &json!({})),
        service("both", true, &json!({})),
        service("pods", true, &json!({})),
        service("nobody", false, &json!({})),
        service("external", false, &json!({"type": "ExternalName"})),
        service("udp", true, &json!({"ports": [{"port": 53, "protocol": "UDP"}]})),
    ];
    let manifest = chosen(services, vec![], vec![registry("main", &["team.both", "vm", "other.vm", "unrelated"])]);
    assert_eq!(summary(&manifest), ["both main team.both Both", "pods main pods Export", "vm main vm Import"]);
    let left_out: Vec<&str> = manifest.remarks.iter().filter_map(|remark| remark.split(' ').nth(1)).collect();
    assert_eq!(left_out, ["external", "nobody", "udp"]);
    assert!(manifest.documents[0].comments[0].starts_with("Both: Service both selects pods, and registry main has 2"));
    let text = manifest.to_string();
    assert!(!text.contains("status") && !text.contains("creationTimestamp"), "{text}");
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object: Option<RegisteredService> = serde::Deserialize::deserialize(document).unwrap();
        assert!(object.is_none_or(|object| object.spec.registry_ref.name == "main"));
    }
}

#[test]
fn what_is_registered_is_not_generated_again() {
    let services = || ["a", "b", "c"].map(|name| service(name, true, &json!({}))).to_vec();
    let main = json!({"name": "main"});
    let existing = vec![
        registered("a", &json!({"registryRef": main})),
        registered("other", &json!({"registryRef": main, "registryName": "team.b"})),
        registered("third", &json!({"registryRef": main, "registryName": "x.c", "service": {"name": "c"}})),
    ];
    let manifest = chosen(services(), existing, vec![registry("main", &["a", "team.b"])]);
    assert_eq!(summary(&manifest), Vec::<String>::new());
    assert!(manifest.remarks.is_empty(), "{:?}", manifest.remarks);
}

#[test]
fn several_registries_and_several_names() {
    let services = || vec![service("user", true, &json!({})), service("cart", true, &json!({}))];
    let both = || vec![registry("east", &["user"]), registry("west", &["a.user", "b.user"])];
    let manifest = chosen(services(), vec![registered("user-east", &json!({"registryRef": {"name": "x"}}))], both());
    let wanted = ["user east user Both", "user-west west a.user Both", "user-west-2 west b.user Both"];
    assert_eq!(summary(&manifest), wanted);
    let policies: Vec<&Value> = manifest.documents.iter().map(|document| &document.object["spec"]["policy"]).collect();
    assert_eq!(policies, [&Value::Null, &json!("Observe"), &json!("Observe")], "a person has to choose");
    assert!(manifest.documents[1].object["spec"]["service"]["name"] == "user");
    assert!(manifest.remarks.iter().any(|remark| remark.contains("cart") && remark.contains("--registry")));
}

#[test]
fn a_name_that_is_not_allowed_and_a_registry_that_is_silent_are_told() {
    let services = || vec![service("secret", true, &json!({}))];
    let manifest = chosen(services(), vec![], vec![registry("main", &[])]);
    assert!(manifest.documents[0].comments.iter().any(|comment| comment.contains("spec.allowed")));
    assert!(manifest.complete);
    let silent = RegistryFacts { problem: Some("no route".to_owned()), ..registry("main", &[]) };
    let manifest = chosen(services(), vec![], vec![silent]);
    assert!(manifest.documents.is_empty(), "it might have to import as well");
    assert!(!manifest.complete && manifest.remarks[0].contains("no route"), "{manifest:?}");
}
