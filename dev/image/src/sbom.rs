//! The software bill of materials: the program, its linked parts, and the list of authorities beside it in the image,
//! as SPDX 2.3 JSON. Owns the conversion of the output of cargo and dpkg to SPDX; refuses to know the image.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::binary::{self, Source, output};
use crate::{repository, sha256};

/// The crate with the authorities that are a file of the image.
const AUTHORITIES: &str = "webpki-root-certs";

/// One part of the program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    /// `cargo`, `deb`, or `generic` for other sources.
    kind: &'static str,
    /// The parts of a purl before the name, with a slash, and after the version.
    purl: (String, String),
    sha256: Option<String>,
}

/// The document for the program at a path, as `binary::build` has built it.
pub fn document(target: &str, source: &Source, program: &Path) -> Result<Value> {
    let tree = |package: &str, args: &[&str]| {
        let package = format!("--package={package}");
        let all = ["tree", "--locked", &package, "--prefix=none", "--format={p}\t{l}", "--target", target];
        output("cargo", &[&all[..], args].concat())
    };
    let lock = std::fs::read_to_string(repository().join("Cargo.lock"))?;
    let checksums = checksums(&lock);
    // The linker's input for this target: without macros, build scripts and test dependencies.
    let mut packages = crates(&tree("twinspan", &["--edges=normal,no-proc-macro"])?, &checksums)?;
    packages.extend(runtime(target)?);
    packages.sort();
    packages.dedup();
    let own = packages.iter().position(|p| p.name == "twinspan").context("cargo tree does not name twinspan")?;
    let mut own = packages.remove(own);
    own.sha256 = Some(sha256(&std::fs::read(program).with_context(|| program.display().to_string())?));
    let beside = crates(&tree("twinspan-image", &["--edges=normal", "--depth=1"])?, &checksums)?;
    let data =
        beside.into_iter().find(|p| p.name == AUTHORITIES).context("cargo tree does not name the authorities")?;
    spdx(&own, &packages, &data, binary::architecture(target)?, source)
}

