//! Two networks with a wire between them: the node's, where kube-proxy and pods are, and everything outside. It owns the wire
//! and the routes; pods are connected by the CNI plugins.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use twinspan_testbed::namespace::ip;

use crate::address::{API_SERVER, CLUSTER_ETCD, MACHINES, NODE, PODS, REGISTRY, WIRE};

const NAME: &str = "node";
/// Without it packets between two pods would not come by kube-proxy's rules.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Argument of `nsenter` for the node's network.
pub(crate) fn node_namespace() -> String {
    format!("--net=/run/netns/{NAME}")
}

/// Whether the kernel can do it. Outside, where a module can be loaded.
pub(crate) fn check() -> Result<()> {
    if !Path::new(BRIDGED).exists() {
        // Only what is there afterwards counts.
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
    for address in [API_SERVER, CLUSTER_ETCD, REGISTRY] {
        ip(&format!("address add {address}/{WIRE} dev wire"))?;
    }
    ip("link set wire up")?;
    // Every machine is one of our own addresses, without giving each to an interface.
    ip(&format!("route add local {MACHINES} dev lo"))?;

    ip(&format!("-n {NAME} link set lo up"))?;
    ip(&format!("-n {NAME} address add {NODE}/{WIRE} dev eth0"))?;
    ip(&format!("-n {NAME} link set eth0 up"))?;
    ip(&format!("-n {NAME} route add default via {API_SERVER}"))?;
    ip(&format!("route add {PODS} via {NODE}"))?;
    for file in ["/proc/sys/net/ipv4/ip_forward", BRIDGED] {
        // As the node: these files are those of the network of who opens them.
        let status = Command::new("nsenter")
            .args([&node_namespace(), "sh", "-c", &format!("echo 1 >{file}")])
            .status()
            .context("cannot run `nsenter`; it is in the package util-linux")?;
        ensure!(status.success(), "cannot write {file}: {status}");
    }
    Ok(())
}
