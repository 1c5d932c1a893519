//! Pushes the layout of a release. Owns the order: what is referred to comes first, and a tag last. A version that is
//! there with another content stays, for somebody may have installed it.

use anyhow::{Context, Result, bail, ensure};
use oci_client::Reference;
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use std::path::Path;

use crate::build;
use crate::layout::{Entry, Layout, entry, index};
use crate::promise::Promise;
use crate::registry::Registry;

impl Registry {
    /// Pushes the release of a directory.
    pub async fn push(&self, directory: &Path) -> Result<()> {
        let promise = Promise::read(directory)?;
        for (name, digest) in
            [(promise.image.tagged(), &promise.image.digest), (promise.chart.tagged(), &promise.chart.digest)]
        {
            let there = self.digest(&self.reference(&name).await?).await?;
            if let Some(there) = there.filter(|there| there != digest) {
                bail!("{name} is there already, with another content ({there}); a version is released once");
            }
        }
        let layout = Layout::open(&build::layout(directory))?;
        for one in layout.entries()? {
            self.push_manifest(&layout, &one).await.with_context(|| format!("cannot push {}", one.name))?;
        }
        Ok(())
    }

    async fn push_manifest(&self, layout: &Layout, one: &Entry) -> Result<()> {
        let reference = self.reference(&one.name).await?;
        let content = layout.read(&one.digest)?;
        let mut subject = None;
        if one.media_type != OCI_IMAGE_INDEX_MEDIA_TYPE {
            let manifest: OciImageManifest = serde_json::from_slice(&content)?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                if !self.client.blob_exists(&reference, &blob.digest).await? {
                    self.client.push_blob(&reference, layout.read(&blob.digest)?, &blob.digest).await?;
                }
            }
            subject = manifest.subject.map(|of| (of, manifest.artifact_type));
        }
        self.put(&reference, &one.digest, &one.media_type, content).await?;
        if let Some((subject, artifact_type)) = subject {
            let descriptor = OciDescriptor {
                media_type: one.media_type.clone(),
                digest: one.digest.clone(),
                size: one.size,
                artifact_type,
                ..Default::default()
            };
            self.refer(&reference, &subject, &descriptor).await?;
        }
        Ok(())
    }

    async fn put(&self, to: &Reference, digest: &str, media_type: &str, content: Vec<u8>) -> Result<()> {
        // As a tag even where it is a digest: the path is the same, and the client expects one where a registry answers
        // without a location, as ECR does.
        let name = to.tag().unwrap_or(digest).to_owned();
        let place = Reference::with_tag(to.registry().to_owned(), to.repository().to_owned(), name);
        self.client.push_manifest_raw(&place, content, media_type.parse()?).await?;
        Ok(())
    }

    /// Makes sure that the registry lists a manifest among those that refer to another one. One without the API for it
    /// has a list under a tag, which the client keeps (distribution-spec 1.1, "Referrers Tag Schema").
    async fn refer(&self, at: &Reference, subject: &OciDescriptor, manifest: &OciDescriptor) -> Result<()> {
        let of = at.clone_with_digest(subject.digest.clone());
        let mut listed = self.referrers(&of).await?.manifests;
        if listed.iter().any(|it| it.digest == manifest.digest) {
            return Ok(());
        }
        listed.push(entry(manifest));
        listed.sort_by(|a, b| a.digest.cmp(&b.digest));
        let content = serde_json::to_vec(&index(listed, None))?;
        let tag = subject.digest.replace(':', "-");
        let list = Reference::with_tag(at.registry().to_owned(), at.repository().to_owned(), tag);
        let digest = twinspan_image::digest(&content);
        self.put(&list, &digest, OCI_IMAGE_INDEX_MEDIA_TYPE, content).await?;
        let listed = self.referrers(&of).await?.manifests;
        ensure!(listed.iter().any(|it| it.digest == manifest.digest), "{} is listed nowhere", manifest.digest);
        Ok(())
    }
}
