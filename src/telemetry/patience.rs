//! Patience with the other end of a connection.
//!
//! A client that reads nothing keeps a stream, its buffers and its place. One that reads a little now and then keeps
//! them just as well, and one that went away without a word until the kernel finds out, which takes a quarter of an
//! hour. Owns three times: that in which a write has to go on, that in which everything queued has to be out, and that
//! in which anything has to go either way. Refuses to know what is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

const YEAR: Duration = Duration::from_secs(31_536_000);

/// How long a connection may do nothing, or too little.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While a write waits for the other end to read.
    pub written: Duration,
    /// While the other end reads, and something that was queued is not out yet.
    pub drained: Duration,
    /// While nothing is read or written.
    pub quiet: Duration,
}

impl Patience {
    /// For connections whose whole life is bounded.
    pub const ENDLESS: Self = Self { written: YEAR, drained: YEAR, quiet: YEAR };
}

/// A connection with patience, which fails where its other end exhausts it.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    patience: Patience,
    /// When something went either way last.
    moved: Instant,
    /// Since when a write waits.
    stuck: Option<Instant>,
    /// Since when something is queued.
    queued: Option<Instant>,
    /// Wakes the task at the earliest end.
    alarm: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub fn new(stream: S, patience: Patience) -> Self {
        let moved = Instant::now();
        let alarm = Box::pin(sleep_until(moved + patience.quiet.min(patience.written)));
        Self { stream, patience, moved, stuck: None, queued: None, alarm }
    }

    /// After an attempt that has to wait: fails if the patience is exhausted, and else sees that the task is woken.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let quiet = self.moved + self.patience.quiet;
            let written = self.stuck.map(|since| since + self.patience.written);
            let drained = self.queued.map(|since| since + self.patience.drained);
            let end = [written, drained].into_iter().flatten().fold(quiet, Instant::min);
            if Instant::now() >= end {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            if self.alarm.deadline() != end {
                self.alarm.as_mut().reset(end);
            }
            ready!(self.alarm.as_mut().poll(cx));
        }
    }

    /// The result of an attempt to write.
    fn written<T>(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match attempt {
            Poll::Ready(result) => {
                (self.moved, self.stuck) = (Instant::now(), None);
                Poll::Ready(result)
            }
            Poll::Pending => {
                let now = Instant::now();
                self.stuck.get_or_insert(now);
                self.queued.get_or_insert(now);
                self.wait(cx).map(Err)
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                self.moved = Instant::now();
                Poll::Ready(result)
            }
            Poll::Pending => self.wait(cx).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_flush(cx);
        match attempt {
            // A socket has nothing to flush, but whoever flushes has nothing left to write.
            Poll::Ready(result) => {
                self.queued = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.wait(cx).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Patience = Patience {
        written: Duration::from_secs(10),
        drained: Duration::from_secs(100),
        quiet: Duration::from_secs(60),
    };

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_reads_fails_after_its_time() {
        let (here, mut there) = duplex(16);
        let mut here = Patient::new(here, PATIENCE);
        let began = Instant::now();
        let error = here.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
        drop(here);
        let mut read = Vec::new();
        there.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_on_may_take_its_time() {
        let (here, mut there) = duplex(16);
        let mut here = Patient::new(here, PATIENCE);
        let reading = tokio::spawn(async move {
            let mut read = 0;
            while read < 160 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                read += there.read(&mut [0; 16]).await.unwrap();
            }
        });
        here.write_all(&[0; 160]).await.unwrap();
        reading.await.unwrap();
    }

    /// A client that reads a little every nine seconds, and what it read of an answer of so many parts.
    async fn trickled(parts: usize) -> (io::Result<()>, Duration) {
        let (here, mut there) = duplex(16);
        let mut here = Patient::new(here, PATIENCE);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(9)).await;
                if there.read(&mut [0; 16]).await.is_ok_and(|read| read == 0) {
                    break;
                }
            }
        });
        let began = Instant::now();
        let mut written = here.write_all(&vec![0; 16 * parts]).await;
        if written.is_ok() {
            written = here.flush().await;
        }
        (written, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_has_its_time_and_no_more() {
        let (written, took) = trickled(100).await;
        assert_eq!((written.unwrap_err().kind(), took.as_secs()), (io::ErrorKind::TimedOut, 100));
        let (written, took) = trickled(12).await;
        assert_eq!((written.unwrap(), took.as_secs()), ((), 99));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_drains_what_is_queued_begins_anew() {
        let (here, mut there) = duplex(16);
        let mut here = Patient::new(here, PATIENCE);
        let reading = tokio::spawn(async move {
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                there.read_exact(&mut [0; 32]).await.unwrap();
            }
        });
        for _ in 0..40 {
            here.write_all(&[0; 32]).await.unwrap();
            here.flush().await.unwrap();
        }
        reading.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_quiet_ends_and_a_heartbeat_keeps_it() {
        let (here, mut there) = duplex(64);
        let (mut reading, mut writing) = tokio::io::split(Patient::new(here, PATIENCE));
        let quiet = tokio::spawn(async move { (reading.read(&mut [0; 1]).await, Instant::now()) });
        let began = Instant::now();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(15)).await;
            writing.write_all(b":").await.unwrap();
        }
        let (read, at) = quiet.await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(at.duration_since(began).as_secs(), 120, "sixty seconds after the last heartbeat");
        assert_eq!(there.read(&mut [0; 64]).await.unwrap(), 4);
    }
}
