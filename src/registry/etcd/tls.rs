//! TLS with a member.
//!
//! Owns the configuration from PEM material, the handshake, and the error for a failure of TLS. Refuses to know what
//! goes through the connection.

use std::fmt;
use std::io;
use std::sync::Arc;

use http::Uri;
use rustls_native_certs::CertificateResult;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tower::BoxError;

use super::settings::TlsSettings;

/// HTTP/2 over TLS in ALPN (RFC 9113, 3.2).
const H2: &[u8] = b"h2";

/// The names of the material, as in a Secret of the type `kubernetes.io/tls`; `ca.crt` is a default.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const CA: &str = "ca.crt";

const IN_PEM: &str = "give certificates in PEM";

/// The reason why TLS fails, in the words of rustls; of the client's own material also its name, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsFailure(String);

impl TlsFailure {
    #[expect(clippy::needless_pass_by_value, reason = "for map_err, which passes errors by value")]
    fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }

    fn of_material(name: &str, reason: impl fmt::Display, remedy: &str) -> Self {
        Self(format!("{name}: {reason}; {remedy}"))
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
        let name = settings.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|error| {
            let reason = format!("no certificate can have the name {name:?} ({error})");
            TlsFailure::of_material("tls.serverName", reason, "give a name that is in the server's certificate")
        })?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config(settings)?)), name })
    }

    /// Waits for the member without a limit.
    ///
    /// # Errors
    /// The [`TlsFailure`]; or the member closes the connection, or does not speak HTTP/2.
    pub async fn handshake(&self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, BoxError> {
        let stream = self
            .connector
            .connect(self.name.clone(), tcp)
            .await
            .map_err(|error| TlsFailure::of(&error).map_or_else(|| BoxError::from(error), Into::into))?;
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
            let chain = certificates(CERTIFICATE, certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
                let reason = format!("no private key is there that can be read ({error})");
                TlsFailure::of_material(KEY, reason, "give it in PEM, without a passphrase")
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                // The words of rustls for the error as a whole blame the peer.
                rustls::Error::InvalidCertificate(why) => {
                    TlsFailure::of_material(CERTIFICATE, format!("the certificate is invalid ({why})"), IN_PEM)
                }
                _ => TlsFailure::of_material(KEY, error, "give the private key of the certificate in tls.crt"),
            })?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(config)
}

/// The authorities of a PEM bundle, or those of the system.
fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, TlsFailure> {
    match ca {
        Some(pem) => store(certificates(CA, pem)?)
            .ok_or_else(|| TlsFailure::of_material(CA, "no certificate of an authority can be read", IN_PEM)),
        None => roots_of_system(rustls_native_certs::load_native_certs()),
    }
}

fn roots_of_system(found: CertificateResult) -> Result<RootCertStore, TlsFailure> {
    store(found.certs).ok_or_else(|| {
        let causes: String = found.errors.iter().map(|error| format!("; {error}")).collect();
        // The causes are last: there may be many, and a long text is cut.
        let remedy = format!("name etcd's own with tls.caSecretRef{causes}");
        TlsFailure::of_material("the system's authorities", "none is there that can be read", &remedy)
    })
}

/// `None` if no certificate can be read. Some may be of a kind that rustls does not know.
fn store(found: Vec<CertificateDer<'static>>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    (roots.add_parsable_certificates(found).0 > 0).then_some(roots)
}

fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFailure> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsFailure::of_material(name, "no certificate is there", IN_PEM)),
        found => found.map_err(|error| TlsFailure::of_material(name, error, IN_PEM)),
    }
}

#[cfg(test)]
mod tests {
    use rustls_native_certs::ErrorKind;

    use super::*;

    #[test]
    fn a_system_without_authorities_tells_where_they_were_looked_for() {
        let mut found = CertificateResult::default();
        let told = |found| roots_of_system(found).unwrap_err().to_string();
        let plain = "the system's authorities: none is there that can be read; name etcd's own with tls.caSecretRef";
        assert_eq!(told(CertificateResult::default()), plain);
        let kind = ErrorKind::Io { inner: io::ErrorKind::PermissionDenied.into(), path: "/etc/ssl/ca.pem".into() };
        found.errors.push(rustls_native_certs::Error { context: "failed to open file", kind });
        assert_eq!(told(found), format!("{plain}; failed to open file: permission denied at '/etc/ssl/ca.pem'"));
    }
}
