//! containerd with runc and the CNI plugins, from the machine's packages, with directories and a network of its own. It
//! does not know the content of its images.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use twinspan_testbed::{Part, eventually};

use crate::address::PODS;
use crate::images::PAUSE;
use crate::{network, registry};

pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
/// The directories of the plugins in Debian and Ubuntu, and the one of the plugins' own archive.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Fails if the machine lacks a program or a plugin.
pub(crate) fn check() -> Result<()> {
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    };
    for program in ["containerd", "ctr", "runc", "nft"] {
        ensure!(found(program), "{program} is missing; run `make setup-node`");
    }
    plugins().map(|_| ())
}

fn plugins() -> Result<&'static Path> {
    match PLUGINS.iter().map(Path::new).find(|directory| directory.join("bridge").exists()) {
        Some(directory) => Ok(directory),
        None => bail!("the CNI plugins are missing in {}; run `make setup-node`", PLUGINS.join(" and ")),
    }
}

#[derive(Debug)]
pub(crate) struct Containerd {
    part: Part,
}

impl Containerd {
    pub(crate) async fn start(dir: &Path) -> Result<Self> {
        let networks = dir.join("cni");
        std::fs::create_dir_all(&networks)?;
        std::fs::write(
            networks.join("10-node.conflist"),
            format!(
                r#"{{"cniVersion": "1.0.0", "name": "node", "plugins": [{{"type": "bridge", "bridge": "cni0",
  "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
  "ipam": {{"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{{"subnet": "{PODS}"}}]]}}}}]}}
"#
            ),
        )?;
        let registries = dir.join("registries");
        registry::trusted_by_containerd(&registries)?;
        let config = dir.join("containerd.toml");
        std::fs::write(
            &config,
            format!(
                r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE, as in many containers, nobody may make a process less likely to be killed than its parent.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{}"
    conf_dir = "{}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
                registries.display(),
                plugins()?.display(),
                networks.display()
            ),
        )?;
        let config = config.display().to_string();
        let part = part("containerd", dir, "containerd", &[format!("--config={config}")])?;
        eventually("containerd answers", Duration::from_secs(30), || async {
            part.check_running()?;
            ctr(&["version".to_owned()]).await
        })
        .await?;
        Ok(Self { part })
    }

    pub(crate) fn check_running(&self) -> Result<()> {
        self.part.check_running()
    }

    /// Loads an archive, as `docker load` would.
    pub(crate) async fn load(&self, archive: PathBuf) -> Result<()> {
        let archive = archive.display().to_string();
        ctr(&["--namespace=k8s.io".to_owned(), "images".to_owned(), "import".to_owned(), archive.clone()])
            .await
            .with_context(|| format!("cannot load {archive}"))
    }
}

/// A process in the node's network.
pub(crate) fn part(name: &str, dir: &Path, program: &str, args: &[String]) -> Result<Part> {
    let mut all = vec![network::node_namespace(), "--".to_owned(), program.to_owned()];
    all.extend_from_slice(args);
    Part::start(name, dir, "nsenter", &all, &[])
}

async fn ctr(args: &[String]) -> Result<()> {
    let output = Command::new("ctr").arg(format!("--address={SOCKET}")).args(args).output().await?;
    ensure!(output.status.success(), "ctr: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
