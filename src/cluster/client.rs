//! The clients of the Kubernetes API.
//!
//! Owns their deadlines, and the way from the `Date` of each answer to the clock of the process: deadlines that outlive
//! a process are compared with the API server's clock, which all replicas share. The Lease has a client of its own: no
//! connection that something else left silent is between a leader and its Lease (`docs/decisions/0030`). Refuses to
//! know requests.

use std::time::Duration;

use futures::future::BoxFuture;
use http::Response;
use http::header::DATE;
use jiff::fmt::rfc2822;
use kube::client::{ClientBuilder, DynBody};
use kube::{Client, Config};
use tokio::time::{Instant, timeout};
use tower::BoxError;
use tower::util::MapFutureLayer;

use crate::env::Env;
use crate::leadership::LEASE_CALL;

/// The server ends a quiet watch after so many seconds, and the next one begins.
pub const WATCH_SECONDS: u32 = 60;
/// A connection on which nothing was read for longer is dead; longer than any watch lasts.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// The deadline of the head of an answer: the API server itself gives up after a minute (`--request-timeout`).
const ANSWER: Duration = Duration::from_secs(60);

/// The client of everything but the Lease.
///
/// # Errors
/// [`kube::Error`] if the configuration cannot be used.
pub fn client(config: Config, env: &Env) -> kube::Result<Client> {
    with_deadlines(config, env, ANSWER, SILENCE)
}

/// The client of the Lease.
///
/// # Errors
/// [`kube::Error`] if the configuration cannot be used.
pub fn lease_client(config: Config, env: &Env) -> kube::Result<Client> {
    with_deadlines(config, env, LEASE_CALL, LEASE_CALL)
}

fn with_deadlines(mut config: Config, env: &Env, answer: Duration, silence: Duration) -> kube::Result<Client> {
    // Retries inside the client would block a pass for minutes; every call has a deadline, and passes are repeated.
    config.default_retry = false;
    config.connect_timeout = config.connect_timeout.map(|limit| limit.min(answer));
    config.read_timeout = Some(silence);
    // Otherwise the time for which a connection was idle would count.
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?.with_layer(&answered_within(answer, env)).build())
}

type Answering<B> = BoxFuture<'static, Result<Response<B>, BoxError>>;

fn answered_within(
    limit: Duration,
    env: &Env,
) -> MapFutureLayer<impl Fn(Answering<Box<DynBody>>) -> Answering<Box<DynBody>> + Clone + use<>> {
    let env = env.clone();
    MapFutureLayer::new(move |answering: Answering<Box<DynBody>>| -> Answering<Box<DynBody>> {
        let (env, sent) = (env.clone(), Instant::now());
        Box::pin(async move {
            let answer = match timeout(limit, answering).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("the API server did not answer within {} s", limit.as_secs()).into()),
            };
            if let Ok(response) = &answer {
                read_date(&env, sent, response);
            }
            answer
        })
    })
}

fn read_date<B>(env: &Env, sent: Instant, response: &Response<B>) {
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
    if let Some(date) = date.and_then(|date| rfc2822::parse(date).ok()) {
        env.api_server_answered(sent, date.timestamp());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn an_answer_sets_the_clock() {
        let env = Env::started_at(|| Timestamp::UNIX_EPOCH, || 0.5);
        let response = |date: &str| Response::builder().header(DATE, date).body(()).unwrap();
        read_date(&env, Instant::now(), &response("about noon"));
        assert_eq!(env.now(), Timestamp::UNIX_EPOCH);
        read_date(&env, Instant::now(), &response("Thu, 01 Jan 2026 12:00:00 GMT"));
        assert_eq!(env.now().to_string(), "2026-01-01T12:00:00Z");
    }
}
