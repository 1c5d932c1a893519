//! Keepalives of the leases that own records hang on.
//!
//! Every replica sends them for the leases that its view holds, leader or not: an API-server outage, in which nobody can be the
//! leader, must not empty the registry. A keepalive changes no key.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use twinspan_core::model::LeaseId;

use super::handle::RegistryHandle;
use super::{LeaseState, Registry, Result};

/// Keepalives under way at once.
const KEEPALIVES_AT_ONCE: usize = 8;
/// How soon a keepalive that failed is sent again.
const RETRY: Duration = Duration::from_secs(2);

/// Sends keepalives until it is stopped: at once when a connection is there, and then every third of the TTL.
pub async fn run(handle: Arc<RegistryHandle>, stop: CancellationToken) {
    let mut connections = handle.connections();
    loop {
        let connected = connections.borrow_and_update().clone();
        let wait = match connected {
            None => Duration::MAX,
            Some(registry) if keep_all(&handle, registry.as_ref()).await => handle.leases.interval(),
            Some(_) => RETRY,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            // A new connection may follow a time without one: renew at once.
            changed = connections.changed() => if changed.is_err() { return },
            () = handle.leases.granted.notified() => {}
            () = tokio::time::sleep(wait.min(Duration::from_secs(86_400))) => {}
        }
    }
}

/// One round; whether every lease was answered for.
async fn keep_all(handle: &RegistryHandle, registry: &dyn Registry) -> bool {
    let leases: Vec<LeaseId> = handle.view().own_leases().keys().copied().filter(|l| *l != LeaseId::NONE).collect();
    let answers: Vec<(LeaseId, Result<LeaseState>)> = futures::stream::iter(leases)
        .map(|lease| async move { (lease, registry.keep_alive(lease).await) })
        .buffer_unordered(KEEPALIVES_AT_ONCE)
        .collect()
        .await;
    let mut all = true;
    for (lease, answer) in answers {
        match answer {
            Ok(LeaseState::Lives) => handle.leases.lives(lease),
            Ok(LeaseState::Gone) => {
                // Its records are deleted with it. They are written again at once under a new grant, whether or not the watch has
                // shown that yet.
                warn!(registry = handle.name, %lease, "a lease of ours is gone; its records are written again");
                handle.leases.lost(lease);
                let touched = handle.view().lease_lost(lease);
                handle.touch(touched);
            }
            Err(error) => {
                all = false;
                warn!(registry = handle.name, %lease, %error, "cannot keep a lease alive; trying again");
            }
        }
    }
    all
}
