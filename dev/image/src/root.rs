//! The files of an image. Owns their order, owners and times, which are the same on every machine; it does not know
//! the purpose of the files.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

#[derive(Debug)]
struct File {
    mode: u32,
    content: Vec<u8>,
}

/// Files by their path in the image, without the leading slash. Directories are created as needed.
#[derive(Debug, Default)]
pub struct Root {
    files: BTreeMap<String, File>,
}

impl Root {
    /// A file that every user may read.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.files.insert(path.to_owned(), File { mode: 0o644, content: content.into() });
        self
    }

    /// A copy of a program of this machine.
    pub fn program(&mut self, path: &str, from: &Path) -> Result<&mut Self> {
        let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.files.insert(path.to_owned(), File { mode: 0o755, content });
        Ok(self)
    }

    /// Every directory above a file, parents first.
    fn directories(&self) -> Vec<&str> {
        let ends = self.files.keys().flat_map(|path| path.match_indices('/').map(|(end, _)| &path[..end]));
        let all: std::collections::BTreeSet<&str> = ends.collect();
        all.into_iter().collect()
    }

    /// The files as a tar archive; all belong to root and have the same time, in seconds since 1970.
    pub fn tar(&self, seconds: u64) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for directory in self.directories() {
            append(&mut tar, &format!("{directory}/"), EntryType::Directory, 0o755, seconds, &[])?;
        }
        for (path, file) in &self.files {
            append(&mut tar, path, EntryType::Regular, file.mode, seconds, &file.content)?;
        }
        Ok(tar.into_inner()?)
    }

    /// The files as a directory of this machine, for tools that copy a directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        for (path, file) in &self.files {
            let path = directory.join(path);
            let parent = path.parent().context("a file without a directory")?;
            std::fs::create_dir_all(parent)?;
            std::fs::write(&path, &file.content).with_context(|| format!("cannot write {}", path.display()))?;
            std::fs::set_permissions(&path, Permissions::from_mode(file.mode))?;
        }
        Ok(())
    }
}

/// One entry that does not depend on the user, the machine or the time.
pub(crate) fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    seconds: u64,
    content: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(seconds);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).with_context(|| format!("{path} in an archive"))
}
