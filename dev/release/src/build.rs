//! Makes every file of a release. Owns their order: whatever may be missing is asked for before anything is compiled.
//! Refuses to know registries.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use twinspan_image::binary::{self, Source};
use twinspan_image::sha256;
use twinspan_image::twinspan::{self, Built};

use crate::archive::{self, Download};
use crate::layout::Layout;
use crate::promise::Promise;
use crate::signature::{self, Key};
use crate::{VERSION, chart, image};

/// The input of a release besides the commit.
#[derive(Debug)]
pub struct Options {
    /// Where it will be, as `host/path`.
    pub registry: String,
    /// In the words of container tools, at least one.
    pub architectures: Vec<String>,
    /// Without a key nothing is signed.
    pub key: Option<Key>,
    /// Where the archives will be, as `https://…`; without it there is no manifest for krew.
    pub url: Option<String>,
    /// For the result; what an earlier build left there is removed.
    pub directory: PathBuf,
    /// Whether files may differ from the commit.
    pub dirty: bool,
}

/// The directory of the layout inside that of the release.
pub fn layout(directory: &Path) -> PathBuf {
    directory.join("oci")
}

/// The directory of a release, as far as it is written.
struct Shelf<'a> {
    directory: &'a Path,
    /// The lines of `SHA256SUMS`.
    sums: Vec<String>,
    files: Vec<String>,
}

impl Shelf<'_> {
    fn put(&mut self, name: &str, content: &[u8]) -> Result<()> {
        std::fs::write(self.directory.join(name), content)?;
        self.files.push(name.to_owned());
        Ok(())
    }

    /// The same for a file with a checksum, which it returns.
    fn put_summed(&mut self, name: &str, content: &[u8]) -> Result<String> {
        let sum = sha256(content);
        self.sums.push(format!("{sum}  {name}\n"));
        self.put(name, content)?;
        Ok(sum)
    }
}

/// Builds the release.
pub fn build(options: &Options) -> Result<Promise> {
    let source = Source::find()?;
    ensure!(
        options.dirty || !source.revision.ends_with("-dirty"),
        "files differ from the commit; a release is made of a commit"
    );
    ensure!(!options.architectures.is_empty(), "no architecture is asked for");
    let targets: Vec<&str> =
        options.architectures.iter().map(|architecture| binary::target_of(architecture)).collect::<Result<_>>()?;
    for target in &targets {
        binary::prepare(target).with_context(|| format!("nothing is released without {target}"))?;
    }
    let directory = &options.directory;
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    std::fs::create_dir_all(directory)?;
    let mut shelf = Shelf { directory, sums: Vec::new(), files: Vec::new() };
    let mut layout = Layout::create(&self::layout(directory))?;

    let repository = format!("{}/twinspan", options.registry);
    let mut images = Vec::new();
    let mut downloads = Vec::new();
    for target in targets {
        let Built { image, sbom, program } = twinspan::build(&format!("{repository}:{VERSION}"), target, &source)?;
        let architecture = image.architecture.clone();
        let file = archive::name(&architecture);
        let sum = shelf.put_summed(&file, &archive::pack(&program, source.created)?)?;
        let bill = format!("twinspan-{VERSION}-linux-{architecture}.spdx.json");
        shelf.put_summed(&bill, &serde_json::to_vec_pretty(&sbom)?)?;
        downloads.push(Download { architecture, file, sha256: sum });
        images.push((image, sbom));
    }
    let image = image::keep(&mut layout, &repository, VERSION, &source.revision, &images)?;
    if let Some(url) = &options.url {
        shelf.put_summed("krew.yaml", archive::krew(url.trim_end_matches('/'), &downloads)?.as_bytes())?;
    }
    let package = chart::package(&repository, source.created)?;
    shelf.put_summed(&package.file(), &package.content)?;
    let chart = chart::keep(&mut layout, &format!("{}/charts/twinspan", options.registry), &package)?;

    shelf.sums.sort_by(|a, b| a[64..].cmp(&b[64..]));
    let sums = shelf.sums.concat();
    shelf.put("SHA256SUMS", sums.as_bytes())?;
    if let Some(key) = &options.key {
        signature::keep(&mut layout, key, &image.repository, &image.digest)?;
        signature::keep(&mut layout, key, &chart.repository, &chart.digest)?;
        shelf.put("SHA256SUMS.sig", key.sign(sums.as_bytes()).as_bytes())?;
        shelf.put("cosign.pub", key.public()?.as_bytes())?;
    }
    let mut files = shelf.files;
    files.sort();
    let promise = Promise {
        version: VERSION.to_owned(),
        revision: source.revision,
        image,
        chart,
        signed: options.key.is_some(),
        files,
    };
    promise.write(directory)?;
    Ok(promise)
}
