//! Readiness gates: a pod with the gate `twinspan.dev/registered` is ready once its record is in the registry.
//!
//! - [`book`]: the verdicts of passes, and the pods to look at. [`selection`]: the RegisteredServices that select one.
//! - `memory`: timers and failures of each pod. `twinspan_core::plan::gate` decides.
//!
//! Owns the loop: each pod that something changed about is looked at, and at most [`AT_ONCE`] gates are opened at once,
//! by the leader alone. Refuses to decide, and to close a gate again.

pub mod book;
mod memory;
pub mod selection;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use twinspan_core::Timestamp;
use twinspan_core::model::{ObjectKey, PodView, REGISTERED_TIMEOUT_ANNOTATION};
use twinspan_core::plan::gate::{Decision, Passed, Verdict, decide};

use self::memory::Memory;
use crate::cluster::ClusterError;
use crate::cluster::events::{About, Note, Reason};
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;
use crate::telemetry::metrics::Gate;

/// Writes under way at once, of those that the API server is asked for.
const AT_ONCE: usize = 8;
/// First wait after a failure; it doubles with each further one.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// Least time between two warnings: one refusal concerns every pod.
const WARNING_PACE: Duration = Duration::from_secs(60);
/// Looks before somebody else has a turn.
const LOOKS_IN_A_ROW: usize = 100;

/// The word of a RegisteredService of ours that has the record of a pod.
const REGISTERED: Option<Verdict> = Some(Verdict::Pass(Passed::Registered));

/// Opens readiness gates.
#[derive(Debug)]
pub struct Controller {
    views: Views,
    writers: Writers,
    term: Option<u64>,
    due: BTreeSet<ObjectKey>,
    memory: Memory,
    warned: Option<Instant>,
}

/// The gate of one version of a pod that opens.
#[derive(Debug)]
struct Opening {
    key: ObjectKey,
    pod: Arc<PodView>,
    version: Box<str>,
    why: Passed,
    at: Timestamp,
}

type Ended = (Opening, Result<(), ClusterError>);

impl Controller {
    pub fn new(views: Views, writers: Writers) -> Self {
        let (term, due, warned) = Default::default();
        Self { views, writers, term, due, memory: Memory::default(), warned }
    }

