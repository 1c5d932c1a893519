//! Siblings: other RegisteredServices that export the same registry name, or import into the same Service.
//!
//! Owns the rule that an address belongs to the first RegisteredService, in the order of their [`Precedence`], that
//! wants it, and the choice of the sibling that adopts a record. Only siblings that write count: a suspended one takes
//! nothing over. Refuses to find siblings: the operator's controller does.

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::{ImportGoal, Pass, present};
use super::pods;
use super::shared::{Shared, Siblings};
use super::{Accepted, Checkpoint, Facts, RegistryFacts};
use crate::Timestamp;
use crate::model::{InstanceAddr, Kind, Precedence, RecordKey, ServiceKey, Slice};
use crate::plan::departure::OnExpiry;
use crate::plan::export::ContestedExport;
use crate::plan::import::{self, ContestedImport};
use crate::plan::slices;

/// Another RegisteredService that writes.
#[derive(Clone, Debug)]
pub struct Sibling {
    pub precedence: Precedence,
    pub accepted: Accepted,
    pub facts: Facts,
    pub checkpoint: Checkpoint,
}

/// Weighs the siblings of a RegisteredService. `accepted` are its own settings, where it writes.
pub fn weigh(
    facts: &Facts,
    precedence: &Precedence,
    accepted: Option<&Accepted>,
    others: &[Sibling],
    now: Timestamp,
) -> Siblings {
    let mut siblings = Siblings::default();
    let ourselves = accepted.map(|accepted| (precedence, accepted));
    for registry in facts.registry.iter().chain(&facts.former) {
        let (mut to_release, to_adopt) = healed(registry, ourselves, others);
        to_release.extend(adopted_under_other_names(registry, others));
        let shared = Shared { contested: contested_exports(registry, precedence, others), to_release, to_adopt };
        siblings.by_place.insert(registry.place(), shared);
    }
    // A RegisteredService that moves away yields to all that stay, because they do not count it as a sibling there.
    for registry in &facts.former {
        let shared = siblings.by_place.get_mut(&registry.place());
        shared
            .into_iter()
            .flat_map(|shared| shared.contested.values_mut())
            .for_each(|c| *c = ContestedExport::Precedes);
    }
    siblings.contested_imports = contested_imports(facts, precedence, others, now);
    siblings
}

impl Sibling {
    fn uses(&self, registry: &RegistryFacts) -> bool {
        self.facts.registry.as_ref().is_some_and(|other| other.name == registry.name)
    }

    fn exports_to(&self, registry: &RegistryFacts) -> bool {
        self.uses(registry) && self.accepted.exports
    }

    /// Whether the sibling puts lost registrations of the name back.
    fn heals(&self, registry: &RegistryFacts, name: &[u8]) -> bool {
        self.uses(registry) && heals(&self.accepted, name)
    }
}

fn heals(accepted: &Accepted, name: &[u8]) -> bool {
    accepted.imports && accepted.import.on_expiry == OnExpiry::Heal && accepted.name.as_str().as_bytes() == name
}

/// The addresses that siblings want to export in one registry under the same name.
fn contested_exports(
    registry: &RegistryFacts,
    precedence: &Precedence,
    others: &[Sibling],
) -> BTreeMap<InstanceAddr, ContestedExport> {
    let mut contested = BTreeMap::new();
    let same_name = |sibling: &&Sibling| registry.registry_name.as_ref() == Some(&sibling.accepted.name);
    for sibling in others.iter().filter(|sibling| sibling.exports_to(registry)).filter(same_name) {
        for addr in sibling.accepted.reach(&sibling.facts, sibling.facts.registry.as_ref()).ports.into_keys() {
            let contest = contested.entry(addr).or_insert(ContestedExport::Follows);
            if sibling.precedence.precedes(precedence) {
                *contest = ContestedExport::Precedes;
            }
        }
    }
    contested
}

/// Own records under other names that the sibling of that name adopts.
fn adopted_under_other_names(registry: &RegistryFacts, others: &[Sibling]) -> BTreeSet<RecordKey> {
    let mut adopted = BTreeSet::new();
    for sibling in others.iter().filter(|sibling| sibling.exports_to(registry)) {
        let exported = sibling.accepted.reach(&sibling.facts, sibling.facts.registry.as_ref()).ports;
        let name = sibling.accepted.name.as_str().as_bytes();
        for (key, record) in &registry.snapshot.under_other_names {
            let of_name = registry.layout.split_key(key).is_some_and(|(other, _)| other == name);
            if of_name && record.endpoint_addresses().any(|addr| exported.contains_key(&addr)) {
                adopted.insert(key.clone());
            }
        }
    }
    adopted
}

