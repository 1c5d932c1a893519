//! The clients of the Kubernetes API.
//!
//! Owns their deadlines, and the way from the `Date` of each answer to the clock of the process: deadlines that outlive
//! a process are compared with the API server's clock, which all replicas share. The Lease has a client of its own: no
//! connection that something else left silent is between a leader and its Lease (`docs/decisions/0030`). Refuses to
//! know requests.

use std::time::Duration;

use futures::future::BoxFuture;
use http::header::DATE;
use http::{Request, Response};
use jiff::fmt::rfc2822;
use kube::client::{Body, ClientBuilder, DynBody};
use kube::{Client, Config};
use tokio::time::{Instant, timeout};
use tower::util::MapFutureLayer;
use tower::{BoxError, Service};

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

/// The clients over another transport: of the Lease, and of everything else. Nothing below the deadline of an answer is
/// that of the real ones.
pub fn over<S>(transport: &S, env: &Env) -> (Client, Client)
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError, Future = Answering<Box<DynBody>>>,
    S: Clone + Send + Sync + 'static,
{
    let over =
        |limit| ClientBuilder::new(transport.clone(), "default").with_layer(&answered_within(limit, env)).build();
    (over(LEASE_CALL), over(ANSWER))
}

/// The future of an answer.
pub type Answering<B> = BoxFuture<'static, Result<Response<B>, BoxError>>;

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
    use http::Request;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use twinspan_core::Timestamp;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A machine whose clock is far behind.
    fn env() -> Env {
        Env::started_at(|| Timestamp::UNIX_EPOCH, || 0.5)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_sets_the_clock() {
        let env = env();
        let response = |date: &str| Response::builder().header(DATE, date).body(()).unwrap();
        read_date(&env, Instant::now(), &response("about noon"));
        assert_eq!(env.now(), Timestamp::UNIX_EPOCH);
        read_date(&env, Instant::now(), &response("Thu, 01 Jan 2026 12:00:00 GMT"));
        assert_eq!(env.now().to_string(), "2026-01-01T12:00:00Z");
    }

    /// Answers each request in full, or with half of its body, or not at all, as its path says.
    async fn serve(mut stream: TcpStream) {
        let mut received = Vec::new();
        while stream.read_buf(&mut received).await.is_ok_and(|read| read > 0) {
            if !received.ends_with(b"\r\n\r\n") {
                continue;
            }
            let body = match received.split(|byte| *byte == b' ').nth(1) {
                Some(b"/whole") => "{}",
                Some(b"/half") => "{",
                _ => std::future::pending().await,
            };
            let head = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n";
            let answer = format!("{head}Content-Length: 2\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            received.clear();
        }
    }

    /// The configuration of a server that runs as long as the test.
    async fn server() -> Config {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Config::new(format!("http://{address}").parse().unwrap())
    }

    async fn get(client: &Client, path: &str) -> Result<Value, String> {
        let request = Request::get(path).body(Vec::new()).unwrap();
        let answer = timeout(Duration::from_secs(30), client.request::<Value>(request)).await;
        answer.expect("no deadline ended it").map_err(|error| crate::causes::chain(error.to_string(), &error))
    }

    #[tokio::test]
    async fn both_clients_read_the_api_servers_clock() {
        for make in [client, lease_client] {
            let env = env();
            let client = make(server().await, &env).unwrap();
            get(&client, "/whole").await.unwrap();
            let since: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
            assert!(env.now() >= since && env.now() < since + HOUR, "{}", env.now());
        }
    }

    #[tokio::test]
    async fn a_head_and_a_body_that_do_not_come_end_a_request() {
        let soon = Duration::from_millis(100);
        let client = with_deadlines(server().await, &env(), soon, HOUR).unwrap();
        let error = get(&client, "/nothing").await.unwrap_err();
        assert!(error.contains("the API server did not answer within"), "{error}");
        let client = with_deadlines(server().await, &env(), HOUR, soon).unwrap();
        get(&client, "/half").await.unwrap_err();
    }
}
