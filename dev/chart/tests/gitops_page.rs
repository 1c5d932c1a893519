//! The examples of `docs/gitops.md` for Argo CD and Flux: the chart takes their values, and what they name is there.
//!
//! Owns the objects whose kinds no API server of the tests knows; a story applies the others.

use std::collections::BTreeMap;

use serde_yaml::Value;
use twinspan_chart::helm::{Helm, name, objects};
use twinspan_chart::{read, repository};

/// Every object in a block of YAML.
fn examples() -> Vec<Value> {
    let page = read(&repository().join("docs/gitops.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(|block| objects(block).unwrap()).collect()
}

fn all_of<'a>(examples: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    examples.iter().filter(move |object| object["kind"] == kind)
}

/// The values render, with the registry in them and, where they leave the CRDs out, without CRDs.
#[test]
fn the_chart_takes_their_values() {
    let examples = examples();
    let applications = all_of(&examples, "Application").map(|object| &object["spec"]["source"]["helm"]["valuesObject"]);
    let releases = all_of(&examples, "HelmRelease").map(|object| &object["spec"]["values"]);
    let values: Vec<&Value> = applications.chain(releases).filter(|values| !values.is_null()).collect();
    assert_eq!(values.len(), 2, "one for each tool");
    for (number, values) in values.into_iter().enumerate() {
        let path = std::env::temp_dir().join(format!("twinspan-gitops-{}-{number}.yaml", std::process::id()));
        std::fs::write(&path, serde_yaml::to_string(values).unwrap()).unwrap();
        let rendered = Helm::find().unwrap().objects(&["--values", &path.display().to_string()]);
        std::fs::remove_file(&path).unwrap();
        let rendered: Vec<String> = rendered.unwrap().iter().map(name).collect();
        assert!(rendered.contains(&"ServiceRegistry/main".to_owned()), "{rendered:?}");
        let crds = rendered.iter().filter(|name| name.starts_with("CustomResourceDefinition/")).count();
        assert_eq!(crds, if values["crds"]["install"] == false { 0 } else { 2 });
    }
}

/// Each Kustomization waits for one that is there, and they come in the order of the page.
#[test]
fn the_order_is_the_one_that_the_page_promises() {
    let examples = examples();
    let mut order: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for object in all_of(&examples, "Kustomization") {
        let before = object["spec"]["dependsOn"].as_sequence().into_iter().flatten();
        let before = before.map(|other| other["name"].as_str().unwrap()).collect();
        order.insert(object["metadata"]["name"].as_str().unwrap(), before);
        assert_eq!(object["spec"]["wait"], true, "who depends on it relies on that: {object:?}");
    }
    let wanted = [("shop", vec!["twinspan"]), ("twinspan", vec!["twinspan-crds"]), ("twinspan-crds", vec![])];
    assert_eq!(order, BTreeMap::from(wanted));
    assert!(repository().join("crds").is_dir() && repository().join("charts/twinspan").is_dir());
}

/// A health check for each kind; a person who copies one must not forget the other.
#[test]
fn both_kinds_have_a_health_check() {
    let examples = examples();
    let data = &all_of(&examples, "ConfigMap").next().unwrap()["data"];
    let checks: Vec<&str> = ["RegisteredService", "ServiceRegistry"]
        .map(|kind| data[format!("resource.customizations.health.twinspan.dev_{kind}")].as_str().unwrap())
        .into();
    assert_eq!(checks[0], checks[1]);
    for word in ["observedGeneration", "Stalled", "Degraded", "Healthy", "Progressing"] {
        assert!(checks[0].contains(word), "{word}");
    }
}
