//! The service Watch.
//!
//! Owns the stream between a client and its watchers: requests in, responses out, silence and ends. Refuses to decide
//! what a watcher sees.

use std::pin::Pin;
use std::sync::Arc;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use futures::{Stream, StreamExt, stream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

use super::{Headers, Member, of};
use crate::error::Error;
use crate::state::State;
use crate::store::View;
use crate::streams;
use crate::watch::{Creation, Watchers};

// Values of WatchCreateRequest.FilterType, which etcd-client does not export.
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

/// An open stream; the cluster forgets it when it is dropped.
struct Open {
    watch: Watch,
    wake: Arc<Notify>,
    /// Reads requests, whether the client reads answers or not.
    reader: JoinHandle<()>,
}

/// A stream of the member, by its number.
#[derive(Clone)]
struct Watch {
    member: Member,
    headers: Headers,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
        let Watch { member, id, .. } = &self.watch;
        member.etcd.with(|state| {
            if let Some(member) = state.members.get_mut(member.index) {
                member.streams.remove(id);
            }
        });
    }
}

/// The next step of a stream.
enum Next {
    Send(PbWatchResponse),
    Wait,
    /// The client has sent its last request.
    End,
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
        let watch = Watch { member, headers, id };
        let reader = tokio::spawn(watch.clone().read(inbound));
        Ok(Self { watch, wake, reader })
    }

    async fn next(&self) -> Result<Option<PbWatchResponse>, Status> {
        loop {
            match self.watch.member.etcd.with(|state| self.watch.look(state))? {
                Next::Send(response) => return Ok(Some(response)),
                Next::Wait => self.wake.notified().await,
                Next::End => return Ok(None),
            }
        }
    }
}

impl Watch {
    /// Takes requests until the client ends them, or the stream breaks. A member that is frozen takes none.
    async fn read(self, mut inbound: Streaming<PbWatchRequest>) {
        while let Ok(Some(PbWatchRequest { request_union })) = inbound.message().await {
            if self.member.thawed(Some(self.headers.breaks)).await.is_err() {
                return;
            }
            self.member.etcd.with(|state| self.handle(state, request_union));
        }
        self.member.etcd.with(|state| {
            if let Some(stream) = self.stream(state) {
                stream.finish();
            }
        });
    }

    fn stream<'a>(&self, state: &'a mut State) -> Option<&'a mut streams::Stream> {
        state.members.get_mut(self.member.index)?.streams.get_mut(&self.id)
    }

    fn look(&self, state: &mut State) -> Result<Next, Error> {
        let member = state.members.get(self.member.index).ok_or(Error::Unreachable)?;
        let (frozen, stalled) = (member.is_up() && member.frozen, state.stalled);
        let stream = self.stream(state).ok_or(Error::Unreachable)?;
        match stream.ended() {
            _ if frozen => return Ok(Next::Wait),
            Some(error) => return Err(error),
            None if stream.is_finished() => return Ok(Next::End),
            None if stalled => return Ok(Next::Wait),
            None => {}
        }
        let Some(mut response) = stream.watchers.pop() else { return Ok(Next::Wait) };
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

    fn change(&self, state: &mut State, change: impl FnOnce(&mut Watchers, View)) {
        let Some(view) = self.member.state(state).map(|member| member.view) else { return };
        if let Some(stream) = self.stream(state) {
            change(&mut stream.watchers, view);
            stream.wake_if_ready();
        }
    }
}

#[tonic::async_trait]
impl PbWatchService for Member {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<PbWatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let open = Open::new(self.clone(), of(&request)?, request.into_inner())?;
        // etcd sends its headers with the first response: until then a stream is not open.
        let Some(first) = open.next().await? else { return Ok(Response::new(Box::pin(stream::empty()))) };
        let rest = stream::unfold(Some(open), |open| async move {
            let open = open?;
            match open.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(open))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(rest))))
    }
}
