//! The deletion guard over all services of one registry.
//!
//! The guard also holds what many RegisteredServices leave behind that are gone at once: a control plane that was
//! restored, or a CRD that was deleted, is more likely than the end of so many services. A few are people's decision.
//!
//! Owns the limits and the hold of the whole registry. Refuses to know why a deletion is unexplained; each service
//! reports its own.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::held::{self, Hold, Running, WINDOW};
use crate::Timestamp;
use crate::model::ServiceKey;

/// The number of unexplained deletions in the whole registry …
pub const REGISTRY_MIN: usize = 10;
/// … which are held if they also exceed this percentage of all instances …
pub const REGISTRY_PERCENT: usize = 30;
/// … for this time.
pub const REGISTRY_HOLD: SignedDuration = SignedDuration::from_secs(300);

/// The guard over all services of one registry, while this process leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryGuard {
    services: Reports,
    hold: Option<Running>,
    /// The hold of an earlier process, while the services may still report its deletions.
    resumable: Option<Running>,
    last_since: Option<Timestamp>,
    /// The time at which each held deletion was reported first.
    arrivals: BTreeMap<ServiceKey, BTreeMap<String, Timestamp>>,
    /// Deletions that an administrator approved and that were not carried out yet.
    released: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// Deletions that a hold released when its time ended. A service may still hold them; the registry does not hold
    /// them again.
    released_by_timeout: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// The hash of the hold for which an approval was refused.
    refused: Option<String>,
    /// RegisteredServices that are gone.
    gone: Going,
    /// RegisteredServices that a sweep of discovery would delete.
    swept: Going,
    /// The deletions that the hold is of.
    of: Kinds,
}

/// RegisteredServices that go together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Going {
    /// With the time of their first report.
    since: BTreeMap<ServiceKey, Timestamp>,
    /// The number of those that stay, by the last report of one that goes.
    remaining: usize,
}

impl Going {
    fn is_mass(&self) -> bool {
        is_mass(self.since.len(), self.remaining)
    }
}

/// Kinds of deletions. A sweep concerns no other kind: anybody who may write RegisteredServices may label them, and
/// could otherwise hold what other namespaces import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kinds {
    /// Deletions of RegisteredServices that are there.
    there: bool,
    /// Deletions of RegisteredServices that are gone.
    gone: bool,
    sweeps: bool,
}

impl Kinds {
    fn or(self, other: Self) -> Self {
        let Self { there, gone, sweeps } = other;
        Self { there: self.there || there, gone: self.gone || gone, sweeps: self.sweeps || sweeps }
    }

    fn has(self, service: &ServiceKey, own: &ServiceDeletions) -> bool {
        match own.remaining {
            None => self.there,
            Some(_) if is_sweep(service) => self.sweeps,
            Some(_) => self.gone,
        }
    }
}

/// The last report of each service. Nearly all say that nothing is deleted, and no report costs a look at those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reports {
    all: BTreeMap<ServiceKey, ServiceDeletions>,
    /// The services that delete something, or hold it.
    deleting: BTreeSet<ServiceKey>,
    /// All instances of the RegisteredServices that are there.
    known: usize,
}

impl Reports {
    fn get(&self, service: &ServiceKey) -> Option<&ServiceDeletions> {
        self.all.get(service)
    }

    /// Takes a report; `None` forgets the service.
    fn set(&mut self, service: &ServiceKey, report: Option<ServiceDeletions>) {
        self.known += report.as_ref().map_or(0, ServiceDeletions::instances);
        let deletes = report.as_ref().is_some_and(|own| !own.held.is_empty() || !own.deleted.is_empty());
        let before = match report {
            Some(report) => self.all.insert(service.clone(), report),
            None => self.all.remove(service),
        };
        self.known -= before.map_or(0, |before| before.instances());
        if deletes {
            self.deleting.insert(service.clone());
        } else {
            self.deleting.remove(service);
        }
    }

    fn deleting(&self) -> impl Iterator<Item = (&ServiceKey, &ServiceDeletions)> {
        self.deleting.iter().filter_map(|service| self.all.get_key_value(service))
    }
}

/// The end of the name under which a discovered RegisteredService that a sweep would delete is reported, beside the
/// reports of its own pass. No object has such a name.
const OF_SWEEP: &str = " (discovered)";
/// The deletion that such a report holds: the object itself.
pub const SWEEP: &str = "RegisteredService";

