use std::future::pending;
use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncWriteExt, copy_bidirectional, duplex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic::service::Routes;

use super::super::call::call;
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

    /// A server for clients with a certificate of the same authority.
    fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_of(self, &[b"h2"])
    }

    /// A server for clients with a certificate of the second authority.
    fn acceptor_of(&self, clients: &Self, alpn: &[&[u8]]) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.ca.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(self.identity.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.identity.1.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    fn settings(&self, with_identity: bool) -> TlsSettings {
        let pem = |text: &String| text.clone().into_bytes();
        let identity = with_identity.then(|| (pem(&self.identity.0), pem(&self.identity.1)));
        TlsSettings { ca: Some(pem(&self.ca)), identity, server_name: None }
    }
}

/// The end of a connection after its handshake.
#[derive(Clone, Copy)]
enum Then {
    Close,
    /// Answers every call that it knows no service.
    Answer,
}

/// A server that may change between two connections.
struct Server {
    endpoint: String,
    manners: watch::Sender<(TlsAcceptor, Then)>,
}

impl Server {
    async fn start(acceptor: TlsAcceptor, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (manners, mut now) = watch::channel((acceptor, then));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, then) = now.borrow_and_update().clone();
                tokio::select! {
                    () = attend(tcp, acceptor, then) => {}
                    _ = now.changed() => {}
                }
            }
        });
        Self { endpoint, manners }
    }

    async fn closing(acceptor: TlsAcceptor) -> Self {
        Self::start(acceptor, Then::Close).await
    }

    /// Ends the connection. The next ones find this server.
    fn becomes(&self, acceptor: TlsAcceptor, then: Then) {
        self.manners.send_replace((acceptor, then));
    }
}

async fn attend(tcp: TcpStream, acceptor: TlsAcceptor, then: Then) {
    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
    match then {
        Then::Close => drop(stream.shutdown().await),
        Then::Answer => {
            let (mut near, far) = duplex(65536);
            let incoming = futures::stream::iter([Ok::<_, io::Error>(far)]);
            let served =
                tonic::transport::Server::builder().add_routes(Routes::default()).serve_with_incoming(incoming);
            let _ = tokio::join!(served, copy_bidirectional(&mut stream, &mut near));
        }
    }
}

