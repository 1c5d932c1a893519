//! Discovery: the RegisteredServices that a ServiceRegistry makes for Services and names (`spec.discovery`).
//!
//! - [`facts`]: all that a plan rests on. [`names`]: templates, and registry names as names of Services.
//!   `annotations`: what a Service says for itself.
//! - `export`: the RegisteredServices of Services. `import`: those of names in the registry. `written`: the ones that
//!   people wrote, which win.
//! - [`turn`]: the part of a plan that may be done now. [`history`]: what was sent before, and how it was answered.
//!
//! Owns which of them are made, put back and given up, and why others are refused. A whole pass is linear in Services,
//! objects and names; it runs at most once a second, so that one that changed often costs no more. Refuses to know the
//! limits of a sweep ([`super::departure::registry_guard`]) and to ask whether a name is allowed, which the pass over
//! the RegisteredService does.

mod annotations;
#[cfg(test)]
mod contested_tests;
mod export;
pub mod facts;
pub mod history;
#[cfg(test)]
mod history_tests;
mod import;
pub mod names;
#[cfg(test)]
mod properties;
pub mod refusals;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod tests;
pub mod turn;
pub mod written;
#[cfg(test)]
mod written_tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use crate::Timestamp;
use crate::model::ServiceKey;
use crate::plan::earlier;

use facts::{Facts, Names, Object, Wanted};
use refusals::{Refusals, Why};
use written::{Rival, Wait, Written};

/// All that a plan takes from the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Since when complete lists lack the name of each object.
    absent: BTreeMap<ServiceKey, Timestamp>,
    /// The life of the registry in which they were absent.
    basis: Option<String>,
    /// Since when no list has been complete.
    blind: Option<Timestamp>,
    /// The objects that were seen as they should be: one that differs since then was edited.
    made: BTreeMap<ServiceKey, Wanted>,
    /// The objects that were created and that the view may lack, from [`history::History::created`].
    pub created: BTreeMap<ServiceKey, Wanted>,
    /// Since when the reference and the label of each object have named two ServiceRegistries.
    contested: BTreeMap<ServiceKey, Timestamp>,
}

impl Memory {
    /// No list is complete now: nothing that was absent is forgotten.
    fn look_away(&mut self, before: &Self, now: Timestamp) {
        self.absent.clone_from(&before.absent);
        self.basis.clone_from(&before.basis);
        self.blind = before.blind.or(Some(now));
    }

    /// The list is complete again. The time without one does not count: servers come back with the registry.
    fn look_again(&self, blind: Timestamp, now: Timestamp) -> Self {
        let unseen = now.duration_since(blind);
        let later = |since: &Timestamp| since.checked_add(unseen).unwrap_or(Timestamp::MAX);
        let absent = self.absent.iter().map(|(key, since)| (key.clone(), later(since))).collect();
        Self { absent, blind: None, ..self.clone() }
    }
}

/// An object that has to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub wanted: Wanted,
    pub uid: String,
    pub version: String,
    /// Whether somebody's edit is put back.
    pub restores: bool,
}

/// An object that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    pub key: ServiceKey,
    pub uid: String,
    pub version: String,
    /// Whether the object writes nothing: then no record goes with it, and no guard has to be asked.
    pub idle: bool,
}

impl Delete {
    fn of(key: &ServiceKey, object: &Object) -> Self {
        let (uid, version) = (object.uid.clone(), object.version.clone());
        Self { key: key.clone(), uid, version, idle: object.is_idle() }
    }
}

/// Everything that is to be done, in order, and what status tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub creates: Vec<Wanted>,
    pub updates: Vec<Update>,
    /// Given up for one that a person wrote, which carries their instances by now.
    pub yields: Vec<Delete>,
    /// Objects whose reason is gone; the guard has to let them go.
    pub sweeps: Vec<Delete>,
    /// Objects that wait until one that a person wrote has its instances, and for which.
    pub yielding: BTreeMap<ServiceKey, Wait>,
    /// The RegisteredServices whose status ends such a wait.
    pub awaited: BTreeSet<ServiceKey>,
    pub refusals: Refusals,
    /// Objects that exist.
    pub exports: usize,
    pub imports: usize,
    /// Objects that stay.
    pub staying: usize,
    /// Names for which the most objects are reached.
    pub limited: usize,
    /// The namespace of imports does not exist, or is being deleted.
    pub lacks_namespace: bool,
    /// The next change without an event.
    pub look_again: Option<Timestamp>,
    pub memory: Memory,
}

