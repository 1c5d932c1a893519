//! Discovered imports: the names of the registry that get a RegisteredService, and a Service with it.
//!
//! Owns the bound, which names beyond it wait, and how long an object outlives its name: an hour in which complete
//! lists of one life of the registry lack it. Anybody who may write the registry chooses names, so neither a name that
//! is in use nor an object that exists gives way to a new one. Refuses to know records, which a caller reduces to
//! names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;

use super::Planner;
use super::facts::{ImportSettings, Names, Object, Wanted, Wants};
use super::names::kubernetes_name;
use super::refusals::Why;
use crate::Timestamp;
use crate::model::{RegistryName, ServiceKey, matches_wildcard};
use crate::plan::earlier;

/// How long complete lists have to lack a name before its object goes.
pub const ABSENT: SignedDuration = SignedDuration::from_hours(1);

impl ImportSettings {
    /// Whether a name is asked for.
    fn follows(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches_wildcard(pattern, name));
        any(&self.include) && !any(&self.exclude)
    }

    /// The object of a name.
    fn key_of(&self, name: &str) -> ServiceKey {
        let filled = self.template.fill(name, &self.namespace);
        ServiceKey::new(&self.namespace, kubernetes_name(&filled, name))
    }
}

fn subject(name: &str) -> String {
    format!("name {name}")
}

