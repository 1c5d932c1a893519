//! Pushes the layout of a release, which is verified before. Owns the order, which is the layout's: what is referred
//! to comes first, then signatures, and at last the tags of the version. A version that is there with another content
//! stays, for somebody may have installed it.

use anyhow::{Context, Result, bail, ensure};
use oci_client::Reference;
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest};
use std::path::Path;
use twinspan_image::binary::Source;

use crate::build::Options;
use crate::image::EMPTY;
use crate::layout::{Entry, Layout, entry, index};
use crate::promise::Promise;
use crate::registry::{Registry, cannot_push, fallback};
use crate::{VERSION, assemble, chart, names, verify};

impl Registry {
    /// Fails, and says why, unless a release of this commit could be pushed: the credentials suffice, and the version
    /// is not there, or is of the same commit. To find out, a blob of two bytes is pushed, without a name.
    pub async fn prepare(&self, options: &Options, source: &Source) -> Result<()> {
        let image = names::image(&options.registry);
        let package = chart::package(&image, source.created)?;
        let names = [format!("{image}:{VERSION}"), format!("{}:{}", names::chart(&options.registry), package.tag())];
        let [image, chart] = &names;
        for name in &names {
            let reference = self.writable(name).await?;
            let empty = OciDescriptor {
                media_type: EMPTY.to_owned(),
                digest: twinspan_image::digest(b"{}"),
                ..Default::default()
            };
            self.push_blob(&reference, &empty, b"{}".to_vec()).await.with_context(|| cannot_push(&reference))?;
        }
        if let Some((content, _)) = self.find(&self.writable(image).await?).await? {
            let there: OciImageIndex = serde_json::from_slice(&content)?;
            let key = "org.opencontainers.image.revision";
            let found = there.annotations.as_ref().and_then(|all| all.get(key)).map_or("no commit", String::as_str);
            ensure!(found == source.revision, "{image} is there already, of {found}; a version is released once");
        }
        if let Some((content, _)) = self.find(&self.writable(chart).await?).await? {
            let there: OciImageManifest = serde_json::from_slice(&content)?;
            let same = there.layers.iter().any(|it| it.digest == twinspan_image::digest(&package.content));
            ensure!(same, "{chart} is there already, with another content; a version is released once");
        }
        Ok(())
    }

    /// Pushes the release of a directory.
    pub async fn push(&self, directory: &Path) -> Result<()> {
        let promise = Promise::read(directory)?;
        for (name, digest) in
            [(promise.image.tagged(), &promise.image.digest), (promise.chart.tagged(), &promise.chart.digest)]
        {
            let there = self.find(&self.writable(&name).await?).await?;
            if let Some((_, there)) = there.filter(|(_, there)| there != digest) {
                bail!("{name} is there already, with another content ({there}); a version is released once");
            }
        }
        verify(directory).context("nothing is pushed")?;
        let layout = Layout::open(&assemble::layout(directory))?;
        for one in layout.entries()? {
            self.push_manifest(&layout, &one).await.with_context(|| format!("cannot push {}", one.name))?;
        }
        Ok(())
    }

    async fn push_manifest(&self, layout: &Layout, one: &Entry) -> Result<()> {
        let reference = self.writable(&one.name).await?;
        let content = layout.read(&one.digest)?;
        let mut subject = None;
        if one.media_type != OCI_IMAGE_INDEX_MEDIA_TYPE {
            let manifest: OciImageManifest = serde_json::from_slice(&content)?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                self.push_blob(&reference, blob, layout.read(&blob.digest)?).await?;
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

    async fn push_blob(&self, to: &Reference, blob: &OciDescriptor, content: Vec<u8>) -> Result<()> {
        // A token may have ended while the blob before was on its way.
        self.authorize(to).await?;
        if !self.client.blob_exists(to, &blob.digest).await? {
            self.client.push_blob(to, content, &blob.digest).await?;
        }
        Ok(())
    }

    async fn put(&self, to: &Reference, digest: &str, media_type: &str, content: Vec<u8>) -> Result<()> {
        self.authorize(to).await?;
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
        let mut listed = self.referrers(&of).await?;
        if listed.iter().any(|it| it.digest == manifest.digest) {
            return Ok(());
        }
        listed.push(entry(manifest));
        listed.sort_by(|a, b| a.digest.cmp(&b.digest));
        let content = serde_json::to_vec(&index(listed, None))?;
        let digest = twinspan_image::digest(&content);
        self.put(&fallback(&of), &digest, OCI_IMAGE_INDEX_MEDIA_TYPE, content).await?;
        let listed = self.referrers(&of).await?;
        ensure!(listed.iter().any(|it| it.digest == manifest.digest), "{} is listed nowhere", manifest.digest);
        Ok(())
    }
}
