//! Leadership: only the holder of the Lease may write.
//!
//! Owns the election, the [`Leadership`] that every writing door asks before each request, and the [`LeaseHistory`] of
//! other holders. A lost Lease ends writing, not the process: views stay warm and the leases of own records are kept
//! alive, so that an outage of the API server never empties the registry. Refuses to know what a leader writes.

mod claim;
mod lease_history;
mod lease_status;

use std::time::Duration;

use k8s_controller::LeaderElection;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use claim::Leadership;
pub use lease_history::{LeaseHistory, LeaseReadError};
pub use lease_status::{another_release, leader};

/// The name of the Lease in the operator's namespace.
pub const LEASE: &str = "twinspan";
/// client-go's defaults: the duration of a Lease, the time that its holder tries to renew it, and the wait between
/// tries.
const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Takes part in the election until it is stopped, and then releases the Lease.
pub async fn elect(client: Client, namespace: &str, identity: &str, leadership: Leadership, stop: CancellationToken) {
    let election = LeaderElection::new(client, namespace, LEASE, identity)
        .with_lease_duration(LEASE_DURATION)
        .with_renew_deadline(RENEW_DEADLINE)
        .with_retry_period(RETRY_PERIOD);
    loop {
        let outcome = tokio::select! {
            () = stop.cancelled() => break,
            outcome = election.with_lease(lead(&leadership)) => outcome,
        };
        leadership.lost();
        match outcome {
            Some(()) => warn!("this process was stopped for too long to be sure of the Lease; it was given back"),
            None => warn!("lost the Lease; not writing until it is ours again"),
        }
    }
    leadership.lost();
    election.release().await;
}

/// Leads without an election until it is stopped: the only replica does, and a dry run, which no door lets write.
pub async fn lead_alone(leadership: Leadership, stop: CancellationToken) {
    leadership.acquired();
    tokio::select! {
        () = stop.cancelled() => {}
        () = async { loop { leadership.heartbeat().await; leadership.acquired(); } } => {}
    }
    leadership.lost();
}

/// Runs while the Lease is held; ends by itself if the process was frozen.
async fn lead(leadership: &Leadership) {
    leadership.acquired();
    info!("leading");
    leadership.heartbeat().await;
}
