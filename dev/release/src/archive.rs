//! The program for a person's own machine: an archive for each platform, and the manifest by which krew installs
//! `kubectl twinspan` from it. Owns both formats; refuses to know how a program is built.

use std::io::Read;
use std::path::Path;

use anyhow::{Result, bail};
use flate2::read::GzDecoder;
use serde_json::json;
use twinspan_image::{Root, gzip, repository};

use crate::VERSION;

/// In an archive.
const PROGRAM: &str = "twinspan";

/// One archive, as krew names it.
#[derive(Debug)]
pub struct Download {
    pub architecture: String,
    pub file: String,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// The name of the archive for an architecture.
pub fn name(architecture: &str) -> String {
    format!("twinspan-{VERSION}-linux-{architecture}.tar.gz")
}

/// An archive of the program and its licence; `created` is in seconds since 1970.
pub fn pack(program: &Path, created: u64) -> Result<Vec<u8>> {
    let mut root = Root::default();
    root.program(PROGRAM, program)?.file("LICENSE", std::fs::read(repository().join("LICENSE"))?);
    gzip(&root.tar(created)?)
}

/// The program of an archive.
pub fn program(archive: &[u8]) -> Result<Vec<u8>> {
    file(archive, PROGRAM)
}

/// One file of a tar archive that is compressed with gzip.
pub(crate) fn file(archive: &[u8], name: &str) -> Result<Vec<u8>> {
    let mut entries = tar::Archive::new(GzDecoder::new(archive));
    for entry in entries.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_os_str() == name {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(content);
        }
    }
    bail!("it holds no {name}")
}

/// The manifest of krew; `url` is the place of the archives, without the last slash.
pub fn krew(url: &str, downloads: &[Download]) -> Result<String> {
    let platform = |it: &Download| {
        json!({
            "selector": {"matchLabels": {"os": "linux", "arch": it.architecture}},
            "uri": format!("{url}/{}", it.file),
            "sha256": it.sha256,
            "files": [{"from": PROGRAM, "to": "."}, {"from": "LICENSE", "to": "."}],
            "bin": PROGRAM,
        })
    };
    let manifest = json!({
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "twinspan"},
        "spec": {
            "version": format!("v{VERSION}"),
            "shortDescription": "Shows and explains what Twinspan keeps equal",
            "description": "Shows which instances Kubernetes Services and an etcd service registry have in common, \
                explains every difference, and plans what Twinspan would change.",
            "platforms": downloads.iter().map(platform).collect::<Vec<_>>(),
        },
    });
    Ok(serde_yaml::to_string(&manifest)?)
}
