//! `make rollouts`: a Deployment of six, rolled again and again while a real Kitex client calls it, in three ways; and
//! once while etcd is frozen.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use twinspan_node::enclosure::{self, Enclosure, Place};
use twinspan_node::rollouts::{RATE, Rolled, Rollout, Way};
use twinspan_node::{Node, scene};

const ROUNDS: usize = 5;
const FROZEN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("rollouts: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    match enclosure::enter()? {
        Place::Outside(ended) => Ok(ended),
        Place::Inside(enclosure) => {
            tokio::runtime::Runtime::new()?.block_on(roll(&enclosure))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn roll(enclosure: &Enclosure) -> Result<()> {
    let rounds = std::env::var("ROUNDS").map_or(Ok(ROUNDS), |text| text.parse()).context("ROUNDS")?;
    let node = Node::start(enclosure).await?;
    scene::install(&node).await?;
    let _machine = scene::open_shop(&node).await?;
    println!("six pods, {RATE} calls/s, maxSurge 2, maxUnavailable 0\n");
    println!("| way | rollout | calls | failed | new pods ready s | old pods gone s |");
    println!("|---|---|---|---|---|---|");
    let mut failed = 0;
    for way in Way::ALL {
        let rollout = Rollout::begin(&node, way).await?;
        for round in 1..=rounds {
            let rolled = rollout.roll().await?;
            print(way.name(), &round.to_string(), &rolled);
            if way == Way::Handshake {
                failed += rolled.calls.failed;
            }
        }
        if way == Way::Handshake {
            let rolled = rollout.roll_while_frozen(FROZEN).await?;
            print(way.name(), &format!("etcd frozen for {} s", FROZEN.as_secs()), &rolled);
            failed += rolled.calls.failed;
        }
        node.kubectl(&["delete", "deployment", way.name(), "-n", scene::SHOP]).await?;
    }
    ensure!(failed == 0, "{failed} calls failed with the handshake");
    node.check_running()
}

fn print(way: &str, round: &str, rolled: &Rolled) {
    let Rolled { ready, gone, calls } = rolled;
    let seconds = |time: &Duration| format!("{:.1}", time.as_secs_f64());
    println!("| {way} | {round} | {} | {} | {} | {} |", calls.calls, calls.failed, seconds(ready), seconds(gone));
}
