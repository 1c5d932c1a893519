//! The Service that a RegisteredService stands for.
//!
//! Owns what the Service has to have for a spec, its ports above all, and whether it is created or follows the spec.
//! Refuses to know the registry, which [`super::validate`] judges before.

use twinspan_core::codec::Format;
use twinspan_core::model::{Family, NewService, ServiceKey, ServicePortView, ServiceView};
use twinspan_core::plan::service::{Accepted, AcceptedPort, ips_of};

use super::import_service;
use super::observe::Observed;
use super::rejection::{Check, Consequence, Rejection, reject, reject_and_withdraw};
use crate::api::conditions::Reason;
use crate::api::discovered::{DISCOVERED_BY, discovered_by};
use crate::api::{CreateService, Direction, ExportAddress, IpFamilyPolicy, RegisteredService};

/// Completes the settings with the Service, or with the Service that is to be created.
///
/// # Errors
/// The Service cannot be used, or lacks what the spec names.
pub(super) fn accept(
    observed: &Observed,
    object: &RegisteredService,
    format: Format,
    mut accepted: Accepted,
) -> Check<Accepted> {
    let wanted = wanted_service(object, &accepted.service);
    match &observed.facts.cluster.service {
        Some(found) if found.external_name => reject_and_withdraw(
            Reason::ExternalName,
            format!("Service {} is an ExternalName, which has no endpoints; use another Service", accepted.service),
        ),
        // A stranger who registers a name must not reach into a Service that somebody made for other clients.
        Some(found) if is_discovered_import(object) && found.owner_uid.is_none() => reject_and_withdraw(
            Reason::NameTaken,
            format!(
                "Service {} is there and not Twinspan's, and discovery imports into none of others; rename it, or remove \
                 the label {DISCOVERED_BY} to import into it",
                accepted.service
            ),
        ),
        Some(found) if !found.deleting => {
            accepted.families = match object.spec.export.ip_family_policy {
                IpFamilyPolicy::Primary => found.families.first().copied().into_iter().collect(),
                IpFamilyPolicy::All => vec![Family::V4, Family::V6],
            };
            accepted.families.retain(|family| *family != Family::V6 || format.bears_ipv6());
            let ours = found.owner_uid.as_deref() == Some(observed.facts.uid.as_str());
            let adopt = |wanted: &NewService| wanted.headless == found.headless && observed.adopts(found);
            if let Some(wanted) = wanted.filter(|wanted| ours || adopt(wanted)) {
                return Ok(follow_created(Accepted { adopt: !ours, ..accepted }, found, wanted));
            }
            let found = ports(object, found, &accepted.service)?;
            let schemes = accepted.import.schemes.iter().cloned();
            accepted.ports =
                found.into_iter().zip(schemes).map(|(port, scheme)| AcceptedPort { port, scheme }).collect();
            node_port(observed, object, &accepted)?;
            import_service::accept(observed, accepted).or_else(|(reason, message)| reject(reason, message))
        }
        _ if wanted.is_some() => {
            accepted.create = wanted;
            Ok(accepted)
        }
        _ => Err(Rejection {
            reason: Reason::ServiceMissing,
            message: format!("there is no Service {}; create it, or set spec.service.create", accepted.service),
            consequence: Consequence::WithdrawGuarded(accepted.limits),
        }),
    }
}

/// Whether discovery made it for a name, whose Service has to be its own too.
fn is_discovered_import(object: &RegisteredService) -> bool {
    discovered_by(object).is_some() && object.spec.direction == Direction::Import
}

/// Rejects addresses of Nodes where no port of a Node leads to the Service.
fn node_port(observed: &Observed, object: &RegisteredService, accepted: &Accepted) -> Check<()> {
    if object.spec.export.address != ExportAddress::Node || !accepted.exports {
        return Ok(());
    }
    let cluster = &observed.facts.cluster;
    let has_host_port = || {
        let ips = ips_of(&cluster.others_slices);
        let mut pods = ips.iter().filter_map(|ip| cluster.pods.get(ip)).flatten();
        pods.any(|pod| pod.host_network || pod.host_ports.is_some())
    };
    if accepted.ports.iter().any(|accepted| accepted.port.node_port.is_some()) || has_host_port() {
        return Ok(());
    }
    let message = format!(
        "spec.export.address is Node, and no port of a Node leads to Service {}; make it a Service of type NodePort or \
         LoadBalancer, give its containers a hostPort, or export Pod",
        accepted.service
    );
    reject(Reason::NoNodePort, message)
}

/// The Service to create if it is missing; `None` with `create: Never`.
fn wanted_service(object: &RegisteredService, key: &ServiceKey) -> Option<NewService> {
    let service = &object.spec.service;
    let ports = service.ports.iter().filter_map(|p| Some((p.name.clone(), p.number?))).collect();
    let headless = service.create == CreateService::Headless;
    (service.create != CreateService::Never).then(|| NewService { key: key.clone(), headless, ports, family: None })
}

/// A Service that we created follows the spec. One that must become headless, or stop being headless, has to be
/// recreated (`spec.clusterIP` is immutable), so nothing is imported into it any more.
fn follow_created(mut accepted: Accepted, found: &ServiceView, wanted: NewService) -> Accepted {
    if found.headless != wanted.headless {
        return accepted;
    }
    let ports = found.ports.iter().map(|port| (port.name.clone(), port.number));
    let port = |(name, number): &(String, i32)| ServicePortView {
        name: name.clone(),
        number: *number,
        node_port: None,
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

fn ports(object: &RegisteredService, service: &ServiceView, key: &ServiceKey) -> Check<Vec<ServicePortView>> {
    let wanted = &object.spec.service.ports;
    if !wanted.is_empty() {
        return wanted.iter().map(|wanted| port(&wanted.name, service, key)).collect();
    }
    let tcp: Vec<&ServicePortView> = service.ports.iter().filter(|port| port.tcp).collect();
    match tcp.as_slice() {
        [only] => Ok(vec![(*only).clone()]),
        [] => reject(Reason::PortNotFound, format!("Service {key} has no TCP port")),
        _ => reject(
            Reason::PortAmbiguous,
            format!("Service {key} has several ports ({}); name one in spec.service.ports", names(&service.ports)),
        ),
    }
}

fn port(name: &str, service: &ServiceView, key: &ServiceKey) -> Check<ServicePortView> {
    match service.ports.iter().find(|port| port.name == name) {
        Some(port) if port.tcp => Ok(port.clone()),
        Some(_) => reject(Reason::PortNotFound, format!("port {name} of Service {key} is not TCP")),
        None => {
            reject(Reason::PortNotFound, format!("Service {key} has no port {name}; it has {}", names(&service.ports)))
        }
    }
}

fn names(ports: &[ServicePortView]) -> String {
    let names: Vec<&str> =
        ports.iter().map(|port| if port.name.is_empty() { "(unnamed)" } else { port.name.as_str() }).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
