//! Validation: the goal of a pass, from the spec and the objects that it names.
//!
//! Owns the order of the checks, and the goal that a rejection leads to for existing records and slices.
//! Records are withdrawn if it is certain that nothing belongs there (the Service or the registry is gone), and even
//! where the spec forbids to write if the name is not allowed, which is judged first. If only the spec cannot be
//! carried out, nothing is added and what ended is removed (`docs/decisions/0034`). Refuses to plan.

use std::collections::{BTreeMap, BTreeSet};

use twinspan_core::codec::Format;
use twinspan_core::model::{RegistryName, Selector, matches_wildcard};
use twinspan_core::plan::departure::guard::Limits;
use twinspan_core::plan::service::{
    Accepted, FormerGoals, Goal, Place, Reduced, RegistryFacts, outer_addresses, ready_addresses,
};
use twinspan_core::plan::trust;

use super::crowd::MOST;
use super::observe::Observed;
use super::rejection::{Check, Consequence, Rejection, reject, reject_and_withdraw};
use super::target_service;
use crate::api::conditions::Reason;
use crate::api::{
    AllowedUse, CreateService, Export, ExportAddress, Import, ImportInto, OnExpiry, Policy, RegisteredService,
    ServiceRegistry,
};

/// The goal, and the reason for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    pub goal: Goal,
    /// Whether the spec lets the pass write; a dry run writes nothing all the same.
    pub writes: bool,
    /// The reason why the RegisteredService cannot be acted upon.
    pub rejection: Option<Rejection>,
    /// Whether the RegisteredService was deleted.
    pub gone: bool,
    /// The goal in each place that it referred to before; nothing stays in any other.
    pub former: FormerGoals,
}

impl Validation {
    /// The settings in force, if the pass may write.
    pub fn accepted(&self) -> Option<&Accepted> {
        self.goal.accepted().filter(|_| self.writes)
    }

    /// Whether all records and slices are withdrawn.
    pub fn withdraws(&self) -> bool {
        let goes_on = self.former.values().any(|goal| matches!(goal, Goal::Sync(_)));
        matches!(self.goal, Goal::Withdraw { .. } | Goal::Revoke) && !goes_on
    }
}

pub fn validate(observed: &Observed) -> Validation {
    if observed.is_gone() {
        let goal = Goal::Withdraw { guarded: None };
        return Validation { goal, writes: true, rejection: None, gone: true, former: FormerGoals::new() };
    }
    // Without `writes`, leases of existing records are still kept alive, and nothing else is written.
    let writes = observed.object.as_ref().is_none_or(|o| !o.spec.suspend && o.spec.policy == Policy::Sync);
    let former = former(observed);
    match accept(observed) {
        Ok(accepted) => {
            Validation { goal: Goal::Sync(Box::new(accepted)), writes, rejection: None, gone: false, former }
        }
        Err(rejection) => {
            let goal = rejection.goal(observed, observed.registry.as_deref());
            Validation { goal, writes, rejection: Some(rejection), gone: false, former }
        }
    }
}

impl Rejection {
    fn goal(&self, observed: &Observed, registry: Option<&ServiceRegistry>) -> Goal {
        match self.consequence {
            Consequence::Reduce => Goal::Reduce(Box::new(reduced(observed, registry))),
            Consequence::Withdraw => Goal::Withdraw { guarded: None },
            Consequence::Revoke => Goal::Revoke,
            Consequence::WithdrawGuarded(limits) => Goal::Withdraw { guarded: Some(limits) },
        }
    }
}

/// The settings of a spec that cannot be carried out, as far as they are known.
fn reduced(observed: &Observed, registry: Option<&ServiceRegistry>) -> Reduced {
    let object = observed.object.as_deref();
    let cluster = &observed.facts.cluster;
    let selector = cluster.service.as_ref().is_some_and(|service| service.selector);
    let import =
        object.zip(registry).map(|(object, registry)| object.import_options(Format::from(registry.spec.format)));
    let guard = object.map(|object| object.spec.deletion_guard.clone()).unwrap_or_default();
    let policy = registry.or_else(|| observed.former_registries.values().next().map(AsRef::as_ref));
    Reduced {
        import: import.unwrap_or_else(|| Import::default().options(vec![String::new()])),
        limits: Limits::from(&guard),
        policy: policy.map(|registry| trust::Policy::from(&registry.spec.import_policy)).unwrap_or_default(),
        gated: observed.facts.gated_addresses(),
        ready: if object.is_some() {
            let mut ready = ready_addresses(&cluster.others_slices, selector);
            ready.extend(outer_addresses(&observed.facts));
            ready
        } else {
            observed.ready_in_namespace.clone()
        },
    }
}

