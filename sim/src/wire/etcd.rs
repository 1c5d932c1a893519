//! The way to the members of an etcd.
//!
//! Owns the transport below etcd's client, and the dialer that hands it out. Refuses to answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::proto::PbLeaseKeepAliveResponse;
use etcd_client::{Channel, Client, ConnectOptions, Error};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use prost::Message;
use sim_etcd::Etcd;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};
use twinspan::registry::etcd::Dialer;

use super::{Link, Sender, Wire, body};
use crate::check::doors::{self, GRPC_HEAD};
use crate::wire::fate::Fate;

/// Calls whose request is one message.
const STREAMING: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];

/// The status of an answer, in its trailers, or in its headers if there is no message.
const STATUS: &str = "grpc-status";

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

/// The operations of a transaction, for the trace: a write, its key, and the version over which it is.
fn operations(request: &Bytes) -> String {
    let mut text = String::new();
    for operation in doors::operations(request) {
        let key = String::from_utf8_lossy(&operation.key).into_owned();
        let key = key.rsplitn(3, '/').take(2).collect::<Vec<_>>();
        let what = operation.value.map_or("delete", |_| "put");
        // A String takes everything.
        let _ =
            write!(text, " {what} {} over {}", key.into_iter().rev().collect::<Vec<_>>().join("/"), operation.version);
    }
    text
}

/// The lease that an answer to a keepalive says is gone: its TTL is not positive (`Lessor.Renew` of etcd's
/// `server/lease/lessor.go`).
fn gone_lease(frame: &Bytes) -> Option<i64> {
    let answer = PbLeaseKeepAliveResponse::decode(frame.get(GRPC_HEAD..)?).ok()?;
    (answer.ttl <= 0).then_some(answer.id)
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
            let mut summary = path.rsplit('/').next().unwrap_or_default().to_owned();
            let (body, number) = if STREAMING.contains(&path.as_str()) {
                let there = Link::new(&this.sender.name, &this.to);
                (Body::new(body::carry(&this.wire, there, body, Fate::default(), None, None)), None)
            } else {
                let bytes: Bytes = body.collect().await?.to_bytes();
                let number = this.wire.log_request(&this.sender, &this.to, &path, bytes.clone());
                if summary == "Txn" {
                    summary += &operations(&bytes);
                }
                (Body::new(Full::new(bytes)), Some(number))
            };
            let mut member = this.etcd.member(this.index);
            let ask = move |request| -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
                Box::pin(async move { member.call(request).await })
            };
            let request = Request::from_parts(parts, body);
            let (wire, sender) = (this.wire.clone(), this.sender.clone());
            let (keepalive, watch) = (summary == "LeaseKeepAlive", summary == "Watch");
            let (to, asked) = (this.to.clone(), summary.clone());
            let response = this.wire.carry(this.sender, this.to, summary, request, ask, None).await?;
            // The client takes an answer once its status has come: behind the message, or without one in its place.
            let refused = response.headers().contains_key(STATUS);
            number.filter(|_| refused).into_iter().for_each(|number| wire.answered(number));
            // The status of HTTP says nothing about the call.
            let tell = move |wire: &Wire, headers: &HeaderMap, reader: &str| {
                let status = headers.get(STATUS).and_then(|status| status.to_str().ok());
                if let Some(status) = status.filter(|status| *status != "0") {
                    wire.0.trace.add(&to, &format!("→ {reader} {asked}: {STATUS} {status}"));
                }
            };
            tell(&wire, response.headers(), &sender.name);
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    wire.heard(&sender.author);
                    frame.trailers_ref().into_iter().for_each(|trailers| tell(&wire, trailers, &sender.name));
                    number.filter(|_| frame.is_trailers()).into_iter().for_each(|number| wire.answered(number));
                    if let Some(lease) = frame.data_ref().filter(|_| keepalive).and_then(gone_lease) {
                        wire.lease_gone(&sender.author, lease);
                    }
                    if watch { frame.map_data(|data| wire.without_lost_events(&sender.name, data)) } else { frame }
                }))
            }))
        })
    }
}
