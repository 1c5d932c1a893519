//! Whether a RegisteredService may be acted upon, and the settings that follow from its spec.
//!
//! Owns the reasons of the `Accepted` condition, and what a refusal means for what is already there: where it is certain that
//! nothing belongs there (the Service or the registry is gone, the name is not allowed) it is withdrawn; where the spec only
//! cannot be understood, nothing is touched, because nothing says that the instances ended.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use twinspan_core::codec::Format;
use twinspan_core::model::{Family, InstanceAddr, PortSet, RegistryName, Selector, ServiceKey};
use twinspan_core::plan::departures;
use twinspan_core::plan::guard::Limits;
use twinspan_core::plan::import::Options;
use twinspan_core::plan::trust;

use super::endpoints::ready_endpoints;
use super::observe::Observed;
use crate::api::conditions::Reason;
use crate::api::{
    AllowedUse, CreateService, DeletionGuard, Direction, Export, IpFamilyPolicy, OnExpiry, OtherClusters, Policy,
    PortRef, RegisteredService, ServiceRegistry,
};
use crate::cluster::convert::{ServicePortView, ServiceView};
use crate::cluster::index;
use crate::cluster::write::NewService;
use crate::controllers::registries::settings;

/// What the pass may do.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Sync as the settings say.
    Accepted(Box<Accepted>),
    /// Nothing may be done, or only what is there may be withdrawn.
    Refused(Refusal),
    /// There is no RegisteredService: withdraw what it left behind.
    Gone { dry_run: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub name: RegistryName,
    pub service: ServiceKey,
    pub direction: Direction,
    /// The ports of the Service that are meant, with the scheme of each; none while the Service does not exist.
    pub ports: Vec<AcceptedPort>,
    pub families: Vec<Family>,
    pub weight: i64,
    pub tags: BTreeMap<String, String>,
    /// Labels of a pod and the tags that they become.
    pub tags_from_labels: Vec<(String, String)>,
    pub import: Options,
    pub limits: Limits,
    pub policy: trust::Policy,
    /// A Service to be created first.
    pub create: Option<NewService>,
    /// A Service that we created and that should have other ports.
    pub amend: Option<NewService>,
    pub writes: bool,
}

/// A port of the Service, and what stands for it in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedPort {
    pub port: ServicePortView,
    /// Empty where the format has no schemes.
    pub scheme: String,
}

impl Accepted {
    /// Endpoints of the cluster that may be exported, with the ports that they serve.
    pub fn ready(&self, observed: &Observed) -> BTreeMap<InstanceAddr, PortSet> {
        let selector = observed.service.as_ref().is_some_and(|service| service.selector);
        let mut ready: BTreeMap<InstanceAddr, PortSet> = BTreeMap::new();
        for (place, accepted) in self.ports.iter().enumerate() {
            for addr in ready_endpoints(&observed.others_slices, &accepted.port.name, &self.families, selector) {
                ready.entry(addr).or_default().insert(PortSet::of(place));
            }
        }
        ready
    }

    /// Of which registry and name, as slices tell it.
    pub fn source(&self, registry: &str) -> String {
        format!("{registry}/{}", self.name)
    }
}

/// Why not, for the `Accepted` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
    /// Whether what is already there is withdrawn.
    pub withdraw: bool,
    /// Where what shows it may be no more than a list that lacks something: the limits within which it is withdrawn.
    pub guarded: Option<Limits>,
    pub writes: bool,
}

impl Verdict {
    /// Whether the pass may write.
    pub fn writes(&self) -> bool {
        match self {
            Self::Accepted(accepted) => accepted.writes,
            Self::Refused(refusal) => refusal.withdraw && refusal.writes,
            Self::Gone { dry_run } => !dry_run,
        }
    }
}

type Check<T> = Result<T, Refusal>;

fn refuse<T>(reason: Reason, withdraw: bool, message: impl Into<String>) -> Check<T> {
    Err(Refusal { reason, message: message.into(), withdraw, guarded: None, writes: true })
}

pub fn validate(observed: &Observed, dry_run: bool) -> Verdict {
    let Some(object) = &observed.object else { return Verdict::Gone { dry_run } };
    // What is written stays alive, and nothing else is written.
    let writes = !dry_run && !object.spec.suspend && object.spec.policy == Policy::Sync;
    match accept(observed, object) {
        Ok(accepted) => Verdict::Accepted(Box::new(Accepted { writes, ..accepted })),
        Err(refusal) => Verdict::Refused(Refusal { writes, ..refusal }),
    }
}

