//! `make node`: a node with Twinspan and a shop, for a person to look at.

use std::process::ExitCode;

use anyhow::{Context, Result};
use twinspan_node::enclosure::{self, Enclosure, Place};
use twinspan_node::{Node, scene};
use twinspan_testbed::OPERATOR_NAMESPACE;

const USAGE: &str = "usage: node                start it and keep it until Ctrl-C
       node exec COMMAND   run COMMAND inside one that is up";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.first().map(String::as_str) {
        None => up(),
        Some("exec") if args.len() > 1 => exec(&args[1..]),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("node: {error:#}");
        ExitCode::FAILURE
    })
}

fn up() -> Result<ExitCode> {
    match enclosure::enter()? {
        Place::Outside(ended) => Ok(ended),
        Place::Inside(enclosure) => {
            tokio::runtime::Runtime::new()?.block_on(async {
                tokio::select! {
                    kept = keep(&enclosure) => kept,
                    _ = tokio::signal::ctrl_c() => Ok(()),
                }
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn keep(enclosure: &Enclosure) -> Result<()> {
    let started = std::time::Instant::now();
    println!("starting the node…");
    let node = Node::start(enclosure).await?;
    println!("installing charts/twinspan…");
    scene::install(&node).await?;
    let _machine = scene::open_shop(&node).await?;
    println!("up in {:.1} s; logs in {}", started.elapsed().as_secs_f64(), node.dir().display());
    println!("\nin another terminal, as root:");
    for command in [
        "kubectl get pods -A -o wide".to_owned(),
        format!("kubectl get rsvc,service,endpointslices -n {}", scene::SHOP),
        format!("kubectl logs -n {OPERATOR_NAMESPACE} deployment/twinspan"),
        format!("kubectl exec -n {OPERATOR_NAMESPACE} deployment/twinspan -- twinspan status"),
        "etcdctl get --prefix kitex/registry-etcd/".to_owned(),
        "$(dev/parts/build helm) list -A".to_owned(),
    ] {
        println!("  target/debug/node exec {command}");
    }
    println!("\nCtrl-C takes it down.");
    std::future::pending().await
}

fn exec(command: &[String]) -> Result<ExitCode> {
    let error = enclosure::join(command)?;
    Err(error).context("cannot start `nsenter`; it is in the package util-linux")
}
