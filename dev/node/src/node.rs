//! The cluster inside: a control plane, one node, and CoreDNS in a pod; a registry is outside of it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use twinspan_testbed::{ControlPlane, Etcd, Kind, NEWEST, Place, repository};

use crate::containerd::Containerd;
use crate::enclosure::Enclosure;
use crate::images::Source;
use crate::kubelet::{self, Kubelet};
use crate::tools::{helm, kubectl};
use crate::{address, images, network};

const KIND: Kind = Kind {
    release: NEWEST,
    users: &kubelet::USERS,
    apiserver: &[
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",
    ],
    // All of them.
    controller_manager: &[],
    manifests: &["dev/node/manifests/coredns.yaml", "dev/node/manifests/kube-proxy.yaml"],
};

#[derive(Debug)]
pub struct Node {
    dir: PathBuf,
    pub cluster: ControlPlane,
    pub registry: Etcd,
    containerd: Containerd,
    kubelet: Kubelet,
}

impl Node {
    /// Starts everything, with the image of `make image`, and waits until pods find each other by name.
    pub async fn start(enclosure: &Enclosure) -> Result<Self> {
        Self::start_with(enclosure, Source::Archive).await
    }

    /// The same with the image from this source.
    pub async fn start_with(enclosure: &Enclosure, source: Source) -> Result<Self> {
        let dir = enclosure.dir.clone();
        let registry = Etcd::spawn("registry-etcd", &dir, address::REGISTRY, &[])?;
        let (cluster, containerd) = tokio::try_join!(
            ControlPlane::start(&dir, address::API_SERVER, address::CLUSTER_ETCD, KIND),
            containerd_with_images(&dir, source)
        )?;
        let kubelet = Kubelet::start(&dir, &cluster, &enclosure.cgroup)?;
        let node = Self { dir, cluster, registry, containerd, kubelet };
        node.registry.ready().await?;
        node.kubelet.ready(&node.dir).await?;
        node.rolled_out("kube-system", "coredns").await?;
        Ok(node)
    }

    /// The directory of logs and data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A machine outside that has no route to pods.
    pub fn unrouted(&self) -> Place {
        network::unrouted().place(&self.dir)
    }

    /// The output of `kubectl`.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        kubectl(&self.dir, args).await
    }

    /// The output of `helm`.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        helm(&self.dir, args).await
    }

    /// Applies a file of `dev/node/manifests`.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        let path = repository().join("dev/node/manifests").join(manifest);
        self.kubectl(&["apply", "-f", &path.display().to_string()]).await?;
        Ok(())
    }

    /// Waits for a Deployment.
    pub async fn rolled_out(&self, namespace: &str, deployment: &str) -> Result<()> {
        self.check_running()?;
        let deployment = format!("deployment/{deployment}");
        self.kubectl(&["rollout", "status", "--timeout=120s", "-n", namespace, &deployment]).await?;
        Ok(())
    }

    /// Fails with the end of the log if a part of the node has ended.
    pub fn check_running(&self) -> Result<()> {
        self.containerd.check_running()?;
        self.kubelet.check_running()
    }
}

async fn containerd_with_images(dir: &Path, source: Source) -> Result<Containerd> {
    let containerd = Containerd::start(dir).await?;
    for archive in images::write(dir, source)? {
        containerd.load(archive).await?;
    }
    Ok(containerd)
}
