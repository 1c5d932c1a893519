//! A release whose programs are nothing but a list of crates. Owns what the compiler would make.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;
use twinspan_image::binary::Source;
use twinspan_image::twinspan::{Built, PROGRAM, labels};
use twinspan_image::{Image, Root, sha256};
use twinspan_release::signature::Key;
use twinspan_release::{Options, assemble};

use crate::CREATED;

const KEY: &str = include_str!("../../src/signature/test.key");
const PASSWORD: &str = "open sesame";
const CRATES: usize = 120;

/// A release in a directory of its own.
pub struct Release {
    directory: TempDir,
}

/// How a release differs from a good one.
#[derive(Clone, Copy, Default)]
pub struct Fault {
    pub no_crates: bool,
    pub unsigned: bool,
    pub bill_of_another: bool,
    /// Of the commit.
    pub revision: u8,
}

impl Release {
    /// For amd64 and arm64, in a registry.
    pub fn new(registry: &str, fault: Fault) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = source(fault.revision);
        let built: Vec<Built> = ["amd64", "arm64"]
            .iter()
            .map(|architecture| built(directory.path(), architecture, fault, &source))
            .collect();
        let release = Self { directory };
        let promise = assemble(&release.options(registry, fault), &source, &built).unwrap();
        promise.write(&release.path()).unwrap();
        release
    }

    pub fn options(&self, registry: &str, fault: Fault) -> Options {
        Options {
            registry: registry.to_owned(),
            architectures: vec!["amd64".to_owned(), "arm64".to_owned()],
            key: (!fault.unsigned).then(|| Key::open(KEY, PASSWORD).unwrap()),
            url: Some("https://example.com/v1".to_owned()),
            directory: self.path(),
            rehearsal: true,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("release")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

pub fn source(revision: u8) -> Source {
    Source { revision: format!("{revision:040}"), created: CREATED }
}

fn built(directory: &Path, architecture: &str, fault: Fault, source: &Source) -> Built {
    let program = directory.join(architecture);
    let content = program_of(architecture, fault);
    std::fs::write(&program, &content).unwrap();
    let sum = if fault.bill_of_another { sha256(b"another") } else { sha256(&content) };
    let mut packages = vec![json!({"name": "twinspan", "checksums": [{"checksumValue": sum}]})];
    packages.extend((0..CRATES).map(|it| json!({"name": format!("crate-{it}")})));
    let mut root = Root::default();
    root.program(PROGRAM, &program).unwrap();
    let image = Image {
        name: "a name".to_owned(),
        architecture: architecture.to_owned(),
        user: "65532:65532".to_owned(),
        entrypoint: vec![format!("/{PROGRAM}")],
        environment: Vec::new(),
        labels: labels(&source.revision),
        created: CREATED,
        root,
    };
    Built { image, sbom: json!({"spdxVersion": "SPDX-2.3", "packages": packages}), program }
}

/// An ELF file with the section `.dep-v0` and no code.
fn program_of(architecture: &str, fault: Fault) -> Vec<u8> {
    let one = |name: &str, root: bool| json!({"name": name, "version": "0.1.0", "source": "local", "root": root});
    let mut all: Vec<Value> = (0..CRATES).map(|it| one(&format!("{architecture}-{it}"), false)).collect();
    all.push(one("twinspan", true));
    let mut section = ZlibEncoder::new(Vec::new(), Compression::default());
    section.write_all(&serde_json::to_vec(&json!({"packages": all})).unwrap()).unwrap();
    let section = section.finish().unwrap();
    let names = if fault.no_crates { b"\0.other!\0.shstrtab\0" } else { b"\0.dep-v0\0.shstrtab\0" };

    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let table = 64 + section.len() + names.len();
    file.extend([2u16, 62].iter().flat_map(|it| it.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([0, 0, table as u64].iter().flat_map(|it| it.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 0, 0, 64, 3, 2].iter().flat_map(|it| it.to_le_bytes()));
    file.extend(&section);
    file.extend(names);
    file.extend([0; 64]);
    for (name, kind, at, size) in [(1u32, 1u32, 64, section.len()), (9, 3, 64 + section.len(), names.len())] {
        file.extend([name, kind].iter().flat_map(|it| it.to_le_bytes()));
        file.extend([0, 0, at as u64, size as u64].iter().flat_map(|it| it.to_le_bytes()));
        file.extend([0u32, 0].iter().flat_map(|it| it.to_le_bytes()));
        file.extend([1u64, 0].iter().flat_map(|it| it.to_le_bytes()));
    }
    file
}
