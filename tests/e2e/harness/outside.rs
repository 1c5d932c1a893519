//! Stories whose exports have addresses of Nodes: each pod has a Node of its own, at which clients outside call it.
//!
//! Owns the mode of a story, and the address of each pod outside. Refuses to know what a story expects.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::next_v4;

use super::{Sandbox, Suite};

/// Ports of pods in stories; each is a hostPort too.
const PORTS: [u16; 2] = [80, 8888];

tokio::task_local! {
    static OUTSIDE: ();
}

/// The bed and the Node's address of each pod that was run in this way.
static NODES: Mutex<BTreeMap<IpAddr, (PathBuf, IpAddr)>> = Mutex::new(BTreeMap::new());

/// The same story, with addresses of Nodes.
pub fn outside<F, Fut>(
    story: F,
) -> impl FnOnce(Arc<Suite>) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>
where
    F: FnOnce(Arc<Suite>) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    move |suite| Box::pin(OUTSIDE.scope((), story(suite)))
}

/// Whether the story that runs is one of these.
pub fn is_outside() -> bool {
    OUTSIDE.try_with(|()| ()).is_ok()
}

/// The name of a part that a story starts, in either mode.
pub fn part_name(name: &str) -> String {
    if is_outside() { format!("{name}-of-nodes") } else { name.to_owned() }
}

/// The Node's address of a pod that was run in this way, in any bed or in another bed than this.
fn outer(ip: IpAddr, other_than: Option<&Path>) -> Option<IpAddr> {
    let nodes = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    nodes.get(&ip).filter(|(bed, _)| other_than != Some(bed)).map(|(_, outer)| *outer)
}

impl Sandbox<'_> {
    /// Runs a pod, not ready yet. Where exports have addresses of Nodes, it has one of its own.
    pub async fn run(&self, name: &str, labels: &BTreeMap<String, String>, ip: IpAddr) -> Result<()> {
        if !is_outside() {
            return self.pods.run(name, labels, &[ip]).await;
        }
        let known = outer(ip, None);
        let address = known.unwrap_or_else(|| IpAddr::V4(next_v4()));
        let node = format!("{}-{}", self.name, address.to_string().replace('.', "-"));
        if known.is_none() {
            let nodes: Api<Node> = Api::all(self.client());
            // No other story exports it.
            let labels = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
            let object = serde_json::from_value(json!({"metadata": {"name": node, "labels": labels}}))?;
            nodes.create(&PostParams::default(), &object).await?;
            let status = json!({"addresses": [{"type": "InternalIP", "address": address}],
                "conditions": [{"type": "Ready", "status": "True"}]});
            let patch = Patch::Merge(json!({"status": status}));
            nodes.patch_status(&node, &PatchParams::default(), &patch).await?;
            let bed = self.bed.dir().to_owned();
            NODES.lock().unwrap_or_else(PoisonError::into_inner).insert(ip, (bed, address));
        }
        let ports: Vec<Value> = PORTS.iter().map(|port| json!({"containerPort": port, "hostPort": port})).collect();
        self.pods.run_on(&node, name, labels, &[ip], json!(ports)).await
    }

    /// The address that the record of an instance has.
    pub fn exported(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(outer(address.ip(), None).unwrap_or_else(|| address.ip()), address.port())
    }

    /// The address that an instance has in the Services of this bed: a pod of another bed is known by its record.
    pub fn in_services(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(outer(address.ip(), Some(self.bed.dir())).unwrap_or_else(|| address.ip()), address.port())
    }
}
