//! The operator's side of the socket in its pod: the answers as JSON over HTTP.
//!
//! Owns the paths, which [`super::asked`] asks for; both are of one build. Refuses to judge who asks: the socket lies
//! in a volume of the pod, and whoever may run a command in the pod has the operator's rights already.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use twinspan_core::model::ServiceKey;

use super::answers;
use crate::controllers::views::Views;
use crate::tools::question::Question;

/// The pages over the views of a running operator.
pub fn pages(views: Views) -> Router {
    Router::new()
        .route("/unsynced", get(async |State(views): State<Views>| json(&answers::unsynced(&views.for_reader()))))
        .route("/services", get(async |State(views): State<Views>| json(&answers::services(&views))))
        .route("/preview/{namespace}/{name}", get(preview))
        .route("/discoveries", get(async |State(views): State<Views>| json(&answers::discoveries(&views))))
        .route("/records", post(records))
        .route("/followed-by-names", get(async |State(views): State<Views>| json(&answers::followed_by_names(&views))))
        .with_state(views)
}

async fn preview(State(views): State<Views>, Path((namespace, name)): Path<(String, String)>) -> Response {
    json(&answers::preview(&views.for_reader(), &ServiceKey::new(namespace, name)))
}

/// The question is the body, for a key may hold any character.
async fn records(State(views): State<Views>, about: String) -> Response {
    json(&answers::records(&views, &Question::new(&about)))
}

fn json<T: Serialize>(answer: &T) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
