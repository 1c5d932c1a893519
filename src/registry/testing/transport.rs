//! The way to the member, below etcd's client.
//!
//! Owns the faults that etcd does not have by itself, and the count of the calls. Refuses to answer a call in etcd's
//! place, but for an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::proto::{
    PbLeaseKeepAliveRequest, PbLeaseTimeToLiveRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbWatchRequest,
    PbWatchRequestUnion, PbWatchResponse,
};
use etcd_client::{Channel, Client, ConnectOptions, Error};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use prost::Message;
use prost::bytes::Bytes;
use sim_etcd::Member;
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};

use super::Faults;
use crate::registry::etcd::Dialer;

/// Bytes before a message of gRPC: a flag, and the length of the message.
const HEAD: usize = 5;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) faults: Faults,
    /// Key prefixes whose lists fail.
    pub(super) unlisted: BTreeSet<Vec<u8>>,
    /// Key prefixes that our user may not read, and those that it may not write.
    pub(super) unreadable: BTreeSet<String>,
    pub(super) unwritable: BTreeSet<String>,
    /// Keys whose next change no watch reports.
    pub(super) swallowed: BTreeSet<Vec<u8>>,
    /// Leases whose keepalives are not answered.
    pub(super) stalled: BTreeSet<i64>,
    pub(super) calls: BTreeMap<&'static str, usize>,
    commits: usize,
    pub(super) most_commits: usize,
}

/// The connection of every client to the server; clones share its faults.
#[derive(Clone)]
pub(super) struct Transport {
    member: Member,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

#[async_trait]
impl Dialer for Transport {
    async fn dial(&self, _: &str, options: ConnectOptions) -> Result<Client, Error> {
        Client::from_channel(Channel::Custom(BoxCloneSyncService::new(self.clone())), Some(options)).await
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().carry(request))
    }
}

/// A call of [`crate::registry::Registry`], told from its first message.
struct Call {
    name: &'static str,
    /// The key prefix of a list, or nothing.
    key_prefix: Vec<u8>,
    /// The lease of a keepalive, or 0.
    lease: i64,
}

