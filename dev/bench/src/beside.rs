//! One registry beside another that is slow or does not answer: the latency of the healthy one.
//!
//! Owns the other registry and its faults. Refuses to measure what goes through it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};
use twinspan_testbed::{Etcd, Link, next_v4};

use crate::bed::{Bed, Bridge, Direction, SYNCED, Shape, service};
use crate::feed::Feed;
use crate::latency::{self, Found};
use crate::records::{self, BRIDGE, Place};
use crate::run::Run;
use crate::{cluster, registry};

/// The group, the ServiceRegistry and the etcd of the other registry.
const OTHER: &str = "beside";
const SHAPE: Shape = Shape::of(200);
/// The slow registry answers so much later.
const SLOW: Duration = Duration::from_millis(200);
/// Changes a second in the slow registry.
const RATE: u32 = 50;
/// A session ends after 20 s without a sign of life, and statuses tell so from then on.
const NOTICED: Duration = Duration::from_secs(19);
const QUIET: Duration = Duration::from_secs(60);
const SUBJECTS: [&str; 2] = ["beside a healthy one", "beside it"];

/// The other registry.
struct Other {
    etcd: Etcd,
    link: Link,
    client: etcd_client::Client,
    place: Place,
}

pub async fn run(run: &mut Run) -> Result<()> {
    run.base().await?;
    let other = Other::start(&mut run.bed).await?;
    run.bed.process(Bridge::Twinspan, OTHER)?.quiet(QUIET).await?;

    let churn = other.churn(run.bed.fresh(SHAPE.services))?;
    let mut found = Found::new();
    for _ in 0..run.form.pick(2, 10) {
        for (subject, delay) in [(SUBJECTS[0], Duration::ZERO), (SUBJECTS[1], SLOW / 2)] {
            other.link.delay(delay);
            latency::round(run, Bridge::Twinspan, subject, run.form.pick(1, 4), &mut found).await?;
        }
    }
    other.link.delay(Duration::ZERO);
    ensure!(!churn.is_finished(), "the changes in the slow registry ended early");
    churn.abort();
    latency::report(run, &format!("a registry with +{} ms", SLOW.as_millis()), &found, SUBJECTS);

    let mut found = Found::new();
    for _ in 0..run.form.pick(1, 5) {
        run.bed.process(Bridge::Twinspan, OTHER)?.quiet(QUIET).await?;
        latency::round(run, Bridge::Twinspan, SUBJECTS[0], 1, &mut found).await?;
        other.etcd.part().freeze()?;
        sleep(NOTICED).await;
        // Two cycles reach into the time in which the statuses are written.
        latency::round(run, Bridge::Twinspan, SUBJECTS[1], 2, &mut found).await?;
        other.etcd.part().thaw()?;
    }
    latency::report(run, "a registry that does not answer", &found, SUBJECTS);
    run.bed.clear(Bridge::Twinspan, OTHER).await
}

impl Other {
    /// Starts it with imported services, and waits until Twinspan has written all of them.
    async fn start(bed: &mut Bed) -> Result<Self> {
        let etcd = bed.testbed.start_registry(OTHER).await?;
        let beyond: SocketAddr = etcd.endpoint().trim_start_matches("http://").parse()?;
        let link = Link::start(SocketAddr::from((next_v4(), beyond.port())), beyond).await?;
        let client = registry::connect(etcd.endpoint()).await?;
        let place = Place { prefix: "bench/beside".to_owned(), ..Bridge::Twinspan.place(OTHER) };
        bed.create_namespace(&place.namespace).await?;
        cluster::create_registry(&bed.admin, OTHER, &format!("http://{}", link.address()), &place.prefix).await?;
        let names: Vec<String> = (0..SHAPE.services).map(|n| service(OTHER, Direction::Import, n)).collect();
        let mut all = Vec::new();
        for name in &names {
            all.extend(bed.fresh(SHAPE.instances).iter().map(|a| (place.key(name, *a), records::value(*a, None))));
        }
        registry::put_all(&client, &all).await?;
        cluster::create_services(&bed.admin, &place, OTHER, &names).await?;
        let mut feed = Feed::slices(&bed.admin, &place.namespace, BRIDGE).await?;
        feed.until_count(SHAPE.all(), Instant::now() + SYNCED).await?;
        Ok(Self { etcd, link, client, place })
    }

    /// Lets one more instance of each service come and go, service by service.
    fn churn(&self, addresses: Vec<std::net::Ipv4Addr>) -> Result<JoinHandle<Result<()>>> {
        let (mut etcd, place) = (self.client.clone(), self.place.clone());
        let period = Duration::from_secs(1).checked_div(RATE).context("no rate")?;
        Ok(tokio::spawn(async move {
            let (mut turns, mut there) = (interval(period), BTreeSet::new());
            for (n, address) in addresses.into_iter().enumerate().cycle() {
                turns.tick().await;
                let key = place.key(&service(OTHER, Direction::Import, n), address);
                if there.remove(&n) {
                    etcd.delete(key, None).await?;
                } else {
                    etcd.put(key, records::value(address, None), None).await?;
                    there.insert(n);
                }
            }
            Ok(())
        }))
    }
}
