//! The ideal bridge: raw clients that take the steps of the operator and no others, as a process of its own.
//!
//! - [`import`]: which slices follow from the records. [`export`]: which records follow from the slices.
//!
//! Owns the order of a start, and the loop that takes events and sends writes. Refuses to know leaders, trust, guards,
//! objects of Twinspan, and failures: the first one ends the process.

mod export;
mod import;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use etcd_client::{EventType, WatchOptions};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use kube::runtime::watcher::{self, watcher};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use twinspan_testbed::Kubeconfig;

use crate::records::{self, BRIDGE, MANAGER_LABEL, Place};
use crate::registry::{self, Fence};
use export::Exports;
use import::Imports;

/// The line by which the process tells that both sides are equal for the first time.
pub const READY: &str = "ready";
/// API writes under way at once: the number with which the floors are best.
const API_WRITES: usize = 16;
/// Transactions under way at once.
const COMMITS: usize = 4;

/// The order for one process.
#[derive(Clone, Debug)]
pub struct Order {
    pub kubeconfig: PathBuf,
    pub endpoint: String,
    pub place: Place,
}

impl Order {
    /// The arguments of the process, behind the word that names it.
    pub fn arguments(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig.display().to_string();
        vec![kubeconfig, self.endpoint.clone(), self.place.namespace.clone(), self.place.prefix.clone()]
    }

    pub fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut next = || arguments.next().context("the ideal bridge needs four arguments");
        let (kubeconfig, endpoint) = (PathBuf::from(next()?), next()?);
        Ok(Self { kubeconfig, endpoint, place: Place { namespace: next()?, prefix: next()? } })
    }
}

#[derive(Debug)]
enum Event {
    Record {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        revision: i64,
    },
    Slice {
        name: String,
        slice: Option<Box<EndpointSlice>>,
    },
    /// Every slice was listed.
    Listed,
    Replaced(Result<Box<EndpointSlice>>),
    Committed {
        keys: Vec<String>,
        revision: Result<i64>,
    },
}

struct Bridge {
    place: Place,
    slices: Api<EndpointSlice>,
    etcd: etcd_client::Client,
    fence: Fence,
    lease: i64,
    turns: Arc<Semaphore>,
    events: UnboundedSender<Event>,
    imports: Imports,
    exports: Exports,
}

/// Runs until it is killed.
pub async fn run(order: &Order) -> Result<()> {
    let client = Kubeconfig { path: order.kubeconfig.clone() }.client().await?;
    let etcd = registry::connect(&order.endpoint).await?;
    let fence = Fence::raise(&etcd, &format!("{}//fence", order.place.prefix)).await?;
    let lease = registry::grant(&etcd).await?;
    let (events, mut taken) = unbounded_channel();

    let prefix = format!("{}/", order.place.prefix);
    let (listed, revision) = registry::list(&etcd, &prefix).await?;
    for kv in listed {
        let (key, value) = (kv.key().to_vec(), Some(kv.value().to_vec()));
        events.send(Event::Record { key, value, revision: kv.mod_revision() })?;
    }
    let records = tokio::spawn(watch_records(etcd.clone(), prefix, revision + 1, events.clone()));
    let slices = tokio::spawn(watch_slices(Api::all(client.clone()), order.place.namespace.clone(), events.clone()));
    let mut bridge = Bridge {
        slices: Api::namespaced(client, &order.place.namespace),
        imports: Imports::new(&order.place),
        exports: Exports::new(&order.place),
        place: order.place.clone(),
        etcd,
        fence,
        lease,
        turns: Arc::new(Semaphore::new(API_WRITES)),
        events,
    };
    tokio::select! {
        ended = bridge.follow(&mut taken) => ended,
        ended = records => ended?,
        ended = slices => ended?,
    }
}

