//! Kubernetes Events: what `kubectl describe` shows beneath an object.
//!
//! Owns the reasons, the check of the claim to lead, and the pace. A reason is told about an object at most every
//! [`PACE`], and an object has a budget as in client-go's spam filter, because whoever writes a registry must not fill
//! the API server with Events. What happens in between is told together, by the latest note (`docs/decisions/0033`).
//! All together are at most [`PER_SECOND`], warnings first: where a thousand services change at once, slices need the
//! API server.
//! Refuses to know when an Event is due, which the controllers decide, and its requests, which [`super::event_api`]
//! makes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use twinspan_core::model::{self, PodView};

use super::calls::Calls;
use super::event_api::{self, EventApi};
use super::pace::Pace;
use crate::api::{APPROVE_DELETIONS, RegisteredService, ServiceRegistry};
use crate::env::Env;
use crate::leadership::Leadership;

/// Least time between two Events of one reason about one object.
const PACE: Duration = Duration::from_secs(30);
/// The Events about one object that may come at once, and the time after which it may have one more.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);
/// Events a second, about all objects.
const PER_SECOND: u32 = 10;
/// Maximum of Events that wait.
const QUEUE: usize = 1000;
/// The times that an Event is sent if no answer says that it was published.
const ATTEMPTS: u32 = 3;
/// Least time between two warnings about Events that cannot be published.
const WARNING_PACE: Duration = Duration::from_secs(60);

/// The reason of an Event; the set is fixed, because users' tools match these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Exported,
    Imported,
    NotAccepted,
    InstanceSkipped,
    LostRegistration,
    DeletionsHeld,
    ApprovalRefused,
    SecondSlice,
    PortDiffers,
    DiscoveryRestored,
    /// On a pod.
    GateTimedOut,
    /// On a pod.
    GateTimeoutUnreadable,
    /// On a ServiceRegistry.
    Disconnected,
    /// On a ServiceRegistry.
    Connected,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "Exported",
            Self::Imported => "Imported",
            Self::NotAccepted => "NotAccepted",
            Self::InstanceSkipped => "InstanceSkipped",
            Self::LostRegistration => "LostRegistration",
            Self::DeletionsHeld => "DeletionsHeld",
            Self::ApprovalRefused => "ApprovalRefused",
            Self::SecondSlice => "SecondSlice",
            Self::PortDiffers => "PortDiffers",
            Self::DiscoveryRestored => "DiscoveryRestored",
            Self::GateTimedOut => "GateTimedOut",
            Self::GateTimeoutUnreadable => "GateTimeoutUnreadable",
            Self::Disconnected => "Disconnected",
            Self::Connected => "Connected",
        }
    }

    fn is_warning(self) -> bool {
        match self {
            Self::Exported | Self::Imported | Self::SecondSlice | Self::PortDiffers | Self::Connected => false,
            Self::DiscoveryRestored
            | Self::GateTimedOut
            | Self::GateTimeoutUnreadable
            | Self::NotAccepted
            | Self::InstanceSkipped
            | Self::LostRegistration
            | Self::DeletionsHeld
            | Self::ApprovalRefused
            | Self::Disconnected => true,
        }
    }

    fn kind(self) -> &'static str {
        if self.is_warning() { "Warning" } else { "Normal" }
    }
}

/// The note about an approval that names a held set as versions before `status.hold` did.
pub fn refused_approval(hash: &str) -> String {
    format!(
        "the annotation {APPROVE_DELETIONS} names the held deletions as former versions did, and would release them again \
         and again; {APPROVE_DELETIONS}={hash} releases them once"
    )
}

/// The object that an Event is about.
#[derive(Clone, Debug)]
pub enum About {
    RegisteredService(Arc<RegisteredService>),
    ServiceRegistry(Arc<ServiceRegistry>),
    Pod(Arc<PodView>),
}

impl About {
    fn reference(&self) -> ObjectReference {
        match self {
            Self::RegisteredService(object) => object.object_ref(&()),
            Self::ServiceRegistry(object) => object.object_ref(&()),
            Self::Pod(pod) => ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(pod.namespace.clone()),
                name: Some(pod.name.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectReference::default()
            },
        }
    }

