//! One direction at one place: changes on the side from which instances come, and the time until the other has them.
//!
//! Owns the clock of every latency. Refuses to know which bridge works there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, PostParams};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::bed::{Bed, Bridge, Direction, beginning};
use crate::feed::{Feed, Instance};
use crate::records::{self, MANAGER_LABEL, Place, SERVICE_LABEL, SOURCE};
use crate::registry;

/// The deadline of one change.
const CHANGE: Duration = Duration::from_secs(30);
const ENDPOINTS: usize = 100;

/// An instance that comes or goes at a moment after the start.
#[derive(Clone, Debug)]
pub struct Planned {
    pub after: Duration,
    pub instance: Instance,
    pub present: bool,
}

/// The latency of one change, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From the call that makes the change.
    pub whole: f64,
    /// From the event of the change: of an import the put itself, of an export the event of the slice.
    pub bridged: f64,
}

/// The hand that makes changes; several may be under way at once.
#[derive(Clone)]
struct Hand {
    place: Place,
    etcd: etcd_client::Client,
    lease: i64,
    api: Api<EndpointSlice>,
    direction: Direction,
    /// The slices of each service that is exported, as the last answer showed them.
    sources: Arc<BTreeMap<String, Mutex<Vec<EndpointSlice>>>>,
}

pub struct Line {
    hand: Hand,
    written: Feed,
    /// The side of the changes, where its event begins a latency.
    source: Option<Feed>,
}

impl Line {
    pub async fn new(bed: &Bed, bridge: Bridge, group: &str, direction: Direction) -> Result<Self> {
        let place = bridge.place(group);
        let api: Api<EndpointSlice> = Api::namespaced(bed.admin.clone(), &place.namespace);
        let mut sources: BTreeMap<String, Mutex<Vec<EndpointSlice>>> = BTreeMap::new();
        let mut source = None;
        if direction == Direction::Export {
            let selector = ListParams::default().labels(&format!("{MANAGER_LABEL}={SOURCE}"));
            for slice in api.list(&selector).await?.items {
                let service = records::label(&slice, SERVICE_LABEL).to_owned();
                if service.starts_with(&beginning(group, direction)) {
                    sources.entry(service).or_default().get_mut().push(slice);
                }
            }
            source = Some(Feed::slices(&bed.admin, &place.namespace, SOURCE).await?);
        }
        let written = bed.written(bridge, group, direction).await?;
        let lease = registry::grant(&bed.etcd).await?;
        let etcd = bed.etcd.clone();
        Ok(Self { hand: Hand { place, etcd, lease, api, direction, sources: Arc::new(sources) }, written, source })
    }

    /// Makes one change, and waits until the other side has it.
    pub async fn change(&mut self, instance: &Instance, present: bool) -> Result<Sample> {
        let sent = self.hand.change(instance, present).await?;
        let deadline = Instant::now() + CHANGE;
        let begins = match &mut self.source {
            None => sent,
            Some(source) => source.until(instance, present, deadline).await?,
        };
        let seen = self.written.until(instance, present, deadline).await?;
        Ok(Sample { whole: millis(sent, seen), bridged: millis(begins, seen) })
    }

    /// Makes changes at their moments, whether or not the other side has those before. Returns the samples in the same
    /// order.
    pub async fn follow(&mut self, plan: &[Planned]) -> Result<Vec<Sample>> {
        let start = Instant::now();
        let mut under_way = JoinSet::new();
        for (index, planned) in plan.iter().cloned().enumerate() {
            sleep_until(start + planned.after).await;
            let hand = self.hand.clone();
            under_way.spawn(async move {
                let sent = hand.change(&planned.instance, planned.present).await?;
                anyhow::Ok((index, sent))
            });
        }
        let mut sent = BTreeMap::new();
        while let Some(ended) = under_way.join_next().await {
            let (index, at) = ended??;
            sent.insert(index, at);
        }
        let seen = all(&mut self.written, plan).await?;
        let begins = match &mut self.source {
            None => sent.clone(),
            Some(source) => all(source, plan).await?,
        };
        let sample = |index: usize| {
            let (sent, begins, seen) = (sent.get(&index)?, begins.get(&index)?, seen.get(&index)?);
            Some(Sample { whole: millis(*sent, *seen), bridged: millis(*begins, *seen) })
        };
        (0..plan.len()).map(|index| sample(index).context("a change without an event")).collect()
    }

    /// Instances that the other side had when the line was made, or has since a change.
    pub fn instances(&self, count: usize) -> Vec<Instance> {
        self.written.present().take(count).cloned().collect()
    }
}

/// The moments at which one side had each change.
async fn all(feed: &mut Feed, plan: &[Planned]) -> Result<BTreeMap<usize, Instant>> {
    let mut open: BTreeMap<(Instance, bool), usize> =
        plan.iter().enumerate().map(|(n, planned)| ((planned.instance.clone(), planned.present), n)).collect();
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + 2 * CHANGE;
    while !open.is_empty() {
        let missing = open.len();
        let change = feed.next(deadline).await.with_context(|| format!("{missing} changes are not there"))?;
        if let Some(index) = open.remove(&(change.instance, change.present)) {
            found.insert(index, change.at);
        }
    }
    Ok(found)
}

fn millis(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

impl Hand {
    /// Makes a change. Returns the moment before its call.
    async fn change(&self, instance: &Instance, present: bool) -> Result<Instant> {
        let change = async {
            match self.direction {
                Direction::Import => self.record(instance, present).await,
                Direction::Export => self.endpoint(instance, present).await,
            }
        };
        timeout(CHANGE, change).await.context("the change itself took too long")?
    }

    async fn record(&self, instance: &Instance, present: bool) -> Result<Instant> {
        let key = self.place.key(&instance.service, instance.address);
        let mut etcd = self.etcd.clone();
        let sent = Instant::now();
        if present {
            let options = etcd_client::PutOptions::new().with_lease(self.lease);
            etcd.put(key, records::value(instance.address, None), Some(options)).await?;
        } else {
            etcd.delete(key, None).await?;
        }
        Ok(sent)
    }

    async fn endpoint(&self, instance: &Instance, present: bool) -> Result<Instant> {
        let slices = self.sources.get(&instance.service).context("no slices of the service")?;
        let mut slices = slices.lock().await;
        let has = |slice: &EndpointSlice| records::addresses(slice).any(|address| address == instance.address);
        let slice = match present {
            true => slices.iter_mut().find(|slice| slice.endpoints.len() < ENDPOINTS),
            false => slices.iter_mut().find(|slice| has(slice)),
        };
        let slice = slice.context("no slice for the change")?;
        if present {
            let mut endpoint = slice.endpoints.first().cloned().unwrap_or_default();
            endpoint.addresses = vec![instance.address.to_string()];
            slice.endpoints.push(endpoint);
        } else {
            let address = instance.address.to_string();
            slice.endpoints.retain(|endpoint| !endpoint.addresses.contains(&address));
        }
        let sent = Instant::now();
        *slice = self.api.replace(records::name(slice), &PostParams::default(), slice).await?;
        Ok(sent)
    }
}
