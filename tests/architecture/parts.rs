//! The Go modules of the parts that the demo, the tests and the stories build.
//!
//! Owns one rule: a module that two of these parts use has one version, so that Go compiles each of its packages once.
//! Without it CoreDNS, for one, compiles its own Kubernetes client for two minutes. Refuses parts of other releases,
//! whose purpose is another version.

use std::collections::BTreeMap;
use std::path::Path;

const PARTS: [&str; 7] = ["controlplane", "coredns", "helm", "interop", "kubelet", "oracle", "prometheus"];

/// The frameworks' programs have the client of etcd that the frameworks' own modules ask for.
fn may_differ(module: &str) -> bool {
    module.starts_with("go.etcd.io/etcd/")
}

/// Versions by module, after its replacements.
fn versions(part: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/parts").join(part).join("go.mod");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (mut required, mut replaced) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines().map(|line| line.trim_start_matches("require ")) {
        match &words(line)[..] {
            [module, arrow, _, version] if arrow == "=>" => replaced.insert(module.clone(), version.clone()),
            [module, version, ..] if version.starts_with('v') => required.insert(module.clone(), version.clone()),
            _ => None,
        };
    }
    for (module, version) in &mut required {
        if let Some(other) = replaced.get(module) {
            version.clone_from(other);
        }
    }
    required
}

#[test]
fn parts_share_the_versions_of_their_modules() {
    let mut seen: BTreeMap<String, (&str, String)> = BTreeMap::new();
    let mut shared = 0;
    let mut wrong = Vec::new();
    for part in PARTS {
        for (module, version) in versions(part) {
            match seen.get(&module) {
                Some((_, other)) if *other == version => shared += 1,
                Some((first, other)) if !may_differ(&module) => {
                    wrong.push(format!("{module} is {other} in {first} and {version} in {part}"));
                }
                Some(_) => {}
                None => {
                    seen.insert(module, (part, version));
                }
            }
        }
    }
    assert!(shared > 100, "{shared} modules are in two parts: the files were not understood");
    assert!(wrong.is_empty(), "go get the newer version in the other part:\n{}", wrong.join("\n"));
}