/// The name under which the sweep of a RegisteredService is reported.
pub fn sweep_of(key: &ServiceKey) -> ServiceKey {
    ServiceKey::new(&key.namespace, format!("{}{OF_SWEEP}", key.name))
}

fn is_sweep(key: &ServiceKey) -> bool {
    key.name.ends_with(OF_SWEEP)
}

/// The deletions of one service, as it reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceDeletions {
    /// All current instances.
    pub known: usize,
    /// Unexplained deletions that were carried out, by the end of the [`WINDOW`](super::held::WINDOW) in which they
    /// count.
    pub deleted: BTreeMap<Timestamp, usize>,
    /// Deletions that are held for now: `import 10.0.0.1:80`, sorted.
    pub held: BTreeSet<String>,
    /// The time of the departure, for each of them that the process saw depart itself.
    pub seen: BTreeMap<String, Timestamp>,
    /// If the RegisteredService itself is gone, the number of those that still refer to the registry.
    pub remaining: Option<usize>,
}

/// The time of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the clock of the process.
    pub now: Timestamp,
    /// How far the API server's clock is ahead of it.
    pub api_server_ahead: SignedDuration,
}

/// The answer to an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Every service must be reconciled.
    Released,
    /// It names the held set as former versions did, which does not say which hold of it; the hash that does.
    NamesSetOnly { hash: String },
    /// It does not name the hold in force, or there is none.
    Other,
}

/// Whether so many of a registry's RegisteredServices are gone that a loss of objects is more likely than a decision.
pub fn is_mass(gone: usize, remaining: usize) -> bool {
    gone >= REGISTRY_MIN && gone * 100 > (gone + remaining) * REGISTRY_PERCENT
}

impl ServiceDeletions {
    /// The instances of a RegisteredService that is there.
    fn instances(&self) -> usize {
        if self.remaining.is_none() { self.known } else { 0 }
    }

    /// Deletions that were carried out and still count.
    fn counted(&self, now: Timestamp) -> usize {
        self.deleted.iter().filter(|(end, _)| now < **end).map(|(_, count)| count).sum()
    }
}

impl RegistryGuard {
    /// The guard of a process that begins to lead, and resumes the hold that the status reports.
    pub fn restored(since: Option<Timestamp>, at: Moment) -> Self {
        let resumable = since.and_then(|since| Running::resume(since, at.now, at.api_server_ahead, REGISTRY_HOLD));
        Self { resumable, last_since: since, ..Self::default() }
    }

    /// Takes the report of one service; `None` if the service is gone. Returns whether a hold began or ended, in which
    /// case every service must be reconciled.
    pub fn report(&mut self, service: &ServiceKey, deletions: Option<ServiceDeletions>, at: Moment) -> bool {
        if deletions.is_none() && self.services.get(service).is_none() {
            // Every service sends this report to every registry that it does not refer to.
            return false;
        }
        let ended = self.end(at);
        let before = (self.hold, self.of);
        self.note_gone(service, deletions.as_ref(), at.now);
        self.services.set(service, deletions.filter(|deletions| *deletions != ServiceDeletions::default()));
        self.follow(service, at.now);
        let reached = self.limits_reached(at.now);
        self.of = self.of.or(reached).or(self.masses());
        if self.unreleased() == 0 {
            self.hold = None;
        } else if self.hold.is_none() && reached != Kinds::default() {
            self.hold = Some(self.resumable.unwrap_or_else(|| self.begin(at.now, at)));
        }
        self.settle();
        ended || before != (self.hold, self.of)
    }

    /// A hold that is over is of nothing, and one of RegisteredServices that are there has taken up that of an earlier
    /// process.
    fn settle(&mut self) {
        self.of = if self.hold.is_some() { self.of } else { Kinds::default() };
        self.resumable = self.resumable.filter(|_| !self.of.there);
    }

    /// Whether the report changes what a hold in force holds, so that it has another name.
    pub fn renames(&self, service: &ServiceKey, deletions: Option<&ServiceDeletions>) -> bool {
        let held = |own: Option<&ServiceDeletions>| own.map(|own| own.held.clone()).unwrap_or_default();
        self.hold.is_some() && held(self.services.get(service)) != held(deletions)
    }

