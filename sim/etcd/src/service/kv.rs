//! The service KV.
//!
//! Owns the checks of requests before they are proposed, and their answers. Refuses to know what they do.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use futures::future::Ready;
use futures::stream::{self, Once};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{Member, of};
use crate::error::Error;
use crate::state::State;
use crate::write::{check_delete_request, check_put_request};
use crate::{range, txn, txn_request};

/// Bytes that gRPC allows beyond a request (`grpcOverheadBytes` of `server/embed/config.go`).
const GRPC_OVERHEAD: usize = 512 * 1024;
/// Bytes of a proposal around its request: the header with an ID of nine bytes, and the tags and lengths of both
/// (`InternalRaftRequest` of `api/etcdserverpb/raft_internal.proto`).
const PROPOSAL_OVERHEAD: usize = 17;

impl Member {
    /// gRPC refuses what is far too large, before anybody looks at the request.
    fn check_received(&self, request: &impl Message) -> Result<(), Status> {
        let size = request.encoded_len();
        let largest = self.max_request_bytes() + GRPC_OVERHEAD;
        if size > largest {
            let text = format!("grpc: received message larger than max ({size} vs. {largest})");
            return Err(Status::resource_exhausted(text));
        }
        Ok(())
    }

    /// etcd refuses what is too large to propose, once it is known who asks.
    fn check_proposal(&self, request: &impl Message) -> Result<(), Error> {
        let size = request.encoded_len() + PROPOSAL_OVERHEAD;
        if size > self.max_request_bytes() { Err(Error::RequestTooLarge) } else { Ok(()) }
    }

    fn max_request_bytes(&self) -> usize {
        self.etcd.with(|state| state.options.max_request_bytes)
    }
}

#[tonic::async_trait]
impl PbKvService for Member {
    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        range::check_request(&request)?;
        if !request.serializable {
            self.linearizable(&headers).await?;
        }
        let answer = |state: &mut State| {
            let caller = self.caller_in(state, &headers)?;
            let view = self.state(state).ok_or(Error::Unreachable)?.view;
            state.range(&caller, view, &request)
        };
        let mut response = self.etcd.with(answer)?;
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    type RangeStreamStream = Once<Ready<Result<PbRangeStreamResponse, Status>>>;

    /// One piece with everything: etcd's pieces have no promised size.
    async fn range_stream(
        &self,
        request: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let range_response = Some(self.range(request).await?.into_inner());
        let response = PbRangeStreamResponse { range_response };
        Ok(Response::new(stream::once(futures::future::ready(Ok(response)))))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        self.check_received(&request)?;
        check_put_request(&request)?;
        let caller = self.caller(&headers)?;
        self.check_proposal(&request)?;
        let mut response = self.propose(&headers, |state| state.put(&caller, &request)).await?;
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(&self, request: Request<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        self.check_received(&request)?;
        check_delete_request(&request)?;
        let caller = self.caller(&headers)?;
        self.check_proposal(&request)?;
        let mut response = self.propose(&headers, |state| state.delete_range(&caller, &request)).await?;
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        self.check_received(&request)?;
        txn_request::check(&request, self.etcd.with(|state| state.options.max_txn_ops))?;
        let mut response = if txn::is_read_only(&request) {
            if !txn::is_serializable(&request) {
                self.linearizable(&headers).await?;
            }
            self.etcd.with(|state| {
                let caller = self.caller_in(state, &headers)?;
                let view = self.state(state).ok_or(Error::Unreachable)?.view;
                state.read_only_txn(&caller, view, &request)
            })?
        } else {
            let caller = self.caller(&headers)?;
            self.check_proposal(&request)?;
            self.propose(&headers, |state| state.txn(&caller, &request)).await?
        };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn compact(&self, request: Request<PbCompactionRequest>) -> Result<Response<PbCompactionResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        let caller = self.caller(&headers)?;
        self.etcd.with(|state| state.auth.check_admin(caller.user.as_deref()))?;
        self.propose(&headers, |state| state.compact(request.revision)).await?;
        let mut response = PbCompactionResponse::default();
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }
}
