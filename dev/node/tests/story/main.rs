//! The story of one real node: the image and the chart, as a cluster runs them. It needs root, and minutes, so it runs
//! with `--ignored` (`make test-node`); it fails where it is asked for and not possible.

// A test prints what went wrong, and panics if it cannot go on.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod failover;
mod outside;
mod page;
mod pods;
mod programming;
mod rollouts;
mod steps;
mod witness;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use twinspan_node::enclosure::{self, Enclosure, Place};
use twinspan_node::{Node, scene};

fn main() -> ExitCode {
    match run() {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("story: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    let wanted = (arguments.ignored || arguments.include_ignored) && !arguments.list;
    let enclosure = match wanted.then(enclosure::enter).transpose()? {
        Some(Place::Outside(ended)) => return Ok(ended),
        Some(Place::Inside(enclosure)) => Some(Arc::new(enclosure)),
        None => None,
    };
    let story = Trial::test("node::the_image_and_the_chart_on_a_real_node", move || {
        let enclosure = enclosure.clone().ok_or("not inside")?;
        let runtime = Runtime::new().map_err(|error| Failed::from(error.to_string()))?;
        runtime.block_on(tell(&enclosure)).map_err(|error| Failed::from(format!("{error:#}")))
    });
    Ok(libtest_mimic::run(&arguments, vec![story.with_ignored_flag(true)]).exit_code())
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
