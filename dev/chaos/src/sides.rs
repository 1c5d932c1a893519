//! The state of each side, by watches of its own.
//!
//! Owns the present state of both, their history as far as it was seen, and the count of Twinspan's writes. Refuses to
//! judge, and to ask Twinspan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::{EventType, GetOptions, KeyValue, WatchOptions};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, watcher};
use tokio::time::{sleep, timeout};
use twinspan::api::{RegisteredService, ServiceRegistry};

use crate::bed::{Bed, CHURNED, NAMESPACE, PREFIX, SYNCED};
use crate::registry;

/// The mark of Twinspan's own records (`core/src/codec/mark.rs`).
const MARK: &str = "\"twinspan.dev/owner\"";
/// The default of `spec.fence.keyPrefix`.
pub const EPOCHS: &str = "twinspan/";
const SERVICE: &str = "kubernetes.io/service-name";
const MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
const OURS: &str = "twinspan.dev";
const DEADLINE: Duration = Duration::from_secs(5);

/// Addresses by service.
pub type Addresses = BTreeMap<String, BTreeSet<Ipv4Addr>>;

/// Both sides, in the parts that each side's own clients write and those that Twinspan writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Records of servers, and Twinspan's.
    pub registered: Addresses,
    pub exported: Addresses,
    /// Ready endpoints of Kubernetes' own slices, and those of Twinspan's.
    pub ready: Addresses,
    pub imported: Addresses,
}

impl Seen {
    /// Where the two sides differ: service and address, and the side that lacks it.
    pub fn differences(&self) -> BTreeSet<(String, Ipv4Addr, &'static str)> {
        let both = |one: &Addresses, other: &Addresses, name: &str| -> BTreeSet<Ipv4Addr> {
            [one, other].into_iter().filter_map(|side| side.get(name)).flatten().copied().collect()
        };
        let mut found = BTreeSet::new();
        for name in CHURNED.into_iter().chain([SYNCED]) {
            let registry = both(&self.registered, &self.exported, name);
            let cluster = both(&self.ready, &self.imported, name);
            found.extend(registry.difference(&cluster).map(|ip| (name.to_owned(), *ip, "cluster")));
            found.extend(cluster.difference(&registry).map(|ip| (name.to_owned(), *ip, "registry")));
        }
        found
    }

    /// All addresses under a name.
    pub fn all(&self, name: &str) -> BTreeSet<Ipv4Addr> {
        let sides = [&self.registered, &self.exported, &self.ready, &self.imported];
        sides.into_iter().filter_map(|side| side.get(name)).flatten().copied().collect()
    }
}

/// The present state and the history, as the watches saw them.
#[derive(Debug, Default)]
pub struct Sides {
    records: Mutex<BTreeMap<String, (Ipv4Addr, bool)>>,
    slices: Mutex<BTreeMap<String, EndpointSlice>>,
    history: Mutex<History>,
}

