//! The path: `GET /drained/<namespace>/<RegisteredService>`.
//!
//! Owns the bounds of connections, and the codes of answers, none of which has a body. Refuses to know what a request
//! waits for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::routing::any;
use axum::serve::Listener;
use futures::future::join;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use twinspan_core::model::ServiceKey;

use super::requests::{Drain, WAITING};
use super::wait::{LONGEST, Outcome};
use crate::env::Env;
use crate::telemetry::patience::Patience;
use crate::telemetry::server::{Bounds, serve_within};

/// Connections at once: those that wait, and enough to say no to others.
const CONNECTIONS: usize = WAITING + 256;
/// Time of a connection besides the longest wait.
const BESIDES: Duration = Duration::from_secs(30);

/// Time for the last answers to go out once the process ends.
const LAST: Duration = Duration::from_millis(200);
const BOUNDS: Bounds =
    Bounds { connections: CONNECTIONS, life: Some(LONGEST.saturating_add(BESIDES)), patience: Patience::ENDLESS };

/// Serves the path until it is stopped. By then every request has its answer, which has to leave the process.
pub async fn serve(drain: Arc<Drain>, listener: impl Listener, env: Env, stop: CancellationToken) {
    let pages = Router::new()
        .route("/drained/{namespace}/{name}", any(drained))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .with_state(drain);
    let close = CancellationToken::new();
    let serving = serve_within(BOUNDS, listener, pages, env, close.clone());
    let closing = async {
        stop.cancelled().await;
        sleep(LAST).await;
        close.cancel();
    };
    join(serving, closing).await;
}

/// A kubelet reads no code of a hook; a person who tries it does.
async fn drained(
    State(drain): State<Arc<Drain>>,
    method: Method,
    path: Result<Path<(String, String)>, PathRejection>,
) -> StatusCode {
    if method != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED;
    }
    // No object has a name that is not text.
    let Ok(Path((namespace, name))) = path else { return StatusCode::OK };
    match drain.drained(&ServiceKey::new(namespace, name)).await {
        Outcome::Busy => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}