    fn uid(&self) -> String {
        let meta = match self {
            Self::RegisteredService(object) => &object.metadata,
            Self::ServiceRegistry(object) => &object.metadata,
            Self::Pod(pod) => return pod.uid.clone(),
        };
        meta.uid.clone().unwrap_or_default()
    }
}

/// The note of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Text(String),
    /// Instances that were added and removed.
    Changes {
        verb: &'static str,
        added: usize,
        removed: usize,
        in_all: usize,
    },
    /// New reasons to leave instances out, each with an example.
    Skipped(BTreeMap<model::Reason, String>),
}

impl Note {
    /// One note for two Events.
    fn then(self, later: Self) -> Self {
        match (self, later) {
            (Self::Changes { added, removed, .. }, Self::Changes { verb, added: a, removed: r, in_all }) => {
                Self::Changes { verb, added: added + a, removed: removed + r, in_all }
            }
            (Self::Skipped(mut reasons), Self::Skipped(more)) => {
                reasons.extend(more);
                Self::Skipped(reasons)
            }
            (_, later) => later,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Changes { verb, added, removed, in_all } => format!("{verb} +{added} -{removed}; {in_all} in all"),
            Self::Skipped(reasons) => {
                let examples: Vec<String> =
                    reasons.iter().map(|(reason, example)| format!("{reason}: {example}")).collect();
                format!("{}; status.differences has more", examples.join(", "))
            }
        }
    }
}

/// Events of one reason about one object.
type Key = (String, Reason);

#[derive(Debug)]
struct Waiting {
    about: About,
    note: Note,
    due: Instant,
    /// Its place among those that are due.
    number: u64,
    attempts: u32,
}

#[derive(Debug)]
struct State {
    /// The leadership in which the Events were queued.
    term: Option<u64>,
    waiting: BTreeMap<Key, Waiting>,
    numbered: u64,
    pace: Pace,
    /// The time before which a reason is not told again.
    paced: BTreeMap<Key, Instant>,
    /// The time at which the budget of an object is whole again; none is missing from one that is not here.
    budgets: BTreeMap<String, Instant>,
    warned: Option<Instant>,
}

impl Default for State {
    fn default() -> Self {
        let (term, waiting, paced, budgets, warned) = Default::default();
        Self { term, waiting, numbered: 0, pace: Pace::new(PER_SECOND), paced, budgets, warned }
    }
}

/// Queues Events; clones share the queue.
#[derive(Clone, Debug)]
pub struct Events {
    leadership: Leadership,
    state: Arc<Mutex<State>>,
    added: Arc<Notify>,
    /// In namespaced mode nothing permits the namespace `default`, where Events about a ServiceRegistry would be.
    is_namespaced: bool,
}

/// Publishes the queued Events, one after another: a slow API server delays nothing else.
#[derive(Debug)]
pub struct Publisher {
    events: Events,
    api: EventApi,
}

impl Events {
    /// The queue, and its publisher. `replica` is the reporting instance.
    pub fn new(calls: Calls, env: Env, replica: &str, is_namespaced: bool) -> (Self, Publisher) {
        let leadership = calls.leadership.clone();
        let events = Self { leadership, state: Arc::default(), added: Arc::default(), is_namespaced };
        let api = EventApi::new(calls, env, replica);
        (events.clone(), Publisher { events, api })
    }

    /// Locks the state; a leadership that ended took along what waited.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let term = self.leadership.term().filter(|_| self.leadership.may_write());
        if state.term != term {
            state.term = term;
            state.waiting.clear();
        }
        state
    }

    /// Queues an Event if this process may write. A full queue drops it, or for a warning the latest that is none, but
    /// neither the log line nor the metric.
    pub fn publish(&self, about: About, reason: Reason, note: Note) {
        if self.is_namespaced && matches!(about, About::ServiceRegistry(_)) {
            return;
        }
        let mut state = self.state();
        if state.term.is_some() {
            state.add((about.uid(), reason), about, note, Instant::now(), 0);
            self.added.notify_one();
        }
    }
}

