//! The choice of RegisteredServices: which Services, which names, which direction, and why.
//!
//! Owns the rules, as a function of what was seen. Refuses to ask anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value, json};
use twinspan_core::codec::Format;
use twinspan_core::model::{RegistryName, ServiceView};

use super::manifest::{Document, Manifest};
use super::port::{self, Ports};
use crate::api::{GROUP, RegisteredService, VERSION};

/// The facts that a choice rests on.
#[derive(Debug)]
pub struct Facts {
    pub namespace: String,
    pub services: Vec<ServiceView>,
    /// RegisteredServices of the namespace.
    pub registered: Vec<RegisteredService>,
    /// By name.
    pub registries: Vec<RegistryFacts>,
}

/// One registry.
pub struct RegistryFacts {
    pub name: String,
    pub format: Format,
    /// Names with records that this cluster did not write, and their number.
    pub foreign: BTreeMap<RegistryName, usize>,
    pub problem: Option<String>,
    pub partial: Option<String>,
    /// Whether the namespace may use a name.
    pub allows: Box<dyn Fn(&RegistryName) -> bool + Send + Sync>,
}

impl fmt::Debug for RegistryFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryFacts")
            .field("name", &self.name)
            .field("foreign", &self.foreign)
            .finish_non_exhaustive()
    }
}

/// The RegisteredServices that are missing.
pub fn choose(facts: &Facts) -> Manifest {
    let mut manifest = Manifest { complete: true, ..Manifest::default() };
    for registry in &facts.registries {
        if let Some(why) = &registry.problem {
            manifest.remarks.push(format!("registry {} was not read: {why}", registry.name));
            manifest.complete = false;
        }
        if let Some(why) = &registry.partial {
            manifest.remarks.push(format!("registry {}: {why}", registry.name));
        }
    }
    let taken = facts.registered.iter().filter_map(|object| object.metadata.name.clone()).collect();
    let mut choice = Choice { facts, taken, manifest };
    let mut services: Vec<&ServiceView> = facts.services.iter().filter(|service| !service.deleting).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    for service in services {
        choice.service(service);
    }
    choice.manifest
}

struct Choice<'a> {
    facts: &'a Facts,
    /// Names of RegisteredServices that exist or are generated.
    taken: BTreeSet<String>,
    manifest: Manifest,
}

/// A registry, a name in it, and how sure the name is.
struct Place<'a> {
    registry: &'a RegistryFacts,
    name: RegistryName,
    /// Records that this cluster did not write.
    foreign: usize,
    /// Several names match, none of them exactly.
    ambiguous: bool,
}

