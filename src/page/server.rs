//! The paths of the page.
//!
//! - `/` and its files; `/state`: everything; `/service/<namespace>/<name>`: one service in full; `/events`: changes.
//!
//! Owns the bounds on readers: so many streams, one explanation at a time, and everything at most once a second however
//! many ask. Refuses to admit anybody, which [`super::door`] does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::answer::{self, Process};
use super::assets::asset;
use super::board::Board;
use super::detail::Explain;
use super::door::{Hosts, seal};
use super::stream::{Since, events};
use crate::env::Env;
use crate::leadership::Leadership;
use crate::telemetry::patience::Patience;
use crate::telemetry::server::Bounds;

/// Streams at once.
pub const STREAMS: usize = 20;
/// Connections at once: the streams, and enough for everybody to look besides.
const CONNECTIONS: usize = 64;
/// Time in which an answer, or a part of a stream, has to go out.
const WRITTEN: Duration = Duration::from_secs(10);
/// The time between two comments on a quiet stream, which proxies between would end.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A connection on which nothing goes either way for longer has nobody at its other end: a stream has heartbeats.
const QUIET: Duration = Duration::from_secs(60);
/// The age at which the answer to `/state` is made anew. Changes since then come as events.
const FRESH: Duration = Duration::from_secs(1);
/// Time to wait for the explanations of others.
const EXPLAINED: Duration = Duration::from_secs(10);

/// The bounds of its connections.
pub fn bounds() -> Bounds {
    Bounds { connections: CONNECTIONS, life: None, patience: Patience { written: WRITTEN, quiet: QUIET } }
}

/// Everything that the page shows.
pub struct Page {
    pub(super) board: Board,
    pub(super) leadership: Leadership,
    replica: String,
    hosts: Hosts,
    explain: Explain,
    env: Env,
    boot: String,
    streams: Arc<Semaphore>,
    explaining: Semaphore,
    everything: Mutex<Option<Made>>,
}

/// An answer to `/state`.
#[derive(Clone)]
struct Made {
    at: Instant,
    boot: String,
    body: Bytes,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Page {
    pub fn new(
        board: Board,
        leadership: Leadership,
        replica: &str,
        hosts: Hosts,
        explain: Explain,
        env: Env,
    ) -> Arc<Self> {
        let boot = format!("{:08x}{:08x}", env.random_u32(), env.random_u32());
        Arc::new(Self {
            board,
            leadership,
            replica: replica.to_owned(),
            hosts,
            explain,
            env,
            boot,
            streams: Arc::new(Semaphore::new(STREAMS)),
            explaining: Semaphore::new(1),
            everything: Mutex::default(),
        })
    }

    /// The process and its leadership: when either changes, readers begin anew, for what may be shown is another.
    pub(super) fn boot(&self) -> String {
        format!("{}-{}", self.boot, self.leadership.term().unwrap_or_default())
    }

    pub(super) fn process<'a>(&'a self, boot: &'a str) -> Process<'a> {
        Process { boot, replica: &self.replica, leads: self.leadership.is_leader(), now: self.env.now() }
    }

    pub(super) fn verified(&self) -> BTreeMap<String, Option<Timestamp>> {
        answer::verified(&self.board.registries())
    }

    /// Everything as JSON, made anew at most once in [`FRESH`].
    async fn everything(&self) -> Result<Bytes, serde_json::Error> {
        // Others who ask meanwhile wait for the same answer.
        let mut made = self.everything.lock().await;
        let boot = self.boot();
        let known = made.as_ref().filter(|made| made.boot == boot && made.at.elapsed() < FRESH);
        if let Some(known) = known {
            return Ok(known.body.clone());
        }
        let everything = answer::everything(&self.board.snapshot(), self.process(&boot));
        let body = Bytes::from(serde_json::to_vec(&everything)?);
        *made = Some(Made { at: Instant::now(), boot, body: body.clone() });
        Ok(body)
    }
}

/// The pages, with their door.
pub fn pages(page: Arc<Page>) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/events", get(stream))
        .route("/service/{namespace}/{name}", get(service))
        .fallback(file)
        .layer(middleware::from_fn_with_state(page.clone(), guard))
        .with_state(page)
}

async fn guard(State(page): State<Arc<Page>>, request: Request, next: Next) -> Response {
    match page.hosts.refusal(&request) {
        Some(refusal) => seal(refusal),
        None => seal(next.run(request).await),
    }
}

async fn file(uri: Uri) -> Response {
    match asset(uri.path()) {
        Some(asset) => ([(CONTENT_TYPE, asset.content_type)], asset.bytes).into_response(),
        None => (StatusCode::NOT_FOUND, "there is no such page\n").into_response(),
    }
}

async fn state(State(page): State<Arc<Page>>) -> Response {
    json(page.everything().await)
}

async fn service(State(page): State<Arc<Page>>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let key = ServiceKey::new(namespace, name);
    let Ok(Ok(_turn)) = timeout(EXPLAINED, page.explaining.acquire()).await else {
        return busy("others wait for an explanation; try again\n");
    };
    let leads = page.leadership.is_leader();
    let found = page.board.line(&key).and_then(|line| Some((line, (page.explain)(&key, leads)?)));
    match found {
        Some((line, detail)) => json(to_bytes(&answer::in_full(&line, detail, &page.verified(), leads))),
        None => {
            (StatusCode::NOT_FOUND, "there is no such RegisteredService, or no pass has seen it yet\n").into_response()
        }
    }
}

async fn stream(State(page): State<Arc<Page>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let Ok(place) = page.streams.clone().try_acquire_owned() else {
        return busy("as many people look as this page serves at once; close another, or try again\n");
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let since = Since::read(query.as_deref(), last);
    Sse::new(events(page, since, place)).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

fn busy(text: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], text).into_response()
}

fn to_bytes(answer: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(answer).map(Bytes::from)
}

fn json(body: Result<Bytes, serde_json::Error>) -> Response {
    match body {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