impl Bridge {
    async fn follow(&mut self, taken: &mut UnboundedReceiver<Event>) -> Result<()> {
        let (mut listed, mut told) = (false, false);
        loop {
            let first = taken.recv().await.context("no more events")?;
            listed |= self.take(first)?;
            // Events that are there already are taken before the writes that follow from them.
            while let Ok(event) = taken.try_recv() {
                listed |= self.take(event)?;
            }
            if listed {
                self.write();
                if !told && self.imports.is_settled() && self.exports.is_settled() {
                    told = true;
                    println!("{READY}");
                }
            }
        }
    }

    /// Takes an event. True for the end of the list.
    fn take(&mut self, event: Event) -> Result<bool> {
        match event {
            Event::Listed => return Ok(true),
            Event::Record { key, value, revision } => self.record(&key, value.as_deref(), revision),
            Event::Slice { name, slice } => {
                let is_own = |slice: &EndpointSlice| records::label(slice, MANAGER_LABEL) == BRIDGE;
                match slice {
                    Some(slice) if is_own(&slice) => self.imports.listed(&slice),
                    slice => self.exports.source(&name, slice.as_deref()),
                }
            }
            Event::Replaced(slice) => self.imports.replaced(slice?.as_ref()),
            Event::Committed { keys, revision } => self.exports.committed(&keys, revision?),
        }
        Ok(false)
    }

    fn record(&mut self, key: &[u8], value: Option<&[u8]>, revision: i64) {
        let Some((service, address)) = self.place.read_key(key) else { return };
        match value {
            Some(value) if records::is_foreign(value) => self.imports.put(&service, address),
            Some(_) => self.exports.own(&service, address, revision),
            None => self.imports.deleted(&service, address),
        }
    }

    fn write(&mut self) {
        for slice in self.imports.due() {
            let (api, turns, events) = (self.slices.clone(), self.turns.clone(), self.events.clone());
            tokio::spawn(async move {
                let Ok(_turn) = turns.acquire().await else { return };
                let name = records::name(&slice);
                let once = PostParams::default();
                let written = match slice.metadata.resource_version {
                    None => api.create(&once, &slice).await,
                    Some(_) => api.replace(name, &once, &slice).await,
                };
                let written = written.map(Box::new).with_context(|| format!("cannot write the slice {name}"));
                // Nobody listens once the bridge has ended.
                let _ = events.send(Event::Replaced(written));
            });
        }
        while let Some(writes) = self.exports.due(COMMITS) {
            let (etcd, fence, lease, events) = (self.etcd.clone(), self.fence.clone(), self.lease, self.events.clone());
            tokio::spawn(async move {
                let revision = registry::commit(&etcd, &fence, lease, &writes).await;
                let keys = writes.into_iter().map(|write| write.key).collect();
                let _ = events.send(Event::Committed { keys, revision });
            });
        }
    }
}

async fn watch_records(
    mut etcd: etcd_client::Client,
    prefix: String,
    from: i64,
    sender: UnboundedSender<Event>,
) -> Result<()> {
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let mut stream = etcd.watch(prefix, Some(options)).await?;
    while let Some(response) = stream.message().await? {
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let value = (event.event_type() == EventType::Put).then(|| kv.value().to_vec());
            sender.send(Event::Record { key: kv.key().to_vec(), value, revision: kv.mod_revision() })?;
        }
    }
    bail!("etcd ended the watch")
}

/// Watches the slices of all namespaces, as the operator has to, and passes on those of one.
async fn watch_slices(api: Api<EndpointSlice>, namespace: String, sender: UnboundedSender<Event>) -> Result<()> {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let (slice, exists) = match event? {
            watcher::Event::Init => continue,
            watcher::Event::InitDone => {
                sender.send(Event::Listed)?;
                continue;
            }
            watcher::Event::InitApply(slice) | watcher::Event::Apply(slice) => (slice, true),
            watcher::Event::Delete(slice) => (slice, false),
        };
        if slice.metadata.namespace.as_deref() == Some(namespace.as_str()) {
            let name = records::name(&slice).to_owned();
            sender.send(Event::Slice { name, slice: exists.then(|| Box::new(slice)) })?;
        }
    }
    bail!("the watch of slices ended")
}
