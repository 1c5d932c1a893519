//! The keepalives of the leases of own records.
//!
//! Owns their schedule. Every replica keeps the leases in its view alive, leader or not: an outage of the API server,
//! which leaves no leader, must not empty the registry. Refuses to know who leads, which is safe because a keepalive
//! changes no key.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use twinspan_core::model::LeaseId;

use super::handle::RegistryHandle;
use super::{KeepAlive, Registry, Result};

/// Keepalives in flight at a time.
const KEEPALIVES_AT_ONCE: usize = 8;
/// Wait before a round that failed is repeated.
const RETRY: Duration = Duration::from_secs(2);

/// Sends keepalives until it is stopped: immediately on a new connection, then after a third of the shortest TTL.
pub async fn run(handle: Arc<RegistryHandle>, stop: CancellationToken) {
    let mut connections = handle.connections();
    loop {
        let connected = connections.borrow_and_update().clone();
        let wait = match connected {
            None => Duration::MAX,
            Some(registry) => {
                let result = keep_all(&handle, registry.as_ref()).await;
                handle.record_keepalive_result(result.as_ref().err().cloned());
                result.map_or(RETRY, |shortest| handle.leases.interval(shortest))
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            // A new connection may follow an outage, so the leases need a keepalive immediately.
            changed = connections.changed() => if changed.is_err() { return },
            () = handle.leases.granted.notified() => {}
            () = tokio::time::sleep(wait.min(Duration::from_secs(86_400))) => {}
        }
    }
}

/// One round. Returns the shortest TTL in seconds, or the first error.
async fn keep_all(handle: &RegistryHandle, registry: &dyn Registry) -> Result<Option<i64>> {
    let leases: Vec<LeaseId> = handle.view().own_leases().keys().copied().filter(|l| *l != LeaseId::NONE).collect();
    let answers: Vec<(LeaseId, Result<KeepAlive>)> = futures::stream::iter(leases)
        .map(|lease| async move { (lease, registry.keep_alive(lease).await) })
        .buffer_unordered(KEEPALIVES_AT_ONCE)
        .collect()
        .await;
    let mut all = Ok(None::<i64>);
    for (lease, answer) in answers {
        match answer {
            Ok(KeepAlive::For(seconds)) => {
                handle.leases.lives(lease);
                all = all.map(|shortest| Some(shortest.unwrap_or(seconds).min(seconds)));
            }
            Ok(KeepAlive::Gone) => {
                // etcd deletes its records with it. They are written again immediately under a new grant, even if the
                // watch has not reported their deletion yet.
                warn!(registry = handle.name, %lease, "a lease of ours is gone; its records are written again");
                handle.leases.lost(lease);
                let affected = handle.view().lease_lost(lease);
                handle.notify(affected);
            }
            Err(error) => {
                warn!(registry = handle.name, %lease, %error, "cannot keep a lease alive; trying again");
                all = all.and(Err(error));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use twinspan_core::codec::{Format, Layout};

    use super::*;
    use crate::env::Env;
    use crate::registry::fake::FakeEtcd;
    use crate::registry::handle::{Identity, RegistryEvent};
    use crate::registry::session;

    const OWN: &str =
        r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;

    /// A replica that requests leases with this TTL.
    fn replica(
        server: &FakeEtcd,
        ttl_seconds: i64,
    ) -> (Arc<RegistryHandle>, mpsc::UnboundedReceiver<RegistryEvent>, CancellationToken) {
        let (sender, events) = mpsc::unbounded_channel();
        let (uid, cluster_id, layout) = ("u".into(), "c1".into(), Layout::new(Format::Kitex, "p"));
        let identity = Identity { uid, cluster_id, layout, ttl_seconds, fence_prefix: None };
        let (handle, stop) = (RegistryHandle::new("main", &identity, None, sender), CancellationToken::new());
        tokio::spawn(session::run(handle.clone(), Arc::new(server.clone()), Env::real(), stop.clone()));
        tokio::spawn(run(handle.clone(), stop.clone()));
        (handle, events, stop)
    }

    #[tokio::test(start_paused = true)]
    async fn leases_from_before_a_change_of_the_ttl_are_kept_too() {
        let server = FakeEtcd::new();
        server.grant_for(LeaseId(7), Duration::from_secs(60));
        server.put("p/echo/10.0.0.1:80", OWN, LeaseId(7));
        let (handle, _events, stop) = replica(&server, 300);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(server.leases(), [LeaseId(7)]);
        assert_eq!(handle.view().own_leases().len(), 1);
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn the_ttl_of_the_server_counts_also_after_a_restart() {
        let server = FakeEtcd::new();
        server.set_least_ttl(120);
        let (first, _events, stop) = replica(&server, 60);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let lease = match first.connection() {
            Ok(connection) => first.leases.with_room(connection.as_ref(), &Default::default()).await.map(|(id, _)| id),
            Err(error) => Err(error),
        };
        server.put("p/echo/10.0.0.1:80", OWN, lease.unwrap());
        stop.cancel();
        let (_second, _events, stop) = replica(&server, 60);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = server.calls("keep_alive");
        tokio::time::sleep(Duration::from_secs(600)).await;
        let keepalives = server.calls("keep_alive") - before;
        assert!((14..=16).contains(&keepalives), "a third of 120 s: {keepalives} in 600 s");
        stop.cancel();
    }
}
