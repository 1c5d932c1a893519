//! The status of a ServiceRegistry: what its session knows, told to an administrator.

use std::sync::Arc;

use super::guards::Held;
use super::settings::Problem;
use crate::api::conditions::{CONNECTED, DELETIONS_HELD, READY, Reason, SYNCED};
use crate::api::{EtcdStatus, RecordCounts, ServiceRegistry, ServiceRegistryStatus};
use crate::cluster::events::{self, About};
use crate::cluster::{Result, write};
use crate::controllers::APPROVE_DELETIONS;
use crate::controllers::conditions::{self, Is, Wanted};
use crate::controllers::context::Context;
use crate::registry::RegistryError;
use crate::registry::handle::{Phase, RegistryHandle};
use crate::registry::view::Return;

/// Writes the status where it changed.
pub async fn report(
    context: &Context,
    name: &str,
    handle: Option<&RegistryHandle>,
    problem: Option<&Problem>,
) -> Result<Written> {
    if let Some(handle) = handle {
        measure(context, name, handle);
    }
    let Some(object) = context.cluster().service_registries.get(name).cloned() else { return Ok(Written::Nothing) };
    let known = object.status.clone().unwrap_or_default();
    release(context, name);
    let status = desired(context, &object, &known, handle, problem);
    context.metrics.set_ready(name, conditions::find(&status.conditions, READY).is_some_and(|c| c.status == "True"));
    if status == known || context.dry_run || !context.claim.holds() {
        return Ok(Written::Nothing);
    }
    if context.status_budget.take().is_err() {
        // Not lost: what was not written differs still when it is compared again.
        return Ok(Written::NotYet);
    }
    write::service_registry_status(&context.client, name, &status).await?;
    announce(context, &object, &known, &status);
    // The watch lags behind: the next report must not compare with what was there before.
    if let Some(entry) = context.cluster().service_registries.get_mut(name) {
        Arc::make_mut(entry).status = Some(status);
    }
    Ok(Written::Now)
}

/// What an administrator approved goes, in every service of the registry.
pub fn release(context: &Context, name: &str) {
    let Some(object) = context.cluster().service_registries.get(name).cloned() else { return };
    let approval = object.metadata.annotations.as_ref().and_then(|all| all.get(APPROVE_DELETIONS));
    if approval.is_some_and(|hash| context.guards.approve(name, hash, context.world.now()))
        && let Some(handle) = context.registries.get(name)
    {
        handle.everybody_looks();
    }
}

/// What became of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Now,
    /// There is nothing to write, or it is not our turn.
    Nothing,
    /// Too many others were written just now.
    NotYet,
}

fn measure(context: &Context, name: &str, handle: &RegistryHandle) {
    let counts = handle.view().counts();
    context.metrics.set_records(name, counts.own, counts.foreign, counts.undecodable);
    context.metrics.set_session(
        name,
        match handle.status().phase {
            Phase::Connecting => "connecting",
            Phase::Listing => "listing",
            Phase::Watching => "watching",
            Phase::Failed(_) => "failed",
        },
    );
}

fn desired(
    context: &Context,
    object: &ServiceRegistry,
    known: &ServiceRegistryStatus,
    handle: Option<&RegistryHandle>,
    problem: Option<&Problem>,
) -> ServiceRegistryStatus {
    let now = context.world.now();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let held = context.guards.held(name, now);
    let wanted = wanted(handle, problem, held.as_ref(), context.claim.holds());
    let generation = object.metadata.generation;
    let mut status = ServiceRegistryStatus {
        observed_generation: generation,
        conditions: conditions::set(&known.conditions, &wanted, generation, now),
        ..known.clone()
    };
    if let Some(handle) = handle {
        let session = handle.status();
        status.cluster_id = Some(handle.cluster_id.clone());
        status.prefix = Some(handle.layout.prefix().to_owned());
        if let Some(server) = session.server.filter(|_| session.revision_at_last_session > 0) {
            status.etcd = Some(EtcdStatus {
                cluster_id: format!("{:x}", server.cluster_id),
                version: server.version,
                revision_at_last_session: session.revision_at_last_session,
            });
            let counts = handle.view().counts();
            let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            status.records = Some(RecordCounts {
                own: count(counts.own),
                foreign: count(counts.foreign),
                undecodable: count(counts.undecodable),
            });
        }
    }
    status
}

