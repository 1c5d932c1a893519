//! Rolling updates of a Deployment while a real Kitex client on a machine outside calls it.
//!
//! Owns the three ways in which its pods begin and end, and the count of calls that failed. Refuses to judge them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twinspan_testbed::{Tallied, Tally, eventually, holds};

use crate::{Node, address, scene};

/// Calls that begin in a second.
pub const RATE: usize = 300;
/// Pods of the Deployment.
const REPLICAS: usize = 6;
/// A Kitex client asks its registry every 5 s, and goes on with a list until then.
const LEARNED: Duration = Duration::from_secs(6);
/// A rolling update of six pods on a busy machine.
const ROLLED: Duration = Duration::from_secs(180);

/// The way to keep calls from pods that are not there yet, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Nothing,
    /// A `preStop` hook that sleeps, as guides to graceful shutdown have it.
    Sleep,
    /// The readiness gate and the drain.
    Handshake,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Sleep, Self::Handshake];

    /// The name of the Deployment, its Service and its RegisteredService.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "without",
            Self::Sleep => "sleeping",
            Self::Handshake => "handshake",
        }
    }

    fn lifecycle(self) -> Value {
        let path = format!("/drained/{}/{}", scene::SHOP, self.name());
        match self {
            Self::Nothing => Value::Null,
            Self::Sleep => json!({"preStop": {"sleep": {"seconds": 10}}}),
            Self::Handshake => {
                json!({"preStop": {"httpGet": {"host": address::DRAIN.to_string(), "port": 8083, "path": path}}})
            }
        }
    }

    fn gates(self) -> Value {
        match self {
            Self::Handshake => json!([{"conditionType": "twinspan.dev/registered"}]),
            Self::Nothing | Self::Sleep => Value::Null,
        }
    }

    fn registry_name(self) -> String {
        format!("rolled.{}", self.name())
    }

    fn manifest(self) -> Value {
        let name = self.name();
        let meta = json!({"name": name, "namespace": scene::SHOP});
        let labels = json!({"app": name});
        let listen = "-listen=$(POD_IP):8888";
        let container = json!({
            "name": "server",
            "image": "localhost/node/interop:1",
            "args": ["kitex-server", "-no-register", "-service=rolled", listen],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "ports": [{"name": "rpc", "containerPort": 8888}],
            "readinessProbe": {"tcpSocket": {"port": "rpc"}, "periodSeconds": 1},
            "lifecycle": self.lifecycle(),
        });
        let template = json!({
            "metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 45, "readinessGates": self.gates(), "containers": [container]},
        });
        json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": meta,
                "spec": {"registryRef": {"name": "main"}, "registryName": self.registry_name()}},
            {"apiVersion": "v1", "kind": "Service", "metadata": meta,
                "spec": {"selector": labels, "ports": [{"name": "rpc", "port": 8888, "targetPort": "rpc"}]}},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
                "replicas": REPLICAS,
                "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}},
                "selector": {"matchLabels": labels},
                "template": template,
            }},
        ]})
    }
}

/// One rolling update.
#[derive(Clone, Debug)]
pub struct Rolled {
    /// Until every new pod was ready.
    pub ready: Duration,
    /// Until every old pod was gone.
    pub gone: Duration,
    /// The calls from its beginning until the client knew its end.
    pub calls: Tallied,
}

/// A Deployment, and the client that calls it.
pub struct Rollout<'a> {
    node: &'a Node,
    way: Way,
    client: Tally,
}

