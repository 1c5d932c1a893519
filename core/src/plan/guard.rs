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
    /// Since when a process before this one held.
    resumed: Option<Timestamp>,
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
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// What an administrator releases.
    pub approved: &'a BTreeSet<InstanceAddr>,
    /// Before the first plan of a process: since when status says that deletions are held.
    pub held_before: Option<Timestamp>,
    /// From when, and until when, the registry as a whole holds everything.
    pub registry_hold: Option<(Timestamp, Timestamp)>,
}

impl Default for Around<'_> {
    fn default() -> Self {
        static NOTHING: BTreeSet<InstanceAddr> = BTreeSet::new();
        Self { approved: &NOTHING, held_before: None, registry_hold: None }
    }
}

/// What may go, and what stays for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    pub goes: BTreeSet<InstanceAddr>,
    /// Everything else.
    pub stays: BTreeSet<InstanceAddr>,
    /// From when, and until when, a limit holds what stays.
    pub held: Option<(Timestamp, Timestamp)>,
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
        let (now, hold) = (case.now, case.limits.hold);
        // Where nothing is unexplained yet, what a process before this one held may still become so.
        self.resumed = case.around.held_before.or(self.resumed).filter(|since| now < (*since).min(now) + hold);
        if all.is_empty() {
            self.held_since = None;
            self.window = self.window.take().filter(|window| now < window.opened + WINDOW);
            return Ruling::default();
        }
        let limit = self.limit_reached(case, &all);
        if self.held_since.is_none() {
            self.held_since = self.resumed.or(limit.then_some(now));
        }
        let last = all.iter().map(|addr| case.unexplained[addr].since.min(now)).max().unwrap_or(now);
        let (goes, stays): (BTreeSet<_>, BTreeSet<_>) =
            all.into_iter().partition(|addr| case.around.approved.contains(addr));
        if stays.is_empty() {
            return self.release(goes);
        }
        if let Some(since) = self.held_since {
            let until = since.min(now) + hold;
            if now >= until {
                return self.release(goes.into_iter().chain(stays).collect());
            }
            self.go(&goes);
            return held(goes, stays, since, until.max(case.around.registry_hold.map_or(until, |(_, until)| until)));
        }
        if let Some((since, until)) = case.around.registry_hold.filter(|(_, until)| now < *until) {
            self.go(&goes);
            return held(goes, stays, since, until);
        }
        let quiet = last + QUIET;
        if now >= quiet {
            return self.release(goes.into_iter().chain(stays).collect());
        }
        self.go(&goes);
        Ruling { goes, stays, held: None, look_again: Some(quiet) }
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
        self.resumed = None;
        self.go(&all);
        Ruling { goes: all, ..Ruling::default() }
    }

    fn go(&mut self, goes: &BTreeSet<InstanceAddr>) {
        if let Some(window) = &mut self.window {
            window.gone.extend(goes);
        }
    }

    /// What counts for the registry as a whole: how many went in the window, and when that ends.
    pub fn gone(&self) -> Option<(Timestamp, usize)> {
        self.window.as_ref().map(|window| (window.opened + WINDOW, window.gone.len())).filter(|(_, gone)| *gone > 0)
    }
}

fn held(goes: BTreeSet<InstanceAddr>, stays: BTreeSet<InstanceAddr>, since: Timestamp, until: Timestamp) -> Ruling {
    Ruling { goes, stays, held: Some((since, until)), look_again: Some(until) }
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
    /// Since when a process before this one held.
    resumed: Option<Timestamp>,
    /// What an administrator approved and has not gone yet.
    released: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// What a hold of ours let go when it ended, and a service may hold on to by itself: it is held once.
    spent: BTreeMap<ServiceKey, BTreeSet<String>>,
}

/// One service's part in what happens to a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Instances that there are.
    pub known: usize,
    /// Unexplained deletions that went already, by the end of the [`WINDOW`] in which they count.
    pub gone: BTreeMap<Timestamp, usize>,
    /// What stays for now: `import 10.0.0.1:80`, sorted.
    pub stays: BTreeSet<String>,
}

impl Share {
    /// What went and still counts.
    fn gone(&self, now: Timestamp) -> usize {
        self.gone.iter().filter(|(end, _)| now < **end).map(|(_, gone)| gone).sum()
    }
}

