//! A proxy before an etcd that loses events of watches, as etcd itself has (etcd#18089, #19179).
//!
//! It passes HTTP/2 on as it is, and looks only into the answers of watches.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use etcd_client::EventType;
use etcd_client::proto::PbWatchResponse;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The keys whose next delete event gets lost.
type Keys = Arc<Mutex<BTreeSet<Vec<u8>>>>;

const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// A flag and a length before each message of gRPC.
const PREFIX: usize = 5;

#[derive(Debug)]
pub struct LossyProxy {
    endpoint: String,
    keys: Keys,
    task: JoinHandle<()>,
}

impl LossyProxy {
    pub async fn start(address: SocketAddr, beyond: SocketAddr) -> Result<Self> {
        let (listener, keys) = (TcpListener::bind(address).await?, Keys::default());
        let task = tokio::spawn(accept(listener, beyond, keys.clone()));
        Ok(Self { endpoint: format!("http://{address}"), keys, task })
    }

    /// Client URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The next delete event of the key gets lost.
    pub fn swallow_delete(&self, key: &str) {
        lock(&self.keys).insert(key.as_bytes().to_vec());
    }

    /// The keys whose delete event is still to come.
    pub fn waiting(&self) -> usize {
        lock(&self.keys).len()
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(keys: &Keys) -> std::sync::MutexGuard<'_, BTreeSet<Vec<u8>>> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, beyond: SocketAddr, keys: Keys) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, beyond, keys.clone()));
    }
}

async fn connection(stream: TcpStream, beyond: SocketAddr, keys: Keys) -> Result<()> {
    let mut server = h2::server::handshake(stream).await?;
    let (client, driver) = h2::client::handshake(TcpStream::connect(beyond).await?).await?;
    let driver = tokio::spawn(driver);
    while let Some(Ok((request, respond))) = server.accept().await {
        tokio::spawn(exchange(client.clone(), request, respond, keys.clone()));
    }
    driver.abort();
    Ok(())
}

async fn exchange(
    client: SendRequest<Bytes>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    keys: Keys,
) -> Result<()> {
    let (parts, body) = request.into_parts();
    let lossy = (parts.uri.path() == WATCH).then_some(keys);
    let mut client = client.ready().await?;
    let (response, up) = client.send_request(Request::from_parts(parts, ()), false)?;
    let sending = tokio::spawn(pass_on(body, up, None));
    let (parts, body) = response.await?.into_parts();
    let ended = body.is_end_stream();
    let down = respond.send_response(Response::from_parts(parts, ()), ended)?;
    if !ended {
        pass_on(body, down, lossy).await?;
    }
    sending.abort();
    Ok(())
}

/// Passes a body on, but for the events that get lost.
async fn pass_on(mut from: RecvStream, mut to: SendStream<Bytes>, lossy: Option<Keys>) -> Result<()> {
    let mut waiting = BytesMut::new();
    while let Some(chunk) = from.data().await {
        let chunk = chunk?;
        from.flow_control().release_capacity(chunk.len())?;
        let Some(keys) = &lossy else {
            to.send_data(chunk, false)?;
            continue;
        };
        waiting.extend_from_slice(&chunk);
        while let Some(message) = next_message(&mut waiting) {
            if let Some(rest) = without_lost(message, keys)? {
                to.send_data(rest, false)?;
            }
        }
    }
    match from.trailers().await? {
        Some(trailers) => to.send_trailers(trailers)?,
        None => to.send_data(Bytes::new(), true)?,
    }
    Ok(())
}

/// A complete message with its prefix.
fn next_message(waiting: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(waiting.get(1..PREFIX)?.try_into().ok()?);
    let length = PREFIX + usize::try_from(length).ok()?;
    (waiting.len() >= length).then(|| waiting.split_to(length).freeze())
}

/// The message without the events that get lost; nothing if these are all.
fn without_lost(message: Bytes, keys: &Keys) -> Result<Option<Bytes>> {
    let mut response = PbWatchResponse::decode(message.slice(PREFIX..)).context("no watch response")?;
    let events = response.events.len();
    let mut keys = lock(keys);
    response.events.retain(|event| {
        let deleted = event.r#type == EventType::Delete as i32;
        !(deleted && event.kv.as_ref().is_some_and(|kv| keys.remove(&kv.key)))
    });
    if response.events.len() == events {
        return Ok(Some(message));
    }
    if response.events.is_empty() {
        return Ok(None);
    }
    let mut rest = BytesMut::with_capacity(message.remaining());
    rest.put_u8(0);
    rest.put_u32(u32::try_from(response.encoded_len())?);
    response.encode(&mut rest)?;
    Ok(Some(rest.freeze()))
}