/// The history of every key and every slice, as far as it was seen.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// For a key at a revision: whether a record of Twinspan was seen there, and whether one of somebody else. Both are
    /// possible, for a restored registry uses revisions again.
    pub keys: BTreeMap<(String, i64), (bool, bool)>,
    /// The managers of each slice.
    pub slices: BTreeMap<String, BTreeSet<String>>,
    /// Changes of records and slices that are Twinspan's.
    pub writes: usize,
    pub events: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sides {
    pub fn history(&self) -> History {
        lock(&self.history).clone()
    }

    pub fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for (key, (ip, ours)) in lock(&self.records).iter() {
            seen.add_record(key, *ip, *ours);
        }
        for slice in lock(&self.slices).values() {
            seen.add_slice(slice);
        }
        seen
    }

    /// Watches both sides until it is dropped.
    pub async fn run(&self, bed: &Bed) {
        tokio::join!(self.watch_registry(bed), self.watch_slices(bed));
    }

    async fn watch_registry(&self, bed: &Bed) {
        loop {
            // Every end of a watch, for whatever reason, is followed by a list.
            let _ = self.follow_registry(bed).await;
            sleep(Duration::from_millis(300)).await;
        }
    }

    async fn follow_registry(&self, bed: &Bed) -> Result<()> {
        let mut client = registry::any(&bed.members).await?;
        let listed = timeout(DEADLINE, client.get("", Some(GetOptions::new().with_all_keys()))).await??;
        let revision = listed.header().context("no header")?.revision();
        let records = listed.kvs().iter().filter_map(|kv| Some((text(kv.key()), record(kv)?))).collect();
        *lock(&self.records) = records;
        listed.kvs().iter().for_each(|kv| self.note(kv));
        let options = WatchOptions::new().with_all_keys().with_prev_key().with_start_revision(revision + 1);
        let mut stream = timeout(DEADLINE, client.watch("", Some(options))).await??;
        while let Some(response) = stream.message().await? {
            if response.canceled() {
                bail!("canceled");
            }
            for event in response.events() {
                let Some(kv) = event.kv() else { continue };
                let put = event.event_type() == EventType::Put;
                event.prev_kv().into_iter().for_each(|before| self.note(before));
                let marked = |kv: &KeyValue| ours(kv) || text(kv.key()).starts_with(EPOCHS);
                let mut records = lock(&self.records);
                let mut history = lock(&self.history);
                history.events += 1;
                if (put && marked(kv)) || event.prev_kv().is_some_and(|before| !put && marked(before)) {
                    history.writes += 1;
                }
                drop(history);
                if !put {
                    records.remove(&text(kv.key()));
                    continue;
                }
                self.note(kv);
                if let Some(record) = record(kv) {
                    records.insert(text(kv.key()), record);
                }
            }
        }
        Ok(())
    }

    fn note(&self, kv: &KeyValue) {
        let mut history = lock(&self.history);
        let seen = history.keys.entry((text(kv.key()), kv.mod_revision())).or_default();
        if ours(kv) { seen.0 = true } else { seen.1 = true }
    }

    async fn watch_slices(&self, bed: &Bed) {
        let api: Api<EndpointSlice> = Api::namespaced(bed.client(), NAMESPACE);
        let config = watcher::Config::default().timeout(30);
        let mut events = std::pin::pin!(watcher(api, config));
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = BTreeMap::new(),
                Ok(watcher::Event::InitApply(slice)) => {
                    self.note_slice(&slice, false);
                    listed.insert(slice.metadata.name.clone().unwrap_or_default(), slice);
                }
                Ok(watcher::Event::InitDone) => *lock(&self.slices) = std::mem::take(&mut listed),
                Ok(watcher::Event::Apply(slice)) => {
                    self.note_slice(&slice, true);
                    lock(&self.slices).insert(slice.metadata.name.clone().unwrap_or_default(), slice);
                }
                Ok(watcher::Event::Delete(slice)) => {
                    self.note_slice(&slice, true);
                    lock(&self.slices).remove(&slice.metadata.name.unwrap_or_default());
                }
                Err(_) => sleep(Duration::from_millis(300)).await,
            }
        }
    }

    fn note_slice(&self, slice: &EndpointSlice, changed: bool) {
        let mut history = lock(&self.history);
        let managers = history.slices.entry(slice.metadata.name.clone().unwrap_or_default()).or_default();
        managers.insert(label(slice, MANAGER).to_owned());
        history.events += 1;
        history.writes += usize::from(changed && label(slice, MANAGER) == OURS);
    }
}

impl Seen {
    /// Both sides as they are now, by lists.
    pub async fn now(bed: &Bed) -> Result<Self> {
        let mut seen = Self::default();
        for kv in list_registry(bed).await? {
            if let Some((ip, ours)) = record(&kv) {
                seen.add_record(&text(kv.key()), ip, ours);
            }
        }
        let slices: Api<EndpointSlice> = Api::namespaced(bed.client(), NAMESPACE);
        for slice in timeout(DEADLINE, slices.list(&ListParams::default())).await??.items {
            seen.add_slice(&slice);
        }
        Ok(seen)
    }

