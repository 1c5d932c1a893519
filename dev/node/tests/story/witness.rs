//! Every change of records and slices since a moment, from the histories of both stores.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use etcd_client::{EventType, PutOptions, WatchOptions};
use futures::TryStreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, ResourceExt, WatchEvent, WatchParams};
use twinspan_node::{Node, scene};

/// The prefix of Kitex' records.
pub const RECORDS: &str = "kitex/registry-etcd/";
/// A key that we put ourselves to mark the end of the history.
const END: &str = "story/end";

pub struct Witness {
    /// The revision of the registry at that moment.
    revision: i64,
    slices: BTreeMap<String, BTreeSet<String>>,
    resource_version: String,
}

impl Witness {
    pub async fn new(node: &Node) -> Result<Self> {
        let answer = node.registry.client().await?.get(RECORDS, None).await?;
        let revision = answer.header().context("an answer without a header")?.revision();
        let list = slices(node).list(&ListParams::default()).await?;
        let resource_version = list.metadata.resource_version.context("a list without a version")?;
        let slices = list.items.iter().map(|slice| (slice.name_any(), addresses(slice))).collect();
        Ok(Self { revision, slices, resource_version })
    }

    /// Exactly so many records were added, no record was otherwise written or removed, and no endpoint was removed.
    pub async fn only_additions(self, node: &Node, records: usize) -> Result<()> {
        let mut client = node.registry.client().await?;
        let options = WatchOptions::new().with_all_keys().with_start_revision(self.revision + 1);
        let mut history = client.watch("", Some(options)).await?;
        client.put(END, "", Some(PutOptions::new())).await?;
        let mut added = 0;
        'history: loop {
            let answer = history.message().await?.context("the history ended early")?;
            for event in answer.events() {
                let kv = event.kv().context("an event without a key")?;
                let key = kv.key_str()?;
                if key == END {
                    break 'history;
                }
                if key.starts_with(RECORDS) {
                    ensure!(event.event_type() == EventType::Put && kv.version() == 1, "not an addition: {event:?}");
                    added += 1;
                }
            }
        }
        ensure!(added == records, "{added} records were added, want {records}");

        let mut known = self.slices;
        let params = WatchParams::default().timeout(2);
        let events = slices(node).watch(&params, &self.resource_version).await?;
        let events: Vec<WatchEvent<EndpointSlice>> = events.try_collect().await?;
        ensure!(!events.is_empty(), "not even the pod that was added is in the history of slices");
        for event in events {
            let slice = match event {
                WatchEvent::Added(slice) | WatchEvent::Modified(slice) => slice,
                WatchEvent::Bookmark(_) => continue,
                other => anyhow::bail!("not an addition: {other:?}"),
            };
            let now = addresses(&slice);
            let before = known.insert(slice.name_any(), now.clone()).unwrap_or_default();
            ensure!(now.is_superset(&before), "{} lost endpoints: {before:?}, then {now:?}", slice.name_any());
        }
        Ok(())
    }
}

fn slices(node: &Node) -> Api<EndpointSlice> {
    Api::namespaced(node.cluster.client.clone(), scene::SHOP)
}

/// The addresses of ready endpoints.
fn addresses(slice: &EndpointSlice) -> BTreeSet<String> {
    let ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
    };
    slice.endpoints.iter().filter(ready).flat_map(|endpoint| endpoint.addresses.clone()).collect()
}
