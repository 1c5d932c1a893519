//! The status page under load: the latency while five readers follow every change, beside that while nobody looks.
//!
//! Owns the readers and the changes of the settled services. Refuses to know how a latency is measured.

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
const SUBJECTS: [&str; 2] = ["nobody looks", "five readers"];

pub async fn run(run: &mut Run) -> Result<()> {
    let shape = Shape::of(run.form.pick(QUICK, FULL));
    cold::settle(run, Direction::Import, shape).await?;
    let changing = change(&mut run.bed, shape)?;
    let page = run.bed.twinspan()?.page();
    let rows = Arc::new(AtomicUsize::new(0));
    let mut found = Found::new();
    for n in 0..run.form.pick(4, 10) {
        let mut order = [(SUBJECTS[0], 0), (SUBJECTS[1], READERS)];
        if n % 2 == 1 {
            order.reverse();
        }
        for (subject, readers) in order {
            let reading = read(page, readers, &rows).await?;
            latency::round(run, Bridge::Twinspan, subject, run.form.pick(1, 4), &mut found).await?;
            ensure!(reading.len() == readers, "a reader ended early");
        }
    }
    ensure!(!changing.is_finished(), "the changes ended early");
    changing.abort();
    let scenario = format!("page of {} services, {RATE} changes/s", shape.services);
    latency::report(run, &scenario, &found, SUBJECTS);
    let got = rows.load(Ordering::Relaxed);
    ensure!(got > 0, "the readers got nothing");
    run.report.rows.push(Row::new(&scenario, "rows that readers got", SUBJECTS[1]).fact("rows", got.to_string()));
    Ok(())
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

/// Readers that have everything, and follow what changes; they end when the set is dropped.
async fn read(page: SocketAddr, readers: usize, rows: &Arc<AtomicUsize>) -> Result<JoinSet<Result<()>>> {
    let mut reading = JoinSet::new();
    for _ in 0..readers {
        let state = state(page).await?;
        let boot = state["boot"].as_str().context("boot")?;
        let mut stream = TcpStream::connect(page).await?;
        let path = format!("/events?since={}&boot={boot}", state["version"]);
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let rows = rows.clone();
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
    }
    Ok(reading)
}

async fn state(page: SocketAddr) -> Result<Value> {
    let mut stream = TcpStream::connect(page).await?;
    stream.write_all(b"GET /state HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no body")?;
    Ok(serde_json::from_slice(&answer[head + 4..])?)
}
