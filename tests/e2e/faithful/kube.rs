//! The fake kube-apiserver answers as the real one does.
//!
//! - [`operations`]: the requests, from a seed; [`objects`]: valid objects of each kind.
//! - [`side`]: one of the two servers, with numbers in place of what each makes up; [`watches`]: open watches of both.
//!
//! Owns the run and the comparison. Refuses to judge an answer by anything but the other one.

mod objects;
mod operations;
mod side;
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::Client;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use sim_kube::{Cluster, Options};
use tokio::time::sleep;
use twinspan_testbed::{ControlPlane, Kind, eventually, next_v4, repository};

use self::operations::Operations;
use self::side::Side;
use self::watches::Watches;
use crate::harness::{SOON, Suite};

const OPERATIONS: usize = 2_000;
/// Differences that are told; the first may cause those that follow.
const TOLD: usize = 20;
/// How often an API server is asked again whose cache is behind.
const BEHIND: Duration = Duration::from_millis(50);
/// The group of our CRDs.
const GROUP: &str = "twinspan.dev";
/// The API server would compact every five minutes by its own clock, which would decide how an old version is answered.
const KIND: Kind = Kind {
    apiserver: &[
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        "--etcd-compaction-interval=0",
    ],
    ..Kind::WITHOUT_NODES
};
/// Codes that every run of so many operations shows.
const CODES: [u16; 7] = [200, 201, 400, 404, 409, 422, 500];
const CRDS: [&str; 2] = ["registeredservices", "serviceregistries"];

/// `TWINSPAN_SEED` names the operations.
pub async fn kube_apiserver(suite: Arc<Suite>) -> Result<()> {
    let seed = std::env::var("TWINSPAN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let dir = suite.dir().join("faithful-kube");
    std::fs::create_dir_all(&dir)?;
    let cluster = ControlPlane::start(&dir, next_v4(), next_v4(), KIND).await?;
    cluster.controllers_ready().await?;
    compare(&cluster.client, &crds()?, seed).await.with_context(|| format!("with TWINSPAN_SEED={seed}"))
}

fn crds() -> Result<Vec<Value>> {
    let read = |name: &str| -> Result<Value> {
        let text = std::fs::read_to_string(repository().join(format!("crds/{name}.yaml")))?;
        sim_kube::read_yaml(&text)?.into_iter().next().context("an empty file")
    };
    CRDS.into_iter().map(read).collect()
}

async fn compare(client: &Client, crds: &[Value], seed: u64) -> Result<()> {
    let cluster = Cluster::new(Options { crds: crds.to_vec(), ..Options::default() });
    let fake = Client::new(cluster.server(0), "default");
    // The API server begins to serve a kind with the first request for it.
    for crd in CRDS {
        eventually("the kind is served", SOON, || async {
            let request = http::Request::get(format!("/apis/{GROUP}/v1alpha1/{crd}")).body(Vec::new())?;
            Ok(client.request_text(request).await?)
        })
        .await?;
    }
    let mut sides = [Side::new(client.clone()), Side::new(fake)];
    let mut operations = Operations::new(StdRng::seed_from_u64(seed));
    let mut watches = Watches::default();
    let mut differences = Vec::new();
    let mut codes: BTreeMap<u16, usize> = BTreeMap::new();
    for number in 0..OPERATIONS {
        let operation = operations.next();
        let mut answers = Vec::new();
        for side in &mut sides {
            answers.push(side.send(&operation).await.with_context(|| format!("{operation:?}"))?);
        }
        let deadline = Instant::now() + SOON;
        while answers[0] != answers[1] && operation.may_be_behind() && Instant::now() < deadline {
            sleep(BEHIND).await;
            answers[0] = sides[0].send(&operation).await.with_context(|| format!("{operation:?}"))?;
        }
        if answers[0] != answers[1] {
            differences.push(format!("{number}: {operation}\n  real {}\n  fake {}", answers[0], answers[1]));
        }
        *codes.entry(answers[0].code).or_default() += 1;
        operations.learn(&operation, &answers[0]);
        if answers[0] != answers[1] {
            // A difference is not to cause others.
            for removal in operations.forget(&operation) {
                for side in &mut sides {
                    side.send(&removal).await?;
                }
            }
            together(&mut sides);
        }
        if let Some(step) = operations.watch() {
            let found = watches.step(step, &mut sides).await?;
            if found.is_some() {
                together(&mut sides);
            }
            differences.extend(found);
        }
        if differences.len() >= TOLD {
            break;
        }
    }
    let all = differences.len();
    ensure!(all == 0, "{all} differences:\n{}", differences.join("\n"));
    eprintln!(
        "faithful: {OPERATIONS} operations, {} events of watches, seed {seed}; answers {codes:?}",
        watches.events
    );
    let unseen: Vec<u16> = CODES.into_iter().filter(|code| !codes.contains_key(code)).collect();
    ensure!(unseen.is_empty(), "no answer was {unseen:?}");
    Ok(())
}

/// Both sides number alike from here on.
fn together(sides: &mut [Side; 2]) {
    let [(a, b), (c, d)] = [sides[0].numbers(), sides[1].numbers()];
    sides.iter_mut().for_each(|side| side.number_from((a.max(c), b.max(d))));
}
