//! The way to the members of an etcd.
//!
//! Owns the transport below etcd's client, and the dialer that hands it out. Refuses to answer.

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Channel, Client, ConnectOptions, Error};
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use sim_etcd::Etcd;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};
use twinspan::registry::etcd::Dialer;

use super::{Link, Sender, Wire, body};
use crate::wire::fate::Fate;

/// Calls whose request is one message.
const STREAMING: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];

/// Dials the members by their endpoints.
#[derive(Clone, Debug)]
pub struct ToMembers {
    wire: Wire,
    /// The etcd and the member behind each endpoint.
    members: BTreeMap<String, (Etcd, usize)>,
    sender: Sender,
}

impl ToMembers {
    pub fn new(wire: &Wire, members: BTreeMap<String, (Etcd, usize)>, sender: &Sender) -> Self {
        Self { wire: wire.clone(), members, sender: sender.clone() }
    }
}

#[async_trait]
impl Dialer for ToMembers {
    async fn dial(&self, endpoint: &str, options: ConnectOptions) -> Result<Client, Error> {
        let Some((etcd, index)) = self.members.get(endpoint) else {
            return Err(Error::InvalidArgs(format!("nobody is at {endpoint}")));
        };
        let to = endpoint.trim_start_matches("http://").split(':').next().unwrap_or_default().to_owned();
        let member =
            ToMember { wire: self.wire.clone(), etcd: etcd.clone(), index: *index, to, sender: self.sender.clone() };
        Client::from_channel(Channel::Custom(BoxCloneSyncService::new(member)), Some(options)).await
    }
}

/// The connection to one member.
#[derive(Clone)]
struct ToMember {
    wire: Wire,
    etcd: Etcd,
    index: usize,
    to: String,
    sender: Sender,
}

impl Service<Request<Body>> for ToMember {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let path = parts.uri.path().to_owned();
            let body = if STREAMING.contains(&path.as_str()) {
                let there = Link::new(&this.sender.name, &this.to);
                Body::new(body::carry(&this.wire, there, body, Fate::default(), None))
            } else {
                let bytes: Bytes = body.collect().await?.to_bytes();
                this.wire.log_request(&this.sender, &this.to, &path, bytes.clone());
                Body::new(Full::new(bytes))
            };
            let mut member = this.etcd.member(this.index);
            let ask = move |request| -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
                Box::pin(async move { member.call(request).await })
            };
            let summary = path.rsplit('/').next().unwrap_or_default().to_owned();
            let request = Request::from_parts(parts, body);
            let response = this.wire.carry(this.sender, this.to, summary, request, ask, None).await?;
            Ok(response.map(Body::new))
        })
    }
}
