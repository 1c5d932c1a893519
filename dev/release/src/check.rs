//! Reads a release back from its registry and compares it with what was promised. Refuses to judge signatures: cosign
//! does.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest};
use serde_json::Value;

use crate::image::SPDX;
use crate::promise::{Platform, Promise};
use crate::registry::Registry;
use crate::signature::{ANNOTATION, SIMPLE_SIGNING, tag};
use crate::{archive, chart, layout};

/// The largest list of crates that is read, in bytes.
const AUDIT_LIMIT: usize = 8 << 20;

impl Registry {
    /// Fails with the first thing that is not as the release of the directory promises, or was not promised.
    pub async fn check(&self, directory: &Path) -> Result<()> {
        let promise = Promise::read(directory)?;
        self.check_image(&promise).await.with_context(|| promise.image.tagged())?;
        self.check_chart(&promise).await.with_context(|| promise.chart.tagged())?;
        if promise.signed {
            self.check_signature(&promise.image.repository, &promise.image.digest).await?;
            self.check_signature(&promise.chart.repository, &promise.chart.digest).await?;
        }
        check_files(directory, &promise)
    }

    async fn check_image(&self, promise: &Promise) -> Result<()> {
        let image = &promise.image;
        let (content, digest) = self.manifest(&self.reference(&image.tagged()).await?).await?;
        ensure!(digest == image.digest, "the tag leads to {digest}, not to {}", image.digest);
        let index: OciImageIndex = serde_json::from_slice(&content)?;
        let mut found = BTreeMap::new();
        for entry in &index.manifests {
            let platform = entry.platform.as_ref().context("a manifest without a platform")?;
            ensure!(platform.os.to_string() == "linux", "a manifest for {}", platform.os);
            let before = found.insert(platform.architecture.to_string(), entry.digest.clone());
            ensure!(before.is_none(), "two manifests for {}", platform.architecture);
        }
        let wanted: BTreeMap<String, String> =
            image.platforms.iter().map(|(name, platform)| (name.clone(), platform.manifest.clone())).collect();
        ensure!(found == wanted, "the index has {found:?}, want {wanted:?}");
        for (architecture, platform) in &image.platforms {
            self.check_platform(promise, architecture, platform)
                .await
                .with_context(|| format!("linux/{architecture}"))?;
        }
        Ok(())
    }

    async fn check_platform(&self, promise: &Promise, architecture: &str, platform: &Platform) -> Result<()> {
        let repository = &promise.image.repository;
        let (manifest, contents) = self.artifact(&format!("{repository}@{}", platform.manifest)).await?;
        let config: Value = serde_json::from_slice(&contents.config)?;
        ensure!(config["architecture"] == architecture, "its configuration says {}", config["architecture"]);
        let labels = &config["config"]["Labels"];
        for (key, wanted) in [("version", &promise.version), ("revision", &promise.revision)] {
            let found = &labels[format!("org.opencontainers.image.{key}")];
            ensure!(found == wanted.as_str(), "{key} is {found}, not {wanted}");
        }
        ensure!(manifest.layers.len() == 1, "{} layers", manifest.layers.len());

        let at = self.reference(&format!("{repository}@{}", platform.manifest)).await?;
        let referrers = self.referrers(&at).await?.manifests;
        let bills: Vec<&str> = referrers
            .iter()
            .filter(|it| it.artifact_type.as_deref() == Some(SPDX))
            .map(|it| it.digest.as_str())
            .collect();
        ensure!(bills == [platform.sbom.as_str()], "bills of materials: {bills:?}, want {}", platform.sbom);
        let (manifest, contents) = self.artifact(&format!("{repository}@{}", platform.sbom)).await?;
        let subject = manifest.subject.context("the bill of materials refers to nothing")?;
        ensure!(subject.digest == platform.manifest, "the bill of materials refers to {}", subject.digest);
        let bill: Value = serde_json::from_slice(contents.layers.first().context("no bill of materials")?)?;
        let packages = bill["packages"].as_array().map_or(0, Vec::len);
        ensure!(bill["spdxVersion"] == "SPDX-2.3" && packages > 100, "a bill of {packages} packages");
        Ok(())
    }