impl State {
    fn add(&mut self, key: Key, about: About, note: Note, not_before: Instant, attempts: u32) {
        if let Some(known) = self.waiting.remove(&key) {
            let note = known.note.then(note);
            self.waiting.insert(key, Waiting { about, note, ..known });
        } else if self.waiting.len() < QUEUE || key.1.is_warning() && self.drop_latest_normal() {
            self.numbered += 1;
            let due = self.paced.get(&key).map_or(not_before, |paced| not_before.max(*paced));
            self.waiting.insert(key, Waiting { about, note, due, number: self.numbered, attempts });
        } else {
            debug!(reason = key.1.as_str(), "too many Events wait; one is dropped");
        }
    }

    /// Returns false if every Event that waits is a warning.
    fn drop_latest_normal(&mut self) -> bool {
        let normal = self.waiting.iter().filter(|((_, reason), _)| !reason.is_warning());
        let latest = normal.max_by_key(|(_, waiting)| waiting.number).map(|(key, _)| key.clone());
        latest.is_some_and(|key| self.waiting.remove(&key).is_some())
    }

    /// Takes the Event that is published next.
    ///
    /// # Errors
    /// The time at which there will be one.
    fn next(&mut self) -> Result<(Key, Waiting), Option<Instant>> {
        let now = Instant::now();
        let paced = self.pace.next(now);
        if paced > now {
            return Err((!self.waiting.is_empty()).then_some(paced));
        }
        let due = |key: &Key, waiting: &Waiting| {
            let whole = self.budgets.get(&key.0);
            whole.and_then(|at| at.checked_sub(REFILL * (BURST - 1))).map_or(waiting.due, |free| free.max(waiting.due))
        };
        let order = |key: &Key, waiting: &Waiting| (due(key, waiting).max(now), !key.1.is_warning(), waiting.number);
        let next = self.waiting.iter().map(|(key, waiting)| (order(key, waiting), key)).min();
        let ((at, ..), key) = next.ok_or(None)?;
        if at > now {
            return Err(Some(at));
        }
        let key = key.clone();
        let waiting = self.waiting.remove(&key).ok_or(None)?;
        self.pace.take(now);
        self.paced.retain(|_, at| *at > now);
        self.paced.insert(key.clone(), now + PACE);
        self.budgets.retain(|_, whole| *whole > now);
        let whole = self.budgets.entry(key.0.clone()).or_insert(now);
        *whole += REFILL;
        Ok((key, waiting))
    }
}

impl Publisher {
    /// Publishes until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let next = self.events.state().next();
            let (added, due) = (self.events.added.clone(), next.as_ref().err().copied().flatten());
            let work = async {
                match (next, due) {
                    (Ok((key, waiting)), _) => self.send(key, waiting).await,
                    (Err(_), Some(at)) => tokio::select! {
                        biased;
                        () = sleep_until(at) => {}
                        () = added.notified() => {}
                    },
                    (Err(_), None) => added.notified().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = work => {}
            }
        }
    }

    async fn send(&mut self, key: Key, waiting: Waiting) {
        let Waiting { about, note, attempts, .. } = waiting;
        // The Lease may have been lost while the Event waited.
        if !self.events.leadership.may_write() {
            return;
        }
        let reason = event_api::Reason { word: key.1.as_str(), kind: key.1.kind() };
        let Err(error) = self.api.publish(&about.reference(), reason, &note.text()).await else { return };
        let mut state = self.events.state();
        if state.warned.is_none_or(|at| at.elapsed() >= WARNING_PACE) {
            state.warned = Some(Instant::now());
            warn!(reason = key.1.as_str(), %error, "cannot publish an Event");
        } else {
            debug!(reason = key.1.as_str(), %error, "cannot publish an Event");
        }
        if attempts + 1 >= ATTEMPTS || state.term.is_none() {
            return;
        }
        // A note that came meanwhile is later.
        let later = state.waiting.remove(&key);
        let note = later.map_or(note.clone(), |later| note.then(later.note));
        state.add(key, about, note, Instant::now() + PACE, attempts + 1);
    }
}
