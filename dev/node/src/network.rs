//! Two networks with a virtual Ethernet pair between them: the node's, with kube-proxy and the pods, and the rest. It
//! owns the pair and the routes; the CNI plugins connect the pods.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use twinspan_testbed::namespace::ip;

use crate::address::{API_SERVER, CLUSTER_ETCD, MACHINES, NODE, PODS, REGISTRY, WIRE};

const NAME: &str = "node";
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
    for address in [API_SERVER, CLUSTER_ETCD, REGISTRY] {
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
