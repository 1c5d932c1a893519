//! A TLS handshake that finds the reason of a closed connection.
//!
//! Owns one more connection to the endpoint, and reads the server's alert from it. With TLS 1.3 a server rejects a
//! client's certificate after the handshake, instead of its first answer (RFC 8446, 4.4.2.4), and the HTTP client no
//! longer looks for an alert then (`docs/decisions/0019`). Refuses to know etcd: it sends no request.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::settings::{CONNECT, TlsSettings};

/// The default port of `https` (RFC 9110, 4.2.2).
const HTTPS: u16 = 443;
/// Time in which a server rejects our certificate.
const REFUSAL: Duration = Duration::from_millis(500);

/// The reason why TLS with the endpoint fails; `None` if TLS works or the endpoint does not use it.
pub async fn refusal(endpoint: &str, tls: &TlsSettings) -> Option<String> {
    let uri: http::Uri = endpoint.parse().ok().filter(|uri: &http::Uri| uri.scheme_str() == Some("https"))?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(HTTPS);
    let config = match config(tls) {
        Ok(config) => config,
        Err(error) => return Some(error),
    };
    let name = tls.server_name.clone().unwrap_or_else(|| host.clone());
    let name = ServerName::try_from(name).ok()?;
    let stream = timeout(CONNECT, TcpStream::connect((host, port))).await.ok()?.ok()?;
    let mut stream = match timeout(CONNECT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.ok()? {
        Ok(stream) => stream,
        Err(error) => return of_tls(&error),
    };
    match timeout(REFUSAL, stream.read_u8()).await {
        Ok(Err(error)) => of_tls(&error),
        // The server accepted the certificate and waits for a request.
        Ok(Ok(_)) | Err(_) => None,
    }
}

fn of_tls(error: &std::io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

fn config(tls: &TlsSettings) -> Result<ClientConfig, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|e| text(&e))?).map_err(|e| text(&e))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| text(&e))?
        .with_root_certificates(roots);
    let mut config = match &tls.identity {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|e| text(&e))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| text(&e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| text(&e))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
