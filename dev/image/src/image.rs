//! One image and its archive: an OCI layout in the form that `docker save` writes as well, so that `ctr images import`,
//! `docker load` and `skopeo copy` (`oci-archive:` or `docker-archive:`) all accept it. Owns the JSON of both; it
//! does not know the content of the image.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType};

use crate::Root;
use crate::root::append;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The content of an image, and how it is run.
#[derive(Debug)]
pub struct Image {
    /// With registry and tag, e.g. `localhost/twinspan:0.1.0`.
    pub name: String,
    /// In the words of container tools: `amd64`, `arm64`.
    pub architecture: String,
    /// Numeric, so that a kubelet can tell that the user is not root.
    pub user: String,
    pub entrypoint: Vec<String>,
    pub environment: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970, of the image and of every file in it.
    pub created: u64,
    pub root: Root,
}

/// A written archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// The digest by which a registry knows the image.
    pub manifest: String,
    /// The digest by which container runtimes know it.
    pub config: String,
    /// The size of the archive in bytes.
    pub size: u64,
}

/// The blobs of an image, as a registry keeps them.
#[derive(Debug)]
pub struct Packed {
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// The image as a registry keeps it: the manifest names the other two by their digests.
    pub fn pack(&self) -> Result<Packed> {
        let layer = self.root.tar(self.created)?;
        let created = jiff::Timestamp::from_second(i64::try_from(self.created)?)?.to_string();
        let config = json!({
            "created": created,
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "Env": self.environment,
                "Entrypoint": self.entrypoint,
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
            "history": [{"created": created, "created_by": "make image"}],
        });
        let (config, layer) = (serde_json::to_vec(&config)?, gzip(&layer)?);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &layer)],
        });
        Ok(Packed { config, layer, manifest: serde_json::to_vec(&manifest)? })
    }

    /// Writes the archive.
    pub fn write(&self, to: &Path) -> Result<Written> {
        let Packed { config, layer, manifest } = self.pack()?;
        let mut described = descriptor(MANIFEST, &manifest);
        described["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        described["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.tag(),
        });
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]});
        let docker = json!([{"Config": blob(&config), "RepoTags": [self.name], "Layers": [blob(&layer)]}]);

        let mut tar = Builder::new(Vec::new());
        let mut file =
            |path: &str, content: &[u8]| append(&mut tar, path, EntryType::Regular, 0o644, self.created, content);
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        file("index.json", &serde_json::to_vec(&index)?)?;
        file("manifest.json", &serde_json::to_vec(&docker)?)?;
        let blobs: BTreeMap<String, &[u8]> = [&config, &layer, &manifest].map(|it| (blob(it), it.as_slice())).into();
        for (path, content) in blobs {
            file(&path, content)?;
        }
        let archive = tar.into_inner()?;
        // Written under another name first, so that a reader finds all of the archive or nothing.
        let part = to.with_extension("part");
        std::fs::write(&part, &archive).with_context(|| format!("cannot write {}", part.display()))?;
        std::fs::rename(&part, to)?;
        Ok(Written { manifest: digest(&manifest), config: digest(&config), size: archive.len() as u64 })
    }

    fn tag(&self) -> &str {
        match self.name.rsplit_once(':') {
            Some((_, tag)) if !tag.contains('/') => tag,
            _ => "latest",
        }
    }
}

/// The name of a blob and its size, as others refer to it.
fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

/// The path of a blob in an OCI layout.
fn blob(content: &[u8]) -> String {
    format!("blobs/sha256/{}", sha256(content))
}

/// `sha256:` and the checksum in hexadecimal digits.
pub fn digest(content: &[u8]) -> String {
    format!("sha256:{}", sha256(content))
}

/// The checksum in hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Without the name and the time that `gzip` adds by default.
pub fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}
