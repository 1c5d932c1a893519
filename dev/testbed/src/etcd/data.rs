//! The data directory of one etcd, and a copy of it.
//!
//! Owns both on the disk and their end. Refuses to know the process: [`Etcd`](super::Etcd) drops it first.

use std::io::Result;
use std::path::{Path, PathBuf};

/// A directory that goes when this value is dropped: one run of the stories starts far more than a hundred etcds, which
/// would fill a disk together.
#[derive(Debug)]
pub(super) struct Data {
    dir: PathBuf,
}

impl Data {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn saved(&self) -> PathBuf {
        self.dir.with_extension("saved")
    }

    pub(super) fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.dir)
    }

    pub(super) fn save(&self) -> Result<()> {
        copy(&self.dir, &self.saved())
    }

    /// Takes the copy in place of the data.
    pub(super) fn restore(&self) -> Result<()> {
        self.remove()?;
        copy(&self.saved(), &self.dir)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // A part that never ran has no directory, and one that cannot be removed goes with the whole run's.
        let _ = self.remove();
        let _ = std::fs::remove_dir_all(self.saved());
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