fn wanted(handle: Option<&RegistryHandle>, problem: Option<&Problem>, held: Option<&Held>, leads: bool) -> [Wanted; 4] {
    let held = match held {
        Some(Held { deletions, since, until, hash }) => {
            let message = format!(
                "nothing shows that {deletions} instances of many services ended; they stay until {until:.0}, or until the annotation \
                 {APPROVE_DELETIONS}={hash} releases them"
            );
            Wanted { since: Some(*since), ..Wanted::new(DELETIONS_HELD, Is::True, Reason::Held, message) }
        }
        None => Wanted::new(DELETIONS_HELD, Is::False, Reason::NothingHeld, ""),
    };
    let [ready, connected, synced] = session(handle, problem, leads);
    [ready, connected, synced, held]
}

fn session(handle: Option<&RegistryHandle>, problem: Option<&Problem>, leads: bool) -> [Wanted; 3] {
    let all = |connected: Is, synced: Is, reason: Reason, message: &str| {
        let ready = if connected == Is::True && synced == Is::True { Is::True } else { Is::False };
        [
            Wanted::new(READY, ready, reason, message),
            Wanted::new(CONNECTED, connected, if connected == Is::True { Reason::Connected } else { reason }, message),
            Wanted::new(SYNCED, synced, if synced == Is::True { Reason::Synced } else { reason }, message),
        ]
    };
    if let Some(problem) = problem {
        return all(Is::False, Is::False, problem.reason, &problem.message);
    }
    let Some(handle) = handle else { return all(Is::Unknown, Is::Unknown, Reason::Connecting, "no session yet") };
    match handle.status().phase {
        Phase::Connecting => all(Is::Unknown, Is::Unknown, Reason::Connecting, "connecting for the first time"),
        Phase::Listing => all(Is::True, Is::False, Reason::Listing, "waiting for a complete list"),
        Phase::Watching => {
            let [mut ready, connected, mut synced] = all(Is::True, Is::True, Reason::Connected, "");
            if let Some(message) = refused(handle) {
                synced = Wanted::new(SYNCED, Is::True, Reason::PermissionDenied, message);
            }
            if let Some((reason, message)) = returned(handle.view().returned()) {
                synced = Wanted::new(SYNCED, Is::True, reason, message);
            }
            // Everything is known, and nothing may be written. That an epoch is not raised yet is no news.
            let refused = match handle.fence() {
                Ok(_) | Err(RegistryError::NoEpoch | RegistryError::LeaseUnconfirmed(_)) => handle.trouble(leads),
                Err(error) => Some(error),
            };
            if let Some(error) = refused {
                ready = Wanted::new(READY, Is::False, error.reason(), error.to_string());
            }
            [ready, connected, synced]
        }
        Phase::Failed(error) => all(Is::False, Is::False, error.reason(), &error.to_string()),
    }
}

/// What our user may not read, where it may read the rest.
fn refused(handle: &RegistryHandle) -> Option<String> {
    let view = handle.view();
    let mut refused = view.refused();
    let number = refused.len();
    let first = handle.layout.beginning(refused.next()?);
    Some(format!(
        "the registry's user may not read the keys of {number} names, first {first}; what is there is kept. Grant it read and write on them, \
         or delete their RegisteredServices"
    ))
}

/// How the registry came back when this session began, where that was not as it had been.
fn returned(returned: Return) -> Option<(Reason, &'static str)> {
    match returned {
        Return::AsItWas => None,
        Return::ClusterChanged => Some((
            Reason::ClusterChanged,
            "another etcd cluster answers than before; what it lacks is put back where it is ours, and held where it is not",
        )),
        Return::RolledBack => Some((
            Reason::RolledBack,
            "the etcd cluster is at an older revision than before; what it lacks is put back where it is ours, and held where it is not",
        )),
    }
}

/// An Event where the connection came or went.
fn announce(
    context: &Context,
    object: &Arc<ServiceRegistry>,
    before: &ServiceRegistryStatus,
    after: &ServiceRegistryStatus,
) {
    let connected = |status: &ServiceRegistryStatus| conditions::find(&status.conditions, CONNECTED).cloned();
    let (before, Some(after)) = (connected(before), connected(after)) else { return };
    let changed = before.is_none_or(|before| before.status != after.status || before.reason != after.reason);
    let about = || About::ServiceRegistry(object.clone());
    match after.status.as_str() {
        "True" if changed => context.events.publish(about(), events::Reason::Connected, "connected to the registry"),
        "False" if changed => context.events.publish(about(), events::Reason::Disconnected, after.message),
        _ => {}
    }
}
