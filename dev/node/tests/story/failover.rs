//! The leading pod is killed, and no client notices.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use twinspan_node::{Node, scene};
use twinspan_testbed::{Call, Caller, OPERATOR_NAMESPACE, eventually};

use crate::pods;
use crate::steps::{SOON, twinspan};
use crate::witness::{RECORDS, Witness};

const CLIENTS: [&str; 2] = ["by-name", "by-address"];

pub async fn nothing_is_lost(node: &Node, outside: &Caller) -> Result<()> {
    let before = node.registry.dump(RECORDS).await?;
    ensure!(before.len() == 3, "two pods and a machine: {before:?}");
    let witness = Witness::new(node).await?;
    let mark = outside.mark();
    let mut marks = Vec::new();
    for client in CLIENTS {
        marks.push(pods::calls(node, client).await?.len());
    }

    let first = leader(node).await?;
    // SIGKILL: with SIGTERM the pod would release its Lease.
    kill(Pid::from_raw(twinspan(&first)?.pid), Signal::SIGKILL)?;
    node.kubectl(&["delete", "pod", &first, "-n", OPERATOR_NAMESPACE, "--force", "--grace-period=0"]).await?;
    eventually("another replica leads", SOON, || async {
        let second = leader(node).await?;
        ensure!(second != first, "{second} leads");
        Ok(())
    })
    .await?;

    // A change shows that the new leader works.
    node.kubectl(&["scale", "deployment/user", "-n", scene::SHOP, "--replicas=3"]).await?;
    node.rolled_out(scene::SHOP, "user").await?;
    let users = pods::users(node).await?;
    outside.answered_by(&users, SOON).await?;
    node.rolled_out(OPERATOR_NAMESPACE, "twinspan").await?;

    let after = node.registry.dump(RECORDS).await?;
    for (key, record) in &before {
        ensure!(after.get(key) == Some(record), "{key} was {record:?} and is {:?}", after.get(key));
    }
    witness.only_additions(node, after.len() - before.len()).await?;
    let failed: Vec<Call> =
        outside.calls_since(mark)?.into_iter().filter(|call| matches!(call, Call::Failed(_))).collect();
    ensure!(failed.is_empty(), "calls from outside failed: {failed:?}");
    for (client, mark) in CLIENTS.into_iter().zip(marks) {
        let calls = pods::calls(node, client).await?;
        let failed: Vec<_> = calls[mark..].iter().filter(|call| call.is_err()).collect();
        ensure!(calls.len() > mark && failed.is_empty(), "{client}: {} calls, {failed:?}", calls.len() - mark);
    }
    Ok(())
}

/// The pod that holds the Lease: its identity is the name of the pod and a number.
pub async fn leader(node: &Node) -> Result<String> {
    let holder = "jsonpath={.spec.holderIdentity}";
    let holder = node.kubectl(&["get", "lease", "twinspan", "-n", OPERATOR_NAMESPACE, "-o", holder]).await?;
    Ok(holder.rsplit_once('_').with_context(|| format!("the Lease is held by '{holder}'"))?.0.to_owned())
}