    /// Runs until it is stopped. A write under way is a compare-and-swap, so that one which is cut off harms nothing.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut leading = self.writers.leadership.changes();
        let mut under_way: JoinSet<Ended> = JoinSet::new();
        loop {
            self.take();
            for _ in 0..LOOKS_IN_A_ROW {
                if under_way.len() >= AT_ONCE {
                    break;
                }
                let Some(key) = self.due.pop_first() else { break };
                if let Some(opening) = self.look(&key) {
                    let writer = self.writers.cluster.clone();
                    self.views.env.spawn_in(&mut under_way, async move {
                        let Opening { key, pod, version, why, at } = &opening;
                        let sent = writer.open_gate(key, &pod.uid, version, *why, *at).await;
                        (opening, sent)
                    });
                }
            }
            self.measure();
            let more = !self.due.is_empty() && under_way.len() < AT_ONCE;
            let gates = self.views.gates.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Ok(()) = leading.changed() => {
                    leading.borrow_and_update();
                    gates.look_everywhere();
                }
                // Nothing aborts a write here, and a panic in one is logged already.
                Some(ended) = under_way.join_next() => if let Ok(ended) = ended { self.ended(ended) },
                key = self.memory.woken() => self.due.extend([key]),
                () = gates.changed() => {}
                () = tokio::task::yield_now(), if more => {}
            }
        }
    }

    /// Takes the pods that something changed about, if this process may open gates now.
    fn take(&mut self) {
        let due = self.views.gates.take();
        let leadership = &self.writers.leadership;
        let term = leadership.term().filter(|_| leadership.may_write());
        if self.term != term {
            // Another leader may have opened any of them.
            self.memory.clear();
            self.due.clear();
            self.term = term;
        }
        let view = self.views.cluster();
        if term.is_none() || !view.is_complete_somewhere() {
            // Everything is looked at once the view is complete, and once this process leads.
            return;
        }
        self.due.extend(due.pods);
        for namespace in &due.namespaces {
            self.due.extend(view.pods.waiting_in(namespace).cloned());
        }
        if due.everything {
            self.due.extend(view.pods.all_waiting().cloned());
        }
    }

    /// Looks at one pod. Returns the gate that opens now.
    fn look(&mut self, key: &ObjectKey) -> Option<Opening> {
        // The API server's clock, which the kubelet's follows.
        let at = self.views.env.now().checked_add(self.views.env.api_server_ahead()).ok()?;
        let (pod, version, says) = {
            let view = self.views.cluster();
            let Some((pod, version)) = view.pods.waiting(key) else {
                drop(view);
                self.memory.forget(key);
                return None;
            };
            let unsure = selection::is_unsure(&view, &pod.namespace, self.views.env.now()).then_some(None);
            let about = |service| {
                let object = view.registered_services.get(service)?;
                let meta = &object.metadata;
                self.views.gates.about(service, meta.uid.as_deref(), meta.generation, pod)
            };
            let mut says: Vec<_> = selection::of_pod(&view, pod).map(about).chain(unsure).collect();
            // The release of the pod opens it; where both have the pod, each would wait for the other.
            if !says.contains(&REGISTERED) && selection::is_anothers(&view, pod) {
                says.push(None);
            }
            (pod.clone(), Box::<str>::from(version), says)
        };
        let gate = pod.gate.as_deref()?;
        let known = self.memory.of(key, &pod);
        let waited = known.waited(gate, at);
        let is_outdated = known.outdated.as_ref() == Some(&version);
        let (under_way, not_before) = (known.under_way, known.not_before);
        let odd = gate.odd_timeout.as_ref().filter(|_| !std::mem::replace(&mut known.told, true));
        self.memory.set_due(key, gate.otherwise_ready);
        if let Some(text) = odd {
            self.tell_odd_timeout(key, &pod, text);
        }
        let wait = match decide(gate, says, waited) {
            _ if under_way || is_outdated => return None,
            Decision::NotDue => None,
            Decision::Wait { left } => left.map(|left| Duration::try_from(left).unwrap_or_default()),
            Decision::Open(why) => {
                let left = not_before.map(|at| at.saturating_duration_since(Instant::now()));
                let left = left.filter(|left| !left.is_zero());
                if left.is_none() {
                    self.memory.of(key, &pod).under_way = true;
                    return Some(Opening { key: key.clone(), pod, version, why, at });
                }
                left
            }
        };
        self.memory.wake_after(key, wait);
        None
    }

    fn ended(&mut self, (Opening { key, pod, version, why, .. }, sent): Ended) {
        let failed = sent.as_ref().is_err_and(|error| !matches!(error, ClusterError::Conflict { .. }));
        let known = self.memory.of(&key, &pod);
        known.under_way = false;
        if failed {
            known.failures += 1;
            let wait = self.views.env.backoff(known.failures, BACKOFF, BACKOFF_CAP);
            known.not_before = Some(Instant::now() + wait);
            self.memory.wake_after(&key, Some(wait));
        } else {
            // The watch shows another version than this one, whoever was faster, or that the pod is gone.
            known.outdated = Some(version);
            self.due.insert(key.clone());
        }
        match sent {
            Ok(()) => self.tell_opened(&key, &pod, why),
            Err(ClusterError::NotLeader) => {}
            Err(error @ ClusterError::Conflict { .. }) => debug!(pod = %key, %error, "looking again"),
            Err(error) if self.warned.is_none_or(|at| at.elapsed() >= WARNING_PACE) => {
                self.warned = Some(Instant::now());
                warn!(pod = %key, %error, "cannot open a readiness gate; it is tried again");
            }
            Err(error) => debug!(pod = %key, %error, "cannot open a readiness gate; it is tried again"),
        }
    }

    fn tell_opened(&self, key: &ObjectKey, pod: &Arc<PodView>, why: Passed) {
        self.writers.metrics.gates.get_or_create(&Gate { reason: why.label() }).inc();
        info!(pod = %key, reason = why.label(), "opened the readiness gate: {}", why.message());
        if why == Passed::TimedOut {
            let note = format!(
                "{}; clients of the registry do not call this pod yet. See the RegisteredService of its Service",
                why.message()
            );
            self.writers.events.publish(About::Pod(pod.clone()), Reason::GateTimedOut, Note::Text(note));
        }
    }

    fn tell_odd_timeout(&self, key: &ObjectKey, pod: &Arc<PodView>, text: &str) {
        let note = format!(
            "annotation {REGISTERED_TIMEOUT_ANNOTATION} {text:?} is no time from 1s to 24h, such as 5m; the pod waits for its \
             record without an end"
        );
        warn!(pod = %key, "{note}");
        self.writers.events.publish(About::Pod(pod.clone()), Reason::GateTimeoutUnreadable, Note::Text(note));
    }

    fn measure(&self) {
        self.writers.metrics.gates_waiting.set(i64::try_from(self.memory.due()).unwrap_or(i64::MAX));
    }
}
