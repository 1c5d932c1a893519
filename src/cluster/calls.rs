//! The requests to the Kubernetes API that write, and those that a write needs: how many at once, for how long, how
//! often.
//!
//! Owns the check of the claim to lead right before a request, the number of requests under way, their deadlines, and
//! the pace of the API server: it is never asked for more at once than it takes, and a 429 is its pace and no failure.
//! Refuses to know what a request says, which the doors [`super::writer`], [`super::status_writer`] and
//! [`super::event_api`] do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::{ClusterError, Result};
use crate::leadership::Leadership;

/// The deadline of one call; the API server's own SLO is 1 s at the 99th percentile.
const CALL: Duration = Duration::from_secs(10);
/// Calls at once: each one is a connection, and the API server queues and refuses what comes all at once.
const CALLS_AT_ONCE: usize = 32;
/// The longest time for which the API server may put a request off (429) before that is a failure.
const PUT_OFF: Duration = Duration::from_secs(60);
/// The shortest wait after a 429, whatever it names, and the longest.
const SHORTEST_PUT_OFF: Duration = Duration::from_secs(1);
const LONGEST_PUT_OFF: Duration = Duration::from_secs(10);

/// The way of every request that writes; clones share the permits.
#[derive(Clone)]
pub struct Calls {
    pub client: Client,
    pub leadership: Leadership,
    permits: Arc<Semaphore>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Calls {
    pub fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership, permits: Arc::new(Semaphore::new(CALLS_AT_ONCE)) }
    }

    /// True if a request may be sent now.
    pub fn may_write(&self) -> bool {
        self.leadership.may_write()
    }

    /// # Errors
    /// This process may not write.
    pub fn ask(&self) -> Result<()> {
        if self.may_write() { Ok(()) } else { Err(ClusterError::NotLeader) }
    }

    /// Sends a request once it is its turn. The deadline begins with the request and not with the wait for it; a
    /// request that the API server puts off is sent again after the time that it names.
    pub async fn call<T, F>(&self, what: impl Into<String>, request: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        self.call_within(CALL, what, request).await
    }

    /// The same with another deadline.
    pub async fn call_within<T, F>(
        &self,
        deadline: Duration,
        what: impl Into<String>,
        request: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let what = what.into();
        // First come, first served. The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let put_off_until = Instant::now() + PUT_OFF;
        loop {
            // The Lease may have been lost meanwhile.
            self.ask()?;
            match tokio::time::timeout(deadline, request()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(kube::Error::Api(status))) if status.code == 429 && Instant::now() < put_off_until => {
                    let seconds = status.details.map_or(0, |details| u64::from(details.retry_after_seconds));
                    sleep(Duration::from_secs(seconds).clamp(SHORTEST_PUT_OFF, LONGEST_PUT_OFF)).await;
                }
                Ok(Err(error)) => return Err(ClusterError::of(what, error)),
                Err(_) => return Err(ClusterError::Timeout { what, seconds: deadline.as_secs() }),
            }
        }
    }
}
