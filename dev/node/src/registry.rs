//! A registry of images outside of the node, as a registry on the internet is; containerd trusts it without TLS. The
//! module does not know what is pushed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use twinspan_testbed::namespace::binary;
use twinspan_testbed::{Part, eventually};

use crate::address::IMAGES;

const PORT: u16 = 5000;

/// The registry's host and port.
pub fn images() -> String {
    format!("{IMAGES}:{PORT}")
}

/// A running registry.
#[derive(Debug)]
pub struct Images {
    part: Part,
}

impl Images {
    /// An empty one. Only inside.
    pub async fn start(dir: &Path) -> Result<Self> {
        let files = dir.join("images");
        std::fs::create_dir_all(&files)?;
        let args = [format!("-listen={}", images()), format!("-dir={}", files.display())];
        let part = Part::start("images", dir, &binary("registry")?, &args, &[])?;
        eventually("the registry of images accepts connections", Duration::from_secs(30), || async {
            part.check_running()?;
            TcpStream::connect(images()).await.context("no connection")?;
            Ok(())
        })
        .await?;
        Ok(Self { part })
    }

    /// Fails unless containerd has pulled this blob from it.
    pub fn pulled_by_containerd(&self, digest: &str) -> Result<()> {
        self.part.check_running()?;
        let log = std::fs::read_to_string(self.part.log())?;
        let asked = |line: &str| line.contains(&format!("/blobs/{digest}")) && line.contains("containerd/");
        ensure!(log.lines().any(asked), "containerd has not asked for {digest}; see {}", self.part.log().display());
        Ok(())
    }
}

/// Writes the directory by which containerd knows that the registry does not speak TLS.
pub(crate) fn trusted_by_containerd(directory: &Path) -> Result<()> {
    let host = directory.join(images());
    std::fs::create_dir_all(&host)?;
    let server = format!("http://{}", images());
    std::fs::write(
        host.join("hosts.toml"),
        format!("server = \"{server}\"\n\n[host.\"{server}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"),
    )?;
    Ok(())
}
