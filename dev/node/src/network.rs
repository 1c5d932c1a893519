//! Two networks with a virtual Ethernet pair between them: the node's, with kube-proxy and the pods, and the rest; and
//! one of a machine that has no route to pods, as most machines outside of a cluster. It owns the pairs and the routes;
//! the CNI plugins connect the pods.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use twinspan_testbed::namespace::ip;

use twinspan_testbed::Host;

use crate::address::{
    API_SERVER, CLUSTER_ETCD, IMAGES, MACHINES, NODE, PODS, REGISTRY, UNROUTED, UNROUTED_GATEWAY, WIRE,
};

const NAME: &str = "node";
const UNROUTED_NAME: &str = "unrouted";
/// Without it, packets between two pods would bypass kube-proxy's rules.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Argument of `nsenter` for the node's network.
pub(crate) fn node_namespace() -> String {
    format!("--net=/run/netns/{NAME}")
}

/// Fails if the kernel lacks a feature. Runs outside of the namespaces, where a module can be loaded.
pub(crate) fn check() -> Result<()> {
    if !Path::new(BRIDGED).exists() {
        // The result does not matter; the check below does.
        let _ = Command::new("modprobe").arg("br_netfilter").status();
    }
    ensure!(Path::new(BRIDGED).exists(), "the kernel module br_netfilter is missing; run `modprobe br_netfilter`");
    Ok(())
}

/// Inside the namespaces.
pub(crate) fn set_up() -> Result<()> {
    ip("link set lo up")?;
    ip(&format!("netns add {NAME}"))?;
    ip(&format!("link add wire type veth peer name eth0 netns {NAME}"))?;
    for address in [API_SERVER, CLUSTER_ETCD, REGISTRY, IMAGES] {
        ip(&format!("address add {address}/{WIRE} dev wire"))?;
    }
    ip("link set wire up")?;
    // Makes every address of the network a local one, without giving each to an interface.
    ip(&format!("route add local {MACHINES} dev lo"))?;

    ip(&format!("-n {NAME} link set lo up"))?;
    ip(&format!("-n {NAME} address add {NODE}/{WIRE} dev eth0"))?;
    ip(&format!("-n {NAME} link set eth0 up"))?;
    ip(&format!("-n {NAME} route add default via {API_SERVER}"))?;
    ip(&format!("route add {PODS} via {NODE}"))?;
    set_up_unrouted()?;
    for file in ["/proc/sys/net/ipv4/ip_forward", BRIDGED] {
        // Runs in the node's network: these files show the network of the process that opens them.
        let status = Command::new("nsenter")
            .args([&node_namespace(), "sh", "-c", &format!("echo 1 >{file}")])
            .status()
            .context("cannot run `nsenter`; it is in the package util-linux")?;
        ensure!(status.success(), "cannot write {file}: {status}");
    }
    Ok(())
}

/// The machine that reaches the registry and the node, and no pod.
fn set_up_unrouted() -> Result<()> {
    ip(&format!("netns add {UNROUTED_NAME}"))?;
    ip(&format!("link add way-out type veth peer name eth0 netns {UNROUTED_NAME}"))?;
    ip(&format!("address add {UNROUTED_GATEWAY}/{WIRE} dev way-out"))?;
    ip("link set way-out up")?;
    ip(&format!("-n {UNROUTED_NAME} link set lo up"))?;
    ip(&format!("-n {UNROUTED_NAME} address add {UNROUTED}/{WIRE} dev eth0"))?;
    ip(&format!("-n {UNROUTED_NAME} link set eth0 up"))?;
    ip(&format!("-n {UNROUTED_NAME} route add default via {UNROUTED_GATEWAY}"))?;
    ip(&format!("-n {UNROUTED_NAME} route add unreachable {PODS}"))?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward packets of the machine")
}

/// The machine, as the place of a program.
pub(crate) fn unrouted() -> Host {
    Host::made(UNROUTED_NAME, UNROUTED)
}
