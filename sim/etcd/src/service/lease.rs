//! The service Lease.
//!
//! Owns keepalive streams, and who may see and renew a lease. Refuses to let leases expire by itself.

use std::pin::Pin;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService, PbLeaseStatus,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

use super::{Headers, Member, REQUEST_TIMEOUT, of};
use crate::error::Error;
use crate::requests::Caller;
use crate::state::State;

/// A task that ends with its stream.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Renewals = Streaming<PbLeaseKeepAliveRequest>;

impl Member {
    /// `requireAuthInfo` of v3_server.go.
    fn known_caller(&self, headers: &Headers) -> Result<Caller, Error> {
        let caller = self.caller(headers)?;
        self.etcd.with(|state| state.auth.require_user(caller.user.as_deref()))?;
        Ok(caller)
    }

    async fn next_renewal(
        &self,
        headers: &Headers,
        inbound: &mut Renewals,
    ) -> Result<Option<PbLeaseKeepAliveResponse>, Status> {
        self.thawed(Some(headers.breaks)).await?;
        let message = tokio::select! {
            biased;
            error = self.broken(headers) => return Err(error.into()),
            message = inbound.message() => message?,
        };
        let Some(PbLeaseKeepAliveRequest { id }) = message else { return Ok(None) };
        self.thawed(Some(headers.breaks)).await?;
        // The header is older than the renewal: a client may not think that a lease lived at a later revision.
        let mut response = PbLeaseKeepAliveResponse { id, ..PbLeaseKeepAliveResponse::default() };
        self.fill(&mut response.header);
        response.ttl = match self.renew(headers, id).await {
            Err(Error::LeaseNotFound) => 0,
            renewed => renewed?,
        };
        Ok(Some(response))
    }

    /// Renews at the leader. A lease that has expired and is not revoked yet makes the call wait.
    async fn renew(&self, headers: &Headers, id: i64) -> Result<i64, Error> {
        let renew = |state: &mut State| {
            match self.reached(state, Some(headers.breaks)) {
                Ok(Some(_)) if state.members.commits() => {}
                Ok(_) => return None,
                Err(error) => return Some(Err(error)),
            }
            let caller = match self.caller_in(state, headers) {
                Ok(caller) => caller,
                Err(error) => return Some(Err(error)),
            };
            let allowed = state.auth.require_user(caller.user.as_deref());
            if let Err(error) = allowed.and_then(|()| state.may_write_lease(&caller, id)) {
                return Some(Err(error));
            }
            let waits = state.leases.is_expired(id, state.now);
            (!waits).then(|| state.leases.renew(id, state.now))
        };
        self.etcd.wait(Some(REQUEST_TIMEOUT), renew).await.unwrap_or(Err(Error::Timeout))
    }

    /// Waits until a stream breaks, for its member stopped or has no leader.
    async fn broken(&self, headers: &Headers) -> Error {
        let look = |state: &mut State| match self.reached(state, Some(headers.breaks)) {
            Err(error) => Some(error),
            Ok(Some(_)) if headers.require_leader && state.members.is_leaderless(state.now) => Some(Error::NoLeader),
            Ok(_) => None,
        };
        self.etcd.wait(None, look).await.unwrap_or(Error::Unreachable)
    }
}

#[tonic::async_trait]
impl PbLeaseService for Member {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        self.known_caller(&headers)?;
        let (id, ttl) = self.propose(&headers, |state| state.grant(request.id, request.ttl)).await?;
        let mut response = PbLeaseGrantResponse { id, ttl, ..PbLeaseGrantResponse::default() };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        let caller = self.known_caller(&headers)?;
        let revoke = |state: &mut State| {
            state.may_write_lease(&caller, request.id)?;
            state.revoke(&caller.author, request.id, None)
        };
        self.propose(&headers, revoke).await?;
        let mut response = PbLeaseRevokeResponse::default();
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<PbLeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Renewals>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (headers, mut inbound) = (of(&request)?, request.into_inner());
        let (answer, mut answers) = mpsc::unbounded_channel();
        let (member, breaks) = (self.clone(), headers.breaks);
        // A renewal that arrived has its effect, whether the client reads the answer or not.
        let renewals = AbortOnDrop(tokio::spawn(async move {
            while let Some(next) = member.next_renewal(&headers, &mut inbound).await.transpose() {
                let ended = next.is_err();
                if answer.send(next).is_err() || ended {
                    return;
                }
            }
        }));
        // etcd sends its headers with the first answer: until then a stream is not open.
        let Some(first) = answers.recv().await.transpose()? else {
            return Ok(Response::new(Box::pin(stream::empty())));
        };
        let open = (self.clone(), renewals, answers);
        let rest = stream::unfold(open, move |(member, renewals, mut answers)| async move {
            let answer = answers.recv().await?;
            let answer = member.thawed(Some(breaks)).await.map_err(Status::from).and(answer);
            Some((answer, (member, renewals, answers)))
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(rest))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        let caller = self.known_caller(&headers)?;
        let id = request.id;
        let found = self.propose(&headers, |state| {
            if request.keys {
                state.may_see_lease(&caller, id)?;
            }
            Ok(state.leases.lease(id, state.now))
        });
        let mut response = match found.await? {
            Some(lease) => PbLeaseTimeToLiveResponse {
                id,
                ttl: i64::try_from(lease.remaining.as_secs()).unwrap_or(i64::MAX),
                granted_ttl: lease.ttl,
                keys: if request.keys { lease.keys.into_iter().collect() } else { Vec::new() },
                header: None,
            },
            None => PbLeaseTimeToLiveResponse { id, ttl: -1, ..PbLeaseTimeToLiveResponse::default() },
        };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    /// The member answers by itself.
    async fn lease_leases(
        &self,
        request: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let caller = self.known_caller(&of(&request)?)?;
        let ids = self.etcd.with(|state| {
            let ids = state.leases.ids();
            ids.iter().try_for_each(|id| state.may_see_lease(&caller, *id))?;
            Ok::<_, Error>(ids)
        })?;
        let leases = ids.into_iter().map(|id| PbLeaseStatus { id }).collect();
        let mut response = PbLeaseLeasesResponse { leases, ..PbLeaseLeasesResponse::default() };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }
}