fn accept(observed: &Observed, object: &RegisteredService) -> Check<Accepted> {
    if observed.namespace.as_ref().is_some_and(|namespace| namespace.deleting) {
        return refuse(
            Reason::NamespaceTerminating,
            true,
            "the namespace is being deleted; nothing more is written to it",
        );
    }
    let name = match RegistryName::new(index::registry_name(&observed.key, object)) {
        Ok(name) => name,
        Err(error) => return refuse(Reason::InvalidName, false, format!("{error}; set spec.registryName")),
    };
    let registry = &object.spec.registry_ref.name;
    let Some(registry_object) = &observed.registry else {
        return refuse(
            Reason::RegistryNotFound,
            true,
            format!("there is no ServiceRegistry {registry}; create it or correct spec.registryRef"),
        );
    };
    let format = settings::format(registry_object.spec.format);
    carried(object, format)?;
    if format == Format::Hertz && name.as_str().bytes().any(|b| b.is_ascii_uppercase()) {
        let message =
            format!("Hertz clients look for lower-case names only, and would never find {name}; set spec.registryName");
        return refuse(Reason::InvalidName, false, message);
    }
    allowed(observed, registry_object, &name)?;
    let service = index::service_key(&observed.key, object);
    let spec = &object.spec;
    let mut accepted = Accepted {
        name,
        direction: spec.direction,
        ports: Vec::new(),
        families: Vec::new(),
        weight: spec.export.weight.into(),
        tags: spec.export.tags.clone(),
        tags_from_labels: spec.export.tags_from_pod_labels.iter().map(|t| (t.label.clone(), t.tag.clone())).collect(),
        import: Options {
            schemes: schemes(&spec.service.ports, format),
            other_clusters: spec.import.other_clusters == OtherClusters::All,
            tag_selector: Selector::from(&spec.import.tag_selector),
            zone_tag: spec.import.zone_tag.clone(),
            on_expiry: match spec.import.on_expiry {
                OnExpiry::Remove => departures::OnExpiry::Remove,
                OnExpiry::Probe => departures::OnExpiry::Probe,
                OnExpiry::Heal => departures::OnExpiry::Heal,
            },
            keep_lost: SignedDuration::from_secs(spec.import.keep_lost_seconds.into()),
        },
        limits: limits(&spec.deletion_guard),
        policy: settings::trust_policy(&registry_object.spec.import_policy),
        create: None,
        amend: None,
        writes: true,
        service,
    };
    let wanted = wanted_service(object, &accepted.service);
    match &observed.service {
        Some(found) if found.external_name => refuse(
            Reason::ExternalName,
            true,
            format!("Service {} is an ExternalName, which has no endpoints; use another Service", accepted.service),
        ),
        Some(found) if !found.deleting => {
            accepted.families = match spec.export.ip_family_policy {
                IpFamilyPolicy::Primary => found.families.first().copied().into_iter().collect(),
                IpFamilyPolicy::All => vec![Family::V4, Family::V6],
            };
            if let Some(wanted) = wanted.filter(|_| found.owner_uid.as_deref() == Some(observed.uid())) {
                return Ok(follow_created(accepted, found, wanted));
            }
            let found = ports(object, found, &accepted.service)?;
            let schemes = accepted.import.schemes.iter().cloned();
            accepted.ports =
                found.into_iter().zip(schemes).map(|(port, scheme)| AcceptedPort { port, scheme }).collect();
            Ok(accepted)
        }
        _ if wanted.is_some() => {
            accepted.create = wanted;
            Ok(accepted)
        }
        _ => Err(Refusal {
            reason: Reason::ServiceMissing,
            message: format!("there is no Service {}; create it, or set spec.service.create", accepted.service),
            withdraw: true,
            guarded: Some(accepted.limits),
            writes: true,
        }),
    }
}

fn limits(guard: &DeletionGuard) -> Limits {
    Limits {
        min_instances: usize::try_from(guard.min_instances).unwrap_or_default(),
        max_delete_percent: usize::try_from(guard.max_delete_percent).unwrap_or_default(),
        hold: SignedDuration::from_secs(guard.hold_seconds.into()),
    }
}

/// The Service that is created where it is missing, where one is.
fn wanted_service(object: &RegisteredService, key: &ServiceKey) -> Option<NewService> {
    let service = &object.spec.service;
    let ports = service.ports.iter().filter_map(|p| Some((p.name.clone(), p.number?))).collect();
    let headless = service.create == CreateService::Headless;
    (service.create != CreateService::Never).then(|| NewService { key: key.clone(), headless, ports })
}

/// A Service that we created follows the spec. One that should become headless, or stop being it, has to be made anew
/// (`spec.clusterIP` is immutable), so nothing is imported into it any more.
fn follow_created(mut accepted: Accepted, found: &ServiceView, wanted: NewService) -> Accepted {
    if found.headless != wanted.headless {
        return accepted;
    }
    let ports = found.ports.iter().map(|port| (port.name.clone(), port.number));
    let port = |(name, number): &(String, i32)| ServicePortView {
        name: name.clone(),
        number: *number,
        tcp: true,
        app_protocol: None,
    };
    let schemes = accepted.import.schemes.iter().cloned();
    accepted.ports =
        wanted.ports.iter().map(port).zip(schemes).map(|(port, scheme)| AcceptedPort { port, scheme }).collect();
    if !ports.eq(wanted.ports.iter().cloned()) {
        accepted.amend = Some(wanted);
    }
    accepted
}

