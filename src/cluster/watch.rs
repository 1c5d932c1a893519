//! One watch that keeps the view of the cluster true, opened again until it is stopped.
//!
//! Owns how the objects of a kind enter the view, and the clock of the watch: every page, every opening and every
//! opened watch has a deadline, so that no silent connection freezes a kind (`docs/decisions/0031`). An object that a
//! re-list does not name is removed, as if the watch had reported its deletion. A kind that an older API server may
//! lack is asked for now and then. Refuses to know which watches there are ([`super::watches`]), and the controllers:
//! each change becomes a [`ClusterEvent`].

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join;
use kube::api::{ListParams, ObjectList, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use twinspan_core::model::ObjectKey;

use super::client::WATCH_SECONDS;
use super::kinds::Watched;
use super::reach::WHOLE;
use super::view::{ClusterEvent, ClusterView, Kind};
use super::watch_error::WatchError;
use crate::env::Env;
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;

/// The deadline of one page of a list: the API server itself gives up after a minute (`--request-timeout`).
const PAGE: Duration = Duration::from_secs(60);
/// Objects in one page, as in client-go.
const PAGE_SIZE: u32 = 500;
/// The deadline of opening a watch, which the API server answers before there is anything to tell.
const OPEN: Duration = Duration::from_secs(10);
/// The longest life of a watch. The server ends it earlier; one that it did not end is on a dead connection.
const LIFE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// First wait after a watch failed; doubled for each further failure.
const BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait: for a longer one a recovered API server would go unnoticed.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// A watch that lived so long works: the next failure is the first.
const WORKS: Duration = Duration::from_secs(30);
/// One that the server ended earlier than this is not opened again at once.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// Least time between two warnings about one kind.
const TELL: Duration = Duration::from_secs(60);
/// Wait until an API server is asked again for a kind that it does not serve: shorter than
/// [`SILENT_AFTER`](super::kind::SILENT_AFTER), because its refusal is a sign of life too.
const ABSENT: Duration = Duration::from_secs(60);

/// Everything that the watches share.
#[derive(Clone, Debug)]
pub struct Watches {
    pub view: Arc<Mutex<ClusterView>>,
    pub events: mpsc::UnboundedSender<ClusterEvent>,
    pub env: Env,
    /// The address of the API server, for the log.
    pub server: String,
    pub metrics: Arc<Metrics>,
    pub stop: CancellationToken,
    pub tasks: Tasks,
}

impl Watches {
    pub(super) fn view(&self) -> MutexGuard<'_, ClusterView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, events: Vec<ClusterEvent>) {
        for event in events {
            // The receiver is gone only while the process ends.
            let _ = self.events.send(event);
        }
    }
}

/// The watch of one part of a kind.
pub(super) struct Watch<K> {
    api: Api<K>,
    /// The part of the kind that it tells of.
    part: String,
    watches: Watches,
    /// The version from which the watch goes on; `None` before a complete list.
    version: Option<String>,
    failures: u32,
    warned: Option<Instant>,
    /// Whether the log says that it fails.
    told: bool,
}

impl<K: Watched> Watch<K> {
    pub(super) fn new(api: Api<K>, part: String, watches: Watches) -> Self {
        Self { api, part, watches, version: None, failures: 0, warned: None, told: false }
    }

    /// The one object of a part, where the kind has no namespaces.
    fn fields(&self) -> Option<String> {
        (K::KIND == Kind::Namespace && self.part != WHOLE).then(|| format!("metadata.name={}", self.part))
    }

    /// Whether an object is in the part.
    fn has(&self, key: &ObjectKey) -> bool {
        let part = if K::KIND == Kind::Namespace { &key.name } else { &key.namespace };
        self.part == WHOLE || *part == self.part
    }

    /// In namespaced mode, a namespace that is not there has no objects and no Role either: nothing of it is unknown,
    /// and the others do not wait for it.
    fn is_of_no_namespace(&self) -> bool {
        let view = self.watches.view();
        self.part != WHOLE && view.has_listed(&[Kind::Namespace]) && !view.namespaces.contains_key(&self.part)
    }

