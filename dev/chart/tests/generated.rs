//! The stored files equal the generated ones, and what the chart says of itself is true.

use std::collections::BTreeSet;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use twinspan_chart::helm::{Helm, name, objects};
use twinspan_chart::{Generated, chart, files, manifest, read, repository};

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

/// The chart has a version of its own, so that a change of the chart needs no other program.
#[test]
fn the_chart_installs_this_version() {
    let chart: serde_yaml::Value = serde_yaml::from_str(&read(&chart().join("Chart.yaml")).unwrap()).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let version = chart["version"].as_str().unwrap();
    let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers.len(), 3, "{version}");
}

/// Helm and Artifact Hub take a picture by its address; ours is in it, for there is none where it could be fetched.
#[test]
fn the_icon_is_the_file() {
    let chart: serde_yaml::Value = serde_yaml::from_str(&read(&chart().join("Chart.yaml")).unwrap()).unwrap();
    let icon = chart["icon"].as_str().unwrap().strip_prefix("data:image/svg+xml;base64,").unwrap();
    let file = read(&repository().join("docs/icon.svg")).unwrap();
    assert_eq!(icon, BASE64_STANDARD.encode(file.trim()));
}

/// The kinds and examples in the annotations are those of the CRDs.
#[test]
fn artifact_hub_is_told_of_every_kind() {
    let chart: serde_yaml::Value = serde_yaml::from_str(&read(&chart().join("Chart.yaml")).unwrap()).unwrap();
    let annotation = |name: &str| -> serde_yaml::Value {
        serde_yaml::from_str(chart["annotations"][format!("artifacthub.io/{name}").as_str()].as_str().unwrap()).unwrap()
    };
    let mut known = BTreeSet::new();
    for file in ["registeredservices", "serviceregistries"] {
        let text = read(&repository().join(format!("crds/{file}.yaml"))).unwrap();
        let crd: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        known.insert(crd["spec"]["names"]["kind"].as_str().unwrap().to_owned());
    }
    for of in ["crds", "crdsExamples"] {
        let kinds =
            annotation(of).as_sequence().unwrap().iter().map(|it| it["kind"].as_str().unwrap().to_owned()).collect();
        assert_eq!(known, kinds, "{of}");
    }
}
