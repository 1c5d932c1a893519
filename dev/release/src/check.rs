//! Reads a release back from its registry and compares it with the directory, which it verifies first: what has the
//! same bytes in the registry is as good as there, its signatures too.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OciImageManifest};

use crate::image::SPDX;
use crate::layout::{Entry, Layout};
use crate::registry::Registry;
use crate::{assemble, verify};

impl Registry {
    /// Fails with the first thing of the directory that is not in the registry, or has another content there.
    pub async fn check(&self, directory: &Path) -> Result<()> {
        let promise = verify(directory)?;
        let layout = Layout::open(&assemble::layout(directory))?;
        for entry in layout.entries()? {
            self.check_entry(&layout, &entry).await.with_context(|| entry.name.clone())?;
        }
        for (architecture, platform) in &promise.image.platforms {
            let at = self.reference(&format!("{}@{}", promise.image.repository, platform.manifest)).await?;
            let referrers = self.referrers(&at).await?;
            let bills: Vec<&str> = referrers
                .iter()
                .filter(|it| it.artifact_type.as_deref() == Some(SPDX))
                .map(|it| it.digest.as_str())
                .collect();
            ensure!(bills == [&platform.sbom], "bills of materials of {architecture}: {bills:?}");
        }
        Ok(())
    }

    async fn check_entry(&self, layout: &Layout, entry: &Entry) -> Result<()> {
        let reference = self.reference(&entry.name).await?;
        let (content, digest) = self.manifest(&reference).await?;
        ensure!(digest == entry.digest, "the name leads to {digest}, not to {}", entry.digest);
        if entry.media_type != OCI_IMAGE_INDEX_MEDIA_TYPE {
            let manifest: OciImageManifest = serde_json::from_slice(&content)?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let same = self.blob(&reference, blob).await? == layout.read(&blob.digest)?;
                ensure!(same, "{} has another content", blob.digest);
            }
        }
        Ok(())
    }
}