impl Planner<'_> {
    pub(super) fn imports(&mut self, settings: &ImportSettings, now: Timestamp) {
        let facts = self.facts;
        let namespace = facts.namespaces.get(settings.namespace.as_str());
        self.plan.lacks_namespace = namespace.is_none_or(|namespace| namespace.deleting);
        let Names::Complete { foreign, basis } = &facts.names else {
            self.plan.memory.basis = None;
            self.keep_imports(settings);
            return;
        };
        let before = self.before;
        let absent = if before.basis.as_ref() == Some(basis) { Some(&before.absent) } else { None };
        self.plan.memory.basis = Some(basis.clone());
        let has = self.existing(settings, foreign);
        let names: BTreeSet<&str> = foreign.iter().map(|name| &**name).collect();
        // Objects on their way out, which a guard may hold.
        let mut leaving = 0;
        for (name, key) in &has {
            if names.contains(name.as_str()) {
                self.want_import(name, key.clone());
                continue;
            }
            if !facts.objects.contains_key(key) {
                continue;
            }
            let since = absent.and_then(|absent| absent.get(key)).copied().unwrap_or(now);
            self.plan.memory.absent.insert(key.clone(), since);
            let ends = since.checked_add(ABSENT).unwrap_or(Timestamp::MAX);
            if now < ends {
                self.plan.look_again = earlier(self.plan.look_again, Some(ends));
                self.want_import(name, key.clone());
            } else {
                leaving += 1;
            }
        }
        self.new_imports(settings, foreign, &has, leaving);
    }

    /// The names that have an object, or one that the view does not show yet, where the name is still asked for and
    /// still leads to it.
    fn existing(&self, settings: &ImportSettings, foreign: &[Arc<str>]) -> BTreeMap<String, ServiceKey> {
        let mut has = BTreeMap::new();
        let mut displaced = BTreeSet::new();
        for (key, object) in self.imported_to(settings) {
            let name = object.registry_name.as_str();
            if object.imports && !object.exports && settings.follows(name) && settings.key_of(name) == *key {
                has.insert(name.to_owned(), key.clone());
            } else {
                displaced.insert(key);
            }
        }
        let created = self.before.created.iter().filter(|(key, wanted)| {
            wanted.imports() && key.namespace == settings.namespace && !self.facts.objects.contains_key(*key)
        });
        for (key, wanted) in created {
            let name = wanted.registry_name.as_str();
            if settings.follows(name) && settings.key_of(name) == *key {
                has.insert(name.to_owned(), key.clone());
            }
        }
        // An edit of a name, or another template: only all names tell whose object it was.
        if !displaced.is_empty() {
            for name in foreign.iter().filter(|name| settings.follows(name)) {
                let key = settings.key_of(name);
                if displaced.remove(&key) {
                    has.insert(name.to_string(), key);
                }
            }
            // A name that is gone as well may be remembered.
            for key in displaced {
                let made = self.before.made.get(key).filter(|made| made.imports());
                let name = made.map(|made| made.registry_name.as_str()).filter(|name| settings.follows(name));
                if let Some(name) = name.filter(|name| settings.key_of(name) == *key) {
                    has.insert(name.to_owned(), key.clone());
                }
            }
        }
        has
    }

    /// Discovered objects of names in the namespace of imports.
    fn imported_to<'b>(&'b self, settings: &'b ImportSettings) -> impl Iterator<Item = (&'b ServiceKey, &'b Object)> {
        let here = self.facts.objects.iter().filter(move |(key, object)| {
            key.namespace == settings.namespace && object.is_discovered() && object.is_import()
        });
        here.map(|(key, object)| (*key, object)).filter(move |(key, _)| !self.settled.contains(*key))
    }

    fn keep_imports(&mut self, settings: &ImportSettings) {
        let here: Vec<ServiceKey> = self.imported_to(settings).map(|(key, _)| key.clone()).collect();
        here.iter().for_each(|key| self.keep(key));
    }

    /// Whether nothing may be concluded about an unwanted object, because it is one of names that are not known.
    pub(super) fn keeps_imports(&self, object: &Object) -> bool {
        let asks = self.facts.settings.as_ref().is_some_and(|settings| settings.import.is_some());
        asks && object.is_import() && !matches!(self.facts.names, Names::Complete { .. })
    }

    fn want_import(&mut self, name: &str, key: ServiceKey) {
        let facts = self.facts;
        let there = facts.objects.get(&key).filter(|object| object.is_discovered());
        let is_others = facts.services.get(&key).is_some_and(|service| service.owner_uid.is_none());
        if is_others && !self.written.imports(name) {
            let message = format!("Service {key} is there and not of this discovery, which imports nothing into it");
            self.plan.refusals.add(&subject(name), Why::NameTaken, message);
            // An object that is there is told the same by its own pass, and goes on once the Service is gone.
            if there.is_none() {
                return;
            }
        }
        // Names that are no RegistryName are not followed.
        if let Ok(registry_name) = RegistryName::new(name) {
            self.want(Wanted { key, registry_name, kind: Wants::Import }, &subject(name));
        }
    }

    /// Names without an object, in order, as long as there is room; `leaving` of those that have one take none.
    fn new_imports(
        &mut self,
        settings: &ImportSettings,
        foreign: &[Arc<str>],
        has: &BTreeMap<String, ServiceKey>,
        leaving: usize,
    ) {
        let facts = self.facts;
        let mut room = settings.most.saturating_sub(has.len() - leaving);
        let mut taken: BTreeMap<ServiceKey, &str> =
            has.iter().map(|(name, key)| (key.clone(), name.as_str())).collect();
        let new = foreign.iter().filter(|name| !has.contains_key(&***name) && settings.follows(name));
        for name in new {
            if self.written.imports(name) {
                continue;
            }
            if room == 0 || self.plan.lacks_namespace {
                self.plan.limited += usize::from(room == 0);
                continue;
            }
            let key = settings.key_of(name);
            if let Some(other) = taken.get(&key) {
                let message = format!("name {other} has the name {} already", key.name);
                self.plan.refusals.add(&subject(name), Why::NameCollision, message);
                continue;
            }
            let there = facts.objects.get(&key);
            let is_import = there.is_some_and(|object| object.is_discovered() && object.is_import());
            if facts.services.contains_key(&key) && !is_import {
                let message = format!("Service {key} is there and not of this discovery");
                self.plan.refusals.add(&subject(name), Why::NameTaken, message);
                continue;
            }
            if self.settled.contains(&key) {
                let message = format!("RegisteredService {key} is that of another Service");
                self.plan.refusals.add(&subject(name), Why::NameTaken, message);
                continue;
            }
            let before = self.plan.creates.len();
            self.want_import(name, key.clone());
            room -= self.plan.creates.len() - before;
            taken.insert(key, name);
        }
    }
}