impl RegistryGuard {
    /// Takes note of one service's share; `None` where it is gone. Returns whether a hold began or ended, so that every service has to
    /// look again.
    pub fn report(&mut self, service: &ServiceKey, share: Option<Share>, now: Timestamp) -> bool {
        if share.is_none() && !self.services.contains_key(service) {
            // Every service reports so to every registry that it does not refer to.
            return false;
        }
        let before = self.held_since;
        if before.is_some() && self.held(now).is_none() {
            self.spent = self.services.iter().map(|(service, share)| (service.clone(), share.stays.clone())).collect();
            self.held_since = None;
        }
        match share {
            Some(share) if share != Share::default() => {
                self.services.insert(service.clone(), share);
            }
            _ => {
                self.services.remove(service);
            }
        }
        let stays = self.services.get(service).map(|share| share.stays.clone()).unwrap_or_default();
        for known in [&mut self.released, &mut self.spent] {
            if let Some(items) = known.get_mut(service) {
                items.retain(|item| stays.contains(item));
            }
            known.retain(|_, items| !items.is_empty());
        }
        let (going, known) = self.services.iter().fold((0, 0), |(going, known), (service, share)| {
            let here = share.gone(now) + share.stays.len() - self.spent.get(service).map_or(0, BTreeSet::len);
            (going + here, known + share.known.max(here))
        });
        if self.staying() == 0 {
            self.held_since = None;
        } else if going >= REGISTRY_MIN && going * 100 > known * REGISTRY_PERCENT && self.held_since.is_none() {
            let resumed = self.resumed.take().filter(|since| now < (*since).min(now) + REGISTRY_HOLD);
            self.held_since = resumed.or(Some(now));
        }
        before.is_some() != self.held_since.is_some()
    }

    /// What stays, is not approved, and was not let go before.
    fn staying(&self) -> usize {
        let of = |(service, share): (&ServiceKey, &Share)| {
            let settled = [self.released.get(service), self.spent.get(service)];
            let counts = |item: &&String| !settled.iter().flatten().any(|items| items.contains(*item));
            share.stays.iter().filter(counts).count()
        };
        self.services.iter().map(of).sum()
    }

    /// Remembers a hold that status tells of, after a restart: one that follows ends when that one would have.
    pub fn resume(&mut self, since: Timestamp) {
        self.resumed = Some(since);
    }

    /// Releases everything that is held now, if that is what the hash names. Returns whether it is, so that every service has to look
    /// again.
    pub fn approve(&mut self, hash: &str, now: Timestamp) -> bool {
        if self.held(now).is_none() || hash != self.hash() {
            return false;
        }
        self.released = self.services.iter().map(|(service, share)| (service.clone(), share.stays.clone())).collect();
        self.held_since = None;
        true
    }

    /// What an administrator approved of a service.
    pub fn released(&self, service: &ServiceKey) -> Option<&BTreeSet<String>> {
        self.released.get(service)
    }

    /// From when, and until when, everything is held, where a limit of the whole registry was reached and nobody approved.
    pub fn held(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let since = self.held_since?;
        let until = since.min(now) + REGISTRY_HOLD;
        (now < until).then_some((since, until))
    }

    /// Names everything that is held now.
    pub fn hash(&self) -> String {
        let of = |(service, share): (&ServiceKey, &Share)| {
            share.stays.iter().map(|item| format!("{service} {item}")).collect::<Vec<_>>()
        };
        hash(self.services.iter().flat_map(of))
    }

    /// How many deletions stay for now.
    pub fn deletions(&self) -> usize {
        self.services.values().map(|share| share.stays.len()).sum()
    }
}

/// What stays of one service, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stays {
    pub import: BTreeSet<InstanceAddr>,
    pub export: BTreeSet<InstanceAddr>,
}

impl Stays {
    /// `import 10.0.0.1:80`, sorted.
    pub fn named(&self) -> BTreeSet<String> {
        let of = |verb: &'static str, set: &BTreeSet<InstanceAddr>| -> Vec<String> {
            set.iter().map(|addr| format!("{verb} {addr}")).collect()
        };
        of("import", &self.import).into_iter().chain(of("export", &self.export)).collect()
    }

    /// Names all of it, for its approval.
    pub fn hash(&self) -> String {
        hash(self.named())
    }

    /// The part of it that has one of these names.
    pub fn of_names(&self, names: &BTreeSet<String>) -> Self {
        let of = |verb: &str, set: &BTreeSet<InstanceAddr>| {
            set.iter().filter(|addr| names.contains(&format!("{verb} {addr}"))).copied().collect()
        };
        Self { import: of("import", &self.import), export: of("export", &self.export) }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