/// The scheme of each port; at least one.
pub fn schemes(ports: &[PortRef], format: Format) -> Vec<String> {
    let scheme = |port: &PortRef| port.scheme.clone().unwrap_or_else(|| format.default_scheme().to_owned());
    if ports.is_empty() { vec![format.default_scheme().to_owned()] } else { ports.iter().map(scheme).collect() }
}

/// What the format has no place for is refused, never ignored.
fn carried(object: &RegisteredService, format: Format) -> Check<()> {
    let (spec, name) = (&object.spec, format.as_str());
    let refuse = |what: String| refuse(Reason::NotSupported, false, what);
    if !format.has_schemes() {
        if spec.service.ports.len() > 1 {
            return refuse(format!("{name} records have one address; name one of spec.service.ports"));
        }
        if spec.service.ports.iter().any(|port| port.scheme.is_some()) {
            return refuse(format!("{name} addresses have no scheme; remove spec.service.ports[].scheme"));
        }
    }
    let schemes = schemes(&spec.service.ports, format);
    let distinct: BTreeSet<&String> = schemes.iter().collect();
    if distinct.len() < schemes.len() {
        let message =
            "spec.service.ports: give each port a scheme of its own; clients take the first address with theirs";
        return refuse(message.to_owned());
    }
    if format.has_tags() {
        return Ok(());
    }
    let (export, default) = (&spec.export, Export::default());
    if !export.tags.is_empty() || !export.tags_from_pod_labels.is_empty() {
        return refuse(format!("{name} records have no tags; remove spec.export.tags and tagsFromPodLabels"));
    }
    if export.weight != default.weight {
        return refuse(format!("{name} records have no weight; remove spec.export.weight"));
    }
    if spec.import.on_expiry == OnExpiry::Heal {
        let why = "have no place for the marks of a registration that was put back";
        return refuse(format!("{name} records {why}; use spec.import.onExpiry Probe"));
    }
    Ok(())
}

fn allowed(observed: &Observed, registry: &ServiceRegistry, name: &RegistryName) -> Check<()> {
    // A namespace that we do not know has no labels.
    let none = BTreeMap::new();
    let labels = observed.namespace.as_ref().map_or(&none, |namespace| &namespace.labels);
    let gives = |allowed: &AllowedUse| {
        Selector::from(&allowed.namespace_selector).matches(labels)
            && allowed.registry_names.iter().any(|pattern| matches_wildcard(pattern, name.as_str()))
    };
    if registry.spec.allowed.iter().any(gives) {
        return Ok(());
    }
    let registry = registry.metadata.name.as_deref().unwrap_or_default();
    refuse(
        Reason::NotAllowed,
        true,
        format!(
            "ServiceRegistry {registry} does not allow namespace {} the name {name}; its administrator grants it in spec.allowed",
            observed.key.namespace
        ),
    )
}

/// `*` stands for any characters, none included.
fn matches_wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

fn ports(object: &RegisteredService, service: &ServiceView, key: &ServiceKey) -> Check<Vec<ServicePortView>> {
    let wanted = &object.spec.service.ports;
    if !wanted.is_empty() {
        return wanted.iter().map(|wanted| port(&wanted.name, service, key)).collect();
    }
    let tcp: Vec<&ServicePortView> = service.ports.iter().filter(|port| port.tcp).collect();
    match tcp.as_slice() {
        [only] => Ok(vec![(*only).clone()]),
        [] => refuse(Reason::PortNotFound, false, format!("Service {key} has no TCP port")),
        _ => refuse(
            Reason::PortAmbiguous,
            false,
            format!("Service {key} has several ports ({}); name one in spec.service.ports", names(&service.ports)),
        ),
    }
}

fn port(name: &str, service: &ServiceView, key: &ServiceKey) -> Check<ServicePortView> {
    match service.ports.iter().find(|port| port.name == name) {
        Some(port) if port.tcp => Ok(port.clone()),
        Some(_) => refuse(Reason::PortNotFound, false, format!("port {name} of Service {key} is not TCP")),
        None => refuse(
            Reason::PortNotFound,
            false,
            format!("Service {key} has no port {name}; it has {}", names(&service.ports)),
        ),
    }
}

fn names(ports: &[ServicePortView]) -> String {
    let names: Vec<&str> =
        ports.iter().map(|port| if port.name.is_empty() { "(unnamed)" } else { port.name.as_str() }).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
