//! Pods without a kubelet: the test writes the status that a kubelet would write.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
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

    /// A running pod with readiness gates whose containers are ready: only the gates keep it from being ready, as its
    /// kubelet says.
    pub async fn run_gated(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        ip: IpAddr,
        gates: &[&str],
        annotations: Value,
    ) -> Result<()> {
        let gates: Vec<_> = gates.iter().map(|gate| json!({"conditionType": gate})).collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "none"}], "readinessGates": gates},
        }))?;
        self.api.create(&PostParams::default(), &pod).await?;
        self.status(name, json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]})).await?;
        self.condition(name, "ContainersReady", true, "").await?;
        self.kubelet(name).await.map(drop)
    }

    /// Sets one condition and leaves the others.
    pub async fn condition(&self, name: &str, kind: &str, holds: bool, reason: &str) -> Result<()> {
        let (status, now) = (if holds { "True" } else { "False" }, Timestamp::now().to_string());
        let condition = json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": now});
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        self.api.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Does what a kubelet does once it sees the pod: Ready follows from the containers and the gates
    /// (`pkg/kubelet/status/generate.go`). Returns whether the pod is ready.
    pub async fn kubelet(&self, name: &str) -> Result<bool> {
        let pod = self.api.get(name).await?;
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        let holds = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        let gates = pod.spec.and_then(|spec| spec.readiness_gates).unwrap_or_default();
        let ready = holds("ContainersReady") && gates.iter().all(|gate| holds(&gate.condition_type));
        let reason = match (ready, holds("ContainersReady")) {
            (true, _) => "",
            (false, true) => "ReadinessGatesNotReady",
            (false, false) => "ContainersNotReady",
        };
        self.condition(name, "Ready", ready, reason).await?;
        Ok(ready)
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
