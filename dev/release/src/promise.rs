//! The promise of a release: names and digests, as `release.json` in its directory. Owns that file and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The name of the file in the directory.
pub(crate) const FILE: &str = "release.json";

/// A release, without its contents.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Promise {
    pub version: String,
    /// The commit, with `-dirty` if files differed from it.
    pub revision: String,
    pub image: Image,
    pub chart: Chart,
    /// Whether there are signatures of the image, of the chart and of `SHA256SUMS`.
    pub signed: bool,
    /// The names of the other files in the directory, in order.
    pub files: Vec<String>,
}

/// The image index.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Registry and name, without a tag.
    pub repository: String,
    pub tag: String,
    pub digest: String,
    /// By architecture, in the words of container tools.
    pub platforms: BTreeMap<String, Platform>,
}

/// One platform of the image: the digests of its manifest and of the manifest of its bill of materials.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Platform {
    pub manifest: String,
    pub sbom: String,
}

/// The chart as an OCI artifact.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Chart {
    pub repository: String,
    /// The version of the chart, as a tag.
    pub tag: String,
    pub digest: String,
}

impl Promise {
    /// Writes the file into the directory of the release.
    pub fn write(&self, directory: &Path) -> Result<()> {
        std::fs::write(directory.join(FILE), serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }

    /// Reads the file from the directory of the release.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("no release in {}: build one first", directory.display()))?;
        ensure!(!text.is_empty(), "{} is empty: a build did not end; build again", path.display());
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }
}

impl Image {
    /// The name with its tag.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

impl Chart {
    /// The name with its tag.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}
