//! The truth: which servers live, which of them serve, and when that changed.
//!
//! Owns the instances, pods and servers outside alike. Refuses to know what either side says about them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub service: usize,
    /// The cluster of a pod; `None` for a server outside.
    pub cluster: Option<usize>,
    /// Something listens at the address.
    pub lives: bool,
    /// Clients are to be sent to it: a pod that is ready, a server that wants to be registered.
    pub serves: bool,
    /// Answers no connection although it lives.
    pub frozen: bool,
}

/// When something began (`true`) and ended, in order.
pub type Turns = Vec<(Duration, bool)>;

/// Why a service is not what its instances are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// A person asked for it.
    Wish,
    /// The registry lost data.
    Loss,
}

/// Everything that is true; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Truth(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    instances: BTreeMap<SocketAddr, Instance>,
    /// When each instance began or ceased to serve.
    changes: BTreeMap<SocketAddr, Turns>,
    /// When each instance began or ceased to live.
    lives: BTreeMap<SocketAddr, Turns>,
    /// When somebody meddled with a service.
    meddled: BTreeMap<usize, Vec<(Meddling, Duration)>>,
}

impl Truth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an instance, or changes one.
    pub fn set(
        &self,
        addr: SocketAddr,
        service: usize,
        cluster: Option<usize>,
        lives: bool,
        serves: bool,
        now: Duration,
    ) {
        let mut state = self.state();
        let instance =
            state.instances.entry(addr).or_insert(Instance { service, cluster, lives, serves: !serves, frozen: false });
        let changed = instance.serves != serves;
        let lived = instance.lives;
        (instance.service, instance.cluster, instance.lives, instance.serves) = (service, cluster, lives, serves);
        if changed {
            state.changes.entry(addr).or_default().push((now, serves));
        }
        let known = state.lives.entry(addr).or_default();
        if known.is_empty() || lived != lives {
            known.push((now, lives));
        }
    }

    /// True if the instance served at every moment of this time.
    pub fn served(&self, addr: SocketAddr, from: Duration, to: Duration) -> bool {
        let state = self.state();
        let Some(changes) = state.changes.get(&addr) else { return false };
        let before = changes.iter().rev().find(|(at, _)| *at <= from);
        before.is_some_and(|(_, serves)| *serves)
            && !changes.iter().any(|(at, serves)| *at > from && *at <= to && !serves)
    }

    /// The first moment of this time at which the instance did not serve.
    pub fn first_end(&self, addr: SocketAddr, from: Duration, to: Duration) -> Option<Duration> {
        if !self.served(addr, from, from) {
            return Some(from);
        }
        let state = self.state();
        let changes = state.changes.get(&addr)?;
        changes.iter().find(|(at, serves)| *at > from && *at <= to && !serves).map(|(at, _)| *at)
    }

    /// When each instance died and lived no more for so long.
    pub fn deaths(&self, least: Duration, now: Duration) -> Vec<(SocketAddr, Instance, Duration)> {
        let state = self.state();
        let mut deaths = Vec::new();
        for (addr, lives) in &state.lives {
            let Some(instance) = state.instances.get(addr) else { continue };
            let ends = lives.iter().skip(1).map(|(at, _)| *at).chain([now]);
            let dead = lives.iter().zip(ends).filter(|((at, lives), end)| !lives && *at + least <= *end);
            deaths.extend(dead.map(|((at, _), _)| (*addr, instance.clone(), *at)));
        }
        deaths
    }

    /// The last time up to this one at which the instance began or ceased to serve.
    pub fn last_change(&self, addr: SocketAddr, at: Duration) -> Option<(Duration, bool)> {
        self.state().changes.get(&addr)?.iter().rev().find(|(time, _)| *time <= at).copied()
    }

    /// When each instance of a service began or ceased to serve, and its cluster.
    pub fn changes(&self) -> Vec<(SocketAddr, Instance, Turns)> {
        let state = self.state();
        let all = state
            .instances
            .iter()
            .map(|(addr, instance)| (*addr, instance.clone(), state.changes.get(addr).cloned().unwrap_or_default()));
        all.collect()
    }

    pub fn set_frozen(&self, addr: SocketAddr, frozen: bool) {
        if let Some(instance) = self.state().instances.get_mut(&addr) {
            instance.frozen = frozen;
        }
    }

    pub fn get(&self, addr: SocketAddr) -> Option<Instance> {
        self.state().instances.get(&addr).cloned()
    }

    pub fn of_service(&self, service: usize) -> BTreeMap<SocketAddr, Instance> {
        let state = self.state();
        let of = state.instances.iter().filter(|(_, instance)| instance.service == service);
        of.map(|(addr, instance)| (*addr, instance.clone())).collect()
    }

    /// Somebody meddles with a service.
    pub fn meddle(&self, service: usize, how: Meddling, now: Duration) {
        self.state().meddled.entry(service).or_default().push((how, now));
    }

    /// Whether somebody meddled with a service within this time, whichever way.
    pub fn anyhow_between(&self, service: usize, from: Duration, to: Duration) -> bool {
        [Meddling::Wish, Meddling::Loss].iter().any(|how| self.meddled_between(service, *how, from, to))
    }

    /// Whether that was so within this time.
    pub fn meddled_between(&self, service: usize, how: Meddling, from: Duration, to: Duration) -> bool {
        let state = self.state();
        let mut all = state.meddled.get(&service).into_iter().flatten();
        all.any(|(kind, at)| *kind == how && *at >= from && *at <= to)
    }
}