impl Plan {
    /// The number of objects that are not yet as they should be.
    pub fn pending(&self) -> usize {
        self.creates.len() + self.updates.len() + self.yields.len() + self.sweeps.len() + self.yielding.len()
    }
}

/// Plans from what was observed.
pub fn plan(facts: &Facts<'_>, memory: &Memory, now: Timestamp) -> Plan {
    let blind = memory.blind.filter(|_| matches!(facts.names, Names::Complete { .. }));
    let again = blind.map(|blind| memory.look_again(blind, now));
    let memory = again.as_ref().unwrap_or(memory);
    let (written, settled) = (Written::of(facts), BTreeSet::new());
    let mut planner = Planner { facts, before: memory, now, written, settled, plan: Plan::default() };
    if let Some(settings) = facts.settings.as_ref().and_then(|settings| settings.export.as_ref()) {
        planner.exports(settings);
    }
    match facts.settings.as_ref().and_then(|settings| settings.import.as_ref()) {
        Some(settings) => planner.imports(settings, now),
        None => planner.plan.memory.basis = None,
    }
    planner.sweep();
    let asks = facts.settings.as_ref().is_some_and(|settings| settings.import.is_some());
    if asks && facts.names == Names::Unknown {
        planner.plan.memory.look_away(memory, now);
    }
    planner.plan
}

