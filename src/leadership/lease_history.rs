//! The history of the Lease: its present and recent holders, from live reads.
//!
//! An epoch in a registry names the leader that raised it. Owns whether the Lease explains that name: this holder has
//! the Lease, had it within two lease durations, or had it before us, as long as we have it and have raised no epoch of
//! our own. The election hands its reads on; a live read comes before the election begins, and before an epoch is
//! raised. Refuses to take part in the election.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::{LEASE, LEASE_CALL, LEASE_DURATION};
use crate::causes::of_kube;

#[derive(Clone)]
pub struct LeaseHistory {
    /// `None` without an election: then no other holder is explained.
    api: Option<Api<Lease>>,
    identity: String,
    others: Arc<Mutex<Others>>,
}

/// The holders other than ourselves, from the reads that showed another one, or none.
#[derive(Debug, Default)]
struct Others {
    /// When the last such read was.
    read: Option<Instant>,
    /// The holders within two lease durations before it, and when each was seen last.
    last_seen: BTreeMap<String, Instant>,
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
        Self { api: None, identity: identity.to_owned(), others: Arc::default() }
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

    /// A read showed this holder. As long as reads show us, nobody else has the Lease, and those before us stay known.
    pub(super) fn saw(&self, holder: &str) {
        if holder == self.identity {
            return;
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.last_seen.retain(|_, at| at.elapsed() < 2 * LEASE_DURATION);
        others.last_seen.insert(holder.to_owned(), Instant::now());
        others.read = Some(Instant::now());
    }

    /// True if the Lease explains that this holder raised an epoch. A leader that ended left its epoch with an empty
    /// holder. An etcd that does not answer may delay a take-over for long, and until then the epoch is that of a
    /// leader before us; but once we have raised our own, at this time, only a new holder of the Lease can raise a
    /// higher one.
    pub fn explains(&self, holder: &str, raised: Option<Instant>) -> bool {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let follows = raised.is_none_or(|raised| others.read.is_some_and(|read| raised < read));
        holder.is_empty()
            || holder == self.identity
            || others.last_seen.get(holder).is_some_and(|at| follows || at.elapsed() < 2 * LEASE_DURATION)
    }
}

/// The reasons why the Lease could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LeaseReadError {
    #[error("the API server did not answer within {} s", LEASE_CALL.as_secs())]
    Timeout,
    #[error("cannot read the Lease: {}", of_kube(.0))]
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

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_holder_explains_for_two_lease_durations() {
        let lease_history = LeaseHistory::alone("me");
        assert!(lease_history.explains("me", None) && lease_history.explains("", None));
        assert!(!lease_history.explains("other", None));
        lease_history.saw("other");
        let raised = Some(Instant::now());
        tokio::time::advance(2 * LEASE_DURATION - SECOND).await;
        assert!(lease_history.explains("other", raised));
        tokio::time::advance(SECOND).await;
        assert!(!lease_history.explains("other", raised));
        assert!(lease_history.confirm().await.unwrap(), "without an election no other process can lead");
    }

    #[tokio::test(start_paused = true)]
    async fn the_holder_before_us_explains_until_we_have_raised_an_epoch_or_another_one_came() {
        let lease_history = LeaseHistory::alone("me");
        let raised = Some(Instant::now());
        tokio::time::advance(SECOND).await;
        lease_history.saw("before");
        for _ in 0..100 {
            tokio::time::advance(SECOND).await;
            lease_history.saw("me");
        }
        assert!(lease_history.explains("before", None));
        assert!(lease_history.explains("before", raised), "raised in an earlier term");
        assert!(!lease_history.explains("before", Some(Instant::now())));
        assert!(!lease_history.explains("other", None));
        lease_history.saw("");
        assert!(!lease_history.explains("before", None), "somebody else had the Lease, and gave it back");
    }
}
