//! Records of other clusters in the same registry, about which nobody asks here.
//!
//! Owns those records and their changes. Refuses to know how a latency is measured.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use etcd_client::DeleteOptions;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use crate::bed::{Bed, Bridge, Direction, Shape};
use crate::cold::{self, GROUP};
use crate::records::{self, Place};
use crate::report::{Row, number};
use crate::restart;
use crate::run::Run;
use crate::{latency, registry};

/// The services that are asked about.
const SETTLED: Shape = Shape::of(1000);
/// Instances of each service of another cluster.
const INSTANCES: usize = 10;
const QUIET: Duration = Duration::from_secs(120);

/// Other clusters of the same registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    pub clusters: usize,
    /// Records of each cluster.
    pub records: usize,
    /// Changes a second of all clusters together.
    pub rate: u32,
}

impl Crowd {
    pub const fn all(self) -> usize {
        self.clusters * self.records
    }

    fn key(self, place: &Place, cluster: usize, n: usize, address: Ipv4Addr) -> String {
        place.key(&format!("{}s{:05}", beginning(cluster), n / INSTANCES), address)
    }

    fn value(cluster: usize, n: usize, address: Ipv4Addr) -> String {
        records::value(address, Some(&format!("crowd-{cluster}/shop/s{:05}", n / INSTANCES)))
    }
}

fn beginning(cluster: usize) -> String {
    format!("crowd-{cluster:04}-")
}

pub async fn run(run: &mut Run, crowd: Crowd) -> Result<()> {
    cold::settle(run, Direction::Import, SETTLED).await?;
    run.bed.process(Bridge::Twinspan, GROUP)?.quiet(QUIET).await?;
    let before = run.bed.process(Bridge::Twinspan, GROUP)?.memory()?.now;
    let addresses = put(&mut run.bed, crowd).await?;

    run.bed.stop_twinspan().await?;
    let start = Instant::now();
    run.bed.start_twinspan()?;
    let (ready, _) = restart::started(&run.bed, start).await?;
    let process = run.bed.process(Bridge::Twinspan, GROUP)?;
    process.quiet(QUIET).await?;
    let memory = process.memory()?;
    let warned = warnings(&run.bed)?;

    let scenario = format!("beside {} records of {} clusters", crowd.all(), crowd.clusters);
    let changes = change(&run.bed, crowd, addresses);
    let (cpu, since) = (process.cpu()?, Instant::now());
    let both = Bridge::BOTH.map(|bridge| (bridge.label(), bridge));
    latency::rounds(run, &format!("{scenario}, {} changes/s", crowd.rate), both).await?;
    let share = (process.cpu()? - cpu).as_secs_f64() / since.elapsed().as_secs_f64() * 100.0;
    let warned = warnings(&run.bed)? - warned;
    ensure!(crowd.rate == 0 || !changes.is_finished(), "the changes of the other clusters ended early");
    changes.abort();

    let row = Row::new(&scenario, "ready after a restart", Bridge::Twinspan.label());
    let row = row
        .samples(&[ready.as_secs_f64() * 1000.0])
        .fact("RSS without them", format!("{} MiB", number(before)))
        .fact("RSS", format!("{} MiB", number(memory.now)))
        .fact("RSS at most", format!("{} MiB", number(memory.peak)))
        .fact("CPU meanwhile", format!("{} % of a core", number(share)))
        .fact("warnings meanwhile", warned.to_string());
    run.report.rows.push(row);
    let panel = "MiB resident, by records about which nobody asks".to_owned();
    run.report.size(&panel, Bridge::Twinspan.label(), crowd.all() as f64, memory.now);
    remove(&mut run.bed, crowd).await
}

/// Puts the records of all clusters. Returns one address of each.
async fn put(bed: &mut Bed, crowd: Crowd) -> Result<Vec<Ipv4Addr>> {
    let place = Bridge::Twinspan.place(GROUP);
    let mut firsts = Vec::new();
    for cluster in 0..crowd.clusters {
        let addresses = bed.fresh(crowd.records);
        let record = |(n, address): (usize, &Ipv4Addr)| {
            (crowd.key(&place, cluster, n, *address), Crowd::value(cluster, n, *address))
        };
        let all: Vec<(String, String)> = addresses.iter().enumerate().map(record).collect();
        registry::put_all(&bed.etcd, &all).await?;
        firsts.extend(addresses.first());
    }
    Ok(firsts)
}

/// One record of each cluster in turn goes, and comes again.
fn change(bed: &Bed, crowd: Crowd, addresses: Vec<Ipv4Addr>) -> JoinHandle<Result<()>> {
    let (mut etcd, place) = (bed.etcd.clone(), Bridge::Twinspan.place(GROUP));
    tokio::spawn(async move {
        let Some(period) = Duration::from_secs(1).checked_div(crowd.rate) else { return Ok(()) };
        let mut turns = interval(period);
        for present in [false, true].into_iter().cycle() {
            for (cluster, address) in addresses.iter().enumerate() {
                turns.tick().await;
                let key = crowd.key(&place, cluster, 0, *address);
                match present {
                    true => drop(etcd.put(key, Crowd::value(cluster, 0, *address), None).await?),
                    false => drop(etcd.delete(key, None).await?),
                }
            }
        }
        Ok(())
    })
}

/// Removes the records, a cluster at a time.
async fn remove(bed: &mut Bed, crowd: Crowd) -> Result<()> {
    let place = Bridge::Twinspan.place(GROUP);
    for cluster in 0..crowd.clusters {
        let range = format!("{}/{}", place.prefix, beginning(cluster));
        bed.etcd.delete(range, Some(DeleteOptions::new().with_prefix())).await?;
    }
    Ok(())
}

fn warnings(bed: &Bed) -> Result<usize> {
    let is_warning = |line: &String| line.contains("WARN") || line.contains("ERROR");
    Ok(bed.twinspan()?.part().lines().iter().filter(|line| is_warning(line)).count())
}
