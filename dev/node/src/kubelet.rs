//! kubelet, kube-proxy (nftables) and kube-scheduler, each with its own identity.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use twinspan_testbed::namespace::binary;
use twinspan_testbed::{ControlPlane, Part, eventually};

use crate::address::{DNS, NODE, PODS};
use crate::containerd::{SOCKET, part};
use crate::tools::kubectl;

const NAME: &str = "node";
/// Lines of the API server's token file.
pub(crate) const USERS: [&str; 3] = [
    "node-kubelet,system:node:node,node-kubelet,system:nodes",
    "node-proxy,system:kube-proxy,node-proxy",
    "node-scheduler,system:kube-scheduler,node-scheduler",
];

#[derive(Debug)]
pub(crate) struct Kubelet {
    kubelet: Part,
    proxy: Part,
    scheduler: Part,
}

impl Kubelet {
    pub(crate) fn start(dir: &Path, cluster: &ControlPlane, cgroup: &str) -> Result<Self> {
        let program = binary("kubelet")?;
        let show = |path: &Path| path.display().to_string();
        // Pods need no name from outside.
        let names = dir.join("resolv.conf");
        std::fs::write(&names, "")?;
        let config = dir.join("kubelet.yaml");
        std::fs::write(
            &config,
            format!(
                r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {NODE}
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
clusterDNS: [{DNS}]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://{SOCKET}
# How full the machine's disk is says nothing about this node.
evictionHard: {{memory.available: 100Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
# It stops where a setting of the machine is not as it wants it, instead of changing it.
protectKernelDefaults: true
readOnlyPort: 0
resolvConf: {}
volumePluginDir: {}
"#,
                show(&names),
                show(&dir.join("volume-plugins"))
            ),
        )?;
        let access = cluster.kubeconfig(dir, "kubelet", "node-kubelet")?;
        let kubelet = part(
            "kubelet",
            dir,
            &program,
            &[
                "kubelet".to_owned(),
                format!("--config={}", show(&config)),
                format!("--kubeconfig={}", show(&access.path)),
                format!("--hostname-override={NAME}"),
                format!("--node-ip={NODE}"),
                format!("--cert-dir={}", show(&dir.join("kubelet-pki"))),
            ],
        )?;

        let access = cluster.kubeconfig(dir, "kube-proxy", "node-proxy")?;
        let config = dir.join("kube-proxy.yaml");
        std::fs::write(
            &config,
            format!(
                r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: {}}}
clusterCIDR: {PODS}
# These are the machine's and not the node's.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
detectLocalMode: ClusterCIDR
hostnameOverride: {NAME}
# Where the API server's proxy finds it, as on clusters with a monitoring stack.
metricsBindAddress: {NODE}:10249
"#,
                show(&access.path)
            ),
        )?;
        let config = format!("--config={}", show(&config));
        let proxy = part("kube-proxy", dir, &program, &["kube-proxy".to_owned(), config])?;

        let access = cluster.kubeconfig(dir, "kube-scheduler", "node-scheduler")?;
        let args = [
            "kube-scheduler".to_owned(),
            format!("--kubeconfig={}", show(&access.path)),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
            format!("--cert-dir={}", show(&dir.join("scheduler-pki"))),
        ];
        let scheduler = Part::start("kube-scheduler", dir, &program, &args, &[])?;
        Ok(Self { kubelet, proxy, scheduler })
    }

    pub(crate) async fn ready(&self, dir: &Path) -> Result<()> {
        eventually("the node is ready", Duration::from_secs(120), || async {
            self.check_running()?;
            let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            let answer = kubectl(dir, &["get", "node", NAME, "-o", ready]).await?;
            ensure!(answer == "True", "{answer}");
            Ok(())
        })
        .await
    }

    pub(crate) fn check_running(&self) -> Result<()> {
        [&self.kubelet, &self.proxy, &self.scheduler].into_iter().try_for_each(Part::check_running)
    }
}