    /// RegisteredServices count together while they have something to withdraw, and for a [`WINDOW`] from their first
    /// report.
    fn note_gone(&mut self, service: &ServiceKey, deletions: Option<&ServiceDeletions>, now: Timestamp) {
        let going = if is_sweep(service) { &mut self.swept } else { &mut self.gone };
        match deletions.map(|deletions| deletions.remaining) {
            Some(Some(remaining)) => {
                going.since.entry(service.clone()).or_insert(now);
                going.remaining = remaining;
            }
            // The object is there again.
            Some(None) => drop(going.since.remove(service)),
            None => {}
        }
        let services = &self.services;
        let withdraws = |key: &ServiceKey| services.get(key).is_some_and(|own| own.remaining.is_some());
        for going in [&mut self.gone, &mut self.swept] {
            going.since.retain(|key, since| withdraws(key) || now < *since + WINDOW);
        }
    }

    /// The kinds of which so many go that a hold is of theirs too.
    fn masses(&self) -> Kinds {
        Kinds { there: false, gone: self.gone.is_mass(), sweeps: self.swept.is_mass() }
    }

    /// Keeps what is known about the deletions that a service holds, and forgets the others.
    fn follow(&mut self, service: &ServiceKey, now: Timestamp) {
        let own = self.services.get(service).cloned().unwrap_or_default();
        let (held, seen) = (own.held, own.seen);
        let arrivals = self.arrivals.entry(service.clone()).or_default();
        // An instance that came back and went again since the last report is another deletion.
        arrivals.retain(|item, arrival| held.contains(item) && seen.get(item).is_none_or(|seen| seen <= arrival));
        for released in [&mut self.released, &mut self.released_by_timeout] {
            if let Some(items) = released.get_mut(service) {
                items.retain(|item| arrivals.contains_key(item));
            }
            released.retain(|_, items| !items.is_empty());
        }
        for item in held {
            arrivals.entry(item).or_insert(now);
        }
        self.arrivals.retain(|_, items| !items.is_empty());
    }

    /// Ends a hold whose time is over. Deletions that it did not cover are judged anew, and held from their own time.
    /// Returns whether one ended.
    pub fn end(&mut self, at: Moment) -> bool {
        self.resumable = self.resumable.filter(|hold| at.now < hold.ends(REGISTRY_HOLD));
        let mut ended = false;
        while let Some(hold) = self.hold.filter(|hold| at.now >= hold.ends(REGISTRY_HOLD)) {
            ended = true;
            let of = std::mem::take(&mut self.of);
            self.hold = None;
            let mut first: Option<Timestamp> = None;
            for (service, items) in &self.arrivals {
                let let_go = self.released_by_timeout.entry(service.clone()).or_default();
                let own = self.services.get(service);
                let (seen, concerned) = (own.map(|own| &own.seen), own.is_none_or(|own| of.has(service, own)));
                for (item, arrival) in items.iter().filter(|(item, _)| !let_go.contains(*item)).collect::<Vec<_>>() {
                    let seen = seen.and_then(|seen| seen.get(item)).copied();
                    let departed = seen.unwrap_or(Timestamp::MIN);
                    if concerned && hold.covers_departed(departed, seen.is_some(), *arrival, REGISTRY_HOLD) {
                        let_go.insert(item.clone());
                    } else {
                        first = Some(first.map_or(*arrival, |first| first.min(*arrival)));
                    }
                }
            }
            let reached = self.limits_reached(at.now);
            if let Some(first) = first.filter(|_| reached != Kinds::default()) {
                self.hold = Some(self.begin(first, at));
                self.of = reached.or(self.masses());
            }
        }
        ended
    }

    fn begin(&mut self, began: Timestamp, at: Moment) -> Running {
        let running = Running::begin(began, at.api_server_ahead, self.last_since);
        self.last_since = Some(running.since());
        running
    }

    /// The kinds that a hold which begins now is of.
    fn limits_reached(&self, now: Timestamp) -> Kinds {
        let (mut going, mut known, mut left_behind, mut sweeping) = (0, self.services.known, 0, 0);
        for (service, own) in self.services.deleting() {
            let let_go = self.released_by_timeout.get(service).map_or(0, BTreeSet::len);
            let held = own.held.len().saturating_sub(let_go);
            if own.remaining.is_some() {
                *if is_sweep(service) { &mut sweeping } else { &mut left_behind } += held;
                continue;
            }
            let here = own.counted(now) + held;
            (going, known) = (going + here, known + here.saturating_sub(own.known));
        }
        let instances = going >= REGISTRY_MIN && going * 100 > known * REGISTRY_PERCENT;
        let masses = self.masses();
        let gone = left_behind > 0 && masses.gone;
        Kinds { there: instances || gone, gone, sweeps: sweeping > 0 && masses.sweeps }
    }

