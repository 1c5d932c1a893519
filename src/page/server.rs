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
use axum::response::sse::Sse;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::time::timeout;
use twinspan_core::model::ServiceKey;

use super::assets::asset;
use super::door::seal;
use super::source::Page;
use super::stream::{Since, events};
use crate::telemetry::patience::Patience;
use crate::telemetry::server::Bounds;

/// Connections at once: the streams, and enough for everybody to look besides.
const CONNECTIONS: usize = 64;
/// Time in which something of an answer, or of a stream, has to go out.
const WRITTEN: Duration = Duration::from_secs(10);
/// Time in which the whole of an answer, and everything that is queued for a stream, has to be out.
const DRAINED: Duration = Duration::from_secs(60);
/// A connection on which nothing goes either way for longer has nobody at its other end: a stream has heartbeats.
const QUIET: Duration = Duration::from_secs(60);
/// Time to wait for the explanations of others.
const EXPLAINED: Duration = Duration::from_secs(10);

/// The bounds of its connections.
pub fn bounds() -> Bounds {
    let patience = Patience { written: WRITTEN, drained: DRAINED, quiet: QUIET };
    Bounds { connections: CONNECTIONS, life: None, patience }
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
    let Ok(answer) = timeout(EXPLAINED, page.in_full(&key)).await else {
        return busy("others wait for an explanation; try again\n");
    };
    match answer {
        Some(body) => json(body),
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
    Sse::new(events(page, since, place)).into_response()
}

fn busy(text: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], text).into_response()
}

fn json(body: Result<Bytes, serde_json::Error>) -> Response {
    match body {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
