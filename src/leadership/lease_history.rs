//! The history of the Lease: its present and recent holders, from live reads.
//!
//! An epoch in a registry names the leader that raised it. Owns whether the Lease explains that name: this holder has
//! the Lease, or had it within two lease durations. The election hands its reads on; a live read comes before the
//! election begins, and before an epoch is raised. Refuses to take part in the election.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::{LEASE, LEASE_CALL, LEASE_DURATION};

#[derive(Clone)]
pub struct LeaseHistory {
    /// `None` without an election: then no other holder is explained.
    api: Option<Api<Lease>>,
    identity: String,
    last_seen: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl std::fmt::Debug for LeaseHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseHistory").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl LeaseHistory {
    pub fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self { api: Some(Api::namespaced(client, namespace)), ..Self::alone(identity) }
    }

    /// Without an election.
    pub fn alone(identity: &str) -> Self {
        Self { api: None, identity: identity.to_owned(), last_seen: Arc::default() }
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Reads the Lease. Returns true if we hold it.
    ///
    /// # Errors
    /// The Lease could not be read.
    pub async fn confirm(&self) -> Result<bool, LeaseReadError> {
        let Some(api) = &self.api else { return Ok(true) };
        let lease = timeout(LEASE_CALL, api.get_opt(LEASE)).await.map_err(|_| LeaseReadError::Timeout)??;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        self.saw(&holder);
        Ok(holder == self.identity)
    }

    /// A read showed this holder.
    pub(super) fn saw(&self, holder: &str) {
        let mut last_seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
        last_seen.retain(|_, at| at.elapsed() < 2 * LEASE_DURATION);
        last_seen.insert(holder.to_owned(), Instant::now());
    }

    /// True if the Lease explains that this holder raised an epoch. A leader that ended left its epoch with an empty
    /// holder.
    pub fn held_recently(&self, holder: &str) -> bool {
        let last_seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
        holder.is_empty()
            || holder == self.identity
            || last_seen.get(holder).is_some_and(|at| at.elapsed() < 2 * LEASE_DURATION)
    }
}

/// The reasons why the Lease could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LeaseReadError {
    #[error("the API server did not answer within {} s", LEASE_CALL.as_secs())]
    Timeout,
    #[error("cannot read the Lease: {0}")]
    Api(Box<kube::Error>),
}

impl From<kube::Error> for LeaseReadError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_holder_explains_for_two_lease_durations() {
        let lease_history = LeaseHistory::alone("me");
        assert!(
            lease_history.held_recently("me")
                && lease_history.held_recently("")
                && !lease_history.held_recently("other")
        );
        lease_history.last_seen.lock().unwrap().insert("other".to_owned(), Instant::now());
        tokio::time::advance(2 * LEASE_DURATION - Duration::from_secs(1)).await;
        assert!(lease_history.held_recently("other"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!lease_history.held_recently("other"));
        assert!(lease_history.confirm().await.unwrap(), "without an election no other process can lead");
    }
}