async fn failure(endpoint: &str, tls: TlsSettings) -> RegistryError {
    let settings = Settings { endpoints: vec![endpoint.to_owned()], tls: Some(tls), user: None };
    EtcdConnector::new(settings).connect().await.err().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_client_is_told_the_reason_each_time() {
    let pki = Pki::new("ours");
    let server = Server::closing(pki.acceptor()).await;
    for n in 0..200 {
        let failed = failure(&server.endpoint, pki.settings(false)).await;
        assert_eq!(failed, RegistryError::TlsFailed("received fatal alert: CertificateRequired".to_owned()), "{n}");
    }
    let stranger = TlsSettings { ca: Some(pki.ca.clone().into_bytes()), ..Pki::new("a stranger's").settings(true) };
    for n in 0..200 {
        let failed = failure(&server.endpoint, stranger.clone()).await;
        assert_eq!(failed, RegistryError::TlsFailed("received fatal alert: UnknownCA".to_owned()), "{n}");
    }
}

#[tokio::test]
async fn each_failure_of_the_handshake_has_its_reason() {
    let pki = Pki::new("ours");
    let server = Server::closing(pki.acceptor()).await;
    let failed = |tls: TlsSettings| failure(&server.endpoint, tls);
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
    let server = Server::closing(pki.acceptor()).await;
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
        (identity(&no_der, &key), "tls.crt: the certificate is invalid (BadEncoding); give certificates in PEM"),
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
        match failure(&server.endpoint, settings).await {
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
    let server = Server::closing(pki.acceptor()).await;
    unreachable(failure(&server.endpoint, pki.settings(true)).await, "transport error");
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
    let RegistryError::Unreachable(text) = failed else { panic!("{failed:?}") };
    assert!(text.contains("no answer to TLS within 3 s"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_lookup_and_tls_share_one_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let uri = Uri::from_static("https://localhost:2379");
    let tls = Tls::new(&uri, &Pki::new("ours").settings(true)).unwrap();
    let opened = |takes: Duration, tcp: Option<TcpStream>, words: &'static str| {
        let (uri, tls, mut tcp) = (uri.clone(), tls.clone(), tcp);
        let connector = service_fn(move |_: Uri| {
            let tcp = tcp.take();
            async move {
                sleep(takes).await;
                tcp.map(TokioIo::new).ok_or("gone")
            }
        });
        async move {
            let begun = Instant::now();
            let error = open(connector, uri, tls, LatestAlert::default()).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            // Timers count in milliseconds.
            assert!(begun.elapsed() < CONNECT + Duration::from_millis(5), "{:?}", begun.elapsed());
        }
    };
    opened(Duration::MAX, None, "no address and connection within 3 s").await;
    opened(CONNECT / 3 * 2, Some(tcp), "no answer to TLS within 3 s").await;
}

#[tokio::test]
async fn a_server_without_http2_is_told() {
    let pki = Pki::new("ours");
    let server = Server::closing(pki.acceptor_of(&pki, &[])).await;
    let failed = failure(&server.endpoint, pki.settings(true)).await;
    let RegistryError::Unreachable(text) = failed else { panic!("{failed:?}") };
    assert!(text.contains("the server does not speak HTTP/2"), "{text}");
    let server = Server::closing(pki.acceptor_of(&pki, &[b"http/1.1"])).await;
    let failed = failure(&server.endpoint, pki.settings(true)).await;
    assert_eq!(failed, RegistryError::TlsFailed("received fatal alert: NoApplicationProtocol".to_owned()));
}

/// Calls until a call ends as expected: the first may still go over the connection before.
async fn comes(client: &mut Client, expected: impl Fn(&RegistryError) -> bool) {
    let mut seen = Vec::new();
    for _ in 0..20 {
        let error = call("status", CALL, client.status()).await.unwrap_err();
        if expected(&error) {
            return;
        }
        seen.push(error);
    }
    panic!("{seen:?}");
}

fn answered(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Server(_))
}

fn ended(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Unreachable(_))
}

fn fails(text: &str) -> impl Fn(&RegistryError) -> bool {
    move |error| *error == RegistryError::TlsFailed(text.to_owned())
}

/// One channel outlives changes of the server and of the authorities.
#[tokio::test]
async fn a_channel_that_connects_again_is_told_the_reason() {
    let (ours, later) = (Pki::new("ours"), Pki::new("later"));
    let server = Server::start(ours.acceptor(), Then::Answer).await;
    let dialer = Tcp::new(Some(&ours.settings(true)));
    let mut client = dialer.dial(&server.endpoint, ConnectOptions::new()).await.unwrap();
    comes(&mut client, answered).await;
    // The authority of the clients has changed.
    server.becomes(ours.acceptor_of(&later, &[b"h2"]), Then::Answer);
    comes(&mut client, fails("received fatal alert: UnknownCA")).await;
    // The authority of the server has changed.
    server.becomes(later.acceptor(), Then::Answer);
    comes(&mut client, fails("invalid peer certificate: UnknownIssuer")).await;
    server.becomes(ours.acceptor(), Then::Answer);
    comes(&mut client, answered).await;
}

#[tokio::test]
async fn the_alert_of_one_connection_is_no_cause_for_the_next() {
    let (ours, later) = (Pki::new("ours"), Pki::new("later"));
    let server = Server::closing(ours.acceptor_of(&later, &[b"h2"])).await;
    let dialer = Tcp::new(Some(&ours.settings(true)));
    let mut client = dialer.dial(&server.endpoint, ConnectOptions::new()).await.unwrap();
    comes(&mut client, fails("received fatal alert: UnknownCA")).await;
    server.becomes(ours.acceptor(), Then::Close);
    comes(&mut client, ended).await;
}

#[test]
fn the_first_alert_of_a_connection_counts_until_the_next_connection() {
    let latest = LatestAlert::default();
    let told = || latest.or("closed").to_string();
    let alert = |reason: &str| io::Error::other(tokio_rustls::rustls::Error::General(reason.to_owned()));
    let first = latest.renew();
    first.note(&io::Error::other("broken pipe"));
    assert_eq!(told(), "closed");
    first.note(&alert("rejected"));
    first.note(&alert("after the end"));
    assert_eq!(told(), "unexpected error: rejected");
    // The second is silent. The end of the first, if it is late, is not the second's.
    latest.renew();
    assert_eq!(told(), "closed");
    first.note(&alert("late"));
    assert_eq!(told(), "closed");
}
