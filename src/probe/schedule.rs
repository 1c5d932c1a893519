//! The schedule of probes, and the last answers of each address.
//!
//! Owns the pace (every second for ten seconds, then every five) and the limit of concurrent connections. Several
//! services that ask for one address share its probes, and all get an event when its answer changes. Answers belong to
//! the term that asked for them: another leadership begins without any. Refuses to know the reason for a probe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, ServiceKey};
use twinspan_core::plan::departure::{Answer, MISSING_ANSWERS, Probe};
use twinspan_core::plan::service::Term;

use super::{ProbeEvent, Prober};
use crate::env::Env;
use crate::leadership::Leadership;

/// Concurrent connections …
const AT_ONCE: usize = 64;
/// … of which so many are not for addresses that were silent last, so that these do not delay the others.
const PROMPT: usize = 16;
/// The pace at first …
const OFTEN: Duration = Duration::from_secs(1);
/// … for so long …
const OFTEN_FOR: Duration = Duration::from_secs(10);
/// … and then.
const SELDOM: Duration = Duration::from_secs(5);

/// The addresses to probe; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// The leadership that the answers belong to.
    term: Option<Term>,
    asked: BTreeMap<InstanceAddr, Asked>,
    of: BTreeMap<ServiceKey, BTreeSet<InstanceAddr>>,
}

#[derive(Debug)]
struct Asked {
    by: BTreeSet<ServiceKey>,
    began: Instant,
    due: Instant,
    under_way: bool,
    last: Option<Probe>,
}

impl Asked {
    fn new(by: BTreeSet<ServiceKey>, now: Instant) -> Self {
        Self { by, began: now, due: now, under_way: false, last: None }
    }
}

impl Probes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the addresses that a service asks for; an empty set ends its probes.
    pub fn ask(&self, service: &ServiceKey, addrs: &BTreeSet<InstanceAddr>) {
        let mut state = self.lock();
        let before = state.of.remove(service).unwrap_or_default();
        if before == *addrs {
            if !before.is_empty() {
                state.of.insert(service.clone(), before);
            }
            return;
        }
        for gone in before.difference(addrs) {
            if let Some(asked) = state.asked.get_mut(gone) {
                asked.by.remove(service);
                if asked.by.is_empty() {
                    state.asked.remove(gone);
                }
            }
        }
        let now = Instant::now();
        for addr in addrs.difference(&before) {
            let asked = state.asked.entry(*addr).or_insert_with(|| Asked::new(BTreeSet::new(), now));
            asked.by.insert(service.clone());
        }
        if !addrs.is_empty() {
            state.of.insert(service.clone(), addrs.clone());
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The last answers of the service's addresses in this term.
    pub fn answers(&self, service: &ServiceKey, term: Term) -> BTreeMap<InstanceAddr, Probe> {
        let state = self.lock();
        let addrs = state.of.get(service).into_iter().flatten().filter(|_| state.term == Some(term));
        addrs.filter_map(|addr| Some((*addr, state.asked.get(addr)?.last?))).collect()
    }

    /// Probes while this process leads, until it is stopped.
    pub async fn run(
        self,
        prober: Arc<dyn Prober>,
        leadership: Leadership,
        events: mpsc::UnboundedSender<ProbeEvent>,
        env: Env,
        stop: CancellationToken,
    ) {
        let permits = Permits::default();
        let mut leading = leadership.changes();
        loop {
            leading.borrow_and_update();
            let term = leadership.term().map(Term);
            self.set_term(term);
            let (due, next) = if term.is_some() { self.due(Instant::now()) } else { (Vec::new(), None) };
            for (addr, silent) in due {
                let (probes, prober, permits) = (self.clone(), prober.clone(), permits.clone());
                let (leadership, events, env, stop) = (leadership.clone(), events.clone(), env.clone(), stop.clone());
                let environment = env.clone();
                environment.spawn(async move {
                    // A round of many addresses waits here, and beside the others.
                    let Some(permit) = stop.run_until_cancelled(permits.acquire(silent)).await.flatten() else {
                        return;
                    };
                    if leadership.term().map(Term) != term {
                        return;
                    }
                    let answer = prober.probe(addr).await;
                    drop(permit);
                    probes.answered(addr, answer, term, env.now(), &events);
                });
            }
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                _ = leading.changed() => {}
                () = wait => {}
            }
        }
    }

    /// Another leadership asks anew.
    fn set_term(&self, term: Option<Term>) {
        let mut state = self.lock();
        if state.term != term {
            state.term = term;
            let now = Instant::now();
            for asked in state.asked.values_mut() {
                *asked = Asked::new(std::mem::take(&mut asked.by), now);
            }
        }
    }

    /// Takes the addresses that are due. Returns them, whether each was silent last, and the time of the next one.
    fn due(&self, now: Instant) -> (Vec<(InstanceAddr, bool)>, Option<Instant>) {
        let mut state = self.lock();
        let mut due = Vec::new();
        for (addr, asked) in &mut state.asked {
            if asked.due <= now && !asked.under_way {
                asked.under_way = true;
                let pace = if now < asked.began + OFTEN_FOR { OFTEN } else { SELDOM };
                asked.due = now + pace;
                due.push((*addr, asked.last.is_some_and(|last| last.answer == Answer::NoAnswer)));
            }
        }
        (due, state.asked.values().filter(|asked| !asked.under_way).map(|asked| asked.due).min())
    }

    fn answered(
        &self,
        addr: InstanceAddr,
        answer: Answer,
        term: Option<Term>,
        now: Timestamp,
        events: &mpsc::UnboundedSender<ProbeEvent>,
    ) {
        let mut state = self.lock();
        if state.term != term {
            return;
        }
        // No service asks for the address any more.
        let Some(asked) = state.asked.get_mut(&addr) else { return };
        asked.under_way = false;
        let same = asked.last.filter(|last| last.answer == answer);
        let (since, times) = same.map_or((now, 1), |last| (last.since, last.times.saturating_add(1)));
        asked.last = Some(Probe { answer, since, times });
        // Silence means nothing before.
        let silence_counts = answer == Answer::NoAnswer && times == MISSING_ANSWERS;
        if same.is_none() || silence_counts {
            // The router is gone only while the process ends.
            let _ = events.send(ProbeEvent { services: asked.by.clone() });
        }
        self.changed.notify_one();
    }
}

/// The limit of concurrent connections.
#[derive(Clone, Debug)]
struct Permits {
    all: Arc<Semaphore>,
    prompt: Arc<Semaphore>,
}

impl Default for Permits {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE - PROMPT)), prompt: Arc::new(Semaphore::new(PROMPT)) }
    }
}

impl Permits {
    async fn acquire(&self, silent: bool) -> Option<OwnedSemaphorePermit> {
        if silent {
            return self.all.clone().acquire_owned().await.ok();
        }
        tokio::select! {
            biased;
            permit = self.prompt.clone().acquire_owned() => permit.ok(),
            permit = self.all.clone().acquire_owned() => permit.ok(),
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