/// The goal in each former place: what the spec would be there, so that a move puts before it withdraws.
fn former(observed: &Observed) -> FormerGoals {
    let goal = |place: &Place, name: &RegistryName| {
        let found = observed.former_registries.get(&place.registry);
        let Some(found) = found else { return Goal::Withdraw { guarded: None } };
        match accept_in(observed, found, name.clone()) {
            // The ServiceRegistry never served it, as far as is known, and does not begin to.
            Ok(_) if observed.unclaimed.contains(place) && observed.registry.is_none() => {
                Goal::Withdraw { guarded: None }
            }
            Ok(_) if observed.unclaimed.contains(place) => Goal::Reduce(Box::new(reduced(observed, Some(found)))),
            Ok(accepted) => Goal::Sync(Box::new(accepted)),
            Err(rejection) => rejection.goal(observed, Some(found)),
        }
    };
    let places = observed.facts.former.iter().map(RegistryFacts::place);
    places.filter_map(|place| Some((place.clone(), goal(&place, place.name.as_ref()?)))).collect()
}

fn accept(observed: &Observed) -> Check<Accepted> {
    let object = read(observed)?;
    let name = RegistryName::new(object.registry_name());
    if let (Ok(name), Some(registry)) = (&name, &observed.registry) {
        allowed(observed, registry, name)?;
    }
    namespace_stays(observed)?;
    let name = match name {
        Ok(name) => name,
        Err(error) => return reject(Reason::InvalidName, format!("{error}; set spec.registryName")),
    };
    let registry = &object.spec.registry_ref.name;
    let Some(found) = observed.registry.as_deref() else {
        return reject_and_withdraw(
            Reason::RegistryNotFound,
            format!("there is no ServiceRegistry {registry}; create it or correct spec.registryRef"),
        );
    };
    let accepted = accept_in(observed, found, name)?;
    if let Some(older) = &observed.taken_by {
        let name = &accepted.name;
        let message = format!(
            "ServiceRegistry {older} has the same etcd as {registry}, is older, and serves the name {name} there; set \
             spec.registryName, or refer to {older}"
        );
        return reject(Reason::Conflict, message);
    }
    if observed.crowded_out {
        let message = format!(
            "{MOST} RegisteredServices that precede it have the name {} in ServiceRegistry {registry}, and no more may share one; set \
             spec.registryName, or delete some of them",
            accepted.name
        );
        return reject(Reason::Conflict, message);
    }
    Ok(accepted)
}

/// The object, as far as it can be read.
fn read(observed: &Observed) -> Check<&RegisteredService> {
    match (&observed.object, &observed.unreadable) {
        (Some(object), _) => Ok(object),
        (None, Some(unreadable)) => reject(Reason::NotSupported, unreadable.message()),
        (None, None) => reject(Reason::NotSupported, "the RegisteredService is gone"),
    }
}

fn namespace_stays(observed: &Observed) -> Check<()> {
    if observed.namespace.as_ref().is_some_and(|namespace| namespace.deleting) {
        return reject_and_withdraw(
            Reason::NamespaceTerminating,
            "the namespace is being deleted; nothing more is written to it",
        );
    }
    Ok(())
}

