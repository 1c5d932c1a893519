//! Both bridges reach a slow API server: the latency beside that of the same bridges when it is quick.
//!
//! Owns the way to the API server and its delay. Refuses to slow the drivers, which keep their own way.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use twinspan_testbed::{Link, next_v4};

use crate::bed::{BASE, Bridge};
use crate::latency::{self, Found};
use crate::run::Run;

/// The API server answers so much later.
const SLOW: Duration = Duration::from_millis(200);

pub async fn run(run: &mut Run) -> Result<()> {
    run.base().await?;
    let server: SocketAddr = run.bed.testbed.cluster.server().trim_start_matches("https://").parse()?;
    let link = Link::start(SocketAddr::from((next_v4(), server.port())), server).await?;
    let through = run.bed.testbed.operator().through(run.bed.testbed.dir(), link.address())?;
    run.bed.reach_by(Some(through), BASE).await?;

    link.delay(SLOW / 2);
    let subjects = Bridge::BOTH.map(Bridge::label);
    let mut found = Found::new();
    for n in 0..run.form.pick(2, 10) {
        let mut order = Bridge::BOTH;
        if n % 2 == 1 {
            order.reverse();
        }
        for bridge in order {
            latency::round(run, bridge, bridge.label(), 1, &mut found).await?;
        }
    }
    latency::report(run, &format!("an API server with +{} ms", SLOW.as_millis()), &found, subjects);
    link.delay(Duration::ZERO);
    run.bed.reach_by(None, BASE).await
}
