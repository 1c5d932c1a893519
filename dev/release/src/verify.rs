//! Compares the directory of a release with its promise: the files, the layout, and the signatures by the public key
//! that lies beside them. Refuses to know registries, so that nothing is pushed before all of it is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use oci_client::manifest::{OciDescriptor, OciImageIndex, OciImageManifest};
use serde_json::Value;
use twinspan_image::{sha256, twinspan};

use crate::assemble::{PUBLIC_KEY, SUMS, SUMS_SIGNATURE, bill};
use crate::image::SPDX;
use crate::layout::{Entry, Layout};
use crate::promise::{FILE, Platform, Promise};
use crate::signature::{self, PublicKey};
use crate::{archive, assemble, chart, manifests};

/// The largest list of crates that is read, in bytes.
const AUDIT_LIMIT: usize = 8 << 20;
/// A program with fewer crates is none of Twinspan, or its list was not written.
const CRATES: usize = 100;

/// Fails with the first thing that is not as the promise of the directory says, or was not promised.
pub fn verify(directory: &Path) -> Result<Promise> {
    let promise = Promise::read(directory)?;
    let files = files(directory, &promise)?;
    let layout = Layout::open(&assemble::layout(directory))?;
    let release = Release { files, entries: layout.entries()?, layout, promise: &promise };
    release.order()?;
    release.whole()?;
    release.index().with_context(|| promise.image.tagged())?;
    for (architecture, platform) in &promise.image.platforms {
        release.platform(architecture, platform).with_context(|| format!("linux/{architecture}"))?;
    }
    release.chart().with_context(|| promise.chart.tagged())?;
    release.signatures()?;
    Ok(promise)
}

/// Every file but the promise, after a look at the names and at `SHA256SUMS`.
fn files(directory: &Path, promise: &Promise) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        there.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let own = [FILE.to_owned(), "oci".to_owned()];
    let wanted: BTreeSet<String> = promise.files.iter().cloned().chain(own).collect();
    ensure!(there == wanted, "the directory has {there:?}, want {wanted:?}");

    let mut files = BTreeMap::new();
    for name in &promise.files {
        files.insert(name.clone(), std::fs::read(directory.join(name)).with_context(|| name.clone())?);
    }
    let sums = files.get(SUMS).with_context(|| format!("there is no {SUMS}"))?;
    let mut summed: Vec<&str> = Vec::new();
    for line in std::str::from_utf8(sums)?.lines() {
        let (sum, name) = line.split_once("  ").with_context(|| format!("{SUMS}: {line}"))?;
        let content = files.get(name).with_context(|| format!("{SUMS} has {name}, and there is none"))?;
        ensure!(sha256(content) == sum, "{name} has another checksum than {SUMS} says");
        summed.push(name);
    }
    let bare = [SUMS, SUMS_SIGNATURE, PUBLIC_KEY];
    let wanted: Vec<&str> = promise.files.iter().map(String::as_str).filter(|name| !bare.contains(name)).collect();
    ensure!(summed == wanted, "{SUMS} has {summed:?}, want {wanted:?}");
    ensure!(wanted.contains(&manifests::name().as_str()), "there is no {}", manifests::name());
    Ok(files)
}

struct Release<'a> {
    promise: &'a Promise,
    /// By their names.
    files: BTreeMap<String, Vec<u8>>,
    layout: Layout,
    entries: Vec<Entry>,
}

