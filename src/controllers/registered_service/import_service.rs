//! The Service of imports, where it is another one than that of the pods.
//!
//! Owns its shape: the ports of the Service that the RegisteredService stands for, and headless if that one is when
//! it is created.
//! Refuses to know the spec, of which [`super::validate`] has made settings before.

use twinspan_core::model::NewService;
use twinspan_core::plan::service::Accepted;

use super::observe::Observed;
use crate::api::conditions::Reason;

/// Completes the settings with this Service, or with the order to create it.
///
/// # Errors
/// The reason why nothing can be imported into it, and the words for it.
pub(super) fn accept(observed: &Observed, mut accepted: Accepted) -> Result<Accepted, (Reason, String)> {
    if !accepted.has_import_service() {
        return Ok(accepted);
    }
    let cluster = &observed.facts.cluster;
    let wanted = NewService {
        key: accepted.import_service.clone(),
        headless: cluster.service.as_ref().is_some_and(|service| service.headless),
        ports: accepted.ports.iter().map(|chosen| (chosen.port.name.clone(), chosen.port.number)).collect(),
        // One slice holds all endpoints only where they have one family.
        family: cluster.service.as_ref().filter(|_| observed.facts.mirrors()).and_then(|s| s.families.first().copied()),
    };
    let Some(found) = cluster.import_service.as_ref().filter(|found| !found.deleting) else {
        accepted.create = Some(wanted);
        return Ok(accepted);
    };
    let key = &wanted.key;
    if found.external_name {
        let message = format!(
            "Service {key} is an ExternalName, which has no endpoints; name another in spec.import.serviceName"
        );
        return Err((Reason::ExternalName, message));
    }
    if found.selector {
        let message = format!(
            "Service {key} selects pods, so it cannot be one of imports; name another in spec.import.serviceName"
        );
        return Err((Reason::NotSupported, message));
    }
    accepted.adopt = found.headless == wanted.headless && observed.adopts(found);
    if accepted.adopt || found.owner_uid.as_deref() == Some(observed.facts.uid.as_str()) {
        let ports = found.ports.iter().map(|port| (port.name.clone(), port.number));
        accepted.amend = (!ports.eq(wanted.ports.iter().cloned())).then_some(wanted);
        return Ok(accepted);
    }
    // Somebody else made it, and nobody but them changes it.
    let lacks = |(name, _): &&(String, i32)| !found.ports.iter().any(|port| port.tcp && port.name == *name);
    match wanted.ports.iter().find(lacks) {
        Some((name, _)) => {
            let message = format!("Service {key} has no TCP port {name:?}, which {} has; add it", accepted.service);
            Err((Reason::PortNotFound, message))
        }
        None => Ok(accepted),
    }
}
