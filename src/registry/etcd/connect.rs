//! Connections, one endpoint at a time.
//!
//! Owns the settings of a connection and the order of endpoints: each connection goes to one member, and the next
//! begins with the member after it. A client that balances over several endpoints neither ejects nor retries one that
//! is down: with one of two endpoints refusing, every second call fails (measured with etcd-client 0.21.1;
//! `docs/decisions/0005`). Refuses to wait between attempts, which the session does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::call::{CALL, call};
use super::dial::{Dialer, Tcp};
use super::settings::{CONNECT, Settings, TlsSettings};
use super::{EtcdRegistry, handshake};
use crate::registry::{Connector, Registry, RegistryError, Result};

/// Interval of HTTP/2 pings, even on an idle connection: a frozen server must not look like a quiet one.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the endpoints in turn.
#[derive(Debug)]
pub struct EtcdConnector {
    settings: Settings,
    dialer: Arc<dyn Dialer>,
    next: AtomicUsize,
    too_large: Arc<AtomicBool>,
}

impl EtcdConnector {
    /// Connects over TCP.
    pub fn new(settings: Settings) -> Self {
        Self::over(settings, Arc::new(Tcp))
    }

    /// Connects in another way.
    pub fn over(settings: Settings, dialer: Arc<dyn Dialer>) -> Self {
        Self { settings, dialer, next: AtomicUsize::new(0), too_large: Arc::default() }
    }

    fn options(&self) -> ConnectOptions {
        // Not `default()`, which disables pings on an idle connection.
        let mut options = ConnectOptions::new()
            .with_keep_alive(PING, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(CONNECT)
            .with_timeout(CALL * 4)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = &self.settings.user {
            options = options.with_user(name, password);
        }
        if let Some(tls) = &self.settings.tls {
            options = options.with_tls(tls_options(tls));
        } else if self.settings.endpoints.iter().any(|e| e.starts_with("https://")) {
            options = options.with_tls(TlsOptions::new().with_enabled_roots());
        }
        options
    }

    /// Connects to one member. The error has the reason of a TLS failure.
    pub(super) async fn open(&self, endpoint: &str) -> Result<EtcdRegistry> {
        match self.connect_to(endpoint).await {
            Ok(registry) => Ok(registry),
            Err(error) => Err(self.explained(endpoint, error).await),
        }
    }

    async fn connect_to(&self, endpoint: &str) -> Result<EtcdRegistry> {
        let client = call("connect", CALL, self.dialer.dial(endpoint, self.options())).await?;
        let mut registry = EtcdRegistry::new(client, endpoint, self.too_large.clone());
        // Connections are lazy: only an answer proves that the server is there.
        registry.cluster_id = registry.status().await?.cluster_id;
        Ok(registry)
    }

    /// The server may have closed the connection because of our certificate. Of a password it says only that it is
    /// wrong.
    async fn explained(&self, endpoint: &str, error: RegistryError) -> RegistryError {
        if let RegistryError::AuthFailed(text) = &error {
            let odd = self.settings.user.as_ref().and_then(|(name, password)| trailing_newline(name, password));
            return odd.map_or(error.clone(), |odd| RegistryError::AuthFailed(format!("{text}; {odd}")));
        }
        if !matches!(error, RegistryError::Unreachable(_)) {
            return error;
        }
        let tls = self.settings.tls.clone().unwrap_or_default();
        handshake::refusal(endpoint, &tls).await.map_or(error, RegistryError::TlsFailed)
    }
}

/// Files and `echo` end in a newline, and so do Secrets that are made of them.
fn trailing_newline(name: &str, password: &str) -> Option<&'static str> {
    let ends = |text: &str| text.ends_with(['\n', '\r']);
    match (ends(name), ends(password)) {
        (_, true) => {
            Some("the password in the Secret ends in a newline: write it with printf, or with kubectl create secret")
        }
        (true, false) => Some("the username in the Secret ends in a newline"),
        (false, false) => None,
    }
}

fn tls_options(tls: &TlsSettings) -> TlsOptions {
    let mut options = TlsOptions::new();
    options = match &tls.ca {
        Some(ca) => options.ca_certificate(Certificate::from_pem(ca)),
        None => options.with_enabled_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name);
    }
    options
}

#[async_trait]
impl Connector for EtcdConnector {
    async fn connect(&self) -> Result<Arc<dyn Registry>> {
        let endpoints = &self.settings.endpoints;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut failed = RegistryError::NotConnected;
        for n in 0..endpoints.len() {
            let endpoint = &endpoints[(first + n) % endpoints.len()];
            match self.open(endpoint).await {
                Ok(registry) => return Ok(Arc::new(registry)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_behind_a_password_is_named() {
        for (name, password, told) in [("u", "p\n", true), ("u", "p\r\n", true), ("u\n", "p", true), ("u", "p", false)]
        {
            let text = trailing_newline(name, password);
            assert_eq!(text.is_some(), told, "{password:?}");
            assert!(text.is_none_or(|text| text.contains("in a newline")), "{text:?}");
        }
    }
}