impl Transport {
    pub(super) fn to(member: Member) -> Self {
        Self { member, state: Arc::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry(mut self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let method = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let (call, body) = self.read(&method, body).await?;
        let commits = call.name == "commit";
        if let Some(time) = self.begin(&call) {
            sleep(time).await;
        }
        self.state().commits -= usize::from(commits);
        let answer_takes = self.answer_takes(&call);
        if let Err(status) = self.admit(&call) {
            sleep(answer_takes).await;
            return Ok(status.into_http());
        }
        let never = |state: &State| {
            state.stalled.contains(&call.lease) || (call.name == "leases" && state.faults.no_lease_list)
        };
        if never(&self.state()) {
            return pending().await;
        }
        let response = self.member.call(Request::from_parts(parts, body)).await?;
        sleep(answer_takes).await;
        if commits && self.state().faults.answers_lost {
            return pending().await;
        }
        if method != "Watch" {
            return Ok(response);
        }
        let edit = move |bytes: Bytes| edit_messages(&bytes, |message| self.deliver(message));
        Ok(response.map(|body| Body::new(body.map_frame(move |frame| frame.map_data(&edit)))))
    }

    /// Reads the first message; those of a watch are read as they come.
    async fn read(&self, method: &str, mut body: Body) -> Result<(Call, Body), BoxError> {
        match method {
            "Watch" => {
                let transport = self.clone();
                let edit = move |bytes: Bytes| edit_messages(&bytes, |message| transport.send(message));
                Ok((call_of(method, &[])?, Body::new(body.map_frame(move |frame| frame.map_data(&edit)))))
            }
            "LeaseKeepAlive" => {
                let first = body.frame().await.ok_or("a keepalive without a request")??;
                let call = call_of(method, first.data_ref().and_then(|data| data.get(HEAD..)).unwrap_or_default())?;
                let all = stream::iter([Ok(first)]).chain(BodyStream::new(body));
                Ok((call, Body::new(StreamBody::new(all))))
            }
            _ => {
                let bytes = body.collect().await?.to_bytes();
                let call = call_of(method, bytes.get(HEAD..).unwrap_or_default())?;
                Ok((call, Body::new(Full::new(bytes))))
            }
        }
    }

    /// The time until a call has an effect.
    fn begin(&self, call: &Call) -> Option<Duration> {
        let mut state = self.state();
        let faults = state.faults;
        if call.name == "commit" {
            state.commits += 1;
            state.most_commits = state.most_commits.max(state.commits);
        }
        match call.name {
            "list" if faults.slow => Some(Duration::from_secs(1)),
            "commit" if faults.slow_commits => Some(Duration::from_millis(100)),
            _ => None,
        }
    }

    /// The time from the end of a call to its answer.
    fn answer_takes(&self, call: &Call) -> Duration {
        if call.name == "grant" && self.state().faults.slow_grants { Duration::from_secs(1) } else { Duration::ZERO }
    }

    fn admit(&self, call: &Call) -> Result<(), Status> {
        let mut state = self.state();
        let breaks_off = state.faults.breaks_off.take_if(|name| *name == call.name).is_some();
        assert!(!breaks_off, "{} breaks off", call.name);
        *state.calls.entry(call.name).or_default() += 1;
        if state.faults.away {
            return Err(Status::unavailable("connection refused"));
        }
        if call.name == "leases" && state.faults.many_leases {
            return Err(Status::out_of_range(
                "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
            ));
        }
        if call.name == "list" && state.unlisted.contains(&call.key_prefix) {
            return Err(Status::unavailable("etcdserver: request timed out"));
        }
        Ok(())
    }

    /// A request on a watch stream, as it arrives.
    fn send(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state();
        let Ok(mut request) = PbWatchRequest::decode(message) else { return Some(message.to_vec()) };
        match &mut request.request_union {
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                *state.calls.entry("progress").or_default() += 1;
                if state.faults.no_progress || state.faults.progress_lost {
                    return None;
                }
            }
            // The server chooses the number.
            Some(PbWatchRequestUnion::CreateRequest(create)) if state.faults.no_progress => create.watch_id = 0,
            _ => {}
        }
        Some(request.encode_to_vec())
    }

    /// A response of a watch stream, as it arrives.
    fn deliver(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state();
        let Ok(mut response) = PbWatchResponse::decode(message) else { return Some(message.to_vec()) };
        let before = response.events.len();
        response.events.retain(|event| event.kv.as_ref().is_none_or(|kv| !state.swallowed.remove(&kv.key)));
        let swallowed = before > 0 && response.events.is_empty();
        (!swallowed).then(|| response.encode_to_vec())
    }
}

fn call_of(method: &str, message: &[u8]) -> Result<Call, BoxError> {
    let mut call = Call { name: "other", key_prefix: Vec::new(), lease: 0 };
    call.name = match method {
        "Status" => "status",
        "Watch" => "watch",
        "LeaseGrant" => "grant",
        "LeaseLeases" => "leases",
        "LeaseKeepAlive" => {
            call.lease = PbLeaseKeepAliveRequest::decode(message)?.id;
            "keep_alive"
        }
        "LeaseTimeToLive" if PbLeaseTimeToLiveRequest::decode(message)?.keys => "keys_of",
        "LeaseTimeToLive" => "look_up",
        "Range" => {
            let range = PbRangeRequest::decode(message)?;
            call.key_prefix = range.key;
            match range.revision {
                _ if range.count_only => "count",
                _ if range.keys_only => "keys",
                0 => "list",
                _ if range.serializable => "page",
                _ => "rest of a list",
            }
        }
        "Txn" => {
            let gets = |op: &Option<PbTxnOpRequest>| matches!(op, Some(PbTxnOpRequest::RequestRange(_)));
            let reads = PbTxnRequest::decode(message)?.success.iter().all(|op| gets(&op.request));
            if reads { "read" } else { "commit" }
        }
        _ => "other",
    };
    Ok(call)
}

/// Edits each message of a frame, or drops it. The frames of tonic hold whole messages.
fn edit_messages(mut frame: &[u8], edit: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Bytes {
    let mut edited = Vec::with_capacity(frame.len());
    while let Some((head, rest)) = frame.split_first_chunk::<HEAD>() {
        let [flag, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let (message, next) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if let Some(message) = edit(message) {
            edited.push(flag);
            edited.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
            edited.extend(message);
        }
        frame = next;
    }
    edited.into()
}
