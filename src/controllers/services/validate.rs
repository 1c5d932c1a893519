//! Whether a RegisteredService may be acted upon, and the settings that follow from its spec.
//!
//! Owns the reasons of the `Accepted` condition, and what a refusal means for what is already there: where it is certain that
//! nothing belongs there (the Service or the registry is gone, the name is not allowed) it is withdrawn; where the spec only
//! cannot be understood, nothing is touched, because nothing says that the instances ended.

use std::collections::{BTreeMap, BTreeSet};

use twinspan_core::model::{Family, InstanceAddr, RegistryName, Selector, ServiceKey};
use twinspan_core::plan::import::Options;
use twinspan_core::plan::trust;

use super::endpoints::ready_endpoints;
use super::observe::Observed;
use crate::api::{
    AllowedUse, CreateService, DeletionGuard, Direction, Import, IpFamilyPolicy, OnExpiry, OtherClusters, Policy,
    RegisteredService, ServiceRegistry,
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
    /// The port of the Service; `None` while the Service does not exist.
    pub port: Option<ServicePortView>,
    pub families: Vec<Family>,
    pub weight: i64,
    pub tags: BTreeMap<String, String>,
    /// Labels of a pod and the tags that they become.
    pub tags_from_labels: Vec<(String, String)>,
    pub import: Options,
    pub policy: trust::Policy,
    /// A Service to be created first.
    pub create: Option<NewService>,
    /// A Service that we created and that should have other ports.
    pub amend: Option<NewService>,
    pub writes: bool,
}

impl Accepted {
    /// Endpoints of the cluster that may be exported.
    pub fn ready(&self, observed: &Observed) -> BTreeSet<InstanceAddr> {
        let selector = observed.service.as_ref().is_some_and(|service| service.selector);
        match &self.port {
            Some(port) => ready_endpoints(&observed.others_slices, &port.name, &self.families, selector),
            None => BTreeSet::new(),
        }
    }
}

/// Why not, for the `Accepted` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
    /// Whether what is already there is withdrawn.
    pub withdraw: bool,
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

fn refuse<T>(reason: &'static str, withdraw: bool, message: impl Into<String>) -> Check<T> {
    Err(Refusal { reason, message: message.into(), withdraw, writes: true })
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
    supported(object)?;
    if observed.namespace.as_ref().is_some_and(|namespace| namespace.deleting) {
        return refuse("NamespaceTerminating", true, "the namespace is being deleted; nothing more is written to it");
    }
    let name = match RegistryName::new(index::registry_name(&observed.key, object)) {
        Ok(name) => name,
        Err(error) => return refuse("InvalidName", false, format!("{error}; set spec.registryName")),
    };
    let registry = &object.spec.registry_ref.name;
    let Some(registry_object) = &observed.registry else {
        return refuse(
            "RegistryNotFound",
            true,
            format!("there is no ServiceRegistry {registry}; create it or correct spec.registryRef"),
        );
    };
    if let Err(problem) = settings::supported(registry_object) {
        return refuse("NotSupported", false, format!("ServiceRegistry {registry}: {}", problem.message));
    }
    allowed(observed, registry_object, &name)?;
    let service = index::service_key(&observed.key, object);
    let spec = &object.spec;
    let mut accepted = Accepted {
        name,
        direction: spec.direction,
        port: None,
        families: Vec::new(),
        weight: spec.export.weight.into(),
        tags: spec.export.tags.clone(),
        tags_from_labels: spec.export.tags_from_pod_labels.iter().map(|t| (t.label.clone(), t.tag.clone())).collect(),
        import: Options {
            other_clusters: spec.import.other_clusters == OtherClusters::All,
            tag_selector: Selector::from(&spec.import.tag_selector),
            zone_tag: spec.import.zone_tag.clone(),
        },
        policy: settings::trust_policy(&registry_object.spec.import_policy),
        create: None,
        amend: None,
        writes: true,
        service,
    };
    let wanted = wanted_service(object, &accepted.service);
    match &observed.service {
        Some(found) if found.external_name => refuse(
            "ExternalName",
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
            accepted.port = Some(port(object, found, &accepted.service)?);
            Ok(accepted)
        }
        _ if wanted.is_some() => {
            accepted.create = wanted;
            Ok(accepted)
        }
        _ => refuse(
            "ServiceMissing",
            true,
            format!("there is no Service {}; create it, or set spec.service.create", accepted.service),
        ),
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
    accepted.port = wanted.ports.first().map(|(name, number)| ServicePortView {
        name: name.clone(),
        number: *number,
        tcp: true,
        app_protocol: None,
    });
    if !ports.eq(wanted.ports.iter().cloned()) {
        accepted.amend = Some(wanted);
    }
    accepted
}

/// Fields whose behaviour is not built yet are refused, never ignored.
fn supported(object: &RegisteredService) -> Check<()> {
    let spec = &object.spec;
    let refuse =
        |what: &str| refuse("NotSupported", false, format!("{what} is not supported by this version; remove it"));
    if spec.service.ports.len() > 1 {
        return refuse("more than one of spec.service.ports");
    }
    if spec.service.ports.iter().any(|port| port.scheme.is_some()) {
        return refuse("spec.service.ports[].scheme");
    }
    let import = Import::default();
    if spec.import.on_expiry != OnExpiry::Probe {
        return refuse("spec.import.onExpiry other than its default");
    }
    if spec.import.keep_lost_seconds != import.keep_lost_seconds {
        return refuse("spec.import.keepLostSeconds other than its default");
    }
    if spec.deletion_guard != DeletionGuard::default() {
        return refuse("spec.deletionGuard other than its default");
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
        "NotAllowed",
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

fn port(object: &RegisteredService, service: &ServiceView, key: &ServiceKey) -> Check<ServicePortView> {
    let tcp: Vec<&ServicePortView> = service.ports.iter().filter(|port| port.tcp).collect();
    match object.spec.service.ports.first() {
        Some(wanted) => match service.ports.iter().find(|port| port.name == wanted.name) {
            Some(port) if port.tcp => Ok(port.clone()),
            Some(_) => refuse("PortNotFound", false, format!("port {} of Service {key} is not TCP", wanted.name)),
            None => refuse(
                "PortNotFound",
                false,
                format!("Service {key} has no port {}; it has {}", wanted.name, names(&service.ports)),
            ),
        },
        None => match tcp.as_slice() {
            [only] => Ok((*only).clone()),
            [] => refuse("PortNotFound", false, format!("Service {key} has no TCP port")),
            _ => refuse(
                "PortAmbiguous",
                false,
                format!("Service {key} has several ports ({}); name one in spec.service.ports", names(&service.ports)),
            ),
        },
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
