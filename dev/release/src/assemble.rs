//! Writes the directory of a release from programs that are built. Owns the files and the order of the layout: a tag
//! comes after its signature and after everything that it leads to. Refuses to know compilers and registries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use twinspan_image::binary::Source;
use twinspan_image::sha256;
use twinspan_image::twinspan::Built;

use crate::archive::{self, Download};
use crate::build::Options;
use crate::layout::Layout;
use crate::promise::{FILE, Promise};
use crate::{VERSION, chart, image, manifests, names, signature};

/// The files of a directory that have no line in `SHA256SUMS`.
pub(crate) const SUMS: &str = "SHA256SUMS";
pub(crate) const SUMS_SIGNATURE: &str = "SHA256SUMS.sig";
pub(crate) const PUBLIC_KEY: &str = "cosign.pub";

/// The directory of the layout inside that of the release.
pub fn layout(directory: &Path) -> PathBuf {
    directory.join("oci")
}

/// The bill of materials for an architecture, as a file.
pub(crate) fn bill(architecture: &str) -> String {
    format!("twinspan-{VERSION}-linux-{architecture}.spdx.json")
}

/// Fails if the directory holds anything but an earlier release, finished or not.
pub(crate) fn replaceable(directory: &Path) -> Result<()> {
    let empty = !directory.exists() || std::fs::read_dir(directory)?.next().is_none();
    ensure!(
        empty || directory.join(FILE).exists(),
        "{} is not empty, and no release: it has no {FILE}; remove it yourself",
        directory.display()
    );
    Ok(())
}

/// Makes an empty directory for a release.
fn clear(directory: &Path) -> Result<()> {
    replaceable(directory)?;
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    std::fs::create_dir_all(directory)?;
    // Empty until the release is whole, so that nobody pushes half of it, and the next build may remove it.
    std::fs::write(directory.join(FILE), "")?;
    Ok(())
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

/// Writes the release into its directory, in place of an earlier one, but for the promise: the caller writes it when
/// nothing is in doubt any more.
pub fn assemble(options: &Options, source: &Source, built: &[Built]) -> Result<Promise> {
    let directory = options.directory.as_path();
    let asked: BTreeSet<&str> = options.architectures.iter().map(String::as_str).collect();
    let have: BTreeSet<&str> = built.iter().map(|it| it.image.architecture.as_str()).collect();
    ensure!(asked == have && built.len() == asked.len(), "{asked:?} was asked for, and {have:?} was built");
    clear(directory)?;
    let mut shelf = Shelf { directory, sums: Vec::new(), files: Vec::new() };
    let mut downloads = Vec::new();
    for Built { image, sbom, program } in built {
        let architecture = image.architecture.clone();
        let file = archive::name(&architecture);
        let sum = shelf.put_summed(&file, &archive::pack(program, source.created)?)?;
        shelf.put_summed(&bill(&architecture), &serde_json::to_vec_pretty(sbom)?)?;
        downloads.push(Download { architecture, file, sha256: sum });
    }
    let repository = names::image(&options.registry);
    if let Some(url) = &options.url {
        shelf.put_summed("krew.yaml", archive::krew(url.trim_end_matches('/'), &downloads)?.as_bytes())?;
    }
    shelf.put_summed(&manifests::name(), manifests::of(&repository)?.as_bytes())?;
    let package = chart::package(&repository, source.created)?;
    shelf.put_summed(&package.file(), &package.content)?;

    let mut layout = Layout::create(&self::layout(directory))?;
    let (image, index) = image::keep(&mut layout, &repository, VERSION, &source.revision, built)?;
    let (chart, artifact) = chart::draft(&layout, &names::chart(&options.registry), &package)?;
    shelf.sums.sort_by(|a, b| a[64..].cmp(&b[64..]));
    let sums = shelf.sums.concat();
    shelf.put(SUMS, sums.as_bytes())?;
    if let Some(key) = &options.key {
        signature::keep(&mut layout, key, &image.repository, &image.digest)?;
        signature::keep(&mut layout, key, &chart.repository, &chart.digest)?;
        shelf.put(SUMS_SIGNATURE, key.sign(sums.as_bytes()).as_bytes())?;
        shelf.put(PUBLIC_KEY, key.public()?.as_bytes())?;
    }
    // The chart names the tag of the image.
    layout.keep(&index)?;
    layout.keep(&artifact)?;
    let mut files = shelf.files;
    files.sort();
    let signed = options.key.is_some();
    let (version, revision) = (VERSION.to_owned(), source.revision.clone());
    Ok(Promise { version, revision, image, chart, signed, files })
}
