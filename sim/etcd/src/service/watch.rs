//! The service Watch.
//!
//! Owns the stream between a client and its watchers: requests in, responses out, silence and ends. Refuses to decide
//! what a watcher sees.

use std::pin::Pin;
use std::sync::Arc;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use futures::{Stream, stream};
use tokio::sync::Notify;
use tonic::{Request, Response, Status, Streaming};

use super::{Headers, Member, of};
use crate::error::Error;
use crate::state::State;
use crate::streams;
use crate::watch::{Creation, Watchers};

// Values of WatchCreateRequest.FilterType, which etcd-client does not export.
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

/// An open stream; the cluster forgets it when it is dropped.
struct Open {
    member: Member,
    headers: Headers,
    id: u64,
    wake: Arc<Notify>,
    inbound: Streaming<PbWatchRequest>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.member.etcd.with(|state| {
            if let Some(member) = state.members.get_mut(self.member.index) {
                member.streams.remove(&self.id);
            }
        });
    }
}

/// What a stream can do now.
enum Next {
    Send(PbWatchResponse),
    Read,
    /// The member is frozen.
    Wait,
}

impl Open {
    fn new(member: Member, headers: Headers, inbound: Streaming<PbWatchRequest>) -> Result<Self, Error> {
        let (id, wake) = member.etcd.with(|state| {
            state.streams_opened += 1;
            let id = state.streams_opened;
            let stream = streams::Stream::new(state.now, headers.require_leader);
            let wake = stream.wake.clone();
            let found = state.members.get_mut(member.index).filter(|member| member.breaks == headers.breaks);
            found.ok_or(Error::Unreachable)?.streams.insert(id, stream);
            Ok((id, wake))
        })?;
        Ok(Self { member, headers, id, wake, inbound })
    }

    async fn next(&mut self) -> Result<Option<PbWatchResponse>, Status> {
        loop {
            let next = self.member.etcd.with(|state| self.look(state))?;
            match next {
                Next::Send(response) => return Ok(Some(response)),
                Next::Wait => self.wake.notified().await,
                Next::Read => {
                    let message = tokio::select! {
                        biased;
                        () = self.wake.notified() => continue,
                        message = self.inbound.message() => message?,
                    };
                    let Some(PbWatchRequest { request_union }) = message else { return Ok(None) };
                    self.member.thawed(Some(self.headers.breaks)).await?;
                    self.member.etcd.with(|state| self.handle(state, request_union));
                }
            }
        }
    }

    fn look(&self, state: &mut State) -> Result<Next, Error> {
        let Some(member) = state.members.list.get_mut(self.member.index) else { return Err(Error::Unreachable) };
        let frozen = member.is_up() && member.frozen;
        let stream = member.streams.get_mut(&self.id).ok_or(Error::Unreachable)?;
        if frozen {
            return Ok(Next::Wait);
        }
        if let Some(error) = stream.ended() {
            return Err(error);
        }
        if state.stalled {
            return Ok(Next::Read);
        }
        let Some(mut response) = stream.watchers.pop() else { return Ok(Next::Read) };
        if let Some(header) = &mut response.header {
            self.member.identify(state, header);
        }
        Ok(Next::Send(response))
    }

    fn handle(&self, state: &mut State, request: Option<PbWatchRequestUnion>) {
        let faults = state.watch_faults;
        match request {
            Some(PbWatchRequestUnion::CreateRequest(request)) => {
                let creation = Creation {
                    key: request.key,
                    range_end: request.range_end,
                    start_revision: request.start_revision,
                    watch_id: request.watch_id,
                    progress_notify: request.progress_notify,
                    prev_kv: request.prev_kv,
                    fragment: request.fragment,
                    no_put: request.filters.contains(&NO_PUT),
                    no_delete: request.filters.contains(&NO_DELETE),
                };
                self.create(state, creation);
            }
            Some(PbWatchRequestUnion::CancelRequest(request)) => {
                self.change(state, |watchers, view| watchers.cancel(view, request.watch_id));
            }
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                self.change(state, |watchers, view| watchers.request_progress(view, faults));
            }
            None => {}
        }
    }

    fn create(&self, state: &mut State, creation: Creation) {
        let key: &[u8] = if creation.key.is_empty() { &[0] } else { &creation.key };
        let permitted = match self.member.caller_in(state, &self.headers) {
            Ok(caller) => state.may_read(&caller, key, &creation.range_end),
            Err(error) => Err(error),
        };
        // A revision below zero is refused before anybody asks who watches.
        match permitted {
            Err(error) if creation.start_revision >= 0 => {
                let reason = format!("rpc error: code = {:?} desc = {error}", error.code());
                self.change(state, |watchers, view| watchers.refuse(view, reason));
            }
            _ => self.change(state, |watchers, view| watchers.create(view, creation)),
        }
    }

    fn change(&self, state: &mut State, change: impl FnOnce(&mut Watchers, crate::store::View)) {
        let Some(member) = state.members.get_mut(self.member.index) else { return };
        if let Some(stream) = member.streams.get_mut(&self.id) {
            change(&mut stream.watchers, member.view);
        }
    }
}

#[tonic::async_trait]
impl PbWatchService for Member {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<PbWatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let open = Open::new(self.clone(), of(&request)?, request.into_inner())?;
        let answers = stream::unfold(Some(open), |open| async move {
            let mut open = open?;
            match open.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(open))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