impl Choice<'_> {
    fn service(&mut self, service: &ServiceView) {
        let name = &service.name;
        let is_api_server = self.facts.namespace == "default" && name == "kubernetes";
        // A Service that Twinspan created has a RegisteredService.
        if is_api_server || service.owner_uid.is_some() {
            return;
        }
        if service.external_name {
            return self.leave_out(name, "it is an ExternalName, and has no endpoints");
        }
        if !service.ports.iter().any(|port| port.tcp) {
            return self.leave_out(name, "it has no TCP port");
        }
        let places: Vec<Place> = self.facts.registries.iter().flat_map(|registry| places(registry, name)).collect();
        if !places.is_empty() {
            let missing: Vec<&Place> = places.iter().filter(|place| !self.is_registered(place)).collect();
            missing.into_iter().for_each(|place| self.add(service, place));
        } else if self.uses(name) {
            // A RegisteredService has it under another name in the registry.
        } else if !service.selector {
            self.leave_out(name, "it has no selector, and no registry has instances of its name");
        } else {
            match self.facts.registries.as_slice() {
                [registry] if registry.problem.is_some() => {
                    self.leave_out(name, "whether its name is in use is not known");
                }
                [registry] => match RegistryName::new(name) {
                    Ok(name) => self.add(service, &Place { registry, name, foreign: 0, ambiguous: false }),
                    Err(error) => self.leave_out(name, &error.to_string()),
                },
                [] => self.leave_out(name, "there is no ServiceRegistry to export it to"),
                _ => self.leave_out(name, "no registry has its name; choose the one to export it to by --registry"),
            }
        }
    }

    fn leave_out(&mut self, service: &str, why: &str) {
        self.manifest.remarks.push(format!("Service {service} is left out: {why}"));
    }

    /// Whether a RegisteredService of the namespace has this place already.
    fn is_registered(&self, place: &Place<'_>) -> bool {
        self.facts.registered.iter().any(|object| {
            object.spec.registry_ref.name == place.registry.name && object.registry_name() == place.name.as_str()
        })
    }

    fn uses(&self, service: &str) -> bool {
        self.facts.registered.iter().any(|object| {
            object.service_key().name == service
                && self.facts.registries.iter().any(|registry| registry.name == object.spec.registry_ref.name)
        })
    }

    fn add(&mut self, service: &ServiceView, place: &Place<'_>) {
        let Some(Ports { list, remark }) = port::choose(place.registry.format, service) else { return };
        let (registry, name) = (&place.registry.name, &place.name);
        let records = format!("registry {registry} has {} under {name} that others wrote", instances(place.foreign));
        let (direction, why) = match (service.selector, place.foreign > 0) {
            (true, true) => ("Both", format!("Service {} selects pods, and {records}", service.name)),
            (true, false) => ("Export", format!("Service {} selects pods, and nobody else has its name", service.name)),
            (false, _) => ("Import", format!("Service {} selects no pods, and {records}", service.name)),
        };
        let mut comments = vec![format!("{direction}: {why}")];
        comments.extend(remark);
        if place.ambiguous {
            let text =
                "Observe, which writes nothing: several names end so; keep the one that is meant, and remove policy";
            comments.push(text.to_owned());
        }
        if !(place.registry.allows)(name) {
            comments.push(format!(
                "not allowed yet: the administrator of ServiceRegistry {registry} grants namespace {} the name {name} in spec.allowed",
                self.facts.namespace
            ));
        }
        let object = self.free_name(&service.name, registry);
        let mut spec = Map::from_iter([
            ("registryRef".to_owned(), json!({"name": registry})),
            ("direction".to_owned(), json!(direction)),
        ]);
        if object != name.as_str() {
            spec.insert("registryName".to_owned(), json!(name.as_str()));
        }
        let mut target = Map::new();
        if object != service.name {
            target.insert("name".to_owned(), json!(service.name));
        }
        if !list.is_empty() {
            target.insert("ports".to_owned(), Value::Array(list));
        }
        if !target.is_empty() {
            spec.insert("service".to_owned(), Value::Object(target));
        }
        if place.ambiguous {
            spec.insert("policy".to_owned(), json!("Observe"));
        }
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "RegisteredService",
            "metadata": {"name": object, "namespace": self.facts.namespace},
            "spec": spec,
        });
        self.manifest.documents.push(Document { comments, object });
    }

    /// The Service's name, or the first one derived from it that is free.
    fn free_name(&mut self, service: &str, registry: &str) -> String {
        let mut name = service.to_owned();
        let mut number = 1;
        while !self.taken.insert(name.clone()) {
            name = if number == 1 { format!("{service}-{registry}") } else { format!("{service}-{registry}-{number}") };
            number += 1;
        }
        name
    }
}

/// The names of a registry that match a Service: the one that equals its name, or else those that end with it.
fn places<'a>(registry: &'a RegistryFacts, service: &str) -> Vec<Place<'a>> {
    let exact = registry.foreign.iter().filter(|(name, _)| name.as_str() == service);
    let ends = registry.foreign.iter().filter(|(name, _)| name.as_str().rsplit('.').next() == Some(service));
    let mut found: Vec<_> = exact.collect();
    if found.is_empty() {
        found = ends.collect();
    }
    let ambiguous = found.len() > 1;
    let place =
        |(name, foreign): (&RegistryName, &usize)| Place { registry, name: name.clone(), foreign: *foreign, ambiguous };
    found.into_iter().map(place).collect()
}

fn instances(count: usize) -> String {
    if count == 1 { "1 instance".to_owned() } else { format!("{count} instances") }
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
