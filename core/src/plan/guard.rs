//! The deletion guard: how many unexplained deletions may go, and when.
//!
//! What nothing explains waits a little, for it is often the first of many; many at once are held, for they are more often a
//! broken registry than so many ended servers; and everything held goes in the end, for a guard that never lets go serves the
//! dead (eureka#1073). Owns the window, the limits and the hold of one service and of a whole registry. Refuses to know why
//! something is unexplained, and which side it is deleted from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};

use crate::Timestamp;
use crate::model::{InstanceAddr, ServiceKey};

/// Below the limits, deletions go once so long has passed without another.
pub const QUIET: SignedDuration = SignedDuration::from_secs(10);
/// Deletions count together for so long from the first.
pub const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// Registry-wide, so many unexplained deletions …
pub const REGISTRY_MIN: usize = 10;
/// … that are more than so many percent of all instances are held …
pub const REGISTRY_PERCENT: usize = 30;
/// … for so long.
pub const REGISTRY_HOLD: SignedDuration = SignedDuration::from_secs(300);

/// `spec.deletionGuard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services with fewer instances are held only where the last one would go.
    pub min_instances: usize,
    /// 0 to 100.
    pub max_delete_percent: usize,
    pub hold: SignedDuration,
}

/// A deletion that nothing explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexplained {
    pub since: Timestamp,
    /// Another, or an older, registry answered: any such deletion is held.
    pub rollback: bool,
}

/// What one direction of a service remembers from plan to plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    window: Option<Window>,
    held_since: Option<Timestamp>,
    /// What was let go and is asked about again, for the write has not been seen yet.
    released: BTreeSet<InstanceAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    opened: Timestamp,
    /// Instances that there were.
    known: usize,
    /// What has gone already.
    gone: BTreeSet<InstanceAddr>,
}

/// Everything that a ruling rests on.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub unexplained: &'a BTreeMap<InstanceAddr, Unexplained>,
    /// Instances that there are, the unexplained ones included.
    pub known: usize,
    /// Whether the service would be left without any.
    pub would_be_empty: bool,
    pub limits: Limits,
    pub around: Around<'a>,
    pub now: Timestamp,
}

/// What the object, and the registry as a whole, say about holding.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// What an administrator releases: the held set whose hash the annotation has.
    pub approved: Option<&'a BTreeSet<InstanceAddr>>,
    /// Before the first plan of a process: since when status says that deletions are held.
    pub held_before: Option<Timestamp>,
    /// Until when the registry as a whole holds everything.
    pub registry_hold: Option<Timestamp>,
}

/// What may go, and what stays for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    pub goes: BTreeSet<InstanceAddr>,
    /// Everything else.
    pub stays: BTreeSet<InstanceAddr>,
    /// Until when a limit holds what stays.
    pub held_until: Option<Timestamp>,
    pub look_again: Option<Timestamp>,
}

impl Guard {
    pub fn rule(&mut self, case: &Case<'_>) -> Ruling {
        self.released.retain(|addr| case.unexplained.contains_key(addr));
        let all = case.unexplained.keys().copied().filter(|addr| !self.released.contains(addr)).collect();
        let mut ruling = self.rule_on(case, all);
        self.released.extend(&ruling.goes);
        ruling.goes.clone_from(&self.released);
        ruling
    }

    fn rule_on(&mut self, case: &Case<'_>, all: BTreeSet<InstanceAddr>) -> Ruling {
        let now = case.now;
        if all.is_empty() {
            self.held_since = None;
            self.window = self.window.take().filter(|window| now < window.opened + WINDOW);
            return Ruling::default();
        }
        if case.around.held_before.is_some() && self.held_since.is_none() {
            self.held_since = case.around.held_before;
        }
        let limit = self.limit_reached(case, &all);
        if limit && self.held_since.is_none() {
            self.held_since = Some(now);
        }
        if let Some(since) = self.held_since {
            let until = since.min(now) + case.limits.hold;
            if now >= until {
                return self.release(all);
            }
            let (goes, stays): (BTreeSet<_>, BTreeSet<_>) =
                all.into_iter().partition(|addr| case.around.approved.is_some_and(|set| set.contains(addr)));
            if stays.is_empty() {
                return self.release(goes);
            }
            if let Some(window) = &mut self.window {
                window.gone.extend(&goes);
            }
            return Ruling { goes, ..held(stays, until.max(case.around.registry_hold.unwrap_or(until))) };
        }
        if let Some(until) = case.around.registry_hold.filter(|until| now < *until) {
            return held(all, until);
        }
        let last = all.iter().map(|addr| case.unexplained[addr].since.min(now)).max().unwrap_or(now);
        let quiet = last + QUIET;
        if now >= quiet {
            return self.release(all);
        }
        Ruling { stays: all, look_again: Some(quiet), ..Ruling::default() }
    }