    /// Watches until the task is dropped.
    pub(super) async fn repeat(mut self) {
        loop {
            let began = Instant::now();
            let ended = self.follow().await;
            if began.elapsed() >= WORKS {
                self.failures = 0;
            }
            match ended {
                Ok(()) if began.elapsed() >= TOO_SHORT => continue,
                Ok(()) => self.restarts("too_short"),
                Err(WatchError::NotServed) if K::MAY_BE_ABSENT => {
                    self.absent();
                    self.failures = 0;
                    sleep(ABSENT).await;
                    continue;
                }
                Err(WatchError::Forbidden(_)) if self.is_of_no_namespace() => {
                    self.is_empty();
                    self.failures = 0;
                    self.no_namespace().await;
                    continue;
                }
                Err(error) => self.failed(&error),
            }
            self.failures = self.failures.saturating_add(1);
            sleep(self.watches.env.backoff(self.failures, BACKOFF, BACKOFF_CAP)).await;
        }
    }

    fn restarts(&self, reason: &'static str) {
        self.watches.metrics.calls.watch_restarted(K::KIND.as_str(), reason);
    }

    fn failed(&mut self, error: &WatchError) {
        self.restarts(error.label());
        self.watches.view().watching.set_broken(K::KIND, &self.part, true);
        let (kind, server) = (K::KIND.as_str(), &self.watches.server);
        if matches!(error, WatchError::Expired) || self.warned.is_some_and(|at| at.elapsed() < TELL) {
            debug!(kind, server, %error, "cannot watch; trying again");
        } else {
            warn!(kind, server, %error, "cannot watch; trying again");
            (self.warned, self.told) = (Some(Instant::now()), true);
        }
    }

    /// The namespace of the part is not there.
    fn is_empty(&self) {
        self.watches.view().watching.heard(K::KIND, &self.part, self.watches.env.now());
        self.complete(&BTreeSet::new(), None);
        self.watches.view().watching.set_broken(K::KIND, &self.part, true);
    }

    /// Waits until the namespace of the part may be there. A refusal is asked for again meanwhile, for it is a sign of
    /// life.
    async fn no_namespace(&self) {
        let until = Instant::now() + ABSENT;
        while Instant::now() < until && self.is_of_no_namespace() {
            sleep(BACKOFF_CAP).await;
        }
    }

    /// The API server does not serve the kind, which is as good as a list of nothing. An upgrade may bring it.
    fn absent(&mut self) {
        let changed = {
            let mut view = self.watches.view();
            view.watching.heard(K::KIND, &self.part, self.watches.env.now());
            view.set_absent(K::KIND)
        };
        if changed {
            let (kind, server) = (K::KIND.as_str(), &self.watches.server);
            info!(kind, server, "this API server does not serve it; asking again every {} s", ABSENT.as_secs());
            self.told = true;
            self.watches.send(vec![ClusterEvent::Synced(K::KIND)]);
        }
    }

    /// Lists where nothing is known, and watches until the watch ends.
    async fn follow(&mut self) -> Result<(), WatchError> {
        let mut version = match self.version.take() {
            Some(version) => version,
            None => self.list().await?,
        };
        let followed = self.watch(&mut version).await;
        self.version = match followed {
            Err(WatchError::Expired | WatchError::NoVersion | WatchError::Unreadable(_) | WatchError::NotServed) => {
                None
            }
            _ => Some(version),
        };
        followed
    }

    /// Enters every object, page by page. Returns the version of the list.
    async fn list(&self) -> Result<String, WatchError> {
        {
            let mut view = self.watches.view();
            view.watching.set_broken(K::KIND, &self.part, true);
            K::list_begins(&mut view, &self.part);
        }
        let (mut listed, mut params) = (BTreeSet::new(), ListParams::default().limit(PAGE_SIZE));
        params.field_selector = self.fields();
        let mut page = self.fetch(&params).await?;
        loop {
            let (objects, meta) = (page.items, page.metadata);
            let Some(token) = meta.continue_.filter(|token| !token.is_empty()) else {
                let version = meta.resource_version.filter(|version| !version.is_empty());
                let version = version.ok_or(WatchError::NoVersion)?;
                self.page(objects, &mut listed);
                self.complete(&listed, Some(&version));
                return Ok(version);
            };
            params.continue_token = Some(token);
            // The API server works on the next page meanwhile.
            let (next, ()) = join(self.fetch(&params), async { self.page(objects, &mut listed) }).await;
            page = next?;
        }
    }

