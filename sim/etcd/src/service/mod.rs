//! The gRPC endpoint of a member.
//!
//! Owns the way to a service, who calls, and what a member does that is down, frozen or without a leader. Refuses to
//! know what a request means.

mod auth;
mod cluster;
mod kv;
mod lease;
mod watch;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::proto::{
    PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbResponseHeader, PbWatchServer,
};
use tonic::body::Body;
use tonic::{Request, Status};
use tower::{BoxError, Service};

use crate::error::Error;
use crate::etcd::Etcd;
use crate::members::MemberState;
use crate::requests::Caller;
use crate::state::State;

/// The header that names who is behind a request, for the history.
pub const AUTHOR_HEADER: &str = "sim-author";
const UNKNOWN: &str = "unknown";
const TOKEN_HEADER: &str = "token";
/// The header that etcd's clients send to be refused where there is no leader (`MetadataRequireLeaderKey`).
const LEADER_HEADER: &str = "hasleader";
/// `ReqTimeout` of etcd's server: 5 s for the disk, and two election timeouts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// A member as a client reaches it: a channel for `etcd_client::Client::from_channel`. The future of a call has its
/// effect when it is polled to its end, whether anybody reads the answer or not.
#[derive(Clone, Debug)]
pub struct Member {
    etcd: Etcd,
    index: usize,
}

/// The headers of a request, as far as a member reads them.
#[derive(Clone, Debug)]
struct Headers {
    author: String,
    token: Option<String>,
    require_leader: bool,
    /// The breaks of the member when the call began: a stream does not live through one.
    breaks: u64,
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.etcd.is_same(&other.etcd)
    }
}

impl Service<http::Request<Body>> for Member {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let member = self.clone();
        Box::pin(async move { Ok(member.serve(request).await) })
    }
}

impl Member {
    pub(crate) fn new(etcd: Etcd, index: usize) -> Self {
        Self { etcd, index }
    }

    async fn serve(self, mut request: http::Request<Body>) -> http::Response<Body> {
        let breaks = match self.thawed(None).await {
            Ok(breaks) => breaks,
            Err(error) => return Status::from(error).into_http(),
        };
        let headers = headers(&request, breaks);
        if headers.require_leader && self.etcd.with(|state| state.members.leader.is_none()) {
            return Status::from(Error::NoLeader).into_http();
        }
        request.extensions_mut().insert(headers);
        let response = self.route(request).await;
        // A member that stopped meanwhile answers later, or never.
        match self.thawed(Some(breaks)).await {
            Ok(_) => response,
            Err(error) => Status::from(error).into_http(),
        }
    }

    async fn route(&self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        let service = path.split('/').nth(1).unwrap_or_default();
        // Limits of size are etcd's own: its error has another text.
        let Ok(response) = match service {
            "etcdserverpb.KV" => {
                let mut kv = PbKvServer::new(self.clone()).max_decoding_message_size(usize::MAX);
                kv.call(request).await
            }
            "etcdserverpb.Watch" => PbWatchServer::new(self.clone()).call(request).await,
            "etcdserverpb.Lease" => PbLeaseServer::new(self.clone()).call(request).await,
            "etcdserverpb.Cluster" => PbClusterServer::new(self.clone()).call(request).await,
            "etcdserverpb.Maintenance" => PbMaintenanceServer::new(self.clone()).call(request).await,
            "etcdserverpb.Auth" => self.auth(&path, request).await,
            _ => Ok::<_, Infallible>(Status::unimplemented(format!("unknown service {service}")).into_http()),
        };
        response
    }

    /// Waits until the member runs, and returns how often its connections broke; an error if it is down, or was since.
    async fn thawed(&self, since: Option<u64>) -> Result<u64, Error> {
        let look = |state: &mut State| self.reached(state, since).transpose();
        self.etcd.wait(None, look).await.unwrap_or(Err(Error::Unreachable))
    }

