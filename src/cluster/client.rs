//! The clients of the Kubernetes API.
//!
//! Owns their deadlines, and the way from the `Date` of each answer to the clock of the process: deadlines that outlive
//! a process are compared with the API server's clock, which all replicas share. The Lease has a client of its own: no
//! connection that something else left silent is between a leader and its Lease (`docs/decisions/0030`). Refuses to
//! know requests; [`super::requests`] names them for the metrics.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::DATE;
use http::{Request, Response};
use jiff::fmt::rfc2822;
use kube::client::{Body, ClientBuilder, DynBody};
use kube::{Client, Config};
use tokio::time::{Instant, timeout};
use tower::{BoxError, Layer, Service};

use super::requests::{Unanswered, UnderWay};
use crate::env::Env;
use crate::leadership::LEASE_CALL;
use crate::telemetry::metrics::Metrics;

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
pub fn client(config: Config, env: &Env, metrics: &Arc<Metrics>) -> kube::Result<Client> {
    with_deadlines(config, SILENCE, &Answers::within(ANSWER, env, metrics))
}

/// The client of the Lease.
///
/// # Errors
/// [`kube::Error`] if the configuration cannot be used.
pub fn lease_client(config: Config, env: &Env, metrics: &Arc<Metrics>) -> kube::Result<Client> {
    with_deadlines(config, LEASE_CALL, &Answers::within(LEASE_CALL, env, metrics))
}

fn with_deadlines(mut config: Config, silence: Duration, answers: &Answers) -> kube::Result<Client> {
    // Retries inside the client would block a pass for minutes; every call has a deadline, and passes are repeated.
    config.default_retry = false;
    config.connect_timeout = config.connect_timeout.map(|limit| limit.min(answers.limit));
    config.read_timeout = Some(silence);
    // Otherwise the time for which a connection was idle would count.
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?.with_layer(answers).build())
}

/// The clients over another transport: of the Lease, and of everything else. Nothing below the deadline of an answer is
/// that of the real ones.
pub fn over<S>(transport: &S, env: &Env, metrics: &Arc<Metrics>) -> (Client, Client)
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError, Future = Answering<Box<DynBody>>>,
    S: Clone + Send + Sync + 'static,
{
    let answers = |limit| Answers::within(limit, env, metrics);
    let over = |limit| ClientBuilder::new(transport.clone(), "default").with_layer(&answers(limit)).build();
    (over(LEASE_CALL), over(ANSWER))
}

/// The future of an answer.
pub type Answering<B> = BoxFuture<'static, Result<Response<B>, BoxError>>;

/// The layer that gives every answer a deadline, reads its date, and measures it.
#[derive(Clone)]
struct Answers {
    limit: Duration,
    env: Env,
    metrics: Arc<Metrics>,
}

impl Answers {
    fn within(limit: Duration, env: &Env, metrics: &Arc<Metrics>) -> Self {
        Self { limit, env: env.clone(), metrics: metrics.clone() }
    }

    async fn wait<B>(self, request: UnderWay, answering: Answering<B>) -> Result<Response<B>, BoxError> {
        let Ok(answer) = timeout(self.limit, answering).await else {
            request.failed(Unanswered::Timeout);
            return Err(format!("the API server did not answer within {} s", self.limit.as_secs()).into());
        };
        match &answer {
            Ok(response) => {
                read_date(&self.env, request.sent(), response);
                request.answered(response.status());
            }
            Err(_) => request.failed(Unanswered::Unreachable),
        }
        answer
    }
}

impl<S> Layer<S> for Answers {
    type Service = Answered<S>;

    fn layer(&self, inner: S) -> Answered<S> {
        Answered { inner, answers: self.clone() }
    }
}

#[derive(Clone)]
struct Answered<S> {
    inner: S,
    answers: Answers,
}

impl<S, B> Service<Request<Body>> for Answered<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError, Future = Answering<B>>,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Answering<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answering<B> {
        let under_way = UnderWay::begin(&request, self.answers.metrics.clone());
        Box::pin(self.answers.clone().wait(under_way, self.inner.call(request)))
    }
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
                Some(b"/half" | b"/half?watch=true") => "{",
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
            let client = make(server().await, &env, &Arc::default()).unwrap();
            get(&client, "/whole").await.unwrap();
            let since: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
            assert!(env.now() >= since && env.now() < since + HOUR, "{}", env.now());
        }
    }

    #[tokio::test]
    async fn a_head_and_a_body_that_do_not_come_end_a_request() {
        let soon = Duration::from_millis(100);
        let metrics = Arc::default();
        let client = with_deadlines(server().await, HOUR, &Answers::within(soon, &env(), &metrics)).unwrap();
        let error = get(&client, "/nothing").await.unwrap_err();
        assert!(error.contains("the API server did not answer within"), "{error}");
        let client = with_deadlines(server().await, soon, &Answers::within(HOUR, &env(), &metrics)).unwrap();
        get(&client, "/half").await.unwrap_err();
        let timeouts = "twinspan_api_request_errors_total{verb=\"get\",resource=\"other\",reason=\"timeout\"} 1";
        assert!(metrics.print().unwrap().contains(timeouts), "{}", metrics.print().unwrap());
    }

    #[tokio::test]
    async fn a_watch_is_measured_until_it_is_open_and_a_request_that_nobody_waits_for_is_given_up() {
        let metrics: Arc<Metrics> = Arc::default();
        let client = with_deadlines(server().await, HOUR, &Answers::within(HOUR, &env(), &metrics)).unwrap();
        // The server answers with a head, and the body stays open.
        let request = Request::get("/half?watch=true").body(Vec::new()).unwrap();
        let open = client.request_events::<kube::core::DynamicObject>(request).await.unwrap();
        let shown = metrics.print().unwrap();
        let watch = "twinspan_api_request_duration_seconds_count{verb=\"watch\",resource=\"other\"} 1";
        assert!(shown.contains(watch), "{shown}");
        drop(open);
        let request = Request::get("/api/v1/namespaces/shop/pods/a").body(Vec::new()).unwrap();
        assert!(timeout(Duration::from_millis(100), client.request::<Value>(request)).await.is_err());
        let shown = metrics.print().unwrap();
        for line in [
            "twinspan_api_request_duration_seconds_count{verb=\"get\",resource=\"pods\"} 1",
            "twinspan_api_request_errors_total{verb=\"get\",resource=\"pods\",reason=\"given_up\"} 1",
        ] {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
    }
}
