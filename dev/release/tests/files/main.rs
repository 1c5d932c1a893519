//! A release that needs no build: its files, their verification, and its way into a registry that a test plays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod asked;
mod made;
mod pushed;
mod registry;
mod verified;

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciImageManifest};
use serde::Deserialize;
use serde_json::Value;
use tempfile::tempdir;
use twinspan_release::archive::{self, Download};
use twinspan_release::layout::Layout;
use twinspan_release::{VERSION, chart, manifests};

const CREATED: u64 = 1_700_000_000;

fn files(archive: &[u8]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), CREATED);
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        files.insert(path, content);
    }
    files
}

#[test]
fn the_chart_names_the_image_of_the_release() {
    let package = chart::package("registry.example.com/team/twinspan", CREATED).unwrap();
    assert_eq!(package.metadata["appVersion"], VERSION);
    assert_eq!(package.file(), format!("twinspan-{}.tgz", package.version));
    let files = files(&package.content);
    let values: Value = serde_yaml::from_str(&files["twinspan/values.yaml"]).unwrap();
    assert_eq!(values["image"]["repository"], "registry.example.com/team/twinspan");
    assert_eq!((&values["image"]["tag"], &values["image"]["digest"]), (&"".into(), &"".into()));
    let schema: Value = serde_json::from_str(&files["twinspan/values.schema.json"]).unwrap();
    let name = &schema["properties"]["image"]["properties"]["repository"];
    assert_eq!(name["default"], "registry.example.com/team/twinspan");
    assert!(files["twinspan/README.md"].contains("\"registry.example.com/team/twinspan\""));
    assert!(files["twinspan/LICENSE"].contains("Apache License"));
    for path in ["twinspan/templates/deployment.yaml", "twinspan/files/crds/serviceregistries.yaml"] {
        assert!(files.contains_key(path), "{path} is missing");
    }
    let again = chart::package("registry.example.com/team/twinspan", CREATED).unwrap();
    assert_eq!(again.content, package.content);
}

#[test]
fn the_plain_manifests_name_the_image_of_the_release() {
    let text = manifests::of("registry.example.com/team/twinspan").unwrap();
    let image = format!("image: registry.example.com/team/twinspan:{VERSION}\n");
    assert_eq!(text.matches(&image).count(), 1);
    assert!(!text.contains("localhost/"), "a comment or a field is of a checkout");
    let mut kinds = BTreeMap::<String, usize>::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let document = Value::deserialize(document).unwrap();
        *kinds.entry(document["kind"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!((kinds["CustomResourceDefinition"], kinds["Deployment"]), (2, 1), "{kinds:?}");
}

#[test]
fn krew_finds_the_archive_of_each_platform() {
    let directory = tempdir().unwrap();
    let program = directory.path().join("program");
    std::fs::write(&program, "a program").unwrap();
    let packed = archive::pack(&program, CREATED).unwrap();
    assert_eq!(archive::program(&packed).unwrap(), b"a program");
    let files = files(&packed);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["LICENSE", "twinspan"]);

    let downloads = ["amd64", "arm64"].map(|architecture| Download {
        architecture: architecture.to_owned(),
        file: archive::name(architecture),
        sha256: format!("00{architecture}"),
    });
    let manifest: Value = serde_yaml::from_str(&archive::krew("https://example.com/v1", &downloads).unwrap()).unwrap();
    assert_eq!(manifest["spec"]["version"], format!("v{VERSION}"));
    for (platform, architecture) in manifest["spec"]["platforms"].as_array().unwrap().iter().zip(["amd64", "arm64"]) {
        assert_eq!(platform["selector"]["matchLabels"]["arch"], architecture);
        assert_eq!(platform["sha256"], format!("00{architecture}"));
        let file = format!("https://example.com/v1/twinspan-{VERSION}-linux-{architecture}.tar.gz");
        assert_eq!(platform["uri"], file);
        assert!(files.contains_key(platform["bin"].as_str().unwrap()));
    }
}

#[test]
fn a_layout_keeps_its_order_and_notices_a_changed_blob() {
    let directory = tempdir().unwrap();
    let root = directory.path().join("oci");
    let mut layout = Layout::create(&root).unwrap();
    let config = layout.blob("application/json", b"{}").unwrap();
    let manifest = OciImageManifest { config: config.clone(), ..Default::default() };
    layout.artifact("example.com/b", None, manifest.clone()).unwrap();
    let kept = layout.artifact("example.com/a", Some("1"), manifest).unwrap();
    let layout = Layout::open(&root).unwrap();
    let names: Vec<String> = layout.entries().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [format!("example.com/b@{}", kept.digest), "example.com/a:1".to_owned()]);
    let read: Value = serde_json::from_slice(&layout.read(&kept.digest).unwrap()).unwrap();
    assert_eq!(read["mediaType"], OCI_IMAGE_MEDIA_TYPE);

    let blob = root.join("blobs").join(config.digest.replace(':', "/"));
    std::fs::write(blob, "[]").unwrap();
    assert!(layout.read(&config.digest).is_err());
}
