//! The service Auth, of which clients need Authenticate.
//!
//! Owns how a password becomes a token. Refuses to change users: [`Etcd::set_auth`](crate::Etcd::set_auth) does. The
//! generated stub cannot be used, for etcd-client does not export the request of AuthStatus.

use std::future::Future;
use std::pin::Pin;

use etcd_client::proto::{PbAuthenticateRequest, PbAuthenticateResponse};
use std::convert::Infallible;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Member, of};

struct Authenticate(Member);

impl UnaryService<PbAuthenticateRequest> for Authenticate {
    type Response = PbAuthenticateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<PbAuthenticateResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<PbAuthenticateRequest>) -> Self::Future {
        let member = self.0.clone();
        Box::pin(async move { member.authenticate(request).await })
    }
}

impl Member {
    pub(super) async fn auth(
        &self,
        path: &str,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Infallible> {
        if path != "/etcdserverpb.Auth/Authenticate" {
            return Ok(Status::unimplemented(format!("the fake etcd has no {path}")).into_http());
        }
        let codec = ProstCodec::<PbAuthenticateResponse, PbAuthenticateRequest>::default();
        Ok(Grpc::new(codec).unary(Authenticate(self.clone()), request).await)
    }

    async fn authenticate(
        &self,
        request: Request<PbAuthenticateRequest>,
    ) -> Result<Response<PbAuthenticateResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        let issue = |state: &mut crate::state::State| {
            let token = state.auth.authenticate(&request.name, &request.password)?;
            for member in &mut state.members.list {
                state.auth.assign(&mut member.tokens, &token, &request.name, state.now);
            }
            Ok(token)
        };
        let token = self.propose(&headers, issue).await?;
        let mut response = PbAuthenticateResponse { token, ..PbAuthenticateResponse::default() };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }
}
