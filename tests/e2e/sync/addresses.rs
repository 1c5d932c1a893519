//! The addresses that clients outside get: those of Nodes and of load balancers follow the pods behind them.
//!
//! Refuses to call them: the bed has no kube-proxy, which `dev/node` has.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::{eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![addresses_of_nodes_follow_their_pods, addresses_of_a_load_balancer];

/// Nodes with nothing behind them but an object.
pub struct Nodes {
    api: Api<Node>,
    made: BTreeMap<String, Ipv4Addr>,
}

impl Nodes {
    /// Creates Nodes that are ready, with an address each.
    pub async fn create(sandbox: &Sandbox<'_>, names: &[&str], labels: Value) -> Result<Self> {
        let mut nodes = Self { api: Api::all(sandbox.client()), made: BTreeMap::new() };
        for name in names {
            let (name, ip) = (format!("{}-{name}", sandbox.name), next_v4());
            let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
            nodes.api.create(&PostParams::default(), &node).await?;
            nodes.made.insert(name.clone(), ip);
            let addresses = json!([{"type": "InternalIP", "address": ip}]);
            let status = json!({"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]});
            let patch = Patch::Merge(json!({"status": status}));
            nodes.api.patch_status(&name, &PatchParams::default(), &patch).await?;
        }
        Ok(nodes)
    }

    pub fn name(&self, sandbox: &Sandbox<'_>, name: &str) -> String {
        format!("{}-{name}", sandbox.name)
    }

    /// The address of a Node, at a port.
    pub fn at(&self, sandbox: &Sandbox<'_>, name: &str, port: u16) -> Result<SocketAddr> {
        let ip = self.made.get(&self.name(sandbox, name)).context("no such node")?;
        Ok(SocketAddr::from((*ip, port)))
    }

    pub async fn patch(&self, sandbox: &Sandbox<'_>, name: &str, patch: Value) -> Result<()> {
        self.api.patch(&self.name(sandbox, name), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    pub async fn delete(self) -> Result<()> {
        for name in self.made.keys() {
            self.api.delete(name, &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

/// A pod of `echo` that is ready, on a Node.
pub async fn pod_on(sandbox: &Sandbox<'_>, node: &str, pod: &str, ports: Value) -> Result<IpAddr> {
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    let ip = IpAddr::V4(next_v4());
    sandbox.pods.run_on(node, pod, &labels, &[ip], ports).await?;
    sandbox.pods.set_ready(pod, true).await?;
    Ok(ip)
}

/// The nodePort of the Service `echo`.
async fn node_port(sandbox: &Sandbox<'_>) -> Result<u16> {
    let service = sandbox.services().get("echo").await?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    Ok(u16::try_from(ports.first().and_then(|port| port.node_port).context("no nodePort")?)?)
}

async fn weights_become(sandbox: &Sandbox<'_>, expected: &[(SocketAddr, i64)]) -> Result<()> {
    let expected: BTreeMap<String, i64> = expected.iter().map(|(addr, weight)| (addr.to_string(), *weight)).collect();
    eventually("the weights", SOON, || async {
        let mut found = BTreeMap::new();
        for (value, ..) in sandbox.records("echo").await?.values() {
            let value: Value = serde_json::from_str(value)?;
            let address = value["address"].as_str().context("no address")?.to_owned();
            found.insert(address, value["weight"].as_i64().context("no weight")?);
        }
        ensure!(found == expected, "registered {found:?}, want {expected:?}");
        Ok(())
    })
    .await
}

async fn addresses_of_nodes_follow_their_pods(suite: Arc<Suite>) -> Result<()> {
    let sandbox = Sandbox::new(&suite.shared().await?.bed, "nodeaddr").await?;
    let nodes = Nodes::create(&sandbox, &["a", "b", "c"], json!({})).await?;
    let ports = json!([{"name": "rpc", "port": 8888}]);
    let spec =
        json!({"type": "NodePort", "externalTrafficPolicy": "Local", "selector": {"app": "echo"}, "ports": ports});
    sandbox.service("echo", spec).await?;
    sandbox.register("echo", json!({"export": {"address": "Node"}})).await?;
    let port = node_port(&sandbox).await?;
    let (node_a, node_b) = (nodes.name(&sandbox, "a"), nodes.name(&sandbox, "b"));
    let at = |name: &str| nodes.at(&sandbox, name, port);

    // Local: each Node with a ready pod, with the sum of their weights.
    pod_on(&sandbox, &node_a, "one", json!([])).await?;
    let two = pod_on(&sandbox, &node_a, "two", json!([])).await?;
    pod_on(&sandbox, &node_b, "three", json!([])).await?;
    weights_become(&sandbox, &[(at("a")?, 20), (at("b")?, 10)]).await?;

    // The last pod of a Node withdraws its record, and comes back with it.
    sandbox.pods.set_ready("one", false).await?;
    weights_become(&sandbox, &[(at("a")?, 10), (at("b")?, 10)]).await?;
    sandbox.pods.terminate("three").await?;
    weights_become(&sandbox, &[(at("a")?, 10)]).await?;
    sandbox.pods.remove("three").await?;
    let four = pod_on(&sandbox, &node_b, "four", json!([])).await?;
    weights_become(&sandbox, &[(at("a")?, 10), (at("b")?, 10)]).await?;

    // The hostPort of a pod leads to it alone.
    let host = json!([{"containerPort": 8888, "hostPort": 18888}]);
    pod_on(&sandbox, &node_b, "five", host).await?;
    weights_become(&sandbox, &[(at("a")?, 10), (at("b")?, 10), (nodes.at(&sandbox, "b", 18888)?, 10)]).await?;
    sandbox.pods.remove("five").await?;
    weights_become(&sandbox, &[(at("a")?, 10), (at("b")?, 10)]).await?;

    // Cluster: every Node leads to every pod, and they share the traffic; one that is cordoned goes.
    let policy = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    sandbox.services().patch("echo", &PatchParams::default(), &Patch::Merge(policy)).await?;
    weights_become(&sandbox, &[(at("a")?, 7), (at("b")?, 7), (at("c")?, 7)]).await?;
    nodes.patch(&sandbox, "c", json!({"spec": {"unschedulable": true}})).await?;
    weights_become(&sandbox, &[(at("a")?, 10), (at("b")?, 10)]).await?;

    // The annotation of a Node wins.
    let over: SocketAddr = SocketAddr::from((next_v4(), port));
    let annotation = json!({"metadata": {"annotations": {"twinspan.dev/export-address": over.ip().to_string()}}});
    nodes.patch(&sandbox, "a", annotation).await?;
    weights_become(&sandbox, &[(over, 10), (at("b")?, 10)]).await?;

    // Without nodePorts no Node can be called; the pods can, where clients reach them.
    let plain = Patch::Merge(json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": null, "ports": ports}}));
    sandbox.services().patch("echo", &PatchParams::default(), &plain).await?;
    sandbox.condition("echo", "Accepted", "False", "NoNodePort").await?;
    weights_become(&sandbox, &[]).await?;
    sandbox.patch("echo", json!({"export": {"address": "Pod"}})).await?;
    sandbox.records_become("echo", &[(two, 8888).into(), (four, 8888).into()]).await?;
    nodes.delete().await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn addresses_of_a_load_balancer(suite: Arc<Suite>) -> Result<()> {
    let sandbox = Sandbox::new(&suite.shared().await?.bed, "balancer").await?;
    let ports = json!([{"name": "rpc", "port": 8888}]);
    let spec = json!({"type": "LoadBalancer", "selector": {"app": "echo"}, "ports": ports});
    sandbox.service("echo", spec).await?;
    sandbox.register("echo", json!({"export": {"address": "LoadBalancer"}})).await?;
    pod_on(&sandbox, twinspan_testbed::NODE, "one", json!([])).await?;
    let balanced = async |ingress: Value| -> Result<()> {
        let status = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        sandbox.services().patch_status("echo", &PatchParams::default(), &status).await?;
        Ok(())
    };
    // A name is not resolved.
    balanced(json!([{"hostname": "balancer.example.com"}])).await?;
    eventually("the reason", SOON, || async {
        let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
        ensure!(status.differences.iter().any(|skipped| skipped.reason == "NoAddress"), "{:?}", status.differences);
        Ok(())
    })
    .await?;
    let (first, second) = (next_v4(), next_v4());
    balanced(json!([{"ip": first.to_string()}])).await?;
    weights_become(&sandbox, &[((first, 8888).into(), 10)]).await?;
    balanced(json!([{"ip": first.to_string()}, {"ip": second.to_string()}])).await?;
    weights_become(&sandbox, &[((first, 8888).into(), 5), ((second, 8888).into(), 5)]).await?;
    sandbox.pods.set_ready("one", false).await?;
    weights_become(&sandbox, &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}
