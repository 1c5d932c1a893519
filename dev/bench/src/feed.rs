//! Watches of both sides, as a stream of addresses that come and go, each with the moment of its event.
//!
//! Owns the watches and the comparison of a slice with its former version. Refuses to know who writes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::{EventType, GetOptions, WatchOptions};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::records::{self, MANAGER_LABEL, Place, SERVICE_LABEL};

/// The deadline of the first list.
const LIST: Duration = Duration::from_secs(120);

/// An instance of a service on one side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    pub service: String,
    pub address: Ipv4Addr,
}

/// An instance that came or went.
#[derive(Clone, Debug)]
pub struct Change {
    pub at: Instant,
    pub instance: Instance,
    pub present: bool,
}

/// The changes of one side since its list.
#[derive(Debug)]
pub struct Feed {
    changes: UnboundedReceiver<Change>,
    present: BTreeSet<Instance>,
    task: JoinHandle<Result<()>>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    /// The slices of one manager in a namespace.
    pub async fn slices(client: &Client, namespace: &str, manager: &str) -> Result<Self> {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().labels(&format!("{MANAGER_LABEL}={manager}"));
        let (sender, changes) = unbounded_channel();
        let (listed, list) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(watch_slices(api, config, listed, sender));
        let present = timeout(LIST, list).await.context("no list of slices")??;
        Ok(Self { changes, present, task })
    }

    /// The records below the prefix of a place whose services begin like this.
    pub async fn records(etcd: &etcd_client::Client, place: &Place, beginning: &str) -> Result<Self> {
        let mut etcd = etcd.clone();
        let range = format!("{}/{beginning}", place.prefix);
        let options = GetOptions::new().with_prefix().with_keys_only();
        let listed = timeout(LIST, etcd.get(range.as_str(), Some(options))).await.context("no list of records")??;
        let present = listed.kvs().iter().filter_map(|kv| instance(place, kv.key())).collect();
        let after = listed.header().context("a list without a revision")?.revision() + 1;
        let options = WatchOptions::new().with_prefix().with_start_revision(after);
        let stream = timeout(LIST, etcd.watch(range, Some(options))).await.context("no watch of records")??;
        let (sender, changes) = unbounded_channel();
        let task = tokio::spawn(watch_records(place.clone(), stream, sender));
        Ok(Self { changes, present, task })
    }

    /// The next change.
    pub async fn next(&mut self, deadline: Instant) -> Result<Change> {
        let change = timeout_at(deadline, self.changes.recv()).await.context("no further event before the deadline")?;
        let change = change.context("the watch ended")?;
        if change.present {
            self.present.insert(change.instance.clone());
        } else {
            self.present.remove(&change.instance);
        }
        Ok(change)
    }

    /// The moment at which an instance came or went.
    pub async fn until(&mut self, instance: &Instance, present: bool, deadline: Instant) -> Result<Instant> {
        loop {
            let change = self.next(deadline).await.with_context(|| format!("{instance:?}, present: {present}"))?;
            if change.instance == *instance && change.present == present {
                return Ok(change.at);
            }
        }
    }

    /// Waits until so many instances are there. Returns the moments of the first and the last event that it took.
    pub async fn until_count(&mut self, count: usize, deadline: Instant) -> Result<Option<(Instant, Instant)>> {
        let mut span: Option<(Instant, Instant)> = None;
        while self.present.len() < count {
            let there = self.present.len();
            let change =
                self.next(deadline).await.with_context(|| format!("{there} of {count} instances are there"))?;
            span = Some((span.map_or(change.at, |(first, _)| first), change.at));
        }
        Ok(span)
    }

    /// The instances of the list, and of the changes that were taken.
    pub fn present(&self) -> impl Iterator<Item = &Instance> {
        self.present.iter()
    }
}

fn instance(place: &Place, key: &[u8]) -> Option<Instance> {
    place.read_key(key).map(|(service, address)| Instance { service, address })
}

async fn watch_records(
    place: Place,
    mut stream: etcd_client::WatchStream,
    sender: UnboundedSender<Change>,
) -> Result<()> {
    while let Some(response) = stream.message().await? {
        let at = Instant::now();
        if response.canceled() {
            bail!("etcd canceled the watch: {}", response.cancel_reason());
        }
        for event in response.events() {
            let Some(instance) = event.kv().and_then(|kv| instance(&place, kv.key())) else { continue };
            sender.send(Change { at, instance, present: event.event_type() == EventType::Put })?;
        }
    }
    bail!("etcd ended the watch")
}

type Listed = BTreeSet<Instance>;

async fn watch_slices(
    api: Api<EndpointSlice>,
    config: watcher::Config,
    listed: tokio::sync::oneshot::Sender<Listed>,
    sender: UnboundedSender<Change>,
) -> Result<()> {
    let mut events = std::pin::pin!(watcher(api, config));
    let mut known: BTreeMap<String, Listed> = BTreeMap::new();
    let mut listed = Some(listed);
    while let Some(event) = events.next().await {
        let at = Instant::now();
        let (name, now) = match event? {
            watcher::Event::Init => continue,
            watcher::Event::InitDone => {
                let all = known.values().flatten().cloned().collect();
                if let Some(listed) = listed.take() {
                    // A receiver that is gone waits no more.
                    let _ = listed.send(all);
                }
                continue;
            }
            watcher::Event::InitApply(slice) | watcher::Event::Apply(slice) => {
                (records::name(&slice).to_owned(), instances(&slice))
            }
            watcher::Event::Delete(slice) => (records::name(&slice).to_owned(), Listed::new()),
        };
        let before = known.insert(name, now.clone()).unwrap_or_default();
        if listed.is_none() {
            let came = now.difference(&before).map(|instance| (instance, true));
            let went = before.difference(&now).map(|instance| (instance, false));
            for (instance, present) in came.chain(went) {
                sender.send(Change { at, instance: instance.clone(), present })?;
            }
        }
    }
    bail!("the watch of slices ended")
}

fn instances(slice: &EndpointSlice) -> Listed {
    let service = records::label(slice, SERVICE_LABEL);
    records::addresses(slice).map(|address| Instance { service: service.to_owned(), address }).collect()
}
