//! The steps before any disturbance.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use twinspan_node::{Node, scene};
use twinspan_testbed::{Caller, Framework, OPERATOR_NAMESPACE, Server, eventually, repository, resolve};

use crate::pods::{self, Process};

/// The limit for changes that take a second or two on a quiet machine.
pub const SOON: Duration = Duration::from_secs(60);
const PROGRAM: &str = "/usr/local/bin/twinspan";

/// The process of Twinspan in a pod.
pub fn twinspan(pod: &str) -> Result<Process> {
    Process::find(PROGRAM, pod)
}

/// Helm has waited until the pods were ready. They run the archive of `make image`, without privileges.
pub async fn pods_run_our_image_as_nobody(node: &Node) -> Result<()> {
    let built = std::fs::File::open(repository().join("target/image/twinspan.tar"))?;
    let size = built.metadata()?.len();
    ensure!(size < 40_000_000, "the archive has {size} bytes");
    let operators = pods::operators(node).await?;
    ensure!(operators.len() == 2, "{} replicas", operators.len());
    for pod in &operators {
        let container = &pod["status"]["containerStatuses"][0];
        ensure!(container["ready"] == true && container["restartCount"] == 0, "{container}");
        let process = twinspan(pods::name(pod)?)?;
        for (key, wanted) in [
            ("Uid", "65532\t65532\t65532\t65532"),
            ("Gid", "65532\t65532\t65532\t65532"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("NoNewPrivs", "1"),
            // A filter is in force.
            ("Seccomp", "2"),
        ] {
            let found = process.status(key)?;
            ensure!(found == wanted, "{key} is {found}, not {wanted}");
        }
        let root = process.root_mount()?;
        ensure!(root.split(',').any(|option| option == "ro"), "the root is mounted {root}");
    }
    Ok(())
}

/// Real Kitex clients that know only etcd.
pub async fn clients_outside_call_pods(node: &Node) -> Result<Caller> {
    let users = pods::users(node).await?;
    ensure!(users.len() == 2, "{users:?}");
    let etcd = node.registry.endpoint();
    let resolved = resolve(Framework::Kitex, etcd, scene::USER, None, &[]).await?;
    let addresses: BTreeSet<SocketAddr> = resolved.iter().map(|i| i.address.parse()).collect::<Result<_, _>>()?;
    ensure!(addresses == users, "a Kitex client resolves {addresses:?}; the pods are {users:?}");
    let caller = Caller::start(node.dir(), Framework::Kitex, etcd, scene::USER, None)?;
    caller.answered_by(&users, SOON).await?;
    Ok(caller)
}

/// By name, and by an address that only kube-proxy serves.
pub async fn pods_call_a_machine(node: &Node, machine: &Server) -> Result<()> {
    node.apply("clients.yaml").await?;
    node.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "-n",
        scene::SHOP,
        "pod/by-name",
        "pod/by-address",
    ])
    .await?;
    for pod in ["by-name", "by-address"] {
        eventually("the pod is answered by the machine", SOON, || async {
            let calls = pods::calls(node, pod).await?;
            let last = calls.last().context("no call")?;
            ensure!(last.as_ref() == Ok(&machine.address()), "{pod}: {last:?}");
            Ok(())
        })
        .await?;
    }
    let of_service = |field: &'static str| async move {
        node.kubectl(&["get", "service", "payment-vip", "-n", scene::SHOP, "-o", &format!("jsonpath={field}")]).await
    };
    let virtual_address = of_service("{.spec.clusterIP}").await?;
    let client = Process::find("/usr/bin/interop", "by-address")?;
    let variable = client.environment.get("PAYMENT_VIP_SERVICE_HOST");
    ensure!(variable == Some(&virtual_address), "PAYMENT_VIP_SERVICE_HOST is {variable:?}, not {virtual_address}");
    let host = format!("-host={virtual_address}:9000");
    ensure!(client.arguments.contains(&host), "the client was started with {:?}", client.arguments);
    Ok(())
}

/// The most common commands.
pub async fn people_see_it(node: &Node, machine: &Server) -> Result<()> {
    let ip = machine.address().ip().to_string();
    let slices = node.kubectl(&["get", "endpointslices", "-n", scene::SHOP]).await?;
    for service in ["payment-", "payment-vip-"] {
        let row = slices.lines().find(|row| {
            let name = row.split_whitespace().next().unwrap_or_default();
            name.strip_prefix(service).is_some_and(|hash| !hash.contains('-'))
        });
        let row = row.with_context(|| format!("no slice of {service}:\n{slices}"))?;
        let columns: Vec<&str> = row.split_whitespace().collect();
        ensure!(columns[1..4] == ["IPv4", "9000", &ip], "{row}");
    }
    let described = node.kubectl(&["describe", "service", "payment-vip", "-n", scene::SHOP]).await?;
    let endpoints = described.lines().find_map(|line| line.strip_prefix("Endpoints:")).map(str::trim);
    ensure!(endpoints == Some(&machine.address().to_string()), "{described}");
    // In a pod of the operator, with its roles and the cluster's DNS.
    for (args, wanted) in [(&["parity", "payment", "-n", scene::SHOP][..], ip.as_str()), (&["doctor"], " 0 failed")] {
        let exec = ["exec", "-n", OPERATOR_NAMESPACE, "deployment/twinspan", "--", "twinspan"];
        let said = node.kubectl(&[&exec, args].concat()).await?;
        ensure!(said.contains(wanted), "{args:?}: {said}");
    }
    Ok(())
}