    fn add_record(&mut self, key: &str, ip: Ipv4Addr, ours: bool) {
        let Some((name, _)) = key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else { return };
        let side = if ours { &mut self.exported } else { &mut self.registered };
        side.entry(name.to_owned()).or_default().insert(ip);
    }

    fn add_slice(&mut self, slice: &EndpointSlice) {
        let side = if label(slice, MANAGER) == OURS { &mut self.imported } else { &mut self.ready };
        let served = side.entry(label(slice, SERVICE).to_owned()).or_default();
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false);
            served.extend(endpoint.addresses.iter().filter(|_| ready).filter_map(|ip| ip.parse::<Ipv4Addr>().ok()));
        }
    }
}

/// The pods that are ready, by the service that selects them.
pub async fn ready_pods(bed: &Bed) -> Result<Addresses> {
    let pods: Api<Pod> = Api::namespaced(bed.client(), NAMESPACE);
    let mut found = Addresses::new();
    for (app, ip) in timeout(DEADLINE, pods.list(&ListParams::default())).await??.items.iter().filter_map(ready) {
        found.entry(app).or_default().insert(ip);
    }
    Ok(found)
}

/// The service and the address of a pod that Kubernetes calls ready.
///
/// An API server that dies within a deletion without grace leaves a pod with a deletionTimestamp: it marks first and
/// deletes then (apiserver/pkg/registry/generic/registry/store.go, v1.37). No slice calls such a pod ready.
fn ready(pod: &Pod) -> Option<(String, Ipv4Addr)> {
    let status = pod.status.as_ref()?;
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if !ready || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some((pod.metadata.labels.as_ref()?.get("app")?.clone(), status.pod_ip.as_ref()?.parse().ok()?))
}

/// Where the endpoints of the second cluster, if there is one, differ from the registry.
pub async fn second_lacks(bed: &Bed, seen: &Seen) -> Result<Vec<String>> {
    let Some(second) = &bed.second else { return Ok(Vec::new()) };
    let mut there = Seen::default();
    let slices: Api<EndpointSlice> = Api::namespaced(second.client(), NAMESPACE);
    timeout(DEADLINE, slices.list(&ListParams::default()))
        .await??
        .items
        .iter()
        .for_each(|slice| there.add_slice(slice));
    // Records of both kinds are foreign ones there.
    there.registered = seen.registered.clone();
    there.exported = seen.exported.clone();
    Ok(there.differences().iter().map(|(name, ip, side)| format!("second: {name} {ip} is not in the {side}")).collect())
}

/// The versions of everything that Twinspan may write: records, epochs, slices, objects with a status.
pub async fn versions(bed: &Bed) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for kv in list_registry(bed).await? {
        if ours(&kv) || text(kv.key()).starts_with(EPOCHS) {
            found.insert(text(kv.key()), kv.mod_revision().to_string());
        }
    }
    for (cluster, client) in clients(bed) {
        let mut add = |kind: &str, metadata: kube::api::ObjectMeta| {
            let name = format!("{cluster}{kind}/{}", metadata.name.unwrap_or_default());
            found.insert(name, metadata.resource_version.unwrap_or_default());
        };
        let all = ListParams::default();
        let ours = ListParams::default().labels(&format!("{MANAGER}={OURS}"));
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
        timeout(DEADLINE, slices.list(&ours)).await??.items.into_iter().for_each(|o| add("slice", o.metadata));
        let services: Api<RegisteredService> = Api::namespaced(client.clone(), NAMESPACE);
        timeout(DEADLINE, services.list(&all)).await??.items.into_iter().for_each(|o| add("rsvc", o.metadata));
        let registries: Api<ServiceRegistry> = Api::all(client);
        timeout(DEADLINE, registries.list(&all)).await??.items.into_iter().for_each(|o| add("svcreg", o.metadata));
    }
    Ok(found)
}

