//! The board: the present line of each service and registry, and the order in which they changed.
//!
//! A pass puts its line; a reader asks for what changed since a version, and pays for that alone. Nothing queues for a
//! reader: one that asks seldom gets each changed line once, as it is now. Owns the versions and their bounds. Refuses
//! to know readers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::rows::{Hold, Registry, Service, milliseconds};

/// Propagations that a line keeps.
const LATENCIES: usize = 30;
/// Ends of services that are remembered; a reader that missed more begins anew.
const ENDS: usize = 10_000;

/// The board; clones share it. Where no page is served it keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Board(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// One line, with what the board adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub key: ServiceKey,
    pub service: Service,
    pub hold: Option<Hold>,
    /// Milliseconds, newest last.
    pub latency: Vec<u32>,
    /// When it changed last.
    pub updated: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    services: BTreeMap<ServiceKey, (u64, Arc<Line>)>,
    registries: BTreeMap<String, Arc<Registry>>,
    /// The version of the last change of a registry.
    registries_changed: u64,
    /// Healed records by ServiceRegistry.
    healed: BTreeMap<String, i64>,
    /// The services in the order of their last change.
    order: BTreeMap<u64, ServiceKey>,
    /// The versions at which services ended.
    ends: VecDeque<u64>,
    /// Ends up to this version are forgotten.
    forgotten: u64,
    /// The version at which everything had been looked at once.
    completed: Option<u64>,
}

/// Everything at one version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub version: u64,
    /// Whether everything was looked at once: what is not on the board is not there.
    pub complete: bool,
    pub registries: Vec<Arc<Registry>>,
    pub services: Vec<Arc<Line>>,
}

/// The changes from one version to another.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The version that a reader has afterwards.
    pub version: u64,
    pub complete: bool,
    /// All, if one of them changed or is gone.
    pub registries: Option<Vec<Arc<Registry>>>,
    pub services: Vec<Arc<Line>>,
    pub gone: Vec<ServiceKey>,
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        self.registries.is_none() && self.services.is_empty() && self.gone.is_empty()
    }
}

impl Board {
    /// A board that keeps lines.
    pub fn on() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether somebody may read it; if not, no line has to be made.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Puts the line of a service, and a propagation that was just measured. An equal line without a propagation
    /// changes nothing.
    pub fn put(
        &self,
        key: &ServiceKey,
        service: Service,
        hold: Option<Hold>,
        propagation: Option<Duration>,
        now: Timestamp,
    ) {
        self.change(|state| {
            let known = state.services.get(key).map(|(version, line)| (*version, line.clone()));
            let same = known.as_ref().is_some_and(|(_, line)| line.service == service && line.hold == hold);
            if same && propagation.is_none() {
                return false;
            }
            let mut latency = known.as_ref().map(|(_, line)| line.latency.clone()).unwrap_or_default();
            if let Some(propagation) = propagation {
                latency.drain(..(latency.len() + 1).saturating_sub(LATENCIES));
                latency.push(milliseconds(propagation));
            }
            if let Some((version, line)) = &known {
                state.order.remove(version);
                state.heal(&line.service.registry, -line.service.healed);
            }
            state.heal(&service.registry, service.healed);
            state.version += 1;
            let version = state.version;
            let line = Line { key: key.clone(), service, hold, latency, updated: now };
            state.services.insert(key.clone(), (version, Arc::new(line)));
            state.order.insert(version, key.clone());
            true
        });
    }

    /// The service is gone.
    pub fn remove(&self, key: &ServiceKey) {
        self.change(|state| {
            let Some((version, line)) = state.services.remove(key) else { return false };
            state.order.remove(&version);
            state.heal(&line.service.registry, -line.service.healed);
            state.version += 1;
            state.order.insert(state.version, key.clone());
            state.ends.push_back(state.version);
            if state.ends.len() > ENDS {
                state.forgotten = state.ends.pop_front().unwrap_or_default();
                state.order.remove(&state.forgotten);
            }
            true
        });
    }