/// The settings in one place: the registry has to allow the name and to carry the spec. Whether it allows the name is
/// judged first, so that nothing in the spec, which is the tenant's, keeps a name that the administrator took back.
fn accept_in(observed: &Observed, registry: &ServiceRegistry, name: RegistryName) -> Check<Accepted> {
    allowed(observed, registry, &name)?;
    namespace_stays(observed)?;
    let registry_name = registry.metadata.name.as_deref().unwrap_or_default();
    if let Some(unreadable) = observed.unreadable_registries.get(registry_name) {
        return reject(Reason::NotSupported, format!("ServiceRegistry {registry_name}: {}", unreadable.message()));
    }
    let object = read(observed)?;
    if let Some(unreadable) = &observed.unreadable {
        return reject(Reason::NotSupported, unreadable.message());
    }
    let (format, spec) = (Format::from(registry.spec.format), &object.spec);
    carried(object, format)?;
    if !observed.has_nodes && spec.export.address != ExportAddress::Pod {
        let message = "spec.export.address: in namespaced mode Twinspan does not look at Nodes, nor at what leads to them; use Pod";
        return reject(Reason::NotSupported, message);
    }
    if spec.import.into != ImportInto::Beside && spec.service.create != CreateService::Never {
        let message = "spec.import.into: a Service that Twinspan creates has imports alone anyway; use Beside";
        return reject(Reason::NotSupported, message);
    }
    if let Some(message) = format.framework().name_error(&name) {
        return reject(Reason::InvalidName, message);
    }
    let accepted = Accepted {
        name,
        service: object.service_key(),
        import_service: object.import_service_key(),
        exports: spec.direction.exports(),
        imports: spec.direction.imports(),
        ports: Vec::new(),
        families: Vec::new(),
        address: spec.export.choice(),
        weight: spec.export.weight.into(),
        share: spec.export.share.map(Into::into),
        tags: spec.export.tags.clone(),
        tags_from_labels: spec.export.tags_from_pod_labels.iter().map(|t| (t.label.clone(), t.tag.clone())).collect(),
        zone_tag: spec.export.zone_tag.clone(),
        import: object.import_options(format),
        limits: Limits::from(&spec.deletion_guard),
        policy: trust::Policy::from(&registry.spec.import_policy),
        create: None,
        amend: None,
        adopt: false,
    };
    target_service::accept(observed, object, format, accepted)
}

/// Rejects a setting that the format cannot carry, because no setting is ever ignored.
fn carried(object: &RegisteredService, format: Format) -> Check<()> {
    let (spec, name) = (&object.spec, format.as_str());
    let reject = |message: String| reject(Reason::NotSupported, message);
    if !format.has_schemes() {
        if spec.service.ports.len() > 1 {
            return reject(format!("{name} records have one address; name one of spec.service.ports"));
        }
        if spec.service.ports.iter().any(|port| port.scheme.is_some()) {
            return reject(format!("{name} addresses have no scheme; remove spec.service.ports[].scheme"));
        }
    }
    let schemes = object.schemes(format);
    let distinct: BTreeSet<&String> = schemes.iter().collect();
    if distinct.len() < schemes.len() {
        let message =
            "spec.service.ports: give each port a scheme of its own; clients take the first address with theirs";
        return reject(message.to_owned());
    }
    let (export, default) = (&spec.export, Export::default());
    if export.share.is_some() && !format.has_weights() {
        return reject(format!(
            "{name} clients call all instances alike, whatever their weight; remove spec.export.share"
        ));
    }
    if format.has_tags() {
        return Ok(());
    }
    if !export.tags.is_empty() || !export.tags_from_pod_labels.is_empty() || !export.zone_tag.is_empty() {
        return reject(format!("{name} records have no tags; remove spec.export.tags, tagsFromPodLabels and zoneTag"));
    }
    if export.weight != default.weight {
        return reject(format!("{name} records have no weight; remove spec.export.weight"));
    }
    if spec.import.on_expiry == OnExpiry::Heal {
        let why = "have no place for the marks of a restored registration";
        return reject(format!("{name} records {why}; use spec.import.onExpiry Probe"));
    }
    Ok(())
}

fn allowed(observed: &Observed, registry: &ServiceRegistry, name: &RegistryName) -> Check<()> {
    let registry_name = registry.metadata.name.as_deref().unwrap_or_default();
    let unreadable = observed.unreadable_registries.get(registry_name);
    if unreadable.is_some_and(|unreadable| !unreadable.has_read(&["allowed"])) {
        // Nobody knows whom it allows; that it cannot be read is a reason of its own.
        return Ok(());
    }
    // An unknown namespace has no labels.
    let none = BTreeMap::new();
    let labels = observed.namespace.as_ref().map_or(&none, |namespace| &namespace.labels);
    if is_allowed(registry, labels, name) {
        return Ok(());
    }
    let namespace = &observed.facts.key.namespace;
    let message = format!(
        "ServiceRegistry {registry_name} does not allow namespace {namespace} the name {name}; its administrator grants it \
         in spec.allowed"
    );
    Err(Rejection { reason: Reason::NotAllowed, message, consequence: Consequence::Revoke })
}

/// Whether a ServiceRegistry lets a namespace with these labels use the name.
pub fn is_allowed(registry: &ServiceRegistry, labels: &BTreeMap<String, String>, name: &RegistryName) -> bool {
    let gives = |allowed: &AllowedUse| {
        Selector::from(&allowed.namespace_selector).matches(|label| labels.get(label))
            && allowed.registry_names.iter().any(|pattern| matches_wildcard(pattern, name.as_str()))
    };
    registry.spec.allowed.iter().any(gives)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
