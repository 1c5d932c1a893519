//! Pods without a kubelet: the test writes the status that a kubelet would write.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// The Node of every pod of the bed. A story may create it first, in its own way.
pub const NODE: &str = "bed-node";

/// The pods of one namespace.
#[derive(Clone, Debug)]
pub struct Pods {
    api: Api<Pod>,
}

impl Pods {
    pub async fn in_namespace(client: &Client, namespace: &str) -> Result<Self> {
        let nodes: Api<Node> = Api::all(client.clone());
        // As most clusters have them; the pods of a story have addresses outside.
        let spec = json!({"podCIDR": "10.79.0.0/24", "podCIDRs": ["10.79.0.0/24"]});
        let node: Node = serde_json::from_value(json!({"metadata": {"name": NODE}, "spec": spec}))?;
        match nodes.create(&PostParams::default(), &node).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { api: Api::namespaced(client.clone(), namespace) })
    }

    /// A running pod on the node of the bed, with its addresses, not ready yet.
    pub async fn run(&self, name: &str, labels: &BTreeMap<String, String>, ips: &[IpAddr]) -> Result<()> {
        self.run_on(NODE, name, labels, ips, json!([])).await
    }

    /// The same on another node, with the ports of its container.
    pub async fn run_on(
        &self,
        node: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        ips: &[IpAddr],
        ports: Value,
    ) -> Result<()> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none", "ports": ports}]},
        }))?;
        self.api.create(&PostParams::default(), &pod).await?;
        let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        self.status(name, json!({"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips})).await
    }

    pub async fn set_ready(&self, name: &str, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "False" };
        self.status(name, json!({"conditions": [{"type": "Ready", "status": status}]})).await
    }

    async fn status(&self, name: &str, status: Value) -> Result<()> {
        self.api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
        Ok(())
    }

    /// Deletes a pod as `kubectl delete` does; without a kubelet it stays terminating.
    pub async fn terminate(&self, name: &str) -> Result<()> {
        self.api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Reports that the containers have ended: the object is deleted.
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.api.delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }
}
