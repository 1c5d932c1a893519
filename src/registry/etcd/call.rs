//! The deadlines and the limits of calls to etcd.
//!
//! Owns the deadline of each call. Refuses to retry, and to know the meaning of an error ([`super::error`]).

use std::future::Future;
use std::time::Duration;

use super::error;
use crate::registry::{RegistryError, Result};

/// The deadline of one call. etcd's own clients use 5 s and less.
pub const CALL: Duration = Duration::from_secs(5);
/// The deadline of one page of a list, which may hold megabytes.
pub const PAGE: Duration = Duration::from_secs(20);
/// The largest message that is read. etcd takes requests of at most 1.5 MiB by default, but an answer has many records,
/// and strangers choose their size: a page of a list, or one revision of a watch, that is larger is not held in memory.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Runs a call that writes. The deadline comes first: a process that slept beyond it, for example while the client
/// fetched a new token, sends nothing any more, because the claim to lead was checked before the call began.
pub async fn call_in_time<T>(
    what: &'static str,
    deadline: Duration,
    future: impl Future<Output = std::result::Result<T, etcd_client::Error>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = tokio::time::sleep(deadline) => Err(RegistryError::Timeout { what, seconds: deadline.as_secs() }),
        answer = future => answer.map_err(|error| error::meaning(&error)),
    }
}

/// Runs a call with a deadline, and translates its error.
pub async fn call<T>(
    what: &'static str,
    deadline: Duration,
    future: impl Future<Output = std::result::Result<T, etcd_client::Error>>,
) -> Result<T> {
    match tokio::time::timeout(deadline, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error::meaning(&error)),
        Err(_) => Err(RegistryError::Timeout { what, seconds: deadline.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_is_not_sent_again_after_a_sleep_of_the_process() {
        for (slept, sends) in [(4, true), (20, false)] {
            let (token, gets_token) = oneshot::channel::<()>();
            let mut sent = false;
            let answer = {
                let write = call_in_time("transaction", CALL, async {
                    let _ = gets_token.await;
                    sent = true;
                    Ok(())
                });
                tokio::pin!(write);
                assert!(futures::poll!(&mut write).is_pending());
                tokio::time::advance(Duration::from_secs(slept)).await;
                let _ = token.send(());
                write.await
            };
            assert_eq!((sent, answer.is_ok()), (sends, sends), "slept for {slept} s");
        }
    }
}