/// The clusters, by what is put before the names of their objects.
fn clients(bed: &Bed) -> Vec<(&'static str, Client)> {
    let second = bed.second.as_ref().map(|second| ("second ", second.client()));
    [("", bed.client())].into_iter().chain(second).collect()
}

/// True if a guard holds removals, of a service or of the registry.
pub async fn holds(bed: &Bed) -> Result<bool> {
    let all = ListParams::default();
    let mut objects = Vec::new();
    for (_, client) in clients(bed) {
        let services: Api<RegisteredService> = Api::namespaced(client.clone(), NAMESPACE);
        for object in timeout(DEADLINE, services.list(&all)).await??.items {
            objects.push(serde_json::to_value(object)?);
        }
        let registries: Api<ServiceRegistry> = Api::all(client);
        for object in timeout(DEADLINE, registries.list(&all)).await??.items {
            objects.push(serde_json::to_value(object)?);
        }
    }
    let holds = |object: &serde_json::Value| {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|c| c["type"] == "DeletionsHeld" && c["status"] == "True")
    };
    Ok(objects.iter().any(holds))
}

async fn list_registry(bed: &Bed) -> Result<Vec<KeyValue>> {
    let mut client = registry::any(&bed.members).await?;
    let listed = timeout(DEADLINE, client.get("", Some(GetOptions::new().with_all_keys()))).await??;
    Ok(listed.kvs().to_vec())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ours(kv: &KeyValue) -> bool {
    text(kv.value()).contains(MARK)
}

/// The address of a record, and whether it is Twinspan's; none for what is no record.
fn record(kv: &KeyValue) -> Option<(Ipv4Addr, bool)> {
    let key = text(kv.key());
    let (_, address) = key.strip_prefix(PREFIX)?.split_once('/')?;
    let (ip, _) = address.rsplit_once(':')?;
    Some((ip.parse().ok()?, ours(kv)))
}

fn label<'a>(slice: &'a EndpointSlice, name: &str) -> &'a str {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);
    const POD: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 1);

    fn seen(registered: &[Ipv4Addr], exported: &[Ipv4Addr], ready: &[Ipv4Addr], imported: &[Ipv4Addr]) -> Seen {
        let of = |ips: &[Ipv4Addr]| Addresses::from([(SYNCED.to_owned(), ips.iter().copied().collect())]);
        Seen { registered: of(registered), exported: of(exported), ready: of(ready), imported: of(imported) }
    }

    #[test]
    fn both_sides_are_equal_whoever_wrote_what() {
        assert!(seen(&[VM], &[POD], &[POD], &[VM]).differences().is_empty());
        // A healed record, and a pod that registered itself.
        assert!(seen(&[POD], &[VM], &[POD], &[VM]).differences().is_empty());
    }

    #[test]
    fn a_difference_names_the_side_that_lacks_it() {
        let lacks = |seen: Seen| seen.differences().into_iter().map(|(_, ip, side)| (ip, side)).collect::<Vec<_>>();
        assert_eq!(lacks(seen(&[VM], &[], &[], &[])), [(VM, "cluster")]);
        assert_eq!(lacks(seen(&[VM], &[], &[POD], &[VM])), [(POD, "registry")]);
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_not_ready() -> Result<()> {
        let mut pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "labels": { "app": SYNCED } },
            "status": { "podIP": POD.to_string(), "conditions": [{ "type": "Ready", "status": "True" }] },
        }))?;
        assert_eq!(ready(&pod), Some((SYNCED.to_owned(), POD)));
        pod.metadata.deletion_timestamp = Some(serde_json::from_value("2026-01-01T00:00:00Z".into())?);
        assert_eq!(ready(&pod), None);
        Ok(())
    }
}
