//! The admin address: `/livez`, `/readyz`, `/metrics`, and `/`, which links to them.
//!
//! Owns the pages. `/livez` says that the process runs, because a restart would help nothing else. `/readyz` says
//! whether the process is ready, and `/readyz?verbose` what each part waits for, as in Kubernetes components. Owns
//! the bounds of connections too, which any pod can open: their number, their time, and the end of the process, which
//! waits for none of them. Refuses to know the parts.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::metrics::Metrics;
use crate::env::Env;

/// Connections at once; later ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// Time to send the head of a request.
const HEADER: Duration = Duration::from_secs(5);
/// The longest life of a connection: a client that reads no answer would keep it.
const CONNECTION: Duration = Duration::from_secs(120);
/// Wait after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The page at `/`, for people who open the address in a browser.
const INDEX: &str = concat!(
    "<!doctype html><title>Twinspan</title><h1>Twinspan ",
    env!("CARGO_PKG_VERSION"),
    "</h1><ul><li><a href=\"/metrics\">/metrics</a><li><a href=\"/readyz?verbose\">/readyz?verbose</a>",
    "<li><a href=\"/livez\">/livez</a></ul>\n"
);

/// A part of the operator, as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub state: PartState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartState {
    Ready,
    /// The part waits for this, and the process is not ready.
    Waits(String),
    /// The state of the part, which does not affect readiness.
    Info(String),
}

/// Returns the current state of each part.
pub type Parts = Arc<dyn Fn() -> Vec<Part> + Send + Sync>;

#[derive(Clone)]
struct Shown {
    parts: Parts,
    metrics: Arc<Metrics>,
}

/// Serves until it is stopped, and then waits for no connection.
pub async fn serve(listener: TcpListener, parts: Parts, metrics: Arc<Metrics>, env: Env, stop: CancellationToken) {
    let router = Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(print_metrics))
        .with_state(Shown { parts, metrics });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => env.spawn_in(&mut connections, timeout(CONNECTION, connection(stream, router.clone()))),
            Err(error) => {
                // One that went away before it was accepted, or no file is left for it.
                debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection to the admin address broke off");
    }
}

async fn readyz(State(shown): State<Shown>, RawQuery(query): RawQuery) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|word| word == "verbose" || word == "verbose=true"));
    let (ready, text) = page(&(shown.parts)(), verbose);
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

/// Whether every part is ready, and the text of the page: the long form if it is requested or a part is not ready.
fn page(parts: &[Part], verbose: bool) -> (bool, String) {
    let ready = !parts.iter().any(|part| matches!(part.state, PartState::Waits(_)));
    if ready && !verbose {
        return (true, "ok".to_owned());
    }
    let mut text = String::new();
    for Part { name, state } in parts {
        // Writing to a string does not fail.
        let _ = match state {
            PartState::Ready => writeln!(text, "[+] {name}"),
            PartState::Waits(what) => writeln!(text, "[-] {name}: {what}"),
            PartState::Info(how) => writeln!(text, "[i] {name}: {how}"),
        };
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    (ready, text)
}

async fn print_metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.print() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    fn part(name: &str, state: PartState) -> Part {
        Part { name: name.to_owned(), state }
    }

    #[tokio::test]
    async fn the_end_waits_for_no_open_connection_and_half_a_request_keeps_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, Arc::new(Vec::new), Arc::default(), Env::real(), stop.clone()));
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /livez HT").await.unwrap();
        let mut whole = TcpStream::connect(address).await.unwrap();
        whole.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        whole.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("ok"), "{answer}");
        let mut index = TcpStream::connect(address).await.unwrap();
        index.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        index.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("text/html") && answer.contains("href=\"/readyz?verbose\""), "{answer}");
        stop.cancel();
        timeout(Duration::from_secs(2), serving).await.expect("it waits for the half request").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn connections_have_a_number_and_heads_a_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, Arc::new(Vec::new), Arc::default(), Env::real(), stop.clone()));
        let mut halves = Vec::new();
        let began = Instant::now();
        for _ in 0..CONNECTIONS {
            let mut half = TcpStream::connect(address).await.unwrap();
            half.write_all(b"GET /livez HT").await.unwrap();
            halves.push(half);
        }
        let mut beyond = TcpStream::connect(address).await.unwrap();
        beyond.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        beyond.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ok"), "{answer}");
        let waited = began.elapsed();
        assert!(waited >= HEADER && waited < 2 * HEADER, "the heads have {waited:?}");
        for mut half in halves {
            let mut rest = Vec::new();
            half.read_to_end(&mut rest).await.unwrap();
            assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
        }
        stop.cancel();
    }

    #[test]
    fn only_what_waits_makes_unready_and_then_everything_is_said() {
        let stands = part("registry main", PartState::Info("cannot be reached".to_owned()));
        let ready = [part("list of Pods", PartState::Ready), stands.clone()];
        assert_eq!(page(&ready, false), (true, "ok".to_owned()));
        assert_eq!(
            page(&ready, true),
            (true, "[+] list of Pods\n[i] registry main: cannot be reached\nready\n".to_owned())
        );
        let waiting = [part("list of Pods", PartState::Waits("not complete".to_owned())), stands];
        assert_eq!(
            page(&waiting, false),
            (false, "[-] list of Pods: not complete\n[i] registry main: cannot be reached\nnot ready\n".to_owned())
        );
    }
}