impl<'a> Rollout<'a> {
    /// Deploys the pods, and waits until the client calls all of them.
    pub async fn begin(node: &'a Node, way: Way) -> Result<Rollout<'a>> {
        let path = node.dir().join(format!("{}.json", way.name()));
        std::fs::write(&path, serde_json::to_vec_pretty(&way.manifest())?)?;
        node.kubectl(&["apply", "-f", &path.display().to_string()]).await?;
        node.rolled_out(scene::SHOP, way.name()).await?;
        let client = Tally::at_rate(node.dir(), node.registry.endpoint(), &way.registry_name(), RATE)?;
        eventually("the client calls every pod", Duration::from_secs(60), || async {
            let calls = client.calls_since(client.mark(), RATE, LEARNED).await?;
            ensure!(calls.failed == 0 && calls.to.len() == REPLICAS, "{calls:?}");
            Ok(())
        })
        .await?;
        Ok(Self { node, way, client })
    }

    /// A rolling update, until the client knows its end.
    pub async fn roll(&self) -> Result<Rolled> {
        let old = names(&self.pods().await?)?;
        let (mark, began) = (self.client.mark(), Instant::now());
        self.restart().await?;
        self.end(&old, mark, began).await
    }

    /// A rolling update that begins just before etcd freezes: nothing goes on, nothing is lost, and it ends after the
    /// thaw.
    pub async fn roll_while_frozen(&self, frozen: Duration) -> Result<Rolled> {
        let old = names(&self.pods().await?)?;
        let (mark, began) = (self.client.mark(), Instant::now());
        self.restart().await?;
        let registry = self.node.registry.part();
        registry.freeze()?;
        let stopped = async {
            eventually("the containers of new pods are ready", LEARNED * 4, || async {
                let pods = self.pods().await?;
                let waits = |pod: &&Value| condition(pod, "ContainersReady") && !condition(pod, "Ready");
                let waiting = pods.iter().filter(waits).count();
                ensure!(waiting == pods.len() - old.len() && waiting > 0, "{waiting} of {} pods wait", pods.len());
                Ok(())
            })
            .await?;
            holds("no registered pod ends, and the rollout waits", frozen, || async {
                let pods = self.pods().await?;
                let serves = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null() && condition(pod, "Ready");
                let serving = names(&pods.into_iter().filter(|pod| serves(&pod)).collect::<Vec<_>>())?;
                ensure!(serving == old, "{serving:?} serve, want {old:?}");
                Ok(())
            })
            .await
        }
        .await;
        registry.thaw()?;
        stopped?;
        self.end(&old, mark, began).await
    }

    /// The pods that there are, ending or not.
    pub async fn pods(&self) -> Result<Vec<Value>> {
        let labels = format!("app={}", self.way.name());
        let printed = self.node.kubectl(&["get", "pods", "-n", scene::SHOP, "-l", &labels, "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&printed)?;
        Ok(list["items"].as_array().context("no list")?.clone())
    }

    async fn restart(&self) -> Result<()> {
        let deployment = format!("deployment/{}", self.way.name());
        self.node.kubectl(&["rollout", "restart", "-n", scene::SHOP, &deployment]).await?;
        Ok(())
    }

    async fn end(&self, old: &BTreeSet<String>, mark: usize, began: Instant) -> Result<Rolled> {
        self.node.rolled_out(scene::SHOP, self.way.name()).await?;
        let ready = began.elapsed();
        eventually("every old pod is gone", ROLLED, || async {
            let left = names(&self.pods().await?)?;
            ensure!(left.is_disjoint(old), "{left:?}");
            Ok(())
        })
        .await?;
        let gone = began.elapsed();
        Ok(Rolled { ready, gone, calls: self.calls_since(mark).await? })
    }

    /// The calls since the mark, and those that the client makes until it knows what there is now.
    async fn calls_since(&self, mark: usize) -> Result<Tallied> {
        let more = RATE * usize::try_from(LEARNED.as_secs())?;
        self.client.calls_since(self.client.mark(), more, LEARNED * 5).await?;
        self.client.calls_since(mark, more, LEARNED).await
    }
}

fn names(pods: &[Value]) -> Result<BTreeSet<String>> {
    let name = |pod: &Value| Ok(pod["metadata"]["name"].as_str().context("a pod without a name")?.to_owned());
    pods.iter().map(name).collect()
}

/// Whether a condition of a pod is True.
pub fn condition(pod: &Value, kind: &str) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|it| it["type"] == kind && it["status"] == "True"))
}
