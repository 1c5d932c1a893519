//! The alert with which a member ends TLS.
//!
//! Owns the search for it on the connection. With TLS 1.3 a server rejects a client's certificate after the handshake,
//! instead of its first answer (RFC 8446, 4.4.2.4); the HTTP client then reports a closed connection, and does not look
//! for the alert if a write failed first (`docs/decisions/0051`). Refuses to know what goes through the connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::BoxError;

use super::tls::TlsFailure;

/// The alert of the latest connection of a channel.
#[derive(Clone, Debug, Default)]
pub struct LatestAlert(Arc<Mutex<Alert>>);

impl LatestAlert {
    /// The alert of a new connection, which has none yet. That of the connection before is no cause any more: its calls
    /// have failed before the channel connects again.
    pub fn renew(&self) -> Alert {
        let alert = Alert::default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = alert.clone();
        alert
    }

    /// The reason why a call failed with this error.
    pub fn or(&self, error: impl Into<BoxError>) -> BoxError {
        let alert = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        alert.0.get().cloned().map_or_else(|| error.into(), Into::into)
    }
}

/// The alert that ended one connection, if one did.
#[derive(Clone, Debug, Default)]
pub struct Alert(Arc<OnceLock<TlsFailure>>);

impl Alert {
    /// Remembers the failure that an error of the connection is about.
    pub fn note(&self, error: &io::Error) {
        if let Some(failure) = TlsFailure::of(error) {
            // The first is the cause of the others.
            let _ = self.0.set(failure);
        }
    }
}

/// A connection that remembers the alert which ended it.
#[derive(Debug)]
pub struct AlertedStream {
    stream: TlsStream<TcpStream>,
    alert: Alert,
    /// The error of a write, until the reason is read.
    failed: Option<io::Error>,
}

impl AlertedStream {
    pub fn new(stream: TlsStream<TcpStream>, alert: Alert) -> Self {
        Self { stream, alert, failed: None }
    }

    /// Writes, and looks for an alert that waits unread once the connection takes no more data. The end of the
    /// connection is readable by then, but the runtime may learn so a moment later: the error waits for it.
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed.is_none() {
            match ready!(write(Pin::new(&mut self.stream), cx)) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(error) => {
                    self.alert.note(&error);
                    self.failed = Some(error);
                }
            }
        }
        let mut byte = [0];
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte))) {
            self.alert.note(&error);
        }
        Poll::Ready(Err(self.failed.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl AsyncRead for AlertedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if let Err(error) = &read {
            self.alert.note(error);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for AlertedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write(cx, data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
