//! Twinspan from its chart, a shop whose `user` runs in pods, and its `payment` on a virtual machine: the first view of
//! `make node`, and the beginning of the story.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use twinspan_testbed::{Framework, OPERATOR_NAMESPACE, Server, ServerOptions, eventually};

use crate::{Node, address};

/// The namespace of the shop.
pub const SHOP: &str = "shop";
/// The name of `user` in the registry.
pub const USER: &str = "douyinec.user";
const PAYMENT: &str = "douyinec.payment";

/// The release, as a platform engineer installs it. Returns when every replica is ready.
pub async fn install(node: &Node) -> Result<String> {
    let chart = ["install", "twinspan", "charts/twinspan", "--namespace", OPERATOR_NAMESPACE, "--create-namespace"];
    let drain = format!("rollouts.drain.clusterIP={}", address::DRAIN);
    let rollouts = ["--set", "rollouts.enabled=true", "--set", "rollouts.drain.enabled=true", "--set", &drain];
    node.helm(&[&chart[..], &rollouts, &["--wait", "--timeout", "3m"]].concat()).await
}

/// The services, and the server on a virtual machine. Returns when each side has the instances of the other.
pub async fn open_shop(node: &Node) -> Result<Server> {
    node.apply("registry.yaml").await?;
    node.apply("shop.yaml").await?;
    let options = ServerOptions { framework: Framework::Kitex, ..Default::default() };
    let machine = SocketAddr::from((address::machine(1), 9000));
    let server = Server::start(node.dir(), node.registry.endpoint(), PAYMENT, machine, &options).await?;
    node.rolled_out(SHOP, "user").await?;
    eventually("both sides know all instances", Duration::from_secs(60), || async {
        let counts = "jsonpath={range .items[*]}{.metadata.name}={.status.instances.exported}/{.status.instances.imported} {end}";
        let seen = node.kubectl(&["get", "rsvc", "-n", SHOP, "-o", counts]).await?;
        ensure!(seen == "payment=0/1 payment-vip=0/1 user=2/0", "{seen}");
        Ok(())
    })
    .await?;
    Ok(server)
}
