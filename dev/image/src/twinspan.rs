//! The content of Twinspan's image, and how it is run. The Dockerfile repeats it for Docker; a test compares the two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use pem::{EncodeConfig, LineEnding, Pem};
use serde_json::Value;

use crate::binary::Source;
use crate::{Image, Root, binary, sbom};

/// The path of the program in the image.
pub const PROGRAM: &str = "usr/local/bin/twinspan";
/// `nonroot`, as in the distroless images.
const USER: u32 = 65532;
/// On the path, so that `kubectl exec … -- twinspan status` works.
const ENVIRONMENT: &str = "PATH=/usr/local/bin";

/// The default name of the loaded archive. No registry answers to `localhost`, so it cannot be mistaken for a published
/// image.
pub fn default_name() -> String {
    format!("localhost/twinspan:{}", env!("CARGO_PKG_VERSION"))
}

/// The result of one build.
#[derive(Debug)]
pub struct Built {
    pub image: Image,
    /// The bill of materials, which is in the image as well.
    pub sbom: Value,
    /// The program alone, a file of this machine.
    pub program: PathBuf,
}

/// Builds the program for a Rust target, and the image around it.
pub fn build(name: &str, target: &str, source: &Source) -> Result<Built> {
    let program = binary::build(target, source)?;
    let sbom = sbom::document(target, source, &program)?;
    let image = Image {
        name: name.to_owned(),
        architecture: binary::architecture(target)?.to_owned(),
        user: user(),
        entrypoint: vec![format!("/{PROGRAM}")],
        environment: vec![ENVIRONMENT.to_owned()],
        labels: labels(&source.revision),
        created: source.created,
        root: root(&program, &sbom)?,
    };
    Ok(Built { image, sbom, program })
}

fn user() -> String {
    format!("{USER}:{USER}")
}

/// The files of the image.
fn root(program: &Path, sbom: &Value) -> Result<Root> {
    let mut root = Root::default();
    root.program(PROGRAM, program)?
        .file("etc/passwd", format!("nonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n"))
        .file("etc/group", format!("nonroot:x:{USER}:\n"))
        // Without it the C library asks DNS before it reads the /etc/hosts that the kubelet writes.
        .file("etc/nsswitch.conf", "hosts: files dns\n")
        .file("etc/ssl/certs/ca-certificates.crt", authorities())
        .file("usr/share/sbom/twinspan.spdx.json", serde_json::to_vec_pretty(sbom)?);
    Ok(root)
}

/// Mozilla's certificate authorities, from a crate: the list of this machine may have additions.
fn authorities() -> String {
    let format = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let all = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    all.map(|certificate| pem::encode_config(&Pem::new("CERTIFICATE", certificate.as_ref()), format)).collect()
}

/// `org.opencontainers.image.*` of the image.
pub fn labels(revision: &str) -> BTreeMap<String, String> {
    let labels = [
        ("title", "Twinspan"),
        ("description", "Keeps Kubernetes Services and an etcd service registry in sync, both ways"),
        ("licenses", "Apache-2.0"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", revision),
    ];
    labels.into_iter().map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last stage of the Dockerfile, one instruction a line, with the values that its build arguments get here.
    fn dockerfile() -> Vec<(String, String)> {
        let text = include_str!("../../../Dockerfile").replace("\\\n", " ");
        let instructions = text.lines().filter_map(|line| line.split_once(' ')).filter(|(word, _)| *word != "#");
        let all: Vec<(String, String)> =
            instructions.map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).collect();
        let last = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
        all[last..].to_vec()
    }

    fn only(instructions: &[(String, String)], word: &str) -> String {
        let found: Vec<&String> = instructions.iter().filter(|(w, _)| w == word).map(|(_, rest)| rest).collect();
        assert_eq!(found.len(), 1, "one {word}: {found:?}");
        found[0].clone()
    }

    #[test]
    fn the_dockerfile_says_the_same() {
        let dockerfile = dockerfile();
        assert_eq!(only(&dockerfile, "FROM"), "scratch", "what is in the image is what `image root` wrote");
        assert!(only(&dockerfile, "COPY").starts_with("--from=build "));
        assert_eq!(only(&dockerfile, "USER"), user());
        assert_eq!(only(&dockerfile, "ENV"), ENVIRONMENT);
        let entrypoint: Vec<String> = serde_json::from_str(&only(&dockerfile, "ENTRYPOINT")).unwrap();
        assert_eq!(entrypoint, [format!("/{PROGRAM}")]);

        let label = only(&dockerfile, "LABEL");
        for (key, value) in labels("${TWINSPAN_REVISION}") {
            assert!(label.contains(&format!("{key}=\"{value}\"")), "{key}={value} in {label}");
        }
        assert_eq!(label.matches("org.opencontainers.").count(), labels("").len(), "no other labels");
    }

    #[test]
    fn authorities_are_pem() {
        let all = pem::parse_many(authorities()).unwrap();
        assert!(all.len() > 50 && all.iter().all(|one| one.tag() == "CERTIFICATE"), "{}", all.len());
    }
}
