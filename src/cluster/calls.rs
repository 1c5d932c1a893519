//! The requests to the Kubernetes API that write, and those that a write needs: how many at once, for how long, how
//! often.
//!
//! Owns the check of the claim to lead right before a request, the deadlines, and the pace of the API server: it is
//! never asked for more at once than it takes ([`super::turns`]), and a 429 is its pace and no failure.
//! Refuses to know what a request says, which the doors [`super::writer`], [`super::status_writer`] and
//! [`super::event_api`] do.

use std::fmt;
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep, timeout};

use super::turns::{Line, Turns};
use super::{ClusterError, Result};
use crate::leadership::Leadership;

/// The deadline of one call; the API server's own SLO is 1 s at the 99th percentile.
const CALL: Duration = Duration::from_secs(10);
/// The longest wait for a turn. It ends a request that would be planned again by then.
const TURN: Duration = Duration::from_secs(120);
/// The longest time for which the API server may put a request off (429) before that is a failure.
const PUT_OFF: Duration = Duration::from_secs(60);
/// The shortest wait after a 429, whatever it names, and the longest.
const SHORTEST_PUT_OFF: Duration = Duration::from_secs(1);
const LONGEST_PUT_OFF: Duration = Duration::from_secs(10);

/// The way of every request that writes; clones share the turns.
#[derive(Clone)]
pub struct Calls {
    pub client: Client,
    pub leadership: Leadership,
    turns: Turns,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Calls {
    pub fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership, turns: Turns::default() }
    }

    /// True if a request may be sent now.
    pub fn may_write(&self) -> bool {
        self.leadership.may_write()
    }

    /// # Errors
    /// [`ClusterError::NotLeader`], where this process may not write.
    pub fn ask(&self) -> Result<()> {
        if self.may_write() { Ok(()) } else { Err(ClusterError::NotLeader) }
    }

    /// Sends a request once it is its turn. The deadline begins with the request and not with the wait for it; a
    /// request that the API server puts off waits for another turn after the time that it names.
    pub async fn call<T, F>(&self, line: Line, what: impl Into<String>, request: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let what = what.into();
        let mut put_off_until = None;
        loop {
            match self.send(line.clone(), CALL, &what, &request).await? {
                Ok(answer) => return Ok(answer),
                Err(kube::Error::Api(status))
                    if status.code == 429
                        && Instant::now() < *put_off_until.get_or_insert_with(|| Instant::now() + PUT_OFF) =>
                {
                    let seconds = status.details.map_or(0, |details| u64::from(details.retry_after_seconds));
                    sleep(Duration::from_secs(seconds).clamp(SHORTEST_PUT_OFF, LONGEST_PUT_OFF)).await;
                }
                Err(error) => return Err(ClusterError::of(what, error)),
            }
        }
    }

    /// Sends a request that is not worth a second attempt, with another deadline.
    pub async fn call_once<T, F>(
        &self,
        line: Line,
        deadline: Duration,
        what: impl Into<String>,
        request: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let what = what.into();
        self.send(line, deadline, &what, &request).await?.map_err(|error| ClusterError::of(what, error))
    }

    /// The answer of the API server.
    async fn send<T, F>(
        &self,
        line: Line,
        deadline: Duration,
        what: &str,
        request: &impl Fn() -> F,
    ) -> Result<kube::Result<T>>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let late = |limit: Duration| ClusterError::Timeout { what: what.to_owned(), seconds: limit.as_secs() };
        let _turn = timeout(TURN, self.turns.take(line)).await.map_err(|_| late(TURN))?;
        // The Lease may have been lost meanwhile.
        self.ask()?;
        timeout(deadline, request()).await.map_err(|_| late(deadline))
    }
}

/// A missing object is no failure of what is done to it.
pub(super) async fn unless_gone<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<Option<T>> {
    match call.await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::cluster::fake_api::FakeApi;

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_put_off_keeps_no_turn() {
        let leadership = Leadership::none();
        leadership.acquired();
        let calls = Calls::new(FakeApi::default().client(), leadership);
        let put_off = || async {
            let status = Status { code: 429, ..Status::default() };
            Err::<(), _>(kube::Error::Api(Box::new(status)))
        };
        let line = |namespace: &str| Line::Namespace(namespace.to_owned());
        for _ in 0..100 {
            let (calls, line) = (calls.clone(), line("busy"));
            tokio::spawn(async move { calls.call(line, "create it", put_off).await });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        let began = Instant::now();
        calls.call(line("shop"), "create it", || async { Ok(()) }).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
        // An Event is not worth another attempt.
        let once = calls.call_once(Line::Reports, CALL, "create it", put_off).await.unwrap_err();
        assert_eq!((once.label(), began.elapsed() < Duration::from_millis(10)), ("unreachable", true));
    }
}
