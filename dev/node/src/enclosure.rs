//! Runs the program again in namespaces of its own (mount, network, PID, UTS, IPC) and a cgroup of its own, under one
//! first process. When the program ends, however it ends, the kernel ends every process in them, and with them the
//! mounts and networks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::wait::{WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use twinspan_testbed::namespace::{Access, build, variable};
use twinspan_testbed::repository;

use crate::cgroup::{self, Cgroup};
use crate::{address, containerd, mounts, network};

const ROLE: &str = "TWINSPAN_NODE_ROLE";
const FIRST: &str = "first process";
const SECOND: &str = "node";
const DIRECTORY: &str = "TWINSPAN_NODE_DIRECTORY";
const CGROUP: &str = "TWINSPAN_NODE_CGROUP";

const PARTS: [&str; 6] = ["controlplane", "coredns", "helm", "interop", "kubelet", "pause"];
const NAMESPACES: [&str; 5] = ["mount", "net", "uts", "ipc", "pid"];

/// The parameters of the program inside.
#[derive(Debug)]
pub struct Enclosure {
    /// For logs and data; removed at the end unless an error occurred.
    pub dir: PathBuf,
    pub(crate) cgroup: String,
}

/// The role of this process.
#[derive(Debug)]
pub enum Place {
    Inside(Enclosure),
    /// Outside: the program inside has ended with this code.
    Outside(ExitCode),
}

/// Returns inside; returns outside after the program inside has ended.
pub fn enter() -> Result<Place> {
    enter_with(&[], || Ok(()))
}

/// The same with more parts, and with work that is done outside, after them.
pub fn enter_with(more: &[&str], prepare: impl FnOnce() -> Result<()>) -> Result<Place> {
    match std::env::var(ROLE).as_deref() {
        Ok(FIRST) => first().map(Place::Outside),
        Ok(SECOND) => {
            let enclosure = Enclosure { dir: std::env::var(DIRECTORY)?.into(), cgroup: std::env::var(CGROUP)? };
            mounts::private(&enclosure.dir)?;
            network::set_up()?;
            mounts::shown_to_the_kubelet(&enclosure.dir)?;
            Ok(Place::Inside(enclosure))
        }
        // On this thread: the program inside ends with the thread that started it.
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(outside(more, prepare))
            .map(Place::Outside),
    }
}

/// Replaces the process with a command inside a node that is up; returns only why that was not possible.
pub fn join(command: &[String]) -> Result<std::io::Error> {
    twinspan_testbed::namespace::join("node", "make node", command)
}

/// The kubeconfig of the administrator, at a path that is valid inside and outside.
pub(crate) fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join("admin.kubeconfig")
}

/// Does everything that needs the machine or its network, and waits for the program inside.
async fn outside(more: &[&str], prepare: impl FnOnce() -> Result<()>) -> Result<ExitCode> {
    ensure!(cfg!(target_os = "linux"), "a node needs Linux; use a virtual machine");
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a node needs root, for containers are made by it; run `sudo -E make node`, or `sudo -E make test-node`"
    );
    containerd::check()?;
    network::check()?;
    let parts: Vec<(&str, String)> =
        PARTS.iter().chain(more).map(|part| Ok((*part, build(part)?))).collect::<Result<_>>()?;
    let image = Command::new("cargo")
        .args(["run", "--quiet", "--package=twinspan-image", "--", "archive"])
        .current_dir(repository())
        // Standard output belongs to the program inside.
        .stdout(std::io::stderr())
        .status()
        .context("cannot run cargo")?;
    ensure!(image.success(), "the image was not built: {image}");
    prepare()?;

    let dir = std::env::temp_dir().join(format!("twinspan-node-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let cgroup = Cgroup::create()?;
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--fork", "--kill-child", "--mount-proc"]);
    command.args(NAMESPACES.map(|namespace| format!("--{namespace}")));
    command.arg("--").arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    command.envs(parts.iter().map(|(part, binary)| (variable(part), binary)));
    command.env(ROLE, FIRST).env(DIRECTORY, &dir).env(CGROUP, cgroup.name());
    // Ctrl-C reaches the program inside as well, which handles it.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut inside = command.spawn().context("cannot start `setpriv`; it is in the package util-linux")?;
    let access = Access {
        pid: inside.id().context("no PID")?,
        namespaces: NAMESPACES.map(ToOwned::to_owned).to_vec(),
        env: BTreeMap::from([
            ("KUBECONFIG".to_owned(), kubeconfig(&dir).display().to_string()),
            ("ETCDCTL_ENDPOINTS".to_owned(), format!("http://{}:2379", address::REGISTRY)),
        ]),
        tools: parts.iter().find(|(part, _)| *part == "controlplane").context("no control plane")?.1.clone(),
    }
    .write("node")?;
    let status = loop {
        tokio::select! {
            status = inside.wait() => break status?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => inside.start_kill()?,
        }
    };
    std::fs::remove_file(access)?;
    if status.success() {
        std::fs::remove_dir_all(&dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("logs are kept in {}", dir.display());
    Ok(ExitCode::FAILURE)
}

/// The first process of the PID namespace: it reaps orphans, such as the shims of containerd, and ends with the process
/// that it starts.
fn first() -> Result<ExitCode> {
    cgroup::enter(&std::env::var(CGROUP)?)?;
    let child = Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(ROLE, SECOND).spawn()?;
    let pid = i32::try_from(child.id())?;
    loop {
        match wait()? {
            WaitStatus::Exited(ended, code) if ended.as_raw() == pid => {
                return Ok(if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            WaitStatus::Signaled(ended, signal, _) if ended.as_raw() == pid => bail!("ended by {signal}"),
            _ => {}
        }
    }
}
