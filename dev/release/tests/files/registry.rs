//! A registry that a test plays: blobs, manifests, tokens, and no API for referrers. Owns what the distribution spec
//! asks of it, as far as a release does, and the faults that a test wants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{Request, Response};
use serde_json::json;
use tokio::net::TcpListener;
use twinspan_image::digest;

#[derive(Default)]
pub struct Content {
    blobs: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// By `repository:tag` and `repository:digest`, with their media types.
    pub manifests: BTreeMap<String, (String, Bytes)>,
    /// Tags in the order in which they were written.
    pub tags: Vec<String>,
    /// Requests that may change something.
    pub writes: usize,
    /// Nobody pulls or pushes without a token, and a token to pull is not for a repository that does not exist.
    pub tokens: bool,
    /// Nobody gets a token.
    pub closed: bool,
    /// A token gives no right to write.
    pub read_only: bool,
    /// A list under the tag `sha256-…` is answered with the error of a registry that is asked too often.
    pub lists_fail: bool,
}

pub struct Registry {
    pub host: String,
    pub content: Arc<Mutex<Content>>,
}

impl Registry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let content = Arc::new(Mutex::new(Content::default()));
        let app = Router::new().fallback(answer).with_state((host.clone(), content.clone()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { host, content }
    }
}

type Shared = (String, Arc<Mutex<Content>>);

async fn answer(State((host, content)): State<Shared>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().replace("%3A", ":").replace("%2C", ",").replace("%2F", "/");
    let header = |name: &str| head.headers.get(name).map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
    let asked = Asked {
        host,
        method: head.method.to_string(),
        path,
        query,
        media_type: header("content-type"),
        authorization: header("authorization"),
        body,
    };
    content.lock().unwrap().answer(&asked)
}

/// The parts of a request.
struct Asked {
    host: String,
    method: String,
    path: String,
    query: String,
    media_type: String,
    authorization: String,
    body: Bytes,
}

fn plain(status: u16) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

fn at(status: u16, location: &str) -> Response<Body> {
    Response::builder().status(status).header("Location", location).body(Body::empty()).unwrap()
}

fn error(status: u16, code: &str) -> Response<Body> {
    let text = json!({"errors": [{"code": code, "message": "a fault of the test"}]}).to_string();
    Response::builder().status(status).body(text.into()).unwrap()
}

impl Content {
    fn answer(&mut self, asked: &Asked) -> Response<Body> {
        let Asked { host, method, path, query, media_type, authorization, body } = asked;
        if path == "/token" {
            return self.token(query);
        }
        if self.tokens && (path == "/v2/" || authorization.is_empty()) {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"{host}\"");
            return Response::builder().status(401).header("WWW-Authenticate", challenge).body(Body::empty()).unwrap();
        }
        let Some(path) = path.strip_prefix("/v2/").filter(|path| !path.is_empty()) else { return plain(200) };
        if !["GET", "HEAD"].contains(&method.as_str()) {
            self.writes += 1;
            if self.read_only {
                return error(403, "DENIED");
            }
        }
        if let Some((repository, name)) = path.split_once("/blobs/uploads/") {
            return self.upload(method, repository, name, query, body);
        }
        if let Some((_, name)) = path.split_once("/blobs/") {
            return self.blobs.get(name).map_or_else(|| plain(404), |found| Response::new(found.clone().into()));
        }
        let Some((repository, name)) = path.split_once("/manifests/") else { return plain(404) };
        if method == "PUT" {
            if !name.starts_with("sha256:") {
                self.tags.push(format!("{repository}:{name}"));
            }
            let kept = (media_type.clone(), body.clone());
            self.manifests.insert(format!("{repository}:{}", digest(body)), kept.clone());
            self.manifests.insert(format!("{repository}:{name}"), kept);
            return at(201, path);
        }
        if self.lists_fail && name.starts_with("sha256-") && !name.ends_with(".sig") {
            return error(429, "TOOMANYREQUESTS");
        }
        let Some((kind, found)) = self.manifests.get(&format!("{repository}:{name}")) else {
            return error(404, "MANIFEST_UNKNOWN");
        };
        Response::builder().header("Content-Type", kind).body(found.clone().into()).unwrap()
    }

    fn token(&self, query: &str) -> Response<Body> {
        let repository = query.split_once("repository:").unwrap().1.split(':').next().unwrap();
        let exists = self.manifests.keys().any(|name| name.starts_with(&format!("{repository}:")));
        if self.closed || !(exists || query.contains("push")) {
            return error(403, "DENIED");
        }
        Response::new(json!({"token": "a token"}).to_string().into())
    }

    fn upload(&mut self, method: &str, repository: &str, name: &str, query: &str, body: &[u8]) -> Response<Body> {
        if method == "POST" {
            let name = format!("upload-{}", self.uploads.len());
            self.uploads.insert(name.clone(), Vec::new());
            return at(202, &format!("/v2/{repository}/blobs/uploads/{name}"));
        }
        let part = self.uploads.get_mut(name).unwrap();
        part.extend(body);
        if method == "PATCH" {
            return at(202, &format!("/v2/{repository}/blobs/uploads/{name}"));
        }
        let wanted = query.strip_prefix("digest=").unwrap();
        if digest(part) != wanted {
            return error(400, "DIGEST_INVALID");
        }
        let whole = Bytes::from(std::mem::take(part));
        self.blobs.insert(wanted.to_owned(), whole);
        at(201, &format!("/v2/{repository}/blobs/{wanted}"))
    }
}
