//! The way to one endpoint.
//!
//! Owns the channel of a real connection, which tells the reason why TLS fails ([`super::tls`], [`super::alert`]).
//! Refuses to choose the endpoint and the user, which [`super::connect`] does.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Channel, Client, ConnectOptions, Error};
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt, service_fn};

use super::alert::{AlertedStream, LatestAlert};
use super::call::CALL;
use super::settings::{CONNECT, TlsSettings};
use super::tls::Tls;

/// Interval of HTTP/2 pings, even on an idle connection: a frozen server must not look like a quiet one.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the client of one endpoint.
#[async_trait]
pub trait Dialer: Send + Sync + fmt::Debug {
    /// # Errors
    /// Those of etcd's client.
    async fn dial(&self, endpoint: &str, options: ConnectOptions) -> Result<Client, Error>;
}

/// Dials over TCP, with TLS for `https`. A channel connects at its first call, and again after a connection has ended.
#[derive(Clone, Debug)]
pub(super) struct Tcp {
    tls: TlsSettings,
}

impl Tcp {
    pub(super) fn new(tls: Option<&TlsSettings>) -> Self {
        Self { tls: tls.cloned().unwrap_or_default() }
    }
}

#[async_trait]
impl Dialer for Tcp {
    async fn dial(&self, endpoint: &str, options: ConnectOptions) -> Result<Client, Error> {
        let uri: Uri = endpoint.parse()?;
        let channel = if uri.scheme_str() == Some("https") {
            let tls = Tls::new(&uri, &self.tls).map_err(|failure| Status::from_error(failure.into()))?;
            over_tls(uri, tls)?
        } else {
            Channel::Tonic(settled(Endpoint::from(uri)).connect_timeout(CONNECT).connect_lazy())
        };
        Client::from_channel(channel, Some(options)).await
    }
}

fn settled(endpoint: Endpoint) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .timeout(CALL * 4)
}

fn over_tls(uri: Uri, tls: Tls) -> Result<Channel, Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Divided among the addresses of a name, so that one which is silent leaves time for the next.
    tcp.set_connect_timeout(Some(CONNECT));
    let alert = LatestAlert::default();
    // The connector makes TLS itself, so the channel connects as for http, and its requests name https.
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let endpoint = settled(Endpoint::from_shared(format!("http://{host}"))?).origin(uri.clone());
    let connector = {
        let alert = alert.clone();
        service_fn(move |_: Uri| open(tcp.clone(), uri.clone(), tls.clone(), alert.clone()))
    };
    let channel = endpoint.connect_with_connector_lazy(connector).map_err(move |error| alert.or(error));
    Ok(Channel::Custom(BoxCloneSyncService::new(channel)))
}

/// Looks the name up, connects and makes TLS, all within [`CONNECT`].
async fn open<C>(tcp: C, uri: Uri, tls: Tls, alert: LatestAlert) -> Result<TokioIo<AlertedStream>, BoxError>
where
    C: Service<Uri, Response = TokioIo<TcpStream>, Error: Into<BoxError>>,
{
    let deadline = Instant::now() + CONNECT;
    let late = |what: &str| format!("{what} within {} s", CONNECT.as_secs());
    let opened = async {
        let connected = timeout_at(deadline, tcp.oneshot(uri)).await.map_err(|_| late("no address and connection"))?;
        let tcp = connected.map_err(Into::into)?.into_inner();
        timeout_at(deadline, tls.handshake(tcp)).await.map_err(|_| late("no answer to TLS"))?
    };
    let opened = opened.await;
    let alert = alert.renew();
    opened.map(|stream| TokioIo::new(AlertedStream::new(stream, alert)))
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
