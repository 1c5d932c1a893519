//! The writer of statuses: one task for both kinds, beside the passes.
//!
//! Owns the way of a status from the pass that hands it over to the API server, and what the API server made of it. A
//! pass hands the latest status over and ends; none runs because a status waits. Each patch names the UID and the
//! `resourceVersion` that the status was compared with, so that a late one overwrites neither a successor's status nor
//! that of another object of the same name (`docs/decisions/0032`). Written is what the API server answered. A replica
//! that does not lead writes nothing and forgets what waited. Refuses to know what a status says; order and pace are in
//! [`super::status_queue`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::calls::{Calls, unless_gone};
use super::status_patch::Known;
use super::status_queue::{Object, PACE, Status, StatusQueue, Waiting};
use super::status_read;
use super::turns::Line;
use super::view::{ClusterEvent, ClusterView};
use super::{ClusterError, Result};
use crate::api::{RegisteredService, RegisteredServiceStatus, ServiceRegistry, ServiceRegistryStatus, Stored};
use crate::env::Env;
use crate::leadership::Leadership;
use crate::telemetry::metrics::Metrics;

/// First wait before a status that somebody else changed meanwhile is written again.
const CONFLICT: Duration = Duration::from_millis(250);
/// Longest wait after failures.
const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// Least time between two warnings about statuses that cannot be written.
const WARNING_PACE: Duration = Duration::from_secs(60);

/// A change of a status that a watch showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The status that this process wrote.
    Ours,
    /// Somebody else changed it, and it has to be compared with the right one.
    Foreign,
    /// Not known yet, or none of our business because this process does not lead.
    Ignored,
}

/// The writer of statuses; clones are the same one.
#[derive(Clone)]
pub struct StatusWriter {
    calls: Calls,
    leadership: Leadership,
    view: Arc<Mutex<ClusterView>>,
    env: Env,
    metrics: Arc<Metrics>,
    events: mpsc::UnboundedSender<ClusterEvent>,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// The leadership in which the queue was filled.
    term: Option<u64>,
    queue: StatusQueue,
    /// The last answer to a write of this leadership.
    answers: BTreeMap<Object, Answer>,
    /// Kinds of which the API server drops fields, which is worth one warning each.
    dropped: BTreeSet<&'static str>,
    warned: Option<Instant>,
}

/// The form in which the API server keeps a status.
#[derive(Clone, Debug)]
struct Answer {
    version: String,
    /// The status as it was asked for and as it became, if they differ.
    differs: Option<(Status, Status)>,
}

/// A write that may be sent.
#[derive(Debug)]
struct Job {
    object: Object,
    waiting: Waiting,
    /// The object in the view.
    known: Known,
}

impl fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusWriter")
    }
}

impl StatusWriter {
    /// `events` learns of every status that was written, and of those that somebody else changed meanwhile.
    pub fn new(
        calls: Calls,
        view: Arc<Mutex<ClusterView>>,
        env: Env,
        metrics: Arc<Metrics>,
        events: mpsc::UnboundedSender<ClusterEvent>,
    ) -> Self {
        let (state, changed) = Default::default();
        let leadership = calls.leadership.clone();
        Self { calls, leadership, view, env, metrics, events, state, changed }
    }

