//! The way to an API server.
//!
//! Owns the transport below kube's client. Refuses to answer.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use kube::client::{Body, DynBody};
use sim_kube::Cluster;
use tower::{BoxError, Service};
use twinspan::cluster::client::Answering;

use super::{Part, Sender, Wire};
use crate::dice::hash;

/// The read timeout of the real client (`cluster/client.rs`).
const SILENCE: Duration = Duration::from_secs(70);
/// Requests in a row to one of several API servers.
const IN_A_ROW: u64 = 20;

/// A transport of one replica.
#[derive(Clone, Debug)]
pub struct ToApiServers {
    wire: Wire,
    cluster: Cluster,
    /// The names of the servers.
    servers: Vec<String>,
    sender: Sender,
}

impl ToApiServers {
    pub fn new(wire: &Wire, cluster: &Cluster, servers: Vec<String>, sender: &Sender) -> Self {
        Self { wire: wire.clone(), cluster: cluster.clone(), servers, sender: sender.clone() }
    }
}

impl Service<Request<Body>> for ToApiServers {
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = Answering<Box<DynBody>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let block = this.wire.sent_by(&this.sender.name, Part::Request) / IN_A_ROW;
            let index = hash(this.wire.0.seed, &[&this.sender.name, "server"], block) as usize % this.servers.len();
            let to = this.servers.get(index).cloned().unwrap_or_default();
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
            let summary = format!("{} {path}", parts.method);
            if parts.method != Method::GET || path.contains("/leases/") {
                this.wire.log_request(&this.sender, &to, &summary, body.clone());
            }
            let request = Request::from_parts(parts, Body::from(body));
            let mut server = this.cluster.server(index);
            let ask = move |request| -> futures::future::BoxFuture<'static, _> {
                Box::pin(async move { server.call(request).await })
            };
            let response = this.wire.carry(this.sender, to, summary, request, ask, Some(SILENCE)).await?;
            Ok(response.map(|body| Box::new(body) as Box<DynBody>))
        })
    }
}