    /// The number of breaks of a member that runs; none while it is frozen.
    fn reached(&self, state: &State, since: Option<u64>) -> Result<Option<u64>, Error> {
        let member = state.members.get(self.index).filter(|member| member.is_up()).ok_or(Error::Unreachable)?;
        if since.is_some_and(|since| since != member.breaks) {
            return Err(Error::Unreachable);
        }
        Ok(member.runs().then_some(member.breaks))
    }

    /// The caller by its token. A token that is unknown is an error only with authentication.
    fn caller(&self, headers: &Headers) -> Result<Caller, Error> {
        self.etcd.with(|state| self.caller_in(state, headers))
    }

    fn caller_in(&self, state: &mut State, headers: &Headers) -> Result<Caller, Error> {
        let now = state.now;
        let member = state.members.get_mut(self.index).ok_or(Error::Unreachable)?;
        let user = state.auth.user(&mut member.tokens, headers.token.as_deref(), now)?;
        Ok(Caller { author: headers.author.clone(), user })
    }

    /// Waits until a leader commits, has the effect, and waits until this member has applied it.
    async fn propose<R>(
        &self,
        headers: &Headers,
        effect: impl FnOnce(&mut State) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut effect = Some(effect);
        let commit = |state: &mut State| {
            match self.reached(state, Some(headers.breaks)) {
                Ok(Some(_)) if state.members.commits() => {}
                Ok(_) => return None,
                Err(error) => return Some(Err(error)),
            }
            let effect = effect.take()?;
            Some(effect(state).map(|result| (result, state.committed())))
        };
        let (result, index) = self.etcd.wait(Some(REQUEST_TIMEOUT), commit).await.unwrap_or(Err(Error::Timeout))?;
        self.applied(headers, index).await?;
        Ok(result)
    }

    /// Waits until the member has applied what was committed before (`LinearizableReadNotify`).
    async fn linearizable(&self, headers: &Headers) -> Result<(), Error> {
        self.propose(headers, |_| Ok(())).await
    }

    async fn applied(&self, headers: &Headers, index: u64) -> Result<(), Error> {
        let look = |state: &mut State| {
            if let Err(error) = self.reached(state, Some(headers.breaks)) {
                return Some(Err(error));
            }
            let applied = self.state(state).map_or(0, |member| member.applied);
            (applied >= index).then_some(Ok(()))
        };
        self.etcd.wait(Some(REQUEST_TIMEOUT), look).await.unwrap_or(Err(Error::Timeout))
    }

    fn state<'a>(&self, state: &'a State) -> Option<&'a MemberState> {
        state.members.get(self.index)
    }

    /// Completes a header, as `header.fill` of `server/etcdserver/api/v3rpc/header.go`: a revision of 0 becomes that of
    /// the member.
    fn fill(&self, header: &mut Option<PbResponseHeader>) {
        let header = header.get_or_insert_default();
        self.etcd.with(|state| {
            let revision = self.state(state).map_or(0, |member| member.view.revision);
            if header.revision == 0 {
                header.revision = revision;
            }
            self.identify(state, header);
        });
    }

    fn identify(&self, state: &State, header: &mut PbResponseHeader) {
        header.cluster_id = state.cluster_id;
        header.member_id = self.state(state).map_or(0, |member| member.id);
        header.raft_term = state.members.term;
    }
}

fn headers(request: &http::Request<Body>, breaks: u64) -> Headers {
    let get = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Headers {
        author: get(AUTHOR_HEADER).unwrap_or_else(|| UNKNOWN.to_owned()),
        token: get(TOKEN_HEADER),
        require_leader: get(LEADER_HEADER).is_some_and(|value| value == "true"),
        breaks,
    }
}

fn of<T>(request: &Request<T>) -> Result<Headers, Status> {
    let headers = request.extensions().get::<Headers>().cloned();
    headers.ok_or_else(|| Status::internal("a request without headers"))
}
