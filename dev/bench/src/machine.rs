//! The machine and the commit of a run.
//!
//! Owns the reading of `/proc`. Refuses to name the machine itself.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;
use twinspan_testbed::repository;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub cpu: String,
    pub memory_gib: f64,
    pub kernel: String,
    pub commit: String,
}

impl Machine {
    pub fn read() -> Result<Self> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: cpu.map_or("an unnamed processor", |(_, model)| model).to_owned(),
            memory_gib: kib.context("no MemTotal")?.parse::<f64>()? / f64::from(1 << 20),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            commit: commit(),
        })
    }
}

/// The commit of the sources, marked where they were changed since.
fn commit() -> String {
    let described =
        Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]).current_dir(repository()).output();
    let text = described.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or_else(|| "unknown".to_owned(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}
