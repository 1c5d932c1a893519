//! The part of a release that goes into a registry, as an OCI layout in a directory, which tools such as skopeo read as
//! well. Owns blobs, manifests and their order; refuses to know registries, and what the blobs mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_client::manifest::{
    ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest,
};
use twinspan_image::{digest, sha256};

/// The annotation with the name of a manifest in the layout's index.
const NAME: &str = "org.opencontainers.image.ref.name";

/// The directory, and the manifests in the order in which they are pushed: those that others refer to come first.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    index: OciImageIndex,
}

/// One manifest, and its name in a registry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `host/path:tag`, or `host/path@sha256:…` if it has no tag.
    pub name: String,
    pub media_type: String,
    pub digest: String,
    /// In bytes.
    pub size: i64,
}

/// A manifest that waits for its signature, which names it by its digest; then it gets its tag.
#[derive(Debug)]
pub struct Draft {
    pub repository: String,
    pub tag: String,
    media_type: &'static str,
    content: Vec<u8>,
}

impl Draft {
    /// Of an index.
    pub fn index(repository: &str, tag: &str, index: &OciImageIndex) -> Result<Self> {
        Ok(Self::new(repository, tag, OCI_IMAGE_INDEX_MEDIA_TYPE, serde_json::to_vec(index)?))
    }

    /// Of an artifact.
    pub fn artifact(repository: &str, tag: &str, manifest: OciImageManifest) -> Result<Self> {
        Ok(Self::new(repository, tag, OCI_IMAGE_MEDIA_TYPE, artifact(manifest)?))
    }

    fn new(repository: &str, tag: &str, media_type: &'static str, content: Vec<u8>) -> Self {
        Self { repository: repository.to_owned(), tag: tag.to_owned(), media_type, content }
    }

    /// By which a registry will know it.
    pub fn digest(&self) -> String {
        digest(&self.content)
    }
}

impl Layout {
    /// An empty layout; what was in the directory is removed.
    pub fn create(root: &Path) -> Result<Self> {
        if root.exists() {
            std::fs::remove_dir_all(root)?;
        }
        std::fs::create_dir_all(root.join("blobs/sha256"))?;
        std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { root: root.to_owned(), index: index(Vec::new(), None) })
    }

    /// The layout that is in the directory.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join("index.json");
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { root: root.to_owned(), index: serde_json::from_slice(&text)? })
    }

    /// Keeps a blob.
    pub fn blob(&self, media_type: &str, content: &[u8]) -> Result<OciDescriptor> {
        std::fs::write(self.root.join("blobs/sha256").join(sha256(content)), content)?;
        Ok(OciDescriptor {
            media_type: media_type.to_owned(),
            digest: digest(content),
            size: i64::try_from(content.len())?,
            ..Default::default()
        })
    }

    /// Keeps a manifest as the next one to push, under a tag or, without one, under its digest alone.
    pub fn manifest(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        content: &[u8],
    ) -> Result<OciDescriptor> {
        let kept = self.blob(media_type, content)?;
        let name = match tag {
            Some(tag) => format!("{repository}:{tag}"),
            None => format!("{repository}@{}", kept.digest),
        };
        let mut entry = entry(&kept);
        entry.annotations = Some(BTreeMap::from([(NAME.to_owned(), name)]));
        self.index.manifests.push(entry);
        std::fs::write(self.root.join("index.json"), serde_json::to_vec(&self.index)?)?;
        Ok(kept)
    }

    /// The same for the manifest of an artifact.
    pub fn artifact(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        manifest: OciImageManifest,
    ) -> Result<OciDescriptor> {
        self.manifest(repository, tag, OCI_IMAGE_MEDIA_TYPE, &artifact(manifest)?)
    }

    /// Keeps a draft as the next one to push.
    pub fn keep(&mut self, draft: &Draft) -> Result<()> {
        self.manifest(&draft.repository, Some(&draft.tag), draft.media_type, &draft.content)?;
        Ok(())
    }

    /// Every manifest, in the order in which they were kept.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let entry = |it: &ImageIndexEntry| {
            let name = it.annotations.as_ref().and_then(|all| all.get(NAME)).context("a manifest without a name")?;
            Ok(Entry {
                name: name.clone(),
                media_type: it.media_type.clone(),
                digest: it.digest.clone(),
                size: it.size,
            })
        };
        self.index.manifests.iter().map(entry).collect()
    }

    /// The content of a blob, after a check of its digest.
    pub fn read(&self, wanted: &str) -> Result<Vec<u8>> {
        let hex = wanted.strip_prefix("sha256:").with_context(|| format!("{wanted} is not a digest"))?;
        let path = self.root.join("blobs/sha256").join(hex);
        let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(digest(&content) == wanted, "{} is not what its name says", path.display());
        Ok(content)
    }
}

fn artifact(manifest: OciImageManifest) -> Result<Vec<u8>> {
    let manifest = OciImageManifest { media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()), ..manifest };
    Ok(serde_json::to_vec(&manifest)?)
}

/// An index of manifests.
pub(crate) fn index(manifests: Vec<ImageIndexEntry>, annotations: Option<BTreeMap<String, String>>) -> OciImageIndex {
    let media_type = Some(OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned());
    OciImageIndex { schema_version: 2, media_type, manifests, artifact_type: None, annotations }
}

/// A descriptor as an entry of an index.
pub(crate) fn entry(of: &OciDescriptor) -> ImageIndexEntry {
    ImageIndexEntry {
        media_type: of.media_type.clone(),
        digest: of.digest.clone(),
        size: of.size,
        platform: None,
        annotations: None,
        artifact_type: of.artifact_type.clone(),
    }
}
