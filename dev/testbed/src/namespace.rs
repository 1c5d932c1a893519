//! Runs the program again in namespaces of its own.
//!
//! Network: EndpointSlices refuse loopback addresses, so instances that answer need other local addresses, and only a
//! namespace of its own can have these without a change to the machine. PIDs: when the program ends, however it ends,
//! the kernel ends every process that it started.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{network, repository};

const INSIDE: &str = "TWINSPAN_INSIDE_BED";
/// The parts of a bed.
pub const BED: [&str; 3] = ["controlplane", "coredns", "interop"];
/// The parts that tests use besides.
pub const ASKED: [&str; 4] = ["oracle", "helm", "prometheus", "etcdutl"];

/// Returns inside the namespaces. Outside, it builds the missing parts of a bed and these parts (which needs the
/// network), and then replaces the process with one inside.
pub fn enter(parts: &[&str]) -> Result<()> {
    enter_with(&[&BED, parts].concat())
}

/// The same with these parts alone.
pub fn enter_with(parts: &[&str]) -> Result<()> {
    if is_inside() { set_up() } else { unshare(&[], parts) }
}

/// The same for a bed whose parts are on [`network::Host`]s of their own, which also takes a mount namespace.
pub fn enter_with_hosts(parts: &[&str]) -> Result<()> {
    if is_inside() { network::set_up() } else { unshare(&["--mount"], &[&BED, parts].concat()) }
}

fn unshare(more: &[&str], parts: &[&str]) -> Result<()> {
    let mut command = Command::new("unshare");
    if !is_root()? {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(more).args(["--net", "--pid", "--fork", "--kill-child", "--"]);
    can_unshare(&command)?;
    for part in parts {
        command.env(variable(part), build(part)?);
    }
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(command.exec()).context("cannot start `unshare`; it is in the package util-linux")
}

/// True if this process is the one inside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Our own PID in the PID namespace of the machine: `/proc` is still the machine's.
pub fn outer_pid() -> Result<u32> {
    let link = std::fs::read_link("/proc/self").context("no /proc")?;
    link.to_str().and_then(|pid| pid.parse().ok()).context("/proc/self names no process")
}

/// The page `status` of `/proc`, which is the machine's, for a PID inside our namespace (proc_pid_status(5)).
pub fn process_status(pid: u32) -> Result<String> {
    let ours = std::fs::read_link("/proc/self/ns/pid")?;
    let inner = format!("\t{pid}");
    for process in std::fs::read_dir("/proc")?.flatten().map(|entry| entry.path()) {
        let is_ours = std::fs::read_link(process.join("ns/pid")).is_ok_and(|of| of == ours);
        // Processes may end while we look.
        let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
        let names = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        if is_ours && names.is_some_and(|pids| pids.ends_with(&inner)) {
            return Ok(status);
        }
    }
    bail!("no process {pid} in this namespace")
}

/// A running bed, for commands that enter it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Access {
    /// The PID of a process inside, in the PID namespace of the machine.
    pub pid: u32,
    /// The namespaces to enter, as options of `nsenter`.
    pub namespaces: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// The binary that is kubectl and etcdctl.
    pub tools: String,
}

impl Access {
    /// Writes the file that [`join`] looks for, and returns its path.
    pub fn write(&self, name: &str) -> Result<PathBuf> {
        let path = access_file(name);
        std::fs::create_dir_all(repository().join("target"))?;
        std::fs::write(&path, serde_json::to_string_pretty(self)?)?;
        Ok(path)
    }
}

fn access_file(name: &str) -> PathBuf {
    repository().join(format!("target/{name}.json"))
}

/// Replaces the process with a command inside a bed that is up; returns only why that was not possible.
pub fn join(name: &str, start: &str, command: &[String]) -> Result<std::io::Error> {
    let text = std::fs::read_to_string(access_file(name))
        .with_context(|| format!("no {name} is up; start one with `{start}`"))?;
    let access: Access = serde_json::from_str(&text)?;
    let user = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
    let theirs = user(&access.pid.to_string()).with_context(|| format!("the {name} is no longer up"))?;
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--target={}", access.pid));
    nsenter.args(access.namespaces.iter().map(|namespace| format!("--{namespace}")));
    if theirs != user("self")? {
        nsenter.args(["--user", "--preserve-credentials"]);
    }
    nsenter.arg("--").envs(access.env);
    if matches!(command[0].as_str(), "kubectl" | "etcdctl") {
        nsenter.arg(access.tools);
    }
    Ok(nsenter.args(command).exec())
}

/// The binary of a part. Only inside the namespaces.
pub fn binary(part: &str) -> Result<String> {
    std::env::var(variable(part)).with_context(|| format!("{} is not set: not inside the bed", variable(part)))
}

/// The environment variable that names the binary of a part.
pub fn variable(part: &str) -> String {
    format!("TWINSPAN_{}", part.to_uppercase())
}

fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output().context("cannot run `id`")?;
    Ok(output.stdout.trim_ascii() == b"0")
}

fn can_unshare(command: &Command) -> Result<()> {
    let output = Command::new(command.get_program())
        .args(command.get_args())
        .arg("true")
        .output()
        .context("cannot run `unshare`; it is in the package util-linux")?;
    if !output.status.success() {
        bail!(
            "this system does not let us make a network namespace: {}\n\
             Run as root, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1; on Ubuntu 24.04 and later \
             kernel.apparmor_restrict_unprivileged_userns=0; in a container give it CAP_SYS_ADMIN).",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// The binary of a part, built if it is missing. Only outside of the namespaces, because a build needs the network.
pub fn build(part: &str) -> Result<String> {
    let output = Command::new(repository().join("dev/parts/build"))
        .arg(part)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run dev/parts/build")?;
    ensure!(output.status.success(), "dev/parts/build {part} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Makes every address of the bed's networks a local one, without giving each to an interface.
fn set_up() -> Result<()> {
    for arguments in
        ["link set lo up", "route replace local 10.77.0.0/16 dev lo", "-6 route replace local fd77::/64 dev lo"]
    {
        ip(arguments)?;
    }
    Ok(())
}

/// Runs `ip` with arguments that are separated by single spaces.
pub fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("cannot run `ip`; it is in the package iproute2")?;
    ensure!(output.status.success(), "`ip {arguments}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
