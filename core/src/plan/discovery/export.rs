//! Discovered exports: the Services of the cluster that get a RegisteredService.
//!
//! Owns the selection, and who has a name that several want: the one whose object has it, else the oldest, and with
//! it those that ask for the same name by annotation as it does, as a canary does on purpose. Never taken are
//! Services that Twinspan made, ExternalNames, the API server's own, and those without a TCP port. Refuses to
//! choose among several ports, which the pass over the RegisteredService tells its owner.

use std::collections::{BTreeMap, BTreeSet};

use super::Planner;
use super::annotations::{Chosen, chosen, takes_in};
use super::facts::{ExportSettings, Wanted, Wants};
use super::refusals::Why;
use crate::Timestamp;
use crate::model::{EXPORT_ANNOTATION, RegistryName, ServiceKey, ServiceView};

/// A Service that gets an object if it may have the name.
struct Candidate<'a> {
    key: &'a ServiceKey,
    service: &'a ServiceView,
    name: RegistryName,
    chosen: Chosen,
    /// Whether its object has the name already.
    has: bool,
    /// Whether that object is given up for one that a person wrote: the name is taken until it is gone.
    leaves: bool,
}

impl Candidate<'_> {
    /// The least has a name: nobody takes it from one that has it, and age decides among newcomers.
    fn rank(&self) -> (bool, Timestamp, &ServiceKey) {
        (!self.has, self.service.created.unwrap_or(Timestamp::MAX), self.key)
    }

    fn names_itself(&self) -> bool {
        self.chosen.name.is_some()
    }
}

fn subject(key: &ServiceKey) -> String {
    format!("Service {key}")
}

impl<'a> Planner<'a> {
    pub(super) fn exports(&mut self, settings: &ExportSettings) {
        let candidates = self.candidates(settings);
        for candidate in self.without_collisions(candidates).into_iter().filter(|candidate| !candidate.leaves) {
            let Candidate { key, service, name, chosen, .. } = candidate;
            let kind = Wants::Export { service_uid: service.uid.clone(), port: chosen.port, weight: chosen.weight };
            self.want(Wanted { key: key.clone(), registry_name: name, kind }, &subject(key));
        }
    }