    async fn check_chart(&self, promise: &Promise) -> Result<()> {
        let (content, digest) = self.manifest(&self.reference(&promise.chart.tagged()).await?).await?;
        ensure!(digest == promise.chart.digest, "the tag leads to {digest}, not to {}", promise.chart.digest);
        let manifest: OciImageManifest = serde_json::from_slice(&content)?;
        let kinds: Vec<&str> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        ensure!(manifest.config.media_type == chart::CONFIG && kinds == [chart::CONTENT], "it is no chart: {kinds:?}");
        let (_, contents) = self.artifact(&promise.chart.tagged()).await?;
        let config: Value = serde_json::from_slice(&contents.config)?;
        ensure!(config["appVersion"] == promise.version.as_str(), "appVersion is {}", config["appVersion"]);
        ensure!(config["name"] == "twinspan", "its name is {}", config["name"]);
        Ok(())
    }

    async fn check_signature(&self, repository: &str, of: &str) -> Result<()> {
        let name = format!("{repository}:{}", tag(of));
        let (manifest, contents) = self.artifact(&name).await?;
        let [layer] = &manifest.layers[..] else { bail!("{name}: {} signatures", manifest.layers.len()) };
        let signed = layer.annotations.as_ref().is_some_and(|all| all.contains_key(ANNOTATION));
        ensure!(layer.media_type == SIMPLE_SIGNING && signed, "{name}: no signature of cosign");
        let payload: Value = serde_json::from_slice(contents.layers.first().context("no payload")?)?;
        let found = &payload["critical"]["image"]["docker-manifest-digest"];
        ensure!(found == of, "{name}: {found} is signed, not {of}");
        Ok(())
    }

    /// A manifest of one platform or one artifact, with all of its blobs.
    async fn artifact(&self, name: &str) -> Result<(OciImageManifest, Contents)> {
        let reference = self.reference(name).await?;
        let (content, digest) = self.manifest(&reference).await?;
        ensure!(reference.digest().is_none_or(|wanted| wanted == digest), "{name} has the digest {digest}");
        let manifest: OciImageManifest = serde_json::from_slice(&content)?;
        ensure!(manifest.media_type.as_deref() == Some(OCI_IMAGE_MEDIA_TYPE), "{name}: {:?}", manifest.media_type);
        let config = self.whole(&reference, &manifest.config).await?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            layers.push(self.whole(&reference, layer).await?);
        }
        Ok((manifest, Contents { config, layers }))
    }

    async fn whole(&self, at: &oci_client::Reference, blob: &OciDescriptor) -> Result<Vec<u8>> {
        let content = self.blob(at, blob).await?;
        ensure!(content.len() as i64 == blob.size, "{} has {} bytes, not {}", blob.digest, content.len(), blob.size);
        Ok(content)
    }
}

/// The blobs of a manifest.
struct Contents {
    config: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

/// The files beside the layout: all of them, what `SHA256SUMS` says of them, and the list of crates in each program.
fn check_files(directory: &Path, promise: &Promise) -> Result<()> {
    let sums = std::fs::read_to_string(directory.join("SHA256SUMS")).context("SHA256SUMS")?;
    let mut summed: Vec<&str> = Vec::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").with_context(|| format!("SHA256SUMS: {line}"))?;
        let found = twinspan_image::sha256(&std::fs::read(directory.join(name)).with_context(|| name.to_owned())?);
        ensure!(found == sum, "{name} has another checksum than SHA256SUMS says");
        summed.push(name);
    }
    let bare = ["SHA256SUMS", "SHA256SUMS.sig", "cosign.pub"];
    let wanted: Vec<&str> = promise.files.iter().map(String::as_str).filter(|name| !bare.contains(name)).collect();
    ensure!(summed == wanted, "SHA256SUMS has {summed:?}, want {wanted:?}");
    for architecture in promise.image.platforms.keys() {
        let name = archive::name(architecture);
        ensure!(wanted.contains(&name.as_str()), "there is no {name}");
        let program = archive::program(&std::fs::read(directory.join(&name))?).with_context(|| name.clone())?;
        let crates = auditable_info::audit_info_from_slice(&program, AUDIT_LIMIT)
            .with_context(|| format!("{name}: the program has no list of its crates"))?;
        let ours = crates.packages.iter().any(|it| it.root && it.name == "twinspan");
        ensure!(ours && crates.packages.len() > 100, "{name}: the program lists {} crates", crates.packages.len());
    }
    for entry in layout::Layout::open(&crate::build::layout(directory))?.entries()? {
        ensure!(entry.size > 0, "{} is empty", entry.name);
    }
    Ok(())
}
