//! Connections to pages of this process.
//!
//! Owns their bounds, for any pod can open one: their number, their time, and the end of the process, which waits for
//! none of them. A clock of its own for each connection is in [`super::patience`]. Refuses to know the pages.

use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::patience::{Patience, Patient};
use crate::env::Env;

/// Connections at once; later ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// Time to send the head of a request.
const HEADER: Duration = Duration::from_secs(5);
/// The longest life of a connection: a client that reads no answer would keep it.
const CONNECTION: Duration = Duration::from_secs(120);
/// Bytes of an answer that wait for a client which reads slowly, besides those in the kernel.
const BUFFER: usize = 64 * 1024;

/// The bounds of connections.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Their number; later ones wait to be accepted.
    pub connections: usize,
    /// The longest life of one; `None` where answers may be streams.
    pub life: Option<Duration>,
    pub patience: Patience,
}

impl Bounds {
    /// The bounds of pages with short answers.
    const SHORT: Self = Self { connections: CONNECTIONS, life: Some(CONNECTION), patience: Patience::ENDLESS };
}

/// Serves pages with short answers until it is stopped, and then waits for no connection.
pub async fn serve(listener: impl Listener, pages: Router, env: Env, stop: CancellationToken) {
    serve_within(Bounds::SHORT, listener, pages, env, stop).await;
}

/// The same within other bounds.
pub async fn serve_within(
    bounds: Bounds,
    mut listener: impl Listener,
    pages: Router,
    env: Env,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // Waits by itself after an error, such as that no file is left for a connection.
            (stream, _) = listener.accept(), if connections.len() < bounds.connections => stream,
            Some(_) = connections.join_next() => continue,
        };
        let served = connection(Patient::new(stream, bounds.patience), pages.clone());
        env.spawn_in(&mut connections, async move {
            match bounds.life {
                // A connection that lives too long ends like any other.
                Some(life) => drop(timeout(life, served).await),
                None => served.await,
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, pages: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages))
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection to the pages of this process broke off");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;
    use crate::telemetry::admin;

    fn pages() -> Router {
        admin::pages(Arc::new(Vec::new), Arc::default())
    }

    #[tokio::test]
    async fn the_end_waits_for_no_open_connection_and_half_a_request_keeps_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, pages(), Env::real(), stop.clone()));
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
        tokio::spawn(serve(listener, pages(), Env::real(), stop.clone()));
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
}
