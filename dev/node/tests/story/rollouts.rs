//! Rolling updates with the readiness gate and the drain: no call fails, a frozen registry stops them, and without a
//! replica of Twinspan pods end as they would without a hook.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use twinspan_node::rollouts::{Rollout, Way, condition};
use twinspan_node::{Node, address, scene};
use twinspan_testbed::{OPERATOR_NAMESPACE, eventually, holds};

use crate::pods;
use crate::steps::SOON;

pub async fn no_call_is_lost(node: &Node) -> Result<()> {
    let rollout = Rollout::begin(node, Way::Handshake).await?;
    let rolled = rollout.roll().await?;
    ensure!(rolled.calls.failed == 0, "{rolled:?}");
    let rolled = rollout.roll_while_frozen(Duration::from_secs(15)).await?;
    ensure!(rolled.calls.failed == 0, "{rolled:?}");
    while_nobody_runs(node, &rollout).await?;
    node.kubectl(&["delete", "deployment", Way::Handshake.name(), "-n", scene::SHOP]).await?;
    Ok(())
}

/// A pod's end does not wait for Twinspan, and a new pod's beginning does.
async fn while_nobody_runs(node: &Node, rollout: &Rollout<'_>) -> Result<()> {
    scale(node, 0).await?;
    eventually("no replica runs", SOON, || async {
        let left = pods::operators(node).await?;
        ensure!(left.is_empty(), "{} are left", left.len());
        Ok(())
    })
    .await?;
    // kube-proxy writes its rules at most once a second. Until then the hook reaches for a replica that is gone.
    eventually("nothing stands behind the address of the drain", SOON, || async {
        let connecting = timeout(Duration::from_secs(1), TcpStream::connect((address::DRAIN, 8083))).await;
        ensure!(matches!(connecting, Ok(Err(_))), "{connecting:?}");
        Ok(())
    })
    .await?;
    let before = rollout.pods().await?;
    let ends = pods::name(before.first().context("no pod")?)?.to_owned();
    // Far less than its grace period.
    node.kubectl(&["delete", "pod", &ends, "-n", scene::SHOP, "--timeout=30s"]).await?;
    let known: BTreeSet<&str> = before.iter().map(pods::name).collect::<Result<_>>()?;
    let fresh = || async {
        let pods = rollout.pods().await?;
        let is_new = |pod: &Value| pods::name(pod).is_ok_and(|name| !known.contains(name));
        pods.into_iter().find(is_new).context("no pod in its place")
    };
    eventually("the containers of the pod in its place are ready", SOON, || async {
        ensure!(condition(&fresh().await?, "ContainersReady"));
        Ok(())
    })
    .await?;
    holds("it waits", Duration::from_secs(5), || async { Ok(condition(&fresh().await?, "Ready")) }).await?;
    ensure!(!condition(&fresh().await?, "Ready"), "nobody opened its gate");
    let events =
        node.kubectl(&["get", "events", "-n", scene::SHOP, "--field-selector=reason=FailedPreStopHook"]).await?;
    ensure!(events.contains(&ends), "{events}");
    scale(node, 2).await?;
    node.rolled_out(OPERATOR_NAMESPACE, "twinspan").await?;
    node.rolled_out(scene::SHOP, Way::Handshake.name()).await
}

async fn scale(node: &Node, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    node.kubectl(&["scale", "deployment/twinspan", "-n", OPERATOR_NAMESPACE, &replicas]).await?;
    Ok(())
}