    fn view(&self) -> MutexGuard<'_, ClusterView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state; a leadership that ended took along what waited. The guard is not held together with the view's.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let term = self.leadership.term().filter(|_| self.leadership.may_write());
        if state.term != term {
            state.term = term;
            state.queue.clear();
            state.answers.clear();
        }
        state
    }

    /// The latest status of a RegisteredService that is not written yet.
    pub fn latest_of_service(&self, object: &RegisteredService) -> Option<RegisteredServiceStatus> {
        match self.latest(&Object::RegisteredService(object.key()), &object.metadata)? {
            Status::RegisteredService(status) => Some(*status),
            Status::ServiceRegistry(_) => None,
        }
    }

    /// The latest status of a ServiceRegistry that is not written yet.
    pub fn latest_of_registry(&self, object: &ServiceRegistry) -> Option<ServiceRegistryStatus> {
        let name = object.metadata.name.clone()?;
        match self.latest(&Object::ServiceRegistry(name), &object.metadata)? {
            Status::ServiceRegistry(status) => Some(*status),
            Status::RegisteredService(_) => None,
        }
    }

    fn latest(&self, object: &Object, meta: &ObjectMeta) -> Option<Status> {
        self.state().queue.latest(object, meta.uid.as_deref().unwrap_or_default()).cloned()
    }

    /// Takes the right status of an object over. It is written if the API server has another one.
    pub fn hand_over(&self, object: Object, uid: &str, status: Status) {
        let known = Known::in_view(&self.view(), &object).filter(|known| known.uid == uid);
        let mut state = self.state();
        let Some(known) = known.filter(|_| state.term.is_some()) else {
            state.queue.remove(&object);
            return;
        };
        if !state.queue.is_under_way(&object) && state.is_there(&object, &status, &known) {
            state.queue.remove(&object);
        } else {
            let hold_changes = status.holds() != known.status.as_ref().is_some_and(Status::holds);
            state.queue.put(object, uid, status, hold_changes);
            self.changed.notify_one();
        }
        drop(state);
        self.count_waiting();
    }

    fn count_waiting(&self) {
        let count = self.state().queue.count();
        self.metrics.statuses_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The origin of a status in the view.
    pub fn judge(&self, object: &Object) -> Change {
        let known = Known::in_view(&self.view(), object);
        let state = self.state();
        match known {
            // Once its answer is there, the write itself is compared with the view.
            _ if state.term.is_none() || state.queue.is_under_way(object) => Change::Ignored,
            None => Change::Ignored,
            Some(known) => match state.answers.get(object) {
                Some(answer) if answer.version == known.version => Change::Ours,
                _ => Change::Foreign,
            },
        }
    }

    /// Writes what waits until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut leading = self.leadership.changes();
        let mut sending = FuturesUnordered::new();
        loop {
            let due = loop {
                match self.next() {
                    Ok(job) => sending.push(self.send(job)),
                    Err(due) => break due,
                }
            };
            self.count_waiting();
            let wait = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = sending.next() => {}
                () = self.changed.notified() => {}
                // The queue is forgotten.
                Ok(()) = leading.changed() => drop(leading.borrow_and_update()),
                () = wait => {}
            }
        }
    }

    /// The next write; what the API server has by now is forgotten.
    fn next(&self) -> std::result::Result<Job, Option<Instant>> {
        loop {
            let object = self.state().queue.next()?;
            let known = Known::in_view(&self.view(), &object);
            let mut state = self.state();
            let Some(waiting) = state.queue.get(&object) else { continue };
            let known = known.filter(|known| known.uid == waiting.uid);
            let Some(known) = known.filter(|known| !state.is_there(&object, &waiting.status, known)) else {
                state.queue.remove(&object);
                continue;
            };
            let Some(waiting) = state.queue.start(&object) else { continue };
            return Ok(Job { object, waiting, known });
        }
    }

    async fn send(&self, job: Job) {
        let result = self.exchange(&job).await;
        let Job { object, mut waiting, known } = job;
        match result {
            Ok(Some(answer)) => self.learn(object, waiting.status, &known, &answer),
            // The object is gone, another one has its name, or it is another release's.
            Ok(None) => self.state().queue.end(&object),
            Err(ClusterError::NotLeader) => self.state().queue.end(&object),
            Err(ClusterError::Conflict { .. }) => {
                waiting.failures += 1;
                waiting.outdated = Some(known.version);
                let wait = self.env.backoff(waiting.failures, CONFLICT, PACE);
                self.state().queue.retry(&object, wait, waiting);
            }
            Err(error) => {
                waiting.failures += 1;
                let wait = self.env.backoff(waiting.failures, PACE * 2, BACKOFF_CAP);
                let mut state = self.state();
                state.queue.retry(&object, wait, waiting);
                if state.warned.is_none_or(|at| at.elapsed() >= WARNING_PACE) {
                    state.warned = Some(Instant::now());
                    let waiting = state.queue.count();
                    warn!(%object, waiting, "cannot write a status: {error}; {waiting} wait and are tried again");
                } else {
                    debug!(%object, "cannot write a status: {error}");
                }
            }
        }
    }

    /// Sends one status. Returns the object in the answer, or `None` if it is gone, or another release's.
    async fn exchange(&self, job: &Job) -> Result<Option<Known>> {
        let Job { object, waiting, known } = job;
        let mut base = known.clone();
        if waiting.outdated.as_ref() == Some(&base.version) {
            // The watch lags behind.
            match status_read::read(&self.calls, object).await? {
                Some(live) if live.uid == waiting.uid => base = live,
                _ => return Ok(None),
            }
            if base.status.as_ref() == Some(&waiting.status) {
                return Ok(Some(base));
            }
        }
        // A claim is a compare-and-swap: a release that was faster keeps what it has.
        if base.is_anothers(&self.view(), object) {
            return Ok(None);
        }
        if !self.leadership.may_write() {
            return Err(ClusterError::NotLeader);
        }
        let mut status = waiting.status.clone();
        if status.continues_a_list(&base) {
            match status_read::read_whole(&self.calls, object).await? {
                Some(live) => status.keep_times(&live),
                None => return Ok(None),
            }
        }
        let patch = Patch::Merge(status.patch(&base)?);
        let (params, what) = (PatchParams::default(), format!("patch the status of {object}"));
        let (calls, client) = (&self.calls, self.calls.client.clone());
        Ok(match object {
            Object::ServiceRegistry(name) => {
                let api: Api<Stored<ServiceRegistry>> = Api::all(client);
                let written =
                    calls.call(Line::Reports, what, || unless_gone(api.patch_status(name, &params, &patch))).await?;
                written.map(|stored| Known::from(&stored.object))
            }
            Object::RegisteredService(key) => {
                let api: Api<Stored<RegisteredService>> = Api::namespaced(client, &key.namespace);
                let written = calls
                    .call(Line::Reports, what, || unless_gone(api.patch_status(&key.name, &params, &patch)))
                    .await?;
                written.map(|stored| Known::from(&stored.object))
            }
        })
    }

    /// Enters an answer into the view, unless the watch was faster.
    fn learn(&self, object: Object, asked: Status, sent: &Known, answer: &Known) {
        let event = {
            let mut view = self.view();
            match Known::in_view(&view, &object).filter(|known| known.uid == answer.uid) {
                None => None,
                Some(known) if known.version == sent.version => {
                    answer.enter(&mut view, &object);
                    Some(ClusterEvent::StatusWritten(object.clone()))
                }
                Some(known) if known.version == answer.version || known.status == answer.status => {
                    Some(ClusterEvent::StatusWritten(object.clone()))
                }
                Some(_) => Some(ClusterEvent::StatusChanged(object.clone())),
            }
        };
        let mut state = self.state();
        state.queue.end(&object);
        let became = answer.status.clone().filter(|became| *became != asked);
        if became.is_some() && state.dropped.insert(asked.kind()) {
            warn!(
                "the API server does not keep every field of the status of {object}: the CustomResourceDefinitions are of another \
                 version; apply those of this one"
            );
        }
        let answer = Answer { version: answer.version.clone(), differs: became.map(|became| (asked, became)) };
        if state.term.is_some() {
            state.answers.insert(object, answer);
        }
        drop(state);
        // The receiver is dropped only while the process ends.
        let _ = event.map(|event| self.events.send(event));
    }

    /// The object is gone.
    pub fn forget(&self, object: &Object) {
        let mut state = self.state();
        state.queue.remove(object);
        state.answers.remove(object);
        drop(state);
        self.count_waiting();
    }
}

impl State {
    /// Whether the API server has the status, or what it made of the same one before.
    fn is_there(&self, object: &Object, status: &Status, known: &Known) -> bool {
        known.status.as_ref() == Some(status)
            || self
                .answers
                .get(object)
                .and_then(|answer| answer.differs.as_ref())
                .is_some_and(|(asked, became)| asked == status && known.status.as_ref() == Some(became))
    }
}
