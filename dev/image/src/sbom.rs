//! The software bill of materials: the linked parts of the program, as SPDX 2.3 JSON. It owns the conversion of cargo's
//! output to SPDX; it does not know the image.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::binary::{self, Source, output};
use crate::repository;

/// One part of the program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    /// `cargo`, or `generic` for other sources.
    kind: &'static str,
    sha256: Option<String>,
}

/// The document for the program as `binary::build` builds it.
pub fn document(target: &str, source: &Source) -> Result<Value> {
    // The linker's input for this target: without macros, build scripts and test dependencies.
    let tree = output(
        "cargo",
        &[
            "tree",
            "--locked",
            "--package=twinspan",
            "--edges=normal,no-proc-macro",
            "--prefix=none",
            "--format={p}\t{l}",
            "--target",
            target,
        ],
    )?;
    let lock = std::fs::read_to_string(repository().join("Cargo.lock"))?;
    let mut packages = crates(&tree, &checksums(&lock))?;
    packages.extend(runtime(target)?);
    packages.sort();
    packages.dedup();
    let own = packages.iter().position(|p| p.name == "twinspan").context("cargo tree does not name twinspan")?;
    let own = packages.remove(own);
    spdx(&own, &packages, binary::architecture(target)?, source)
}

fn spdx(own: &Package, parts: &[Package], architecture: &str, source: &Source) -> Result<Value> {
    let created = jiff::Timestamp::from_second(i64::try_from(source.created)?)?.to_string();
    let name = format!("twinspan-{}-linux-{architecture}", own.version);
    let relationships: Vec<Value> = parts
        .iter()
        .map(|part| json!({"spdxElementId": own.id(), "relationshipType": "DEPENDS_ON", "relatedSpdxElement": part.id()}))
        .collect();
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://twinspan.dev/spdx/{name}-{}", source.revision),
        "creationInfo": {"created": created, "creators": [format!("Tool: twinspan-image-{}", env!("CARGO_PKG_VERSION"))]},
        "documentDescribes": [own.id()],
        "packages": std::iter::once(own).chain(parts).map(Package::spdx).collect::<Vec<_>>(),
        "relationships": relationships,
    }))
}

/// One line for each crate: `name vVERSION (remarks)`, a tab, its licence.
fn crates(tree: &str, checksums: &BTreeMap<(String, String), String>) -> Result<Vec<Package>> {
    let line = |line: &str| -> Result<Package> {
        let (package, licence) = line.split_once('\t').context("no licence")?;
        let mut words = package.split(' ');
        let name = words.next().context("no name")?.to_owned();
        let version = words.next().and_then(|word| word.strip_prefix('v')).context("no version")?.to_owned();
        let sha256 = checksums.get(&(name.clone(), version.clone())).cloned();
        // The old form of a licence, which SPDX does not have. If a crate appears twice, cargo marks the second.
        let licence = licence.trim_end_matches(" (*)").replace('/', " OR ");
        Ok(Package { name, version, licence, kind: "cargo", sha256 })
    };
    tree.lines().map(|text| line(text).with_context(|| format!("cargo tree printed: {text}"))).collect()
}

/// The checksums in Cargo.lock by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            package
                .lines()
                .find_map(|l| Some(l.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned()))
        };
        if let (Some(name), Some(version), Some(checksum)) = (value("name"), value("version"), value("checksum")) {
            found.insert((name, version), checksum);
        }
    }
    found
}

/// The additions of the compiler and the linker.
fn runtime(target: &str) -> Result<Vec<Package>> {
    let part = |name: &str, version: String, licence: &str| Package {
        name: name.to_owned(),
        version,
        licence: licence.to_owned(),
        kind: "generic",
        sha256: None,
    };
    let rust = output("rustc", &["--version"])?;
    let second = |text: &str| text.split(' ').nth(1).unwrap_or(text).to_owned();
    Ok(vec![
        part("glibc", binary::glibc(target)?, "LGPL-2.1-or-later"),
        part(
            "libgcc",
            output(&binary::compiler(target)?, &["-dumpfullversion"])?,
            "GPL-3.0-or-later WITH GCC-exception-3.1",
        ),
        part("rust-std", second(&rust), "MIT OR Apache-2.0"),
    ])
}

impl Package {
    fn id(&self) -> String {
        let name = format!("SPDXRef-{}-{}-{}", self.kind, self.name, self.version);
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
    }

    fn spdx(&self) -> Value {
        let mut package = json!({
            "SPDXID": self.id(),
            "name": self.name,
            "versionInfo": self.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": if self.licence.is_empty() { "NOASSERTION" } else { &self.licence },
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!("pkg:{}/{}@{}", self.kind, self.name, self.version.replace('+', "%2B")),
            }],
        });
        if let Some(sha256) = &self.sha256 {
            package["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": sha256}]);
        }
        package
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_with_checksums_become_packages() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0+b\"\nsource = \"x\"\nchecksum = \"00ff\"\n\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        let tree = "own v0.1.0 (/somewhere)\tApache-2.0\na v1.0.0+b\tMIT/Apache-2.0\na v1.0.0+b\tMIT/Apache-2.0 (*)";
        let mut packages = crates(tree, &checksums(lock)).unwrap();
        packages.sort();
        packages.dedup();
        assert_eq!(packages.len(), 2);
        let spdx = packages[0].spdx();
        assert_eq!(spdx["SPDXID"], "SPDXRef-cargo-a-1.0.0-b");
        assert_eq!(spdx["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(spdx["checksums"][0]["checksumValue"], "00ff");
        assert_eq!(spdx["externalRefs"][0]["referenceLocator"], "pkg:cargo/a@1.0.0%2Bb");
        assert!(packages[1].spdx().get("checksums").is_none(), "our own crates have none");
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error() {
        assert!(crates("nonsense", &BTreeMap::new()).is_err());
    }
}
