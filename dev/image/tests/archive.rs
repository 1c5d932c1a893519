//! The archive: the same bytes from the same input, in a form that tools can load.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::tempdir;
use twinspan_image::{Image, Root};

const CREATED: u64 = 1_700_000_000;

fn image(directory: &Path) -> Image {
    let program = directory.join("program");
    std::fs::write(&program, "not really a program").unwrap();
    let mut root = Root::default();
    root.file("etc/passwd", "x").program("usr/bin/program", &program).unwrap().file("etc/a/b", "y");
    Image {
        name: "localhost/test:1".to_owned(),
        architecture: "amd64".to_owned(),
        user: "65532:65532".to_owned(),
        entrypoint: vec!["/usr/bin/program".to_owned()],
        environment: vec!["PATH=/usr/bin".to_owned()],
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        created: CREATED,
        root,
    }
}

fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (CREATED, 0, 0));
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(path, content);
    }
    files
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a descriptor's blob, after checks of its digest and size.
fn follow<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let content = &files[&format!("blobs/sha256/{digest}")];
    assert_eq!(hex(content), digest);
    assert_eq!(descriptor["size"], content.len());
    content
}

#[test]
fn the_same_input_gives_the_same_bytes_wherever_it_is() {
    let (here, there) = (tempdir().unwrap(), tempdir().unwrap());
    let first = image(here.path()).write(&here.path().join("a.tar")).unwrap();
    let second = image(there.path()).write(&there.path().join("b.tar")).unwrap();
    assert_eq!(first, second);
    assert_eq!(std::fs::read(here.path().join("a.tar")).unwrap(), std::fs::read(there.path().join("b.tar")).unwrap());

    let mut other = image(here.path());
    other.root.file("etc/passwd", "z");
    assert_ne!(
        other.write(&here.path().join("c.tar")).unwrap().manifest,
        first.manifest,
        "other files, another digest"
    );
}

#[test]
fn every_digest_leads_to_what_it_names() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("image.tar");
    let written = image(directory.path()).write(&path).unwrap();
    let archive = files(&std::fs::read(&path).unwrap());
    let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };

    // OCI.
    assert_eq!(json(&archive["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let index = json(&archive["index.json"]);
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["digest"], written.manifest);
    assert_eq!(descriptor["annotations"]["io.containerd.image.name"], "localhost/test:1");
    assert_eq!(descriptor["annotations"]["org.opencontainers.image.ref.name"], "1");
    let manifest = json(follow(&archive, descriptor));
    assert_eq!(manifest["config"]["digest"], written.config);
    let config = json(follow(&archive, &manifest["config"]));
    assert_eq!(config["config"]["User"], "65532:65532");
    let mut layer = Vec::new();
    GzDecoder::new(follow(&archive, &manifest["layers"][0])).read_to_end(&mut layer).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex(&layer)));
    let paths: Vec<String> = files(&layer).into_keys().collect();
    assert_eq!(paths, ["etc/", "etc/a/", "etc/a/b", "etc/passwd", "usr/", "usr/bin/", "usr/bin/program"]);

    // `docker save`.
    let docker = &json(&archive["manifest.json"])[0];
    assert_eq!(docker["RepoTags"][0], "localhost/test:1");
    assert_eq!(json(&archive[docker["Config"].as_str().unwrap()]), config);
    assert!(archive.contains_key(docker["Layers"][0].as_str().unwrap()));
}
