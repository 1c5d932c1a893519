//! One of the two servers: operations are sent to it, and its answers noted.
//!
//! Owns what makes answers comparable: IDs of cluster and member, terms and remaining TTLs are left out, and the
//! responses of a watch are taken apart, for it is chance how many events come in one. Refuses to compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::proto::{PbEvent, PbResponseHeader, PbTxnOpResponse, PbTxnResponse, PbWatchResponse};
use etcd_client::{
    Client, Error, LeaseGrantOptions, LeaseTimeToLiveOptions, WatchFilterType, WatchOptions, WatchRequestSender,
    WatchStream,
};
use futures::future::join_all;
use sim_etcd::promises::{Message, WatchRequest};
use tokio::sync::mpsc;

use super::operations::{Operation, STREAMS};

/// A watch that is behind catches up within 100 ms, and some more on a machine that is busy.
const CATCH_UP: Duration = Duration::from_millis(250);
/// A stream that said nothing for so long has said all.
const SILENCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(10);

/// The responses of a stream by watch: control answers in order, and events in order.
type Told = BTreeMap<i64, (Vec<PbWatchResponse>, Vec<PbEvent>)>;

#[derive(Debug, Default)]
pub struct Answered {
    pub refused: usize,
    pub events: usize,
}

struct Stream {
    sender: WatchRequestSender,
    /// Read by a task of its own: unread responses would fill the window of the connection, and hold up every call.
    responses: mpsc::UnboundedReceiver<Result<PbWatchResponse, Error>>,
    messages: Vec<Message>,
    /// Messages that were told of already.
    told: usize,
}

pub struct Server {
    client: Client,
    streams: Vec<Option<Stream>>,
    closed: Vec<Stream>,
    refused: usize,
}

fn without_ids(header: &mut Option<PbResponseHeader>) {
    if let Some(header) = header {
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    }
}

impl Server {
    pub fn new(client: Client) -> Self {
        Self { client, streams: (0..STREAMS).map(|_| None).collect(), closed: Vec::new(), refused: 0 }
    }

    /// The recorded messages of all streams.
    pub fn streams(&self) -> impl Iterator<Item = &[Message]> {
        self.closed.iter().chain(self.streams.iter().flatten()).map(|stream| stream.messages.as_slice())
    }

    pub fn answered(&self) -> Answered {
        let responses = self.streams().flatten().filter_map(|message| match message {
            Message::Response(response) => Some(response.events.len()),
            Message::Create(_) => None,
        });
        Answered { refused: self.refused, events: responses.sum() }
    }

    /// Does an operation, and returns the answer, or the refusal, as text.
    pub async fn run(&mut self, operation: &Operation) -> Result<String> {
        let answer = match operation {
            Operation::Watch(stream, request) => return self.watch(*stream, request).await,
            Operation::Cancel(stream, id) => return self.cancel(*stream, *id).await,
            Operation::Close(stream) => return Ok(self.close(*stream)),
            other => tokio::time::timeout(PATIENCE, self.call(other))
                .await
                .with_context(|| format!("no answer to {other:?}"))?,
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(Error::GRpcStatus(status)) => {
                self.refused += 1;
                Ok(format!("{:?}: {}", status.code(), status.message()))
            }
            Err(Error::LeaseKeepAliveError(text)) => Ok(text),
            Err(error) => bail!("{operation:?}: {error}"),
        }
    }

    async fn call(&mut self, operation: &Operation) -> Result<String, Error> {
        match operation.clone() {
            Operation::Get(key, options) => {
                let mut answer = self.client.get(key, Some(options)).await?.0;
                without_ids(&mut answer.header);
                Ok(text(&answer))
            }
            Operation::Put(key, value, options) => {
                let mut answer = self.client.put(key, value, Some(options)).await?.0;
                without_ids(&mut answer.header);
                Ok(text(&answer))
            }
            Operation::Large(bytes) => {
                let mut answer = self.client.put("large", vec![b'x'; bytes], None).await?.0;
                without_ids(&mut answer.header);
                self.client.delete("large", None).await?;
                Ok(text(&answer))
            }
            Operation::Delete(key, options) => {
                let mut answer = self.client.delete(key, Some(options)).await?.0;
                without_ids(&mut answer.header);
                Ok(text(&answer))
            }
            Operation::Txn(txn) => {
                let mut answer = self.client.txn(txn).await?.0;
                without_ids_in(&mut answer);
                Ok(text(&answer))
            }
            Operation::Compact(revision) => {
                let mut answer = self.client.compact(revision, None).await?.0;
                without_ids(&mut answer.header);
                Ok(text(&answer))
            }
            other => self.lease(other).await,
        }
    }

    async fn lease(&mut self, operation: Operation) -> Result<String, Error> {
        let mut leases = self.client.lease_client();
        match operation {
            Operation::Grant(id, ttl) => {
                let mut answer = leases.grant(ttl, Some(LeaseGrantOptions::new().with_id(id))).await?.0;
                without_ids(&mut answer.header);
                Ok(text(&answer))
            }
            Operation::GrantAny(ttl) => {
                let granted = leases.grant(ttl, None).await?;
                let header = leases.revoke(granted.id()).await?.take_header();
                Ok(format!("{} {} {:?}", granted.id() > 0, granted.ttl(), header.map(|header| header.revision())))
            }
            Operation::KeepAlive(id) => {
                let (mut keeper, mut stream) = leases.keep_alive(id).await?;
                keeper.keep_alive().await?;
                let answer = stream.message().await?.map(|answer| {
                    let mut answer = answer.0;
                    without_ids(&mut answer.header);
                    answer
                });
                Ok(text(&answer))
            }
            Operation::TimeToLive(id, keys) => {
                let options = if keys { Some(LeaseTimeToLiveOptions::new().with_keys()) } else { None };
                let mut answer = leases.time_to_live(id, options).await?.0;
                without_ids(&mut answer.header);
                answer.ttl = answer.ttl.min(1);
                // etcd tells them in no order.
                answer.keys.sort();
                Ok(text(&answer))
            }
            Operation::Leases => {
                let answer = leases.leases().await?;
                let mut ids: Vec<i64> = answer.leases().iter().map(|lease| lease.id()).collect();
                ids.sort_unstable();
                Ok(format!("{ids:?} {:?}", answer.header().map(|header| header.revision())))
            }
            Operation::Revoke(id) => {
                let mut answer = leases.revoke(id).await?.0;
                without_ids(&mut answer.header);
                Ok(text(&answer))
            }
            other => Ok(format!("no operation on a lease: {other:?}")),
        }
    }

