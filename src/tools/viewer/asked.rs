//! The running operator in this pod, asked over its socket.
//!
//! Owns the requests, their deadline and their errors. Refuses to know the answers' meaning.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use twinspan_core::model::ServiceKey;

use super::unsynced::Unsynced;
use crate::tools::discovery::DiscoveryPreview;
use crate::tools::preview::Preview;
use crate::tools::record::RecordReport;

/// The time that one answer may take.
const ANSWERED: Duration = Duration::from_secs(20);

/// The reason why the operator in this pod could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "the operator in this pod does not answer at {path} ({source}); see whether its container runs, or leave \
         TWINSPAN_SOCKET empty to look without it, which needs memory"
    )]
    Connect { path: String, source: io::Error },
    #[error("the operator in this pod did not answer within {} s; try again", ANSWERED.as_secs())]
    Timeout,
    #[error("the answer of the operator in this pod broke off: {0}; try again")]
    Http(#[from] hyper::Error),
    #[error("the operator in this pod refuses the question ({0}); use the program of its own container")]
    Status(StatusCode),
    #[error("cannot read the answer of the operator in this pod: {0}; use the program of its own container")]
    Json(#[from] serde_json::Error),
}

/// The result of a question. Own views answer always.
pub type Result<T> = std::result::Result<T, AskError>;

/// An operator behind a socket.
pub struct Asked {
    socket: PathBuf,
}

impl Asked {
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    pub async fn unsynced(&self) -> Result<Vec<Unsynced>> {
        self.ask(Method::GET, "/unsynced", "").await
    }

    pub async fn services(&self) -> Result<Vec<ServiceKey>> {
        self.ask(Method::GET, "/services", "").await
    }

    pub async fn preview(&self, key: &ServiceKey) -> Result<Option<Preview>> {
        self.ask(Method::GET, &format!("/preview/{key}"), "").await
    }

    pub async fn discoveries(&self) -> Result<Vec<DiscoveryPreview>> {
        self.ask(Method::GET, "/discoveries", "").await
    }

    pub async fn records(&self, about: &str) -> Result<Vec<RecordReport>> {
        self.ask(Method::POST, "/records", about).await
    }

    pub async fn followed_by_names(&self) -> Result<Vec<String>> {
        self.ask(Method::GET, "/followed-by-names", "").await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: &str) -> Result<T> {
        let answer = tokio::time::timeout(ANSWERED, self.answer(method, path, body.to_owned()));
        Ok(serde_json::from_slice(&answer.await.map_err(|_| AskError::Timeout)??)?)
    }

    /// One connection for each question: they are few, and a local one costs next to nothing.
    async fn answer(&self, method: Method, path: &str, body: String) -> Result<Bytes> {
        let there = |source| AskError::Connect { path: self.socket.display().to_string(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(there)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| AskError::Status(StatusCode::BAD_REQUEST))?;
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("twinspan"));
        let answered = async {
            let response = sender.send_request(request).await?;
            match response.status() {
                StatusCode::OK => Ok(response.into_body().collect().await?.to_bytes()),
                status => Err(AskError::Status(status)),
            }
        };
        tokio::pin!(connection, answered);
        tokio::select! {
            biased;
            answer = &mut answered => answer,
            ended = &mut connection => {
                ended?;
                // The answer may have arrived before the end, and is still to be read.
                answered.await
            }
        }
    }
}