struct Planner<'a> {
    facts: &'a Facts<'a>,
    before: &'a Memory,
    now: Timestamp,
    written: Written<'a>,
    /// Objects whose fate is decided, and the keys of those that are made.
    settled: BTreeSet<ServiceKey>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    /// Has an object as it is wanted: makes it, puts it right, or gives it up for one that a person wrote. `subject`
    /// names the Service or the name, for a refusal.
    fn want(&mut self, wanted: Wanted, subject: &str) {
        let facts = self.facts;
        let there = facts.objects.get(&wanted.key);
        if there.is_some_and(|object| object.is_discovered() && (object.deleting || object.unreadable)) {
            self.settled.insert(wanted.key);
            return;
        }
        if self.gives_way(&wanted.key, &self.written.rivals(&wanted), wanted.imports()) {
            return;
        }
        match there {
            None if !facts.taken.contains(&wanted.key) => {
                self.settled.insert(wanted.key.clone());
                self.plan.creates.push(wanted);
            }
            Some(object) if object.is_discovered() => self.put_right(wanted, object),
            // The end of this one is a change, and frees the key.
            Some(object) if object.deleting => {}
            None | Some(_) => {
                let message = format!("RegisteredService {} is there and not of this discovery", wanted.key);
                self.plan.refusals.add(subject, Why::NameTaken, message);
            }
        }
    }

    /// Gives an object up for those that people wrote. Returns whether there are any, so that none is made either.
    fn gives_way(&mut self, key: &ServiceKey, rivals: &[Rival<'a>], imports: bool) -> bool {
        if rivals.is_empty() {
            return false;
        }
        let there = self.facts.objects.get(key).filter(|object| object.is_discovered());
        let Some(object) = there.filter(|_| self.settled.insert(key.clone())) else { return true };
        if object.deleting || object.unreadable {
            return true;
        }
        match written::wait(rivals, object, imports) {
            None => self.plan.yields.push(Delete::of(key, object)),
            Some(wait) => {
                self.plan.awaited.extend(rivals.iter().map(|(rival, _)| (*rival).clone()).chain([key.clone()]));
                self.plan.yielding.insert(key.clone(), wait);
            }
        }
        true
    }

    fn put_right(&mut self, wanted: Wanted, object: &Object) {
        self.settled.insert(wanted.key.clone());
        self.plan.staying += 1;
        if object.origin == facts::Origin::Ours && object.made_as.as_ref() == Some(&wanted) {
            self.plan.memory.made.insert(wanted.key.clone(), wanted);
            return;
        }
        if self.is_left(&wanted.key, object) {
            return;
        }
        let restores = self.before.made.get(&wanted.key) == Some(&wanted);
        if restores {
            self.plan.memory.made.insert(wanted.key.clone(), wanted.clone());
        }
        let (uid, version) = (object.uid.clone(), object.version.clone());
        self.plan.updates.push(Update { wanted, uid, version, restores });
    }

    /// Whether a wanted object with two ServiceRegistries is left alone for now: the one that has seen it as it should
    /// be puts it right at once. After a restart neither has, and the one to which it refers comes first.
    fn is_left(&mut self, key: &ServiceKey, object: &Object) -> bool {
        let Some(since) = self.contested_since(key, object) else { return false };
        if self.before.made.contains_key(key) {
            return false;
        }
        let turns = if object.origin == facts::Origin::Relabelled { 1 } else { 2 };
        self.is_before(since, facts::SHOWN * turns)
    }

    fn contested_since(&mut self, key: &ServiceKey, object: &Object) -> Option<Timestamp> {
        let since = self.before.contested.get(key).copied().unwrap_or(self.now);
        let since = object.is_contested().then_some(since)?;
        self.plan.memory.contested.insert(key.clone(), since);
        Some(since)
    }

    /// Whether so much time has not passed yet. Then its end has a look.
    fn is_before(&mut self, since: Timestamp, time: SignedDuration) -> bool {
        let ends = since.checked_add(time).unwrap_or(Timestamp::MAX);
        let is_before = self.now < ends;
        if is_before {
            self.plan.look_again = earlier(self.plan.look_again, Some(ends));
        }
        is_before
    }

    /// An object stays as it is.
    fn keep(&mut self, key: &ServiceKey) {
        if self.facts.objects.get(key).is_some_and(Object::is_discovered) && self.settled.insert(key.clone()) {
            self.stays(key);
        }
    }

    /// An object stays without a look at it; an edit may be put back later.
    fn stays(&mut self, key: &ServiceKey) {
        self.plan.staying += 1;
        let made = self.before.made.get(key).cloned();
        self.plan.memory.made.extend(made.map(|made| (key.clone(), made)));
    }

    /// Sweeps everything that is discovered and not wanted any more.
    fn sweep(&mut self) {
        let facts = self.facts;
        let discovered = facts.objects.iter().filter(|(_, object)| object.is_discovered());
        for (key, object) in discovered {
            // The ServiceRegistry to which it refers decides.
            if object.origin == facts::Origin::Moved && !self.settled.contains(*key) {
                continue;
            }
            if object.imports && !object.exports {
                self.plan.imports += 1;
            } else {
                self.plan.exports += 1;
            }
            if self.settled.contains(*key) || object.deleting || object.unreadable {
                continue;
            }
            // The garbage collector deletes an export with its Service.
            let of_service = |uid: &String| facts.services.get(*key).is_none_or(|service| service.uid != *uid);
            let is_collected = !object.is_import() && object.owner.as_ref().is_some_and(of_service);
            if is_collected || self.keeps_imports(object) {
                self.stays(key);
                continue;
            }
            let contested = self.contested_since(key, object);
            if contested.is_some_and(|since| self.is_before(since, facts::CONTESTED)) {
                self.stays(key);
                continue;
            }
            // Only a status about its spec tells whether it writes anything, and so whether the guard has to be asked.
            if !object.carries.is_current {
                self.stays(key);
                self.plan.look_again = earlier(self.plan.look_again, self.now.checked_add(facts::SHOWN).ok());
                continue;
            }
            self.plan.sweeps.push(Delete::of(key, object));
        }
    }
}