    /// The number of held deletions that are not released yet.
    fn unreleased(&self) -> usize {
        let of = |(service, own): (&ServiceKey, &ServiceDeletions)| {
            let released = [self.released.get(service), self.released_by_timeout.get(service)];
            let counts = |item: &&String| !released.iter().flatten().any(|items| items.contains(*item));
            own.held.iter().filter(counts).count()
        };
        self.held().map(of).sum()
    }

    /// The services whose deletions the hold is of.
    fn held(&self) -> impl Iterator<Item = (&ServiceKey, &ServiceDeletions)> {
        self.services.deleting().filter(|(service, own)| self.of.has(service, own))
    }

    /// Releases every held deletion if the hash names exactly this hold and this set.
    pub fn approve(&mut self, hash: &str, now: Timestamp) -> Approval {
        let Some(current) = self.hash(now) else { return Approval::Other };
        if hash != current {
            let of_set = held::hash_of_set(self.named());
            return if hash == of_set { Approval::NamesSetOnly { hash: current } } else { Approval::Other };
        }
        self.released = self.held().map(|(service, own)| (service.clone(), own.held.clone())).collect();
        (self.hold, self.of) = Default::default();
        self.resumable = None;
        Approval::Released
    }

    /// Notes that an approval was refused for the hold with this hash. Returns false if it was before.
    pub fn refuse(&mut self, hash: &str) -> bool {
        self.refused.replace(hash.to_owned()).is_none_or(|before| before != hash)
    }

    /// Deletions of a service that an administrator approved.
    pub fn released(&self, service: &ServiceKey) -> Option<&BTreeSet<String>> {
        self.released.get(service)
    }

    /// Deletions of a service that a hold let go when its time ended.
    pub fn let_go(&self, service: &ServiceKey) -> Option<&BTreeSet<String>> {
        self.released_by_timeout.get(service)
    }

    /// The hold of the whole registry, if its limit was reached and no administrator approved.
    pub fn hold(&self, now: Timestamp) -> Option<Hold> {
        let hold = self.hold?.hold(REGISTRY_HOLD);
        (now < hold.ends).then_some(hold)
    }

    /// The same for the instances of a RegisteredService that is there.
    pub fn hold_of_instances(&self, now: Timestamp) -> Option<Hold> {
        self.hold(now).filter(|_| self.of.there)
    }

    /// The same for a RegisteredService that is gone: below the limit of those, nothing of theirs is held.
    pub fn hold_of_gone(&self, now: Timestamp) -> Option<Hold> {
        self.hold(now).filter(|_| self.of.gone)
    }

    /// The same for what a sweep would delete.
    pub fn hold_of_sweeps(&self, now: Timestamp) -> Option<Hold> {
        self.hold(now).filter(|_| self.of.sweeps)
    }

    /// The number of RegisteredServices that are gone, if their deletions are held.
    pub fn gone(&self) -> usize {
        if self.of.gone { self.gone.since.len() } else { 0 }
    }

    /// The number of discovered RegisteredServices whose sweep is held.
    pub fn sweeps(&self) -> usize {
        self.held().filter(|(service, _)| is_sweep(service)).count()
    }

    /// Whether the hold of an earlier process may still go on: the services report its deletions one after the other.
    pub fn may_resume(&self, now: Timestamp) -> bool {
        self.hold.is_none() && self.resumable.is_some_and(|hold| hold.covers(now, REGISTRY_HOLD))
    }

    /// The hold of an earlier process, as long as it may still go on for the instances of services.
    pub fn resumes(&self, now: Timestamp) -> Option<Hold> {
        let hold = self.resumable.filter(|hold| hold.covers(now, REGISTRY_HOLD))?;
        let ends = hold.ends(REGISTRY_HOLD).min(hold.covers_until(REGISTRY_HOLD));
        Some(Hold { ends, ..hold.hold(REGISTRY_HOLD) })
    }

    /// Names the hold, for its approval.
    pub fn hash(&self, now: Timestamp) -> Option<String> {
        Some(held::hash(self.hold(now)?.since, self.named()))
    }

    fn named(&self) -> impl Iterator<Item = String> {
        self.held().flat_map(|(service, own)| own.held.iter().map(move |item| format!("{service} {item}")))
    }

    /// The number of deletions that are held for now.
    pub fn deletions(&self) -> usize {
        self.held().map(|(_, own)| own.held.len()).sum()
    }
}

#[cfg(test)]
#[path = "registry_guard_tests.rs"]
mod tests;
