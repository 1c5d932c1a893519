//! Connections, one endpoint at a time.
//!
//! Owns the user of a connection and the order of endpoints: each connection goes to one member, and the next
//! begins with the member after it. A client that balances over several endpoints neither ejects nor retries one that
//! is down: with one of two endpoints refusing, every second call fails (measured with etcd-client 0.21.1;
//! `docs/decisions/0005`). Refuses to wait between attempts, which the session does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use etcd_client::ConnectOptions;

use super::EtcdRegistry;
use super::call::{CALL, call};
use super::dial::{Dialer, Tcp};
use super::settings::Settings;
use crate::registry::{Connector, Registry, RegistryError, Result};

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
        let dialer = Tcp::new(settings.tls.as_ref());
        Self::over(settings, Arc::new(dialer))
    }

    /// Connects in another way.
    pub fn over(settings: Settings, dialer: Arc<dyn Dialer>) -> Self {
        Self { settings, dialer, next: AtomicUsize::new(0), too_large: Arc::default() }
    }

    fn options(&self) -> ConnectOptions {
        let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        match &self.settings.user {
            Some((name, password)) => options.with_user(name, password),
            None => options,
        }
    }

    /// Connects to one member.
    pub(super) async fn open(&self, endpoint: &str) -> Result<EtcdRegistry> {
        self.connect_to(endpoint).await.map_err(|error| self.explained(error))
    }

    async fn connect_to(&self, endpoint: &str) -> Result<EtcdRegistry> {
        let client = call("connect", CALL, self.dialer.dial(endpoint, self.options())).await?;
        let mut registry = EtcdRegistry::new(client, endpoint, self.too_large.clone());
        // Connections are lazy: only an answer proves that the server is there.
        registry.cluster_id = registry.status().await?.cluster_id;
        Ok(registry)
    }

    /// Of a password the server says only that it is wrong.
    fn explained(&self, error: RegistryError) -> RegistryError {
        let RegistryError::AuthFailed(text) = &error else { return error };
        let odd = self.settings.user.as_ref().and_then(|(name, password)| trailing_newline(name, password));
        odd.map_or(error.clone(), |odd| RegistryError::AuthFailed(format!("{text}; {odd}")))
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