impl Release<'_> {
    /// The layout has what is promised and nothing else, and both version tags come last.
    fn order(&self) -> Result<()> {
        let (image, chart) = (&self.promise.image, &self.promise.chart);
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for platform in image.platforms.values() {
            wanted.extend([&platform.manifest, &platform.sbom].map(|digest| format!("{}@{digest}", image.repository)));
        }
        if self.promise.signed {
            wanted.insert(format!("{}:{}", image.repository, signature::tag(&image.digest)));
            wanted.insert(format!("{}:{}", chart.repository, signature::tag(&chart.digest)));
        }
        let tags = [image.tagged(), chart.tagged()];
        wanted.extend(tags.clone());
        let names: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        let found: BTreeSet<String> = names.iter().cloned().collect();
        ensure!(found == wanted && names.len() == wanted.len(), "the layout has {names:?}, want {wanted:?}");
        ensure!(names.ends_with(&tags), "the layout ends with {:?}, not with the tags", names.last());
        for (name, digest) in tags.iter().zip([&image.digest, &chart.digest]) {
            let found = self.entry(name)?;
            ensure!(found.digest == *digest, "{name} leads to {}, not to {digest}", found.digest);
        }
        Ok(())
    }

    /// Every blob of every manifest is there.
    fn whole(&self) -> Result<()> {
        for entry in &self.entries {
            ensure!(self.layout.read(&entry.digest)?.len() as i64 == entry.size, "{} has another size", entry.name);
            if entry.name != self.promise.image.tagged() {
                let manifest = self.manifest(&entry.digest)?;
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    self.blob(blob).with_context(|| entry.name.clone())?;
                }
            }
        }
        Ok(())
    }

    fn index(&self) -> Result<()> {
        let image = &self.promise.image;
        let index: OciImageIndex = serde_json::from_slice(&self.layout.read(&image.digest)?)?;
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
        Ok(())
    }

    fn platform(&self, architecture: &str, platform: &Platform) -> Result<()> {
        let manifest = self.manifest(&platform.manifest)?;
        let config: Value = serde_json::from_slice(&self.blob(&manifest.config)?)?;
        ensure!(config["architecture"] == architecture, "its configuration says {}", config["architecture"]);
        let labels = &config["config"]["Labels"];
        for (key, wanted) in [("version", &self.promise.version), ("revision", &self.promise.revision)] {
            let found = &labels[format!("org.opencontainers.image.{key}")];
            ensure!(found == wanted.as_str(), "{key} is {found}, not {wanted}");
        }
        let [layer] = &manifest.layers[..] else { anyhow::bail!("{} layers", manifest.layers.len()) };

        let name = archive::name(architecture);
        let program = archive::program(self.file(&name)?).with_context(|| name.clone())?;
        let inside = archive::file(&self.blob(layer)?, twinspan::PROGRAM)?;
        ensure!(inside == program, "the image has another program than {name}");
        let crates = auditable_info::audit_info_from_slice(&program, AUDIT_LIMIT)
            .with_context(|| format!("{name}: the program has no list of its crates"))?;
        let ours = crates.packages.iter().any(|it| it.root && it.name == "twinspan");
        ensure!(ours && crates.packages.len() > CRATES, "{name}: the program lists {} crates", crates.packages.len());

        let referrer = self.manifest(&platform.sbom)?;
        ensure!(referrer.artifact_type.as_deref() == Some(SPDX), "the bill of materials has another type");
        let subject = referrer.subject.as_ref().context("the bill of materials refers to nothing")?;
        ensure!(subject.digest == platform.manifest, "the bill of materials refers to {}", subject.digest);
        let content = self.blob(referrer.layers.first().context("no bill of materials")?)?;
        ensure!(content == self.file(&bill(architecture))?, "{} is another bill of materials", bill(architecture));
        let content: Value = serde_json::from_slice(&content)?;
        let packages = content["packages"].as_array().context("a bill without packages")?;
        ensure!(content["spdxVersion"] == "SPDX-2.3" && packages.len() > CRATES, "a bill of {}", packages.len());
        let sum = sha256(&program);
        let own = packages.iter().find(|it| it["name"] == "twinspan").context("the bill has no program")?;
        ensure!(own["checksums"][0]["checksumValue"] == sum, "the bill is of another program: {}", own["checksums"]);
        Ok(())
    }

    fn chart(&self) -> Result<()> {
        let manifest = self.manifest(&self.promise.chart.digest)?;
        let kinds: Vec<&str> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        ensure!(manifest.config.media_type == chart::CONFIG && kinds == [chart::CONTENT], "it is no chart: {kinds:?}");
        let config: Value = serde_json::from_slice(&self.blob(&manifest.config)?)?;
        ensure!(config["appVersion"] == self.promise.version.as_str(), "appVersion is {}", config["appVersion"]);
        ensure!(config["name"] == "twinspan", "its name is {}", config["name"]);
        let file = format!("twinspan-{}.tgz", config["version"].as_str().context("no version")?);
        ensure!(self.blob(&manifest.layers[0])? == self.file(&file)?, "{file} is another chart");
        Ok(())
    }

    fn signatures(&self) -> Result<()> {
        let there = [SUMS_SIGNATURE, PUBLIC_KEY].map(|name| self.files.contains_key(name));
        ensure!(there == [self.promise.signed; 2], "signed: {}, but the files say {there:?}", self.promise.signed);
        if !self.promise.signed {
            return Ok(());
        }
        let text = |name: &str| -> Result<&str> { Ok(std::str::from_utf8(self.file(name)?)?) };
        let key = PublicKey::parse(text(PUBLIC_KEY)?).context(PUBLIC_KEY)?;
        key.verify(self.file(SUMS)?, text(SUMS_SIGNATURE)?).context(SUMS_SIGNATURE)?;
        let (image, chart) = (&self.promise.image, &self.promise.chart);
        for (repository, digest) in [(&image.repository, &image.digest), (&chart.repository, &chart.digest)] {
            let name = format!("{repository}:{}", signature::tag(digest));
            let manifest = self.manifest(&self.entry(&name)?.digest)?;
            signature::verify(&self.layout, &key, &manifest, digest).context(name)?;
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.iter().find(|entry| entry.name == name).with_context(|| format!("the layout has no {name}"))
    }

    fn file(&self, name: &str) -> Result<&[u8]> {
        Ok(self.files.get(name).with_context(|| format!("there is no {name}"))?)
    }

    fn manifest(&self, digest: &str) -> Result<OciImageManifest> {
        serde_json::from_slice(&self.layout.read(digest)?).with_context(|| digest.to_owned())
    }

    fn blob(&self, blob: &OciDescriptor) -> Result<Vec<u8>> {
        let content = self.layout.read(&blob.digest)?;
        ensure!(content.len() as i64 == blob.size, "{} has {} bytes, not {}", blob.digest, content.len(), blob.size);
        Ok(content)
    }
}
