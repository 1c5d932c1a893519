//! The stored files equal the generated ones, and the chart has this version.

use std::collections::BTreeSet;

use twinspan_chart::helm::{Helm, name, objects};
use twinspan_chart::{Generated, chart, files, manifest, read};

fn stored(file: &Generated) {
    let stored = read(&file.path).unwrap_or_default();
    assert_eq!(stored, file.text, "{}: run `make manifests`", file.path.display());
}

#[test]
fn the_files_of_the_chart() {
    let files = files().unwrap();
    assert_eq!(files.len(), 5);
    files.iter().for_each(stored);
}

#[test]
fn the_plain_manifest() {
    let plain = manifest::plain(&Helm::find().unwrap()).unwrap();
    assert!(!plain.text.contains("helm.sh/"), "a hook or a policy of Helm means nothing to kubectl");
    stored(&plain);
}

#[test]
fn the_manifest_of_discovery() {
    let discovery = manifest::discovery(&Helm::find().unwrap()).unwrap();
    let names: Vec<String> = objects(&discovery.text).unwrap().iter().map(name).collect();
    let added = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    let mut wanted: Vec<String> = added.map(|kind| format!("{kind}/twinspan-registeredservices")).into();
    wanted.push("ClusterRole/twinspan".to_owned());
    assert_eq!(BTreeSet::from_iter(names), BTreeSet::from_iter(wanted));
    stored(&discovery);
}

#[test]
fn the_manifest_of_rollouts() {
    let rollouts = manifest::rollouts(&Helm::find().unwrap()).unwrap();
    let names: BTreeSet<String> = objects(&rollouts.text).unwrap().iter().map(name).collect();
    // None is replaced, so that this file goes with the one of discovery.
    let wanted = [
        "ClusterRole/twinspan-rollouts",
        "ClusterRoleBinding/twinspan-rollouts",
        "ValidatingAdmissionPolicy/twinspan-pods",
        "ValidatingAdmissionPolicyBinding/twinspan-pods",
    ];
    assert_eq!(names, BTreeSet::from(wanted.map(str::to_owned)));
    stored(&rollouts);
}

#[test]
fn the_chart_is_of_this_version() {
    let chart: serde_yaml::Value = serde_yaml::from_str(&read(&chart().join("Chart.yaml")).unwrap()).unwrap();
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key} in Chart.yaml");
    }
}
