//! Floors: what the servers allow a raw client that writes and watches what it writes.
//!
//! Owns the single calls, the lists, the transactions and the creates. Refuses to bridge anything.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, PostParams};
use tokio::time::Instant;

use crate::bed::{Bed, INSTANCES, SYNCED};
use crate::cluster;
use crate::feed::{Feed, Instance};
use crate::records::{self, BRIDGE, Place, Slice};
use crate::registry::{self, BATCH, Fence, Write};
use crate::report::Row;
use crate::run::Run;

const NAME: &str = "floors";
pub const NAMESPACE: &str = "floors";
const CALL: Duration = Duration::from_secs(10);
/// Creates under way at once; the best counts.
pub const CONCURRENCY: [usize; 3] = [8, 16, 32];

fn place() -> Place {
    Place::new(NAMESPACE, "bench/floors")
}

pub async fn run(run: &mut Run) -> Result<()> {
    let single = run.form.pick(200, 1000);
    run.bed.create_namespace(NAMESPACE).await?;
    let samples = puts(&mut run.bed, single).await?;
    run.report.rows.push(Row::new(NAME, "etcd put → own watch event", "raw").samples(&samples));
    let samples = replaces(&mut run.bed, single).await?;
    run.report.rows.push(Row::new(NAME, "slice write → own watch event", "raw").samples(&samples));

    let records = run.form.pick(80, 800) * BATCH;
    for at_once in [1, 4] {
        let rate = commits(&mut run.bed, records, at_once).await?;
        let measure = format!("compare-and-swap transactions of {BATCH}, {at_once} at once");
        run.report.rows.push(Row::new(NAME, &measure, "raw").rate(rate, "records/s"));
    }
    let slices = run.form.pick(500, 2000);
    for at_once in CONCURRENCY {
        let rate = creates(&mut run.bed, slices, at_once).await?;
        let measure = format!("slice creates, {at_once} at once");
        run.report.rows.push(Row::new(NAME, &measure, "raw").rate(rate, "slices/s"));
    }
    Ok(())
}

/// Latencies in milliseconds of puts, one after the other.
async fn puts(bed: &mut Bed, count: usize) -> Result<Vec<f64>> {
    let place = place();
    let mut feed = Feed::records(&bed.etcd, &place, "put").await?;
    let mut samples = Vec::new();
    for address in bed.fresh(count) {
        let (key, value) = (place.key("put", address), records::value(address, None));
        let sent = Instant::now();
        bed.etcd.put(key, value, None).await?;
        let seen = feed.until(&instance("put", address), true, sent + CALL).await?;
        samples.push((seen - sent).as_secs_f64() * 1000.0);
    }
    Ok(samples)
}

/// Latencies in milliseconds of updates of one slice of ten endpoints, one after the other.
async fn replaces(bed: &mut Bed, count: usize) -> Result<Vec<f64>> {
    let place = place();
    let api: Api<EndpointSlice> = Api::namespaced(bed.operator.clone(), &place.namespace);
    let mut addresses = bed.fresh(INSTANCES);
    let mut slice = Slice { namespace: &place.namespace, name: "one", service: "one", manager: BRIDGE, version: None };
    let created = api.create(&PostParams::default(), &slice.with(addresses.iter().copied())).await?;
    slice.version = created.metadata.resource_version;
    let mut feed = Feed::slices(&bed.operator, &place.namespace, BRIDGE).await?;
    let mut samples = Vec::new();
    for address in bed.fresh(count) {
        addresses.rotate_left(1);
        addresses[INSTANCES - 1] = address;
        let next = slice.with(addresses.iter().copied());
        let sent = Instant::now();
        let replaced = api.replace("one", &PostParams::default(), &next).await?;
        let seen = feed.until(&instance("one", address), true, sent + CALL).await?;
        samples.push((seen - sent).as_secs_f64() * 1000.0);
        slice.version = replaced.metadata.resource_version;
    }
    drop(feed);
    cluster::delete_all::<EndpointSlice>(&bed.admin, &place.namespace).await?;
    Ok(samples)
}

/// Records a second of fenced transactions, between the first and the last event.
pub async fn commits(bed: &mut Bed, count: usize, at_once: usize) -> Result<f64> {
    let place = place();
    let fence = Fence::raise(&bed.etcd, &format!("{}//fence", place.prefix)).await?;
    let mut feed = Feed::records(&bed.etcd, &place, "commit").await?;
    let write = |address: &Ipv4Addr| {
        let value = Some(records::value(*address, Some("bench/floors/commit")));
        Write { key: place.key("commit", *address), if_revision: 0, value }
    };
    let writes: Vec<Write> = bed.fresh(count).iter().map(write).collect();
    let mut batches = Vec::new();
    for group in writes.chunks(BATCH * 4) {
        let lease = registry::grant(&bed.etcd).await?;
        batches.extend(group.chunks(BATCH).map(|batch| (lease, batch)));
    }
    let (etcd, fence) = (&bed.etcd, &fence);
    let commit = async |(lease, batch): (i64, &[Write])| registry::commit(etcd, fence, lease, batch).await.map(drop);
    let writing = stream::iter(batches.into_iter().map(commit)).buffer_unordered(at_once).try_collect::<()>();
    let (written, span) = tokio::join!(writing, feed.until_count(count, Instant::now() + SYNCED));
    written?;
    let rate = rate(span?, count - BATCH)?;
    drop(feed);
    let options = etcd_client::DeleteOptions::new().with_prefix();
    bed.etcd.delete(format!("{}/commit", place.prefix), Some(options)).await?;
    Ok(rate)
}

/// Slices a second of creates, between the first and the last event.
pub async fn creates(bed: &mut Bed, count: usize, at_once: usize) -> Result<f64> {
    let place = place();
    let mut slices = Vec::new();
    for n in 0..count {
        let name = format!("create-{n}");
        let slice = Slice { namespace: &place.namespace, name: &name, service: &name, manager: BRIDGE, version: None };
        slices.push(slice.with(bed.fresh(INSTANCES)));
    }
    let mut feed = Feed::slices(&bed.operator, &place.namespace, BRIDGE).await?;
    let api: Api<EndpointSlice> = Api::namespaced(bed.operator.clone(), &place.namespace);
    let writing = cluster::create_all(&api, &slices, at_once);
    let (written, span) = tokio::join!(writing, feed.until_count(count * INSTANCES, Instant::now() + SYNCED));
    written?;
    drop(feed);
    cluster::delete_all::<EndpointSlice>(&bed.admin, &place.namespace).await?;
    rate(span?, count - 1)
}

/// The time of lists of both sides, one after the other: records, slices, and the two kinds that name services.
pub async fn lists(bed: &Bed) -> Result<Duration> {
    let start = Instant::now();
    registry::list(&bed.etcd, "bench/").await?;
    let all = ListParams::default();
    Api::<EndpointSlice>::all(bed.operator.clone()).list(&all).await?;
    Api::<k8s_openapi::api::core::v1::Service>::all(bed.operator.clone()).list(&all).await?;
    Api::<twinspan::api::RegisteredService>::all(bed.operator.clone()).list(&all).await?;
    Ok(start.elapsed())
}

/// Writes a second after the first one.
pub fn rate(span: Option<(Instant, Instant)>, count: usize) -> Result<f64> {
    let (first, last) = span.context("no events")?;
    Ok(count as f64 / (last - first).as_secs_f64().max(0.001))
}

fn instance(service: &str, address: Ipv4Addr) -> Instance {
    Instance { service: service.to_owned(), address }
}
