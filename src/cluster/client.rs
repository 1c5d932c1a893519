//! The client of the Kubernetes API.
//!
//! Owns the way from the `Date` of each answer to the clock of the process: deadlines that outlive a process are
//! compared with the API server's clock, which all replicas share. Refuses to know requests.

use futures::future::BoxFuture;
use http::Response;
use http::header::DATE;
use jiff::fmt::rfc2822;
use kube::client::{ClientBuilder, DynBody};
use kube::{Client, Config};
use tokio::time::Instant;
use tower::BoxError;
use tower::util::MapFutureLayer;

use crate::env::Env;

/// A client whose answers tell the API server's time.
///
/// # Errors
/// [`kube::Error`] if the configuration cannot be used.
pub fn client(config: Config, env: &Env) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&reading_dates(env)).build())
}

type Answering<B> = BoxFuture<'static, Result<Response<B>, BoxError>>;

fn reading_dates(
    env: &Env,
) -> MapFutureLayer<impl Fn(Answering<Box<DynBody>>) -> Answering<Box<DynBody>> + Clone + use<>> {
    let env = env.clone();
    MapFutureLayer::new(move |answering: Answering<Box<DynBody>>| -> Answering<Box<DynBody>> {
        let (env, sent) = (env.clone(), Instant::now());
        Box::pin(async move {
            let answer = answering.await;
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
