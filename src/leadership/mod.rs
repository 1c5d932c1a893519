//! Who may write: the holder of the Lease.
//!
//! Owns the election, the [`Claim`] that both doors ask before each request, and what is known of other [`Holders`]. Losing the Lease ends writing, not the process:
//! views stay warm and the leases of own records are kept alive, so that an API-server outage never empties the registry.

mod claim;
mod elsewhere;
mod holders;

use std::time::Duration;

use k8s_controller::LeaderElection;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use claim::Claim;
pub use elsewhere::{another_release, leader};
pub use holders::{Holders, HoldersError};

/// The name of the Lease in the operator's namespace.
pub const LEASE: &str = "twinspan";
/// client-go's defaults: how long a Lease lasts, how long its holder tries to renew it, and how often.
const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Takes part in the election until it is stopped, and gives the Lease back at the end.
pub async fn elect(client: Client, namespace: &str, identity: &str, claim: Claim, stop: CancellationToken) {
    let election = LeaderElection::new(client, namespace, LEASE, identity)
        .with_lease_duration(LEASE_DURATION)
        .with_renew_deadline(RENEW_DEADLINE)
        .with_retry_period(RETRY_PERIOD);
    loop {
        let outcome = tokio::select! {
            () = stop.cancelled() => break,
            outcome = election.with_lease(lead(&claim)) => outcome,
        };
        claim.end();
        match outcome {
            Some(()) => warn!("this process was stopped for too long to be sure of the Lease; it was given back"),
            None => warn!("lost the Lease; not writing until it is ours again"),
        }
    }
    claim.end();
    election.release().await;
}

/// Runs for as long as the Lease is held; ends by itself where the process was frozen.
async fn lead(claim: &Claim) {
    claim.begin();
    info!("leading");
    claim.beat().await;
}