/// Healed records of ours that a sibling adopts, and those of others that we adopt. If the RegisteredService that put a
/// registration back no longer imports it, the first one that imports and heals adopts it.
fn healed(
    registry: &RegistryFacts,
    ourselves: Option<(&Precedence, &Accepted)>,
    others: &[Sibling],
) -> (BTreeSet<RecordKey>, BTreeSet<RecordKey>) {
    let (mut to_release, mut to_adopt) = (BTreeSet::new(), BTreeSet::new());
    for (key, record) in registry.snapshot.records.iter().chain(&registry.snapshot.under_other_names) {
        let Kind::Healed(owner) = record.kind(&registry.owner.cluster_id) else { continue };
        let Some((name, _)) = registry.layout.split_key(key) else { continue };
        let siblings = others.iter().filter(|sibling| sibling.heals(registry, name));
        let we =
            ourselves.filter(|(_, accepted)| heals(accepted, name)).map(|(ours, _)| (ours, &registry.owner.service));
        let adopters: Vec<(&Precedence, &ServiceKey)> =
            siblings.map(|sibling| (&sibling.precedence, &sibling.facts.key)).chain(we).collect();
        let stays = adopters.iter().any(|(_, adopter)| **adopter == owner.service);
        if owner.cluster_id != registry.owner.cluster_id || stays {
            continue;
        }
        match adopters.into_iter().min() {
            Some((_, adopter)) if *adopter == registry.owner.service => to_adopt.insert(key.clone()),
            Some(_) if *owner == registry.owner => to_release.insert(key.clone()),
            _ => false,
        };
    }
    (to_release, to_adopt)
}

/// The names of the Services into which a RegisteredService imports: one that is gone has slices alone.
fn import_services(facts: &Facts) -> BTreeSet<&str> {
    match &facts.cluster.import_service {
        Some(service) => [service.name.as_str()].into(),
        None => facts.cluster.our_slices.iter().filter_map(|slice| slice.service.as_deref()).collect(),
    }
}

/// The addresses that siblings import into the same Service.
fn contested_imports(
    facts: &Facts,
    precedence: &Precedence,
    others: &[Sibling],
    now: Timestamp,
) -> BTreeMap<InstanceAddr, ContestedImport> {
    let mut contested: BTreeMap<InstanceAddr, ContestedImport> = BTreeMap::new();
    let services = import_services(facts);
    for sibling in others.iter().filter(|sibling| sibling.facts.key.namespace == facts.key.namespace) {
        let service = sibling.facts.cluster.import_service.as_ref().map(|service| service.name.as_str());
        let same = service.is_some_and(|service| services.contains(service));
        let (true, Some(registry)) = (same && sibling.accepted.imports, sibling.facts.fresh_registry()) else {
            continue;
        };
        let in_service = sibling.facts.cluster.our_slices.iter().map(AsRef::as_ref);
        let in_service: Vec<&Slice> = in_service.filter(|slice: &&Slice| slice.service.as_deref() == service).collect();
        let held = slices::present(&in_service, &[], "");
        for addr in sibling.uncontested_imports(registry, now) {
            let contest = contested.entry(addr).or_insert(ContestedImport { precedes: false, holds: false });
            contest.precedes |= sibling.precedence.precedes(precedence);
            // The endpoint cannot vanish while any slice of the Service holds it.
            contest.holds |= held.contains_key(&addr);
        }
    }
    contested
}

impl Sibling {
    /// The endpoints that the sibling would import if it were alone.
    fn uncontested_imports(&self, registry: &RegistryFacts, now: Timestamp) -> impl Iterator<Item = InstanceAddr> {
        let alone = Siblings::default();
        let pass = Pass { facts: &self.facts, siblings: &alone, checkpoint: &self.checkpoint, now, triggered: now };
        let pods = pods::of(&pass, &self.accepted, &self.accepted.ready(&self.facts));
        let (present, source) = (present(&self.facts, &self.accepted), self.accepted.source(&registry.name));
        let goal = ImportGoal::of(&self.accepted, &present, source);
        pass.import(registry, &goal, pods, import::uncontested).endpoints.into_keys()
    }
}
