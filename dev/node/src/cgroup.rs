//! A cgroup for the node, in every hierarchy of the machine: the kubelet puts pods below it and measures them. It
//! limits nothing, and touches no other cgroup.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "twinspan-node-";
/// The cgroup of the node's own processes: in version 2, a cgroup with children may not contain processes.
const OWN: &str = "system";
/// The controllers of version 2 that the kubelet needs.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// A cgroup that is removed on drop.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: String,
}

impl Cgroup {
    /// Creates the cgroup, and removes those that killed runs left behind.
    pub(crate) fn create() -> Result<Self> {
        for hierarchy in hierarchies()? {
            for left in std::fs::read_dir(&hierarchy)?.flatten() {
                let name = left.file_name().to_string_lossy().into_owned();
                let owner = name.strip_prefix(PREFIX);
                if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                    remove(&left.path());
                }
            }
        }
        let cgroup = Self { name: format!("{PREFIX}{}", std::process::id()) };
        for hierarchy in hierarchies()? {
            cgroup.create_in(&hierarchy).with_context(|| {
                format!(
                    "cannot make a cgroup in {}; in a container it has to be writable, and with cgroup v2 without processes",
                    hierarchy.display()
                )
            })?;
        }
        Ok(cgroup)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn create_in(&self, hierarchy: &Path) -> Result<()> {
        let (all, own) = (hierarchy.join(&self.name), hierarchy.join(&self.name).join(OWN));
        if hierarchy.join("cgroup.controllers").exists() {
            let there = std::fs::read_to_string(hierarchy.join("cgroup.controllers"))?;
            let wanted: Vec<String> =
                there.split_whitespace().filter(|c| CONTROLLERS.contains(c)).map(|c| format!("+{c}")).collect();
            std::fs::write(hierarchy.join("cgroup.subtree_control"), wanted.join(" "))?;
            std::fs::create_dir_all(&own)?;
            std::fs::write(all.join("cgroup.subtree_control"), wanted.join(" "))?;
            return Ok(());
        }
        for directory in [&all, &own] {
            std::fs::create_dir_all(directory)?;
            // Version 1 accepts no process before these have values.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchy.join(file).exists() {
                    std::fs::write(directory.join(file), std::fs::read(hierarchy.join(file))?)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel removes a killed process from its cgroup only a moment later.
        let started = Instant::now();
        let all: Vec<PathBuf> = hierarchies().unwrap_or_default().iter().map(|h| h.join(&self.name)).collect();
        while all.iter().any(|cgroup| cgroup.exists()) && started.elapsed() < Duration::from_secs(10) {
            all.iter().for_each(|cgroup| remove(cgroup));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Moves this process into the cgroup.
pub(crate) fn enter(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let procs = hierarchy.join(name).join(OWN).join("cgroup.procs");
        std::fs::write(&procs, "0").with_context(|| format!("cannot enter {}", procs.display()))?;
    }
    Ok(())
}

/// The mount points of the hierarchies: one of version 2, several of version 1, or both.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return Ok(vec![PathBuf::from(ROOT)]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(ROOT).context("no /sys/fs/cgroup")? {
        let entry = entry?;
        // Names such as `cpu` may be links to `cpu,cpuacct`.
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            found.push(entry.path());
        }
    }
    ensure!(!found.is_empty(), "no cgroups are mounted in {ROOT}");
    found.sort();
    Ok(found)
}

/// Removes a cgroup and everything below it, except cgroups with processes.
fn remove(cgroup: &Path) {
    for below in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&below.path());
        }
    }
    let _ = std::fs::remove_dir(cgroup);
}
