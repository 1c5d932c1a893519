//! The file system of a node's programs: directories of their own where they would write to the machine's, and settings
//! as they require them. All of it is in the mount namespace only.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use crate::network;

const NOTHING: Option<&str> = None;
/// In memory, because containers use overlayfs, which not every file system supports.
const OWN: [&str; 3] = ["/run", "/var/lib", "/var/log"];
/// Settings of the whole machine that the kubelet requires. It sees these values; the machine keeps its own.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Directories that the machine does not share.
pub(crate) fn private(dir: &Path) -> Result<()> {
    nix::unistd::sethostname("node").context("cannot set a host name")?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
        .context("cannot make mounts private")?;
    for path in OWN {
        ensure!(!dir.starts_with(path), "{} cannot be in {path}; set TMPDIR to another place", dir.display());
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(|| format!("cannot mount {path}"))?;
    }
    Ok(())
}

/// Mounts the machine as the kubelet requires it. Runs after the network: `/sys` shows the interfaces of the process
/// that mounts it.
pub(crate) fn shown_to_the_kubelet(dir: &Path) -> Result<()> {
    let bind = |from: &Path, to: &str, recursive: bool| {
        let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
        mount(Some(from), to, NOTHING, flags, NOTHING).with_context(|| format!("cannot mount {to}"))
    };
    let cgroups = dir.join("cgroup");
    let shown = dir.join("settings");
    for directory in [&cgroups, &shown] {
        std::fs::create_dir_all(directory)?;
    }
    bind(Path::new("/sys/fs/cgroup"), &cgroups.display().to_string(), true)?;
    let sysfs = Command::new("nsenter")
        .arg(network::node_namespace())
        .args(["mount", "-t", "sysfs", "sysfs", "/sys"])
        .status()
        .context("cannot run `nsenter`; it is in the package util-linux")?;
    ensure!(sysfs.success(), "cannot mount /sys: {sysfs}");
    bind(&cgroups, "/sys/fs/cgroup", true)?;
    nix::mount::umount2(&cgroups, nix::mount::MntFlags::MNT_DETACH)?;
    for (setting, value) in SETTINGS {
        let file = shown.join(setting.replace('/', "."));
        std::fs::write(&file, format!("{value}\n"))?;
        bind(&file, &format!("/proc/sys/{setting}"), false)?;
    }
    // Containers must see the kubelet's mounts.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SHARED, NOTHING).context("cannot make mounts shared")?;
    Ok(())
}
