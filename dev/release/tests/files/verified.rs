//! The verification of a directory: each fault that a release can have is found before anything is pushed.

use std::path::Path;

use serde_json::Value;
use twinspan_image::sha256;
use twinspan_release::layout::Layout;
use twinspan_release::{VERSION, assemble, layout_of, verify};

use crate::made::{Fault, Release, source};

const REGISTRY: &str = "registry.example.com/team";

fn complaint(release: &Release) -> String {
    format!("{:#}", verify(&release.path()).expect_err("the fault was not found"))
}

fn change(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.display());
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Changes `index.json` of the layout.
fn reorder(release: &Release, change: impl FnOnce(&mut Vec<Value>)) {
    let path = layout_of(&release.path()).join("index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(index["manifests"].as_array_mut().unwrap());
    std::fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
}

#[test]
fn a_whole_release_is_accepted_signed_or_not() {
    verify(&Release::new(REGISTRY, Fault::default()).path()).unwrap();
    verify(&Release::new(REGISTRY, Fault { unsigned: true, ..Fault::default() }).path()).unwrap();
}

#[test]
fn a_tag_comes_after_its_signature() {
    let release = Release::new(REGISTRY, Fault::default());
    let promise = verify(&release.path()).unwrap();
    let entries = Layout::open(&layout_of(&release.path())).unwrap().entries().unwrap();
    let at = |name: &str| entries.iter().position(|entry| entry.name == name).unwrap();
    for (repository, digest, tagged) in [
        (&promise.image.repository, &promise.image.digest, promise.image.tagged()),
        (&promise.chart.repository, &promise.chart.digest, promise.chart.tagged()),
    ] {
        let signature = format!("{repository}:{}.sig", digest.replace(':', "-"));
        assert!(at(&signature) < at(&tagged), "{tagged} has no signature for a moment");
        assert!(at(&tagged) + 2 >= entries.len(), "{tagged} is not at the end");
    }

    reorder(&release, |manifests| manifests.rotate_right(1));
    assert!(complaint(&release).contains("not with the tags"));
}

#[test]
fn changed_files_are_found() {
    let release = Release::new(REGISTRY, Fault::default());
    let archive = release.file(&format!("twinspan-{VERSION}-linux-arm64.tar.gz"));
    let whole = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, b"short").unwrap();
    assert!(complaint(&release).contains("another checksum"));
    std::fs::write(&archive, whole).unwrap();

    std::fs::write(release.file("notes.txt"), "").unwrap();
    assert!(complaint(&release).contains("notes.txt"));
    std::fs::remove_file(release.file("notes.txt")).unwrap();

    std::fs::remove_file(release.file("krew.yaml")).unwrap();
    assert!(complaint(&release).contains("krew.yaml"));
}

#[test]
fn changed_checksums_do_not_agree_with_their_signature() {
    let release = Release::new(REGISTRY, Fault::default());
    let krew = release.file("krew.yaml");
    let before = sha256(&std::fs::read(&krew).unwrap());
    change(&krew, "example.com", "example.org");
    change(&release.file("SHA256SUMS"), &before, &sha256(&std::fs::read(&krew).unwrap()));
    let complaint = complaint(&release);
    assert!(complaint.contains("SHA256SUMS.sig") && complaint.contains("not of this key"), "{complaint}");
}

#[test]
fn a_signature_of_another_manifest_is_found() {
    let release = Release::new(REGISTRY, Fault::default());
    reorder(&release, |manifests| {
        let signatures: Vec<usize> = (0..manifests.len())
            .filter(|at| {
                manifests[*at]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().ends_with(".sig")
            })
            .collect();
        let [image, chart] = signatures[..] else { panic!("{signatures:?}") };
        for key in ["digest", "size"] {
            manifests[image][key] = manifests[chart][key].clone();
        }
    });
    assert!(complaint(&release).contains("is signed, not"));
}

#[test]
fn a_signature_that_is_missing_is_found() {
    let release = Release::new(REGISTRY, Fault::default());
    reorder(&release, |manifests| {
        manifests.remove(manifests.len() - 3);
    });
    assert!(complaint(&release).contains("the layout has"));
    let release = Release::new(REGISTRY, Fault { unsigned: true, ..Fault::default() });
    change(&release.file("release.json"), "\"signed\": false", "\"signed\": true");
    assert!(complaint(&release).contains(".sig"));
}

#[test]
fn a_program_without_its_crates_is_found() {
    let release = Release::new(REGISTRY, Fault { no_crates: true, ..Fault::default() });
    assert!(complaint(&release).contains("no list of its crates"));
}

#[test]
fn a_bill_of_another_program_is_found() {
    let release = Release::new(REGISTRY, Fault { bill_of_another: true, ..Fault::default() });
    assert!(complaint(&release).contains("another program"));
}

#[test]
fn an_index_that_lacks_a_platform_is_found() {
    let release = Release::new(REGISTRY, Fault::default());
    change(&release.file("release.json"), "\"arm64\": {", "\"riscv64\": {");
    assert!(complaint(&release).contains("the index has"));
}

#[test]
fn only_a_release_is_removed_for_the_next_one() {
    let release = Release::new(REGISTRY, Fault::default());
    let mut options = release.options(REGISTRY, Fault::default());
    let error = assemble(&options, &source(0), &[]).unwrap_err();
    assert!(error.to_string().contains("was asked for"), "{error}");
    options.architectures.clear();
    std::fs::write(release.file("release.json"), "").unwrap();
    let unfinished = complaint(&release);
    assert!(unfinished.contains("a build did not end"), "{unfinished}");
    assemble(&options, &source(0), &[]).unwrap();
    assert!(complaint(&release).contains("a build did not end"), "the promise is written too early");

    std::fs::remove_file(release.file("release.json")).unwrap();
    let error = assemble(&options, &source(0), &[]).unwrap_err();
    assert!(error.to_string().contains("remove it yourself"), "{error}");
    assert!(release.file("SHA256SUMS").exists(), "what is no release was removed");
}
