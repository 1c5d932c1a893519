//! The deletion guard over all services of one registry.
//!
//! Owns the limit and the hold of the whole registry. Refuses to know why a deletion is unexplained; each service
//! reports its own.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::held::{self, Hold};
use crate::Timestamp;
use crate::model::ServiceKey;

/// The number of unexplained deletions in the whole registry …
pub const REGISTRY_MIN: usize = 10;
/// … which are held if they also exceed this percentage of all instances …
pub const REGISTRY_PERCENT: usize = 30;
/// … for this time.
pub const REGISTRY_HOLD: SignedDuration = SignedDuration::from_secs(300);

/// The guard over all services of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryGuard {
    services: BTreeMap<ServiceKey, ServiceDeletions>,
    held_since: Option<Timestamp>,
    /// Start of the hold of an earlier process, from the status.
    restored_hold_since: Option<Timestamp>,
    /// Deletions that an administrator approved and that were not carried out yet.
    released: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// Deletions that a hold released when its time ended. A service may still hold them; the registry does not hold
    /// them again.
    released_by_timeout: BTreeMap<ServiceKey, BTreeSet<String>>,
}

/// The deletions of one service, as it reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceDeletions {
    /// All current instances.
    pub known: usize,
    /// Unexplained deletions that were carried out, by the end of the [`WINDOW`](super::guard::WINDOW) in which they
    /// count.
    pub deleted: BTreeMap<Timestamp, usize>,
    /// Deletions that are held for now: `import 10.0.0.1:80`, sorted.
    pub held: BTreeSet<String>,
}

impl ServiceDeletions {
    /// Deletions that were carried out and still count.
    fn counted(&self, now: Timestamp) -> usize {
        self.deleted.iter().filter(|(end, _)| now < **end).map(|(_, count)| count).sum()
    }
}

impl RegistryGuard {
    /// Takes the report of one service; `None` if the service is gone. Returns whether a hold began or ended, in which
    /// case every service must be reconciled.
    pub fn report(&mut self, service: &ServiceKey, deletions: Option<ServiceDeletions>, now: Timestamp) -> bool {
        if deletions.is_none() && !self.services.contains_key(service) {
            // Every service sends this report to every registry that it does not refer to.
            return false;
        }
        let before = self.held_since;
        if before.is_some() && self.hold(now).is_none() {
            self.released_by_timeout =
                self.services.iter().map(|(service, own)| (service.clone(), own.held.clone())).collect();
            self.held_since = None;
        }
        match deletions {
            Some(deletions) if deletions != ServiceDeletions::default() => {
                self.services.insert(service.clone(), deletions);
            }
            _ => {
                self.services.remove(service);
            }
        }
        let held = self.services.get(service).map(|own| own.held.clone()).unwrap_or_default();
        for released in [&mut self.released, &mut self.released_by_timeout] {
            if let Some(items) = released.get_mut(service) {
                items.retain(|item| held.contains(item));
            }
            released.retain(|_, items| !items.is_empty());
        }
        let (going, known) = self.services.iter().fold((0, 0), |(going, known), (service, own)| {
            let here =
                own.counted(now) + own.held.len() - self.released_by_timeout.get(service).map_or(0, BTreeSet::len);
            (going + here, known + own.known.max(here))
        });
        if self.unreleased() == 0 {
            self.held_since = None;
        } else if going >= REGISTRY_MIN && going * 100 > known * REGISTRY_PERCENT && self.held_since.is_none() {
            let restored = self.restored_hold_since.take();
            let restored = restored.filter(|since| now < (*since).min(now) + REGISTRY_HOLD);
            self.held_since = restored.or(Some(now));
        }
        before.is_some() != self.held_since.is_some()
    }

    /// The number of held deletions that are not released yet.
    fn unreleased(&self) -> usize {
        let of = |(service, own): (&ServiceKey, &ServiceDeletions)| {
            let released = [self.released.get(service), self.released_by_timeout.get(service)];
            let counts = |item: &&String| !released.iter().flatten().any(|items| items.contains(*item));
            own.held.iter().filter(counts).count()
        };
        self.services.iter().map(of).sum()
    }

    /// Restores a hold from the status after a restart: a new hold ends when the restored one would have.
    pub fn restore(&mut self, since: Timestamp) {
        self.restored_hold_since = Some(since);
    }

    /// Releases every held deletion if the hash names exactly this set. Returns whether it does, in which case every
    /// service must be reconciled.
    pub fn approve(&mut self, hash: &str, now: Timestamp) -> bool {
        if self.hold(now).is_none() || hash != self.hash() {
            return false;
        }
        self.released = self.services.iter().map(|(service, own)| (service.clone(), own.held.clone())).collect();
        self.held_since = None;
        true
    }

    /// Deletions of a service that an administrator approved.
    pub fn released(&self, service: &ServiceKey) -> Option<&BTreeSet<String>> {
        self.released.get(service)
    }

    /// The hold of the whole registry, if its limit was reached and no administrator approved.
    pub fn hold(&self, now: Timestamp) -> Option<Hold> {
        let since = self.held_since?;
        let until = since.min(now) + REGISTRY_HOLD;
        (now < until).then_some(Hold { since, until })
    }

    /// Names every held deletion.
    pub fn hash(&self) -> String {
        let of = |(service, own): (&ServiceKey, &ServiceDeletions)| {
            own.held.iter().map(|item| format!("{service} {item}")).collect::<Vec<_>>()
        };
        held::hash(self.services.iter().flat_map(of))
    }

    /// The number of deletions that are held for now.
    pub fn deletions(&self) -> usize {
        self.services.values().map(|own| own.held.len()).sum()
    }
}

#[cfg(test)]
#[path = "registry_guard_tests.rs"]
mod tests;