    /// Returns once the watch is created, so that the next operation comes after it.
    async fn watch(&mut self, index: usize, request: &WatchRequest) -> Result<String> {
        let options = options(request);
        let stream = match &mut self.streams[index] {
            Some(stream) => {
                stream.sender.watch(request.key.clone(), Some(options)).await?;
                stream
            }
            none => {
                let mut client = self.client.watch_client().max_decoding_message_size(usize::MAX);
                let open = client.watch(request.key.clone(), Some(options)).await?;
                none.insert(Stream::new(open))
            }
        };
        stream.messages.push(Message::Create(request.clone()));
        loop {
            let answer = tokio::time::timeout(PATIENCE, stream.next()).await.context("no watch is created")??;
            if answer.created {
                return Ok(text(&answer));
            }
        }
    }

    /// Returns once the watch is cancelled; an unknown one is not answered.
    async fn cancel(&mut self, index: usize, id: i64) -> Result<String> {
        let Some(stream) = &mut self.streams[index] else { return Ok(String::new()) };
        stream.sender.cancel(id).await?;
        if !stream.ids().contains(&id) {
            return Ok(String::new());
        }
        loop {
            let answer = tokio::time::timeout(PATIENCE, stream.next()).await.context("no watch is cancelled")??;
            if answer.canceled && answer.watch_id == id {
                return Ok(text(&answer));
            }
        }
    }

    fn close(&mut self, index: usize) -> String {
        self.closed.extend(self.streams[index].take());
        String::new()
    }

    /// The responses of all streams since the last time, once all have come, and progress.
    pub async fn told(&mut self) -> Result<Vec<Told>> {
        tokio::time::sleep(CATCH_UP).await;
        let open = self.streams.iter_mut().flatten();
        let all = join_all(open.map(async |stream| {
            stream.sender.request_progress().await?;
            stream.drain().await
        }));
        all.await.into_iter().collect::<Result<()>>()?;
        let streams = self.closed.iter_mut().chain(self.streams.iter_mut().flatten());
        Ok(streams.map(Stream::told).collect())
    }
}

impl Stream {
    fn new(open: WatchStream) -> Self {
        let (sender, mut stream) = open.split();
        let (read, responses) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(response) = stream.message().await.transpose() {
                let ended = response.is_err();
                if read.send(response.map(|response| response.0)).is_err() || ended {
                    return;
                }
            }
        });
        Self { sender, responses, messages: Vec::new(), told: 0 }
    }

    async fn next(&mut self) -> Result<PbWatchResponse> {
        let mut response = self.responses.recv().await.context("the stream ended")??;
        without_ids(&mut response.header);
        self.messages.push(Message::Response(response.clone()));
        Ok(response)
    }

    async fn drain(&mut self) -> Result<()> {
        while let Ok(answer) = tokio::time::timeout(SILENCE, self.next()).await {
            answer?;
        }
        Ok(())
    }

    /// The IDs that are taken: a watch that a compaction has ended keeps its own until it is cancelled.
    fn ids(&self) -> BTreeSet<i64> {
        let mut ids = BTreeSet::new();
        for message in &self.messages {
            let Message::Response(response) = message else { continue };
            if response.created && !response.canceled {
                ids.insert(response.watch_id);
            } else if response.canceled && response.compact_revision == 0 {
                ids.remove(&response.watch_id);
            }
        }
        ids
    }

    fn told(&mut self) -> Told {
        let mut told = Told::new();
        for message in &self.messages[self.told..] {
            let Message::Response(response) = message else { continue };
            let (controls, events) = told.entry(response.watch_id).or_default();
            if response.events.is_empty() {
                controls.push(response.clone());
            }
            events.extend(response.events.iter().cloned());
        }
        self.told = self.messages.len();
        told
    }
}

fn options(request: &WatchRequest) -> WatchOptions {
    let mut options = WatchOptions::new().with_start_revision(request.start_revision).with_watch_id(request.watch_id);
    if !request.range_end.is_empty() {
        options = options.with_range(request.range_end.clone());
    }
    if request.prev_kv {
        options = options.with_prev_key();
    }
    let filters = [(request.no_put, WatchFilterType::NoPut), (request.no_delete, WatchFilterType::NoDelete)];
    let filters: Vec<_> = filters.into_iter().filter_map(|(set, filter)| set.then_some(filter)).collect();
    options.with_filters(filters)
}

fn text(answer: &impl Debug) -> String {
    format!("{answer:?}")
}

/// Inner headers have no IDs.
fn without_ids_in(answer: &mut PbTxnResponse) {
    without_ids(&mut answer.header);
    for operation in &mut answer.responses {
        if let Some(PbTxnOpResponse::ResponseTxn(nested)) = &mut operation.response {
            without_ids_in(nested);
        }
    }
}