    fn limit_reached(&mut self, case: &Case<'_>, all: &BTreeSet<InstanceAddr>) -> bool {
        let first = all.iter().map(|addr| case.unexplained[addr].since).min().unwrap_or(case.now);
        let open = self.window.as_ref().is_some_and(|window| case.now < window.opened + WINDOW);
        if !open {
            self.window = Some(Window { opened: first.min(case.now), known: case.known, gone: BTreeSet::new() });
        }
        let Some(window) = &self.window else { return false };
        let would_go = window.gone.union(all).count();
        let many =
            window.known >= case.limits.min_instances && would_go * 100 > window.known * case.limits.max_delete_percent;
        many || case.would_be_empty || all.iter().any(|addr| case.unexplained[addr].rollback)
    }

    fn release(&mut self, all: BTreeSet<InstanceAddr>) -> Ruling {
        self.held_since = None;
        if let Some(window) = &mut self.window {
            window.gone.extend(&all);
        }
        Ruling { goes: all, ..Ruling::default() }
    }

    /// What counts for the registry as a whole: how many went in the window, with those that would go.
    pub fn going(&self, staying: usize) -> usize {
        self.window.as_ref().map_or(0, |window| window.gone.len()) + staying
    }
}

fn held(all: BTreeSet<InstanceAddr>, until: Timestamp) -> Ruling {
    Ruling { stays: all, held_until: Some(until), look_again: Some(until), ..Ruling::default() }
}

/// Names a set of held deletions: 12 hexadecimal digits that follow from the sorted set.
pub fn hash<T: std::fmt::Display>(held: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for item in held {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{item}");
    }
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The guard over all services of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryGuard {
    services: BTreeMap<ServiceKey, Share>,
    held_since: Option<Timestamp>,
}

/// One service's part in what happens to a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Instances that there are.
    pub known: usize,
    /// Unexplained deletions of the last [`WINDOW`], those that went already included.
    pub going: usize,
    /// What stays for now: `import 10.0.0.1:80`, sorted.
    pub stays: BTreeSet<String>,
}

impl RegistryGuard {
    /// Takes note of one service's share; `None` where it is gone. Returns whether a hold began or ended, so that every service has to
    /// look again.
    pub fn report(&mut self, service: &ServiceKey, share: Option<Share>, now: Timestamp) -> bool {
        match share {
            Some(share) if share != Share::default() => {
                self.services.insert(service.clone(), share);
            }
            _ => {
                self.services.remove(service);
            }
        }
        let before = self.held_since;
        let going: usize = self.services.values().map(|share| share.going).sum();
        let known: usize = self.services.values().map(|share| share.known.max(share.going)).sum();
        let staying = self.services.values().any(|share| !share.stays.is_empty());
        if !staying {
            self.held_since = None;
        } else if going >= REGISTRY_MIN && going * 100 > known * REGISTRY_PERCENT && self.held_since.is_none() {
            self.held_since = Some(now);
        }
        before.is_some() != self.held_since.is_some()
    }

    /// Takes up a hold that status tells of, after a restart.
    pub fn resume(&mut self, since: Timestamp) {
        self.held_since.get_or_insert(since);
    }

    /// Until when everything is held, where a limit of the whole registry was reached and nobody approved.
    pub fn held_until(&self, approved: Option<&str>, now: Timestamp) -> Option<Timestamp> {
        let until = self.held_since?.min(now) + REGISTRY_HOLD;
        let released = now >= until || approved.is_some_and(|hash| hash == self.hash());
        (!released).then_some(until)
    }

    /// Names everything that is held now.
    pub fn hash(&self) -> String {
        let of = |(service, share): (&ServiceKey, &Share)| {
            share.stays.iter().map(|item| format!("{service} {item}")).collect::<Vec<_>>()
        };
        hash(self.services.iter().flat_map(of))
    }

    /// How many are held now.
    pub fn held(&self) -> usize {
        self.services.values().map(|share| share.stays.len()).sum()
    }
}

/// The rulings of both directions of a service, as status shows them.
pub fn named<'a>(import: &'a BTreeSet<InstanceAddr>, export: &'a BTreeSet<InstanceAddr>) -> BTreeSet<String> {
    let of = |verb: &'static str, set: &'a BTreeSet<InstanceAddr>| set.iter().map(move |addr| format!("{verb} {addr}"));
    of("import", import).chain(of("export", export)).collect()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
