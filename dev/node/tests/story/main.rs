//! The story of one real node: the image and the chart, as a cluster runs them. The story takes root and minutes, so it
//! runs with `--ignored` (`make test-node`); it fails where it is asked for and not possible.

mod failover;
mod outside;
mod page;
mod pods;
mod programming;
mod rollouts;
mod steps;
mod witness;

use std::process::ExitCode;

use anyhow::{Context, Result};
use twinspan_node::enclosure::{self, Enclosure};
use twinspan_node::{Node, scene, story};

fn main() -> ExitCode {
    let name = "node::the_image_and_the_chart_on_a_real_node";
    story::run(name, enclosure::enter, |enclosure| async move { tell(&enclosure).await })
}

async fn tell(enclosure: &Enclosure) -> Result<()> {
    let node = Node::start(enclosure).await?;
    let told = chapters(&node).await;
    if told.is_err() {
        // Pods and their logs disappear with the node.
        pods::write_down(&node).await.context("what happened could not be written down")?;
    }
    told
}

async fn chapters(node: &Node) -> Result<()> {
    scene::install(node).await?;
    steps::pods_run_our_image_as_nobody(node).await?;
    let machine = scene::open_shop(node).await?;
    let outside = steps::clients_outside_call_pods(node).await?;
    steps::pods_call_a_machine(node, &machine).await?;
    steps::people_see_it(node, &machine).await?;
    let page = page::Opened::open(node).await?;
    page.shows_the_leader(node).await?;
    failover::nothing_is_lost(node, &outside).await?;
    page.shows_the_leader(node).await?;
    programming::latencies_are_measured(node).await?;
    outside::nodes_are_reached_where_pods_are_not(node).await?;
    rollouts::no_call_is_lost(node).await?;
    node.helm(&["test", "twinspan", "--namespace", twinspan_testbed::OPERATOR_NAMESPACE, "--timeout", "2m"]).await?;
    node.check_running()
}
