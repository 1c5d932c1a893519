//! The images of a node besides Twinspan's: each contains one program of the parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use twinspan_image::{Image, Root, binary as target};
use twinspan_testbed::namespace::binary;
use twinspan_testbed::repository;

/// Holds the namespaces of each pod.
pub(crate) const PAUSE: &str = "localhost/node/pause:1";

/// Where a node has Twinspan's image from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The archive of `make image`, which is loaded.
    Archive,
    /// A registry, which the node asks.
    Registry,
}

/// Writes the archives, and returns them together with the one of `make image` if that is the source.
pub(crate) fn write(dir: &Path, source: Source) -> Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    if source == Source::Archive {
        archives.push(repository().canonicalize()?.join("target/image/twinspan.tar"));
    }
    for (part, user) in [("pause", "65532:65532"), ("coredns", "0:0"), ("interop", "65532:65532")] {
        let archive = dir.join(format!("{part}.tar"));
        image(part, user)?.write(&archive)?;
        archives.push(archive);
    }
    Ok(archives)
}

fn image(part: &str, user: &str) -> Result<Image> {
    let mut root = Root::default();
    root.program(&format!("usr/bin/{part}"), Path::new(&binary(part)?))?;
    Ok(Image {
        name: format!("localhost/node/{part}:1"),
        architecture: target::architecture(&target::target()?)?.to_owned(),
        user: user.to_owned(),
        entrypoint: vec![format!("/usr/bin/{part}")],
        environment: Vec::new(),
        labels: BTreeMap::new(),
        created: 0,
        root,
    })
}
