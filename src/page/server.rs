//! The paths of the page.
//!
//! - `/` and its files; `/state`: everything; `/service/<namespace>/<name>`: one service in full; `/events`: changes.
//!
//! Owns which answer a path has, the bounds of connections, and the busy answer. Refuses to admit anybody, which
//! [`super::door`] does, and to make what it sends, which [`super::source`] does.

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
use tokio::time::timeout;
use twinspan_core::model::ServiceKey;

use super::answer;
use super::assets::asset;
use super::door::seal;
use super::source::Page;
use super::stream::{Since, events};
use crate::telemetry::patience::Patience;
use crate::telemetry::server::Bounds;

/// Connections at once: the streams, and enough for everybody to look besides.
const CONNECTIONS: usize = 64;
/// Time in which an answer, or a part of a stream, has to go out.
const WRITTEN: Duration = Duration::from_secs(10);
/// The time between two comments on a quiet stream, which proxies between would end.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A connection on which nothing goes either way for longer has nobody at its other end: a stream has heartbeats.
const QUIET: Duration = Duration::from_secs(60);
/// Time to wait for the explanations of others.
const EXPLAINED: Duration = Duration::from_secs(10);

/// The bounds of its connections.
pub fn bounds() -> Bounds {
    Bounds { connections: CONNECTIONS, life: None, patience: Patience { written: WRITTEN, quiet: QUIET } }
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
    match page.everything().await.transpose() {
        Some(body) => json(body),
        None => busy("too many read the state slowly; try again\n"),
    }
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
