//! The status page under load: the latency while five readers look as browsers do, beside that of a process without a
//! page.
//!
//! Owns the readers, the changes of the settled services, and the turns of both processes. Refuses to know how a
//! latency is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::interval;
use twinspan_testbed::eventually;

use crate::bed::{Bed, Bridge, Direction, Shape, service};
use crate::cold::{self, GROUP};
use crate::latency::{self, Found};
use crate::records;
use crate::report::Row;
use crate::run::Run;

/// Services beside the small ones.
const QUICK: usize = 1000;
const FULL: usize = 10_000;
/// Changes a second.
const RATE: u32 = 200;
const READERS: usize = 5;
/// Each reader opens another service so often.
const OPENS: Duration = Duration::from_secs(1);
const SUBJECTS: [&str; 2] = ["no page", "five readers"];
/// Passes that are due at most, once those of a start are over.
const FEW: f64 = 16.0;
const SETTLED: Duration = Duration::from_secs(120);

/// Counts of everything that the readers got.
#[derive(Clone, Debug, Default)]
struct Got {
    rows: Arc<AtomicUsize>,
    details: Arc<AtomicUsize>,
}

pub async fn run(run: &mut Run) -> Result<()> {
    let shape = Shape::of(run.form.pick(QUICK, FULL));
    cold::settle(run, Direction::Import, shape).await?;
    let changing = change(&mut run.bed, shape)?;
    let measured = measure(run, shape, &changing).await;
    changing.abort();
    run.bed.restart_with_page(true).await?;
    let (found, got) = measured?;
    let scenario = format!("page of {} services, {RATE} changes/s", shape.services);
    latency::report(run, &scenario, &found, SUBJECTS);
    for (measure, count) in [("rows that readers got", &got.rows), ("services that readers opened", &got.details)] {
        let count = count.load(Ordering::Relaxed);
        ensure!(count > 0, "{measure}: none");
        run.report.rows.push(Row::new(&scenario, measure, SUBJECTS[1]).fact("number", count.to_string()));
    }
    Ok(())
}

/// Both processes in turns. The second of one round is the first of the next, which spares every other start.
async fn measure<'a>(run: &mut Run, shape: Shape, changing: &JoinHandle<Result<()>>) -> Result<(Found<'a>, Got)> {
    let (mut found, got) = (Found::new(), Got::default());
    let mut served = true;
    for n in 0..run.form.pick(4, 10) {
        let turns = if n % 2 == 1 { [false, true] } else { [true, false] };
        for page in turns {
            if page != served {
                run.bed.restart_with_page(page).await?;
                // The passes of a start are no part of it.
                latency::round(run, Bridge::Twinspan, SUBJECTS[0], 1, &mut Found::new()).await?;
                let twinspan = run.bed.twinspan()?;
                eventually("the passes of the start are over", SETTLED, || async {
                    let depth = twinspan.metric("twinspan_queue_depth").await?;
                    ensure!(depth.is_some_and(|depth| depth <= FEW), "{depth:?} passes are due");
                    Ok(())
                })
                .await?;
                served = page;
            }
            let (subject, readers) = if page { (SUBJECTS[1], READERS) } else { (SUBJECTS[0], 0) };
            let reading = read(run.bed.twinspan()?.page(), readers, shape, &got).await?;
            latency::round(run, Bridge::Twinspan, subject, run.form.pick(1, 15), &mut found).await?;
            ensure!(reading.len() == 2 * readers, "a reader ended early");
        }
    }
    ensure!(!changing.is_finished(), "the changes ended early");
    Ok((found, got))
}

/// One more instance of each service comes and goes, service by service.
fn change(bed: &mut Bed, shape: Shape) -> Result<JoinHandle<Result<()>>> {
    let (mut etcd, place) = (bed.etcd.clone(), Bridge::Twinspan.place(GROUP));
    let addresses = bed.fresh(shape.services);
    let period = Duration::from_secs(1).checked_div(RATE).context("no rate")?;
    Ok(tokio::spawn(async move {
        let mut turns = interval(period);
        for present in [true, false].into_iter().cycle() {
            for (n, address) in addresses.iter().enumerate() {
                turns.tick().await;
                let key = place.key(&service(GROUP, Direction::Import, n), *address);
                match present {
                    true => drop(etcd.put(key, records::value(*address, None), None).await?),
                    false => drop(etcd.delete(key, None).await?),
                }
            }
        }
        Ok(())
    }))
}

/// Readers that have everything, follow what changes, and open one service after the other; they end when the set is
/// dropped.
async fn read(page: SocketAddr, readers: usize, shape: Shape, got: &Got) -> Result<JoinSet<Result<()>>> {
    let mut reading = JoinSet::new();
    for reader in 0..readers {
        let state: Value = serde_json::from_slice(&body(page, "/state").await?)?;
        let boot = state["boot"].as_str().context("boot")?;
        let mut stream = TcpStream::connect(page).await?;
        let path = format!("/events?since={}&boot={boot}", state["version"]);
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let rows = got.rows.clone();
        reading.spawn(async move {
            let (mut lines, mut line) = (BufReader::new(stream), String::new());
            while lines.read_line(&mut line).await? > 0 {
                if let Some(data) = line.strip_prefix("data: ") {
                    let change: Value = serde_json::from_str(data)?;
                    rows.fetch_add(change["services"].as_array().map_or(0, Vec::len), Ordering::Relaxed);
                }
                line.clear();
            }
            Ok(())
        });
        let details = got.details.clone();
        reading.spawn(async move {
            let (mut turns, namespace) = (interval(OPENS), Bridge::Twinspan.place(GROUP).namespace);
            for n in (0..shape.services).cycle().skip(reader * shape.services / readers) {
                turns.tick().await;
                let name = service(GROUP, Direction::Import, n);
                let detail: Value =
                    serde_json::from_slice(&body(page, &format!("/service/{namespace}/{name}")).await?)?;
                ensure!(detail["instances"].is_array(), "{name} without instances: {detail}");
                details.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    Ok(reading)
}

async fn body(page: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(page).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no body")?;
    ensure!(answer.starts_with(b"HTTP/1.0 200 "), "{path}: {}", String::from_utf8_lossy(&answer[..head]));
    Ok(answer.split_off(head + 4))
}
