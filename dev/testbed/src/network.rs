//! Hosts: network namespaces on one bridge inside the bed's own, so that a partition is by pair.
//!
//! Owns bridge, namespaces and addresses. Refuses to know which parts run there, and to break a connection.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::namespace::ip;

const BRIDGE: &str = "bed";
/// Where `ip netns` keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// The bed's own address on the bridge: programs that observe and change the bed are there.
pub const OBSERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);

/// Makes the bridge. Needs a mount namespace of its own, for the names of the hosts.
pub(crate) fn set_up() -> Result<()> {
    // The machine's own names of namespaces are neither seen nor changed, and no root is needed to write here.
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status().context("cannot run `mount`")?;
    ensure!(mounted.success(), "cannot mount a tmpfs on /run");
    std::fs::create_dir_all(NAMES)?;
    ip("link set lo up")?;
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("address add {OBSERVER}/16 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))
}

/// One host: a network namespace with one interface, `eth0`, and one address.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
}

impl Host {
    /// Makes the namespace and connects it to the bridge. `name` is a part of an interface's name: at most 10 letters.
    pub fn create(name: &str, address: Ipv4Addr) -> Result<Self> {
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add bed-{name} type veth peer name eth0 netns {name}"))?;
        ip(&format!("link set bed-{name} master {BRIDGE} up"))?;
        ip(&format!("-n {name} address add {address}/16 dev eth0"))?;
        for device in ["lo", "eth0"] {
            ip(&format!("-n {name} link set {device} up"))?;
        }
        Ok(Self { name: name.to_owned(), address })
    }

    /// A namespace that somebody else made and connected.
    pub fn made(name: &str, address: Ipv4Addr) -> Self {
        Self { name: name.to_owned(), address }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// This host as the place of a part with files in `dir`.
    pub fn place(&self, dir: &Path) -> Place {
        Place { dir: dir.to_owned(), host: Some(self.clone()) }
    }

    /// Runs a program of the network (`nft`, `tc`) here, with this standard input.
    pub fn run(&self, program: &str, args: &[&str], input: &str) -> Result<()> {
        let mut child = Command::new("nsenter")
            .arg(self.option())
            .arg("--")
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `nsenter`; it is in the package util-linux")?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{program} {}` on {}: {}", args.join(" "), self.name, told.trim());
        Ok(())
    }

    fn option(&self) -> String {
        format!("--net={NAMES}/{}", self.name)
    }
}

/// Where a part runs: the directory of its files, and its host if it has one of its own.
#[derive(Clone, Debug)]
pub struct Place {
    dir: PathBuf,
    host: Option<Host>,
}

impl Place {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The program and the arguments that run a program here. `nsenter` becomes the program, so its PID is the
    /// program's.
    pub(crate) fn command(&self, program: &str, args: &[String]) -> (String, Vec<String>) {
        match &self.host {
            None => (program.to_owned(), args.to_vec()),
            Some(host) => {
                let before = [host.option(), "--".to_owned(), program.to_owned()];
                ("nsenter".to_owned(), before.into_iter().chain(args.iter().cloned()).collect())
            }
        }
    }
}

impl From<&Path> for Place {
    fn from(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), host: None }
    }
}

impl From<&PathBuf> for Place {
    fn from(dir: &PathBuf) -> Self {
        Self::from(dir.as_path())
    }
}
