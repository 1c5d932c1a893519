//! Bodies on the wire: frames arrive one after the other, late, or not at all.
//!
//! Owns the pump at the sender's side and the body at the receiver's. Refuses to know what the frames say.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tower::BoxError;

use super::fate::{Fate, Loss};
use super::{Link, Wire};
use crate::scheduler::ProcessId;

/// Frames under way in one stream at most; a server that is ahead of its reader waits.
const WINDOW: usize = 64;

type Item = Result<Frame<Bytes>, BoxError>;

/// The receiver's end of a body.
pub struct Incoming {
    frames: mpsc::Receiver<Item>,
    /// The stream breaks when nothing was read for so long.
    silence: Option<(Duration, Pin<Box<Sleep>>)>,
    /// Ends once the other side is out of reach for too long.
    unreachable: BoxFuture<'static, ()>,
    ended: bool,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(item) = self.frames.poll_recv(cx) {
            if let Some((limit, timer)) = &mut self.silence {
                timer.as_mut().reset(tokio::time::Instant::now() + *limit);
            }
            self.ended = !matches!(item, Some(Ok(_)));
            return Poll::Ready(item);
        }
        let silent = self.silence.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_ready());
        if silent || self.unreachable.as_mut().poll(cx).is_ready() {
            self.ended = true;
            return Poll::Ready(Some(Err("the connection is dead".into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Carries a body from its sender to its receiver, in a task of the wire. `silence` breaks it at the receiver. `reader`
/// is the process that reads a stream, and whose faults may be planned at a frame.
pub(super) fn carry<B>(
    wire: &Wire,
    back: Link,
    body: B,
    fate: Fate,
    silence: Option<Duration>,
    reader: Option<ProcessId>,
) -> Incoming
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (sender, frames) = mpsc::channel(WINDOW);
    let unreachable = wire.out_of_reach(back.clone());
    let pumped = wire.clone();
    wire.spawn(async move { pump(&pumped, &back, body, fate, reader, sender).await });
    let silence = silence.map(|limit| (limit, Box::pin(sleep(limit))));
    Incoming { frames, silence, unreachable, ended: false }
}

async fn pump<B>(wire: &Wire, back: &Link, body: B, fate: Fate, reader: Option<ProcessId>, sender: mpsc::Sender<Item>)
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let mut count = 0;
    loop {
        let frame = tokio::select! {
            biased;
            // The reader has gone.
            () = sender.closed() => return,
            frame = body.frame() => frame,
        };
        let Some(frame) = frame.map(|frame| frame.map_err(Into::into)) else { break };
        match fate.stream.filter(|(after, _)| count >= *after && !wire.is_healed()) {
            Some((_, Loss::Broken)) => {
                wire.count("stream cut");
                let _ = sender.send(Err("the connection broke".into())).await;
                return;
            }
            Some((_, _)) => {
                wire.count("stream stalled");
                sender.closed().await;
                return;
            }
            None => {}
        }
        if count > 0 {
            sleep(wire.frame_delay(back)).await;
        }
        wire.until_open(back).await;
        if let Some(process) = reader.filter(|_| count > 0)
            && !wire.arrives(&back.to, process).await
        {
            wire.count("stream cut");
            let _ = sender.send(Err("the connection broke".into())).await;
            return;
        }
        count += 1;
        if sender.send(frame).await.is_err() {
            return;
        }
    }
}