    /// Puts the line of a registry.
    pub fn put_registry(&self, mut registry: Registry) {
        self.change(|state| {
            registry.records.healed = state.healed.get(&registry.name).copied().unwrap_or_default();
            if state.registries.get(&registry.name).is_some_and(|known| **known == registry) {
                return false;
            }
            state.registries.insert(registry.name.clone(), Arc::new(registry));
            state.registries_change();
            true
        });
    }

    pub fn remove_registry(&self, name: &str) {
        self.change(|state| {
            let removed = state.registries.remove(name).is_some();
            if removed {
                state.registries_change();
            }
            removed
        });
    }

    /// Everything was looked at once, which readers are told.
    pub fn complete(&self) {
        self.change(|state| {
            let first = state.completed.is_none();
            if first {
                state.registries_change();
                state.completed = Some(state.version);
            }
            first
        });
    }

    /// Whether a service has a line.
    pub fn has(&self, key: &ServiceKey) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.lock().services.contains_key(key))
    }

    /// Everything.
    pub fn snapshot(&self) -> Snapshot {
        let Some(shared) = &self.0 else {
            return Snapshot { version: 0, complete: false, registries: Vec::new(), services: Vec::new() };
        };
        let state = shared.lock();
        Snapshot {
            version: state.version,
            complete: state.completed.is_some(),
            registries: state.registries.values().cloned().collect(),
            services: state.services.values().map(|(_, line)| line.clone()).collect(),
        }
    }

    /// The lines of all registries.
    pub fn registries(&self) -> Vec<Arc<Registry>> {
        self.0.as_ref().map(|shared| shared.lock().registries.values().cloned().collect()).unwrap_or_default()
    }

    /// The line of one service.
    pub fn line(&self, key: &ServiceKey) -> Option<Arc<Line>> {
        self.0.as_ref()?.lock().services.get(key).map(|(_, line)| line.clone())
    }

    /// The changes after a version, at most `most` of them: those that changed first, so that the rest comes with the
    /// next question. `None` if they are not known any more, or the version is none of this process.
    pub fn since(&self, version: u64, most: usize) -> Option<Delta> {
        let state = self.0.as_ref()?.lock();
        if version > state.version || version < state.forgotten {
            return None;
        }
        let (registries, services, gone) = Default::default();
        let mut delta = Delta { version: state.version, complete: false, registries, services, gone };
        for (changed, key) in state.order.range(version + 1..) {
            if delta.services.len() + delta.gone.len() == most {
                delta.version = changed - 1;
                break;
            }
            match state.services.get(key) {
                Some((last, line)) if last == changed => delta.services.push(line.clone()),
                // The service is there again, and comes later.
                Some(_) => {}
                None => delta.gone.push(key.clone()),
            }
        }
        delta.complete = state.completed.is_some_and(|completed| completed <= delta.version);
        if state.registries_changed > version && state.registries_changed <= delta.version {
            delta.registries = Some(state.registries.values().cloned().collect());
        }
        Some(delta)
    }

    /// A receiver that changes with every version.
    pub fn changes(&self) -> watch::Receiver<u64> {
        match &self.0 {
            Some(shared) => shared.changed.subscribe(),
            None => watch::Sender::new(0).subscribe(),
        }
    }

    fn change(&self, make: impl FnOnce(&mut State) -> bool) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.lock();
        if make(&mut state) {
            let version = state.version;
            drop(state);
            // Puts of two tasks may arrive here in another order.
            shared.changed.send_modify(|last| *last = version.max(*last));
        }
    }
}

impl State {
    /// Adds to the healed records of a registry.
    fn heal(&mut self, registry: &str, more: i64) {
        if more == 0 {
            return;
        }
        let healed = self.healed.entry(registry.to_owned()).or_default();
        *healed += more;
        let healed = *healed;
        if healed == 0 {
            self.healed.remove(registry);
        }
        if let Some(line) = self.registries.get_mut(registry).filter(|line| line.records.healed != healed) {
            Arc::make_mut(line).records.healed = healed;
            self.registries_change();
        }
    }

    fn registries_change(&mut self) {
        self.version += 1;
        self.registries_changed = self.version;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
