//! A machine without a route to pods: its clients fail with the addresses of pods, and are answered at those of the
//! node.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use twinspan_node::{Node, address, scene};
use twinspan_testbed::{Call, Caller, Framework, eventually};

use crate::pods;
use crate::steps::SOON;

const LEDGER: &str = "ledger.rpc";
const LEDGER_PORT: u16 = 8080;
/// Calls in a row that tell of a state.
const SEVERAL: usize = 20;

pub async fn nodes_are_reached_where_pods_are_not(node: &Node) -> Result<()> {
    node.apply("outside.yaml").await?;
    node.rolled_out(scene::SHOP, "ledger").await?;
    let ledgers = pods::addresses(node, "app=ledger", LEDGER_PORT).await?;
    let users = pods::users(node).await?;
    records_become(node, &format!("{LEDGER}/"), &ledgers).await?;
    let etcd = node.registry.endpoint();
    let kitex = Caller::start(node.unrouted(), Framework::Kitex, etcd, scene::USER, None)?;
    let gozero = Caller::start(node.unrouted(), Framework::GoZero, etcd, LEDGER, None)?;
    all_fail(&kitex).await?;
    all_fail(&gozero).await?;

    // The operator's part of the change, and the owner's.
    let service = r#"{"spec": {"type": "NodePort", "externalTrafficPolicy": "Local"}}"#;
    node.kubectl(&["patch", "service", "user", "-n", scene::SHOP, "-p", service]).await?;
    for name in ["user", "ledger"] {
        let address = r#"{"spec": {"export": {"address": "Node"}}}"#;
        node.kubectl(&["patch", "rsvc", name, "-n", scene::SHOP, "--type=merge", "-p", address]).await?;
    }
    answered_by_some(&kitex, &users).await?;
    answered_by_some(&gozero, &ledgers).await?;
    let user_at = node_port(node, "user").await?;
    records_become(node, &format!("kitex/registry-etcd/{}/", scene::USER), &[user_at].into()).await?;
    records_become(node, &format!("{LEDGER}/"), &[node_port(node, "ledger").await?].into()).await?;

    // A drain takes the last pod off the node, and its record goes; new pods wait until the node takes some again.
    let name = node.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).await?;
    node.kubectl(&["drain", &name, "--pod-selector", "app=user", "--ignore-daemonsets", "--timeout", "60s"]).await?;
    records_become(node, &format!("kitex/registry-etcd/{}/", scene::USER), &BTreeSet::new()).await?;
    node.kubectl(&["uncordon", &name]).await?;
    records_become(node, &format!("kitex/registry-etcd/{}/", scene::USER), &[user_at].into()).await?;
    node.rolled_out(scene::SHOP, "user").await?;
    answered_by_some(&kitex, &pods::users(node).await?).await
}

/// Waits until every call is answered by one of the pods: a connection to the node stays with the pod that it led to.
async fn answered_by_some(client: &Caller, pods: &BTreeSet<SocketAddr>) -> Result<()> {
    let mark = Cell::new(client.mark());
    eventually("calls in a row are answered", SOON, || async {
        client.part().check_running()?;
        let calls = client.calls_since(mark.get())?;
        if let Some(other) = calls.iter().find(|call| !matches!(call, Call::From(from) if pods.contains(from))) {
            mark.set(client.mark());
            bail!("{other:?}, want one of {pods:?}");
        }
        ensure!(calls.len() >= SEVERAL, "{} calls", calls.len());
        Ok(())
    })
    .await
}

/// The node's address with the nodePort of a Service.
async fn node_port(node: &Node, service: &str) -> Result<SocketAddr> {
    let port = "jsonpath={.spec.ports[0].nodePort}";
    let port = node.kubectl(&["get", "service", service, "-n", scene::SHOP, "-o", port]).await?;
    Ok(SocketAddr::from((address::NODE, port.parse()?)))
}

/// Waits until the records under a prefix have these addresses. The machine's own servers have another name.
async fn records_become(node: &Node, prefix: &str, expected: &BTreeSet<SocketAddr>) -> Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    eventually("the registered addresses", SOON, || async {
        let records = node.registry.dump(prefix).await?;
        let last = |key: &String| key.rsplit(['/', '~']).next().unwrap_or_default().to_owned();
        let found: BTreeSet<String> = records.keys().map(last).collect();
        ensure!(found == expected, "registered {found:?}, want {expected:?}");
        Ok(())
    })
    .await
}

async fn all_fail(client: &Caller) -> Result<()> {
    let mark = client.mark();
    eventually("several calls", SOON, || async {
        client.part().check_running()?;
        ensure!(client.calls_since(mark)?.len() >= SEVERAL, "{} calls", client.calls_since(mark)?.len());
        Ok(())
    })
    .await?;
    let answered = client.calls_since(mark)?.into_iter().find(|call| matches!(call, Call::From(_)));
    ensure!(answered.is_none(), "answered without a route: {answered:?}");
    Ok(())
}
