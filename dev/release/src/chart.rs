//! The chart of a release: `charts/twinspan` with the names of the release in place of those of a checkout, so that it
//! installs without values. Owns the package and its artifact in a registry; refuses to know the templates.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use oci_client::manifest::OciImageManifest;
use serde_yaml::Value;
use twinspan_chart::{schema, table, values};
use twinspan_image::binary::output;
use twinspan_image::{Root, gzip, repository};

use crate::layout::{Draft, Layout};
use crate::{Chart, VERSION};

/// The media types of Helm (`pkg/registry/constants.go`).
pub const CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
pub const CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const DIRECTORY: &str = "charts/twinspan";

/// A chart as one file.
#[derive(Debug)]
pub struct Package {
    pub version: String,
    /// `Chart.yaml` as JSON.
    pub metadata: serde_json::Value,
    /// The `.tgz`.
    pub content: Vec<u8>,
}

impl Package {
    /// The name that `helm package` would give it.
    pub fn file(&self) -> String {
        format!("twinspan-{}.tgz", self.version)
    }

    /// The version as a tag. A tag has no plus sign, so Helm writes and reads an underscore in its place.
    pub fn tag(&self) -> String {
        self.version.replace('+', "_")
    }
}

/// Packs the chart with an image of this name, without a tag; `created` is in seconds since 1970.
pub fn package(image: &str, created: u64) -> Result<Package> {
    let mut files = sources()?;
    let described = text(&files, "Chart.yaml")?;
    let described: Vec<String> = described
        .lines()
        .map(|line| if line.starts_with("appVersion: ") { format!("appVersion: {VERSION}") } else { line.to_owned() })
        .collect();
    let described = described.join("\n") + "\n";
    let metadata: serde_json::Value = serde_yaml::from_str(&described)?;
    ensure!(metadata["appVersion"] == VERSION, "Chart.yaml has no appVersion");
    let version = metadata["version"].as_str().context("Chart.yaml has no version")?.to_owned();

    let mut values: Value = serde_yaml::from_str(&text(&files, "values.schema.json")?)?;
    let name = &mut values["properties"]["image"]["properties"]["repository"];
    ensure!(name["default"].is_string(), "values.schema.json has no image.repository");
    name["default"] = image.into();
    name["description"] = "Registry and name of the image, without a tag.".into();
    let readme = table::replace(&text(&files, "README.md")?, &table::print(&values)?)?;
    files.insert("values.schema.json".to_owned(), schema::print(&values)?.into_bytes());
    files.insert("values.yaml".to_owned(), values::print(&values)?.into_bytes());
    files.insert("README.md".to_owned(), readme.into_bytes());
    files.insert("Chart.yaml".to_owned(), described.into_bytes());
    files.insert("LICENSE".to_owned(), std::fs::read(repository().join("LICENSE"))?);

    let mut root = Root::default();
    for (path, content) in files {
        root.file(&format!("twinspan/{path}"), content);
    }
    Ok(Package { version, metadata, content: gzip(&root.tar(created)?)? })
}

/// Drafts the chart as an artifact, as `helm push` would.
pub fn draft(layout: &Layout, repository: &str, package: &Package) -> Result<(Chart, Draft)> {
    let labels = [
        ("title", "twinspan"),
        ("description", package.metadata["description"].as_str().unwrap_or_default()),
        ("version", &package.version),
    ];
    let annotations: BTreeMap<String, String> =
        labels.map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned())).into();
    let manifest = OciImageManifest {
        config: layout.blob(CONFIG, &serde_json::to_vec(&package.metadata)?)?,
        layers: vec![layout.blob(CONTENT, &package.content)?],
        annotations: Some(annotations),
        ..Default::default()
    };
    let tag = package.tag();
    let draft = Draft::artifact(repository, &tag, manifest)?;
    Ok((Chart { repository: repository.to_owned(), tag, digest: draft.digest() }, draft))
}

/// The files of the chart that git knows, by their paths in it.
fn sources() -> Result<BTreeMap<String, Vec<u8>>> {
    let listed = output("git", &["ls-files", "--", DIRECTORY])?;
    let files: BTreeMap<String, Vec<u8>> = listed
        .lines()
        .filter_map(|path| path.strip_prefix(DIRECTORY)?.strip_prefix('/'))
        .map(|path| Ok((path.to_owned(), std::fs::read(repository().join(DIRECTORY).join(path))?)))
        .collect::<Result<_>>()?;
    ensure!(!files.is_empty(), "git knows no file of {DIRECTORY}");
    Ok(files)
}

fn text(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Result<String> {
    let content = files.get(path).with_context(|| format!("the chart has no {path}"))?;
    Ok(String::from_utf8(content.clone())?)
}
