//! The file of a bundle: a compressed archive, or a directory.
//!
//! Owns its form, and that nobody but its owner may read it. Refuses to look into the files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use twinspan_core::Timestamp;

use super::Bundle;

/// The directory in the archive.
const ROOT: &str = "twinspan-report";

#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}", path = path.display())]
pub struct ArchiveError {
    path: PathBuf,
    source: io::Error,
}

/// Writes an archive if the name ends with `.tar.gz` or `.tgz`, and a directory otherwise.
///
/// # Errors
/// [`ArchiveError`] names the file.
pub fn write(bundle: &Bundle, path: &Path, now: Timestamp) -> Result<(), ArchiveError> {
    let name = path.to_string_lossy();
    let failed = |source| ArchiveError { path: path.to_owned(), source };
    if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        let file = private().open(path).map_err(failed)?;
        archive(bundle, file, now).map_err(failed)
    } else {
        directory(bundle, path).map_err(failed)
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
}

fn archive(bundle: &Bundle, file: impl Write, now: Timestamp) -> io::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, text) in &bundle.files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or_default());
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        tar.append_data(&mut header, format!("{ROOT}/{name}"), text.as_bytes())?;
    }
    tar.into_inner()?.finish()?.flush()
}

fn directory(bundle: &Bundle, path: &Path) -> io::Result<()> {
    let mut create = DirBuilder::new();
    create.recursive(true).mode(0o700);
    create.create(path)?;
    for (name, text) in &bundle.files {
        let file = path.join(name);
        if let Some(parent) = file.parent() {
            create.create(parent)?;
        }
        private().open(&file)?.write_all(text.as_bytes())?;
    }
    fs::metadata(path).map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    #[test]
    fn the_same_bundle_is_the_same_archive_and_every_file_is_in_it() {
        let files =
            BTreeMap::from([("a.txt".to_owned(), "one".to_owned()), ("logs/b.log".to_owned(), "two".to_owned())]);
        let bundle = Bundle { files, problems: Vec::new() };
        let packed = || {
            let mut bytes = Vec::new();
            archive(&bundle, &mut bytes, Timestamp::from_second(1_700_000_000).unwrap()).unwrap();
            bytes
        };
        let bytes = packed();
        assert_eq!(bytes, packed());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let read = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        let wanted = [("twinspan-report/a.txt", "one"), ("twinspan-report/logs/b.log", "two")];
        assert_eq!(read.collect::<Vec<_>>(), wanted.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