    async fn fetch(&self, params: &ListParams) -> Result<ObjectList<K>, WatchError> {
        let page = timeout(PAGE, self.api.list(params)).await;
        Ok(page.map_err(|_| WatchError::Timeout { what: "a list", limit: PAGE })??)
    }

    fn page(&self, objects: Vec<K>, listed: &mut BTreeSet<ObjectKey>) {
        let mut affected = Vec::new();
        let mut view = self.watches.view();
        view.watching.heard(K::KIND, &self.part, self.watches.env.now());
        for object in objects {
            let key = key(&object);
            listed.insert(key.clone());
            let events = K::put(&mut view, key, object);
            learnt_by_list(&mut view, &events);
            affected.extend(events);
        }
        drop(view);
        self.watches.send(affected);
    }

    /// The part has these objects and no others, at the version of the list that named them.
    fn complete(&self, listed: &BTreeSet<ObjectKey>, version: Option<&str>) {
        let mut view = self.watches.view();
        if let Some(version) = version {
            K::set_told(&mut view, &self.part, version);
        }
        let known = K::known(&view);
        let vanished: Vec<ObjectKey> = known.difference(listed).filter(|key| self.has(key)).cloned().collect();
        debug!(kind = K::KIND.as_str(), objects = listed.len(), vanished = vanished.len(), "listed");
        let mut affected: Vec<ClusterEvent> = vanished.iter().flat_map(|key| K::vanish(&mut view, key)).collect();
        learnt_by_list(&mut view, &affected);
        let came = view.set_served(K::KIND);
        if view.watching.set_listed(K::KIND, &self.part) || came {
            affected.push(ClusterEvent::Synced(K::KIND));
        }
        drop(view);
        self.watches.send(affected);
    }

    /// Watches until the server ends the watch, as it was asked to.
    async fn watch(&mut self, version: &mut String) -> Result<(), WatchError> {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.field_selector = self.fields();
        let opening = timeout(OPEN, self.api.watch(&params, version)).await;
        let mut stream =
            pin!(opening.map_err(|_| WatchError::Timeout { what: "the opening of a watch", limit: OPEN })??);
        self.opened();
        let end = Instant::now() + LIFE;
        loop {
            match timeout_at(end, stream.next()).await.map_err(|_| WatchError::Silent)? {
                None => return Ok(()),
                Some(event) => self.event(event?, version)?,
            }
        }
    }

    fn opened(&mut self) {
        {
            let mut view = self.watches.view();
            view.watching.heard(K::KIND, &self.part, self.watches.env.now());
            view.watching.set_broken(K::KIND, &self.part, false);
        }
        if std::mem::take(&mut self.told) {
            info!(kind = K::KIND.as_str(), server = self.watches.server, "watching again");
        }
    }

    fn event(&self, event: WatchEvent<K>, version: &mut String) -> Result<(), WatchError> {
        let mut view = self.watches.view();
        view.watching.heard(K::KIND, &self.part, self.watches.env.now());
        let affected = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                *version = version_of(&object)?;
                let key = key(&object);
                let outdated = K::is_outdated(&view, &key, &object);
                K::set_told(&mut view, &self.part, version);
                if outdated { Vec::new() } else { K::put(&mut view, key, object) }
            }
            // Its version is that of the deletion (`etcd3/watcher.go` of k8s.io/apiserver).
            WatchEvent::Deleted(object) => {
                *version = version_of(&object)?;
                let key = key(&object);
                let outdated = K::is_outdated(&view, &key, &object);
                K::set_told(&mut view, &self.part, version);
                if outdated { Vec::new() } else { K::remove(&mut view, &key) }
            }
            WatchEvent::Bookmark(bookmark) => {
                *version = bookmark.metadata.resource_version;
                Vec::new()
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        };
        drop(view);
        self.watches.send(affected);
        Ok(())
    }
}

fn version_of<K: Resource>(object: &K) -> Result<String, WatchError> {
    object.meta().resource_version.clone().filter(|version| !version.is_empty()).ok_or(WatchError::NoVersion)
}

/// A re-list shows neither when nor how something changed, so it does not prove that an endpoint ended.
fn learnt_by_list(view: &mut ClusterView, affected: &[ClusterEvent]) {
    for event in affected {
        if let ClusterEvent::Service(service) = event {
            view.learnt_by_list(service);
        }
    }
}

fn key<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
