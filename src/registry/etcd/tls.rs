//! TLS with a member.
//!
//! Owns the configuration from PEM material, the handshake, and the error for a failure of TLS. Refuses to know what
//! goes through the connection.

use std::io;
use std::sync::Arc;

use http::Uri;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tower::BoxError;

use super::settings::{CONNECT, TlsSettings};

/// HTTP/2 over TLS in ALPN (RFC 9113, 3.2).
const H2: &[u8] = b"h2";

/// The reason why TLS fails, in the words of rustls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsFailure(String);

impl TlsFailure {
    fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }

    /// The failure that an error of a connection is about, if TLS is to blame for it.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<rustls::Error>().map(Self::new)
    }
}

/// The client's half of TLS with one member.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// # Errors
    /// The PEM material cannot be read, the machine has no authorities, or no certificate can have the name.
    pub fn new(uri: &Uri, settings: &TlsSettings) -> Result<Self, TlsFailure> {
        // An IPv6 address is in brackets in a URI.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = settings.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(TlsFailure::new)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config(settings)?)), name })
    }

    /// # Errors
    /// The [`TlsFailure`]; or the member is silent, closes the connection, or does not speak HTTP/2.
    pub async fn handshake(&self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, BoxError> {
        let stream = match timeout(CONNECT, self.connector.connect(self.name.clone(), tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(TlsFailure::of(&error).map_or_else(|| error.into(), Into::into)),
            Err(_) => return Err(format!("no answer to TLS within {} s", CONNECT.as_secs()).into()),
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(H2) => Ok(stream),
            _ => Err("the server does not speak HTTP/2".into()),
        }
    }
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, TlsFailure> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsFailure::new)?
        .with_root_certificates(roots(settings.ca.as_deref())?);
    let mut config = match &settings.identity {
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsFailure::new)?;
            builder.with_client_auth_cert(chain, key).map_err(TlsFailure::new)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(config)
}

/// The authorities of a PEM bundle, or those of the system. A bundle may hold some that rustls cannot read.
fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, TlsFailure> {
    let found = match ca {
        Some(pem) => certificates(pem)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(found) {
        (0, _) => Err(TlsFailure::new("no certificate of an authority is there that can be read")),
        _ => Ok(roots),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFailure> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(TlsFailure::new)
}
