//! A real etcd and the fake one get the same random operations, one after the other, and must answer alike.
//!
//! Owns the run and the comparison. Refuses to choose operations, and to send them.

mod operations;
mod server;

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, ConnectOptions};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sim_etcd::{Etcd, Options};

use self::operations::Generator;
use self::server::Server;
use crate::harness::Suite;

/// `TWINSPAN_SEED` gives another one.
const SEED: u64 = 14;
const OPERATIONS: usize = 2_000;
/// After so many operations the watches are compared, and the store may be compacted.
const ROUND: usize = 160;
/// A run that differs in more than so many places says no more.
const SHOWN: usize = 10;

pub(super) async fn same_answers(suite: &Suite) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let real = bed.start_registry("faithful").await?;
    let options = ConnectOptions::new().with_require_leader(true);
    let real = Client::connect([real.endpoint()], Some(options.clone())).await?;
    let etcd = Etcd::new(Options::default());
    let channel = tower::util::BoxCloneSyncService::new(etcd.member(0));
    let fake = Client::from_channel(etcd_client::Channel::Custom(channel), Some(options)).await?;

    let (mut real, mut fake) = (Server::new(real), Server::new(fake));
    let seed = std::env::var("TWINSPAN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut generator = Generator::new(StdRng::seed_from_u64(seed), etcd.clone());
    let mut differences = Vec::new();
    for n in 1..=OPERATIONS {
        let operation = generator.next();
        let (expected, found) = tokio::join!(real.run(&operation), fake.run(&operation));
        let (expected, found) = (expected.context("etcd")?, found.context("fake")?);
        if expected != found {
            differences.push(format!("{n}: {operation:?}\n  etcd: {expected}\n  fake: {found}"));
        }
        if n % ROUND == 0 {
            let (expected, found) = tokio::join!(real.told(), fake.told());
            let pairs = expected?.into_iter().zip(found?);
            differences.extend(
                pairs
                    .filter(|(expected, found)| expected != found)
                    .map(|(expected, found)| format!("watches before {n}:\n  etcd: {expected:?}\n  fake: {found:?}")),
            );
            generator.begin_round();
        }
        ensure!(differences.len() < SHOWN, "many differences:\n{}", differences.join("\n"));
    }
    ensure!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    let answered = real.answered();
    ensure!(answered.refused > OPERATIONS / 20, "hardly anything was refused: {answered:?}");
    ensure!(answered.events > OPERATIONS / 4, "hardly any events: {answered:?}");
    promises_hold(&etcd, &real).context("etcd")?;
    promises_hold(&etcd, &fake).context("fake")
}

/// The promises of the watch hold for each stream, by the history of the fake: it is that of the real etcd as well.
fn promises_hold(etcd: &Etcd, server: &Server) -> Result<()> {
    let history = etcd.history();
    for stream in server.streams() {
        let violations = sim_etcd::promises::violations(&history, stream);
        ensure!(violations.is_empty(), "{violations:?}");
    }
    Ok(())
}
