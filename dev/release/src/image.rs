//! The images of every platform under one index, and beside each image its bill of materials, which refers to it
//! (`oras discover` shows it). Owns these manifests; refuses to know how a program is built.

use std::collections::BTreeMap;

use anyhow::Result;
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest,
    Platform as OciPlatform,
};
use twinspan_image::twinspan::{Built, labels};

use crate::layout::{Draft, Layout, entry, index};
use crate::{Image, Platform};

/// The media type of a bill of materials, as IANA has registered it.
pub const SPDX: &str = "application/spdx+json";
/// The media type of an empty configuration (image-spec 1.1).
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Keeps the images with their bills of materials, and drafts their index with the tag.
pub fn keep(layout: &mut Layout, repository: &str, tag: &str, revision: &str, all: &[Built]) -> Result<(Image, Draft)> {
    let mut platforms = BTreeMap::new();
    let mut entries = Vec::new();
    for Built { image, sbom, .. } in all {
        let packed = image.pack()?;
        layout.blob(IMAGE_CONFIG_MEDIA_TYPE, &packed.config)?;
        layout.blob(IMAGE_LAYER_GZIP_MEDIA_TYPE, &packed.layer)?;
        let manifest = layout.manifest(repository, None, OCI_IMAGE_MEDIA_TYPE, &packed.manifest)?;
        let sbom = refer(layout, repository, &manifest, SPDX, &serde_json::to_vec_pretty(sbom)?)?;
        let platform = OciPlatform {
            architecture: image.architecture.as_str().into(),
            os: "linux".into(),
            os_version: None,
            os_features: None,
            variant: None,
            features: None,
        };
        let mut entry = entry(&manifest);
        entry.platform = Some(platform);
        entries.push(entry);
        platforms.insert(image.architecture.clone(), Platform { manifest: manifest.digest, sbom: sbom.digest });
    }
    let draft = Draft::index(repository, tag, &index(entries, Some(labels(revision))))?;
    let image = Image { repository: repository.to_owned(), tag: tag.to_owned(), digest: draft.digest(), platforms };
    Ok((image, draft))
}

/// Keeps an artifact of one file that refers to a manifest.
fn refer(
    layout: &mut Layout,
    repository: &str,
    subject: &OciDescriptor,
    media_type: &str,
    content: &[u8],
) -> Result<OciDescriptor> {
    let manifest = OciImageManifest {
        artifact_type: Some(media_type.to_owned()),
        config: layout.blob(EMPTY, b"{}")?,
        layers: vec![layout.blob(media_type, content)?],
        subject: Some(subject.clone()),
        ..Default::default()
    };
    layout.artifact(repository, None, manifest)
}
