//! Leadership: only the holder of the Lease may write.
//!
//! Owns the election, the [`Leadership`] that every writing door asks before each request, and the [`LeaseHistory`] of
//! other holders. A lost Lease ends writing, not the process: views stay warm and the leases of own records are kept
//! alive, so that an outage of the API server never empties the registry. Refuses to know what a leader writes.

mod claim;
mod election;
mod lease_history;
mod lease_status;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use claim::Leadership;
pub use election::Election;
pub use lease_history::{LeaseHistory, LeaseReadError};
pub use lease_status::{Holder, another_release, holder, leader};

/// The name of the Lease in the operator's namespace.
pub const LEASE: &str = "twinspan";
/// The annotation of the Lease with the version of its last holder. The holder writes it whenever it writes the Lease.
pub const VERSION_ANNOTATION: &str = "twinspan.dev/version";
/// The annotation of the Lease with the ServiceRegistries that its holder serves, separated by commas; absent where it
/// serves all.
pub const REGISTRIES_ANNOTATION: &str = "twinspan.dev/registries";
/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// client-go's defaults: the duration of a Lease, the time that its holder tries to renew it, and the wait between
/// tries.
const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// The deadline of one request about the Lease, so that a holder has two tries before it gives up.
pub const LEASE_CALL: Duration = Duration::from_secs(RENEW_DEADLINE.as_secs() / 2);

/// Leads without an election until it is stopped: the only replica does, and a dry run, which no door lets write.
pub async fn lead_alone(leadership: Leadership, stop: CancellationToken) {
    leadership.acquired();
    stop.cancelled().await;
    leadership.lost();
}
