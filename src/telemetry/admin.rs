//! The admin address: `/livez`, `/readyz`, `/metrics`.
//!
//! `/livez` says that the process runs; a restart would help nothing else. `/readyz` says whether the cluster's views are complete,
//! and if not, what they wait for. A registry that is away makes nobody unready: its ServiceRegistry says so.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::cluster::view::{ClusterView, Kind};

#[derive(Clone, Debug)]
struct Shown {
    cluster: Arc<Mutex<ClusterView>>,
    metrics: Arc<Metrics>,
}

/// Serves until it is stopped.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    cluster: Arc<Mutex<ClusterView>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(print_metrics))
        .with_state(Shown { cluster, metrics });
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let waiting = shown.cluster.lock().unwrap_or_else(PoisonError::into_inner).waiting_for();
    if waiting.is_empty() {
        return "ok".into_response();
    }
    let kinds: Vec<&str> = waiting.into_iter().map(Kind::as_str).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for a list of: {}", kinds.join(", "))).into_response()
}

async fn print_metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.print() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