    /// The Services that are taken in, and whose annotations can be used.
    fn candidates(&mut self, settings: &ExportSettings) -> Vec<Candidate<'a>> {
        let facts = self.facts;
        // The answer of each namespace that is selected.
        let mut selected: BTreeMap<&str, Option<bool>> = BTreeMap::new();
        let mut ending = BTreeSet::new();
        for (name, namespace) in &facts.namespaces {
            if !settings.namespaces.matches(|label| namespace.labels.get(label)) {
                continue;
            }
            let answer = takes_in(namespace.export).unwrap_or_else(|bad| {
                self.plan.refusals.add(&format!("Namespace {name}"), Why::InvalidAnnotation, bad);
                Some(false)
            });
            selected.insert(name, answer);
            ending.extend(namespace.deleting.then_some(*name));
        }
        let mut candidates = Vec::new();
        for (key, service) in &facts.services {
            let Some(of_namespace) = selected.get(key.namespace.as_str()) else { continue };
            let own = service.annotations.get(EXPORT_ANNOTATION).map(String::as_str);
            let own = takes_in(own).unwrap_or_else(|bad| {
                self.plan.refusals.add(&subject(key), Why::InvalidAnnotation, bad);
                Some(false)
            });
            let is_selected = || {
                let labels = |label: &str| service.labels.get(label);
                settings.services.as_ref().is_some_and(|selector| selector.matches(labels))
            };
            if !own.or(*of_namespace).unwrap_or_else(is_selected) || is_never_taken(key, service) {
                continue;
            }
            if service.deleting || ending.contains(key.namespace.as_str()) {
                self.keep(key);
                continue;
            }
            candidates.extend(self.candidate(settings, key, service));
        }
        candidates
    }

    fn candidate(
        &mut self,
        settings: &ExportSettings,
        key: &'a ServiceKey,
        service: &'a ServiceView,
    ) -> Option<Candidate<'a>> {
        let object = self.facts.objects.get(key).filter(|object| object.is_discovered() && object.exports);
        // Annotations of the Service are nothing to an object that a person wrote.
        if self.gives_way(key, &self.written.of_service(key), false) {
            let name = RegistryName::new(&object?.registry_name).ok()?;
            let chosen = chosen(service).unwrap_or_default();
            return Some(Candidate { key, service, name, chosen, has: true, leaves: true });
        }
        let chosen = match chosen(service) {
            Ok(chosen) => chosen,
            Err(bad) => {
                self.plan.refusals.add(&subject(key), Why::InvalidAnnotation, bad);
                self.keep(key);
                return None;
            }
        };
        let named = || RegistryName::new(settings.template.fill(&key.name, &key.namespace));
        match chosen.name.clone().map_or_else(named, Ok) {
            Ok(name) => {
                let has = object.is_some_and(|object| object.registry_name == name.as_str());
                Some(Candidate { key, service, name, chosen, has, leaves: false })
            }
            Err(error) => {
                self.plan.refusals.add(&subject(key), Why::InvalidName, error.to_string());
                self.keep(key);
                None
            }
        }
    }

    /// Leaves out those whose name another one has.
    fn without_collisions(&mut self, candidates: Vec<Candidate<'a>>) -> Vec<Candidate<'a>> {
        let candidates = self.without_written(candidates);
        let mut first_of: BTreeMap<&RegistryName, &Candidate<'a>> = BTreeMap::new();
        for candidate in &candidates {
            let first = first_of.entry(&candidate.name).or_insert(candidate);
            if candidate.rank() < first.rank() {
                *first = candidate;
            }
        }
        let mut out = BTreeMap::new();
        for candidate in candidates.iter().filter(|candidate| !candidate.leaves) {
            let Some(first) = first_of.get(&candidate.name).filter(|first| first.key != candidate.key) else {
                continue;
            };
            if !(first.names_itself() && candidate.names_itself()) {
                out.insert(candidate.key, (candidate.name.clone(), first.key, first.has));
            }
        }
        for (key, (name, first, has)) in &out {
            let why = if *has { "had it first" } else { "is older" };
            let message = format!(
                "Service {first}, which {why}, has the name {name} already; give one of them another, or both the \
                 annotation with the same"
            );
            self.plan.refusals.add(&subject(key), Why::NameCollision, message);
        }
        let out: BTreeSet<&ServiceKey> = out.into_keys().collect();
        candidates.into_iter().filter(|candidate| !out.contains(candidate.key)).collect()
    }

    /// Leaves out newcomers that would join a name which a person exports for another Service, unless they ask for it.
    fn without_written(&mut self, mut candidates: Vec<Candidate<'a>>) -> Vec<Candidate<'a>> {
        let (written, refusals) = (&self.written, &mut self.plan.refusals);
        candidates.retain(|candidate| {
            let Candidate { key, name, .. } = candidate;
            let joins = !candidate.has && !candidate.names_itself();
            let Some(other) = written.exporter(name.as_str(), key).filter(|_| joins) else { return true };
            let message = format!(
                "RegisteredService {other}, which a person wrote, exports the name {name} for another Service already; \
                 give this one another, or the annotation with the same"
            );
            refusals.add(&subject(key), Why::NameCollision, message);
            false
        });
        candidates
    }
}

fn is_never_taken(key: &ServiceKey, service: &ServiceView) -> bool {
    let is_api_server = key.namespace == "default" && key.name == "kubernetes";
    let has_port = service.ports.iter().any(|port| port.tcp);
    is_api_server || service.owner_uid.is_some() || service.external_name || !has_port
}