/// `data` is in the image and not linked.
fn spdx(own: &Package, parts: &[Package], data: &Package, architecture: &str, source: &Source) -> Result<Value> {
    let created = jiff::Timestamp::from_second(i64::try_from(source.created)?)?.to_string();
    let name = format!("twinspan-{}-linux-{architecture}", own.version);
    let relation = |of: &Package, kind: &str, to: &Package| json!({"spdxElementId": of.id(), "relationshipType": kind, "relatedSpdxElement": to.id()});
    let linked = parts.iter().map(|part| relation(own, "DEPENDS_ON", part));
    let relationships: Vec<Value> = linked.chain([relation(data, "DATA_FILE_OF", own)]).collect();
    // The checksum of our own package is that of its one file.
    let mut program = own.spdx();
    program["packageFileName"] = "twinspan".into();
    let packages = std::iter::once(program).chain(parts.iter().chain([data]).map(Package::spdx));
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://twinspan.dev/spdx/{name}-{}", source.revision),
        "creationInfo": {"created": created, "creators": [format!("Tool: twinspan-image-{}", env!("CARGO_PKG_VERSION"))]},
        "documentDescribes": [own.id()],
        "packages": packages.collect::<Vec<_>>(),
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
        Ok(Package { name, version, licence, kind: "cargo", purl: Default::default(), sha256 })
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

/// The additions of the compiler and the linker. Where dpkg knows the files of the C compiler, scanners get its name
/// and version of them, for distributions mend faults without a new version of glibc.
fn runtime(target: &str) -> Result<Vec<Package>> {
    let compiler = binary::compiler(target)?;
    let part = |name: &str, version: String, licence: &str| Package {
        name: name.to_owned(),
        version,
        licence: licence.to_owned(),
        kind: "generic",
        purl: Default::default(),
        sha256: None,
    };
    let rust = output("rustc", &["--version"])?;
    let second = |text: &str| text.split(' ').nth(1).unwrap_or(text).to_owned();
    let glibc = part("glibc", binary::glibc(target)?, "LGPL-2.1-or-later");
    let libgcc = part("libgcc", output(&compiler, &["-dumpfullversion"])?, "GPL-3.0-or-later WITH GCC-exception-3.1");
    Ok(vec![
        packaged(&compiler, "libc.a", glibc),
        packaged(&compiler, "libgcc.a", libgcc),
        part("rust-std", second(&rust), "MIT OR Apache-2.0"),
    ])
}

/// A part as the package of this distribution that has its archive; unchanged where no dpkg knows the file.
fn packaged(compiler: &str, file: &str, part: Package) -> Package {
    let ask = || -> Option<Package> {
        let path = output(compiler, &[&format!("-print-file-name={file}")]).ok()?;
        let path = Path::new(&path).canonicalize().ok()?;
        let owner = output("dpkg-query", &["--search", path.to_str()?]).ok()?;
        let format = "--showformat=${Package}\t${Version}\t${Architecture}\t${source:Package}";
        let known = output("dpkg-query", &["--show", format, owner.rsplit_once(": ")?.0]).ok()?;
        let release = std::fs::read_to_string("/etc/os-release").ok()?;
        deb(&known, &release, &part.licence)
    };
    ask().unwrap_or(part)
}

/// From a line of dpkg-query: package, version, architecture and source package, with tabs between them.
fn deb(known: &str, release: &str, licence: &str) -> Option<Package> {
    let [name, version, architecture, source] = known.split('\t').collect::<Vec<_>>()[..] else { return None };
    let value = |key: &str| release.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_matches('"')));
    let id = value("ID=")?;
    let distro = value("VERSION_ID=").map(|version| format!("&distro={id}-{version}")).unwrap_or_default();
    Some(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.to_owned(),
        kind: "deb",
        purl: (format!("{id}/"), format!("?arch={architecture}{distro}&upstream={source}")),
        sha256: None,
    })
}

impl Package {
    fn id(&self) -> String {
        let name = format!("SPDXRef-{}-{}-{}", self.kind, self.name, self.version);
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
    }

    fn locator(&self) -> String {
        let (before, after) = &self.purl;
        let version = self.version.replace('+', "%2B").replace(':', "%3A");
        format!("pkg:{}/{before}{}@{version}{after}", self.kind, self.name)
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
                "referenceLocator": self.locator(),
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
    fn a_part_of_a_distribution_has_its_version() {
        let release = "PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n";
        let part = deb("libc6-dev\t2.36-9+deb12u14\tamd64\tglibc", release, "LGPL-2.1-or-later").unwrap();
        let locator = "pkg:deb/debian/libc6-dev@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12&upstream=glibc";
        assert_eq!(part.locator(), locator);
        assert!(deb("libc6-dev", release, "").is_none());
    }

    #[test]
    fn the_document_covers_the_program_and_the_authorities() {
        let program = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(program.path(), "a program").unwrap();
        let source = Source { revision: "r".to_owned(), created: 0 };
        let bill = document(&binary::target().unwrap(), &source, program.path()).unwrap();
        let packages = bill["packages"].as_array().unwrap();
        let named = |name: &str| packages.iter().find(|it| it["name"] == name).unwrap();
        assert_eq!(named("twinspan")["checksums"][0]["checksumValue"], sha256(b"a program"));
        let authorities = named(AUTHORITIES);
        assert_eq!(authorities["licenseDeclared"], "CDLA-Permissive-2.0");
        let related = bill["relationships"].as_array().unwrap().iter();
        let found: Vec<&Value> = related.filter(|it| it["spdxElementId"] == authorities["SPDXID"]).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["relationshipType"], "DATA_FILE_OF");
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error() {
        assert!(crates("nonsense", &BTreeMap::new()).is_err());
    }
}
