use std::future::pending;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::registry::etcd::{EtcdConnector, Settings};
use crate::registry::{Connector, RegistryError};

/// An authority, and the certificate and key that it issued for localhost.
struct Pki {
    ca: String,
    identity: (String, String),
}

impl Pki {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self { ca: issuer.pem(), identity: (certificate.pem(), key.serialize_pem()) }
    }

    /// A server for clients with a certificate of this authority.
    fn acceptor(&self, alpn: &[u8]) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(self.identity.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.identity.1.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    fn settings(&self, with_identity: bool) -> TlsSettings {
        let pem = |text: &String| text.clone().into_bytes();
        let identity = with_identity.then(|| (pem(&self.identity.0), pem(&self.identity.1)));
        TlsSettings { ca: Some(pem(&self.ca)), identity, server_name: None }
    }
}

/// Serves TLS, and closes each connection after the handshake. Returns the endpoint.
async fn serve(acceptor: TlsAcceptor) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let _ = stream.shutdown().await;
            }
        }
    });
    format!("https://localhost:{port}")
}

async fn failure(endpoint: &str, tls: TlsSettings) -> RegistryError {
    let settings = Settings { endpoints: vec![endpoint.to_owned()], tls: Some(tls), user: None };
    EtcdConnector::new(settings).connect().await.err().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_client_is_told_the_reason_each_time() {
    let pki = Pki::new("ours");
    let endpoint = serve(pki.acceptor(b"h2")).await;
    for n in 0..200 {
        let failed = failure(&endpoint, pki.settings(false)).await;
        assert_eq!(failed, RegistryError::TlsFailed("received fatal alert: CertificateRequired".to_owned()), "{n}");
    }
    let stranger = TlsSettings { ca: Some(pki.ca.clone().into_bytes()), ..Pki::new("a stranger's").settings(true) };
    for n in 0..200 {
        let failed = failure(&endpoint, stranger.clone()).await;
        assert_eq!(failed, RegistryError::TlsFailed("received fatal alert: UnknownCA".to_owned()), "{n}");
    }
}

#[tokio::test]
async fn each_failure_of_the_handshake_has_its_reason() {
    let pki = Pki::new("ours");
    let endpoint = serve(pki.acceptor(b"h2")).await;
    let failed = |tls: TlsSettings| failure(&endpoint, tls);
    let told = |error: RegistryError, words: &str| match error {
        RegistryError::TlsFailed(text) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    };
    let known = || pki.settings(true);
    told(failed(TlsSettings { ca: Pki::new("a stranger's").settings(true).ca, ..known() }).await, "UnknownIssuer");
    let none = rustls_native_certs::load_native_certs().certs.is_empty();
    let of_system = if none { "the system's authorities: none" } else { "UnknownIssuer" };
    told(failed(TlsSettings { ca: None, ..known() }).await, of_system);
    told(failed(TlsSettings { server_name: Some("other".to_owned()), ..known() }).await, "not valid for name");
}

#[tokio::test]
async fn material_that_cannot_be_used_is_named_with_its_remedy() {
    let pki = Pki::new("ours");
    let endpoint = serve(pki.acceptor(b"h2")).await;
    let known = || pki.settings(true);
    let (certificate, key) = known().identity.unwrap();
    let strange_key = Pki::new("a stranger's").settings(true).identity.unwrap().1;
    let pem = |text: &str| text.as_bytes().to_vec();
    let no_der = pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let no_base64 = pem("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n");
    let ca = |ca: Vec<u8>| TlsSettings { ca: Some(ca), ..known() };
    let identity = |certificate: &[u8], key: &[u8]| TlsSettings {
        identity: Some((certificate.to_vec(), key.to_vec())),
        ..known()
    };
    let named = |name: &str| TlsSettings { server_name: Some(name.to_owned()), ..known() };
    for (settings, told) in [
        (ca(pem("no PEM")), "ca.crt: no certificate is there; give certificates in PEM"),
        (ca(no_base64.clone()), "ca.crt: base64 decode error: "),
        (ca(no_der.clone()), "ca.crt: no certificate of an authority can be read; give certificates in PEM"),
        (identity(b"", &key), "tls.crt: no certificate is there; give certificates in PEM"),
        (identity(&key, &certificate), "tls.crt: no certificate is there; give certificates in PEM"),
        (identity(&no_base64, &key), "tls.crt: base64 decode error: "),
        (identity(&no_der, &key), "tls.crt: invalid peer certificate: BadEncoding; give certificates in PEM"),
        (
            identity(&certificate, b""),
            "tls.key: no private key is there that can be read (no items found); give it in PEM, without a passphrase",
        ),
        (
            identity(&certificate, &strange_key),
            "tls.key: keys may not be consistent: KeyMismatch; give the private key of the certificate in tls.crt",
        ),
        (
            named("no name"),
            "tls.serverName: no certificate can have the name \"no name\" (invalid dns name); \
             give a name that is in the server's certificate",
        ),
    ] {
        match failure(&endpoint, settings).await {
            RegistryError::TlsFailed(text) if told.ends_with(": ") => assert!(text.starts_with(told), "{text}"),
            RegistryError::TlsFailed(text) => assert_eq!(text, told),
            other => panic!("{told}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_ends_an_accepted_connection_is_no_failure_of_tls() {
    let pki = Pki::new("ours");
    let unreachable = |error: RegistryError, words: &str| match error {
        RegistryError::Unreachable(text) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    };
    unreachable(failure(&serve(pki.acceptor(b"h2")).await, pki.settings(true)).await, "");
    // Nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    drop(listener);
    unreachable(failure(&nobody, pki.settings(true)).await, "Connection refused");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_in_the_handshake_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let accepted = listener.accept().await;
        pending::<()>().await;
        drop(accepted);
    });
    let failed = failure(&endpoint, Pki::new("a stranger's").settings(true)).await;
    assert!(matches!(failed, RegistryError::Unreachable(_)), "{failed:?}");
}

#[test]
fn an_alert_counts_until_a_connection_fails_in_another_way() {
    let alert = Alert::default();
    assert_eq!(alert.or("closed").to_string(), "closed");
    let rejected = tokio_rustls::rustls::Error::General("rejected".to_owned());
    let rejected = std::io::Error::new(std::io::ErrorKind::InvalidData, rejected);
    alert.note(&std::io::Error::other("broken pipe"));
    assert_eq!(alert.or("closed").to_string(), "closed");
    alert.note(&rejected);
    assert!(alert.or("closed").to_string().contains("rejected"));
    alert.forget();
    assert_eq!(alert.or("closed").to_string(), "closed");
}
